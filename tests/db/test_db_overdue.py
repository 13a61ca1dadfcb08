"""What waits too long is said once; what waits for nobody, or works for nothing, is ended."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, select, text, update
from test_db_dead_letters import a_delivery, a_question, a_report, line
from ward_book import NOW, STUDY, a_closed_study, claimed, events, picture, receive, stage_of

from cds_db import dead_letters, destinations, jobs, overdue, resting, stranded, waits
from cds_db.migrate import upgrade
from cds_db.models import AuditEntry, Commitment, Delivery, Job, Overdue, Revision, Study
from cds_db.overdue import Late
from cds_db.session import open_engine, snapshot, transaction
from cds_db.stages import JobState
from cds_db.waits import WAITS, Subject, Then

MOMENT = timedelta(seconds=1)


def found(engine: Engine, now: datetime) -> list[Late]:
    with snapshot(engine) as session:
        return overdue.overdue(session, now)


def opened(engine: Engine) -> None:
    receive(engine, picture())


def put_off(engine: Engine) -> None:
    _, job_id = a_closed_study(engine)
    claimed(engine, job_id)
    with transaction(engine) as session:
        assert jobs.hand_back(session, job_id, "worker", not_before=NOW + timedelta(days=90), error="no disk")


def held(engine: Engine) -> None:
    a_closed_study(engine)
    with transaction(engine) as session:
        session.execute(update(Study).values(conflict_at=NOW))
        session.execute(update(Job).values(state=JobState.DEAD))


def running(engine: Engine) -> None:
    _, job_id = a_closed_study(engine)
    claimed(engine, job_id)


def tried(engine: Engine) -> None:
    a_delivery(engine)
    with transaction(engine) as session:
        session.execute(update(Delivery).values(retry_until=NOW))
        session.execute(update(Job).values(not_before=NOW + timedelta(days=90)))


def asked(engine: Engine) -> None:
    a_question(engine)
    with transaction(engine) as session:
        session.execute(update(Job).values(not_before=NOW + timedelta(days=90)))


def reported(engine: Engine) -> None:
    a_report(engine)
    with transaction(engine) as session:
        session.execute(update(Job).values(not_before=NOW + timedelta(days=90)))


def paused(engine: Engine) -> None:
    with transaction(engine) as session:
        destinations.pause(session, "pacs", now=NOW, actor="user:root", reason="moves")


def away(engine: Engine) -> None:
    a_delivery(engine)
    for _ in range(resting.FAILURES_BEFORE_REST):
        with transaction(engine) as session:
            resting.record_missed(session, "pacs", "cannot be reached", now=NOW, actor="deliver")
    with transaction(engine) as session:
        session.execute(update(Job).values(not_before=NOW + timedelta(days=90)))


CASES: dict[str, tuple[Callable[[Engine], object], timedelta, str]] = {
    "revision receiving": (opened, waits.RECEIVING_MOST, "RECEIVING_MOST"),
    "revision queued": (put_off, waits.HELD_MOST, "HELD_MOST"),
    "revision conflict": (held, waits.HOLD_MOST, "HOLD_MOST"),
    "job waiting": (a_closed_study, waits.UNTAKEN_MOST, "UNTAKEN_MOST"),
    "job running": (running, waits.HELD_MOST, "HELD_MOST"),
    "delivery pending": (tried, waits.GRACE, "retry_hours + GRACE"),
    "question pending": (asked, waits.QUESTION_MOST, "QUESTION_MOST"),
    "commitment pending": (reported, waits.REPORT_FOR + waits.GRACE, "REPORT_FOR + GRACE"),
    "destination paused": (paused, waits.HOLD_MOST, "HOLD_MOST"),
    "destination away": (away, waits.AWAY_MOST, "AWAY_MOST"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_waiting_state_is_named_once_its_limit_is_over_and_said_once(engine: Engine, case: str) -> None:
    make, limit, name = CASES[case]
    make(engine)
    assert found(engine, NOW + limit) == []
    now = NOW + limit + MOMENT
    (late,) = found(engine, now)
    assert (f"{late.subject} {late.state}", late.limit, late.since) == (case, name, NOW)
    for times in (1, 1):
        with transaction(engine) as session:
            overdue.say_new(session, found(engine, now), now=now, actor="sweep")
        assert events(engine).count("state-overdue") == times
    with snapshot(engine) as session:
        said = session.scalars(select(AuditEntry).where(AuditEntry.event == "state-overdue")).one()
        assert overdue.are_said(session, [late])
    assert said.detail["limit"] == name and said.detail["waits_seconds"] >= limit.total_seconds()
    with transaction(engine) as session:
        overdue.say_new(session, [], now=now, actor="sweep")
        assert session.query(Overdue).all() == []


def test_what_the_queries_name_stands_in_the_table_and_every_limit_of_the_table_is_asked() -> None:
    says = {
        (str(wait.subject), limit.name)
        for wait in WAITS
        for limit in wait.limits
        if limit.then is Then.SAY and limit.who == "sweep"
    }
    named = {(case.split()[0], name) for case, (_, _, name) in CASES.items()}
    assert named <= says
    assert says - named == {("revision", "UNTAKEN_MOST")}, "a queued revision is late by its job"


def test_an_analysis_that_is_put_off_for_ever_is_given_up_with_its_reason(engine: Engine) -> None:
    put_off(engine)
    late = NOW + waits.ANALYSIS_WITHIN
    with transaction(engine) as session:
        assert overdue.put_off_too_long(session, late - waits.ANALYSIS_WITHIN, 9) == []
        (job_id,) = overdue.put_off_too_long(session, late + MOMENT - waits.ANALYSIS_WITHIN, 9)
        assert dead_letters.bury_put_off(session, job_id, now=late, actor="sweep")
        assert not dead_letters.bury_put_off(session, job_id, now=late, actor="sweep")
    assert (stage_of(engine), line(engine, job_id).state) == ("failed", JobState.DEAD)
    with snapshot(engine) as session:
        failure = session.scalars(select(Revision.failure)).one()
    assert failure == "put off for longer than 168 h: no disk"


STRANDED: dict[Subject, tuple[Callable[[Engine], object], type, str, str]] = {
    Subject.REVISION: (a_closed_study, Revision, "stage", "failed"),
    Subject.DELIVERY: (a_delivery, Delivery, "state", "failed"),
    Subject.QUESTION: (a_question, Delivery, "commitment", "failed"),
    Subject.COMMITMENT: (a_report, Commitment, "state", "failed"),
}


@pytest.mark.parametrize("subject", STRANDED)
def test_what_waits_for_nobody_is_given_up(engine: Engine, subject: Subject) -> None:
    make, table, column, ended = STRANDED[subject]
    make(engine)
    assert swept(engine) == []
    with transaction(engine) as session:
        session.query(Job).delete()
    assert swept(engine) == [subject]
    assert swept(engine) == []
    with snapshot(engine) as session:
        assert str(getattr(session.query(table).one(), column)) == ended


def test_a_revision_without_a_pending_delivery_goes_on_and_work_for_nothing_ends(engine: Engine) -> None:
    job_id = a_delivery(engine)
    with transaction(engine) as session:
        session.execute(update(Delivery).values(state="delivered"))
    assert swept(engine) == [Subject.REVISION]
    assert stage_of(engine) == "complete"
    with transaction(engine) as session:
        session.execute(update(Delivery).values(state="held"))
    assert swept(engine) == [Subject.JOB]
    assert (line(engine, job_id).state, line(engine, job_id).reason) == (JobState.DEAD, stranded.NOTHING)
    with snapshot(engine) as session:
        assert session.get_one(Study, STUDY).conflict_at is None


def test_what_waits_for_nobody_is_found_quickly_whatever_the_statistics_say(postgres_url: str) -> None:
    """PostgreSQL knew of no waiting job yet, and compared each delivery with each job: ten minutes."""
    upgrade(postgres_url)
    engine = open_engine(postgres_url)
    with engine.begin() as connection:
        for statement in A_BACKLOG:
            connection.execute(text(statement))
    with snapshot(engine) as session:
        session.execute(text("SET LOCAL statement_timeout = '3s'"))
        assert stranded.stranded(session) == []
    engine.dispose()


A_BACKLOG = (
    "INSERT INTO studies SELECT '1.2.' || i, '', '', now(), NULL FROM generate_series(1, 20000) i",
    """INSERT INTO revisions (id, study_instance_uid, number, stage, calling_ae, opened_at, last_received_at)
    SELECT i, '1.2.' || i, 1, 'delivering', '', now(), now() FROM generate_series(1, 20000) i""",
    """INSERT INTO deliveries (id, revision_id, destination, state, attempts)
    SELECT i, i, 'pacs', 'delivered', 0 FROM generate_series(1, 20000) i""",
    """INSERT INTO jobs (kind, subject_id, state, attempts, not_before)
    SELECT 'delivery', i, 'done', 0, now() FROM generate_series(1, 20000) i""",
    "ANALYZE studies, revisions, deliveries, jobs",
    "UPDATE deliveries SET state = 'pending'",
    "UPDATE jobs SET state = 'waiting'",
)


def swept(engine: Engine) -> list[Subject]:
    with snapshot(engine) as session:
        found = stranded.stranded(session)
    ended = []
    for each in found:
        with transaction(engine) as session:
            if stranded.end(session, each, now=NOW, actor="sweep"):
                ended.append(each.subject)
    return ended
