"""The web server of this installation: its routes, its socket, and its orderly end."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import structlog
import uvicorn
from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.routing import Route

from cds_plugin.config import Settings
from cds_plugin.errors import Unavailable
from cds_plugin.presence import Presence, this_process
from cds_plugin.receive.alarms import Alarms
from cds_plugin.receive.libraries import libraries_set
from cds_plugin.receive.reception import Reception
from cds_plugin.receive.rulebook import RuleBook
from cds_plugin.receive.spool import Spool
from cds_plugin.receive.turn import turns
from cds_plugin.sealing.vault import Vault
from cds_plugin.web.bounds import (
    BACKLOG,
    HANDSHAKE_SECONDS,
    HEAD_BYTES,
    KEEP_ALIVE_SECONDS,
    STOP_GRACE_SECONDS,
    WebBounds,
)
from cds_plugin.web.certificates import WebTls
from cds_plugin.web.health import Health
from cds_plugin.web.keeper import Keeper
from cds_plugin.web.paths import LIVE_PATH, READY_PATH, STUDIES_PATH
from cds_plugin.web.protocol import BoundedProtocol
from cds_plugin.web.stow import StoreService
from cds_plugin.web.uploads import UploadLedger

log = structlog.get_logger()

PROCESS_NAME = "web"
STOP_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class WebServer:
    """The web server of one process; `run` serves until `stop` is set."""

    book: RuleBook
    engine: Engine

    @property
    def settings(self) -> Settings:
        return self.book.settings

    def run(self, stop: threading.Event) -> None:
        """Answer requests until `stop` is set, then let running uploads end by themselves for a while."""
        name = this_process()
        tls = WebTls(self.settings) if self.settings.web.tls else None
        spool, turn, limits = self._spool(), turns(self.engine), self.settings.limits.as_bounds()
        reception = Reception(self.book, self.engine, spool, name, limits, turn)
        ledger, alarms, bounds = UploadLedger(), Alarms(), self.settings.web.as_bounds()
        reloaders = [self.book.files, *([tls.files] if tls else [])]
        with (
            spool.incoming_folder() as folder,
            libraries_set(folder),
            self._listening() as listening,
            Presence(self.engine, PROCESS_NAME, turn),
            Keeper(self.engine, name, turn, ledger, alarms, reloaders),
        ):
            store = StoreService(reception, folder, ledger, alarms, bounds)
            log.info("web server listening", address=listening.getsockname()[:2], tls=tls is not None)
            application = _application(store, Health(self.engine, spool, limits))
            with asyncio.Runner(loop_factory=_Loop) as runner:
                runner.run(_serve(application, bounds, listening, tls, stop))

    def _spool(self) -> Spool:
        spool = Spool(self.settings.storage.directory, Vault.of(self.settings))
        spool.make_folders()
        return spool

    @contextmanager
    def _listening(self) -> Iterator[socket.socket]:
        place = self.settings.web
        family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
        try:
            listening = socket.create_server((place.host, place.port), family=family, backlog=BACKLOG)
        except OSError as error:
            raise Unavailable(
                "cannot_listen",
                f"{place.host}:{place.port}: {error.strerror}",
                "Free the address or change web.host and web.port.",
            ) from error
        with listening:
            yield listening


def _application(store: StoreService, health: Health) -> Starlette:
    return Starlette(
        routes=[
            Route(STUDIES_PATH, store.store, methods=["POST"]),
            Route(STUDIES_PATH + "/{study}", store.store, methods=["POST"]),
            Route(LIVE_PATH, health.live),
            Route(READY_PATH, health.ready),
        ]
    )


async def _serve(
    application: Starlette,
    bounds: WebBounds,
    listening: socket.socket,
    tls: WebTls | None,
    stop: threading.Event,
) -> None:
    """Run uvicorn on an open socket; our own signal handlers stay in charge of ending it."""
    server = _Server(
        uvicorn.Config(
            application,
            http=cast(type[BoundedProtocol], partial(BoundedProtocol, bounds)),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            h11_max_incomplete_event_size=HEAD_BYTES,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=STOP_GRACE_SECONDS,
            ssl_context_factory=(lambda _config, _default: tls.context) if tls else None,
        )
    )
    ending = asyncio.create_task(_end_when(server, stop))
    await server.serve(sockets=[listening])
    ending.cancel()


class _Loop(asyncio.SelectorEventLoop):
    """An event loop whose servers give a TLS handshake less than asyncio's minute."""

    async def create_server(self, *args: Any, **kwargs: Any) -> asyncio.Server:
        patience = {"ssl_handshake_timeout": HANDSHAKE_SECONDS} if kwargs.get("ssl") else {}
        create = cast(Callable[..., Awaitable[asyncio.Server]], super().create_server)
        return await create(*args, **kwargs, **patience)


class _Server(uvicorn.Server):
    """A server that leaves the signals of this process alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _end_when(server: uvicorn.Server, stop: threading.Event) -> None:
    while not stop.is_set():
        await asyncio.sleep(STOP_POLL_SECONDS)
    server.should_exit = True
