"""The states of revisions, deliveries, jobs and commitments, and the one table of moves between them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Stage(StrEnum):
    """Where a revision of a study stands."""

    RECEIVING = "receiving"
    QUEUED = "queued"
    ANALYSING = "analysing"
    DELIVERING = "delivering"
    COMPLETE = "complete"
    CONFLICT = "conflict"
    FAILED = "failed"
    DISCARDED = "discarded"


ALLOWED_MOVES: Mapping[Stage, frozenset[Stage]] = {
    Stage.RECEIVING: frozenset({Stage.QUEUED, Stage.CONFLICT}),
    Stage.QUEUED: frozenset({Stage.ANALYSING, Stage.CONFLICT, Stage.FAILED}),
    Stage.ANALYSING: frozenset({Stage.DELIVERING, Stage.COMPLETE, Stage.CONFLICT, Stage.FAILED}),
    Stage.DELIVERING: frozenset({Stage.COMPLETE, Stage.CONFLICT, Stage.FAILED, Stage.DISCARDED}),
    Stage.COMPLETE: frozenset(),
    Stage.CONFLICT: frozenset(),
    Stage.FAILED: frozenset({Stage.CONFLICT, Stage.DISCARDED}),
    Stage.DISCARDED: frozenset(),
}
"""A complete revision stays so even when its study is put on hold: what was sent was sent."""
HOLDABLE = frozenset(stage for stage, following in ALLOWED_MOVES.items() if Stage.CONFLICT in following)


AT_WORK = (Stage.QUEUED, Stage.ANALYSING)
"""The stages in which an analysis job works for a revision."""


class DeliveryState(StrEnum):
    """Where the results of one revision stand on their way to one destination."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    HELD = "held"
    DISCARDED = "discarded"


class AskedState(StrEnum):
    """What a destination says of the objects that it took, where it is asked for storage commitment."""

    PENDING = "pending"
    COMMITTED = "committed"
    FAILED = "failed"
    DISCARDED = "discarded"


class Origin(StrEnum):
    """Why a revision analyses pictures that were received with earlier ones."""

    RERUN = "rerun"
    """Other models or settings, or an analysis that had failed."""
    RELEASE = "release"
    """A study on hold, after somebody decided whose pictures they are."""


class JobState(StrEnum):
    """A job waits, runs under a lease, is done, or is dead until somebody retries or discards it."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"
    DISCARDED = "discarded"


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
    DISCARDED = "discarded"


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


DELIVERY_MOVES: Mapping[DeliveryState, frozenset[DeliveryState]] = {
    DeliveryState.PENDING: frozenset({DeliveryState.DELIVERED, DeliveryState.FAILED, DeliveryState.HELD}),
    DeliveryState.DELIVERED: frozenset(),
    DeliveryState.FAILED: frozenset({DeliveryState.HELD, DeliveryState.DISCARDED}),
    DeliveryState.HELD: frozenset(),
    DeliveryState.DISCARDED: frozenset(),
}
ASKED_MOVES: Mapping[AskedState, frozenset[AskedState]] = {
    AskedState.PENDING: frozenset({AskedState.COMMITTED, AskedState.FAILED}),
    AskedState.COMMITTED: frozenset(),
    AskedState.FAILED: frozenset({AskedState.COMMITTED, AskedState.DISCARDED}),
    AskedState.DISCARDED: frozenset({AskedState.COMMITTED}),
}
"""A late answer counts."""
JOB_MOVES: Mapping[JobState, frozenset[JobState]] = {
    JobState.WAITING: frozenset({JobState.RUNNING, JobState.DEAD}),
    JobState.RUNNING: frozenset({JobState.RUNNING, JobState.WAITING, JobState.DONE, JobState.DEAD}),
    JobState.DONE: frozenset(),
    JobState.DEAD: frozenset({JobState.DONE, JobState.DISCARDED}),
    JobState.DISCARDED: frozenset(),
}
"""Running to running: its lease ran out and another process took it over. Dead to done: a late answer."""
COMMITMENT_MOVES: Mapping[CommitmentState, frozenset[CommitmentState]] = {
    CommitmentState.PENDING: frozenset({CommitmentState.REPORTED, CommitmentState.FAILED}),
    CommitmentState.REPORTED: frozenset(),
    CommitmentState.FAILED: frozenset({CommitmentState.DISCARDED}),
    CommitmentState.DISCARDED: frozenset(),
}
MOVES: Mapping[type[StrEnum], Mapping[Any, frozenset[Any]]] = {
    Stage: ALLOWED_MOVES,
    DeliveryState: DELIVERY_MOVES,
    AskedState: ASKED_MOVES,
    JobState: JOB_MOVES,
    CommitmentState: COMMITMENT_MOVES,
}
"""Every move that the product makes by itself, and `discard`."""
REVIVALS: Mapping[type[StrEnum], Mapping[Any, frozenset[Any]]] = {
    Stage: {Stage.FAILED: frozenset({Stage.QUEUED, Stage.DELIVERING})},
    DeliveryState: {DeliveryState.FAILED: frozenset({DeliveryState.PENDING})},
    AskedState: {AskedState.FAILED: frozenset({AskedState.PENDING})},
    JobState: {
        JobState.DONE: frozenset({JobState.WAITING}),
        JobState.DEAD: frozenset({JobState.WAITING}),
        JobState.DISCARDED: frozenset({JobState.WAITING}),
    },
    CommitmentState: {
        state: frozenset({CommitmentState.PENDING})
        for state in (CommitmentState.REPORTED, CommitmentState.FAILED, CommitmentState.DISCARDED)
    },
}
"""The ways back, which only a person's command goes, or a requester that asks for commitment once more."""


class IllegalMove(Exception):
    """A move that the table does not allow: a bug or a race, never a stranger's fault."""


def check_move(old: StrEnum, new: StrEnum) -> None:
    """Raise IllegalMove unless the table allows `old` -> `new`."""
    if new not in MOVES[type(old)][old]:
        raise IllegalMove(f"{old} -> {new}")


def check_revival(old: StrEnum, new: StrEnum) -> None:
    """Raise IllegalMove unless the table of ways back has `old` -> `new`."""
    if new not in REVIVALS[type(old)].get(old, ()):
        raise IllegalMove(f"{old} can't be revived")
