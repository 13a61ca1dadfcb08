"""Deliveries out of a real database to real peers: once, byte for byte, again while the PACS is away."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from drawn_objects import DERMOSCOPIC, SECONDARY_CAPTURE, SEGMENTATION, a_photograph, written
from pydicom import dcmread
from pynetdicom import AE, evt
from pynetdicom.events import Event
from sqlalchemy import Engine, select

from cds_db import audit, jobs, studies
from cds_db.migrate import upgrade
from cds_db.models import Delivery, Job
from cds_db.session import open_engine, snapshot, transaction
from cds_db.stages import DeliveryState, JobKind, JobState
from cds_plugin.commitment.reporter import Reporter
from cds_plugin.config import Broker, Database, Destination, Settings, Storage
from cds_plugin.deliver.dispatch import Dispatcher
from cds_plugin.deliver.task import Deliverer
from cds_plugin.demo.orthanc import Orthanc
from cds_plugin.demo.ports import free_ports
from cds_plugin.queue import make_app, wake

pytestmark = pytest.mark.slow

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
        now = datetime.now(UTC)
        source = a_photograph()
        with transaction(self.engine) as session:
            stored = studies.record_instance(session, _received(source), now=now, actor="CAMERA")
            assert stored.revision_id is not None
            studies.close_revision(session, stored.revision_id, now=now, actor="sweep")
            studies.start_analysis(session, stored.revision_id, now=now, actor="worker")
            results = [self._result(kind, source) for kind in KINDS]
            studies.record_results(
                session, stored.revision_id, results, now=now, actor="worker", detail={"lesions": []}
            )
            return studies.finish_analysis(session, stored.revision_id, destinations, now=now, actor="worker")

    def _result(self, kind: str, source: object) -> studies.NewResult:
        built = a_photograph(source.StudyInstanceUID, sop_class=KINDS[kind])
        path = f"results/{built.SOPInstanceUID}.dcm"
        file = written(built, self.settings.storage.directory / path)
        return studies.NewResult(
            sop_instance_uid=built.SOPInstanceUID,
            sop_class_uid=KINDS[kind],
            kind=kind,
            source_sop_instance_uid=source.SOPInstanceUID,
            path=path,
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
            size_bytes=file.stat().st_size,
        )

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

    def make_due(self, job_id: int) -> None:
        with transaction(self.engine) as session:
            session.get_one(Job, job_id).not_before = datetime.now(UTC)


def _received(source: object) -> studies.ReceivedInstance:
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


@pytest.fixture
def ports() -> list[int]:
    return free_ports(2)


@pytest.fixture
def postroom(tmp_path: Path, ports: list[int]) -> Iterator[Postroom]:
    url = f"sqlite:///{tmp_path / 'cds.db'}"
    upgrade(url)
    settings = Settings(
        storage=Storage(directory=tmp_path / "var"),
        database=Database(url=url),
        destinations=tuple(
            Destination(name=name, ae_title="PACS", host=LOOPBACK, port=port)
            for name, port in zip(("pacs", "second"), ports, strict=True)
        ),
    )
    engine = open_engine(url)
    yield Postroom(settings, engine)
    engine.dispose()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.05)


def test_orthanc_gets_the_recorded_bytes_once(postroom: Postroom, orthanc: Orthanc) -> None:
    place = Destination(name="pacs", ae_title="ORTHANC", host=LOOPBACK, port=orthanc.dicom_port)
    postroom.settings = postroom.settings.model_copy(update={"destinations": (place,)})
    (job_id,) = postroom.a_finished_analysis("pacs")
    postroom.run(job_id)
    postroom.run(job_id)
    assert postroom.delivery(job_id).state is DeliveryState.DELIVERED
    assert (postroom.stage(), postroom.job(job_id).state) == ("complete", JobState.DONE)
    ids = orthanc.get("/instances")
    assert len(ids) == 3
    (postroom.settings.storage.directory / "back.dcm").write_bytes(orthanc.instance_file(ids[0]))
    back = dcmread(postroom.settings.storage.directory / "back.dcm")
    sent = dcmread(postroom.settings.storage.directory / "results" / f"{back.SOPInstanceUID}.dcm")
    assert back == sent
    assert postroom.events().count("object-delivered") == 3
    assert postroom.events()[-1] == "delivery-finished"


def test_a_pacs_that_is_away_is_tried_again(postroom: Postroom, ports: list[int]) -> None:
    (job_id,) = postroom.a_finished_analysis("pacs")
    for attempt in (1, 2):
        postroom.run(job_id)
        delivery, job = postroom.delivery(job_id), postroom.job(job_id)
        assert (delivery.state, delivery.attempts) == (DeliveryState.PENDING, attempt)
        assert "cannot be reached" in (delivery.last_error or "")
        assert job.state is JobState.WAITING and job.not_before > datetime.now(UTC)
        postroom.make_due(job_id)
    with Pacs(ports[0]) as pacs:
        postroom.run(job_id)
    assert len(pacs.taken) == 3 and postroom.stage() == "complete"
    assert postroom.events().count("delivery-retried") == 2
    assert postroom.delivery(job_id).last_error is None


def test_only_what_was_not_taken_is_sent_again(postroom: Postroom, ports: list[int]) -> None:
    (job_id,) = postroom.a_finished_analysis("pacs")
    full = Pacs(ports[0], answer=lambda event: 0xA700 if len(full.taken) else 0x0000)
    with full:
        postroom.run(job_id)
    assert len(full.taken) == 1
    assert "0xA700" in (postroom.delivery(job_id).last_error or "")
    wait = postroom.job(job_id).not_before - datetime.now(UTC)
    assert wait > timedelta(seconds=10), "a refusal is tried again slowly"
    postroom.make_due(job_id)
    time.sleep(0.1)
    with Pacs(ports[0]) as pacs:
        postroom.run(job_id)
    assert len(pacs.taken) == 2 and not set(pacs.taken) & set(full.taken)
    assert postroom.stage() == "complete"


def test_a_warning_is_a_delivery(postroom: Postroom, ports: list[int]) -> None:
    (job_id,) = postroom.a_finished_analysis("pacs")
    with Pacs(ports[0], answer=lambda _event: 0xB000):
        postroom.run(job_id)
    assert postroom.stage() == "complete"


def test_an_unknown_destination_fails_with_its_reason(postroom: Postroom) -> None:
    (job_id,) = postroom.a_finished_analysis("attic")
    postroom.run(job_id)
    delivery = postroom.delivery(job_id)
    assert delivery.state is DeliveryState.FAILED and "attic" in (delivery.last_error or "")
    assert (postroom.stage(), postroom.job(job_id).state) == ("failed", JobState.DEAD)


def test_a_result_that_was_changed_is_never_sent(postroom: Postroom, ports: list[int]) -> None:
    (job_id,) = postroom.a_finished_analysis("pacs")
    victim = next((postroom.settings.storage.directory / "results").iterdir())
    victim.write_bytes(victim.read_bytes()[:-1] + b"\1")
    with Pacs(ports[0]) as pacs:
        postroom.run(job_id)
    assert not pacs.taken and postroom.delivery(job_id).state is DeliveryState.FAILED


def test_a_delivery_at_work_is_not_started_twice(postroom: Postroom, ports: list[int]) -> None:
    (job_id,) = postroom.a_finished_analysis("pacs")
    with Pacs(ports[0], answer=lambda _event: time.sleep(0.3) or 0x0000) as pacs:
        threads = [threading.Thread(target=postroom.run, args=(job_id,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(pacs.taken) == 3 and postroom.events().count("delivery-started") == 1


def test_a_study_put_on_hold_in_between_gets_no_more(postroom: Postroom, ports: list[int]) -> None:
    (job_id,) = postroom.a_finished_analysis("pacs")

    def put_on_hold(_event: Event) -> int:
        with transaction(postroom.engine) as session:
            (status,) = studies.statuses(session, 1)
            stranger = a_photograph(status.study_instance_uid)
            disagreeing = _received(stranger)
            changed = {name: getattr(disagreeing, name) for name in disagreeing.__slots__}
            changed |= {"patient_id": "P2"}
            studies.record_instance(
                session, studies.ReceivedInstance(**changed), now=datetime.now(UTC), actor="CAMERA"
            )
        return 0x0000

    with Pacs(ports[0], answer=put_on_hold) as pacs:
        postroom.run(job_id)
    assert len(pacs.taken) == 1
    assert postroom.delivery(job_id).state is DeliveryState.HELD and postroom.stage() == "conflict"


def test_destinations_do_not_block_each_other(postroom: Postroom, ports: list[int]) -> None:
    """The first destination accepts connections and never says a word."""
    stuck, second = zip(*(postroom.a_finished_analysis("pacs", "second") for _ in range(4)), strict=True)
    with socket.create_server((LOOPBACK, ports[0])), Pacs(ports[1]) as pacs:
        dispatcher = Dispatcher(
            postroom.engine,
            Deliverer(postroom.settings, postroom.engine, postroom.stopping),
            Reporter(postroom.settings, postroom.engine),
        )
        for job_id in (*stuck, *second, *second):
            dispatcher.submit(job_id)
        until(lambda: all(postroom.delivery(each).state is DeliveryState.DELIVERED for each in second))
        assert len(pacs.taken) == 12
        assert all(postroom.delivery(each).state is DeliveryState.PENDING for each in stuck)
        postroom.stopping.set()
    dispatcher.close()


def test_the_deliver_command(postroom: Postroom, ports: list[int], redis_url: str, tmp_path: Path) -> None:
    """Woken through the broker, killed in the middle, started again: each object is there in the end."""
    config = tmp_path / "cds-plugin.toml"
    config.write_text(
        f'[storage]\ndirectory = "{postroom.settings.storage.directory}"\n'
        f'[database]\nurl = "{postroom.settings.database.url}"\n[broker]\nurl = "{redis_url}"\n'
        f'[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "{LOOPBACK}"\nport = {ports[0]}\n'
    )
    app = make_app(postroom.settings.model_copy(update={"broker": Broker(url=redis_url)}))
    command = [sys.executable, "-m", "cds_plugin", "deliver", "--config", str(config)]
    (job_id,) = postroom.a_finished_analysis("pacs")
    with (
        Pacs(ports[0], answer=lambda _event: time.sleep(1.0) or 0x0000) as pacs,
        (tmp_path / "log").open("wb") as log,
    ):
        first = subprocess.Popen(command, stderr=log, stdout=log)
        assert wake(app, JobKind.DELIVERY, job_id)
        until(lambda: len(pacs.taken) == 1)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        with transaction(postroom.engine) as session:
            session.get_one(Job, job_id).lease_until = datetime.now(UTC)
        second = subprocess.Popen(command, stderr=log, stdout=log)
        assert wake(app, JobKind.DELIVERY, job_id)
        until(lambda: postroom.stage() == "complete")
        second.send_signal(signal.SIGTERM)
        assert second.wait(30) == 0
    assert len(set(pacs.taken)) == 3
    assert jobs.WAKE_AGAIN_SECONDS <= 30
