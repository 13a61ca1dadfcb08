"""What takes every process with it stops after a named number, and only a person's word moves it again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import Engine
from ward_book import LEASE, NOW, STUDY, a_closed_study, analyse, claimed, events, report_on, stage_of

from cds_db import asking, commitment, dead_letters, joblist, jobs, repeating, studies
from cds_db.commitment import CommitmentRequest, Reference
from cds_db.dead_letters import Change
from cds_db.joblist import JobLine
from cds_db.models import Delivery, Job, Study
from cds_db.moves import hold
from cds_db.session import snapshot, transaction
from cds_db.stages import AskedState, DeliveryState, IllegalMove, JobKind, JobState

ADMIN = "user:root"


def a_delivery(engine: Engine) -> int:
    revision_id, job_id = a_closed_study(engine)
    assert claimed(engine, job_id, "worker")
    with transaction(engine) as session:
        assert jobs.finish(session, job_id, "worker")
    return analyse(engine, revision_id)[0]


def a_question(engine: Engine) -> int:
    """Return the job of a delivery whose destination is to vouch for what it took."""
    job_id = a_delivery(engine)
    with transaction(engine) as session:
        delivery, results = studies.delivery_objects(session, session.get_one(Job, job_id).subject_id)
        studies.start_delivery(session, delivery.id, now=NOW, actor="deliver")
        for each in results:
            studies.record_object_delivered(
                session, delivery.id, each.sop_instance_uid, now=NOW, actor="deliver"
            )
        studies.finish_delivery(session, delivery.id, now=NOW, actor="deliver", ask=True)
        asking.record_asked(session, delivery.id, "1.2.9", now=NOW, actor="deliver")
    return job_id


def a_report(engine: Engine) -> int:
    request = CommitmentRequest("CAMERA", "192.0.2.7", "1.2.8", (Reference("1.2", "1.2.3"),))
    with transaction(engine) as session:
        return commitment.record_request(session, request, now=NOW)


KINDS: dict[str, tuple[Callable[[Engine], int], JobKind, str]] = {
    "analysis": (lambda engine: a_closed_study(engine)[1], JobKind.ANALYSIS, "failed"),
    "delivery": (a_delivery, JobKind.DELIVERY, "failed"),
    "question": (a_question, JobKind.DELIVERY, "commitment failed"),
    "report": (a_report, JobKind.COMMITMENT, "failed"),
}


def lose(engine: Engine, job_id: int) -> int:
    """Claim a job and never come back, until nobody gets it any more; return how often it was lost."""
    now, lost = NOW, 0
    while claimed(engine, job_id, f"worker {lost}", now):
        lost, now = lost + 1, now + LEASE + timedelta(seconds=1)
    return lost


def give_up(engine: Engine, job_id: int) -> None:
    """Lose a job until nobody gets it, and make a dead letter of it as the sweeper does."""
    times = lose(engine, job_id)
    now = NOW + (times + 1) * (LEASE + timedelta(seconds=1))
    with transaction(engine) as session:
        assert jobs.lost_too_often(session, now, 9) == [job_id]
        assert dead_letters.bury_lost(session, job_id, now=now, actor="sweep")
        assert dead_letters.bury_lost(session, job_id, now=now, actor="sweep") is None


def line(engine: Engine, job_id: int) -> JobLine:
    with snapshot(engine) as session:
        found = joblist.shown(session, job_id)
    assert found is not None
    return found


def retried(engine: Engine, job_id: int) -> Change:
    with transaction(engine) as session:
        return dead_letters.retry(session, job_id, now=NOW, actor=ADMIN)


def discarded(engine: Engine, job_id: int) -> Change:
    with transaction(engine) as session:
        return dead_letters.discard(session, job_id, reason="not ours", now=NOW, actor=ADMIN)


def a_dead(engine: Engine, kind: str) -> int:
    job_id = KINDS[kind][0](engine)
    give_up(engine, job_id)
    return job_id


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_that_takes_every_process_with_it_is_a_dead_letter_with_its_reason(
    engine: Engine, kind: str
) -> None:
    job_id = a_dead(engine, kind)
    shown = line(engine, job_id)
    assert (shown.state, shown.kind, shown.subject_state) == (JobState.DEAD, *KINDS[kind][1:])
    assert shown.lost == jobs.LOST_MOST[shown.kind]
    assert f"{shown.lost} processes in a row" in (shown.reason or "")
    assert f"worker {shown.lost - 1}" in (shown.reason or "")
    far = NOW + timedelta(days=9)
    assert claimed(engine, job_id, now=far) is None
    with snapshot(engine) as session:
        assert (jobs.due(session, far, 9), jobs.next_analysis(session, far)) == ([], None)
        assert joblist.counted(session) == {shown.kind: 1}
        assert [each.id for each in joblist.listed(session, states=(JobState.DEAD,), limit=9)] == [job_id]


@pytest.mark.parametrize("kind", KINDS)
def test_retry_puts_it_back_with_all_its_tries_and_is_audited(engine: Engine, kind: str) -> None:
    job_id = a_dead(engine, kind)
    assert retried(engine, job_id) is Change.RETRIED
    shown = line(engine, job_id)
    assert (shown.state, shown.attempts, shown.lost) == (JobState.WAITING, 0, 0)
    assert shown.subject_state in ("queued", "pending", "commitment pending")
    assert events(engine)[-1] in ("analysis-revived", "delivery-revived", "commitment-revived")
    with snapshot(engine) as session:
        assert joblist.counted(session) == {}
    assert lose(engine, job_id) == jobs.LOST_MOST[shown.kind]


@pytest.mark.parametrize("kind", KINDS)
def test_discard_ends_it_visibly(engine: Engine, kind: str) -> None:
    job_id = a_dead(engine, kind)
    assert discarded(engine, job_id) is Change.DISCARDED
    shown = line(engine, job_id)
    assert (shown.state, (shown.subject_state or "").split()[-1]) == (JobState.DISCARDED, "discarded")
    assert "discarded by user:root: not ours; given up because: " in (shown.reason or "")
    assert events(engine)[-1] == "job-discarded"
    assert (retried(engine, job_id), discarded(engine, job_id)) == (Change.OVER, Change.NOT_DEAD)
    with snapshot(engine) as session:
        assert (joblist.counted(session), joblist.listed(session, limit=9)) == ({}, [])
        status = studies.status(session, STUDY)
    if kind in ("analysis", "delivery"):
        assert status is not None and status.stage == "discarded"
    if kind == "delivery":
        assert "discarded by user:root: not ours" in (status.deliveries[0].last_error or "")  # type: ignore[union-attr]


def test_what_is_not_dead_is_refused_by_name(engine: Engine) -> None:
    _, job_id = a_closed_study(engine)
    assert discarded(engine, job_id) is Change.NOT_DEAD
    assert retried(engine, job_id) is Change.RETRIED, "what waits is tried at once"
    assert claimed(engine, job_id)
    assert (retried(engine, job_id), discarded(engine, job_id)) == (Change.RUNS, Change.NOT_DEAD)
    assert (retried(engine, 4711), discarded(engine, 4711)) == (Change.UNKNOWN, Change.UNKNOWN)


def test_a_job_that_a_hold_stopped_is_for_release_and_no_dead_letter(engine: Engine) -> None:
    job_id = a_delivery(engine)
    with transaction(engine) as session:
        delivery = session.get_one(Delivery, session.get_one(Job, job_id).subject_id)
        study = session.get_one(Study, STUDY)
        hold(session, study, NOW)
        assert delivery.state is DeliveryState.HELD
    assert line(engine, job_id).state is JobState.DEAD
    assert (retried(engine, job_id), discarded(engine, job_id)) == (Change.ON_HOLD, Change.ON_HOLD)
    with snapshot(engine) as session:
        assert joblist.counted(session) == {}


def test_orderly_ends_and_progress_count_anew(engine: Engine) -> None:
    job_id = a_delivery(engine)
    most = jobs.LOST_MOST[JobKind.DELIVERY]
    now = NOW
    for orderly in ("progress", "hand_back", "retry_later"):
        for number in range(most - 1):
            assert claimed(engine, job_id, f"{orderly} {number}", now)
            now += LEASE + timedelta(seconds=1)
        assert claimed(engine, job_id, "good", now)
        assert line(engine, job_id).lost == most - 1
        with transaction(engine) as session:
            if orderly == "progress":
                assert jobs.progress(session, job_id, "good")
                assert jobs.hand_back(session, job_id, "good", not_before=now)
            elif orderly == "hand_back":
                assert jobs.hand_back(session, job_id, "good", not_before=now)
            else:
                assert jobs.retry_later(session, job_id, "good", not_before=now, error="away")
        assert line(engine, job_id).lost == 0


def test_of_two_deliveries_the_revision_stands_as_the_worse_says(engine: Engine) -> None:
    revision_id, _ = a_closed_study(engine)
    to_pacs, to_ris = analyse(engine, revision_id, ("pacs", "ris"))
    give_up(engine, to_pacs)
    assert stage_of(engine) == "delivering"
    assert discarded(engine, to_pacs) is Change.DISCARDED
    assert stage_of(engine) == "delivering"
    give_up(engine, to_ris)
    assert stage_of(engine) == "failed"
    assert retried(engine, to_ris) is Change.RETRIED
    assert stage_of(engine) == "delivering"
    with transaction(engine) as session:
        delivery_id = session.get_one(Job, to_ris).subject_id
        for each in studies.delivery_objects(session, delivery_id)[1]:
            studies.record_object_delivered(session, delivery_id, each.sop_instance_uid, now=NOW, actor="d")
        studies.finish_delivery(session, delivery_id, now=NOW, actor="deliver")
    assert stage_of(engine) == "discarded"


def test_a_late_answer_ends_the_dead_letter_of_its_question(engine: Engine) -> None:
    job_id = a_dead(engine, "question")
    with transaction(engine) as session:
        delivery = session.get_one(Delivery, session.get_one(Job, job_id).subject_id)
        uids = frozenset(each.sop_instance_uid for each in studies.results_of(session, delivery.revision_id))
        answer = asking.CommitmentAnswer("1.2.9", uids, {})
        assert asking.record_answer(session, answer, now=NOW, actor="PACS")
        assert delivery.commitment is AskedState.COMMITTED
    assert line(engine, job_id).state is JobState.DONE


def test_a_rerun_takes_all_pictures_of_an_analysis_that_was_given_up(engine: Engine) -> None:
    revision_id, job_id = a_closed_study(engine)
    with transaction(engine) as session:
        studies.start_analysis(session, revision_id, now=NOW, actor="worker")
        done, left = studies.revision_pictures(session, revision_id)
        studies.record_results(
            session, revision_id, [report_on(done.sop_instance_uid)], now=NOW, actor="worker", detail={}
        )
    give_up(engine, job_id)
    with transaction(engine) as session:
        repeated = repeating.rerun(session, STUDY, "ab" * 32, now=NOW, actor=ADMIN)
    assert (repeated.revision, repeated.pictures) == (2, 2)
    assert line(engine, job_id).state is JobState.DISCARDED
    assert "job-discarded" in events(engine)
    with snapshot(engine) as session:
        assert repeating.earlier_reports(session, revision_id + 1, done.sop_instance_uid) == []
        assert left.sop_instance_uid != done.sop_instance_uid


def test_a_report_whose_question_is_forgotten_can_only_be_discarded(engine: Engine) -> None:
    job_id = a_report(engine)
    assert claimed(engine, job_id, "one")
    with transaction(engine) as session:
        subject = session.get_one(Job, job_id).subject_id
        commitment.give_up(session, subject, "away", now=NOW, actor="commitment")
        assert jobs.bury(session, job_id, "one", "away")
        with pytest.raises(IllegalMove):
            commitment.give_up(session, subject, "away", now=NOW, actor="commitment")
    assert retried(engine, job_id) is Change.FORGOTTEN
    assert discarded(engine, job_id) is Change.DISCARDED
