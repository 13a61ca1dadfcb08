"""Which stored objects are analysed, and why the others are not. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from cds_plugin.config import Action, Rule
from cds_plugin.receive.header import Header

ANALYSED: Mapping[str, str] = {
    "1.2.840.10008.5.1.4.1.1.77.1.7": "Dermoscopic Photography",
    "1.2.840.10008.5.1.4.1.1.77.1.4": "VL Photographic",
}
"""Storage classes that are analysed whoever sends them (PS3.4 annex B.5)."""

ANALYSED_FROM_NAMED_SENDERS: Mapping[str, str] = {
    "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture",
    "1.2.840.10008.5.1.4.1.1.7.4": "Multi-frame True Color Secondary Capture",
}
"""What importers send; anything may hide in it, so a rule must name the sender."""


class NotAnalysed(StrEnum):
    """Why an object is stored and left alone."""

    MADE_HERE = "made by this product"
    SOP_CLASS = "storage class is not analysed"
    NO_RULE = "no rule speaks for it"
    ONLY_ACKNOWLEDGED = "a rule has it only acknowledged"
    SENDER_NOT_NAMED = "Secondary Capture from a sender that no rule names"
    BURNED_IN_ANNOTATION = "Secondary Capture with burned-in annotation"
    DERIVED = "Secondary Capture of a derived image"


def reason_not_analysed(header: Header, rule: Rule | None, *, known_result: bool) -> NotAnalysed | None:
    """Return why the object is not analysed, or None where it is.

    `rule` is the one that speaks for the object; `known_result` says that the UID stands in our results.
    """
    if header.made_here or known_result:
        return NotAnalysed.MADE_HERE
    if header.sop_class_uid not in {*ANALYSED, *ANALYSED_FROM_NAMED_SENDERS}:
        return NotAnalysed.SOP_CLASS
    if rule is not None and rule.action is not Action.ANALYSE:
        return NotAnalysed.ONLY_ACKNOWLEDGED
    if header.sop_class_uid in ANALYSED:
        return None if rule else NotAnalysed.NO_RULE
    if rule is None or not rule.names_the_sender:
        return NotAnalysed.SENDER_NOT_NAMED
    return _reason_against_capture(header)


def _reason_against_capture(header: Header) -> NotAnalysed | None:
    if header.burned_in_annotation == "YES":
        return NotAnalysed.BURNED_IN_ANNOTATION
    if "DERIVED" in header.image_type:
        return NotAnalysed.DERIVED
    return None
