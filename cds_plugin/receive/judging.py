"""What is to be done with an object that was offered, by its header and by the rules; nothing is kept yet.

The listener, pull, STOW and `rules explain` all ask here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cds_plugin.config import Settings
from cds_plugin.receive.answers import Forbidden, Offered, Quarantined, Status, identity_problem
from cds_plugin.receive.header import Header, read_received
from cds_plugin.receive.repair import repaired_copy, repaired_texts
from cds_plugin.receive.structure import Unparsable
from cds_plugin.rules import Decision, decide


@dataclass(frozen=True, slots=True)
class Judged:
    """An object that is to be kept, and what its rule decided.

    `repaired` is the file to use in place of the one that was offered, None where nothing was repaired;
    the header is that of the file to use.
    """

    offered: Offered
    header: Header
    decision: Decision
    repaired: Path | None = None


def judge(settings: Settings, offered: Offered, inflated_bytes: int) -> Judged:
    """Return what is to be done with the object.

    Raises Quarantined where it is kept apart, Forbidden where a rule refuses it. The caller removes the
    repaired file.
    """
    header = _header(offered, offered.path, inflated_bytes)
    decision = decide(settings, offered.association.caller, header.facts)
    _check_allowed(decision)
    if decision.repairs:
        return _repaired(settings, offered, header, decision, inflated_bytes)
    _check_identity(offered, header)
    return Judged(offered, header, decision)


def _repaired(
    settings: Settings, offered: Offered, header: Header, decision: Decision, inflated_bytes: int
) -> Judged:
    """Return the object as its rule has it repaired; no fault of it gets it past a rule that refuses."""
    file = repaired_copy(offered.path, offered.transfer_syntax_uid, decision.repairs)
    if file is None:
        _check_identity(offered, header)
        return Judged(offered, header, decision)
    try:
        class_uid, instance_uid = repaired_texts(
            (offered.sop_class_uid, offered.sop_instance_uid), decision.repairs
        )
        announced = replace(offered, sop_class_uid=class_uid, sop_instance_uid=instance_uid)
        better = _header(announced, file, inflated_bytes)
        _check_identity(announced, better)
        _check_allowed(decide(settings, offered.association.caller, better.facts))
    except (Quarantined, Forbidden):
        file.unlink(missing_ok=True)
        raise
    return Judged(announced, better, decision, file)


def _header(offered: Offered, file: Path, inflated_bytes: int) -> Header:
    if not offered.transfer_syntax_uid:
        raise Quarantined(Status.CANNOT_UNDERSTAND, "no readable File Meta Information")
    try:
        if file != offered.path:
            return read_received(file, offered.transfer_syntax_uid, inflated_bytes)
        return read_received(
            file, offered.transfer_syntax_uid, inflated_bytes, offered.head_bytes, offered.content
        )
    except Unparsable as error:
        raise Quarantined(Status.CANNOT_UNDERSTAND, str(error)) from error


def _check_allowed(decision: Decision) -> None:
    if decision.refuses:
        raise Forbidden(f"rule {decision.label} refuses it")


def _check_identity(offered: Offered, header: Header) -> None:
    problem = identity_problem(offered, header)
    if problem is not None:
        raise Quarantined(Status.DATA_SET_DOES_NOT_MATCH, problem)
