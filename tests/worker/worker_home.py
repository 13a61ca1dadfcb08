"""A storage folder with a database, and the parts of the plugin that run on it as real processes."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import psutil
from pydicom import dcmread
from sqlalchemy import Engine, select

from cds_db import studies
from cds_db.events import Event
from cds_db.handling import Handling
from cds_db.migrate import upgrade
from cds_db.models import AuditEntry
from cds_db.processes import alive
from cds_db.session import open_engine, transaction
from cds_db.studies import ReceivedInstance, StudyStatus
from cds_plugin.config import Settings, load_settings
from cds_plugin.supervisor import die_with
from cds_worker.app import PART_NAME

READY_SECONDS = 120.0
POLL_SECONDS = 0.1
RECOVERY_SECONDS = 30.0
USUAL_START_SECONDS = 15.0
"""Mostly the import of torch and MONAI."""
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
SETTINGS = """
[listener]
port = 1
[[destinations]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 1
[[rules]]
calling_ae = "SENDER"
results_to = []
[[rules]]
calling_ae = "*"
results_to = ["pacs"]
"""


@dataclass
class Home:
    """A storage folder with database and settings, and what runs on it."""

    folder: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    start_seconds: float = 0.0
    """How long the worker took to start when it was started last."""

    @property
    def config(self) -> Path:
        return self.folder / "cds-plugin.toml"

    @property
    def settings(self) -> Settings:
        return load_settings(self.config, environment={})

    @cached_property
    def engine(self) -> Engine:
        return open_engine(self.settings.database.url)

    def start(self, name: str) -> int:
        """Start a part as a process of its own; return its process id."""
        command = [sys.executable, "-m", "cds_plugin", name, "--config", str(self.config)]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, **ONE_THREAD},
                start_new_session=True,
                preexec_fn=die_with(os.getpid()),
            )
        return self.running[name].pid

    def start_worker(self) -> int:
        """Start the worker and wait until it says hello; return the parent's process id."""
        since, start = datetime.now(UTC), time.monotonic()
        pid = self.start("worker")
        process = self.running["worker"]
        wait_until(lambda: bool(self.workers(since)) or process.poll() is not None, READY_SECONDS, self.log)
        assert process.poll() is None, self.log()
        self.start_seconds = time.monotonic() - start
        return pid

    @property
    def recovery_seconds(self) -> float:
        """Return the 30 s that are promised, more where starting a worker alone takes unusually long."""
        return RECOVERY_SECONDS * max(1.0, self.start_seconds / USUAL_START_SECONDS)

    def workers(self, since: datetime) -> list[int]:
        """Return the process ids of the children that said hello since then."""
        with transaction(self.engine) as session:
            return [each.pid for each in alive(session, since) if each.name == PART_NAME]

    def stop(self) -> None:
        """End every part, the broker last."""
        for name in sorted(self.running, key=lambda each: each == "broker"):
            self.running[name].send_signal(signal.SIGTERM)
            self.running[name].wait(READY_SECONDS)

    def log(self) -> str:
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.folder.glob("*.log")))

    def receive(
        self,
        files: list[Path],
        *,
        calling_ae: str = "SENDER",
        patient_id: str | None = None,
        handling: Handling | None = None,
    ) -> int:
        """Put files into the spool as the listener does; return the revision that they joined."""
        revision = 0
        for file in files:
            received = replace(self._spool(file, calling_ae, patient_id), handling=handling)
            with transaction(self.engine) as session:
                stored = studies.record_instance(session, received, now=datetime.now(UTC), actor="listener")
            revision = stored.revision_id or revision
        return revision

    def close(self, revision: int) -> int:
        """Close a revision as the sweeper does; return the job."""
        with transaction(self.engine) as session:
            return studies.close_revision(session, revision, now=datetime.now(UTC), actor="sweep")

    def status(self, study_instance_uid: str) -> StudyStatus:
        with transaction(self.engine) as session:
            found = studies.status(session, study_instance_uid)
        assert found is not None
        return found

    def started(self) -> list[str]:
        """Return the studies whose analysis began, in that order."""
        wanted = select(AuditEntry.study_instance_uid).where(AuditEntry.event == Event.ANALYSIS_STARTED)
        with transaction(self.engine) as session:
            return [str(each) for each in session.scalars(wanted.order_by(AuditEntry.id))]

    def wait_for(self, study_instance_uid: str, stage: str, seconds: float) -> StudyStatus:
        """Return the study's status once it reached `stage`."""
        wait_until(lambda: self.status(study_instance_uid).stage == stage, seconds, self.log)
        return self.status(study_instance_uid)

    def _spool(self, file: Path, calling_ae: str, patient_id: str | None) -> ReceivedInstance:
        header = dcmread(file, stop_before_pixels=True)
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        path = Path("spool", sha256[:2], f"{sha256}.dcm")
        target = self.settings.storage.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
        return ReceivedInstance(
            sop_instance_uid=header.SOPInstanceUID,
            sop_class_uid=header.SOPClassUID,
            transfer_syntax_uid=header.file_meta.TransferSyntaxUID,
            study_instance_uid=header.StudyInstanceUID,
            series_instance_uid=header.SeriesInstanceUID,
            patient_id=patient_id or header.PatientID,
            issuer_of_patient_id="",
            sha256=sha256,
            size_bytes=target.stat().st_size,
            path=str(path),
            calling_ae=calling_ae,
            peer="127.0.0.1",
            association_id="association",
            reason_not_analysed=None,
        )


def make_home(folder: Path) -> Home:
    home = Home(folder)
    home.config.write_text(SETTINGS)
    upgrade(home.settings.database.url)
    return home


def wait_until(condition: Callable[[], bool], seconds: float, explain: Callable[[], str]) -> None:
    """Poll until the condition holds; fail with an explanation after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(POLL_SECONDS)


def is_running(pid: int) -> bool:
    """Return whether a process exists and is more than a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
