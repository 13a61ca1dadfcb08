"""Storage commitment with real peers: Orthanc asks, processes are killed, the report comes."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from drawn_objects import DERMOSCOPIC, a_photograph
from parts import a_part, settings_file, until
from pydicom.uid import generate_uid
from servers import ScratchOrthanc
from sqlalchemy import select
from test_commitment import Requester, a_request, answer_what_waits, asked, reference_to, rows
from ward import LOOPBACK, Ward

from cds_db.models import Job
from cds_db.session import transaction
from cds_db.stages import CommitmentState
from cds_plugin.checks import answers_echo
from cds_plugin.config import Broker, PeerEntry
from cds_plugin.demo.orthanc import Orthanc
from cds_plugin.demo.ports import free_ports
from cds_plugin.queue import make_app
from cds_plugin.receive.sweep import Sweeper

pytestmark = pytest.mark.slow


@pytest.fixture
def requester(ward: Ward) -> Requester:
    """Return a requester whose address the settings know."""
    port = free_ports(1)[0]
    known = PeerEntry(name="camera", ae_title="CAMERA", host=LOOPBACK, port=port)
    ward.settings = ward.settings.model_copy(update={"peers": (known,)})
    return Requester(ward, port)


def settings_of(ward: Ward, folder: Path, broker: str = "redis://127.0.0.1:1/0") -> Path:
    peers = "".join(
        f'[[peers]]\nname = "{each.name}"\nae_title = "{each.ae_title}"\n'
        f'host = "{each.host}"\nport = {each.port}\n'
        for each in ward.settings.peers
    )
    return settings_file(ward, folder, f'[broker]\nurl = "{broker}"\n{peers}')


def let_leases_run_out(ward: Ward) -> None:
    """Spare the test the ten seconds after which the job of a dead process is free."""
    with transaction(ward.engine) as session:
        for job in session.scalars(select(Job).where(Job.lease_until.is_not(None))):
            job.lease_until = datetime.now(UTC) - timedelta(seconds=1)


def test_orthanc_asks_and_learns_what_is_held(ward: Ward, tmp_path: Path) -> None:
    http_port, dicom_port = free_ports(2)
    known = PeerEntry(name="orthanc", ae_title="ORTHANC", host=LOOPBACK, port=dicom_port)
    ward.settings = ward.settings.model_copy(update={"peers": (known,)})
    pictures = [a_photograph() for _ in range(2)]
    peers = {"cds": ("CDS", LOOPBACK, ward.port)}
    with ward.listening(), ScratchOrthanc(tmp_path / "orthanc", http_port, dicom_port, peers) as orthanc:
        ward.sent(*pictures)
        held = orthancs_question(ward, orthanc, [reference_to(each) for each in pictures])
        assert held["Status"] == "Success" and not held["Failures"]
        assert {each["SOPInstanceUID"] for each in held["Success"]} == {p.SOPInstanceUID for p in pictures}
        partly = orthancs_question(ward, orthanc, [reference_to(pictures[0]), (DERMOSCOPIC, "1.2.3")])
    assert partly["Status"] == "Failure" and len(partly["Success"]) == 1
    ((failure),) = partly["Failures"]
    assert (failure["SOPInstanceUID"], failure["FailureReason"]) == ("1.2.3", 0x0112)
    assert [row.state for row in rows(ward)] == [CommitmentState.REPORTED] * 2


def orthancs_question(ward: Ward, orthanc: Orthanc, references: list[tuple[str, str]]) -> dict:
    """Let Orthanc ask, answer it, and return what it made of the report."""
    body = {"DicomInstances": [{"SOPClassUID": c, "SOPInstanceUID": i} for c, i in references]}
    question = orthanc.post("/modalities/cds/storage-commitment", body)["ID"]
    answer_what_waits(ward)
    until(lambda: orthanc.get(f"/storage-commitment/{question}")["Status"] != "Pending")
    return orthanc.get(f"/storage-commitment/{question}")


def test_the_report_survives_kill_9_of_the_listener(ward: Ward, requester: Requester, tmp_path: Path) -> None:
    """It dies while it holds the job, about to report on the same association."""
    picture = a_photograph()
    with a_part(
        "listen", settings_of(ward, tmp_path), lambda: answers_echo(LOOPBACK, ward.port, "CDS")
    ) as listener:
        ward.sent(picture)
        with requester.associated(same_association=True) as association:
            assert asked(association, a_request(reference_to(picture))) == 0x0000
            listener.send_signal(signal.SIGKILL)
            listener.wait()
    assert not requester.reports and rows(ward)[0].state is CommitmentState.PENDING
    let_leases_run_out(ward)
    with requester.listening():
        until(lambda: requester.reports, between=lambda: answer_what_waits(ward))
    assert requester.reports[0].event_type == 1 and requester.reports[0].held == {picture.SOPInstanceUID}


def test_the_deliver_process_reports_and_another_one_after_kill_9(
    ward: Ward, requester: Requester, tmp_path: Path, redis_url: str
) -> None:
    ward.settings = ward.settings.model_copy(update={"broker": Broker(url=redis_url)})
    config = settings_of(ward, tmp_path, redis_url)
    sweeper = Sweeper(ward.settings, ward.engine, make_app(ward.settings))
    requester.stuck.set()
    with ward.listening(), requester.listening():
        requester.ask((DERMOSCOPIC, generate_uid()))
        with a_part("deliver", config) as first:
            until(lambda: requester.reports, between=sweeper.tick)
            first.send_signal(signal.SIGKILL)
            first.wait()
        assert rows(ward)[0].state is CommitmentState.PENDING
        requester.stuck.clear()
        let_leases_run_out(ward)
        with a_part("deliver", config):
            until(lambda: rows(ward)[0].state is CommitmentState.REPORTED, between=sweeper.tick)
    assert len(requester.reports) == 2, "it was told twice, which does no harm"


def test_a_request_is_kept_and_answered_on_postgresql(ward_on_postgres: Ward) -> None:
    ward = ward_on_postgres
    port = free_ports(1)[0]
    known = PeerEntry(name="camera", ae_title="CAMERA", host=LOOPBACK, port=port)
    ward.settings = ward.settings.model_copy(update={"peers": (known,)})
    requester = Requester(ward, port)
    picture = a_photograph()
    uid = generate_uid()
    with ward.listening(), requester.listening():
        ward.sent(picture)
        for _ in range(2):
            requester.ask(reference_to(picture), (DERMOSCOPIC, "1.2.3"), transaction=uid)
            answer_what_waits(ward)
            report = requester.report()
            assert report.held == {picture.SOPInstanceUID} and report.failures == {"1.2.3": 0x0112}
    with transaction(ward.engine) as session:
        (row,) = rows(ward)
        session.merge(row).requested_at = datetime.now(UTC) - timedelta(days=40)
    with ward.listening():
        requester.ask(reference_to(picture))
    assert len(rows(ward)) == 1
