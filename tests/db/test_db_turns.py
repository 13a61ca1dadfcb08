"""Whose job is next: the urgent overtake, senders take turns, and nobody waits for ever."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine
from ward_book import LEASE, NOW, close, picture, receive

from cds_db import jobs
from cds_db.handling import HIGH, ROUTINE, Handling, together
from cds_db.models import Job
from cds_db.session import snapshot, transaction
from cds_db.turns import AGEING, Waiting, next_in_turn

MINUTE = timedelta(minutes=1)
handlings = st.builds(
    Handling,
    quiet_seconds=st.floats(0.1, 100),
    priority=st.sampled_from([ROUTINE, HIGH]),
    routes=st.dictionaries(
        st.sampled_from(["pacs", "ris", "viewer"]),
        st.lists(st.sampled_from(["seg", "sr", "overlay"]), unique=True, min_size=1).map(sorted).map(tuple),
    ),
)


def a_queued_study(engine: Engine, study: str, sender: str, priority: int = ROUTINE) -> int:
    received = picture(1, study=study, calling_ae=sender, handling=Handling(5.0, priority, {"pacs": ("sr",)}))
    (stored,) = receive(engine, received)
    assert stored.revision_id is not None
    return close(engine, stored.revision_id)


def taken(engine: Engine, now: datetime) -> str | None:
    """Claim the next job and return who sent its study, as a worker does."""
    with snapshot(engine) as session:
        job_id = jobs.next_analysis(session, now)
    if job_id is None:
        return None
    with transaction(engine) as session:
        claim = jobs.claim(session, job_id, owner="w", now=now, lease=LEASE)
        assert claim is not None
        assert jobs.finish(session, job_id, "w")
        return str(session.get_one(Job, job_id).priority) + sender_of(engine, claim.subject_id)


def sender_of(engine: Engine, revision_id: int) -> str:
    from_row = "SELECT calling_ae FROM revisions WHERE id = :id"
    with snapshot(engine) as session:
        return str(session.connection().exec_driver_sql(from_row.replace(":id", str(revision_id))).scalar())


def test_the_urgent_overtake_and_senders_take_turns(engine: Engine) -> None:
    for number in range(3):
        a_queued_study(engine, f"1.2.{number}", "BULK")
    a_queued_study(engine, "1.2.10", "CAMERA")
    a_queued_study(engine, "1.2.11", "THEATRE", HIGH)
    order = [taken(engine, NOW + timedelta(seconds=second)) for second in range(6)]
    assert order == ["1THEATRE", "0BULK", "0CAMERA", "0BULK", "0BULK", None]


def test_a_job_that_is_not_due_has_no_turn(engine: Engine) -> None:
    job_id = a_queued_study(engine, "1.2.1", "CAMERA")
    with transaction(engine) as session:
        claim = jobs.claim(session, job_id, owner="w", now=NOW, lease=LEASE)
        assert claim is not None
        jobs.hand_back(session, job_id, "w", not_before=NOW + MINUTE)
    assert taken(engine, NOW) is None
    assert taken(engine, NOW + MINUTE) == "0CAMERA"


def test_a_worker_that_died_gives_its_turn_back(engine: Engine) -> None:
    job_id = a_queued_study(engine, "1.2.1", "CAMERA")
    with transaction(engine) as session:
        jobs.claim(session, job_id, owner="w", now=NOW, lease=LEASE)
    assert taken(engine, NOW) is None
    assert taken(engine, NOW + LEASE + MINUTE) == "0CAMERA"


@given(st.integers(1, 4), st.integers(1, 40))
def test_a_stream_of_urgent_studies_starves_nobody(streams: int, minutes: int) -> None:
    """Urgent studies never stop coming: the routine one is taken soon after it has aged."""
    routine = Waiting(0, "CAMERA", ROUTINE, NOW)
    served: dict[str, datetime] = {}
    now = NOW
    for turn in range(1000):
        now = NOW + turn * MINUTE
        urgent = [Waiting(turn + 1, f"URGENT{each}", HIGH, now - minutes * MINUTE) for each in range(streams)]
        chosen = next_in_turn([routine, *urgent], served, now)
        assert chosen is not None
        if chosen is routine:
            break
        served[chosen.sender] = now
    assert now - NOW <= AGEING + streams * MINUTE


@given(st.lists(st.sampled_from("ABCD"), min_size=1, max_size=40))
def test_equal_senders_are_served_equally(backlog: list[str]) -> None:
    """Whatever the backlog, between two turns of a sender every other one that waits has its own."""
    left = {sender: backlog.count(sender) for sender in set(backlog)}
    served: dict[str, datetime] = {}
    turns: list[str] = []
    for turn in range(len(backlog)):
        now = NOW + turn * MINUTE / 100
        waiting = [Waiting(number, each, ROUTINE, NOW) for number, each in enumerate(left) if left[each]]
        chosen = next_in_turn(waiting, served, now)
        assert chosen is not None
        between = turns[len(turns) - turns[::-1].index(chosen.sender) :] if chosen.sender in turns else None
        assert between is None or {each for each in left if left[each]} - {chosen.sender} <= set(between)
        served[chosen.sender] = now
        left[chosen.sender] -= 1
        turns.append(chosen.sender)
    assert not any(left.values())


@given(handlings, handlings, handlings)
def test_the_order_in_which_rules_speak_makes_no_difference(a: Handling, b: Handling, c: Handling) -> None:
    assert together(a, b) == together(b, a)
    assert together(together(a, b), c) == together(a, together(b, c))
    both = together(a, b)
    assert both.quiet_seconds == max(a.quiet_seconds, b.quiet_seconds)
    assert set(both.routes) == {*a.routes, *b.routes}
    assert all(set(kinds) <= set(both.routes[name]) for name, kinds in a.routes.items())
