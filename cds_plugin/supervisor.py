"""Runs the parts of the plugin as child processes, restarts what dies, stops all in order."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

STOP_GRACE_SECONDS = 20.0
"""A part that has not ended this long after SIGTERM is killed."""
RESTART_SECONDS_FIRST = 0.2
RESTART_SECONDS_LAST = 10.0
START_TRIES = 3
"""A part that died this often before it ever answered will not come up by itself."""
STEADY_SECONDS = 10.0
"""A part that lived this long starts afresh at the shortest restart delay."""
PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a child gets when its parent dies."""

log = structlog.get_logger("supervisor")


@dataclass(slots=True)
class Part:
    """One child process and what the supervisor knows about it."""

    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    not_before: float = 0.0
    delay: float = RESTART_SECONDS_FIRST
    restarts: int = 0

    @property
    def pid(self) -> int | None:
        """Return the process id, or None while the part does not run."""
        return self.process.pid if self.process and self.process.poll() is None else None

    def start(self) -> None:
        """Start the child in its own session, its stdout on our stderr; it ends when this process dies."""
        self.process = subprocess.Popen(
            list(self.command),
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            start_new_session=True,
            preexec_fn=die_with(os.getpid()),
        )
        self.started = time.monotonic()


@dataclass(slots=True)
class Supervisor:
    """Starts `parts` in order and stops them in the order of `stop_order`."""

    parts: dict[str, Part]
    stop_order: Sequence[str]
    stopping: bool = field(default=False)

    def start(self) -> None:
        """Start every part."""
        for part in self.parts.values():
            part.start()

    def pids(self) -> dict[str, int | None]:
        """Return the process id of each part."""
        return {name: part.pid for name, part in self.parts.items()}

    def restart_dead(self) -> None:
        """Start again what died, with a growing delay for what dies at once."""
        now = time.monotonic()
        for part in self.parts.values():
            if part.pid is not None or part.process is None:
                self._revive(part, now)
            else:
                self._bury(part, now)

    def _bury(self, part: Part, now: float) -> None:
        code = part.process.wait() if part.process else None
        steady = now - part.started > STEADY_SECONDS
        part.delay = RESTART_SECONDS_FIRST if steady else min(part.delay * 2, RESTART_SECONDS_LAST)
        part.not_before = now + part.delay
        part.process = None
        log.warning("part died", part=part.name, exit_code=code, again_in_seconds=part.delay)

    def _revive(self, part: Part, now: float) -> None:
        if part.process is None and now >= part.not_before:
            part.start()
            part.restarts += 1
            log.info("part restarted", part=part.name, pid=part.pid)

    def stop(self) -> None:
        """Ask each part to end, in order; kill what does not."""
        self.stopping = True
        for name in self.stop_order:
            if name in self.parts:
                _end(self.parts[name])


def command_line(name: str, config: str | None) -> list[str]:
    """Return the command line of a part of this same installation."""
    return [sys.executable, "-m", "cds_plugin", name, *(["--config", config] if config else [])]


def wait_until(
    checks: Mapping[str, Callable[[], bool]],
    supervisor: Supervisor,
    seconds: float,
    on_ready: Callable[[str], None],
) -> list[str]:
    """Poll `checks` until each was true once; return the names that never were.

    Gives up after `seconds`, or as soon as a missing part died START_TRIES times.
    """
    missing = dict(checks)
    deadline = time.monotonic() + seconds
    while missing and time.monotonic() < deadline and not supervisor.stopping:
        if any(part.restarts >= START_TRIES for name, part in supervisor.parts.items() if name in missing):
            break
        supervisor.restart_dead()
        for name in [name for name, check in missing.items() if check()]:
            del missing[name]
            on_ready(name)
        time.sleep(0.1)
    return list(missing)


def _end(part: Part) -> None:
    if part.pid is None or part.process is None:
        return
    part.process.send_signal(signal.SIGTERM)
    try:
        part.process.wait(STOP_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        log.warning("part killed", part=part.name, pid=part.pid)
        os.killpg(part.process.pid, signal.SIGKILL)  # with its children: it leads a session of its own
        part.process.wait()


def die_with(parent: int) -> Callable[[], None]:
    """Return what a fresh child runs to get SIGTERM when `parent`, its parent, dies."""
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return ask
