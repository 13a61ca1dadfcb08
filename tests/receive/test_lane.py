"""The short way of a C-STORE: taken where it should be, left where it must be, and in order."""

from __future__ import annotations

import inspect
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from drawn_objects import DERMOSCOPIC, a_photograph
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.sop_class import Verification
from ward import AE_TITLE, LOOPBACK, Ward

from cds_plugin.receive.lane import HELD_BYTES, LaneProvider, lane_of
from cds_plugin.receive.server import BoundedMessages

PAIR = (DERMOSCOPIC, ExplicitVRLittleEndian)
ACCEPTED, DATA, RELEASED, ABORTED = 0x02, 0x04, 0x06, 0x07
RELEASE = bytes.fromhex("050000000004 00000000")


@pytest.fixture
def left_to_pynetdicom(monkeypatch: pytest.MonkeyPatch) -> list[P_DATA]:
    """Return the list of P-DATA that did not take the lane."""
    seen: list[P_DATA] = []
    before = BoundedMessages.receive_primitive

    def noted(self: BoundedMessages, primitive: P_DATA) -> None:
        seen.append(primitive)
        before(self, primitive)

    monkeypatch.setattr(BoundedMessages, "receive_primitive", noted)
    return seen


def recorded(ward: Ward, *pictures: FileDataset, echo: bool = False) -> tuple[bytes, list[bytes]]:
    """Return the bytes of a real association: its request, and the body of each P-DATA-TF that followed."""
    sent: list[bytes] = []
    contexts = [build_context(*PAIR), build_context(Verification)]
    handlers: list[evt.EventHandlerType] = [(evt.EVT_DATA_SENT, lambda event: sent.append(event.data))]
    association = AE("CAMERA").associate(
        LOOPBACK, ward.port, contexts=contexts, ae_title=AE_TITLE, evt_handlers=handlers
    )
    for picture in pictures:
        assert association.send_c_store(picture).Status == 0
    if echo:
        assert association.send_c_echo().Status == 0
    association.release()
    return sent[0], [each[6:] for each in sent[1:] if each[0] == DATA]


@contextmanager
def connected(ward: Ward, request: bytes) -> Iterator[socket.socket]:
    """Yield a connection whose association was accepted."""
    with socket.create_connection((LOOPBACK, ward.port), 20) as connection:
        connection.sendall(request)
        assert answer(connection)[0] == ACCEPTED
        yield connection


def pdu(body: bytes) -> bytes:
    return struct.pack(">BBI", DATA, 0, len(body)) + body


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """Return type and body of the next PDU; type 0 where the peer closed."""
    head = connection.recv(6, socket.MSG_WAITALL)
    if len(head) < 6:
        return 0, b""
    return head[0], connection.recv(int.from_bytes(head[2:], "big"), socket.MSG_WAITALL)


def status_of(body: bytes) -> int:
    """Return (0000,0900) of the response in a P-DATA-TF body."""
    place = body.index(struct.pack("<HHI", 0, 0x0900, 2))
    return int.from_bytes(body[place + 8 : place + 10], "little")


def test_a_c_store_takes_the_lane_and_an_echo_does_not(ward: Ward, left_to_pynetdicom: list[P_DATA]) -> None:
    with ward.listening():
        recorded(ward, a_photograph(), a_photograph(side=300))
        assert not left_to_pynetdicom
        recorded(ward, a_photograph(), echo=True)
        assert len(left_to_pynetdicom) == 1
    assert len(ward.instances()) == 3 == len(ward.spooled())


def test_an_unusual_request_is_left_to_pynetdicom(ward: Ward, left_to_pynetdicom: list[P_DATA]) -> None:
    picture = a_photograph()
    with ward.listening():
        association = ward.connected(PAIR)
        picture.SOPInstanceUID = '"1.2.3"'
        picture.file_meta.MediaStorageSOPInstanceUID = picture.SOPInstanceUID
        assert association.send_c_store(picture).Status == 0xA900
        assert left_to_pynetdicom
        assert association.send_c_store(a_photograph()).Status == 0
        association.release()
    assert len(ward.instances()) == 1 == len(ward.quarantined())


def test_messages_that_share_a_pdu_are_all_answered(ward: Ward) -> None:
    with ward.listening():
        request, bodies = recorded(ward, a_photograph(), a_photograph(), echo=True)
        with connected(ward, request) as connection:
            connection.sendall(pdu(b"".join(bodies)))
            assert [status_of(answer(connection)[1]) for _ in range(3)] == [0, 0, 0]
            connection.sendall(RELEASE)
            assert answer(connection)[0] == RELEASED
    assert ward.events().count("instance-duplicate") == 2


def test_a_pdu_in_single_bytes_is_one_object(ward: Ward) -> None:
    with ward.listening():
        request, bodies = recorded(ward, a_photograph(side=4))
        with connected(ward, request) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in b"".join(map(pdu, bodies)):
                connection.sendall(bytes([byte]))
            assert status_of(answer(connection)[1]) == 0
    assert ward.events().count("instance-duplicate") == 1


@pytest.mark.parametrize("fault", ["command", "context", "length", "head"])
def test_a_data_set_that_is_interrupted_ends_the_association(ward: Ward, fault: str) -> None:
    with ward.listening():
        request, (command, data) = recorded(ward, a_photograph())
        wrong = {
            "command": command,
            "context": data[:4] + bytes([data[4] + 2]) + data[5:],
            "length": struct.pack(">I", len(data)) + data[4:],
            "head": b"\0\0\0",
        }[fault]
        half = struct.pack(">I", 12) + data[4:5] + b"\0" + data[6:16]
        with connected(ward, request) as connection:
            connection.sendall(pdu(command) + pdu(half) + pdu(wrong))
            assert answer(connection)[0] == ABORTED
        assert ward.sent(a_photograph()) == [0x0000]
    assert not ward.incoming() and len(ward.instances()) == 2


@pytest.mark.slow
def test_pdus_that_follow_closely_for_long_are_no_silence(ward: Ward) -> None:
    ward.bounds = replace(ward.bounds, network_seconds=1.0)
    with ward.listening():
        request, (command, data) = recorded(ward, a_photograph(side=20))
        step = len(data) // 60
        parts = [data[6 + start : 6 + start + step] for start in range(0, len(data) - 6, step)]
        with connected(ward, request) as connection:
            connection.sendall(pdu(command))
            for number, part in enumerate(parts):
                last = 2 if number == len(parts) - 1 else 0
                head = struct.pack(">IBB", len(part) + 2, data[4], last)
                connection.sendall(pdu(head + part))
                time.sleep(0.04)
            assert status_of(answer(connection)[1]) == 0
    assert ward.events().count("instance-duplicate") == 1


def test_an_object_larger_than_what_is_held_goes_to_its_file(ward: Ward) -> None:
    large, small = a_photograph(side=400), a_photograph(side=20)
    assert len(large.PixelData) > HELD_BYTES > len(small.PixelData)
    with ward.listening():
        assert ward.sent(large, small, large) == [0, 0, 0]
    kept = {each.sop_instance_uid: ward.directory / each.path for each in ward.instances()}
    for picture in (large, small):
        assert dcmread(kept[picture.SOPInstanceUID]).PixelData == picture.PixelData
    assert ward.events().count("instance-duplicate") == 1 and not ward.incoming()


def test_the_private_parts_of_pynetdicom_are_where_they_were(ward: Ward) -> None:
    for name in ("_read_pdu_data", "_is_transport_event", "run_reactor"):
        assert callable(getattr(DULServiceProvider, name))
    assert "self._run_loop_delay" in inspect.getsource(DULServiceProvider.run_reactor)
    with ward.listening():
        association = ward.connected(PAIR)
        (ours,) = (
            each for each in threading.enumerate() if isinstance(each, Association) and each.is_acceptor
        )
        assert type(ours.dul) is LaneProvider and lane_of(ours) is not None
        assert [str(each.transfer_syntax[0]) for each in ours._accepted_cx.values()] == [PAIR[1]]
        assert ours._reactor_checkpoint.is_set()
        assert not ours.dul._kill_thread and callable(ours.dul._idle_timer.restart)
        association.release()
