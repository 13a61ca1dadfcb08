"""How long a delivery is tried: as the rule says, as the destination says, and never for what was refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from postroom import LOOPBACK, Pacs, Postroom
from pynetdicom import AE

from cds_db.models import Delivery, Job
from cds_db.session import transaction
from cds_db.stages import DeliveryState, JobState
from cds_plugin.config import Destination

pytestmark = pytest.mark.slow


def its_time_is_over(postroom: Postroom, job_id: int) -> None:
    with transaction(postroom.engine) as session:
        delivery = session.get_one(Delivery, session.get_one(Job, job_id).subject_id)
        delivery.retry_until = datetime.now(UTC) - timedelta(seconds=1)


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0x0122, 0x0124])
def test_what_is_refused_fails_at_once_and_says_which(
    status: int, postroom: Postroom, ports: list[int]
) -> None:
    (job_id,) = postroom.a_finished_analysis("pacs")
    with Pacs(ports[0], answer=lambda event: 0x0000 if event.request.MessageID != 2 else status) as pacs:
        postroom.run(job_id)
    delivery = postroom.delivery(job_id)
    assert len(pacs.taken) == 2, "the others are sent all the same"
    assert (delivery.state, delivery.attempts) == (DeliveryState.FAILED, 1)
    assert f"0x{status:04X}" in (delivery.last_error or "")
    assert (postroom.stage(), postroom.job(job_id).state) == ("failed", JobState.DEAD)
    assert [each["status"] for each in postroom.details("object-refused")] == [f"0x{status:04X}"]


def test_what_may_pass_is_waited_for_before_the_refused_fails(postroom: Postroom, ports: list[int]) -> None:
    (job_id,) = postroom.a_finished_analysis("pacs")
    answers = {1: 0x0000, 2: 0xA900, 3: 0xA700}
    with Pacs(ports[0], answer=lambda event: answers[event.request.MessageID]):
        postroom.run(job_id)
    assert postroom.delivery(job_id).state is DeliveryState.PENDING
    postroom.make_due(job_id)
    with Pacs(ports[0], answer=lambda event: 0xA900 if event.request.MessageID == 1 else 0x0000) as pacs:
        postroom.run(job_id)
    assert len(pacs.taken) == 1 and postroom.delivery(job_id).state is DeliveryState.FAILED


def test_a_class_that_the_peer_does_not_take_fails_by_name(postroom: Postroom, ports: list[int]) -> None:
    (job_id,) = postroom.a_real_analysis("pacs")
    with Pacs(ports[0]):
        postroom.run(job_id)
    assert postroom.delivery(job_id).state is DeliveryState.DELIVERED
    entity = AE("PACS")
    entity.add_supported_context("1.2.840.10008.5.1.4.1.1.7")
    (job_id,) = postroom.a_real_analysis("second")
    server = entity.start_server((LOOPBACK, ports[1]), block=False)
    assert server is not None
    postroom.run(job_id)
    server.shutdown()
    delivery = postroom.delivery(job_id)
    assert delivery.state is DeliveryState.FAILED
    assert "1.2.840.10008.5.1.4.1.1.66.4" in (delivery.last_error or "")


def test_a_pacs_that_stays_away_is_given_up_after_its_time(postroom: Postroom, ports: list[int]) -> None:
    postroom.to(Destination(name="pacs", ae_title="PACS", host=LOOPBACK, port=ports[0], retry_hours=2.0))
    (job_id,) = postroom.a_finished_analysis("pacs")
    postroom.run(job_id)
    delivery = postroom.delivery(job_id)
    assert delivery.retry_until is not None
    left = delivery.retry_until - datetime.now(UTC)
    assert timedelta(hours=1.9) < left <= timedelta(hours=2)
    its_time_is_over(postroom, job_id)
    postroom.make_due(job_id)
    postroom.run(job_id)
    delivery = postroom.delivery(job_id)
    assert delivery.state is DeliveryState.FAILED and "given up after 2 attempts" in (
        delivery.last_error or ""
    )
    assert postroom.stage() == "failed"


def test_a_rule_outweighs_the_destination(postroom: Postroom) -> None:
    (job_id,) = postroom.a_finished_analysis("pacs")
    with transaction(postroom.engine) as session:
        session.get_one(Delivery, session.get_one(Job, job_id).subject_id).retry_hours = 0.5
    postroom.run(job_id)
    until = postroom.delivery(job_id).retry_until
    assert until is not None and until < datetime.now(UTC) + timedelta(hours=0.6)


def test_who_rejects_us_for_good_is_asked_slowly(postroom: Postroom, ports: list[int]) -> None:
    entity = AE("SOMEBODY")
    entity.require_called_aet = True
    entity.add_supported_context("1.2.840.10008.5.1.4.1.1.7")
    server = entity.start_server((LOOPBACK, ports[0]), block=False)
    assert server is not None
    (job_id,) = postroom.a_finished_analysis("pacs")
    postroom.run(job_id)
    server.shutdown()
    assert postroom.delivery(job_id).state is DeliveryState.PENDING
    assert postroom.job(job_id).not_before > datetime.now(UTC) + timedelta(seconds=10)
