"""How results are made, for every destination alike; what goes to which one stands in the rules."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from cds_plugin.config.table import Table


class Profile(StrEnum):
    """What a SEG says of geometry that its picture lacks."""

    VIEWER = "viewer"
    """It gets some, named as not calibrated: viewers show nothing without."""
    STRICT = "strict"
    """Nothing."""


class Results(Table):
    """How results are made."""

    segmentation: Profile = Field(
        Profile.VIEWER, description='"viewer" or "strict": whether form "seg" may hold invented geometry'
    )
