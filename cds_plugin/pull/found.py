"""What is asked of a peer, and what it says it has. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Protocol

from cds_db.stages import PulledState
from cds_plugin.errors import Refused
from cds_plugin.pull.bounds import DAYS
from cds_plugin.receive.answers import Status


@dataclass(frozen=True, slots=True)
class FoundStudy:
    """A study that a peer has; `instances` is their number where the peer says it."""

    study_instance_uid: str
    instances: int | None = None


@dataclass(frozen=True, slots=True)
class FoundInstance:
    """An instance that a peer has; `sop_class_uid` is empty where the peer does not say it."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str = ""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What became of one instance that was asked for."""

    sop_instance_uid: str
    state: PulledState
    error: str = ""


@dataclass(frozen=True, slots=True)
class FoundDay:
    """The studies of one day; `unnamed` is how many matches have no valid Study Instance UID."""

    studies: list[FoundStudy]
    unnamed: int = 0


class Finder(Protocol):
    """Asks a peer what it has; every method raises Refused or Unavailable."""

    def studies(self, day: date, modalities: Sequence[str]) -> FoundDay:
        """Return the studies of one day that have one of the modalities (none named: any)."""
        ...

    def instances(self, study_instance_uid: str, modalities: Sequence[str]) -> list[FoundInstance]:
        """Return the instances of a study's series of these modalities (none named: of all)."""
        ...


class Retriever(Protocol):
    """Brings instances in."""

    def retrieve(self, wanted: Sequence[FoundInstance], tell: Callable[[Arrival], None]) -> None:
        """Fetch instances of one study, telling of each that came or was refused.

        Raises Unavailable where the peer breaks off; what it was told of before stays true.
        """
        ...


def arrival_of(sop_instance_uid: str, status: Status, reason: str) -> Arrival:
    """Return what the reception's answer means: what had no room now is tried again, a refusal stays."""
    if status is Status.SUCCESS:
        return Arrival(sop_instance_uid, PulledState.HELD)
    state = PulledState.FAILED if status is Status.OUT_OF_RESOURCES else PulledState.REFUSED
    return Arrival(sop_instance_uid, state, f"0x{status:04X} {reason}".strip())


def days(since: date, until: date) -> Iterator[date]:
    """Return the days from `since` to `until`, both included. Raises Refused for an empty or absurd range."""
    count = (until - since).days + 1
    if not 1 <= count <= DAYS:
        raise Refused("bad_range", f"{since} to {until} is no range of days", "Give --since before --until.")
    return (since + timedelta(days=number) for number in range(count))
