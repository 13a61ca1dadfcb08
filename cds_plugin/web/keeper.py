"""What the database learns about once a second: open uploads, refused callers, changed TLS files."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from cds_db import studies
from cds_db.session import transaction
from cds_plugin.receive.activity import keep_recorded
from cds_plugin.receive.alarms import Alarm, Alarms, write
from cds_plugin.receive.listener import FLUSH_SECONDS
from cds_plugin.tls.trail import note_reload
from cds_plugin.web.certificates import WebTls
from cds_plugin.web.uploads import UploadLedger

log = structlog.get_logger()

ACTOR = "web"


@dataclass(slots=True)
class Keeper:
    """Runs beside the server while the block runs. What a database that is away did not take comes again."""

    engine: Engine
    listener: str
    turn: AbstractContextManager[Any]
    ledger: UploadLedger
    alarms: Alarms
    tls: WebTls | None
    _leaving: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._keep, name="web-keeper", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        if self._thread is not None:
            self._thread.join()

    def _keep(self) -> None:
        while not self._leaving.wait(FLUSH_SECONDS):
            self._flush(self.alarms.due(datetime.now(UTC)))
        self._flush(self.alarms.all())

    def _flush(self, due: list[Alarm]) -> None:
        ended, recorded = self.ledger.ended(), self.ledger.recorded()
        reload = self.tls.reload_if_changed() if self.tls else None
        if not (ended or recorded or due or reload):
            return
        try:
            with self.turn, transaction(self.engine) as session:
                keep_recorded(session, self.listener, recorded)
                for each in ended:
                    studies.close_association(session, each)
                write(session, due, datetime.now(UTC))
                if reload is not None:
                    note_reload(session, reload, ACTOR)
        except SQLAlchemyError as error:
            self.alarms.put_back(due)
            if self.tls is not None and reload is not None:
                self.tls.put_back(reload)
            log.error("database is away", problem=type(error).__name__)
            return
        self.ledger.forget(ended)
