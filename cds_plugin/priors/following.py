"""Lesions get the identity that they had before: on the same picture, else at an earlier visit. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from pydicom.dataset import Dataset

from cds_db.lesions import EarlierLesion, ReportedLesion
from cds_plugin.elements import element_value
from cds_plugin.photograph.clinical import clinical_facts_of, moment_of
from cds_plugin.priors.known import KnownLesion, Place, SeenLesion, tracks
from cds_plugin.priors.matching import Bounds, Match, matched
from cds_plugin.study import Analysis, Appearance, BoundingBox, Lesion, Prior, Sha256, StudyInstanceUid

BOUNDS = Bounds(likeness=0.6, margin=0.1)
"""What they give is measured in docs/lesion-over-time.md."""
SIDES = ("L", "R")
"""Lateralities that speak for or against a place; "both" and "unpaired" do not."""
SAME_BOX_IOU = 0.5
"""On one picture two boxes that overlap more are one lesion, whatever model drew them."""


@dataclass(frozen=True, slots=True)
class PictureSeen:
    """Which picture is at hand, when it was taken, of which place on the body; `frame` 0: the only one."""

    study_instance_uid: str
    sop_instance_uid: str
    frame: int
    observed: datetime
    place: Place


def picture_seen(header: Dataset, frame: int | None, otherwise: datetime) -> PictureSeen:
    """Return what a header says of when and where; `otherwise` is the moment where it names none."""
    side = str(element_value(header, "ImageLaterality") or element_value(header, "Laterality") or "")
    return PictureSeen(
        str(element_value(header, "StudyInstanceUID")),
        str(element_value(header, "SOPInstanceUID")),
        frame or 0,
        moment_of(header) or otherwise,
        Place(clinical_facts_of(header).site or None, side if side in SIDES else None),
    )


def followed(
    analysis: Analysis, picture: PictureSeen, known: Sequence[EarlierLesion], bounds: Bounds = BOUNDS
) -> Analysis:
    """Return the analysis with the tracking UID and the prior of those lesions that are known already.

    What an earlier report on this very picture called a lesion keeps that name; its prior is the latest
    observation under that name at an earlier visit. The others are compared with earlier visits.
    """
    lesions = analysis.lesions
    names = _names_on_this_picture(lesions, picture, known)
    earlier = [found for each in known if (found := _known(each)) is not None and _before(found, picture)]
    free = [each for each in earlier if each.tracking_uid not in names.values()]
    seen = [_seen(each, picture) for each in lesions if each.number not in names and each.appearance]
    matches = matched(seen, free, bounds)
    again = tuple(_followed(each, names, matches, earlier) for each in lesions)
    return replace(analysis, lesions=again, priors_sought=True)


def _followed(
    lesion: Lesion, names: dict[int, str], matches: dict[int, Match], earlier: Sequence[KnownLesion]
) -> Lesion:
    if lesion.number in matches:
        match = matches[lesion.number]
        return replace(
            lesion, tracking_uid=match.prior.tracking_uid, prior=_prior(match.prior, match.likeness)
        )
    if lesion.number not in names:
        return lesion
    name = names[lesion.number]
    track = next((each for each in tracks(earlier) if each.latest.tracking_uid == name), None)
    if track is None or lesion.appearance is None:
        return replace(lesion, tracking_uid=name)
    likeness = track.latest.appearance.likeness(lesion.appearance)
    prior = None if likeness is None else _prior(track.latest, likeness)
    return replace(lesion, tracking_uid=name, prior=prior)


def _names_on_this_picture(
    lesions: Sequence[Lesion], picture: PictureSeen, known: Sequence[EarlierLesion]
) -> dict[int, str]:
    """Return the tracking UIDs of lesions that an earlier report on this picture outlined, by number."""
    here = [each.lesion for each in known if _is_of(each, picture)]
    pairs = sorted(
        (
            (_overlap(lesion.bbox, report.box), lesion.number, report.tracking_uid)
            for lesion in lesions
            for report in here
        ),
        reverse=True,
    )
    names: dict[int, str] = {}
    for overlap, number, uid in pairs:
        if overlap > SAME_BOX_IOU and number not in names and uid not in names.values():
            names[number] = uid
    return names


def _is_of(each: EarlierLesion, picture: PictureSeen) -> bool:
    return (each.study_instance_uid, each.lesion.source_sop_instance_uid, each.lesion.frame) == (
        picture.study_instance_uid,
        picture.sop_instance_uid,
        picture.frame,
    )


def _overlap(box: BoundingBox, other: tuple[int, int, int, int]) -> float:
    x0, y0, x1, y1 = other
    width = min(box.x1, x1) - max(box.x0, x0)
    height = min(box.y1, y1) - max(box.y0, y0)
    shared = max(width, 0) * max(height, 0)
    return shared / (box.width * box.height + (x1 - x0) * (y1 - y0) - shared)


def _before(known: KnownLesion, picture: PictureSeen) -> bool:
    return known.study_instance_uid != picture.study_instance_uid and known.observed < picture.observed


def _seen(lesion: Lesion, picture: PictureSeen) -> SeenLesion:
    if lesion.appearance is None:
        raise ValueError(f"it is not known how lesion {lesion.number} looks")
    return SeenLesion(lesion.number, picture.place, lesion.appearance)


def _known(earlier: EarlierLesion) -> KnownLesion | None:
    """Return an earlier lesion as it is compared; None where it is not known how it looked."""
    lesion = earlier.lesion
    appearance = kept_appearance(lesion)
    if appearance is None:
        return None
    return KnownLesion(
        lesion.tracking_uid,
        earlier.study_instance_uid,
        lesion.source_sop_instance_uid,
        lesion.observed_at,
        Place(lesion.site, lesion.laterality),
        appearance,
        lesion.malignancy,
        lesion.area_mm2,
    )


def kept_appearance(lesion: ReportedLesion) -> Appearance | None:
    """Return the appearance that a row holds."""
    if lesion.appearance is None or lesion.appearance_model is None:
        return None
    vector = np.frombuffer(lesion.appearance, dtype="<f4")
    return Appearance(tuple(vector.tolist()), Sha256(lesion.appearance_model))


def reported(lesion: Lesion, picture: PictureSeen, spacing_mm: tuple[float, float] | None) -> ReportedLesion:
    """Return the row of a lesion as this report has it; ValueError where it has no tracking UID yet."""
    look = lesion.appearance
    if lesion.tracking_uid is None:
        raise ValueError(f"lesion {lesion.number} has no tracking UID")
    return ReportedLesion(
        source_sop_instance_uid=picture.sop_instance_uid,
        frame=picture.frame,
        number=lesion.number,
        tracking_uid=lesion.tracking_uid,
        observed_at=picture.observed,
        box=(lesion.bbox.x0, lesion.bbox.y0, lesion.bbox.x1, lesion.bbox.y1),
        site=picture.place.site,
        laterality=picture.place.laterality,
        malignancy=lesion.malignancy,
        area_mm2=lesion.area_px * spacing_mm[0] * spacing_mm[1] if spacing_mm else None,
        appearance=np.array(look.vector, dtype="<f4").tobytes() if look else None,
        appearance_model=look.model if look else None,
    )


def _prior(known: KnownLesion, likeness: float) -> Prior:
    return Prior(
        known.observed,
        StudyInstanceUid(known.study_instance_uid),
        known.malignancy,
        known.area_mm2,
        likeness,
    )
