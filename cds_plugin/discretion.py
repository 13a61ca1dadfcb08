"""What a process may say: its own log lines, and of everything unexpected what kind and where, never a value.

A message, warning or exception of a library may quote a header or the parameters of a statement. So libraries
are heard as one line of ours without their words, and an exception that nobody caught as its type and the
lines of code that it came through.
"""

from __future__ import annotations

import logging
import resource
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, cast

import structlog

CALLS_SHOWN = 6
"""The innermost calls, enough to find the line."""
CHAIN_SHOWN = 4
"""Of exceptions that caused one another, the last so many."""
FRANK = frozenset({"alembic", "amqp", "asyncio", "billiard", "celery", "kombu", "redis", "uvicorn", "valkey"})
"""Libraries that never see an object: their fixed text is told, though none of its values."""


def be_discreet() -> None:
    """From now on this process and its forks say nothing of values, and leave no core file behind.

    For entry points: it sets what Python keeps for a whole process. The level of the root logger stays as it
    is; whatever it lets through is told in the same way.
    """
    log_to_stderr()
    logging.root.handlers[:] = [_OneLine()]
    warnings.showwarning = _warn
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _tell("uncaught-in-thread", args.exc_value)
    sys.unraisablehook = lambda args: _tell("unraisable", args.exc_value)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def log_to_stderr() -> None:
    """Configure structlog: one JSON line per event on stderr."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: structlog.WriteLogger(cast("TextIO", _Stderr())),
        cache_logger_on_first_use=True,
    )


def places(error: BaseException) -> list[str]:
    """Return the lines of code that an exception came through, the innermost last."""
    calls = traceback.extract_tb(error.__traceback__)[-CALLS_SHOWN:]
    return [f"{Path(each.filename).name}:{each.lineno} {each.name}" for each in calls]


class _Stderr:
    """Standard error as it is at the moment of writing: who calls a command may replace it later."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class _OneLine(logging.Handler):
    """Tells a record of a library as one of our lines."""

    def emit(self, record: logging.LogRecord) -> None:
        frank = record.name.split(".")[0] in FRANK and isinstance(record.msg, str)
        error = record.exc_info[1] if record.exc_info else None
        structlog.get_logger("library").log(
            max(record.levelno, logging.INFO),
            str(record.msg).strip() if frank else "library",
            logger=record.name,
            at=f"{record.filename}:{record.lineno}",
            **_facts(error),
        )


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    where = f"{Path(filename).name}:{lineno}"
    structlog.get_logger("library").warning("library", logger="warnings", at=where, error=category.__name__)


def _uncaught(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    _tell("uncaught", error)


def _tell(event: str, error: BaseException | None) -> None:
    structlog.get_logger().error(event, **_facts(error))


def _facts(error: BaseException | None) -> dict[str, Any]:
    chain = list(_chain(error))
    if not chain:
        return {}
    causes = [type(each).__name__ for each in chain[1:]]
    return {"error": type(chain[0]).__name__, "from": causes, "at_calls": [*map(places, chain)]}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(CHAIN_SHOWN):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
