"""The private parts of pynetdicom that the listener leans on, pinned: an upgrade that moves them is seen."""

from __future__ import annotations

import socket
import threading
import time
from importlib.metadata import version

import pytest
from drawn_objects import DERMOSCOPIC, a_photograph
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.association import Association
from ward import LOOPBACK, Ward

from cds_plugin.receive.server import BoundedMessages
from cds_plugin.wire import DOZE_SECONDS, PDU_BYTES_ACCEPTED, QuickSocket

PAIR = (DERMOSCOPIC, ExplicitVRLittleEndian)


def accepted() -> Association:
    """Return the accepting side of the one association in this process."""
    (found,) = (each for each in threading.enumerate() if isinstance(each, Association) and each.is_acceptor)
    return found


def test_the_pinned_version() -> None:
    assert version("pynetdicom").startswith("3.0."), "look at wire.py and server.py first"


def test_an_accepted_association_is_quick_and_bounded(ward: Ward) -> None:
    with ward.listening():
        association = ward.connected(PAIR)
        assert association.send_c_store(a_photograph()).Status == 0
        ours = accepted()
        assert type(ours.dul.socket) is QuickSocket and type(ours.dimse) is BoundedMessages
        assert ours.dul.socket.socket is not None
        assert ours.dul.socket.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert ours.dul.socket.socket.gettimeout() == ward.bounds.pdu_seconds
        association.release()


def test_the_socket_reads_what_was_asked_and_no_more() -> None:
    ours, theirs = socket.socketpair()
    quick = QuickSocket.__new__(QuickSocket)
    quick.socket = None
    assert quick.recv(10) == b""
    with pytest.raises(OSError, match="bytes"):
        _over(quick, ours).recv(PDU_BYTES_ACCEPTED + 1)
    ours.close()
    theirs.close()


def _over(quick: QuickSocket, connection: socket.socket) -> QuickSocket:
    quick.socket = connection
    return quick


def test_a_slow_pdu_is_given_up(ward: Ward) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
        ours.settimeout(0.3)
        quick = _over(QuickSocket.__new__(QuickSocket), ours)
        stop = threading.Event()
        dripping = threading.Thread(target=_drip, args=(theirs, stop))
        dripping.start()
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            quick.recv(1000)
        assert time.monotonic() - started < 2
        stop.set()
        dripping.join()
        ours.close()
        theirs.close()


def _drip(connection: socket.socket, stop: threading.Event) -> None:
    while not stop.wait(0.05):
        connection.sendall(b"x")


def test_every_receive_arms_the_quick_acknowledgement_again(ward: Ward) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
        quick = _over(QuickSocket.__new__(QuickSocket), ours)
        for _ in range(20):
            ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
            theirs.sendall(b"x" * 100)
            assert quick.recv(100) == b"x" * 100
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 1
        theirs.close()
        assert quick.recv(100) == b""
        ours.close()


@pytest.mark.slow
def test_a_silent_association_costs_little_and_wakes_at_once(ward: Ward) -> None:
    with ward.listening():
        association = ward.connected(PAIR)
        time.sleep(1.5)
        before = _ticks(accepted())
        time.sleep(1)
        assert _ticks(accepted()) - before < 100, "polls per second of its two threads"
        assert association.send_c_store(a_photograph()).Status == 0
        association.release()


def _ticks(association: Association) -> int:
    """Return how often the threads of an association gave up the processor by themselves."""
    total = 0
    for thread in (association, association.dul):
        with open(f"/proc/self/task/{thread.native_id}/status") as status:
            total += next(int(line.split()[1]) for line in status if line.startswith("voluntary"))
    return total


def test_a_request_that_comes_with_the_connection_is_answered_at_once(ward: Ward) -> None:
    """Asleep between the connection and its request, the listener would take `DOZE_SECONDS` every time."""
    took = []
    with ward.listening():
        for _ in range(10):
            started = time.monotonic()
            association = ward.connected(PAIR)
            took.append(time.monotonic() - started)
            association.release()
    assert min(took) < DOZE_SECONDS * 0.8, took
