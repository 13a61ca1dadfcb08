"""A stranger's connection to a listener, and a listener on a memory disk to be spoken to."""

from __future__ import annotations

import os
import select
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from pdus import ABORT, ASSOCIATE_RJ, RELEASE_RP, Answers, answers_in, associate_rq, echo, release
from ward import LOOPBACK, Ward

from cds_db.migrate import upgrade
from cds_db.session import open_engine
from cds_plugin.config import (
    Action,
    Database,
    Destination,
    Listener,
    Priority,
    Repair,
    Rule,
    Settings,
    Storage,
)
from cds_plugin.demo.ports import free_ports
from cds_plugin.receive.bounds import KIBIBYTE, MEBIBYTE, Bounds
from cds_plugin.receive.libraries import libraries_set
from cds_plugin.receive.reception import Reception
from cds_plugin.receive.rulebook import RuleBook
from cds_plugin.receive.spool import Spool
from cds_plugin.receive.turn import turns

MEMORY_DISK = Path("/dev/shm")
SMALL = Bounds(
    connections_per_address=256,
    connections_per_second=1e6,
    object_bytes=256 * KIBIBYTE,
    inflated_bytes=MEBIBYTE,
    free_bytes=0,
    message_bytes=128 * KIBIBYTE,
    pdu_seconds=2.0,
    acse_seconds=3.0,
)
"""The limits of a listener in these tests: small, so that a small input reaches them."""
QUIET_SECONDS = 0.02
"""A listener that says nothing for this long has nothing more to say to a script."""
LAST_WORDS = {(ASSOCIATE_RJ,), (RELEASE_RP,), (ABORT,)}
"""Kinds of PDUs after which a listener says nothing more."""
CONVERSATION_SECONDS = 10.0
"""No script takes longer, whatever it says."""


@contextmanager
def a_folder() -> Iterator[Path]:
    """Yield an empty folder, in memory where the machine has such a disk."""
    place = MEMORY_DISK if os.access(MEMORY_DISK, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix=f"cds-fuzz-{os.getpid()}-", dir=place) as name:
        yield Path(name)


def a_ward(folder: Path, bounds: Bounds = SMALL) -> Ward:
    """Return surroundings of a listener with an upgraded SQLite database below `folder`."""
    url = f"sqlite:///{folder / 'cds.db'}"
    upgrade(url)
    port = free_ports(1)[0]
    settings = Settings(
        listener=Listener(port=port, quiet_seconds=0.5),
        storage=Storage(directory=folder / "var"),
        database=Database(url=url),
        destinations=(Destination(name="pacs", ae_title="PACS", host=LOOPBACK, port=port),),
        rules=(
            Rule(calling_ae="IMPORTER", results_to=("pacs",)),
            Rule(calling_ae="QUOTING", results_to=("pacs",), repairs=(Repair.QUOTED_VALUES,)),
            Rule(calling_ae="STRANGER", modality="US", action=Action.REFUSE),
            Rule(
                calling_ae="STRANGER",
                study_description="*mole*?*",
                series_description=("*a*b*c*", "?[x"),
                action=Action.ACKNOWLEDGE,
            ),
            Rule(address="127.0.0.0/8", sop_class="1.2.3", priority=Priority.HIGH, quiet_seconds=1.0),
            Rule(calling_ae="*", results_to=("pacs",)),
        ),
    )
    return Ward(settings, open_engine(url), replace(bounds))


@contextmanager
def a_reception(ward: Ward) -> Iterator[tuple[Reception, Path]]:
    """Yield the reception of a process, and its incoming folder."""
    spool = Spool(ward.directory)
    spool.make_folders()
    with spool.incoming_folder() as incoming, libraries_set(incoming):
        reception = Reception(
            book=RuleBook(lambda: ward.settings),
            engine=ward.engine,
            spool=spool,
            listener="fuzz:1",
            bounds=SMALL,
            turn=turns(ward.engine),
        )
        yield reception, incoming


@dataclass
class Stranger:
    """One TCP connection that says what it likes."""

    port: int
    heard: bytearray = field(default_factory=bytearray)
    closed: bool = False

    def __post_init__(self) -> None:
        self.connection = socket.create_connection((LOOPBACK, self.port), timeout=CONVERSATION_SECONDS)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Stranger:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def say(self, script: bytes) -> None:
        """Send bytes; what the listener no longer takes is dropped."""
        self.connection.setblocking(False)
        left = memoryview(script)
        deadline = time.monotonic() + CONVERSATION_SECONDS
        while left and not self.closed and time.monotonic() < deadline:
            _, writable, _ = select.select([], [self.connection], [], 0.1)
            if writable:
                try:
                    left = left[self.connection.send(left) :]
                except OSError:
                    return
            self._hear(0)

    def listen(self, quiet: float = QUIET_SECONDS, until: int | None = None) -> Answers:
        """Return all answers so far, once `until` whole PDUs came, all is quiet or the connection ended.

        It is quiet at once behind a last word: a rejection, an answer to a release, an abort.
        """
        deadline = time.monotonic() + CONVERSATION_SECONDS
        answers = answers_in(bytes(self.heard))
        while not self.closed and time.monotonic() < deadline:
            if until is not None and len(answers.kinds) >= until:
                break
            patience = quiet if until is None else CONVERSATION_SECONDS
            if not self._hear(0 if until is None and answers.kinds[-1:] in LAST_WORDS else patience):
                break
            answers = answers_in(bytes(self.heard))
        return answers

    def ended(self, seconds: float = CONVERSATION_SECONDS) -> bool:
        """Return whether the listener ended the connection by then."""
        deadline = time.monotonic() + seconds
        while not self.closed and time.monotonic() < deadline:
            self._hear(0.1)
        return self.closed

    def reset(self) -> None:
        """End with a TCP reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.connection.close()

    def _hear(self, seconds: float) -> bool:
        """Take what came; return whether anything did."""
        if not select.select([self.connection], [], [], seconds)[0]:
            return False
        try:
            received = self.connection.recv(65536)
        except OSError:
            received = b""
        self.closed = not received
        self.heard += received
        return True


def said(port: int, script: bytes) -> Answers:
    """Return the answers to a script over a connection of its own, which is then closed."""
    with Stranger(port) as stranger:
        stranger.say(script)
        return stranger.listen()


def echoes(port: int) -> bool:
    """Return whether the listener still answers a C-ECHO."""
    with suppress(OSError), Stranger(port) as stranger:
        stranger.say(associate_rq())
        stranger.listen(until=1)
        stranger.say(echo())
        answers = stranger.listen(until=2)
        stranger.say(release())
        stranger.listen(until=3)
        return answers.kinds == (2, 4) and answers.statuses == [0]
    return False


def threads() -> int:
    return threading.active_count()
