"""A process that exists and does nothing is ended; one that could not speak is not."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from cds_db.processes import say_hello
from cds_db.session import transaction
from cds_plugin.notify import ALIVE
from cds_plugin.presence import IDLE_MOST, Presence
from cds_plugin.supervisor import Part
from cds_plugin.watching import IDLE_SECONDS, SILENT_SECONDS, Signs, Watcher

NOW = datetime(2026, 1, 31, tzinfo=UTC)
LATER = NOW + timedelta(seconds=1)


def test_a_sign_that_changes_is_one_of_life_whatever_the_clock_says() -> None:
    signs = Signs()
    signs.note({1: (NOW, None)}, 0.0)
    assert signs.silent(SILENT_SECONDS) == []
    assert signs.silent(SILENT_SECONDS + 1) == [1]
    signs.note({1: (NOW - timedelta(days=1), None)}, SILENT_SECONDS)
    assert signs.silent(SILENT_SECONDS + 1) == []


def test_who_says_hello_and_works_no_more_is_idle_and_who_never_worked_is_not() -> None:
    signs = Signs()
    for second in range(0, int(IDLE_SECONDS) + 10, 5):
        seen = NOW + timedelta(seconds=second)
        signs.note({1: (seen, NOW), 2: (seen, None), 3: (seen, seen)}, float(second))
    assert (signs.silent(IDLE_SECONDS + 5), signs.idle(IDLE_SECONDS + 5)) == ([], [1])


def test_nothing_counts_that_was_read_before_the_database_was_away() -> None:
    signs = Signs()
    signs.note({1: (NOW, NOW)}, 0.0)
    signs.forget()
    signs.note({1: (NOW, NOW)}, 1000.0)
    assert (signs.silent(1000.0), signs.idle(1000.0)) == ([], [])


def test_where_nobody_at_all_could_write_nobody_is_to_blame() -> None:
    signs = Signs()
    for second in range(0, 200, 5):
        signs.note({1: (NOW, NOW), 2: (NOW, NOW)}, float(second))
    assert (signs.silent(200.0), signs.idle(200.0)) == ([], [])
    for second in range(200, 300, 5):
        signs.note({1: (NOW, NOW), 2: (NOW + timedelta(seconds=second), None)}, float(second))
    assert signs.silent(300.0) == [1]


@pytest.fixture
def sleeper() -> Iterator[Part]:
    part = Part("a", [sys.executable, "-c", "import time; time.sleep(600)"])
    part.start()
    yield part
    assert part.process is not None
    part.process.kill()
    part.process.wait()


def test_a_stopped_process_is_ended_with_all_of_its_session(engine: Engine, sleeper: Part) -> None:
    assert sleeper.pid is not None
    os.kill(sleeper.pid, signal.SIGSTOP)
    with transaction(engine) as session:
        say_hello(session, "a", socket.gethostname(), sleeper.pid, datetime.now(UTC))
        say_hello(session, "stranger", "elsewhere", os.getpid(), datetime.now(UTC))
    watcher = Watcher(engine, [sleeper])
    watcher.look(0.0)
    assert sleeper.pid is not None
    watcher.look(SILENT_SECONDS + 1)
    deadline = time.monotonic() + 10
    while sleeper.pid is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_an_earlier_process_of_the_same_number_said_is_held_against_nobody(
    engine: Engine, sleeper: Part
) -> None:
    assert sleeper.pid is not None
    for name, pid in (("a", sleeper.pid), ("b", os.getpid())):
        with transaction(engine) as session:
            say_hello(session, name, socket.gethostname(), pid, datetime.now(UTC) - timedelta(hours=1))
    watcher = Watcher(engine, [sleeper])
    for second in (0.0, SILENT_SECONDS + 1, 2 * SILENT_SECONDS + 2):
        watcher.look(second)
    time.sleep(0.2)
    assert sleeper.pid is not None


def test_systemd_hears_of_a_process_that_works(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = tmp_path / "notify"
    monkeypatch.setenv("NOTIFY_SOCKET", str(address))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(address))
        systemd.settimeout(5)
        with Presence(engine, "sweep", worked=lambda: datetime.now(UTC)):
            assert systemd.recv(100) == ALIVE.encode()
        systemd.settimeout(0.1)
        while systemd_hears(systemd):
            pass
        with Presence(engine, "sweep", worked=lambda: datetime.now(UTC) - 2 * IDLE_MOST):
            assert not systemd_hears(systemd)


def systemd_hears(systemd: socket.socket) -> bool:
    try:
        return bool(systemd.recv(100))
    except TimeoutError:
        return False
