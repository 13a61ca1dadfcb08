"""What the database learns about once a second: open uploads, refused callers, changed files."""

from __future__ import annotations

import threading
from collections.abc import Sequence
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
from cds_plugin.reloading import Reloader, note_reload
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
    reloaders: Sequence[Reloader]
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
        reloads = [(each, reload) for each in self.reloaders if (reload := each.reload_if_changed())]
        if not (ended or recorded or due or reloads):
            return
        try:
            with self.turn, transaction(self.engine) as session:
                keep_recorded(session, self.listener, recorded)
                for each in ended:
                    studies.close_association(session, each)
                write(session, due, datetime.now(UTC))
                for _, reload in reloads:
                    note_reload(session, reload, ACTOR)
        except SQLAlchemyError as error:
            self.alarms.put_back(due)
            for reloader, reload in reloads:
                reloader.put_back(reload)
            log.error("database is away", problem=type(error).__name__)
            return
        self.ledger.forget(ended)
