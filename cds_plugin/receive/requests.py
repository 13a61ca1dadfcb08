"""The requests of one association: what was negotiated is served, all else is answered so or ends it.

pynetdicom would answer any request on a Verification context as if it were a C-ECHO, leave a request that
lacks an element without an answer, and lose its thread to an error.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_CANCEL, C_ECHO, C_STORE, N_ACTION, N_EVENT_REPORT
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from cds_plugin.commitment.request import PUSH_MODEL
from cds_plugin.receive.header import PARSE_ERRORS

log = structlog.get_logger()

UNRECOGNIZED_OPERATION = 0x0211
"""PS3.7 section C.5.22."""
PERMANENT, ACSE_PROVIDER, NO_REASON_GIVEN = 0x01, 0x02, 0x01
"""An A-ASSOCIATE-RJ for what cannot be negotiated (PS3.8 table 9-21)."""
SERVED: dict[str, tuple[type[Any], ...]] = {
    str(Verification): (C_ECHO,),
    PUSH_MODEL: (N_ACTION, N_EVENT_REPORT),
}
"""The requests of an abstract syntax; every other abstract syntax is a storage class."""


class OrderlyAssociation(Association):
    """An acceptor; `put_in_order` makes one of an association that has not started."""

    def _serve_request(self, msg: Any, context_id: int) -> None:
        """Serve a request; what pynetdicom left of its data set is removed."""
        try:
            self._serve(msg, context_id)
        except PARSE_ERRORS as error:
            log.warning("request given up", problem=type(error).__name__)
            self._abort_nonblocking()
        finally:
            path = getattr(msg, "_dataset_path", None)
            if isinstance(path, Path):
                with suppress(OSError):
                    path.unlink()

    def _serve(self, msg: Any, context_id: int) -> None:
        if isinstance(msg, C_CANCEL) or msg.MessageIDBeingRespondedTo is not None:
            return
        context = self._accepted_cx.get(context_id)
        if context is None or not msg.is_valid_request:
            log.warning("request given up", problem="no such context" if context is None else "incomplete")
            self._abort_nonblocking()
        elif isinstance(msg, SERVED.get(str(context.abstract_syntax), (C_STORE,))):
            super()._serve_request(msg, context_id)
        else:
            self._answer_unrecognized(msg, context_id)

    def _answer_unrecognized(self, msg: Any, context_id: int) -> None:
        answer = type(msg)()
        answer.MessageIDBeingRespondedTo = msg.MessageID
        answer.Status = UNRECOGNIZED_OPERATION
        self.dimse.send_msg(answer, context_id)


class OrderlyNegotiation(ACSE):
    """The negotiation of an acceptor: a request that cannot be negotiated is rejected."""

    def negotiate_association(self) -> None:
        """Accept or reject the association."""
        try:
            super().negotiate_association()
        except PARSE_ERRORS as error:
            log.warning("association rejected", problem=type(error).__name__)
            self.send_reject(PERMANENT, ACSE_PROVIDER, NO_REASON_GIVEN)
            self.assoc.kill()


def put_in_order(association: Association) -> None:
    """Equip an association that has not started."""
    if type(association) is Association:
        association.__class__ = OrderlyAssociation
        association.acse = OrderlyNegotiation(association)
