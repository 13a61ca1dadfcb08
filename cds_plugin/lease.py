"""A job's lease: renewed by a thread while the work lasts, and the fence that every write passes."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.orm import Session

from cds_db import jobs
from cds_db.jobs import Claim
from cds_db.session import transaction
from cds_db.waits import LEASE_SECONDS

RENEW_SECONDS = 3.0
"""Two renewals may be missed before a lease runs out."""
AFTER_OUTAGE_SECONDS = 5.0
"""A job whose database failed is due again after this time."""
ASK_AGAIN_SECONDS = 1.0
ABOUT_VALUES = (DataError, IntegrityError, ProgrammingError)
"""What the database says of a statement and its values; all else is its own trouble."""

log = structlog.get_logger()


class LeaseLost(Exception):
    """Somebody else may be doing this job now, or it was taken away: stop, and write nothing more."""


@dataclass(slots=True, eq=False)
class Lease:
    """Holds job `job_id` for `owner` until the block ends."""

    engine: Engine
    job_id: int
    owner: str
    renew_seconds: float = RENEW_SECONDS
    _over: threading.Event = field(default_factory=threading.Event)
    _lost: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._keep, name=f"lease-{self.job_id}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        if self._thread is not None:
            self._thread.join()

    def end(self) -> None:
        """Renew no more: the job is done or handed back."""
        self._over.set()

    @property
    def lost(self) -> bool:
        """Return whether a renewal was refused."""
        return self._lost.is_set()

    def check(self) -> None:
        """Raise LeaseLost once a renewal was refused."""
        if self.lost:
            raise LeaseLost(f"job {self.job_id}")

    def fence(self, session: Session) -> None:
        """Renew inside the caller's transaction, or raise LeaseLost so that it rolls back."""
        if not jobs.renew(session, self.job_id, self.owner, lease_end()):
            self._lost.set()
            raise LeaseLost(f"job {self.job_id}")

    def _keep(self) -> None:
        while not self._over.wait(self.renew_seconds) and not self.lost:
            try:
                with transaction(self.engine) as session:
                    self.fence(session)
            except LeaseLost:
                continue
            except SQLAlchemyError as error:
                log.warning("lease-not-renewed", job=self.job_id, error=type(error).__name__)


def let_go(engine: Engine, job_id: int, owner: str, failure: SQLAlchemyError) -> None:
    """Hand back, as if it had not been tried, a job whose work ended because the database failed.

    A full disk lets a claim through and not what the work writes: counted, a few such attempts would give up
    good work. What the work's own values caused stays counted. Asks for as long as a lease lasts; a database
    that is away for longer lets nobody claim either.
    """
    if isinstance(failure, ABOUT_VALUES):
        return
    deadline = time.monotonic() + LEASE_SECONDS
    while True:
        later = datetime.now(UTC) + timedelta(seconds=AFTER_OUTAGE_SECONDS)
        try:
            with transaction(engine) as session:
                jobs.hand_back(session, job_id, owner, not_before=later, error="the database failed")
            return
        except SQLAlchemyError as error:
            if time.monotonic() > deadline:
                log.warning("job-not-handed-back", job=job_id, error=type(error).__name__)
                return
        time.sleep(ASK_AGAIN_SECONDS)


def owner_name() -> str:
    """Return a name for the owner of one claim that no other claim has."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"


def take(session: Session, job_id: int, owner: str) -> Claim | None:
    """Take a job for as long as a lease lasts; None where somebody else has it or it is not due."""
    lease = timedelta(seconds=LEASE_SECONDS)
    return jobs.claim(session, job_id, owner=owner, now=datetime.now(UTC), lease=lease)


def lease_end() -> datetime:
    """Return until when a lease taken or renewed now lasts."""
    return datetime.now(UTC) + timedelta(seconds=LEASE_SECONDS)
