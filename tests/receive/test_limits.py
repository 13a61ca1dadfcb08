"""The limits of the listener, reached with raw sockets and real associations."""

from __future__ import annotations

import resource
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from drawn_objects import DERMOSCOPIC, a_photograph
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association
from ward import AE_TITLE, LOOPBACK, Ward

from cds_plugin.checks import answers_echo
from cds_plugin.config import Limits
from cds_plugin.reach import port_is_open

CONTEXT = (DERMOSCOPIC, ExplicitVRLittleEndian)
CLOSE_SECONDS = 10.0


@contextmanager
def bare(ward: Ward, number: int) -> Iterator[list[socket.socket]]:
    """Open connections that say nothing."""
    with ExitStack() as opened:
        yield [
            opened.enter_context(socket.create_connection((LOOPBACK, ward.port), CLOSE_SECONDS))
            for _ in range(number)
        ]


def is_closed(connection: socket.socket, seconds: float = CLOSE_SECONDS) -> bool:
    """Return whether the listener closes within so long; what it says before does not matter."""
    connection.settimeout(seconds)
    with suppress(ConnectionResetError):
        try:
            while connection.recv(1024):
                pass
        except TimeoutError:
            return False
    return True


def asked(ward: Ward) -> Association:
    """Return an association that was asked for, whatever became of it."""
    return AE("CAMERA").associate(LOOPBACK, ward.port, [build_context(*CONTEXT)], ae_title=AE_TITLE)


def request(ward: Ward) -> bytes:
    """Return the bytes of an A-ASSOCIATE-RQ as pynetdicom sends it."""
    sent: list[bytes] = []
    handlers = [(evt.EVT_DATA_SENT, lambda event: sent.append(bytes(event.data)))]
    association = AE("CAMERA").associate(
        LOOPBACK, ward.port, [build_context(*CONTEXT)], ae_title=AE_TITLE, evt_handlers=handlers
    )
    association.release()
    return sent[0]


def reasons(ward: Ward, seconds: float = 5.0) -> list[str]:
    """Return why connections were refused, once the audit trail says so."""
    deadline = time.monotonic() + seconds
    while not (rows := ward.audit("connection-refused")) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [row.detail["reason"] for row in rows]


def test_one_address_has_only_so_many_connections(ward: Ward) -> None:
    ward.bounds = replace(ward.bounds, connections_per_address=4)
    with ward.listening():
        with bare(ward, 5) as five:
            # One that asked whether the listener is there may still count, so it need not be the fifth.
            ended, _, _ = select.select(five, [], [], CLOSE_SECONDS)
            assert ended and all(is_closed(each) for each in ended)
            assert five[0] not in ended
            assert reasons(ward) == ["too many connections from one address"]
        deadline = time.monotonic() + CLOSE_SECONDS
        while not (association := asked(ward)).is_established and time.monotonic() < deadline:
            time.sleep(0.05)
        assert association.is_established, "room again once they are gone"
        association.release()


def test_connections_that_come_too_fast_are_closed(ward: Ward) -> None:
    ward.bounds = replace(ward.bounds, connections_per_second=1.0)
    with ward.listening(), bare(ward, 4), bare(ward, 1) as (too_fast,):
        assert is_closed(too_fast)
        assert reasons(ward) == ["connections come too fast"]
        time.sleep(1.1)
        with bare(ward, 1) as (later,):
            assert not is_closed(later, 0.3)


def test_bare_connections_take_no_place_of_an_association(ward: Ward) -> None:
    ward.bounds = replace(ward.bounds, associations=2)
    with ward.listening(), bare(ward, 6):
        first, second = ward.connected(CONTEXT), ward.connected(CONTEXT)
        third = asked(ward)
        assert third.is_rejected
        answer = third.acceptor.primitive
        assert answer is not None
        # Rejected transient, service provider (presentation), local limit exceeded: PS3.8 table 9-21.
        assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
        first.release()
        second.release()


def test_who_says_nothing_or_half_a_request_is_closed(ward: Ward) -> None:
    with ward.listening():
        whole = request(ward)
    ward.bounds = replace(ward.bounds, acse_seconds=0.5, pdu_seconds=1.0)
    with ward.listening(), bare(ward, 4) as (silent, header, half, long):
        header.sendall(whole[:3])
        half.sendall(whole[:-1])
        long.sendall(struct.pack(">BBL", 1, 0, 0xFFFFFFFF))
        for connection in (silent, header, half, long):
            assert is_closed(connection, 5.0)
        assert ward.sent(a_photograph()) == [0x0000]


def test_half_a_pdu_and_silence_end_an_association(ward: Ward) -> None:
    ward.bounds = replace(ward.bounds, pdu_seconds=0.5, network_seconds=1.5)
    with ward.listening():
        half, silent = ward.connected(CONTEXT), ward.connected(CONTEXT)
        half.dul.socket.socket.sendall(struct.pack(">BBL", 4, 0, 100) + b"\0" * 10)
        for association in (half, silent):
            association.join(CLOSE_SECONDS)
            assert not association.is_alive() and not association.is_established
        assert silent.is_aborted
        assert ward.sent(a_photograph()) == [0x0000]


def test_the_settings_reach_the_wire(ward: Ward) -> None:
    ward.settings = ward.settings.model_copy(update={"limits": Limits(pdu_bytes=20_000, object_bytes=70_000)})
    listener = type(ward.listening())(ward.settings, ward.engine)
    with listener:
        association = ward.connected(CONTEXT)
        assert association.acceptor.maximum_length == 20_000
        assert association.send_c_store(a_photograph(side=300)).Status == 0xA700
        association.release()


def test_a_message_that_is_no_object_has_a_limit(ward: Ward) -> None:
    ward.bounds = replace(ward.bounds, message_bytes=100_000)
    with ward.listening():
        association = ward.connected(CONTEXT)
        ended = _command_fragments(association, 120_000)
        association.join(CLOSE_SECONDS)
        assert ended and association.is_aborted
        assert ward.sent(a_photograph()) == [0x0000]


def _command_fragments(association: Association, size: int) -> bool:
    """Send a command set that never ends; return whether the listener ended it."""
    connection = association.dul.socket.socket
    fragment = b"\x01\x01" + b"\0" * 10_000
    item = struct.pack(">L", len(fragment)) + fragment
    pdu = struct.pack(">BBL", 4, 0, len(item)) + item
    with suppress(OSError, AttributeError):
        for _ in range(size // 10_000 + 1):
            connection.sendall(pdu)
    deadline = time.monotonic() + CLOSE_SECONDS
    while association.is_established and time.monotonic() < deadline:
        time.sleep(0.05)
    return not association.is_established


def test_a_flood_of_connections_leaves_the_listener_well(ward: Ward) -> None:
    ward.bounds = replace(ward.bounds, connections_per_second=2.0)
    with ward.listening():
        for _ in range(300):
            with suppress(OSError):
                socket.create_connection((LOOPBACK, ward.port), CLOSE_SECONDS).close()
        time.sleep(0.6)
        assert ward.sent(a_photograph()) == [0x0000]
    rows = ward.audit("connection-refused")
    assert rows and len(rows) <= 3 and all(row.actor == LOOPBACK for row in rows)
    assert sum(row.detail["count"] for row in rows) > 200


@pytest.mark.slow
def test_out_of_file_descriptors_it_neither_spins_nor_dies(ward: Ward, tmp_path: Path) -> None:
    config = tmp_path / "cds-plugin.toml"
    config.write_text(
        f'[listener]\nport = {ward.port}\n[storage]\ndirectory = "{ward.directory}"\n'
        f'[database]\nurl = "{ward.settings.database.url}"\n'
    )
    command = [sys.executable, "-m", "cds_plugin", "listen", "--config", str(config)]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            assert _in_time(lambda: port_is_open(LOOPBACK, ward.port))
            watched = psutil.Process(process.pid)
            most = watched.num_fds() + 10
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (most, most))
            with bare(ward, 40):
                time.sleep(0.5)
                before = sum(watched.cpu_times()[:2])
                time.sleep(2.0)
                used = sum(watched.cpu_times()[:2]) - before
            assert used < 0.2, "seconds of CPU in two seconds; it spins with what it can get"
            assert _in_time(lambda: answers_echo(LOOPBACK, ward.port, AE_TITLE))
        finally:
            process.kill()


def _in_time(happened: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not (well := happened()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return well


@pytest.mark.parametrize("processes", [1, 2, 3, 32])
def test_limits_hold_for_all_listener_processes_together(processes: int) -> None:
    limits = Limits(associations=64, connections=256, connections_per_address=128, connections_per_second=96)
    each = limits.as_bounds(processes)
    for counted in ("associations", "connections", "connections_per_address"):
        together = getattr(each, counted) * processes
        assert getattr(limits, counted) <= together < getattr(limits, counted) + processes
    assert each.connections_per_second * processes == pytest.approx(96)
    assert each.object_bytes == limits.object_bytes
