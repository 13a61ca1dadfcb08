"""One storage commitment request: kept durably, and only then answered with Success."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from typing import Any, cast

import structlog
from pydicom.dataset import Dataset
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_ACTION
from pynetdicom.events import Event
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from cds_db import commitment, jobs
from cds_db.commitment import CommitmentRequest, TooManyPending
from cds_db.session import transaction
from cds_plugin.commitment.report import EventType, report_over, wants_it_here
from cds_plugin.commitment.reporter import Reporter, known_address
from cds_plugin.commitment.request import (
    ActionRefused,
    ActionStatus,
    asked_for,
    check_action,
    check_size,
)
from cds_plugin.config import Settings
from cds_plugin.errors import Unavailable
from cds_plugin.lease import owner_name, take
from cds_plugin.receive.answers import ERROR_COMMENT_CHARACTERS
from cds_plugin.receive.associations import AssociationLedger
from cds_plugin.receive.header import PARSE_ERRORS
from cds_plugin.receive.in_turn import InTurn
from cds_plugin.receive.structure import Unparsable, check_structure, encoding_of

log = structlog.get_logger()

SETTLE_SECONDS = 0.3
"""Between our answer and our report on the same association: the requester may want to close it first."""


@dataclass(frozen=True, slots=True)
class CommitmentHandler:
    """Handles evt.EVT_N_ACTION of one listener; called from many association threads at once."""

    settings: Settings
    engine: Engine
    ledger: AssociationLedger
    turn: AbstractContextManager[Any]
    _here: InTurn = field(default_factory=lambda: InTurn("commitment"))

    def __call__(self, event: Event) -> tuple[Dataset, None]:
        """Return the status; what Success acknowledges will be reported even after a crash."""
        entry = self.ledger.entry(event.assoc)
        try:
            request = self._request(event, entry.calling_ae, entry.peer)
            self._keep(request, event.assoc)
            status, reason = ActionStatus.SUCCESS, ""
        except ActionRefused as refusal:
            status, reason = refusal.status, str(refusal)
        except TooManyPending as limit:
            status, reason = ActionStatus.RESOURCE_LIMITATION, str(limit)
        except SQLAlchemyError as error:
            status, reason = ActionStatus.PROCESSING_FAILURE, f"storage failed ({type(error).__name__})"
        entry.active_at = datetime.now(UTC)
        log.info(
            "n-action answered",
            association=entry.id,
            calling_ae=entry.calling_ae,
            status=f"0x{status:04X}",
            reason=reason,
        )
        return _response(status, reason), None

    def _request(self, event: Event, calling_ae: str, peer: str) -> CommitmentRequest:
        asked = cast(N_ACTION, event.request)
        check_action(str(asked.RequestedSOPInstanceUID or ""), int(asked.ActionTypeID or 0))
        encoded = asked.ActionInformation.getvalue() if asked.ActionInformation else b""
        check_size(encoded)
        try:
            check_structure(BytesIO(encoded), len(encoded), encoding_of(event.context.transfer_syntax))
            information = event.action_information
        except (OSError, Unparsable, *PARSE_ERRORS) as error:
            raise ActionRefused(ActionStatus.INVALID_ARGUMENT, "action information cannot be read") from error
        return CommitmentRequest(calling_ae, peer, *asked_for(information))

    def _keep(self, request: CommitmentRequest, association: Association) -> None:
        here = wants_it_here(association) or known_address(self.settings, request.calling_ae) is None
        owner = owner_name()
        now = datetime.now(UTC)
        with self.turn, transaction(self.engine) as session:
            job_id = commitment.record_request(session, request, now=now)
            taken = take(session, job_id, owner) if here else None
        if taken is not None:
            self._here.put(
                association, partial(self._report_here, association, taken, owner, request.calling_ae)
            )

    def _report_here(self, association: Association, claim: jobs.Claim, owner: str, who: str) -> None:
        """Report on the association of the request; where it is gone the deliver process does it."""
        try:
            Reporter(self.settings, self.engine).report(
                claim.job_id, owner, claim.subject_id, claim.attempts, partial(_send_here, association, who)
            )
        except SQLAlchemyError as error:
            log.error("database is away", job=claim.job_id, problem=type(error).__name__)


def _send_here(association: Association, who: str, event: EventType, information: Dataset) -> None:
    threading.Event().wait(SETTLE_SECONDS)
    if not association.is_established:
        raise Unavailable("association_over", f"{who} closed its association", "Nothing: it is sent anew.")
    report_over(association, who, event, information)


def _response(status: ActionStatus, reason: str) -> Dataset:
    answer = Dataset()
    answer.Status = int(status)
    if reason:
        answer.ErrorComment = reason[:ERROR_COMMENT_CHARACTERS]
    return answer
