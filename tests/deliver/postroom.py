"""A database with finished analyses, the deliverer that empties it, and peers that take what it sends."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from drawn_objects import DERMOSCOPIC, SECONDARY_CAPTURE, SEGMENTATION, a_photograph, written
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.events import Event
from result_cases import TWO_LESIONS, analysis, dermoscopic, skin, with_answers
from sqlalchemy import Engine, select, update

from cds_db import audit, studies
from cds_db.models import Delivery, DestinationState, Job
from cds_db.session import open_engine, snapshot, transaction
from cds_plugin.config import Destination, Settings
from cds_plugin.deliver.task import Deliverer
from cds_plugin.results.build import BuiltResult, Wanted, build_results
from cds_plugin.study import USUAL_KINDS, ResultKind

LOOPBACK = "127.0.0.1"
KINDS = {"seg": SEGMENTATION, "sr": "1.2.840.10008.5.1.4.1.1.88.34", "overlay": SECONDARY_CAPTURE}
WAIT_SECONDS = 60


@dataclass
class Postroom:
    """A database with finished analyses and the deliverer that empties it."""

    settings: Settings
    engine: Engine
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self, job_id: int) -> None:
        Deliverer(self.settings, self.engine, self.stopping).run(job_id)

    def a_finished_analysis(self, *destinations: str) -> list[int]:
        """Write a study with one picture and its three results; return the delivery jobs."""
        source = a_photograph()
        return self._analysed(source, lambda: [self._result(kind, source) for kind in KINDS], destinations)

    def _analysed(
        self, source: object, build: Callable[[], list[studies.NewResult]], destinations: Sequence[str]
    ) -> list[int]:
        now = datetime.now(UTC)
        with transaction(self.engine) as session:
            stored = studies.record_instance(session, received(source), now=now, actor="CAMERA")
            assert stored.revision_id is not None
            studies.close_revision(session, stored.revision_id, now=now, actor="sweep")
            studies.start_analysis(session, stored.revision_id, now=now, actor="worker")
            studies.record_results(
                session, stored.revision_id, build(), now=now, actor="worker", detail={"lesions": []}
            )
            return studies.finish_analysis(session, stored.revision_id, destinations, now=now, actor="worker")

    def a_real_analysis(self, *destinations: str, kinds: frozenset[ResultKind] = USUAL_KINDS) -> list[int]:
        """Write a study whose one picture has the objects of those kinds, as the product makes them."""
        header = dermoscopic()
        header.StudyInstanceUID, header.SOPInstanceUID = generate_uid(), generate_uid()
        said, wanted = with_answers(analysis(*TWO_LESIONS)), Wanted(kinds)
        built = build_results(header, skin(), said, 1, wanted=wanted)
        return self._analysed(header, lambda: [self._kept(each, header) for each in built], destinations)

    def _kept(self, built: BuiltResult, source: object) -> studies.NewResult:
        path = f"results/{built.dataset.SOPInstanceUID}.dcm"
        file = self.settings.storage.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(built.as_bytes())
        return new_result(str(built.kind), built.dataset, source, path, file)

    def _result(self, kind: str, source: object) -> studies.NewResult:
        built = a_photograph(source.StudyInstanceUID, sop_class=KINDS[kind])
        path = f"results/{built.SOPInstanceUID}.dcm"
        file = written(built, self.settings.storage.directory / path)
        return new_result(kind, built, source, path, file)

    def delivery(self, job_id: int) -> Delivery:
        with snapshot(self.engine) as session:
            job = session.get_one(Job, job_id)
            return session.get_one(Delivery, job.subject_id)

    def job(self, job_id: int) -> Job:
        with snapshot(self.engine) as session:
            return session.get_one(Job, job_id)

    def stage(self) -> str:
        with snapshot(self.engine) as session:
            (status,) = studies.statuses(session, 1)
            return str(status.stage)

    def events(self) -> list[str]:
        with snapshot(self.engine) as session:
            return list(session.scalars(select(audit.AuditEntry.event).order_by(audit.AuditEntry.id)))

    def details(self, event: str) -> list[dict[str, object]]:
        """Return what the audit says of every such event."""
        wanted = select(audit.AuditEntry).where(audit.AuditEntry.event == event).order_by(audit.AuditEntry.id)
        with snapshot(self.engine) as session:
            return [dict(each.detail) for each in session.scalars(wanted)]

    def to(self, *places: Destination) -> None:
        """Have these destinations in the settings."""
        self.settings = self.settings.model_copy(update={"destinations": places})

    def make_due(self, job_id: int) -> None:
        """Have the job's wait be over, and the rest of every destination."""
        now = datetime.now(UTC)
        with transaction(self.engine) as session:
            session.get_one(Job, job_id).not_before = now
            resting = DestinationState.left_alone_until.is_not(None)
            session.execute(update(DestinationState).where(resting).values(left_alone_until=now))


def attempt(settings: Settings, job_id: int) -> None:
    """Do with a job what one deliverer does; for a process of its own."""
    Postroom(settings, open_engine(settings.database.url)).run(job_id)


def new_result(kind: str, dataset: object, source: object, path: str, file: Path) -> studies.NewResult:
    """Return the row of a file that lies below the storage directory."""
    return studies.NewResult(
        sop_instance_uid=dataset.SOPInstanceUID,
        sop_class_uid=dataset.SOPClassUID,
        kind=kind,
        source_sop_instance_uid=source.SOPInstanceUID,
        path=path,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        size_bytes=file.stat().st_size,
    )


def received(source: object) -> studies.ReceivedInstance:
    return studies.ReceivedInstance(
        sop_instance_uid=source.SOPInstanceUID,
        sop_class_uid=DERMOSCOPIC,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        study_instance_uid=source.StudyInstanceUID,
        series_instance_uid=source.SeriesInstanceUID,
        patient_id="P1",
        issuer_of_patient_id="",
        sha256="0" * 64,
        size_bytes=1,
        path="spool/00/0.dcm",
        calling_ae="CAMERA",
        peer=LOOPBACK,
        association_id="a",
        reason_not_analysed=None,
    )


@dataclass
class Pacs:
    """A pynetdicom SCP on loopback that answers as it is told and keeps what it took."""

    port: int
    answer: Callable[[Event], int] = field(default=lambda _event: 0x0000)
    taken: list[str] = field(default_factory=list)

    def __enter__(self) -> Pacs:
        entity = AE("PACS")
        for sop_class in KINDS.values():
            entity.add_supported_context(sop_class)
        self._server = entity.start_server(
            (LOOPBACK, self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.shutdown()

    def _store(self, event: Event) -> int:
        status = self.answer(event)
        if status in (0x0000, 0xB000):
            self.taken.append(str(event.request.AffectedSOPInstanceUID))
        return status


def until(condition: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.05)


@contextmanager
def a_storescp(folder: Path, port: int, *options: str) -> Iterator[None]:
    """Run dcmtk's storescp, which keeps the bytes it receives."""
    folder.mkdir(exist_ok=True)
    command = ["storescp", "-od", str(folder), "-pm", "+B", "-aet", "PACS", *(options or ("+xa",)), str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        until(lambda: answers(port))
        try:
            yield
        finally:
            server.terminate()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0
