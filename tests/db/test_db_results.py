"""From a queued revision to a destination that took everything."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, select
from ward_book import (
    ANSWER,
    NOW,
    STUDY,
    a_closed_study,
    analyse,
    events,
    picture,
    receive,
    report_on,
    stage_of,
)

from cds_db import studies
from cds_db.models import AuditEntry, Delivery, Result
from cds_db.session import snapshot, transaction
from cds_db.stages import DeliveryState, IllegalMove


def started(engine: Engine, pictures: int = 2) -> int:
    revision_id, _ = a_closed_study(engine, pictures)
    with transaction(engine) as session:
        studies.start_analysis(session, revision_id, now=NOW, actor="worker")
    return revision_id


def record(
    engine: Engine, revision_id: int, *results: studies.NewResult, refused: bool = False
) -> list[Result]:
    with transaction(engine) as session:
        return studies.record_results(
            session, revision_id, results, now=NOW, actor="worker", detail=ANSWER, refused=refused
        )


def delivery_of(engine: Engine, destination: str = "pacs") -> int:
    with snapshot(engine) as session:
        return session.scalars(select(Delivery.id).where(Delivery.destination == destination)).one()


def send(engine: Engine, delivery_id: int) -> list[str]:
    """Deliver what is missing and return the UIDs that were sent."""
    with transaction(engine) as session:
        studies.start_delivery(session, delivery_id, now=NOW, actor="deliver")
        _, results = studies.delivery_objects(session, delivery_id)
        for each in results:
            studies.record_object_delivered(
                session, delivery_id, each.sop_instance_uid, now=NOW, actor="deliver"
            )
        studies.finish_delivery(session, delivery_id, now=NOW, actor="deliver")
    return [each.sop_instance_uid for each in results]


def test_a_study_goes_from_queue_to_complete_and_the_audit_tells_it(engine: Engine) -> None:
    revision_id, _ = a_closed_study(engine, 1)
    analyse(engine, revision_id)
    assert stage_of(engine) == "delivering"
    assert len(send(engine, delivery_of(engine))) == 2
    assert stage_of(engine) == "complete"
    assert events(engine) == [
        "instance-stored", "study-opened", "study-closed", "analysis-started", "picture-analysed",
        "result-created", "result-created", "analysis-finished", "delivery-started", "object-delivered",
        "object-delivered", "delivery-finished",
    ]  # fmt: skip


def test_a_second_run_of_a_picture_changes_nothing_and_gets_the_first_results(engine: Engine) -> None:
    revision_id = started(engine)
    first = record(engine, revision_id, report_on(f"{STUDY}.1"))
    before = events(engine)
    again = record(engine, revision_id, report_on(f"{STUDY}.1"), report_on(f"{STUDY}.1", "seg"))
    assert [each.sop_instance_uid for each in again] == [each.sop_instance_uid for each in first]
    assert events(engine) == before
    with snapshot(engine) as session:
        assert studies.is_own_uid(session, first[0].sop_instance_uid)
        assert not studies.is_own_uid(session, f"{STUDY}.1")


def test_an_analysis_that_begins_again_says_so(engine: Engine) -> None:
    revision_id = started(engine)
    with transaction(engine) as session:
        studies.start_analysis(session, revision_id, now=NOW, actor="worker")
    assert events(engine)[-1] == "analysis-retried"


def test_an_analysis_ends_only_when_every_picture_has_its_report(engine: Engine) -> None:
    revision_id = started(engine)
    record(engine, revision_id, report_on(f"{STUDY}.1"))
    record(engine, revision_id, report_on(f"{STUDY}.2", "overlay"))
    with pytest.raises(IllegalMove, match="1 pictures"), transaction(engine) as session:
        studies.finish_analysis(session, revision_id, ["pacs"], now=NOW, actor="worker")
    assert stage_of(engine) == "analysing"


def test_results_of_strangers_or_of_several_pictures_are_refused(engine: Engine) -> None:
    revision_id = started(engine)
    for results in ([report_on("1.2.3")], [report_on(f"{STUDY}.1"), report_on(f"{STUDY}.2")], []):
        with pytest.raises(ValueError, match="picture"):
            record(engine, revision_id, *results)


def test_a_refused_picture_is_audited_with_what_the_models_said(engine: Engine) -> None:
    record(engine, started(engine), report_on(f"{STUDY}.1"), refused=True)
    with snapshot(engine) as session:
        row = session.scalars(select(AuditEntry).where(AuditEntry.event == "picture-refused")).one()
    assert (row.sop_instance_uid, row.outcome) == (f"{STUDY}.1", "minor_failure")
    assert row.detail == {"revision": 1, **ANSWER}


def test_a_failed_analysis_is_shown_with_its_reason(engine: Engine) -> None:
    revision_id = started(engine)
    with transaction(engine) as session:
        studies.fail_analysis(session, revision_id, reason="x" * 5000, now=NOW, actor="worker")
        state = studies.status(session, STUDY)
    assert state is not None
    assert (state.stage, len(state.failure or "")) == ("failed", 500)


def test_two_destinations_make_two_deliveries_and_the_last_completes(engine: Engine) -> None:
    revision_id, _ = a_closed_study(engine)
    assert len(analyse(engine, revision_id, ["pacs", "archive", "pacs"])) == 2
    send(engine, delivery_of(engine, "pacs"))
    assert stage_of(engine) == "delivering"
    send(engine, delivery_of(engine, "archive"))
    assert stage_of(engine) == "complete"


def test_a_delivery_that_broke_off_sends_only_the_rest(engine: Engine) -> None:
    revision_id, _ = a_closed_study(engine, 1)
    analyse(engine, revision_id)
    delivery_id = delivery_of(engine)
    with transaction(engine) as session:
        studies.start_delivery(session, delivery_id, now=NOW, actor="deliver")
        _, (first, second) = studies.delivery_objects(session, delivery_id)
        studies.record_object_delivered(
            session, delivery_id, first.sop_instance_uid, now=NOW, actor="deliver"
        )
        studies.record_delivery_attempt(session, delivery_id, "the peer is away", now=NOW, actor="deliver")
    with pytest.raises(IllegalMove, match="1 objects"), transaction(engine) as session:
        studies.finish_delivery(session, delivery_id, now=NOW, actor="deliver")
    with snapshot(engine) as session:
        state = studies.status(session, STUDY)
    assert state is not None
    assert [(each.attempts, each.last_error) for each in state.deliveries] == [(1, "the peer is away")]
    assert send(engine, delivery_id) == [second.sop_instance_uid]
    assert stage_of(engine) == "complete"


def test_a_delivery_is_finished_once(engine: Engine) -> None:
    revision_id, _ = a_closed_study(engine, 1)
    analyse(engine, revision_id)
    send(engine, delivery_of(engine))
    with pytest.raises(IllegalMove, match="delivered"):
        send(engine, delivery_of(engine))


def test_one_destination_given_up_fails_the_revision_only_after_the_others(engine: Engine) -> None:
    revision_id, _ = a_closed_study(engine, 1)
    analyse(engine, revision_id, ["pacs", "archive"])
    with transaction(engine) as session:
        studies.fail_delivery(session, delivery_of(engine, "archive"), "refused", now=NOW, actor="deliver")
    assert stage_of(engine) == "delivering"
    send(engine, delivery_of(engine, "pacs"))
    assert stage_of(engine) == "failed"


def test_status_shows_results_of_all_revisions_and_older_deliveries_still_on_their_way(
    engine: Engine,
) -> None:
    first, _ = a_closed_study(engine, 1)
    analyse(engine, first, ["pacs", "archive"])
    send(engine, delivery_of(engine, "pacs"))
    receive(engine, picture(5))
    with snapshot(engine) as session:
        state = studies.status(session, STUDY)
        listed = studies.statuses(session, 9)
    assert state is not None
    assert listed == [state]
    assert (state.revision, state.stage, state.instances) == (2, "receiving", 2)
    assert {(each.source, each.kind) for each in state.results} == {
        (f"{STUDY}.1", "sr"),
        (f"{STUDY}.1", "overlay"),
    }
    assert [(each.destination, each.state, each.revision) for each in state.deliveries] == [
        ("archive", DeliveryState.PENDING, 1)
    ]


def test_the_newest_studies_come_first(engine: Engine) -> None:
    for number in range(3):
        receive(engine, picture(1, study=f"1.2.{number}"), now=NOW.replace(minute=number))
    with snapshot(engine) as session:
        assert [each.study_instance_uid for each in studies.statuses(session, 2)] == ["1.2.2", "1.2.1"]
        assert studies.status(session, "1.2.9") is None
