"""Names of UIDs as PS3.6 gives them, and the groups of them that this product speaks of. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydicom.uid import (
    UID,
    ColorSoftcopyPresentationStateStorage,
    Comprehensive3DSRStorage,
    DermoscopicPhotographyImageStorage,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

MADE: Mapping[str, tuple[str, str]] = {
    SegmentationStorage: (ExplicitVRLittleEndian, "one segment per lesion; absent where there is no lesion"),
    Comprehensive3DSRStorage: (
        ExplicitVRLittleEndian,
        "TID 1500, one measurement group (TID 1410) per lesion",
    ),
    SecondaryCaptureImageStorage: (
        JPEGBaseline8Bit,
        "the picture with outlines and classes; activation maps where a rule wants them",
    ),
    ColorSoftcopyPresentationStateStorage: (
        ExplicitVRLittleEndian,
        "outlines as polylines, a layer per lesion; where a rule wants it",
    ),
    EncapsulatedPDFStorage: (
        ExplicitVRLittleEndian,
        "a page with picture and findings; where a rule wants it",
    ),
}
"""The results: SOP class, transfer syntax, and what is in it; each one per analysed picture or frame."""
MADE_FROM_PICTURES: Mapping[str, tuple[str, str]] = {
    DermoscopicPhotographyImageStorage: (
        f"{ExplicitVRLittleEndian}, {JPEGBaseline8Bit}",
        "by `cds-plugin dicomize`, from JPEG and PNG",
    ),
}


def name(uid: str) -> str:
    """Return the name of a UID."""
    return UID(uid).name


def named(uid: str) -> str:
    """Return name and UID."""
    return f"{name(uid)} `{uid}`"


def names(uids: Iterable[str]) -> str:
    """Return the names of several UIDs in one cell."""
    return ", ".join(map(name, uids))
