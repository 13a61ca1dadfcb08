"""A consumer that stays up and consumes nothing is noticed and ends itself, so that another one is started.

It has a queue of its own beside those of its work, read over the same connection. Now and then it sends a
greeting there by a connection of its own. Greetings that were taken by the broker and never arrive mean that
it is deaf. A broker that is away takes none, so nobody ends for that; who has a task in hand is not asked.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from celery import Celery, signals
from celery.worker import state
from kombu.entity import Exchange, Queue
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from cds_plugin.queue import HARD_LIMIT_SECONDS

GREETING = "cds.hello"
GREET_SECONDS = 10.0
UNHEARD = 9
"""So many greetings in a row that did not arrive. Kombu renews a dead connection after 51 s by itself."""
BUSY_SECONDS = HARD_LIMIT_SECONDS + 120.0
"""No task lasts as long; who seems busy for longer has lost count."""
END_SECONDS = 30.0
"""A deaf process that has not ended in order by then ends at once."""
LOOK_SECONDS = 1.0
EXPIRES_SECONDS = 600.0
"""The broker forgets the queue of a process that is gone."""

log = structlog.get_logger("watchdog")


class Sign:
    """The time of the last sign of work, shared with every process that is forked later."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)

    def touch(self) -> None:
        """Note that there is nothing to hold against this process now."""
        self._memory[:] = struct.pack("d", time.time())

    def at(self) -> datetime | None:
        """Return when that was noted last; None before the first time."""
        (seconds,) = struct.unpack("d", self._memory[:])
        return datetime.fromtimestamp(seconds, UTC) if seconds else None


@dataclass(slots=True)
class Hearing:
    """What is known about a consumer's ears; times are seconds of one monotonic clock. Pure."""

    heard_at: float
    unheard: int = 0

    def heard(self, now: float) -> None:
        """Note that a message arrived, or that none could have."""
        self.heard_at, self.unheard = now, 0

    def greeted(self, taken: bool, now: float) -> None:
        """Note a greeting, and whether the broker took it."""
        if taken:
            self.unheard += 1
        else:
            self.heard(now)

    def is_deaf(self, busy: bool, now: float) -> bool:
        """Return whether it must be replaced."""
        return now - self.heard_at > BUSY_SECONDS if busy else self.unheard >= UNHEARD


class Watchdog:
    """Watches the consumer of this process, `app`; make it before the worker, which consumes `queues` of it.

    `speaker` is an application on the same broker that waits for it only so long.
    """

    def __init__(self, app: Celery, speaker: Celery, part: str, greet_seconds: float = GREET_SECONDS) -> None:
        self.sign = Sign()
        self.bit = threading.Event()
        """Set once this process was found deaf and asked to end."""
        name = f"hello.{part}.{socket.gethostname()}.{os.getpid()}"
        exchange = Exchange(name)  # type: ignore[no-untyped-call]
        self._queue = Queue(name, exchange, name, durable=False, expires=EXPIRES_SECONDS)  # type: ignore[no-untyped-call]
        self._speaker = speaker
        self._greet_seconds = greet_seconds
        self._leaving = threading.Event()
        self._hearing = Hearing(time.monotonic())
        app.amqp.queues.add(self._queue)
        app.task(name=GREETING)(_nothing)
        signals.worker_ready.connect(self._start, weak=False)
        signals.task_received.connect(self._hear, weak=False)

    def queues(self, work: Sequence[str]) -> list[str]:
        """Return the names of the queues to consume."""
        return [*work, self._queue.name]

    def close(self) -> None:
        """Watch no longer."""
        self._leaving.set()

    def _start(self, **_: object) -> None:
        self._hear()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def _hear(self, **_: object) -> None:
        self._hearing.heard(time.monotonic())
        self.sign.touch()

    def _watch(self) -> None:
        greet_at = time.monotonic()
        while not self._leaving.wait(min(LOOK_SECONDS, self._greet_seconds)):
            now, busy = time.monotonic(), _is_busy()
            if self._hearing.is_deaf(busy, now):
                self._end()
                return
            if busy:
                self.sign.touch()
            elif now >= greet_at:
                greet_at = now + self._greet_seconds
                self._greet()

    def _greet(self) -> None:
        taken = self._say()
        self._hearing.greeted(taken, time.monotonic())
        if not taken:
            self.sign.touch()

    def _say(self) -> bool:
        """Send a greeting over a connection of its own; return whether the broker took it."""
        try:
            with self._speaker.connection_for_write() as connection:
                self._speaker.send_task(
                    GREETING, queue=self._queue, connection=connection, retry=False, ignore_result=True
                )
        except (KombuError, RedisError, OSError):
            return False
        return True

    def _end(self) -> None:
        log.error("consumes-nothing", queue=self._queue.name, unheard=self._hearing.unheard)
        self.bit.set()
        os.kill(os.getpid(), signal.SIGTERM)
        if not self._leaving.wait(END_SECONDS):
            log.error("does-not-end", queue=self._queue.name)
            os._exit(1)


def _nothing() -> None:
    """Be consumed: that is all a greeting is for."""


def _is_busy() -> bool:
    return bool(state.active_requests or state.reserved_requests)
