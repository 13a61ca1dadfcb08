"""Who is let in: rates, counts by address, and what of the refusals reaches the audit trail."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cds_db.events import Event
from cds_plugin.receive.alarms import ELSEWHERE, KINDS, ROWS_PER_MINUTE, Alarm, Alarms
from cds_plugin.receive.bounds import ADDRESSES_REMEMBERED, Bounds
from cds_plugin.receive.connections import Connections, Rate, Refusal, source_of

START = datetime(2026, 1, 1, tzinfo=UTC)
GAPS = st.lists(st.floats(0, 5), max_size=200)


@given(gaps=GAPS, per_second=st.sampled_from([0.5, 3, 100]), burst=st.sampled_from([1.0, 3.0]))
def test_a_rate_is_never_exceeded_and_who_keeps_to_it_is_never_refused(
    gaps: list[float], per_second: float, burst: float
) -> None:
    rate, now, let_in = Rate(per_second, burst), 0.0, []
    for gap in gaps:
        now += gap
        if rate.allows("a", now):
            let_in.append(now)
    for number, first in enumerate(let_in):
        for later, last in enumerate(let_in[number:], start=1):
            assert later <= (last - first + burst) * per_second + 1 + 1e-6
    calm = Rate(per_second, burst)
    assert all(calm.allows("a", number / per_second + 1e-9) for number in range(50))


def test_addresses_have_rates_of_their_own_and_few_are_remembered() -> None:
    rate = Rate(1, 1)
    assert rate.allows("a", 0) and not rate.allows("a", 0) and rate.allows("b", 0)
    for number in range(ADDRESSES_REMEMBERED + 10):
        rate.allows(str(number), 0)
    assert len(rate._due) == ADDRESSES_REMEMBERED


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("::1", "::"),
        ("nonsense", "nonsense"),
    ],
)
def test_what_counts_as_one_source(address: str, source: str) -> None:
    assert source_of(address) == source


@given(
    arrivals=st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60),
    most=st.integers(1, 6),
    each=st.integers(1, 6),
)
def test_counts_are_kept_whatever_comes_and_goes(
    arrivals: list[tuple[str, bool]], most: int, each: int
) -> None:
    bounds = Bounds(connections=most, connections_per_address=each, connections_per_second=1e6)
    there: Counter[str] = Counter()
    connections = Connections(bounds, lambda: ())
    for now, (address, leaves) in enumerate(arrivals):
        if leaves and there[address]:
            connections.arrived(address)
            there[address] -= 1
        refusal = connections.admit(address, now)
        expected = (
            Refusal.TOO_MANY
            if there.total() >= most
            else Refusal.TOO_MANY_FROM_ADDRESS
            if there[address] >= each
            else None
        )
        assert refusal is expected
        there[address] += refusal is None
    assert connections._arriving == +there


def test_established_ones_count_too() -> None:
    bounds = Bounds(connections=3, connections_per_address=2)
    connections = Connections(bounds, lambda: ["::ffff:10.0.0.1", "10.0.0.1"])
    assert connections.admit("10.0.0.1", 0) is Refusal.TOO_MANY_FROM_ADDRESS
    assert connections.admit("10.0.0.2", 0) is None
    assert connections.admit("10.0.0.3", 0) is Refusal.TOO_MANY


NOTES = st.lists(
    st.tuples(st.floats(0, 90), st.sampled_from([f"10.0.0.{n}" for n in range(40)]), st.sampled_from("xyz")),
    max_size=300,
)


@given(notes=NOTES)
def test_no_refusal_is_lost_and_no_minute_has_too_many_rows(notes: list[tuple[float, str, str]]) -> None:
    alarms, now = Alarms(), START
    told: list[tuple[datetime, Alarm]] = []
    for gap, address, reason in notes:
        alarms.note(Event.CONNECTION_REFUSED, address, reason, now)
        now += timedelta(seconds=gap)
        told += [(now, alarm) for alarm in alarms.due(now)]
    for at, _ in told:
        assert sum(at <= other < at + timedelta(minutes=1) for other, _ in told) <= ROWS_PER_MINUTE
    told += [(now, alarm) for alarm in alarms.all()]
    assert sum(alarm.count for _, alarm in told) == len(notes)
    assert all(alarm.first <= alarm.last for _, alarm in told)


def test_the_first_is_told_at_once_and_the_rest_once_a_minute() -> None:
    alarms = Alarms()
    counts = []
    for second in range(180):
        now = START + timedelta(seconds=second)
        for _ in range(10):
            alarms.note(Event.TLS_HANDSHAKE_FAILED, "10.0.0.1", "no", now)
        counts += [alarm.count for alarm in alarms.due(now)]
    assert counts == [10, 600, 600]


def test_a_flood_from_everywhere_takes_bounded_memory_and_rows() -> None:
    alarms = Alarms()
    for number in range(10_000):
        alarms.note(Event.CONNECTION_REFUSED, f"10.0.{number // 250}.{number % 250}", "no", START)
    assert len(alarms._waiting) == KINDS + 1
    assert len(alarms.due(START)) == ROWS_PER_MINUTE
    rest = alarms.all()
    assert sum(alarm.count for alarm in rest) == 10_000 - ROWS_PER_MINUTE
    assert max(rest, key=lambda alarm: alarm.count).kind.address == ELSEWHERE


def test_what_could_not_be_written_is_told_later() -> None:
    alarms = Alarms()
    alarms.note(Event.CONNECTION_REFUSED, "10.0.0.1", "no", START)
    due = alarms.due(START)
    alarms.note(Event.CONNECTION_REFUSED, "10.0.0.1", "no", START)
    alarms.put_back(due)
    (again,) = alarms.due(START)
    assert again.count == 2
