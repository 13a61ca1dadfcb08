"""The supervisor restarts what dies, more slowly what dies at once, and stops in order."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from cds_plugin.supervisor import RESTART_SECONDS_LAST, Part, Supervisor, wait_until

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def two_sleepers() -> Supervisor:
    return Supervisor({"a": Part("a", SLEEPER), "b": Part("b", SLEEPER)}, stop_order=("b", "a"))


def test_a_killed_part_is_started_again(two_sleepers: Supervisor) -> None:
    two_sleepers.start()
    try:
        first = two_sleepers.pids()["a"]
        assert first is not None
        os.kill(first, signal.SIGKILL)
        back = {"back": lambda: two_sleepers.pids()["a"] not in (None, first)}
        missing = wait_until(back, two_sleepers, 20, lambda _name: None)
        assert missing == []
        assert two_sleepers.parts["a"].restarts == 1
    finally:
        two_sleepers.stop()
    assert two_sleepers.pids() == {"a": None, "b": None}


def test_what_dies_at_once_is_tried_more_and_more_slowly() -> None:
    part = Part("broken", [sys.executable, "-c", "raise SystemExit(3)"])
    supervisor = Supervisor({"broken": part}, ("broken",))
    supervisor.start()
    deadline = time.monotonic() + 30
    while part.restarts < 2 and time.monotonic() < deadline:
        supervisor.restart_dead()
        time.sleep(0.02)
    assert part.restarts == 2
    assert 0.4 <= part.delay <= RESTART_SECONDS_LAST
    supervisor.stop()


def test_a_part_that_cannot_start_is_given_up_early() -> None:
    part = Part("broken", [sys.executable, "-c", "raise SystemExit(3)"])
    supervisor = Supervisor({"broken": part}, ("broken",))
    supervisor.start()
    began = time.monotonic()
    assert wait_until({"broken": lambda: False}, supervisor, 120, lambda _name: None) == ["broken"]
    assert time.monotonic() - began < 60
    supervisor.stop()


def test_parts_are_stopped_in_order(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        "    with open(sys.argv[2], 'a') as order: order.write(sys.argv[1])\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "open(sys.argv[2] + sys.argv[1], 'w').close()\n"
        "time.sleep(600)\n"
    )
    order = tmp_path / "order"
    parts = {name: Part(name, [sys.executable, "-c", code, name, str(order)]) for name in "abc"}
    supervisor = Supervisor(parts, stop_order=("c", "a", "b"))
    supervisor.start()
    ready = {name: (lambda name=name: Path(f"{order}{name}").exists()) for name in "abc"}
    assert wait_until(ready, supervisor, 20, lambda _name: None) == []
    supervisor.stop()
    assert order.read_text() == "cab"


def test_children_end_when_the_supervisor_is_killed() -> None:
    code = (
        "import sys, time; from cds_plugin.supervisor import Part\n"
        "part = Part('x', [sys.executable, '-c', 'import time; time.sleep(600)']); part.start()\n"
        "print(part.pid, flush=True); time.sleep(600)\n"
    )
    with psutil.Popen([sys.executable, "-c", code], stdout=-1, text=True) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        assert child.wait(timeout=10) is not None or not child.is_running()
