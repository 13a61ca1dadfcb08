"""What rules may ask of an object, as it is or as a repair would make it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from cds_plugin.config import Repair

QUOTE = '"'
PADDING = " \0"


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """Texts of the header as written, without padding; an absent one is the empty text."""

    sop_class_uid: str = ""
    modality: str = ""
    study_description: str = ""
    series_description: str = ""

    def repaired(self, repairs: Collection[Repair]) -> ObjectFacts:
        """Return the facts as `repairs` would make them."""
        if Repair.QUOTED_VALUES not in repairs:
            return self
        return ObjectFacts(
            unquoted(self.sop_class_uid),
            unquoted(self.modality),
            unquoted(self.study_description),
            unquoted(self.series_description),
        )


def unquoted(text: str) -> str:
    """Return backslash-separated values, each that stands in one pair of double quotes without them."""
    return "\\".join(map(_unquoted_value, text.split("\\"))) if QUOTE in text else text


def _unquoted_value(value: str) -> str:
    core = value.strip(PADDING)
    if len(core) >= 2 and core[0] == core[-1] == QUOTE and QUOTE not in core[1:-1]:
        return core[1:-1].strip(PADDING)
    return value
