"""Studies to look at: a drawn picture of one kind of source with one or twenty lesions, and its results."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from pydicom.uid import DermoscopicPhotographyImageStorage, VLPhotographicImageStorage
from result_cases import CREATED, analysis, of_mask, photograph_header, stored_picture

from cds_plugin.results.build import Wanted, build_results
from cds_plugin.results.uids import derive_uid
from cds_plugin.study import USUAL_KINDS, Lesion, Mask, ResultKind, Rgb

ROWS, COLUMNS = 450, 600


@dataclass(frozen=True, slots=True)
class Study:
    """Which source, how many lesions, and how many frames; the last frame is the one that has lesions."""

    name: str
    sop_class: str
    modality: str
    lesions: int
    frames: int = 1


STUDIES = (
    Study("dermoscopic, twenty lesions", DermoscopicPhotographyImageStorage, "DMS", 20),
    Study("photographic, one lesion", VLPhotographicImageStorage, "XC", 1),
    Study("dermoscopic of two frames, one lesion", DermoscopicPhotographyImageStorage, "DMS", 1, 2),
    Study("photographic of two frames, twenty lesions", VLPhotographicImageStorage, "XC", 20, 2),
)


@dataclass(frozen=True, slots=True, eq=False)
class Viewed:
    """What is stored in the PACS, and the truth about it."""

    study_instance_uid: str
    rgb: Rgb
    lesions: tuple[Lesion, ...]
    frames: int
    source: bytes
    results: dict[ResultKind, bytes]


def viewed_study(study: Study, kinds: frozenset[ResultKind] = USUAL_KINDS) -> Viewed:
    """Return picture, source object and result objects."""
    masks = _masks(study.lesions)
    rgb = _drawn(masks)
    header = photograph_header(
        study.sop_class,
        study.modality,
        ROWS,
        COLUMNS,
        **{
            keyword: derive_uid("viewed", study.name, keyword)
            for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        },
        SeriesNumber=1,
        InstanceNumber=1,
        PatientID=f"VIEWED{study.lesions}F{study.frames}",
        SeriesDescription="Dermoscopy",
        **({"NumberOfFrames": study.frames} if study.frames > 1 else {}),
    )
    lesions = tuple(of_mask(number, mask) for number, mask in enumerate(masks, start=1))
    said = analysis(*lesions, rows=ROWS, columns=COLUMNS)
    frame = study.frames if study.frames > 1 else None
    built = build_results(header, rgb, said, 1, CREATED, frame=frame, wanted=Wanted(kinds))
    results = {each.kind: each.as_bytes() for each in built}
    pixels = np.stack([_drawn([])] * (study.frames - 1) + [rgb])
    return Viewed(
        str(header.StudyInstanceUID), rgb, lesions, study.frames, stored_picture(header, pixels), results
    )


def _masks(count: int) -> list[Mask]:
    """Ellipses in a grid; one alone is large and in the middle."""
    across, down = (1, 1) if count == 1 else (5, count // 5)
    cell_x, cell_y = COLUMNS / across, ROWS / down
    masks = []
    for number in range(count):
        centre = (int((number % across + 0.5) * cell_x), int((number // across + 0.5) * cell_y))
        canvas = np.zeros((ROWS, COLUMNS), np.uint8)
        cv2.ellipse(canvas, centre, (int(cell_x * 0.27), int(cell_y * 0.25)), 20, 0, 360, 1, -1)
        masks.append(canvas.astype(np.bool_))
    return masks


def _drawn(masks: list[Mask]) -> Rgb:
    """Return skin in uneven light, darker inside each mask."""
    light = np.linspace(0.8, 1.0, COLUMNS)[None, :, None] * np.linspace(1.0, 0.9, ROWS)[:, None, None]
    skin = np.array([222.0, 178.0, 158.0]) * light
    inside = np.any([np.zeros((ROWS, COLUMNS), np.bool_), *masks], axis=0)[..., None]
    return np.where(inside, skin * np.array([0.55, 0.42, 0.38]), skin).astype(np.uint8)
