"""When a revision that is receiving images is complete. A C-STORE never says so: quiet time does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from cds_db.session import snapshot, transaction
from cds_db.studies import OpenRevision, close_revision, receiving
from cds_plugin.config import Listener

ACTOR = "sweep"


class Closed(StrEnum):
    """Why a revision is closed."""

    QUIET = "quiet"
    FORCED = "forced"


@dataclass(frozen=True, slots=True)
class ClosingRule:
    """The three times of `[listener]`; rules may name another quiet time for a study."""

    quiet: timedelta
    idle: timedelta
    force: timedelta

    @classmethod
    def of(cls, listener: Listener) -> ClosingRule:
        """Return the rule that the settings ask for."""
        return cls(
            quiet=timedelta(seconds=listener.quiet_seconds),
            idle=timedelta(seconds=listener.association_idle_seconds),
            force=timedelta(seconds=listener.force_close_seconds),
        )


def why_closed(revision: OpenRevision, rule: ClosingRule, now: datetime) -> Closed | None:
    """Return why the revision is complete at `now`, or None while it may still grow.

    It is when no image came for the quiet time and no association that stored into it is both open and
    active, or when it has been open for the longest time allowed.
    """
    if now - revision.opened_at >= rule.force:
        return Closed.FORCED
    if now - revision.last_received_at < _quiet(revision, rule):
        return None
    held = any(now - each.active_at < rule.idle for each in revision.associations)
    return None if held else Closed.QUIET


def _quiet(revision: OpenRevision, rule: ClosingRule) -> timedelta:
    wanted = revision.quiet_seconds
    return rule.quiet if wanted is None else timedelta(seconds=wanted)


def close_due(engine: Engine, rule: ClosingRule, now: datetime) -> tuple[tuple[int, Closed], ...]:
    """Close every complete revision in one transaction; return their analysis jobs and the reasons.

    Looks without the write lock first: mostly there is nothing to do.
    """
    with snapshot(engine) as session:
        if not _due(session, rule, now):
            return ()
    with transaction(engine) as session:
        due = _due(session, rule, now)
        return tuple((close_revision(session, key, now=now, actor=ACTOR), why) for key, why in due.items())


def _due(session: Session, rule: ClosingRule, now: datetime) -> Mapping[int, Closed]:
    reasons = {each.revision_id: why_closed(each, rule, now) for each in receiving(session)}
    return {revision_id: reason for revision_id, reason in reasons.items() if reason is not None}
