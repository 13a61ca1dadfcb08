"""Paused destinations get nothing, resumed ones everything; what was given up can be sent after all."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine, select
from ward_book import NOW, STUDY, a_closed_study, analyse, events, stage_of

from cds_db import destinations, jobs, studies
from cds_db.delivery import fail_delivery, finish_delivery, record_object_delivered, start_delivery
from cds_db.models import Delivery, Job
from cds_db.session import snapshot, transaction
from cds_db.stages import AskedState, DeliveryState, JobState

LATER = NOW + timedelta(hours=1)


@pytest.fixture
def waiting(engine: Engine) -> tuple[int, int]:
    """Return the jobs of two deliveries of one study, to `pacs` and to `ris`."""
    revision_id, _ = a_closed_study(engine)
    to_pacs, to_ris = analyse(engine, revision_id, ("pacs", "ris"))
    return to_pacs, to_ris


def due(engine: Engine) -> set[int]:
    with snapshot(engine) as session:
        return {job_id for job_id, _ in jobs.due(session, LATER, 100)}


def delivery_of(engine: Engine, job_id: int) -> Delivery:
    with snapshot(engine) as session:
        return session.get_one(Delivery, session.get_one(Job, job_id).subject_id)


def line(engine: Engine, name: str = "pacs") -> destinations.DestinationLine:
    with snapshot(engine) as session:
        return destinations.lines(session)[name]


def change(engine: Engine, what: str, **more: str) -> object:
    with transaction(engine) as session:
        return getattr(destinations, what)(session, "pacs", now=LATER, actor="user:root", **more)


def given_up(engine: Engine, job_id: int) -> int:
    delivery_id = delivery_of(engine, job_id).id
    with transaction(engine) as session:
        start_delivery(session, delivery_id, now=NOW, actor="deliver")
        fail_delivery(session, delivery_id, "status 0xA900", now=NOW, actor="deliver")
        session.get_one(Job, job_id).state = JobState.DEAD
    return delivery_id


def delivered(engine: Engine, job_id: int) -> int:
    delivery_id = delivery_of(engine, job_id).id
    with transaction(engine) as session:
        _, results = studies.delivery_objects(session, delivery_id)
        for each in results:
            record_object_delivered(session, delivery_id, each.sop_instance_uid, now=NOW, actor="deliver")
        finish_delivery(session, delivery_id, now=NOW, actor="deliver")
        session.get_one(Job, job_id).state = JobState.DONE
    return delivery_id


def test_a_paused_destination_is_left_alone_and_the_others_are_not(
    engine: Engine, waiting: tuple[int, int]
) -> None:
    assert due(engine) == {*due(engine), *waiting}
    assert change(engine, "pause", reason="it moves") is True
    assert change(engine, "pause", reason="again") is False
    assert waiting[0] not in due(engine) and waiting[1] in due(engine)
    told = line(engine)
    assert told.pause is not None and (told.pause.by, told.pause.reason) == ("user:root", "it moves")
    assert (told.counts, told.oldest_pending) == ({DeliveryState.PENDING: 1}, NOW)
    with snapshot(engine) as session:
        status = studies.status(session, STUDY)
    assert status is not None and {each.destination: each.paused for each in status.deliveries} == {
        "pacs": True,
        "ris": False,
    }
    assert change(engine, "resume") is True and change(engine, "resume") is False
    assert waiting[0] in due(engine)
    assert events(engine)[-2:] == ["destination-paused", "destination-resumed"]


def test_what_was_resumed_has_all_its_time_anew(engine: Engine, waiting: tuple[int, int]) -> None:
    delivery_id = delivery_of(engine, waiting[0]).id
    with transaction(engine) as session:
        start_delivery(session, delivery_id, now=NOW, actor="deliver", retry_for=timedelta(hours=5))
        session.get_one(Job, waiting[0]).not_before = LATER + timedelta(hours=3)
    assert delivery_of(engine, waiting[0]).retry_until == NOW + timedelta(hours=5)
    change(engine, "pause", reason="")
    change(engine, "resume")
    assert delivery_of(engine, waiting[0]).retry_until is None and waiting[0] in due(engine)


def test_what_was_given_up_is_sent_after_all(engine: Engine, waiting: tuple[int, int]) -> None:
    to_pacs, to_ris = waiting
    given_up(engine, to_pacs)
    assert stage_of(engine) == "delivering" and to_pacs not in due(engine)
    delivered(engine, to_ris)
    assert stage_of(engine) == "failed"
    assert line(engine).last_error == "status 0xA900"
    assert change(engine, "retry", study_instance_uid="1.2.3") == 0
    assert change(engine, "retry") == 1
    assert stage_of(engine) == "delivering" and to_pacs in due(engine)
    assert "delivery-revived" in events(engine)
    delivered(engine, to_pacs)
    assert stage_of(engine) == "complete"
    assert change(engine, "retry") == 0, "what is done is left alone"


def test_what_is_held_is_never_retried(engine: Engine, waiting: tuple[int, int]) -> None:
    with transaction(engine) as session:
        session.get_one(Delivery, delivery_of(engine, waiting[0]).id).state = DeliveryState.HELD
    assert change(engine, "retry") == 0
    with snapshot(engine) as session:
        states = set(session.scalars(select(Delivery.state).where(Delivery.destination == "pacs")))
    assert states == {DeliveryState.HELD}


def test_what_nobody_vouches_for_is_asked_for_again(engine: Engine, waiting: tuple[int, int]) -> None:
    delivery_id = delivered(engine, waiting[0])
    with transaction(engine) as session:
        delivery = session.get_one(Delivery, delivery_id)
        delivery.commitment, delivery.asked = AskedState.FAILED, 5
    assert line(engine).commitments == {AskedState.FAILED: 1}
    assert change(engine, "retry") == 1
    again = delivery_of(engine, waiting[0])
    assert (again.commitment, again.asked) == (AskedState.PENDING, 0) and waiting[0] in due(engine)
