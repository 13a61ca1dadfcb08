"""The closing rule: quiet time, open associations that are not idle, forced close."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from cds_db.studies import AssociationActivity, OpenRevision
from cds_plugin.receive.closing import Closed, ClosingRule, why_closed

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RULE = ClosingRule(quiet=timedelta(seconds=5), idle=timedelta(seconds=60), force=timedelta(seconds=300))
seconds = st.floats(0, 1000)


def a_revision(opened: float, last: float, *active: float) -> OpenRevision:
    """Return a revision whose times are so many seconds before noon."""
    return OpenRevision(
        revision_id=1,
        study_instance_uid="1.2.3",
        calling_ae="CAMERA",
        opened_at=NOON - timedelta(seconds=opened),
        last_received_at=NOON - timedelta(seconds=last),
        associations=tuple(
            AssociationActivity(id=str(number), active_at=NOON - timedelta(seconds=ago))
            for number, ago in enumerate(active)
        ),
    )


def test_quiet_and_nobody_connected() -> None:
    assert why_closed(a_revision(20, 5), RULE, NOON) is Closed.QUIET
    assert why_closed(a_revision(20, 4.99), RULE, NOON) is None


def test_an_active_association_holds_it_open() -> None:
    assert why_closed(a_revision(40, 30, 0.5), RULE, NOON) is None
    assert why_closed(a_revision(40, 30, 59.9), RULE, NOON) is None


def test_an_idle_association_does_not() -> None:
    assert why_closed(a_revision(100, 90, 60), RULE, NOON) is Closed.QUIET
    assert why_closed(a_revision(100, 90, 60, 1), RULE, NOON) is None, "one of two is active"


def test_a_rule_names_another_quiet_time() -> None:
    """It takes the place of the listener's, longer or shorter; the longest time allowed stays."""
    patient, hasty = (replace(a_revision(40, 10), quiet_seconds=wanted) for wanted in (30.0, 2.0))
    assert why_closed(a_revision(40, 10), RULE, NOON) is Closed.QUIET
    assert why_closed(patient, RULE, NOON) is None
    assert why_closed(patient, RULE, NOON + timedelta(seconds=20)) is Closed.QUIET
    assert (
        why_closed(replace(hasty, last_received_at=NOON), RULE, NOON + timedelta(seconds=2)) is Closed.QUIET
    )
    assert why_closed(replace(patient, quiet_seconds=1000.0), RULE, NOON + RULE.force) is Closed.FORCED


def test_nothing_holds_it_for_ever() -> None:
    assert why_closed(a_revision(300, 0, 0), RULE, NOON) is Closed.FORCED


@given(seconds, seconds, st.lists(seconds, max_size=4))
def test_time_only_ever_closes(opened: float, last: float, active: list[float]) -> None:
    revision = a_revision(opened, min(opened, last), *active)
    if why_closed(revision, RULE, NOON) is not None:
        assert why_closed(revision, RULE, NOON + timedelta(seconds=1)) is not None


@given(seconds, seconds, st.lists(seconds, max_size=4))
def test_every_revision_is_closed_in_the_end(opened: float, last: float, active: list[float]) -> None:
    revision = a_revision(opened, min(opened, last), *active)
    assert why_closed(revision, RULE, NOON + RULE.force) is Closed.FORCED
