"""What a retention rule may mark and what it must leave, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine, select, update
from test_db_lesions import LESION, visit
from ward_book import (
    NOW,
    STUDY,
    a_closed_study,
    analyse,
    close,
    events,
    picture,
    receive,
    seal_all,
    stage_of,
    verified,
)

from cds_db import commitment, dead_letters, repeating, retention, studies
from cds_db.commitment import CommitmentRequest, Reference
from cds_db.dead_letters import Change
from cds_db.models import AuditEntry, Commitment, Delivery, Instance, Job, Result, Revision
from cds_db.repeating import Repeat
from cds_db.retention import DueFile, Limit, Limits, Marked
from cds_db.session import snapshot, transaction
from cds_db.sparing import Spared
from cds_db.stages import AskedState, JobKind, JobState, Stage

LATER = NOW + timedelta(days=40)
OLD = Limit("pictures_days = 30", LATER - timedelta(days=30))
BOTH = Limits(OLD, replace(OLD, rule="results_days = 30"))


def delivered(engine: Engine, destinations: tuple[str, ...] = ("pacs",)) -> int:
    """Return the revision of a study of two pictures whose results were taken."""
    revision_id, _ = a_closed_study(engine)
    analyse(engine, revision_id, destinations)
    with transaction(engine) as session:
        for delivery in session.scalars(select(Delivery)):
            _, objects = studies.delivery_objects(session, delivery.id)
            for each in objects:
                uid = each.sop_instance_uid
                studies.record_object_delivered(session, delivery.id, uid, now=NOW, actor="deliver")
            studies.finish_delivery(session, delivery.id, now=NOW, actor="deliver")
    assert stage_of(engine) == "complete"
    return revision_id


def marked(engine: Engine, limits: Limits = BOTH) -> Marked:
    with transaction(engine) as session:
        return retention.mark(session, STUDY, limits, now=LATER, actor="sweep")


def due(engine: Engine) -> list[DueFile]:
    with snapshot(engine) as session:
        return retention.due_files(session)


def spared(engine: Engine, limits: Limits = BOTH) -> dict[Spared, int]:
    with snapshot(engine) as session:
        return retention.spared(session, limits)


def overdue(engine: Engine, limits: Limits = BOTH) -> list[str]:
    with snapshot(engine) as session:
        return retention.overdue_studies(session, limits)


def test_old_files_are_marked_once_and_audited_with_the_rule_and_every_hash(engine: Engine) -> None:
    delivered(engine)
    receive(engine, picture(9, reason_not_analysed="a PDF"))
    with snapshot(engine) as session:
        before = retention.due_of(session, STUDY, BOTH)
    assert overdue(engine) == [STUDY]
    found = marked(engine)
    assert found == before
    assert len(found.pictures) == 3 and len(found.results) == 4 and found.files == 7
    assert marked(engine).files == 0 and overdue(engine) == []
    with snapshot(engine) as session:
        (row,) = session.scalars(select(AuditEntry).where(AuditEntry.event == "files-purged"))
    assert (row.actor, row.study_instance_uid) == ("sweep", STUDY)
    assert row.detail["pictures"]["rule"] == "pictures_days = 30"
    assert [f"{STUDY}.1", picture(1).sha256] in row.detail["pictures"]["sha256"]
    assert row.detail["results"]["files"] == 4
    seal_all(engine, LATER)
    assert verified(engine, LATER).intact


def test_young_files_and_kinds_without_a_rule_stay(engine: Engine) -> None:
    delivered(engine)
    young = replace(OLD, before=NOW)
    assert marked(engine, Limits(young, young)).files == 0
    assert marked(engine, Limits(results=OLD)).pictures == ()
    assert marked(engine, Limits()).files == 0


def test_a_mark_is_settled_once_its_file_is_gone_and_the_row_stays(engine: Engine) -> None:
    delivered(engine)
    marked(engine)
    assert len(due(engine)) == 6
    with transaction(engine) as session:
        retention.note_gone(session, due(engine), now=LATER)
    assert due(engine) == []
    with snapshot(engine) as session:
        rows = list(session.scalars(select(Instance)))
        assert {each.purged_at for each in rows} == {LATER} and all(each.sha256 for each in rows)
        kept = commitment.kept_files(session, [f"{STUDY}.1"])
        status = studies.status(session, STUDY)
    assert [each.purged for each in kept[f"{STUDY}.1"]] == [True]
    assert status is not None and (status.instances, status.purged) == (2, 2)


def test_an_object_that_comes_again_takes_its_mark_away(engine: Engine) -> None:
    delivered(engine)
    marked(engine)
    left = due(engine)
    (stored,) = receive(engine, picture(1, path="spool/new.dcm"), now=LATER)
    assert stored.outcome is studies.Stored.DUPLICATE and stored.kept_anew
    with transaction(engine) as session:
        retention.note_gone(session, left, now=LATER)
    with snapshot(engine) as session:
        first, second = session.scalars(select(Instance).order_by(Instance.id))
        assert (first.path, first.purging_since, first.purged_at) == ("spool/new.dcm", None, None)
        assert second.purged_at == LATER
        assert (first.received_at, overdue(engine)) == (LATER, []), "the next purge would take it again"
        assert retention.is_wanted(session, "spool/new.dcm") and not retention.is_wanted(session, second.path)
        row = session.scalars(select(AuditEntry).where(AuditEntry.event == "instance-duplicate")).one()
    assert row.detail["kept_anew"] is True
    assert stage_of(engine) == "complete", "it was analysed: no new revision"
    (again,) = receive(engine, picture(1), now=LATER)
    assert not again.kept_anew


def receiving(engine: Engine) -> None:
    delivered(engine)
    receive(engine, picture(3), now=LATER)


def queued(engine: Engine) -> None:
    a_closed_study(engine)


def undelivered(engine: Engine) -> None:
    analyse(engine, a_closed_study(engine)[0])


def given_up(engine: Engine) -> None:
    undelivered(engine)
    with transaction(engine) as session:
        (delivery,) = session.scalars(select(Delivery))
        studies.fail_delivery(session, delivery.id, "never", now=NOW, actor="deliver")


def failed(engine: Engine) -> None:
    revision_id, _ = a_closed_study(engine)
    with transaction(engine) as session:
        studies.start_analysis(session, revision_id, now=NOW, actor="worker")
        studies.fail_analysis(session, revision_id, reason="no memory", now=NOW, actor="worker")


def on_hold(engine: Engine) -> None:
    delivered(engine)
    receive(engine, picture(3, patient_id="P-2"), now=NOW)


def not_vouched_for(engine: Engine) -> None:
    delivered(engine)
    with transaction(engine) as session:
        session.execute(update(Delivery).values(commitment=AskedState.PENDING))


def not_kept_there(engine: Engine) -> None:
    delivered(engine)
    with transaction(engine) as session:
        session.execute(update(Delivery).values(commitment=AskedState.FAILED))


@pytest.mark.parametrize(
    ("situation", "reason"),
    [
        (receiving, Spared.AT_WORK),
        (queued, Spared.AT_WORK),
        (undelivered, Spared.NOT_DELIVERED),
        (given_up, Spared.FAILED),
        (failed, Spared.FAILED),
        (on_hold, Spared.ON_HOLD),
        (not_vouched_for, Spared.NOT_VOUCHED_FOR),
        (not_kept_there, Spared.NOT_VOUCHED_FOR),
    ],
)
def test_what_may_still_be_needed_stays(
    engine: Engine, situation: Callable[[Engine], None], reason: Spared
) -> None:
    situation(engine)
    assert overdue(engine) == [] and marked(engine).files == 0
    assert spared(engine)[reason] >= 2
    assert "files-purged" not in events(engine)


def test_what_a_commitment_request_asks_for_stays_until_it_is_answered(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "MARKED_AT_ONCE", 1)
    delivered(engine)
    wanted = (Reference("1.2", f"{STUDY}.1"),)
    with transaction(engine) as session:
        request = CommitmentRequest("CAMERA", "192.0.2.7", "1.2.3.4", wanted)
        commitment.record_request(session, request, now=NOW)
        asked = session.scalars(select(Commitment.id)).one()
    assert spared(engine, Limits(OLD)) == {Spared.ASKED_FOR: 1}
    assert [marked(engine, Limits(OLD)).pictures for _ in range(2)] == [(f"{STUDY}.2",), ()]
    with transaction(engine) as session:
        commitment.note_reported(session, asked, {}, now=LATER, actor="commitment")
    assert marked(engine).pictures == (f"{STUDY}.1",)


def test_a_failure_counts_no_more_once_a_later_revision_is_complete(engine: Engine) -> None:
    failed(engine)
    with transaction(engine) as session:
        done = repeating.rerun(session, STUDY, "b" * 64, now=NOW, actor="user:root")
        assert done.outcome is Repeat.QUEUED
        second = session.scalars(select(Revision.id).where(Revision.number == 2)).one()
    assert marked(engine).files == 0
    analyse(engine, second, ())
    assert stage_of(engine) == "complete"
    assert len(marked(engine).pictures) == 2


def test_a_released_study_is_purged_with_what_was_set_aside(engine: Engine) -> None:
    receive(engine, picture(1), picture(2, patient_id="P-2"))
    assert stage_of(engine) == "conflict"
    with transaction(engine) as session:
        aside = repeating.pictures_on_hold(session, STUDY)[1]
        repeating.release(session, STUDY, ("P-1", ""), [aside.id], reason="A.", now=NOW, actor="user:root")
        second = session.scalars(select(Revision.id).where(Revision.number == 2)).one()
    assert marked(engine).files == 0
    analyse(engine, second, ())
    assert len(marked(engine).pictures) == 2


def test_a_study_that_was_purged_can_not_be_repeated_until_its_pictures_come_again(engine: Engine) -> None:
    delivered(engine)
    marked(engine, Limits(OLD))
    with transaction(engine) as session:
        assert repeating.rerun(session, STUDY, "b" * 64, now=LATER, actor="u") == repeating.Repeated(
            Repeat.PURGED, purged=2
        )
    receive(engine, picture(1), now=LATER)
    with transaction(engine) as session:
        assert repeating.rerun(session, STUDY, "b" * 64, now=LATER, actor="u") == repeating.Repeated(
            Repeat.QUEUED, 2, 1, 1
        )


def test_pictures_that_the_newest_models_have_not_seen_stay_where_the_rule_says_so(engine: Engine) -> None:
    delivered(engine)
    keeping = Limits(replace(OLD, for_rerun=True))
    with transaction(engine) as session:
        session.execute(update(Result).values(recipe="a" * 64))
        newer = Result.source_sop_instance_uid == f"{STUDY}.2"
        session.execute(update(Result).where(newer).values(recipe="b" * 64, created_at=LATER))
    assert spared(engine, keeping) == {Spared.RERUN: 1}
    assert marked(engine, keeping).pictures == (f"{STUDY}.2",)
    assert marked(engine, Limits(OLD)).pictures == (f"{STUDY}.1",)


def test_the_last_view_of_a_lesion_stays_where_the_rule_says_so(engine: Engine) -> None:
    earlier = f"{STUDY}.77"
    visit(engine, earlier, replace(LESION, observed_at=NOW - timedelta(days=90)))
    visit(engine, STUDY, LESION)
    keeping = Limits(replace(OLD, priors=True), replace(OLD, priors=True))
    assert overdue(engine, keeping) == [earlier]
    assert spared(engine, keeping) == {Spared.PRIOR: 2}
    assert overdue(engine) == [STUDY, earlier]


def test_a_study_of_many_pictures_goes_in_parts(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MARKED_AT_ONCE", 2)
    stored = receive(engine, *(picture(number, reason_not_analysed="a PDF") for number in range(5)))
    assert all(each.revision_id is None for each in stored)
    assert [len(marked(engine).pictures) for _ in range(4)] == [2, 2, 1, 0]
    assert events(engine).count("files-purged") == 3


def test_a_study_without_destinations(engine: Engine) -> None:
    delivered(engine, ())
    with snapshot(engine) as session:
        assert session.scalars(select(Revision.stage)).one() is Stage.COMPLETE
    assert marked(engine).files == 6


def test_a_late_picture_protects_until_it_is_done(engine: Engine) -> None:
    receiving(engine)
    assert marked(engine).files == 0
    with snapshot(engine) as session:
        late = session.scalars(select(Revision.id).where(Revision.number == 2)).one()
    close(engine, late)
    analyse(engine, late, ())
    assert marked(engine).pictures == (f"{STUDY}.1", f"{STUDY}.2"), "the late one is young"


def test_what_somebody_discarded_is_settled(engine: Engine) -> None:
    given_up(engine)
    with transaction(engine) as session:
        job = session.scalars(select(Job).where(Job.kind == JobKind.DELIVERY)).one()
        job.state, job.last_error = JobState.DEAD, "never"
    with transaction(engine) as session:
        done = dead_letters.discard(session, job.id, reason="the PACS is gone", now=NOW, actor="user:root")
        assert done is Change.DISCARDED
    assert len(marked(engine).pictures) == 2
