"""What a destination's answer to one object means: taken, not now, or never. Pure."""

from __future__ import annotations

from enum import StrEnum

SUCCESS = 0x0000
WARNINGS = frozenset((0xB000, 0xB006, 0xB007))
"""Stored, with elements coerced or discarded (PS3.4 table B.2-1)."""
DUPLICATE = 0x0111
"""Duplicate SOP Instance (PS3.7 annex C): some archives say so to what was sent before a crash of ours."""
OUT_OF_RESOURCES = range(0xA700, 0xA800)
PROCESSING_FAILURE = 0x0110
RESOURCE_LIMITATION = 0x0213
LATER = frozenset((PROCESSING_FAILURE, RESOURCE_LIMITATION, 0xFE00))
"""General failures that may pass: PS3.7 annex C; FE00 is Cancel."""


class Verdict(StrEnum):
    """What follows from an answer."""

    STORED = "stored"
    LATER = "later"
    REFUSED = "refused"


def verdict_of(status: int) -> Verdict:
    """Return what a C-STORE status, or a Failure Reason of STOW-RS, means for the object.

    Out of resources passes. A data set that does not match (A9xx), or that cannot be understood (Cxxx), does
    not get better by being sent again; nor does what is not supported, not authorised or not known (01xx).
    A status that no table has may pass.
    """
    if status in (SUCCESS, DUPLICATE) or status in WARNINGS:
        return Verdict.STORED
    if status in OUT_OF_RESOURCES or status in LATER:
        return Verdict.LATER
    return Verdict.REFUSED if status >> 8 in REFUSING_CLASSES or status >> 12 == 0xC else Verdict.LATER


REFUSING_CLASSES = frozenset((0x01, 0xA8, 0xA9))
