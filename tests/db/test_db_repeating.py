"""Revisions that repeat an analysis: what they take up, what they name as predecessors, what they leave."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine, select
from ward_book import ANSWER, NOW, STUDY, analyse, close, events, picture, receive, report_on, stage_of

from cds_db import repeating, studies
from cds_db.handling import Handling
from cds_db.models import AuditEntry, DeliveredObject, Delivery, Instance, Job, Result, Revision
from cds_db.moves import discard_revision
from cds_db.repeating import SET_ASIDE, Repeat, Repeated
from cds_db.session import snapshot, transaction
from cds_db.stages import JobState, Origin, Stage

OLD, NEW = "a" * 64, "b" * 64
LATER = NOW + timedelta(days=1)


def analysed(
    engine: Engine, revision_id: int, recipe: str, destinations: tuple[str, ...] = ("pacs",)
) -> list[int]:
    """Take a queued revision through its analysis; its objects are named after recipe and revision."""
    with transaction(engine) as session:
        studies.start_analysis(session, revision_id, now=NOW, actor="worker")
        for each in studies.revision_pictures(session, revision_id):
            report = report_on(each.sop_instance_uid)
            made = replace(
                report,
                sop_instance_uid=f"{each.sop_instance_uid}.{revision_id}",
                recipe=recipe,
                series_instance_uid=f"{each.sop_instance_uid}.{revision_id}.9",
            )
            studies.record_results(session, revision_id, [made], now=NOW, actor="worker", detail=ANSWER)
        return studies.finish_analysis(session, revision_id, destinations, now=NOW, actor="worker")


def received(engine: Engine, *numbers: int, **more: object) -> int:
    stored = receive(engine, *(picture(number, **more) for number in numbers))
    assert stored[0].revision_id is not None
    close(engine, stored[0].revision_id)
    return stored[0].revision_id


def rerun(engine: Engine, recipe: str = NEW, study: str = STUDY) -> Repeated:
    with transaction(engine) as session:
        return repeating.rerun(session, study, recipe, now=LATER, actor="user:root")


def newest(engine: Engine) -> Revision:
    with snapshot(engine) as session:
        return session.query(Revision).order_by(Revision.number.desc()).first()


def earlier(engine: Engine, revision_id: int, number: int) -> list[tuple[str, bool]]:
    with snapshot(engine) as session:
        found = repeating.earlier_reports(session, revision_id, f"{STUDY}.{number}")
    return [(each.sop_instance_uid, each.same_picture) for each in found]


def test_a_new_recipe_makes_a_revision_of_every_picture(engine: Engine) -> None:
    first = received(engine, 1, 2, handling=Handling(5.0, 1, {"pacs": ("sr",)}, 8.0))
    analysed(engine, first, OLD)
    assert rerun(engine) == Repeated(Repeat.QUEUED, 2, 2)
    revision = newest(engine)
    assert (revision.stage, revision.origin, revision.wanted_recipe) == (Stage.QUEUED, Origin.RERUN, NEW)
    assert (revision.routes, revision.retry_hours, revision.priority) == ({"pacs": ["sr"]}, 8.0, 0)
    with snapshot(engine) as session:
        pictures = studies.revision_pictures(session, revision.id)
        assert [each.sop_instance_uid for each in pictures] == [f"{STUDY}.1", f"{STUDY}.2"]
        assert studies.revision_pictures(session, first) == pictures
        assert session.query(Job).filter_by(subject_id=revision.id, state=JobState.WAITING).count() == 1
    assert earlier(engine, revision.id, 1) == [(f"{STUDY}.1.{first}", True)]
    before = _rows(engine)
    analysed(engine, revision.id, NEW)
    assert before.items() <= _rows(engine).items(), "nothing is overwritten"
    with snapshot(engine) as session:
        status = studies.status(session, STUDY)
    assert status is not None and (status.origin, status.instances) == (Origin.RERUN, 2)
    assert [(each.sop_instance_uid, each.revision) for each in status.results] == [
        (f"{STUDY}.{number}.{revision.id}", 2) for number in (1, 2)
    ]
    assert rerun(engine).outcome is Repeat.UNCHANGED
    assert "study-rerun" in events(engine)


def _rows(engine: Engine) -> dict[str, str]:
    with snapshot(engine) as session:
        return {each.sop_instance_uid: each.sha256 for each in session.query(Result)}


def test_only_the_pictures_of_another_recipe_are_taken_up(engine: Engine) -> None:
    analysed(engine, received(engine, 1), OLD)
    analysed(engine, received(engine, 2), NEW)
    assert rerun(engine) == Repeated(Repeat.QUEUED, 3, 1)
    revision = newest(engine)
    with snapshot(engine) as session:
        assert [each.sop_instance_uid for each in studies.revision_pictures(session, revision.id)] == [
            f"{STUDY}.1"
        ]


def test_what_the_recipe_has_made_is_not_made_again(engine: Engine) -> None:
    analysed(engine, received(engine, 1), NEW)
    written = events(engine)
    assert rerun(engine) == Repeated(Repeat.UNCHANGED)
    assert events(engine) == written and newest(engine).number == 1


def test_results_of_before_recipes_were_noted_count_as_outdated(engine: Engine) -> None:
    analyse(engine, received(engine, 1))
    assert rerun(engine).outcome is Repeat.QUEUED


@pytest.mark.parametrize("close_it", [False, True])
def test_a_study_at_work_is_left_alone(engine: Engine, close_it: bool) -> None:
    if close_it:
        received(engine, 1)
    else:
        receive(engine, picture(1))
    assert rerun(engine) == Repeated(Repeat.AT_WORK, 1)


def test_a_re_run_that_nobody_began_takes_the_newer_recipe(engine: Engine) -> None:
    analysed(engine, received(engine, 1), OLD)
    rerun(engine)
    assert rerun(engine, "c" * 64) == Repeated(Repeat.QUEUED, 2)
    assert newest(engine).wanted_recipe == "c" * 64 and newest(engine).number == 2


def test_an_analysis_that_failed_is_taken_up(engine: Engine) -> None:
    revision_id = received(engine, 1)
    with transaction(engine) as session:
        studies.start_analysis(session, revision_id, now=NOW, actor="worker")
        studies.fail_analysis(session, revision_id, reason="no memory", now=NOW, actor="worker")
    assert rerun(engine) == Repeated(Repeat.QUEUED, 2, 1)
    analysed(engine, newest(engine).id, NEW)
    assert stage_of(engine) == "delivering"


def test_unknown_and_empty_studies(engine: Engine) -> None:
    assert rerun(engine).outcome is Repeat.UNKNOWN
    receive(engine, picture(1, reason_not_analysed="a PDF"))
    assert rerun(engine).outcome is Repeat.NOTHING


def test_a_late_picture_adds_to_the_reports_of_the_revision_before(engine: Engine) -> None:
    first = received(engine, 1, 2)
    assert earlier(engine, first, 1) == []
    analysed(engine, first, OLD)
    late = received(engine, 3)
    assert earlier(engine, late, 3) == [(f"{STUDY}.{number}.{first}", False) for number in (1, 2)]


def test_studies_of_a_time(engine: Engine) -> None:
    analysed(engine, received(engine, 1), OLD)
    with snapshot(engine) as session:
        assert repeating.closed_between(session, NOW, None) == [STUDY]
        assert repeating.closed_between(session, NOW - timedelta(days=1), NOW) == []
        assert repeating.closed_between(session, None, LATER) == [STUDY]


def on_hold(engine: Engine) -> tuple[int, list[Instance]]:
    """Return a held revision with two pictures, the second of another patient."""
    stored = receive(engine, picture(1), picture(2, patient_id="P-2"))
    assert stored[0].revision_id is not None and stage_of(engine) == "conflict"
    with snapshot(engine) as session:
        return stored[0].revision_id, repeating.pictures_on_hold(session, STUDY)


def release(engine: Engine, patient: str, *set_aside: int) -> Repeated:
    with transaction(engine) as session:
        return repeating.release(
            session, STUDY, (patient, ""), set_aside, reason="Dr. A decided", now=LATER, actor="user:root"
        )


def test_a_released_study_is_analysed_without_what_was_set_aside(engine: Engine) -> None:
    held, pictures = on_hold(engine)
    assert rerun(engine).outcome is Repeat.ON_HOLD
    assert release(engine, "P-1", pictures[1].id) == Repeated(Repeat.QUEUED, 2, 1)
    revision = newest(engine)
    assert (revision.origin, stage_of(engine)) == (Origin.RELEASE, "queued")
    with snapshot(engine) as session:
        assert session.get_one(Revision, held).stage is Stage.CONFLICT
        assert session.get_one(Instance, pictures[1].id).reason_not_analysed == SET_ASIDE
    analysed(engine, revision.id, NEW)
    assert stage_of(engine) == "delivering"
    told = events(engine)
    assert told.index("picture-set-aside") < told.index("study-released")
    with snapshot(engine) as session:
        row = session.scalars(select(AuditEntry).where(AuditEntry.event == "study-released")).one()
    assert (row.actor, row.detail["reason"]) == ("user:root", "Dr. A decided")
    assert row.detail["patient_id"] == ["P-1", "P-1"], "before and after"
    assert release(engine, "P-1") == Repeated(Repeat.NOTHING), "it is not on hold any more"


def test_a_further_picture_of_the_chosen_patient_opens_no_hold(engine: Engine) -> None:
    _, pictures = on_hold(engine)
    release(engine, "P-2", pictures[0].id)
    receive(engine, picture(3, patient_id="P-2"))
    assert stage_of(engine) == "receiving"
    receive(engine, picture(4, patient_id="P-1"))
    assert stage_of(engine) == "conflict"


def test_what_the_hold_kept_back_is_never_sent_and_has_no_successor(engine: Engine) -> None:
    first = received(engine, 1)
    (delivery_job,) = analysed(engine, first, OLD)
    receive(engine, picture(2, patient_id="P-2"))
    with snapshot(engine) as session:
        other = session.query(Instance).filter_by(sop_instance_uid=f"{STUDY}.2").one()
    assert release(engine, "P-1", other.id) == Repeated(Repeat.QUEUED, 3, 1)
    revision = newest(engine)
    assert earlier(engine, revision.id, 1) == []
    with transaction(engine) as session:
        delivery = session.get_one(Delivery, session.get_one(Job, delivery_job).subject_id)
        assert delivery.state == "held"
        session.add(
            DeliveredObject(delivery_id=delivery.id, sop_instance_uid=f"{STUDY}.1.{first}", delivered_at=NOW)
        )
    assert earlier(engine, revision.id, 1) == [(f"{STUDY}.1.{first}", True)], "unless it had been sent"


def test_a_report_of_an_analysis_that_was_discarded_does_not_stand(engine: Engine) -> None:
    """Its second picture could not be analysed; nothing of it was ever to be sent."""
    revision_id = received(engine, 1, 2)
    with transaction(engine) as session:
        studies.start_analysis(session, revision_id, now=NOW, actor="worker")
        made = report_on(f"{STUDY}.1")
        studies.record_results(session, revision_id, [made], now=NOW, actor="worker", detail=ANSWER)
        studies.fail_analysis(session, revision_id, reason="no memory", now=NOW, actor="worker")
        discard_revision(session.get_one(Revision, revision_id), "not needed", NOW)
    receive(engine, picture(3, patient_id="P-2"))
    with snapshot(engine) as session:
        other = session.query(Instance).filter_by(sop_instance_uid=f"{STUDY}.3").one()
    assert release(engine, "P-1", other.id) == Repeated(Repeat.QUEUED, 3, 2)
