"""Storage commitment asked of destinations: a real Orthanc, and archives that answer as they are told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from postroom import KINDS, LOOPBACK, Postroom, until
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.events import Event
from servers import ScratchOrthanc
from sqlalchemy import select

from cds_db import destinations
from cds_db.asking import TIMES_ASKED
from cds_db.models import AskedCommitment, DeliveredObject, Delivery, Job
from cds_db.session import snapshot, transaction
from cds_db.stages import AskedState, DeliveryState, JobState
from cds_plugin.caller import Caller
from cds_plugin.commitment.request import PUSH_MODEL, WELL_KNOWN_INSTANCE
from cds_plugin.config import Destination, Listener, Rule
from cds_plugin.deliver import asking as deliver_asking
from cds_plugin.demo.ports import free_ports
from cds_plugin.receive.listener import DicomListener
from cds_plugin.rules import ask_door

pytestmark = pytest.mark.slow


@dataclass
class Archive:
    """A pynetdicom archive that takes objects and is asked to vouch for them."""

    port: int
    lost: dict[str, int] = field(default_factory=dict)
    """Failure reasons by SOP Instance UID, used up as they are told."""
    action_status: int = 0x0000
    reports_here: bool = True
    taken: list[str] = field(default_factory=list)
    asked: list[Dataset] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)

    @contextmanager
    def open(self) -> Iterator[Archive]:
        entity = AE("PACS")
        for sop_class in KINDS.values():
            entity.add_supported_context(sop_class)
        entity.add_supported_context(PUSH_MODEL)
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._ask)]
        server = entity.start_server((LOOPBACK, self.port), block=False, evt_handlers=handlers)
        assert server is not None
        try:
            yield self
        finally:
            server.shutdown()

    def _store(self, event: Event) -> int:
        self.taken.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    def _ask(self, event: Event) -> tuple[int, None]:
        self.asked.append(event.action_information)
        if self.action_status == 0x0000 and self.reports_here:
            threading.Thread(target=self._report, args=(event.assoc, self.asked[-1])).start()
        return self.action_status, None

    def _report(self, association: object, asked: Dataset) -> None:
        time.sleep(0.2)
        self.answered.append(self.report_over(association, asked))

    def report_over(self, association: object, asked: Dataset) -> int:
        """Report on what was asked over an association; return the status of the answer."""
        failed = {str(each.ReferencedSOPInstanceUID): each for each in asked.ReferencedSOPSequence}
        failed = {uid: each for uid, each in failed.items() if uid in self.lost}
        information = Dataset()
        information.TransactionUID = asked.TransactionUID
        information.ReferencedSOPSequence = [
            each for each in asked.ReferencedSOPSequence if str(each.ReferencedSOPInstanceUID) not in failed
        ]
        for uid, each in failed.items():
            each.FailureReason = self.lost.pop(uid)
        if failed:
            information.FailedSOPSequence = list(failed.values())
        status, _ = association.send_n_event_report(
            information, 2 if failed else 1, PUSH_MODEL, WELL_KNOWN_INSTANCE
        )
        return int(status.Status)

    def report_to(self, port: int, asked: Dataset, calling: str = "PACS") -> int | None:
        """Report over an association of its own; None where it is not let in, or gets no answer."""
        association = AE(calling).associate(
            LOOPBACK,
            port,
            contexts=[build_context(PUSH_MODEL)],
            ae_title="CDS",
            ext_neg=[build_role(PUSH_MODEL, scu_role=False, scp_role=True)],
        )
        if not association.is_established:
            return None
        try:
            return self.report_over(association, asked)
        finally:
            association.release()


def a_delivery(postroom: Postroom, port: int) -> int:
    postroom.to(Destination(name="pacs", ae_title="PACS", host=LOOPBACK, port=port, commitment=True))
    (job_id,) = postroom.a_finished_analysis("pacs")
    return job_id


def committed(postroom: Postroom) -> int:
    with snapshot(postroom.engine) as session:
        wanted = select(DeliveredObject).where(DeliveredObject.committed_at.is_not(None))
        return len(session.scalars(wanted).all())


def no_answer_came(postroom: Postroom, job_id: int) -> None:
    with transaction(postroom.engine) as session:
        for each in session.scalars(select(AskedCommitment)):
            each.asked_at -= timedelta(hours=2)
    postroom.make_due(job_id)


def test_orthanc_vouches_for_what_it_took(postroom: Postroom, tmp_path: Path) -> None:
    port, http_port, dicom_port = free_ports(3)
    postroom.settings = postroom.settings.model_copy(update={"listener": Listener(port=port)})
    peers = {"cds": ("CDS", LOOPBACK, port)}
    with (
        ScratchOrthanc(tmp_path / "orthanc", http_port, dicom_port, peers) as orthanc,
        DicomListener(postroom.settings, postroom.engine),
    ):
        place = {"name": "pacs", "ae_title": orthanc.ae_title, "host": LOOPBACK, "port": dicom_port}
        postroom.to(Destination(**place, commitment=True))
        (job_id,) = postroom.a_real_analysis("pacs")
        postroom.run(job_id)
        assert postroom.stage() == "complete", "the study does not wait for the answer"
        assert postroom.delivery(job_id).commitment is AskedState.PENDING
        postroom.run(job_id)
        until(lambda: postroom.delivery(job_id).commitment is AskedState.COMMITTED)
    assert committed(postroom) == 3
    assert postroom.job(job_id).state in (JobState.DONE, JobState.WAITING)
    postroom.run(job_id)
    assert postroom.job(job_id).state is JobState.DONE
    (told,) = postroom.details("commitment-answered")
    assert (told["destination"], told["committed"], told["failed"]) == ("pacs", 3, 0)


def test_an_answer_on_the_same_association(postroom: Postroom, ports: list[int]) -> None:
    job_id = a_delivery(postroom, ports[0])
    with Archive(ports[0]).open() as archive:
        postroom.run(job_id)
        postroom.run(job_id)
        until(lambda: bool(archive.answered))
    assert archive.answered == [0x0000] and len(archive.asked) == 1
    assert {str(each.ReferencedSOPInstanceUID) for each in archive.asked[0].ReferencedSOPSequence} == set(
        archive.taken
    )
    assert postroom.delivery(job_id).commitment is AskedState.COMMITTED
    assert postroom.job(job_id).state is JobState.DONE
    assert postroom.events()[-2:] == ["commitment-asked", "commitment-answered"]


def test_what_the_archive_lost_is_sent_again_and_asked_for_again(
    postroom: Postroom, ports: list[int]
) -> None:
    job_id = a_delivery(postroom, ports[0])
    with Archive(ports[0]).open() as archive:
        postroom.run(job_id)
        victim = archive.taken[0]
        archive.lost = {victim: 0x0112}
        postroom.run(job_id)
        delivery = postroom.delivery(job_id)
        assert (delivery.state, delivery.commitment) == (DeliveryState.DELIVERED, AskedState.PENDING)
        assert committed(postroom) == 2 and postroom.job(job_id).state is JobState.WAITING
        postroom.make_due(job_id)
        postroom.run(job_id)
    assert archive.taken.count(victim) == 2 and len(archive.taken) == 4
    again = [str(each.ReferencedSOPInstanceUID) for each in archive.asked[1].ReferencedSOPSequence]
    assert again == [victim], "only what nobody vouched for"
    assert archive.asked[0].TransactionUID != archive.asked[1].TransactionUID
    assert postroom.delivery(job_id).commitment is AskedState.COMMITTED
    assert postroom.details("commitment-answered")[0]["failures"] == {victim: "0x0112"}


def test_who_never_answers_is_asked_a_few_times(
    postroom: Postroom, ports: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver_asking, "SAME_ASSOCIATION_SECONDS", 0.2)
    job_id = a_delivery(postroom, ports[0])
    with Archive(ports[0], reports_here=False).open() as archive:
        postroom.run(job_id)
        for _ in range(TIMES_ASKED + 1):
            postroom.run(job_id)
            assert (
                postroom.job(job_id).not_before > datetime.now(UTC)
                or postroom.delivery(job_id).commitment is AskedState.FAILED
            )
            no_answer_came(postroom, job_id)
    assert len(archive.asked) == TIMES_ASKED
    delivery = postroom.delivery(job_id)
    assert (delivery.state, delivery.commitment) == (DeliveryState.DELIVERED, AskedState.FAILED)
    assert postroom.stage() == "complete", "what was sent was sent"
    assert postroom.events()[-1] == "commitment-given-up"


@pytest.mark.parametrize("status", [0x0110, 0x0213])
def test_a_question_that_is_refused_is_repeated_slowly(
    status: int, postroom: Postroom, ports: list[int]
) -> None:
    job_id = a_delivery(postroom, ports[0])
    with Archive(ports[0], action_status=status).open():
        postroom.run(job_id)
        postroom.run(job_id)
    assert f"0x{status:04X}" in (postroom.delivery(job_id).last_error or "")
    assert postroom.job(job_id).not_before > datetime.now(UTC) + timedelta(seconds=10)
    assert postroom.events()[-1] == "commitment-missed"


def test_a_destination_that_is_away_uses_up_no_question(postroom: Postroom, ports: list[int]) -> None:
    job_id = a_delivery(postroom, ports[0])
    with Archive(ports[0]).open():
        postroom.run(job_id)
    for _ in range(TIMES_ASKED + 2):
        postroom.make_due(job_id)
        postroom.run(job_id)
    delivery = postroom.delivery(job_id)
    assert (delivery.asked, delivery.commitment) == (0, AskedState.PENDING)
    postroom.make_due(job_id)
    with Archive(ports[0]).open():
        postroom.run(job_id)
    assert postroom.delivery(job_id).commitment is AskedState.COMMITTED


def test_nothing_delivered_is_nothing_to_vouch_for(postroom: Postroom, ports: list[int]) -> None:
    """A rule sends SEG alone, and the picture has no lesion."""
    job_id = a_delivery(postroom, ports[0])
    with transaction(postroom.engine) as session:
        session.scalars(select(Delivery)).one().kinds = "presentation"
    with Archive(ports[0]).open() as archive:
        for _ in range(2):
            postroom.run(job_id)
    assert not archive.asked and postroom.stage() == "complete"
    assert (postroom.delivery(job_id).commitment, postroom.job(job_id).state) == (None, JobState.DONE)


def test_a_question_has_the_time_that_the_settings_give(postroom: Postroom, ports: list[int]) -> None:
    job_id = a_delivery(postroom, ports[0])
    place = postroom.settings.destinations[0].model_copy(update={"retry_hours": 2.0})
    postroom.to(place)
    with Archive(ports[0]).open():
        postroom.run(job_id)
    with transaction(postroom.engine) as session:
        destinations.pause(session, "pacs", now=datetime.now(UTC), actor="user:root", reason="")
        destinations.resume(session, "pacs", now=datetime.now(UTC), actor="user:root")
    postroom.run(job_id)
    until_then = postroom.delivery(job_id).retry_until
    assert until_then is not None and until_then < datetime.now(UTC) + timedelta(hours=3)


def test_a_destination_that_left_the_settings_is_not_asked_for_ever(
    postroom: Postroom, ports: list[int]
) -> None:
    job_id = a_delivery(postroom, ports[0])
    with Archive(ports[0]).open():
        postroom.run(job_id)
    postroom.to()
    for _ in range(TIMES_ASKED + 1):
        postroom.make_due(job_id)
        postroom.run(job_id)
    assert postroom.delivery(job_id).commitment is AskedState.FAILED


def test_an_answer_that_comes_later_to_the_listener(
    postroom: Postroom, ports: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver_asking, "SAME_ASSOCIATION_SECONDS", 0.2)
    port = ports[1]
    postroom.settings = postroom.settings.model_copy(update={"listener": Listener(port=port)})
    job_id = a_delivery(postroom, ports[0])
    with Archive(ports[0], reports_here=False).open() as archive:
        postroom.run(job_id)
        postroom.run(job_id)
    (asked,) = archive.asked
    assert postroom.delivery(job_id).commitment is AskedState.PENDING
    stranger = Dataset()
    stranger.TransactionUID, stranger.ReferencedSOPSequence = generate_uid(), []
    with DicomListener(postroom.settings, postroom.engine):
        assert archive.report_to(port, stranger) == 0x0115, "nobody asked that"
        assert archive.report_to(port, asked) == 0x0000
        assert archive.report_to(port, asked) == 0x0000, "told twice"
    assert postroom.delivery(job_id).commitment is AskedState.COMMITTED
    assert postroom.events().count("commitment-answered") == 1
    (event,) = postroom.details("commitment-answered")
    assert event["transaction_uid"] == asked.TransactionUID


def test_an_event_report_without_the_role_ends_the_association(postroom: Postroom, ports: list[int]) -> None:
    postroom.settings = postroom.settings.model_copy(update={"listener": Listener(port=ports[1])})
    with DicomListener(postroom.settings, postroom.engine):
        association = AE("PACS").associate(LOOPBACK, ports[1], [build_context(PUSH_MODEL)], ae_title="CDS")
        assert association.is_established
        answer, _ = association.send_n_event_report(Dataset(), 1, PUSH_MODEL, WELL_KNOWN_INSTANCE)
        assert "Status" not in answer
        until(lambda: not association.is_established)


def at(address: str, ae_title: str = "PACS") -> Caller:
    return Caller(ae_title, address, "CDS")


def test_only_a_destination_that_is_asked_is_let_in_for_its_answer(postroom: Postroom) -> None:
    rules: Sequence[Rule] = (Rule(calling_ae=("CAMERA",), results_to=()),)
    place = {"name": "pacs", "ae_title": "PACS", "host": "10.0.0.7"}
    asked = postroom.settings.model_copy(
        update={"rules": tuple(rules), "destinations": (Destination(**place, commitment=True),)}
    )
    unasked = asked.model_copy(update={"destinations": (Destination(**place),)})
    assert ask_door(asked, at("10.0.0.7")).accepted
    assert not ask_door(asked, at("10.0.0.8")).accepted
    assert not ask_door(asked, at("10.0.0.7", "OTHER")).accepted
    assert not ask_door(unasked, at("10.0.0.7")).accepted


def test_a_pause_holds_the_question_back(postroom: Postroom, ports: list[int]) -> None:
    job_id = a_delivery(postroom, ports[0])
    with Archive(ports[0]).open() as archive:
        postroom.run(job_id)
        with transaction(postroom.engine) as session:
            destinations.pause(session, "pacs", now=datetime.now(UTC), actor="user:root", reason="")
        postroom.run(job_id)
        assert not archive.asked
        with transaction(postroom.engine) as session:
            destinations.resume(session, "pacs", now=datetime.now(UTC), actor="user:root")
        postroom.run(job_id)
        assert len(archive.asked) == 1
    with snapshot(postroom.engine) as session:
        assert session.scalars(select(Delivery)).one().commitment is AskedState.COMMITTED
        assert session.get_one(Job, job_id).state is JobState.DONE
