"""The frozen values of one photograph, and what its header says about how it was taken."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage

from cds_plugin.elements import element_value
from cds_plugin.photograph.clinical import ClinicalFacts, clinical_facts_of
from cds_plugin.study import Rgb

LARGEST_SPACING_MM = 10.0
"""A pixel larger than this is a filler value, not a measurement of skin."""


class ColourSource(StrEnum):
    """Where the colours of the pixels come from."""

    ICC_PROFILE = "icc_profile"
    ASSUMED_SRGB = "assumed_srgb"
    UNREADABLE_PROFILE = "unreadable_profile"
    """There was a profile that could not be used; sRGB was assumed."""


@dataclass(frozen=True, slots=True)
class Acquisition:
    """How the picture was taken (PS3.3 A.32.11, Dermoscopic Image); None or () where nothing is said."""

    light_source_polarization: str | None
    contact_method: str | None
    immersion_media: tuple[str, ...]
    optical_magnification: float | None
    body_site: str | None
    laterality: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Photograph:
    """One decoded frame: `rgb` is uint8 (rows, columns, 3) in sRGB; spacing is (row, column) in mm.

    `header` holds every element of the object before its pixels, and `file_meta`.
    """

    header: Dataset
    rgb: Rgb
    pixel_spacing_mm: tuple[float, float] | None
    colour: ColourSource = ColourSource.ASSUMED_SRGB
    frame: int = 1
    """Which frame of the object it is; 1 for an object of one."""

    @property
    def acquisition(self) -> Acquisition:
        """Return what the header says about light, contact, immersion, magnification and body site."""
        return acquisition_of(self.header)

    @property
    def clinical(self) -> ClinicalFacts:
        """Return what the header says about age, sex and body site."""
        return clinical_facts_of(self.header)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One decoded JPEG or PNG, upright: `rgb` is uint8 (rows, columns, 3) in the picture's own colour space.

    `jpeg` holds the file's own baseline stream, without metadata, where its pixels may be kept as they are.
    `lossy` says whether the file was JPEG at all.
    """

    rgb: Rgb
    icc_profile: bytes | None
    lossy: bool
    jpeg: bytes | None
    jpeg_is_rgb: bool = False


def pixel_spacing_mm(header: Dataset) -> tuple[float, float] | None:
    """Return Pixel Spacing (row, column) when it is two plausible numbers, else None (PS3.3 10.7.1.3)."""
    value = element_value(header, "PixelSpacing")
    try:
        row, column = (float(each) for each in value or ())
    except (TypeError, ValueError):
        return None
    plausible = all(math.isfinite(each) and 0 < each <= LARGEST_SPACING_MM for each in (row, column))
    return (row, column) if plausible else None


def frame_count(header: Dataset) -> int | None:
    """Return how many frames an object of several frames has; None for an object that is one picture.

    An object of the multi-frame class is one of several frames also where it holds a single one.
    """
    frames = element_value(header, "NumberOfFrames")
    count = int(frames) if isinstance(frames, int) and frames > 0 else 1
    several = element_value(header, "SOPClassUID") == MultiFrameTrueColorSecondaryCaptureImageStorage
    return count if several or count > 1 else None


def acquisition_of(header: Dataset) -> Acquisition:
    """Return the acquisition facts of a header; malformed ones count as absent."""
    return Acquisition(
        light_source_polarization=_text(header, "LightSourcePolarization"),
        contact_method=_text(header, "ContactMethod"),
        immersion_media=_texts(header, "ImmersionMedia"),
        optical_magnification=_number(header, "OpticalMagnificationFactor"),
        body_site=_body_site(header),
        laterality=_text(header, "ImageLaterality") or _text(header, "Laterality"),
    )


def _text(header: Dataset, keyword: str) -> str | None:
    value = element_value(header, keyword)
    return str(value) if value else None


def _number(header: Dataset, keyword: str) -> float | None:
    try:
        value = float(element_value(header, keyword))
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) and value > 0 else None


def _texts(header: Dataset, keyword: str) -> tuple[str, ...]:
    value = element_value(header, keyword)
    if not value:
        return ()
    return (value,) if isinstance(value, str) else tuple(str(each) for each in value)


def _body_site(header: Dataset) -> str | None:
    regions = element_value(header, "AnatomicRegionSequence")
    meaning = regions[0].get("CodeMeaning") if isinstance(regions, Sequence) and regions else None
    return str(meaning) if meaning else _text(header, "BodyPartExamined")
