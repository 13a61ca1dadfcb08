"""The short way of a C-STORE: from the PDU to the answer in the thread that reads the socket.

pynetdicom hands a message through three queues and two polling threads; with many small objects that is
most of their time. It stays in charge of everything but the usual C-STORE on an established association:
negotiation, release, abort, other messages, and every C-STORE whose request is written in an unusual way.
This leans on private parts of pynetdicom 3.0 (`DULServiceProvider._read_pdu_data`, `_run_loop_delay`,
`_idle_timer`, `_kill_thread`, `Association._accepted_cx`), pinned by tests.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import structlog
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider

from cds_plugin.receive.answers import Offered, Status
from cds_plugin.receive.associations import OpenAssociation
from cds_plugin.receive.bounds import KIBIBYTE, Bounds
from cds_plugin.receive.command import P_DATA_TF, StoreRequest, file_head, store_request, store_response
from cds_plugin.receive.fragments import IS_COMMAND, IS_LAST
from cds_plugin.receive.upper_layer import OrderlyProvider
from cds_plugin.wire import PDU_HEAD_BYTES, SILENCE_SECONDS, QuickSocket

log = structlog.get_logger()

ESTABLISHED = "Sta6"
AWAITING_REQUEST = "Sta2"
CONNECTION_CLOSED = "Evt17"
INVALID_PDU = "Evt19"
"""The state machine answers this event with A-ABORT (PS3.8 table 9-10)."""
SMALLEST_PDU_BYTES = 1024
"""A response always fits into this; a peer that takes less gets it from pynetdicom, in fragments."""
POLL_SECONDS = 0.001
"""pynetdicom's own pace, where what we send is waiting to be seen."""

HELD_BYTES = 256 * KIBIBYTE
"""An object up to this size is held in memory until it is complete; 64 associations hold 16 MiB."""
PDUS_AT_ONCE = 64
"""So many may follow each other before pynetdicom's loop looks at its timers again."""
NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC

_NUMBERS = itertools.count()
"""Names of files in the incoming folder, which is this process's own."""
_HEAD = struct.Struct(">BBI")
_ITEM = struct.Struct(">IBB")


class Disorder(Exception):
    """The values of a PDU break the order of a message, or do not fit into it (PS3.8 annex E)."""


StoreAnswer = Callable[[Offered, str | None], tuple[Status, str]]


@dataclass(frozen=True, slots=True)
class Value:
    """A presentation data value: a fragment of a message, and where it ends in its PDU."""

    context_id: int
    control: int
    data: memoryview
    end: int


@dataclass(frozen=True, slots=True)
class Taken:
    """What to send for a PDU (empty: nothing yet), and where in it the message ended, if it did."""

    answer: bytes
    end: int | None


@dataclass(slots=True)
class Arriving:
    """An object that is being received: its request, the file it goes to and its hash so far.

    Small objects are held in memory until they are complete; `descriptor` is None as long as no file is made.
    """

    request: StoreRequest
    context_id: int
    transfer_syntax_uid: str
    path: Path
    head_bytes: int
    held: bytearray
    descriptor: int | None = None
    digest: Any = field(default_factory=hashlib.sha256)
    received: int = 0
    refusal: str | None = None


class StoreLane:
    """The C-STOREs of one association; used by its DUL thread only, but for `unfinished`."""

    def __init__(
        self,
        association: Association,
        entry: Callable[[Association], OpenAssociation],
        answer: StoreAnswer,
        bounds: Bounds,
        disk_is_full: Callable[[], bool],
        incoming: Path,
    ) -> None:
        self._association = association
        self._entry = entry
        self._answer = answer
        self._bounds = bounds
        self._disk_is_full = disk_is_full
        self._incoming = incoming
        self._arriving: Arriving | None = None

    @property
    def is_receiving(self) -> bool:
        """Return whether a data set has begun and is not complete."""
        return self._arriving is not None

    def unfinished(self) -> tuple[Path, ...]:
        """Return the file of a data set that will never be complete, once its association has ended."""
        arriving = self._arriving
        return (arriving.path,) if arriving is not None else ()

    def takes(self, body: memoryview) -> Taken | None:
        """Take in the values of a P-DATA-TF PDU up to the end of a message.

        None: this is no C-STORE of the usual form, and nothing of it was taken. Raises Disorder.
        """
        values = list(_values(body))
        if self._arriving is not None:
            return self._continued(values)
        if not values or not self._is_begun(values[0]):
            return None
        return self._continued(values[1:])

    def _is_begun(self, value: Value) -> bool:
        if value.control & 0x03 != IS_COMMAND | IS_LAST:
            return False
        context = self._association._accepted_cx.get(value.context_id)
        request = store_request(bytes(value.data))
        if context is None or request is None or not self._peer_takes_responses():
            return False
        self._arriving = self._opened(request, value.context_id, str(context.transfer_syntax[0]))
        return True

    def _peer_takes_responses(self) -> bool:
        limit = self._association.requestor.maximum_length
        return not limit or limit >= SMALLEST_PDU_BYTES

    def _opened(self, request: StoreRequest, context_id: int, transfer_syntax: str) -> Arriving:
        path = self._incoming / f"lane-{next(_NUMBERS)}.dcm"
        head = file_head(request, transfer_syntax)
        return Arriving(request, context_id, transfer_syntax, path, len(head), bytearray(head))

    def _continued(self, values: Sequence[Value]) -> Taken:
        arriving = self._arriving
        assert arriving is not None
        for value in values:
            if value.control & IS_COMMAND or value.context_id != arriving.context_id:
                raise Disorder("a data set is interrupted")
            self._keep(arriving, value.data)
            if value.control & IS_LAST:
                return Taken(self._answered(arriving), value.end)
        return Taken(b"", None)

    def _keep(self, arriving: Arriving, data: memoryview) -> None:
        arriving.received += len(data)
        if arriving.refusal is not None:
            return
        if arriving.received > self._bounds.object_bytes:
            arriving.refusal = "object is larger than the limit"
        elif arriving.descriptor is None and len(arriving.held) + len(data) <= HELD_BYTES:
            arriving.held += data
        elif self._disk_is_full():
            arriving.refusal = "disk is below its watermark"
        else:
            _write(arriving, data)
        if arriving.refusal is not None:
            arriving.held.clear()
            with suppress(OSError):
                os.truncate(arriving.path, 0)

    def _answered(self, arriving: Arriving) -> bytes:
        held = bytes(arriving.held) if arriving.descriptor is None and arriving.refusal is None else b""
        if held:
            _write(arriving, memoryview(b""))
        if arriving.descriptor is not None:
            os.close(arriving.descriptor)
        self._arriving = None
        offered = Offered(
            path=arriving.path,
            sop_class_uid=arriving.request.sop_class_uid,
            sop_instance_uid=arriving.request.sop_instance_uid,
            transfer_syntax_uid=arriving.transfer_syntax_uid,
            association=self._entry(self._association),
            sha256=arriving.digest.hexdigest(),
            head_bytes=arriving.head_bytes,
            content=held,
        )
        status, reason = self._answer(offered, arriving.refusal)
        return store_response(arriving.context_id, arriving.request, int(status), reason)

    def touch(self) -> None:
        """Note that the peer was heard."""
        self._entry(self._association).active_at = datetime.now(UTC)

    def give_up(self) -> None:
        """Close and delete what will never be complete."""
        arriving, self._arriving = self._arriving, None
        if arriving is not None:
            if arriving.descriptor is not None:
                with suppress(OSError):
                    os.close(arriving.descriptor)
            arriving.path.unlink(missing_ok=True)


class LaneProvider(OrderlyProvider):
    """pynetdicom's DUL with a lane for C-STORE; `put_on_lane` makes one of a DUL that has not started."""

    lane: StoreLane
    _passed_on = 0.0
    """When a message was last left to pynetdicom, whose other thread will answer it through a queue."""

    @property
    def _run_loop_delay(self) -> float:  # type: ignore[override]
        """Return how long the reactor sleeps in each round: not at all where the socket does the waiting."""
        return 0.0 if self._may_doze and threading.get_ident() == self.ident else POLL_SECONDS

    @property
    def _may_doze(self) -> bool:
        """Return whether only the peer can bring something to do; a request may come with the connection."""
        if not self.event_queue.empty():
            return False
        state = self.state_machine.current_state
        if state == ESTABLISHED:
            return time.monotonic() - self._passed_on > SILENCE_SECONDS
        return state == AWAITING_REQUEST

    def _is_transport_event(self) -> bool:
        if isinstance(self.socket, QuickSocket):
            self.socket.dozes = self._may_doze
        return super()._is_transport_event()

    def _read_pdu_data(self) -> None:
        """Read the PDUs that are there: the lane takes a C-STORE, pynetdicom anything else."""
        connection = self.socket
        for _ in range(PDUS_AT_ONCE):
            if not isinstance(connection, QuickSocket) or not self._is_lane_free():
                self._passed_on = time.monotonic()
                super()._read_pdu_data()
                return
            if not self._took_one(connection) or not self._goes_on(connection):
                return

    def _goes_on(self, connection: QuickSocket) -> bool:
        """Return whether the lane may read on: the peer sent more, and nothing else asks for attention."""
        self._idle_timer.restart()  # as the loop does after each read
        if self._kill_thread or self.socket is not connection or not self._is_lane_free():
            return False
        return self.event_queue.empty() and self.to_provider_queue.empty() and connection.ready

    def _took_one(self, connection: QuickSocket) -> bool:
        """Read one PDU; return whether the lane took it."""
        try:
            pdu = connection.read_pdu(P_DATA_TF)
        except OSError as error:
            log.info("connection lost", problem=type(error).__name__)
            self.event_queue.put(CONNECTION_CLOSED)
            return False
        if pdu is None:
            self.event_queue.put(CONNECTION_CLOSED)
            return False
        if pdu[0] == P_DATA_TF and self._is_taken(pdu, connection):
            return True
        connection.give_back(pdu)
        self._passed_on = time.monotonic()
        super()._read_pdu_data()
        return False

    def _is_lane_free(self) -> bool:
        messages = self.assoc.dimse
        if self.state_machine.current_state != ESTABLISHED:
            return False
        return self.lane.is_receiving or (
            messages.message is None and messages.msg_queue.empty() and self.event_queue.empty()
        )

    def _is_taken(self, pdu: bytearray, connection: QuickSocket) -> bool:
        try:
            taken = self.lane.takes(memoryview(pdu)[PDU_HEAD_BYTES:])
        except (Disorder, OSError) as error:
            log.warning("message given up", problem=type(error).__name__)
            self.event_queue.put(INVALID_PDU)
            return True
        if taken is None:
            return False
        self.lane.touch()
        if taken.answer and self.socket is not None:
            self.socket.send(taken.answer)
        rest = pdu[PDU_HEAD_BYTES + taken.end :] if taken.end is not None else b""
        if rest:
            connection.give_back(_HEAD.pack(P_DATA_TF, 0, len(rest)) + rest)
        return True


def put_on_lane(association: Association, lane: StoreLane) -> None:
    """Give an association that has not started its lane."""
    provider = association.dul
    if type(provider) is DULServiceProvider:
        provider.__class__ = LaneProvider
        cast(LaneProvider, provider).lane = lane


def lane_of(association: Association) -> StoreLane | None:
    """Return the lane of an association, if it has one."""
    return association.dul.lane if isinstance(association.dul, LaneProvider) else None


def _values(body: memoryview) -> Iterator[Value]:
    """Yield the values of a P-DATA-TF PDU (PS3.8 section 9.3.5); Disorder where lengths do not fit."""
    position = 0
    while position < len(body):
        if position + _ITEM.size > len(body):
            raise Disorder("a value without its head")
        length, context_id, control = _ITEM.unpack_from(body, position)
        end = position + 4 + length
        if length < 2 or end > len(body):
            raise Disorder("a value is longer than its PDU")
        yield Value(context_id, control, body[position + _ITEM.size : end], end)
        position = end


def _write(arriving: Arriving, data: memoryview) -> None:
    """Append what is held and `data` to the file and to the hash; make the file if there is none yet.

    A disk that does not take it is a refusal, told at the end.
    """
    held, arriving.held = memoryview(arriving.held), bytearray()
    try:
        if arriving.descriptor is None:
            arriving.descriptor = os.open(arriving.path, NEW_FILE, 0o600)
        for each in (held, data):
            arriving.digest.update(each)
            while each:
                each = each[os.write(arriving.descriptor, each) :]
    except OSError as error:
        log.error("object not written", problem=type(error).__name__)
        arriving.refusal = f"storage failed ({type(error).__name__})"
