"""A DICOM instance becomes a photograph: sRGB pixels with true colour, spacing and acquisition facts.

Everything bad in a file becomes `Refused`. Pixels are never decoded in the process that imports this: that is
the child's work (`cds_plugin.decoder` starts it).
"""

from __future__ import annotations

from cds_plugin.photograph.checks import MINIMUM_SIDE, check_decodable
from cds_plugin.photograph.clinical import ClinicalFacts
from cds_plugin.photograph.facts import (
    Acquisition,
    ColourSource,
    Photograph,
    Picture,
    frame_count,
    pixel_spacing_mm,
)
from cds_plugin.photograph.header import read_header

__all__ = [
    "MINIMUM_SIDE",
    "Acquisition",
    "ClinicalFacts",
    "ColourSource",
    "Photograph",
    "Picture",
    "check_decodable",
    "frame_count",
    "pixel_spacing_mm",
    "read_header",
]
