"""A destination that is away is left alone, tried by one delivery, and then gets all; none is late for it."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, text
from ward_book import NOW, a_closed_study, analyse, at_once, events

from cds_db import dead_letters, destinations, jobs, resting
from cds_db.dead_letters import Change
from cds_db.models import Delivery, Job
from cds_db.resting import FAILURES_BEFORE_REST, FIRST_REST, LONGEST_REST, TRIAL, Rest
from cds_db.session import snapshot, transaction
from cds_db.stages import JobKind


@pytest.fixture
def waiting(engine: Engine) -> tuple[int, int]:
    """Return the jobs of two deliveries of one study, to `pacs` and to `ris`."""
    revision_id, _ = a_closed_study(engine)
    to_pacs, to_ris = analyse(engine, revision_id, ("pacs", "ris"))
    return to_pacs, to_ris


def miss(engine: Engine, times: int = FAILURES_BEFORE_REST, now: datetime = NOW) -> None:
    for _ in range(times):
        with transaction(engine) as session:
            resting.record_missed(session, "pacs", "cannot be reached", now=now, actor="deliver")


def reach(engine: Engine, now: datetime) -> None:
    with transaction(engine) as session:
        resting.record_reached(session, "pacs", now=now, actor="deliver")


def admitted(engine: Engine, now: datetime, retry_until: datetime | None = None, name: str = "pacs") -> bool:
    with transaction(engine) as session:
        return resting.admit(session, name, retry_until, now)


def rest(engine: Engine) -> Rest | None:
    with snapshot(engine) as session:
        return destinations.lines(session)["pacs"].rest


def due(engine: Engine, now: datetime) -> list[int]:
    """Return the delivery jobs that are due, in their order."""
    with snapshot(engine) as session:
        return [job_id for job_id, kind in jobs.due(session, now, 100) if kind is JobKind.DELIVERY]


def test_only_failures_in_a_row_count(engine: Engine, waiting: tuple[int, int]) -> None:
    miss(engine, FAILURES_BEFORE_REST - 1)
    reach(engine, NOW)
    miss(engine, FAILURES_BEFORE_REST - 1)
    assert rest(engine) is None and admitted(engine, NOW)
    assert due(engine, NOW) == [*waiting]
    miss(engine, 1)
    assert rest(engine) == Rest(NOW, NOW + FIRST_REST, FAILURES_BEFORE_REST)
    assert events(engine).count("destination-left-alone") == 1


def test_while_it_rests_only_its_deliveries_wait(engine: Engine, waiting: tuple[int, int]) -> None:
    to_pacs, to_ris = waiting
    miss(engine)
    assert due(engine, NOW) == [to_ris] and not admitted(engine, NOW)
    assert admitted(engine, NOW, name="ris")
    after = NOW + FIRST_REST
    assert due(engine, after) == [to_pacs, to_ris]


def test_one_of_many_is_on_trial(engine: Engine, waiting: tuple[int, int]) -> None:
    miss(engine)
    after = NOW + FIRST_REST
    assert sum(at_once([lambda: admitted(engine, after)] * 6)) == 1
    assert waiting[0] not in due(engine, after)
    assert not admitted(engine, after + TRIAL - timedelta(seconds=1))
    assert admitted(engine, after + TRIAL), "the process on trial may have died"


def test_who_was_admitted_and_has_nothing_to_send_makes_way(engine: Engine, waiting: tuple[int, int]) -> None:
    miss(engine)
    after = NOW + FIRST_REST
    assert admitted(engine, after)
    with transaction(engine) as session:
        resting.withdraw(session, "pacs", after)
    assert admitted(engine, after)


def test_rests_grow_to_a_bound(engine: Engine, waiting: tuple[int, int]) -> None:
    miss(engine)
    lengths = []
    now = NOW
    for _ in range(6):
        seen = rest(engine)
        assert seen is not None and seen.since == NOW
        lengths.append(seen.until - now)
        now = seen.until
        assert admitted(engine, now)
        miss(engine, 1, now)
    assert lengths == sorted(lengths) and lengths[0] == FIRST_REST and lengths[-1] == LONGEST_REST
    assert events(engine).count("destination-left-alone") == 1


def test_once_reached_everything_goes_at_once(engine: Engine, waiting: tuple[int, int]) -> None:
    to_pacs, _ = waiting
    miss(engine)
    with transaction(engine) as session:
        job = session.get_one(Job, to_pacs)
        job.not_before, job.woken_at = NOW + timedelta(minutes=1), NOW
    reach(engine, NOW + FIRST_REST)
    assert rest(engine) is None and to_pacs in due(engine, NOW + FIRST_REST)
    assert events(engine)[-1] == "destination-reached"


def test_no_delivery_is_late_because_of_a_rest(engine: Engine, waiting: tuple[int, int]) -> None:
    to_pacs, _ = waiting
    miss(engine)
    for until, goes in ((NOW + FIRST_REST, True), (NOW + FIRST_REST + timedelta(seconds=1), False)):
        with transaction(engine) as session:
            session.get_one(Delivery, session.get_one(Job, to_pacs).subject_id).retry_until = until
        assert (to_pacs in due(engine, NOW)) is goes
        assert admitted(engine, NOW, until) is goes


def test_whoever_was_woken_in_vain_is_woken_for_the_next_trial(
    engine: Engine, waiting: tuple[int, int]
) -> None:
    """So the longest waiting is next, not the one that failed just now, which may be why it failed."""
    to_pacs, _ = waiting
    with transaction(engine) as session:
        session.get_one(Job, to_pacs).woken_at = NOW
    assert to_pacs not in due(engine, NOW + FIRST_REST)
    miss(engine)
    assert to_pacs in due(engine, NOW + FIRST_REST)


def test_a_retried_job_is_tried_at_once_also_where_its_destination_rests(
    engine: Engine, waiting: tuple[int, int]
) -> None:
    miss(engine)
    with transaction(engine) as session:
        assert dead_letters.retry(session, waiting[0], now=NOW, actor="user:root") is Change.RETRIED
    assert waiting[0] in due(engine, NOW) and admitted(engine, NOW)


def test_a_failed_trial_rewrites_only_the_jobs_that_were_woken(
    engine: Engine, waiting: tuple[int, int]
) -> None:
    """Of a long backlog nearly none was: rewriting 100,000 rows took seconds at each trial."""
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite tells nobody where a row lies")
    where = text("SELECT ctid::text FROM jobs WHERE id = :job")
    with engine.begin() as connection:
        before = connection.scalar(where, {"job": waiting[0]})
    miss(engine)
    with engine.begin() as connection:
        assert connection.scalar(where, {"job": waiting[0]}) == before


@pytest.mark.parametrize("what", ["resume", "retry"])
def test_an_administrator_ends_a_rest(what: str, engine: Engine, waiting: tuple[int, int]) -> None:
    miss(engine)
    with transaction(engine) as session:
        destinations.pause(session, "pacs", now=NOW, actor="user:root", reason="")
    with transaction(engine) as session:
        getattr(destinations, what)(session, "pacs", now=NOW, actor="user:root")
    assert rest(engine) is None and admitted(engine, NOW)
