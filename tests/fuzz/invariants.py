"""What must hold whatever a stranger sends; a breach is an error that says which input broke what."""

from __future__ import annotations

import io
import logging
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import dropwhile
from types import TracebackType

from pdus import ABORT, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA_TF, RELEASE_RP, Answers
from ward import Ward

from cds_plugin.commitment.request import ActionStatus
from cds_plugin.receive.answers import Status

SETTLE_SECONDS = 20.0
"""An association whose peer is gone has ended by then, its half objects removed, on a busy machine too."""
MESSAGE_STATUSES = frozenset(int(each) for each in ActionStatus) | {0x0211}
"""What storage commitment answers, and what any service does that is not offered (PS3.7 annex C)."""
ALLOWED_STATUSES = frozenset(int(each) for each in Status) | MESSAGE_STATUSES
KINDS = frozenset({ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA_TF, RELEASE_RP, ABORT})
FATAL_FOR_THE_REACTOR = ("Exception in DUL", "Invalid event")
"""pynetdicom's words for an error that ended an association's thread instead of the association."""


class Breach(AssertionError):
    """An invariant does not hold; `inputs` are those that may have caused it, where it was seen later."""

    inputs: Sequence[bytes] = ()


class Watch(logging.Handler):
    """Hears tracebacks: of threads, on stderr, and those that pynetdicom writes about its own reactor."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.problems: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith(FATAL_FOR_THE_REACTOR):
            self.problems.append(text)

    def thread_died(self, arguments: threading.ExceptHookArgs) -> None:
        self.problems.append(f"a thread died: {_where(arguments.exc_value, arguments.exc_traceback)}")

    def check(self) -> None:
        """Raise Breach where something was heard since the last time."""
        if self.problems:
            found, self.problems = self.problems, []
            raise Breach("; ".join(dict.fromkeys(found)))


class _Overheard(io.TextIOBase):
    """A stderr that passes everything on and notes tracebacks."""

    def __init__(self, real: io.TextIOBase, watch: Watch) -> None:
        self._real = real
        self._watch = watch

    def write(self, text: str) -> int:
        if "Traceback (most recent call last)" in text:
            self._watch.problems.append(f"a traceback on stderr: {text.strip().splitlines()[-1]}")
        return self._real.write(text)

    def flush(self) -> None:
        self._real.flush()

    def fileno(self) -> int:
        """Return where faulthandler writes when an input takes too long."""
        return self._real.fileno()


@contextmanager
def watched() -> Iterator[Watch]:
    """Yield a watch over every thread of this process."""
    watch = Watch()
    before = threading.excepthook, sys.stderr
    threading.excepthook = watch.thread_died
    sys.stderr = _Overheard(sys.stderr, watch)  # type: ignore[assignment]
    logging.getLogger("pynetdicom").addHandler(watch)
    try:
        yield watch
    finally:
        logging.getLogger("pynetdicom").removeHandler(watch)
        threading.excepthook, sys.stderr = before


def check_answers(answers: Answers) -> None:
    """Every PDU that came back is whole and one that an acceptor may send, every status a known one."""
    if answers.rest:
        raise Breach(f"half a PDU came back: {answers.rest[:20]!r}")
    if wrong := set(answers.kinds) - KINDS:
        raise Breach(f"PDUs that no acceptor sends: {sorted(wrong)}")
    if set(dropwhile(lambda kind: kind != ABORT, answers.kinds)) - {ABORT}:
        raise Breach(f"something followed an abort: {answers.kinds}")
    if wrong := set(answers.statuses) - ALLOWED_STATUSES:
        raise Breach(f"statuses out of contract: {[f'0x{each:04X}' for each in sorted(wrong)]}")


def check_stored(ward: Ward, acknowledged: list[str]) -> None:
    """Everything acknowledged has its row and its file."""
    if not acknowledged:
        return
    rows = {each.sop_instance_uid: each.path for each in ward.instances()}
    for uid in acknowledged:
        if uid not in rows:
            raise Breach(f"acknowledged and not in the database: {uid}")
        if not (ward.directory / rows[uid]).is_file():
            raise Breach(f"acknowledged and not in the spool: {uid}")


def wait_for_threads(at_most: int, seconds: float = SETTLE_SECONDS) -> None:
    """Raise Breach where more threads than `at_most` are left after `seconds`."""
    deadline = time.monotonic() + seconds
    while threading.active_count() > at_most:
        if time.monotonic() > deadline:
            raise Breach(f"threads that do not end: {threading.active_count()}, {at_most} before")
        time.sleep(0.001)


def check_incoming(ward: Ward, seconds: float = SETTLE_SECONDS) -> None:
    """Raise Breach where a file is left in incoming after `seconds`."""
    deadline = time.monotonic() + seconds
    while left := ward.incoming():
        if time.monotonic() > deadline:
            raise Breach(f"left in incoming: {len(left)} files")
        time.sleep(0.05)


def _where(error: BaseException | None, trace: TracebackType | None) -> str:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace is not None else "?"
    return f"{type(error).__name__}: {error} in {place}"
