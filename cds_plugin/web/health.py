"""Is this process alive, and can it take objects now? Anybody may ask; no study is named."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from anyio import to_thread
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cds_plugin.receive.bounds import Bounds
from cds_plugin.receive.spool import Spool
from cds_plugin.web.bounds import HEALTH_SECONDS, RETRY_AFTER_SECONDS


@dataclass(slots=True)
class Health:
    """Answers about health, asking the database and the disk at most once in HEALTH_SECONDS."""

    engine: Engine
    spool: Spool
    bounds: Bounds
    _seen: Mapping[str, bool] = field(default_factory=dict)
    _seen_at: float = 0.0

    async def live(self, _request: Request) -> Response:
        """Return 200: the process answers."""
        return JSONResponse({"alive": True})

    async def ready(self, _request: Request) -> Response:
        """Return 200 when an object could be stored now, 503 when not, with what was looked at."""
        now = time.monotonic()
        if not self._seen or now - self._seen_at > HEALTH_SECONDS:
            self._seen_at = now
            self._seen = await to_thread.run_sync(self._look)
        ready = all(self._seen.values())
        headers = {} if ready else {"Retry-After": str(RETRY_AFTER_SECONDS)}
        return JSONResponse({"ready": ready, "checks": self._seen}, 200 if ready else 503, headers)

    def _look(self) -> Mapping[str, bool]:
        return {"database": self._database_answers(), "disk": self._disk_has_room()}

    def _database_answers(self) -> bool:
        try:
            with self.engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except SQLAlchemyError:
            return False
        return True

    def _disk_has_room(self) -> bool:
        try:
            return self.spool.free_bytes() >= self.bounds.free_bytes
        except OSError:
            return False
