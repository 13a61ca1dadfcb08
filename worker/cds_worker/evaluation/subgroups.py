"""The same figures for parts of the pictures: by age, sex, site, histology and skin tone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cds_bundles.metric_resampling import estimates
from cds_bundles.skin_tone import BLUISH_CAST, SOURCE, TONES, TOO_LITTLE_SKIN
from cds_worker.evaluation.cases import Case
from cds_worker.evaluation.observing import NO_OUTLINE
from cds_worker.evaluation.task import Row, Task

UNKNOWN = "unknown"
AGE_BANDS = ((0, 29), (30, 44), (45, 59), (60, 74))
OLDEST = "75 and over"
FEW_LESIONS = 20
"""Fewer lesions than this say next to nothing; the report marks such groups."""
TONE_NOTE = (
    "Skin tone is an estimate from uncalibrated pictures: the individual typology angle of the median colour "
    "outside the grown outline, without dark corners, hair, bubbles and glare. Bins: "
    + ", ".join(f"{tone.name} over {tone.above:g}°" for tone in TONES)
    + f' ({SOURCE}). Light and camera shift the angle; "{BLUISH_CAST}" is skin that looks blue (b* of 0 or '
    "less), where no angle has a meaning. It describes groups of pictures, not persons."
)

_TONE_ORDER = (*(tone.name for tone in TONES), BLUISH_CAST, TOO_LITTLE_SKIN, NO_OUTLINE.name)


def subgroups(task: Task[Any], rows: Sequence[Row], split: str) -> dict[str, Any]:
    """Return the task's headline figures by facet and group; a facet that nobody filled in is left out."""
    facets: dict[str, Callable[[Row], str]] = {
        "age": lambda row: age_band(row.case.age),
        "sex": lambda row: row.case.sex or UNKNOWN,
        "site": lambda row: row.case.site or UNKNOWN,
        "histology": lambda row: confirmation(row.case),
        "skin_tone": lambda row: row.tone.name,
    }
    found = {name: _groups(task, rows, name_of, split) for name, name_of in facets.items()}
    return {name: groups for name, groups in found.items() if set(groups) - {UNKNOWN}}


def age_band(age: float | None) -> str:
    """Return the band of an age in years."""
    if age is None:
        return UNKNOWN
    return next((f"{low} to {high}" for low, high in AGE_BANDS if age < high + 1), OLDEST)


def confirmation(case: Case) -> str:
    """Return whether histology confirmed the diagnosis."""
    return UNKNOWN if case.histology is None else "confirmed" if case.histology else "not confirmed"


def _groups(
    task: Task[Any], rows: Sequence[Row], name_of: Callable[[Row], str], split: str
) -> dict[str, dict[str, Any]]:
    members: dict[str, list[Row]] = {}
    for row in rows:
        members.setdefault(name_of(row), []).append(row)
    return {name: _figures(task, members[name], split) for name in sorted(members, key=_place)}


def _place(name: str) -> tuple[bool, int, str]:
    """Sort tones from light to dark, all else by name, the unknown last."""
    return name == UNKNOWN, _TONE_ORDER.index(name) if name in _TONE_ORDER else 0, name


def _figures(task: Task[Any], rows: Sequence[Row], split: str) -> dict[str, Any]:
    lesion_ids = [row.case.lesion_id for row in rows]
    every = task.measures(rows)
    chosen = {name: every[name] for name in task.headline if name in every}
    found = estimates(chosen, lesion_ids, split)
    return {
        "pictures": len(rows),
        "lesion_ids": len(set(lesion_ids)),
        "figures": {name: estimate.as_json() for name, estimate in found.items()},
    }
