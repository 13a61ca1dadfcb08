"""The N-EVENT-REPORT of a storage commitment: its data set, and the way to the requester."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context, build_role
from pynetdicom.association import Association

from cds_db.commitment import Asked, Reference
from cds_plugin.commitment.holding import FailureReason
from cds_plugin.commitment.request import PUSH_MODEL, WELL_KNOWN_INSTANCE
from cds_plugin.deliver.sender import Peer, association_with
from cds_plugin.errors import Unavailable


class EventType(IntEnum):
    """Event Type ID (PS3.4 table J.3-2)."""

    SUCCESSFUL = 1
    FAILURES_EXIST = 2


def report_of(
    asked: Asked, failures: Mapping[Reference, FailureReason], retrieve_ae: str
) -> tuple[EventType, Dataset]:
    """Return event type and event information; `retrieve_ae` is who holds the instances."""
    information = Dataset()
    information.TransactionUID = asked.transaction_uid
    information.RetrieveAETitle = retrieve_ae
    held = [each for each in asked.references if each not in failures]
    if held:
        information.ReferencedSOPSequence = list(map(_item, held))
    if not failures:
        return EventType.SUCCESSFUL, information
    information.FailedSOPSequence = [_failed_item(each, reason) for each, reason in failures.items()]
    return EventType.FAILURES_EXIST, information


def send_report(peer: Peer, calling_ae: str, event: EventType, information: Dataset) -> None:
    """Report over an association of our own, in the role of the SCP (PS3.4 section J.3.3, PS3.7 D.3.3.4).

    Raises Unavailable where the requester cannot be reached or does not take it.
    """
    contexts = [build_context(PUSH_MODEL, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])]
    roles = [build_role(PUSH_MODEL, scu_role=False, scp_role=True)]
    with association_with(peer, calling_ae, contexts, roles) as association:
        if not association.accepted_contexts:
            raise _not_taken(str(peer), "accepted no presentation context for storage commitment")
        report_over(association, str(peer), event, information)


def report_over(association: Association, who: str, event: EventType, information: Dataset) -> None:
    """Report over an association that is open. Raises Unavailable where the requester does not take it."""
    try:
        answer, _ = association.send_n_event_report(information, int(event), PUSH_MODEL, WELL_KNOWN_INSTANCE)
    except (RuntimeError, ValueError) as error:
        raise _not_taken(who, "went away") from error
    if "Status" not in answer:
        raise _not_taken(who, "gave no answer to the report")
    if answer.Status != 0x0000:
        raise _not_taken(who, f"answered the report with status 0x{answer.Status:04X}")


def wants_it_here(association: Association) -> bool:
    """Return whether the requester negotiated its role: then it takes the report on its own association."""
    roles = association.requestor.role_selection
    return any(str(uid) == PUSH_MODEL and role.scu_role for uid, role in roles.items())


def failed_uids(failures: Mapping[Reference, FailureReason]) -> dict[str, int]:
    """Return the failures as the database notes them."""
    return {each.sop_instance_uid: int(reason) for each, reason in failures.items()}


def all_failed(references: Sequence[Reference], reason: FailureReason) -> dict[Reference, FailureReason]:
    """Return the same reason for every reference."""
    return dict.fromkeys(references, reason)


def _item(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item


def _failed_item(reference: Reference, reason: FailureReason) -> Dataset:
    item = _item(reference)
    item.FailureReason = int(reason)
    return item


def _not_taken(who: str, what: str) -> Unavailable:
    return Unavailable("report_not_taken", f"{who} {what}", "Look at the requester's log.")
