"""Storage commitment with a pynetdicom requester: kept before it is answered, told the truth, asked once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from drawn_objects import DERMOSCOPIC, SECONDARY_CAPTURE, a_photograph
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from sqlalchemy import select
from typer.testing import CliRunner
from ward import AE_TITLE, LOOPBACK, Ward

from cds_db import commitment, jobs
from cds_db.commitment import CommitmentRequest, KeptFile, Reference, TooManyPending
from cds_db.models import Commitment, Job
from cds_db.session import snapshot, transaction
from cds_db.stages import CommitmentState, JobState
from cds_plugin.cli import build
from cds_plugin.commitment.holding import FailureReason, not_held
from cds_plugin.commitment.reporter import REPORT_FOR, Reporter
from cds_plugin.commitment.request import (
    PUSH_MODEL,
    REFERENCES_PER_REQUEST,
    WELL_KNOWN_INSTANCE,
    ActionRefused,
    asked_for,
)
from cds_plugin.config import PeerEntry, Retention
from cds_plugin.demo.ports import free_ports
from cds_plugin.errors import Unavailable
from cds_plugin.retention import Purge

REQUESTER = "CAMERA"
WAIT_SECONDS = 20


@dataclass
class Report:
    """What an N-EVENT-REPORT said, and over which kind of association it came."""

    event_type: int
    information: Dataset
    own_association: bool

    @property
    def failures(self) -> dict[str, int]:
        items = self.information.get("FailedSOPSequence", [])
        return {str(item.ReferencedSOPInstanceUID): item.FailureReason for item in items}

    @property
    def held(self) -> set[str]:
        return {
            str(item.ReferencedSOPInstanceUID) for item in self.information.get("ReferencedSOPSequence", [])
        }


@dataclass
class Requester:
    """An AE that asks for storage commitment and takes the reports."""

    ward: Ward
    port: int
    reports: list[Report] = field(default_factory=list)
    answer: int = 0x0000
    stuck: threading.Event = field(default_factory=threading.Event)
    _came: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def listening(self) -> Iterator[None]:
        entity = AE(REQUESTER)
        entity.add_supported_context(PUSH_MODEL, scu_role=False, scp_role=True)
        server = entity.start_server(
            (LOOPBACK, self.port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._take, [False])]
        )
        assert server is not None
        try:
            yield
        finally:
            server.shutdown()

    @contextmanager
    def associated(self, *, same_association: bool = False) -> Iterator[Association]:
        entity = AE(REQUESTER)
        entity.add_requested_context(PUSH_MODEL)
        roles = [build_role(PUSH_MODEL, scu_role=True, scp_role=False)] if same_association else []
        association = entity.associate(
            LOOPBACK,
            self.ward.port,
            ae_title=AE_TITLE,
            ext_neg=roles,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._take, [True])],
        )
        assert association.is_established
        yield association
        association.release()

    def ask(self, *references: tuple[str, str], transaction: str | None = None) -> int:
        with self.associated() as association:
            return asked(association, a_request(*references, transaction=transaction))

    def report(self) -> Report:
        """Return the next report."""
        assert self._came.wait(WAIT_SECONDS), "no report came"
        self._came.clear()
        return self.reports[-1]

    def _take(self, event: Event, own_association: bool) -> tuple[int, None]:
        assert event.request.AffectedSOPInstanceUID == WELL_KNOWN_INSTANCE
        self.reports.append(Report(event.event_type, event.event_information, own_association))
        self._came.set()
        while self.stuck.is_set():
            time.sleep(0.05)
        return self.answer, None


def a_request(*references: tuple[str, str], transaction: str | None = None) -> Dataset:
    request = Dataset()
    request.TransactionUID = transaction or generate_uid()
    request.ReferencedSOPSequence = []
    for sop_class, sop_instance in references:
        item = Dataset()
        item.ReferencedSOPClassUID = sop_class
        item.ReferencedSOPInstanceUID = sop_instance
        request.ReferencedSOPSequence.append(item)
    return request


def asked(association: Association, request: Dataset, action: int = 1, uid: str = WELL_KNOWN_INSTANCE) -> int:
    answer, _ = association.send_n_action(request, action, PUSH_MODEL, uid)
    return int(answer.Status)


@pytest.fixture
def requester(ward: Ward) -> Requester:
    """Return a requester whose address the settings know."""
    (port,) = free_ports(1)
    known = PeerEntry(name="camera", ae_title=REQUESTER, host=LOOPBACK, port=port)
    ward.settings = ward.settings.model_copy(update={"peers": (known,)})
    return Requester(ward, port)


def answer_what_waits(ward: Ward) -> None:
    """Run the jobs that are due, as the deliver process does."""
    with snapshot(ward.engine) as session:
        due = jobs.due(session, datetime.now(UTC), 100)
    for job_id, _kind in due:
        Reporter(ward.settings, ward.engine).run(job_id)


def rows(ward: Ward) -> list[Commitment]:
    with snapshot(ward.engine) as session:
        return list(session.scalars(select(Commitment).order_by(Commitment.id)))


def reference_to(picture: Dataset) -> tuple[str, str]:
    return str(picture.SOPClassUID), str(picture.SOPInstanceUID)


def test_what_is_held_is_committed(ward: Ward, requester: Requester) -> None:
    pictures = [a_photograph() for _ in range(3)]
    with ward.listening(), requester.listening():
        ward.sent(*pictures)
        request = a_request(*map(reference_to, pictures))
        with requester.associated() as association:
            assert asked(association, request) == 0x0000
        answer_what_waits(ward)
        report = requester.report()
    assert report.event_type == 1 and not report.own_association
    assert report.information.TransactionUID == request.TransactionUID
    assert report.held == {each.SOPInstanceUID for each in pictures} and not report.failures
    (row,) = rows(ward)
    assert row.state is CommitmentState.REPORTED and row.not_held == 0 and row.referenced == {}
    assert ward.events()[-2:] == ["commitment-requested", "commitment-reported"]


def test_each_failure_has_its_reason(ward: Ward, requester: Requester) -> None:
    held, damaged, gone, other = (a_photograph(seed=n) for n in range(4))
    never = generate_uid()
    with ward.listening(), requester.listening():
        ward.sent(held, damaged, gone, other)
        paths = {each.sop_instance_uid: ward.directory / each.path for each in ward.instances()}
        paths[gone.SOPInstanceUID].unlink()
        content = bytearray(paths[damaged.SOPInstanceUID].read_bytes())
        content[-1] ^= 1
        paths[damaged.SOPInstanceUID].write_bytes(content)
        assert (
            requester.ask(
                *map(reference_to, (held, damaged, gone)),
                (SECONDARY_CAPTURE, other.SOPInstanceUID),
                (DERMOSCOPIC, never),
            )
            == 0x0000
        )
        answer_what_waits(ward)
        report = requester.report()
    assert report.event_type == 2 and report.held == {held.SOPInstanceUID}
    assert report.failures == {
        damaged.SOPInstanceUID: 0x0110,
        gone.SOPInstanceUID: 0x0112,
        other.SOPInstanceUID: 0x0119,
        never: 0x0112,
    }
    assert ward.audit("commitment-reported")[0].detail["failures"][never] == "0x0112"


def test_what_was_purged_is_not_held_until_it_comes_again(ward: Ward, requester: Requester) -> None:
    picture = a_photograph(sop_class=SECONDARY_CAPTURE)
    ward.settings = ward.settings.model_copy(update={"retention": Retention(pictures_days=1e-9)})
    with ward.listening(), requester.listening():
        ward.sent(picture)
        purge = Purge(ward.settings, ward.engine, datetime.now(UTC), "user:test")
        assert next(purge.pieces()).files == 1
        assert len(ward.spooled()) == 1, "only marked"
        for expected in ({picture.SOPInstanceUID: 0x0112}, {picture.SOPInstanceUID: 0x0112}, {}):
            requester.ask(reference_to(picture))
            answer_what_waits(ward)
            assert requester.report().failures == expected
            for _ in purge.pieces():
                pass
            if len(requester.reports) == 2:
                assert ward.spooled() == []
                ward.sent(picture)
    assert ward.audit("commitment-reported")[0].detail["failures"] == {picture.SOPInstanceUID: "0x0112"}


def test_what_lies_in_quarantine_is_not_held(ward: Ward, requester: Requester) -> None:
    picture = a_photograph()
    picture.PatientID = None
    picture.StudyInstanceUID = '"1.2.3"'
    with ward.listening(), requester.listening():
        assert ward.sent(picture) == [0xA900]
        requester.ask(reference_to(picture))
        answer_what_waits(ward)
        assert requester.report().failures == {picture.SOPInstanceUID: 0x0112}


def test_the_report_comes_over_the_same_association_where_the_role_was_negotiated(
    ward: Ward, requester: Requester
) -> None:
    picture = a_photograph()
    with ward.listening(), requester.associated(same_association=True) as association:
        ward.sent(picture)
        assert asked(association, a_request(reference_to(picture))) == 0x0000
        report = requester.report()
        assert report.own_association and report.event_type == 1
        assert asked(association, a_request(reference_to(picture))) == 0x0000, "it goes on"
        assert requester.report().own_association
    until(lambda: [row.state for row in rows(ward)] == [CommitmentState.REPORTED] * 2)


@pytest.mark.slow
def test_requests_without_a_pause_are_reported_one_after_the_other(ward: Ward, requester: Requester) -> None:
    """Two reports at once on one association would take each other's answers."""
    ward.settings = ward.settings.model_copy(update={"peers": ()})
    picture = a_photograph()
    with ward.listening():
        ward.sent(picture)
        with requester.associated(same_association=True) as association:
            before = threading.active_count()
            for _ in range(5):
                assert asked(association, a_request(reference_to(picture))) == 0
            running = [each.name for each in threading.enumerate()].count("commitment")
            until(lambda: len(requester.reports) == 5)
            until(lambda: all(row.state is CommitmentState.REPORTED for row in rows(ward)))
        until(lambda: threading.active_count() <= before)
    assert running == 1 and all(each.own_association for each in requester.reports)
    assert [row.last_error for row in rows(ward)] == [None] * 5


def test_an_association_that_is_over_gets_its_report_over_a_new_one(ward: Ward, requester: Requester) -> None:
    picture = a_photograph()
    with ward.listening(), requester.listening():
        ward.sent(picture)
        with requester.associated(same_association=True) as association:
            asked(association, a_request(reference_to(picture)))
        until(lambda: rows(ward)[0].last_error is not None)
        make_due(ward)
        answer_what_waits(ward)
        assert not requester.report().own_association


def test_a_requester_without_a_known_address_is_told_here_or_waits(ward: Ward, requester: Requester) -> None:
    ward.settings = ward.settings.model_copy(update={"peers": ()})
    picture = a_photograph()
    with ward.listening():
        ward.sent(picture)
        with requester.associated() as association:
            asked(association, a_request(reference_to(picture)))
            assert requester.report().own_association
        requester.ask(reference_to(picture))
        until(lambda: rows(ward)[1].last_error is not None)
    make_due(ward)
    answer_what_waits(ward)
    assert "no address is known for AE title CAMERA" in (rows(ward)[1].last_error or "")


@pytest.mark.slow
def test_a_requester_that_is_away_or_refuses_is_tried_again(ward: Ward, requester: Requester) -> None:
    with ward.listening():
        requester.ask((DERMOSCOPIC, generate_uid()))
        answer_what_waits(ward)
        assert "cannot be reached" in (rows(ward)[0].last_error or "")
        requester.answer = 0x0110
        with requester.listening():
            make_due(ward)
            answer_what_waits(ward)
            assert "status 0x0110" in (rows(ward)[0].last_error or "")
            requester.answer = 0x0000
            make_due(ward)
            answer_what_waits(ward)
            answer_what_waits(ward)
    assert len(requester.reports) == 2 and rows(ward)[0].state is CommitmentState.REPORTED
    assert ward.events().count("commitment-retried") == 2


def test_the_command_shows_where_requests_stand(ward: Ward, requester: Requester, tmp_path: Path) -> None:
    picture = a_photograph()
    config = tmp_path / "cds-plugin.toml"
    config.write_text(f'[database]\nurl = "{ward.settings.database.url}"\n')
    with ward.listening():
        ward.sent(picture)
        assert requester.ask(reference_to(picture), (DERMOSCOPIC, "1.2.3")) == 0
        answer_what_waits(ward)
        (waiting,) = shown(config, "--state", "pending")
        with requester.listening():
            make_due(ward)
            answer_what_waits(ward)
    assert not shown(config, "--state", "pending")
    (done,) = shown(config)
    assert (waiting["state"], waiting["not_held"]) == ("pending", None) and waiting["last_error"]
    assert (done["calling_ae"], done["instances"], done["not_held"]) == (REQUESTER, 2, 1)
    assert done["state"] == "reported" and done["reported_at"] > done["requested_at"]
    text = CliRunner().invoke(build("commitments"), ["commitments", "--config", str(config)]).stdout
    assert REQUESTER in text and "2 objects: reported, 1 not held" in text


def shown(config: Path, *words: str) -> list[dict[str, Any]]:
    command = ["commitments", "--config", str(config), "--json", *words]
    lines = CliRunner().invoke(build("commitments"), command).stdout.splitlines()
    return [json.loads(line) for line in lines if line.startswith('{"calling_ae"')]


def test_a_requester_that_never_comes_back_is_given_up(ward: Ward, requester: Requester) -> None:
    with ward.listening():
        requester.ask((DERMOSCOPIC, generate_uid()))
    with transaction(ward.engine) as session:
        session.get_one(Commitment, 1).requested_at = datetime.now(UTC) - REPORT_FOR - timedelta(minutes=1)
    answer_what_waits(ward)
    assert rows(ward)[0].state is CommitmentState.FAILED
    assert ward.events()[-1] == "commitment-failed"
    with snapshot(ward.engine) as session:
        assert session.scalars(select(Job)).one().state is JobState.DEAD


def test_a_request_is_one_however_often_it_is_sent(ward: Ward, requester: Requester) -> None:
    picture = a_photograph()
    transaction_uid = generate_uid()
    with ward.listening(), requester.listening():
        ward.sent(picture)
        for _ in range(3):
            assert requester.ask(reference_to(picture), transaction=transaction_uid) == 0x0000
        answer_what_waits(ward)
        assert requester.report().event_type == 1 and len(requester.reports) == 1
        requester.ask(reference_to(picture), transaction=transaction_uid)
        answer_what_waits(ward)
        assert requester.report().event_type == 1, "who asks again did not hear the report"
    assert len(rows(ward)) == 1


def test_a_transaction_uid_in_use_for_something_else(ward: Ward, requester: Requester) -> None:
    picture = a_photograph()
    transaction_uid = generate_uid()
    with ward.listening(), requester.listening():
        ward.sent(picture)
        requester.ask(reference_to(picture), transaction=transaction_uid)
        answer_what_waits(ward)
        requester.report()
        requester.ask(reference_to(picture), (DERMOSCOPIC, "1.2.3"), transaction=transaction_uid)
        answer_what_waits(ward)
        report = requester.report()
    assert report.failures == {picture.SOPInstanceUID: 0x0131, "1.2.3": 0x0131}


def test_what_is_no_request_is_refused_and_leaves_nothing(ward: Ward, requester: Requester) -> None:
    good = a_request((DERMOSCOPIC, "1.2.3"))
    without_items, empty, quoted = a_request(), a_request(), a_request((DERMOSCOPIC, '"1.2.3"'))
    del without_items.ReferencedSOPSequence
    nobody = a_request((DERMOSCOPIC, "1.2.3"))
    del nobody.TransactionUID
    with ward.listening(), requester.associated() as association:
        assert asked(association, good, uid="1.2.3.4") == 0x0112
        assert asked(association, good, action=2) == 0x0123
        assert asked(association, without_items) == 0x0114
        assert asked(association, empty) == 0x0115
        assert asked(association, quoted) == 0x0115
        assert asked(association, nobody) == 0x0114
        assert asked(association, good) == 0x0000
    assert len(rows(ward)) == 1


def test_bounds_of_a_request_and_of_all_that_wait(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    many = a_request()
    item = a_request((DERMOSCOPIC, "1.2.3")).ReferencedSOPSequence[0]
    many.ReferencedSOPSequence = [item] * (REFERENCES_PER_REQUEST + 1)
    with pytest.raises(ActionRefused, match="too many"):
        asked_for(many)
    monkeypatch.setattr(commitment, "PENDING_OF_ONE_REQUESTER", 2)
    monkeypatch.setattr(commitment, "PENDING_INSTANCES", 5)
    keep(ward, "A", 1)
    keep(ward, "A", 1)
    with pytest.raises(TooManyPending, match="AE title"):
        keep(ward, "A", 1)
    keep(ward, "B", 3)
    with pytest.raises(TooManyPending, match="instances"):
        keep(ward, "C", 1)


@pytest.mark.slow
def test_a_large_request_is_kept_quickly_and_whole(ward: Ward, requester: Requester) -> None:
    references = [(DERMOSCOPIC, f"1.2.{n}") for n in range(1500)]
    with ward.listening(), requester.listening():
        assert requester.ask(*references) == 0x0000
        answer_what_waits(ward)
        assert len(requester.report().failures) == 1500
    assert len(ward.audit("commitment-reported")[0].detail["failures"]) == 100


def test_old_answers_are_forgotten(ward: Ward) -> None:
    keep(ward, "A", 1)
    with transaction(ward.engine) as session:
        row = session.get_one(Commitment, 1)
        row.state, row.requested_at = CommitmentState.REPORTED, datetime.now(UTC) - timedelta(days=31)
    keep(ward, "A", 1)
    with snapshot(ward.engine) as session:
        assert len(session.scalars(select(Job)).all()) == len(rows(ward)) == 1


def test_every_version_of_an_instance_must_be_intact() -> None:
    reference = Reference("1.1", "1.2.3")
    files = {
        "1.2.3": [KeptFile("1.1", "a", "x", 1), KeptFile("1.1", "b", "y", 1), KeptFile("1.9", "c", "z", 1)]
    }
    damaged = FailureReason.PROCESSING_FAILURE
    assert not_held([reference], files, lambda each: damaged if each.path == "c" else None) == {}
    assert not_held([reference], files, lambda each: damaged if each.path == "b" else None) == {
        reference: damaged
    }


def keep(ward: Ward, calling_ae: str, instances: int) -> None:
    references = tuple(Reference(DERMOSCOPIC, generate_uid()) for _ in range(instances))
    with transaction(ward.engine) as session:
        request = CommitmentRequest(calling_ae, LOOPBACK, generate_uid(), references)
        commitment.record_request(session, request, now=datetime.now(UTC))


def make_due(ward: Ward) -> None:
    with transaction(ward.engine) as session:
        for job in session.scalars(select(Job)):
            job.not_before = datetime.now(UTC)


def until(condition: object) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


@pytest.mark.parametrize("answered", [True, False])
def test_who_lost_the_job_meanwhile_leaves_it_to_its_heir_without_a_word(ward: Ward, answered: bool) -> None:
    """An exception would end the turn of its association: the later reports on it would never be sent."""
    request = CommitmentRequest(REQUESTER, LOOPBACK, "1.2.8", (Reference("1.2", "1.2.3"),))
    now, lease = datetime.now(UTC), timedelta(seconds=10)
    with transaction(ward.engine) as session:
        job_id = commitment.record_request(session, request, now=now)
        claim = jobs.claim(session, job_id, owner="frozen", now=now, lease=lease)
    assert claim is not None

    def send(_event: object, _information: object) -> None:
        with transaction(ward.engine) as session:
            assert jobs.claim(session, job_id, owner="heir", now=now + 2 * lease, lease=lease)
            if answered:
                commitment.give_up(session, claim.subject_id, "lost", now=now, actor="sweep", keep=True)
        if not answered:
            raise Unavailable("away", "it is away", "Wait.")

    Reporter(ward.settings, ward.engine).report(job_id, "frozen", claim.subject_id, 1, send)
    (row,) = rows(ward)
    assert (row.state, row.last_error) == (("failed", "lost") if answered else ("pending", None))
    with snapshot(ward.engine) as session:
        assert session.get_one(Job, job_id).lease_owner == "heir"
