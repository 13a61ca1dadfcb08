"""The upper layer of pynetdicom, kept in order: what does not fit ends an association, never just a thread.

This leans on private parts of pynetdicom 3.0 (its state machine and table); tests pin them.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

import structlog
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import AA_4, TRANSITION_TABLE, StateMachine
from pynetdicom.pdu import A_ABORT_RQ

from cds_plugin.receive.header import PARSE_ERRORS
from cds_plugin.receive.negotiation import request_problem, with_known_items

log = structlog.get_logger()

ASSOCIATE_RQ = 0x01
"""PDU type (PS3.8 section 9.3.2)."""
PROVIDER = 0x02
"""The source of an A-ABORT that no user asked for (PS3.8 section 9.3.8)."""
UNREADABLE = "an association request that cannot be read, such as an AE title that is not ASCII"
OUR_PRIMITIVES = frozenset({"Evt1", "Evt7", "Evt8", "Evt9", "Evt11", "Evt14", "Evt15"})
"""Events of PS3.8 table 9-10 that come from us: such a primitive waits in the provider's queue."""


class OrderlyProvider(DULServiceProvider):
    """The upper layer of one acceptor: a request beyond bounds ends in an A-ABORT before it is decoded.

    `complain` is told why a request was given up, in words of a bounded set.
    """

    complain: Callable[[str], None]

    def _decode_pdu(self, bytestream: bytearray) -> Any:
        """Return the PDU and its event. Raises ValueError, which pynetdicom takes as an invalid PDU."""
        if bytestream[0] != ASSOCIATE_RQ:
            return super()._decode_pdu(bytestream)
        problem = request_problem(bytes(bytestream)) or UNREADABLE
        try:
            if problem is not UNREADABLE:
                raise ValueError(problem)
            return super()._decode_pdu(bytearray(with_known_items(bytes(bytestream))))
        except PARSE_ERRORS as error:
            log.warning("association request given up", problem=problem, error=type(error).__name__)
            self.complain(problem)
            raise


class OrderlyStateMachine(StateMachine):
    """The state machine of one association.

    pynetdicom raises where table 9-10 has no entry and where an action fails: its thread is gone then, and
    the connection stays open.
    """

    def do_action(self, event: str) -> None:
        """Do what PS3.8 table 9-10 says; abort and close where it says nothing or where that fails."""
        if (event, self.current_state) not in TRANSITION_TABLE:
            self._surprised_by(event)
            return
        try:
            super().do_action(event)
        except (OSError, queue.Empty, *PARSE_ERRORS) as error:
            log.warning("association given up", problem=type(error).__name__, event_of_table=event)
            self._give_up()

    def _surprised_by(self, event: str) -> None:
        """An answer of ours that crossed the end of the association is dropped; all else ends it."""
        if event not in OUR_PRIMITIVES:
            log.warning("association given up", event_of_table=event, state=self.current_state)
            self._give_up()
        elif not self.dul.to_provider_queue.empty():
            self.dul.to_provider_queue.get()

    def _give_up(self) -> None:
        abort = A_ABORT_RQ()
        abort.source = PROVIDER
        abort.reason_diagnostic = 0x00
        self.dul._send(abort)
        self.current_state = AA_4(self.dul)
