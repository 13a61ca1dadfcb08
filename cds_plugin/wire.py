"""Sockets of pynetdicom made fast and bounded: no 40 ms per object, no PDU of any size, no endless wait.

A peer with Nagle's algorithm sends its next small segment only once the last is acknowledged, and Linux
delays that acknowledgement by 40 ms. Re-arming TCP_QUICKACK in pynetdicom's public hooks comes too late;
it takes the receive itself. This leans on a private part of pynetdicom 3.0 (the socket of the DUL), pinned
by a test; where it is gone the stock socket stays in its place, slower.
"""

from __future__ import annotations

import errno
import math
import select
import socket
import ssl
import time
from contextlib import suppress
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.transport import AssociationSocket

PDU_BYTES_ACCEPTED = 1024 * 1024
"""A longer PDU ends the connection before any memory is taken; an A-ASSOCIATE-RQ fits many times."""
PDU_HEAD_BYTES = 6
"""Type, a reserved byte and the length (PS3.8 section 9.3.1)."""
SILENCE_SECONDS = 1.0
"""A peer that said nothing for this long is not in the middle of a transfer."""
DOZE_SECONDS = 0.05
"""How long a silent association sleeps at a time: what the peer sends wakes it, what we send may wait."""
AHEAD_BYTES = 64 * 1024
"""What may be read of the next PDU together with one; held for each connection."""
TCP_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Linux only; the kernel clears it again, so it is set after every receive (tcp(7))."""


class PatientMessages(DIMSEServiceProvider):
    """Keeps the answer to a request of ours for who asked.

    pynetdicom's reactor may be a step short of its pause when we ask, and then throws the first answer away:
    a match of a C-FIND that nobody ever misses. This leans on a private part too, pinned by a test.
    """

    def get_msg(self, block: bool = False) -> Any:
        """Return the next message; the reactor, which does not block, gets none while we wait for ours."""
        asking = getattr(self.assoc, "_reactor_checkpoint", None)
        if not block and asking is not None and not asking.is_set():
            return None, None
        return super().get_msg(block)


class QuickSocket(AssociationSocket):
    """Acknowledges at once, gives up on what is too long or too slow, and sleeps while the peer is silent."""

    _heard = 0.0
    dozes = False
    """Set by who polls: nothing of ours waits to be sent, so `ready` may wait for the peer."""
    _ahead = memoryview(b"")
    """What came with what was asked for, or was given back."""

    @property
    def ready(self) -> bool:
        """Return whether there is something to read.

        pynetdicom asks a thousand times a second; while the peer is silent the answer waits for data.
        """
        if self._ahead or super().ready:
            return True
        connection = self.socket
        if connection is None or not (self.dozes or time.monotonic() - self._heard > SILENCE_SECONDS):
            return False
        try:
            return bool(select.select([connection], [], [], DOZE_SECONDS)[0])
        except (OSError, ValueError):
            return False

    def read_pdu(self, kind: int) -> bytearray | None:
        """Return a whole PDU of type `kind`, or only the head of another; None where the peer closed.

        Raises OSError as `recv` does.
        """
        pdu = self.recv(PDU_HEAD_BYTES)
        if len(pdu) < PDU_HEAD_BYTES:
            return None
        if pdu[0] != kind:
            return pdu
        length = int.from_bytes(pdu[2:], "big")
        body = self.recv(length)
        return pdu + body if len(body) == length else None

    def give_back(self, received: bytes | bytearray) -> None:
        """Let the next `recv` return these bytes first."""
        self._ahead = memoryview(bytes(received) + self._ahead)

    def recv(self, nr_bytes: int) -> bytearray:
        """Return `nr_bytes`, or fewer where the peer closed; OSError for what is too long or too slow.

        The socket's timeout holds for each wait and for all of them together.
        """
        connection = self.socket
        if connection is None:
            return bytearray()
        if nr_bytes > PDU_BYTES_ACCEPTED:
            raise OSError(errno.EMSGSIZE, f"a PDU of {nr_bytes} bytes")
        received = bytearray(nr_bytes)
        with memoryview(received) as target:
            filled = self._take_from_ahead(target)
            deadline = time.monotonic() + (connection.gettimeout() or math.inf)
            while filled < nr_bytes:
                count = self._receive(connection, target[filled:])
                if not count:
                    break
                filled += count
                _acknowledge_at_once(connection)
                self._heard = time.monotonic()
                if self._heard > deadline:
                    raise TimeoutError("a PDU came too slowly")
        return received if filled == nr_bytes else received[:filled]

    def _receive(self, connection: socket.socket, target: memoryview) -> int:
        """Fill `target`, or a part of it; with a small one take what follows, too: half the calls."""
        if len(target) >= AHEAD_BYTES:
            return connection.recv_into(target)
        self._ahead = memoryview(connection.recv(AHEAD_BYTES))
        return self._take_from_ahead(target)

    def _shutdown_socket(self) -> None:
        if self.socket is not None:
            say_goodbye(self.socket)
        super()._shutdown_socket()

    def _take_from_ahead(self, target: memoryview) -> int:
        count = min(len(self._ahead), len(target))
        target[:count] = self._ahead[:count]
        self._ahead = self._ahead[count:]
        return count


def quicken(association: Association, pdu_seconds: float) -> None:
    """Make the connected socket of an association quick, with `pdu_seconds` for each PDU and each send."""
    wrapper = association.dul.socket
    connection = wrapper.socket if wrapper is not None else None
    if connection is None:
        return
    connection.settimeout(pdu_seconds)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _acknowledge_at_once(connection)
    if type(wrapper) is AssociationSocket:
        wrapper.__class__ = QuickSocket


def say_goodbye(connection: socket.socket) -> None:
    """Tell a TLS peer that nothing was cut off (close_notify, RFC 8446 section 6.1); wait for no answer."""
    if isinstance(connection, ssl.SSLSocket):
        with suppress(OSError, ValueError):
            connection.settimeout(0)
            connection.unwrap()


def _acknowledge_at_once(connection: socket.socket) -> None:
    if TCP_QUICKACK is not None:
        connection.setsockopt(socket.IPPROTO_TCP, TCP_QUICKACK, 1)
