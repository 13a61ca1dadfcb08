"""Every status that is sent or acted upon, with its meaning: the tables of section 7.3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cds_plugin.commitment.holding import FailureReason
from cds_plugin.commitment.request import ActionStatus
from cds_plugin.conformance.markdown import Section, table
from cds_plugin.deliver.answering import EventStatus
from cds_plugin.deliver.verdict import DUPLICATE, LATER, OUT_OF_RESOURCES, REFUSING_CLASSES, SUCCESS, WARNINGS
from cds_plugin.pull import finding, getting, moving
from cds_plugin.receive.answers import Status
from cds_plugin.web.answers import MEANING

STORE_SCP: Mapping[Status, tuple[str, str]] = {
    Status.SUCCESS: ("Success", "stored durably, analysed or not; also a duplicate, also an altered one"),
    Status.NOT_AUTHORISED: ("Refused: Not authorised", "a rule refuses the object; nothing is kept"),
    Status.OUT_OF_RESOURCES: (
        "Refused: Out of resources",
        "disk below its watermark, object over the limit, database away; nothing is kept, try again later",
    ),
    Status.DATA_SET_DOES_NOT_MATCH: (
        "Error: Data Set does not match SOP Class",
        "SOP Class, SOP Instance, Study or Series Instance UID missing, quoted or invalid, or not those of "
        "the "
        "command (STOW-RS: of the File Meta Information and the study of the request); kept in quarantine",
    ),
    Status.CANNOT_UNDERSTAND: (
        "Error: Cannot understand",
        "not a complete data set of its transfer syntax; kept in quarantine",
    ),
}
STORE_SCU_WARNINGS: Mapping[int, str] = {
    0xB000: "Warning: Coercion of data elements",
    0xB006: "Warning: Elements discarded",
    0xB007: "Warning: Data Set does not match SOP Class",
}
ACTION: Mapping[ActionStatus, str] = {
    ActionStatus.SUCCESS: "the request is written durably and will be reported on",
    ActionStatus.PROCESSING_FAILURE: "the database did not take it; try again later",
    ActionStatus.NO_SUCH_INSTANCE: "not the well-known instance",
    ActionStatus.NO_SUCH_ARGUMENT: "Transaction UID or references are missing",
    ActionStatus.INVALID_ARGUMENT: "Transaction UID or a reference is invalid, or cannot be read",
    ActionStatus.NO_SUCH_ACTION: "another Action Type ID than 1",
    ActionStatus.RESOURCE_LIMITATION: "too many references, or too many requests of this requester wait",
}
FAILURE: Mapping[FailureReason, str] = {
    FailureReason.PROCESSING_FAILURE: "the file is missing or its bytes have changed",
    FailureReason.NO_SUCH_INSTANCE: "never received, or not kept",
    FailureReason.CLASS_INSTANCE_CONFLICT: "held under another SOP class than the requester names",
    FailureReason.DUPLICATE_TRANSACTION_UID: "the Transaction UID was used for other references",
}


def sections() -> Iterator[Section]:
    """Yield section 7.3."""
    yield Section("7.3", "Status codes")
    yield Section("7.3.1", "C-STORE as SCP, and Failure Reason of STOW-RS", (_store_scp(),))
    yield Section("7.3.2", "C-STORE as SCU", (_store_scu(),))
    yield Section("7.3.3", "N-ACTION of storage commitment as SCP", (_action(), _failures()))
    yield Section("7.3.4", "N-EVENT-REPORT of storage commitment as SCP", (_report(),))
    yield Section("7.3.5", "N-EVENT-REPORT of storage commitment as SCU", (_heard(),))
    yield Section("7.3.6", "C-FIND, C-GET and C-MOVE as SCU", (_query(),))
    yield Section("7.3.7", "STOW-RS", (_stow(),))


def code(status: int) -> str:
    """Return a status as the standard writes it."""
    return f"{status:04X}H"


def _store_scp() -> str:
    rows = [(meaning, code(status), when) for status, (meaning, when) in STORE_SCP.items()]
    return (
        table(("service status", "status code", "condition"), rows)
        + "\n\nError Comment (0000,0902) gives the reason, without values of the data set."
    )


def _store_scu() -> str:
    rows = [("Success", code(SUCCESS), "delivered")]
    rows += [(STORE_SCU_WARNINGS[status], code(status), "delivered") for status in sorted(WARNINGS)]
    rows.append(("Duplicate SOP Instance", code(DUPLICATE), "delivered"))
    later = ", ".join([f"{OUT_OF_RESOURCES.start >> 8:02X}xxH", *map(code, sorted(LATER))])
    rows.append(("Refused: Out of resources; others that may pass", later, "tried again with growing pauses"))
    refusing = ", ".join([*(f"{each:02X}xxH" for each in sorted(REFUSING_CLASSES)), "CxxxH"])
    rows.append(
        ("Error: Data Set does not match, Cannot understand; others", refusing, "never delivered; audited")
    )
    rows.append(("any other", "", "tried again with growing pauses"))
    return table(("service status", "status code", "behaviour"), rows)


def _action() -> str:
    rows = [(code(status), when) for status, when in ACTION.items()]
    return table(("status code", "condition"), rows)


def _failures() -> str:
    rows = [(code(reason), when) for reason, when in FAILURE.items()]
    return "Failure Reason (0008,1197) of an instance in the report:\n\n" + table(
        ("reason", "condition"), rows
    )


def _report() -> str:
    rows = [(code(SUCCESS), "reported"), ("any other, or none", "tried again later, with growing pauses")]
    return table(("status code", "behaviour"), rows)


HEARD: Mapping[EventStatus, str] = {
    EventStatus.SUCCESS: "the answer is written durably",
    EventStatus.PROCESSING_FAILURE: "the database did not take it; report again later",
    EventStatus.NO_SUCH_INSTANCE: "not the well-known instance",
    EventStatus.NO_SUCH_EVENT_TYPE: "another Event Type ID than 1 and 2",
    EventStatus.INVALID_ARGUMENT: "cannot be read, or a Transaction UID that nobody here asked with",
}


def _heard() -> str:
    rows = [(code(status), when) for status, when in HEARD.items()]
    return table(("status code", "condition"), rows)


def _query() -> str:
    rows = [
        ("C-FIND", _codes(finding.PENDING), "a match; the query goes on"),
        ("C-FIND", code(finding.SUCCESS), "the query is complete"),
        ("C-GET", code(getting.PENDING), "goes on"),
        (
            "C-GET",
            _codes(getting.DONE),
            "done; instances that did not come are named and fetched by the next run",
        ),
        ("C-MOVE", code(moving.PENDING), "goes on"),
        ("C-MOVE", _codes(moving.DONE), "done; instances that did not come are named"),
        ("C-MOVE", code(moving.UNKNOWN_DESTINATION), "fails for good: the peer does not know our listener"),
        ("all", "any other", "the study fails and is named; a later run goes on with it"),
    ]
    return table(("service", "status code", "behaviour"), rows)


def _codes(statuses: frozenset[int]) -> str:
    return ", ".join(map(code, sorted(statuses)))


def _stow() -> str:
    rows = [(f"{int(status)} {status.phrase}", when) for status, when in MEANING.items()]
    return table(("HTTP status", "condition"), rows)
