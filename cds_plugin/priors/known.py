"""What is compared: lesions seen now, and lesions that were reported before of the same patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cds_plugin.study import Appearance


@dataclass(frozen=True, slots=True)
class Place:
    """Where on the body: coded values as the objects give them; None where they do not say."""

    site: str | None = None
    laterality: str | None = None

    def may_be(self, other: Place) -> bool:
        """Return whether nothing that both know speaks against one place."""
        return _agree(self.site, other.site) and _agree(self.laterality, other.laterality)


def _agree(first: str | None, second: str | None) -> bool:
    return first is None or second is None or first == second


@dataclass(frozen=True, slots=True)
class SeenLesion:
    """A lesion of the picture at hand."""

    number: int
    place: Place
    appearance: Appearance


@dataclass(frozen=True, slots=True)
class KnownLesion:
    """One earlier observation of a lesion, as it was reported."""

    tracking_uid: str
    study_instance_uid: str
    sop_instance_uid: str
    """Of the picture in which it was seen."""
    observed: datetime
    place: Place
    appearance: Appearance
    malignancy: float
    area_mm2: float | None


@dataclass(frozen=True, slots=True)
class Track:
    """All earlier observations under one tracking UID, oldest first; never empty."""

    observations: tuple[KnownLesion, ...]

    @property
    def latest(self) -> KnownLesion:
        return self.observations[-1]

    def likeness(self, lesion: SeenLesion) -> float | None:
        """Return the best likeness of any observation that may be of this place; None where there is none."""
        found = [
            likeness
            for each in self.observations
            if each.place.may_be(lesion.place)
            and (likeness := each.appearance.likeness(lesion.appearance)) is not None
        ]
        return max(found, default=None)


def tracks(known: Sequence[KnownLesion]) -> tuple[Track, ...]:
    """Return `known` by tracking UID, in the order of the UIDs."""
    by_uid: dict[str, list[KnownLesion]] = {}
    for each in known:
        by_uid.setdefault(each.tracking_uid, []).append(each)
    return tuple(
        Track(tuple(sorted(by_uid[uid], key=lambda each: (each.observed, each.sop_instance_uid))))
        for uid in sorted(by_uid)
    )
