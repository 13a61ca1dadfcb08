"""What libraries say while the web server runs: nothing of a header, nothing that is no JSON line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger()

TALKATIVE = ("uvicorn.error", "asyncio")
SILENT = ("python_multipart", "python_multipart.multipart")
"""It quotes the byte that it stumbled over; the answer says what was wrong."""


class JsonLines(logging.Handler):
    """Passes a record on as one of our log lines: its fixed text and the kind of exception, no values."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line."""
        problem = record.exc_info[0] if record.exc_info else None
        log.log(record.levelno, str(record.msg).strip(), problem=problem.__name__ if problem else None)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """While the block runs uvicorn logs through us, and python-multipart not at all."""
    handler = JsonLines(logging.WARNING)
    for name in TALKATIVE:
        logging.getLogger(name).addHandler(handler)
    for name in SILENT:
        logging.getLogger(name).disabled = True
    try:
        yield
    finally:
        for name in SILENT:
            logging.getLogger(name).disabled = False
        for name in TALKATIVE:
            logging.getLogger(name).removeHandler(handler)
