"""The stages of a revision and of a delivery, and the one table of moves between them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Stage(StrEnum):
    """Where a revision of a study stands."""

    RECEIVING = "receiving"
    QUEUED = "queued"
    ANALYSING = "analysing"
    DELIVERING = "delivering"
    COMPLETE = "complete"
    CONFLICT = "conflict"
    FAILED = "failed"


ALLOWED_MOVES: Mapping[Stage, frozenset[Stage]] = {
    Stage.RECEIVING: frozenset({Stage.QUEUED, Stage.CONFLICT}),
    Stage.QUEUED: frozenset({Stage.ANALYSING, Stage.CONFLICT, Stage.FAILED}),
    Stage.ANALYSING: frozenset({Stage.DELIVERING, Stage.COMPLETE, Stage.CONFLICT, Stage.FAILED}),
    Stage.DELIVERING: frozenset({Stage.COMPLETE, Stage.CONFLICT, Stage.FAILED}),
    Stage.COMPLETE: frozenset(),
    Stage.CONFLICT: frozenset(),
    Stage.FAILED: frozenset({Stage.CONFLICT}),
}
"""A complete revision stays so even when its study is put on hold: what was sent was sent."""
REVIVALS: Mapping[Stage, Stage] = {Stage.FAILED: Stage.DELIVERING}
"""The moves that only an administrator's command makes: deliveries that were given up are sent after all."""
HOLDABLE = frozenset(stage for stage, following in ALLOWED_MOVES.items() if Stage.CONFLICT in following)


class DeliveryState(StrEnum):
    """Where the results of one revision stand on their way to one destination."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    HELD = "held"


class AskedState(StrEnum):
    """What a destination says of the objects that it took, where it is asked for storage commitment."""

    PENDING = "pending"
    COMMITTED = "committed"
    FAILED = "failed"


class Origin(StrEnum):
    """Why a revision analyses pictures that were received with earlier ones."""

    RERUN = "rerun"
    """Other models or settings, or an analysis that had failed."""
    RELEASE = "release"
    """A study on hold, after somebody decided whose pictures they are."""


class JobState(StrEnum):
    """A job waits, runs under a lease, is done, or is dead after too many attempts."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"


class JobKind(StrEnum):
    """Which task a job wakes."""

    ANALYSIS = "analysis"
    DELIVERY = "delivery"
    COMMITMENT = "commitment"


class CommitmentState(StrEnum):
    """Where the answer to a storage commitment request stands."""

    PENDING = "pending"
    REPORTED = "reported"
    FAILED = "failed"


class PullState(StrEnum):
    """How far a study was pulled from a peer."""

    RUNNING = "running"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"


class PulledState(StrEnum):
    """What became of one instance that a peer has: `refused` stays so, `failed` is tried again."""

    WANTED = "wanted"
    HELD = "held"
    REFUSED = "refused"
    FAILED = "failed"


class IllegalMove(Exception):
    """A move that the table does not allow: a bug or a race, never a stranger's fault."""


def check_move(old: Stage, new: Stage) -> None:
    """Raise IllegalMove unless the table allows `old` -> `new`."""
    if new not in ALLOWED_MOVES[old]:
        raise IllegalMove(f"{old} -> {new}")
