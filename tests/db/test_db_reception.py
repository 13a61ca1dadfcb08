"""What a received object becomes: new, duplicate, altered; which revision it joins; when a study is held."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, func, select
from ward_book import (
    NOW,
    PICTURE,
    STUDY,
    a_closed_study,
    analyse,
    claimed,
    close,
    events,
    picture,
    receive,
    report_on,
    stage_of,
)

from cds_db import jobs, studies
from cds_db.models import AuditEntry, Delivery, Instance, Job, Revision
from cds_db.prepared import Prepared
from cds_db.session import snapshot, transaction
from cds_db.stages import IllegalMove, JobState
from cds_db.studies import Stored

OTHER_PATIENT = {"patient_id": "P-2"}


def test_pictures_of_one_study_join_one_revision(engine: Engine) -> None:
    first, second = receive(engine, picture(1), picture(2))
    assert first.outcome is second.outcome is Stored.NEW
    assert first.revision_id == second.revision_id is not None
    assert events(engine) == ["instance-stored", "study-opened", "instance-stored"]


def test_an_identical_duplicate_changes_nothing_but_the_audit(engine: Engine) -> None:
    (first,) = receive(engine, picture(1))
    (again,) = receive(engine, picture(1), now=NOW + timedelta(seconds=9))
    assert again.outcome is Stored.DUPLICATE
    assert again.instance_id == first.instance_id
    with snapshot(engine) as session:
        assert session.scalars(select(Revision.last_received_at)).one() == NOW
    assert events(engine)[-1] == "instance-duplicate"


def test_a_duplicate_after_the_end_starts_nothing(engine: Engine) -> None:
    revision_id, _ = a_closed_study(engine)
    analyse(engine, revision_id, destinations=())
    assert [each.outcome for each in receive(engine, picture(1))] == [Stored.DUPLICATE]
    assert stage_of(engine) == "complete"


def test_other_bytes_of_the_same_object_are_kept_and_the_first_stay_in_use(engine: Engine) -> None:
    (first,) = receive(engine, picture(1))
    revision_id = first.revision_id
    assert revision_id is not None
    close(engine, revision_id)
    (other,) = receive(engine, picture(1, content="other"))
    assert (other.outcome, other.revision_id) == (Stored.ALTERED, None)
    assert receive(engine, picture(1, content="other"))[0].outcome is Stored.DUPLICATE
    with snapshot(engine) as session:
        in_use = {each.id: each.in_use for each in session.scalars(select(Instance))}
        assert in_use == {first.instance_id: True, other.instance_id: False}
        assert [each.id for each in studies.revision_pictures(session, revision_id)] == [first.instance_id]
        assert session.scalar(select(func.count()).select_from(Revision)) == 1


def test_what_is_not_analysed_never_opens_or_extends_a_revision(engine: Engine) -> None:
    (alone,) = receive(engine, picture(1, reason_not_analysed="storage class is not analysed"))
    assert (alone.outcome, alone.revision_id) == (Stored.NEW, None)
    receive(engine, picture(2))
    later = picture(3, reason_not_analysed="storage class is not analysed")
    receive(engine, later, now=NOW + timedelta(seconds=9))
    with snapshot(engine) as session:
        assert session.scalars(select(Revision.last_received_at)).one() == NOW
        state = studies.status(session, STUDY)
    assert state is not None
    assert (state.revision, state.instances) == (1, 1)


def test_a_late_picture_makes_the_next_revision_with_only_itself(engine: Engine) -> None:
    first, _ = a_closed_study(engine)
    (late,) = receive(engine, picture(7))
    assert late.revision_id != first
    assert late.revision_id is not None
    with snapshot(engine) as session:
        pictures = studies.revision_pictures(session, late.revision_id)
        numbers = session.scalars(select(Revision.number).order_by(Revision.id)).all()
    assert [each.sop_instance_uid for each in pictures] == [f"{STUDY}.7"]
    assert numbers == [1, 2]


@pytest.mark.parametrize("other", [OTHER_PATIENT, {"issuer_of_patient_id": "ELSEWHERE"}, {"patient_id": ""}])
def test_a_second_patient_puts_the_study_on_hold_and_the_audit_names_both(
    engine: Engine, other: dict[str, str]
) -> None:
    receive(engine, picture(1), picture(2, **other))
    assert stage_of(engine) == "conflict"
    with snapshot(engine) as session:
        row = session.scalars(select(AuditEntry).where(AuditEntry.event == "study-conflict")).one()
    assert row.detail["patient_id"] == ["P-1", other.get("patient_id", "P-1")]
    assert row.detail["issuer_of_patient_id"] == ["", other.get("issuer_of_patient_id", "")]
    assert row.outcome == "serious_failure"


def test_a_held_study_stays_held_in_one_revision_and_nothing_of_it_is_queued(engine: Engine) -> None:
    receive(engine, picture(1), picture(2, **OTHER_PATIENT), picture(3), picture(4))
    with snapshot(engine) as session:
        assert [str(each) for each in session.scalars(select(Revision.stage))] == ["conflict"]
        assert studies.receiving(session) == []
        assert session.scalar(select(func.count()).select_from(Job)) == 0


def test_a_conflict_stops_a_queued_analysis(engine: Engine) -> None:
    _, job_id = a_closed_study(engine)
    receive(engine, picture(8, **OTHER_PATIENT))
    assert claimed(engine, job_id) is None
    with snapshot(engine) as session:
        job = session.get_one(Job, job_id)
    assert job.state is JobState.DEAD
    assert "on hold" in str(job.last_error)


def test_a_conflict_takes_a_running_analysis_away(engine: Engine) -> None:
    revision_id, job_id = a_closed_study(engine)
    assert claimed(engine, job_id) is not None
    with transaction(engine) as session:
        studies.start_analysis(session, revision_id, now=NOW, actor="worker")
    receive(engine, picture(8, **OTHER_PATIENT))
    with transaction(engine) as session:
        assert not jobs.renew(session, job_id, "worker", NOW)
    for write in (
        lambda session: studies.record_results(
            session, revision_id, [report_on(f"{STUDY}.1")], now=NOW, actor="worker", detail={}
        ),
        lambda session: studies.finish_analysis(session, revision_id, ["pacs"], now=NOW, actor="worker"),
        lambda session: studies.start_analysis(session, revision_id, now=NOW, actor="worker"),
    ):
        with pytest.raises(IllegalMove), transaction(engine) as session:
            write(session)


def test_a_conflict_holds_a_delivery_that_waits(engine: Engine) -> None:
    revision_id, _ = a_closed_study(engine)
    (job_id,) = analyse(engine, revision_id)
    receive(engine, picture(8, **OTHER_PATIENT))
    assert claimed(engine, job_id) is None
    with snapshot(engine) as session:
        delivery = session.scalars(select(Delivery)).one()
        assert not studies.is_pending(session, delivery.id)
    assert str(delivery.state) == "held"
    with pytest.raises(IllegalMove), transaction(engine) as session:
        studies.delivery_objects(session, delivery.id)


def test_what_was_sent_stays_complete_when_a_conflict_comes_later(engine: Engine) -> None:
    revision_id, _ = a_closed_study(engine)
    analyse(engine, revision_id, destinations=())
    receive(engine, picture(8, reason_not_analysed="storage class is not analysed", **OTHER_PATIENT))
    assert stage_of(engine) == "conflict"
    with snapshot(engine) as session:
        assert str(session.get_one(Revision, revision_id).stage) == "complete"


def test_our_own_object_that_a_pacs_changed_is_no_conflict(engine: Engine) -> None:
    receive(engine, picture(1), picture(2, reason_not_analysed="made here", made_here=True, **OTHER_PATIENT))
    assert stage_of(engine) == "receiving"


def test_only_open_associations_that_stored_into_a_revision_hold_it(engine: Engine) -> None:
    with transaction(engine) as session:
        for name in ("stored", "idle", "ended"):
            studies.open_association(
                session, id=name, listener=f"listener-{name}", calling_ae="A", peer="p", now=NOW
            )
    receive(engine, picture(1, association_id="stored"), picture(2, association_id="ended"))
    later = NOW + timedelta(seconds=4)
    with transaction(engine) as session:
        studies.close_association(session, "ended")
        studies.touch_associations(session, {"stored": later, "unknown": later})
    with snapshot(engine) as session:
        (revision,) = studies.receiving(session)
    assert [(each.id, each.active_at) for each in revision.associations] == [("stored", later)]
    assert revision.calling_ae == PICTURE.calling_ae
    with transaction(engine) as session:
        studies.forget_listener(session, "listener-stored")
    with snapshot(engine) as session:
        assert studies.receiving(session)[0].associations == ()


def test_a_revision_closes_once(engine: Engine) -> None:
    revision_id, job_id = a_closed_study(engine)
    with pytest.raises(IllegalMove):
        close(engine, revision_id)
    with snapshot(engine) as session:
        assert jobs.due(session, NOW, 9) == [(job_id, jobs.JobKind.ANALYSIS)]
        revision = session.get_one(Revision, revision_id)
    assert (str(revision.stage), revision.closed_at) == ("queued", NOW)


def test_an_exception_leaves_neither_the_move_nor_its_audit_row(engine: Engine) -> None:
    with pytest.raises(RuntimeError), transaction(engine) as session:
        studies.record_instance(session, picture(1), now=NOW, actor="A")
        raise RuntimeError("the disk is gone")
    assert events(engine) == []
    with snapshot(engine) as session:
        assert studies.status(session, STUDY) is None


def test_the_usual_object_costs_few_statements(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    receive(engine, picture(1))
    said: list[str] = []
    run = Prepared.run

    def noted(statement: Prepared, *given: Any) -> Any:
        said.append("prepared")
        return run(statement, *given)

    monkeypatch.setattr(Prepared, "run", noted)
    by_session: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *spoken: by_session.append(spoken[2]))
    (stored,) = receive(engine, picture(2), now=NOW + timedelta(seconds=9))
    assert stored.outcome is Stored.NEW
    assert len(said) == 5, "the study, its state, the object, the revision, the audit"
    assert not [each for each in by_session if not each.startswith("BEGIN")]
    with snapshot(engine) as session:
        assert session.scalars(select(Revision.last_received_at)).one() == NOW + timedelta(seconds=9)
        assert session.get_one(Instance, stored.instance_id).revision_id == stored.revision_id
