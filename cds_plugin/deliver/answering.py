"""The N-EVENT-REPORT of a destination that was asked for storage commitment: checked, noted, acknowledged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from io import BytesIO
from typing import cast

import structlog
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.events import Event
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from cds_db import asking
from cds_db.asking import CommitmentAnswer
from cds_db.session import transaction
from cds_plugin.commitment.request import WELL_KNOWN_INSTANCE, ActionRefused, check_size
from cds_plugin.elements import element_text, element_value
from cds_plugin.receive.header import PARSE_ERRORS, uid_problem
from cds_plugin.receive.structure import Unparsable, check_structure, encoding_of

log = structlog.get_logger()

EVENT_TYPES = frozenset((1, 2))
"""Storage Commitment Request Successful; Complete - Failures Exist (PS3.4 table J.3-3)."""
UNKNOWN_REASON = 0x0110


class EventStatus(IntEnum):
    """The statuses of an N-EVENT-REPORT response that are given (PS3.7 section 10.1.1.1.8)."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    NO_SUCH_EVENT_TYPE = 0x0113
    INVALID_ARGUMENT = 0x0115


@dataclass(frozen=True, slots=True)
class AnswerHandler:
    """Handles evt.EVT_N_EVENT_REPORT, wherever it arrives."""

    engine: Engine

    def answer(self, event: Event, who: str) -> tuple[int, None]:
        """Return the status; Success says that the answer is committed to the database."""
        status = self._noted(event, who)
        log.info("n-event-report answered", calling_ae=who, status=f"0x{status:04X}")
        return int(status), None

    def _noted(self, event: Event, who: str) -> EventStatus:
        report = cast(N_EVENT_REPORT, event.request)
        if str(report.AffectedSOPInstanceUID or "") != WELL_KNOWN_INSTANCE:
            return EventStatus.NO_SUCH_INSTANCE
        if report.EventTypeID not in EVENT_TYPES:
            return EventStatus.NO_SUCH_EVENT_TYPE
        try:
            answer = _answer_of(event, report)
            with transaction(self.engine) as session:
                known = asking.record_answer(session, answer, now=datetime.now(UTC), actor=who)
        except (OSError, ActionRefused, Unparsable, *PARSE_ERRORS):
            return EventStatus.INVALID_ARGUMENT
        except SQLAlchemyError as error:
            log.error("database is away", problem=type(error).__name__)
            return EventStatus.PROCESSING_FAILURE
        return EventStatus.SUCCESS if known else EventStatus.INVALID_ARGUMENT


def _answer_of(event: Event, report: N_EVENT_REPORT) -> CommitmentAnswer:
    """Return the answer, its data set bounded and checked before it is parsed."""
    encoded = report.EventInformation.getvalue() if report.EventInformation else b""
    check_size(encoded)
    check_structure(BytesIO(encoded), len(encoded), encoding_of(event.context.transfer_syntax))
    information = event.event_information
    uid = _uid(information, "TransactionUID")
    failed = {
        _uid(each, "ReferencedSOPInstanceUID"): _reason(each)
        for each in _items(information, "FailedSOPSequence")
    }
    committed = {
        _uid(each, "ReferencedSOPInstanceUID") for each in _items(information, "ReferencedSOPSequence")
    }
    return CommitmentAnswer(uid, frozenset(committed - failed.keys()), failed)


def _items(information: Dataset, keyword: str) -> Iterator[Dataset]:
    items = element_value(information, keyword)
    if isinstance(items, DicomSequence):
        yield from items


def _reason(item: Dataset) -> int:
    reason = element_value(item, "FailureReason")
    return reason if isinstance(reason, int) else UNKNOWN_REASON


def _uid(dataset: Dataset, keyword: str) -> str:
    uid = element_text(dataset, keyword).strip(" \0")
    if uid_problem(uid) is not None:
        raise Unparsable(f"{keyword} is {uid_problem(uid)}")
    return uid
