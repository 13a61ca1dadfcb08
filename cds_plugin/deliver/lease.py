"""The lease of a running delivery, renewed while objects are being sent."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from cds_db import jobs
from cds_db.session import transaction

log = structlog.get_logger()

LEASE = timedelta(seconds=20)
"""A delivery whose process died is taken over after this time."""
RENEW_SECONDS = 5.0


class Lease:
    """While the block runs the lease is renewed; `lost` says that another process took the job over."""

    def __init__(self, engine: Engine, job_id: int, owner: str) -> None:
        self._engine = engine
        self._job_id = job_id
        self._owner = owner
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease-{job_id}", daemon=True)
        self.lost = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _renew(self) -> None:
        while not self.lost and not self._over.wait(RENEW_SECONDS):
            try:
                with transaction(self._engine) as session:
                    until = datetime.now(UTC) + LEASE
                    self.lost = not jobs.renew(session, self._job_id, self._owner, until)
            except SQLAlchemyError as error:
                log.error("lease not renewed", job=self._job_id, problem=type(error).__name__)
