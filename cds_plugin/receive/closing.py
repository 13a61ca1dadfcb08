"""When a revision that is receiving images is complete. A C-STORE never says so: quiet time does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from cds_db.session import snapshot, transaction
from cds_db.studies import IllegalMove, OpenRevision, close_revision, receiving
from cds_plugin.config import Listener

log = structlog.get_logger()

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
    """Close every complete revision; return their analysis jobs and the reasons.

    Each in a transaction of its own: one that can't be closed holds up no other. Looks without the write lock
    first: mostly there is nothing to do.
    """
    with snapshot(engine) as session:
        due = _due(session, rule, now)
    closed = (_close(engine, rule, now, revision_id) for revision_id in due)
    return tuple(each for each in closed if each is not None)


def _close(engine: Engine, rule: ClosingRule, now: datetime, revision_id: int) -> tuple[int, Closed] | None:
    """Close one revision, unless it may grow by now; None where it is not closed."""
    try:
        with transaction(engine) as session:
            why = _due(session, rule, now, only=revision_id).get(revision_id)
            return None if why is None else (close_revision(session, revision_id, now=now, actor=ACTOR), why)
    except (IllegalMove, IntegrityError) as error:
        log.error("revision not closed", revision=revision_id, problem=type(error).__name__)
        return None


def _due(session: Session, rule: ClosingRule, now: datetime, only: int | None = None) -> Mapping[int, Closed]:
    opened = receiving(session, only)
    reasons = {each.revision_id: why_closed(each, rule, now) for each in opened}
    return {revision_id: reason for revision_id, reason in reasons.items() if reason is not None}
