"""The ports of one listener process: opened and closed together, watched about once a second."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, cast

import structlog
from pynetdicom import evt
from pynetdicom.association import Association
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from cds_db.session import transaction
from cds_plugin.config import Settings
from cds_plugin.errors import Unavailable
from cds_plugin.receive import alarms
from cds_plugin.receive.acceptor import Equipment, ListenerEntity, ListenerServer
from cds_plugin.receive.alarms import Alarm, Alarms
from cds_plugin.receive.associations import AssociationLedger
from cds_plugin.receive.bounds import Bounds
from cds_plugin.receive.connections import Connections
from cds_plugin.receive.lane import StoreLane
from cds_plugin.receive.rulebook import RuleBook
from cds_plugin.reloading import Reloader, note_reload
from cds_plugin.tls.serving import ServerTls

log = structlog.get_logger()

ACTOR = "listener"


class Gate:
    """Lets associations in on the plain port, the TLS port, or both, and audits whom it turned away."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        turn: AbstractContextManager[Any],
        bounds: Bounds,
        book: RuleBook,
    ) -> None:
        """Load the TLS files. Raises Refused that names the setting whose file is wrong."""
        self._settings = settings
        self._engine = engine
        self._turn = turn
        self._bounds = bounds
        self._tls = ServerTls(settings.tls) if settings.tls.listens else None
        self._reloaders = [book.files, *([self._tls.files] if self._tls else [])]
        self._servers: list[ListenerServer] = []
        self.alarms = Alarms()

    def open(
        self,
        entity: ListenerEntity,
        handlers: list[evt.EventHandlerType],
        ledger: AssociationLedger,
        disk_is_full: Callable[[], bool],
        lane: Callable[[Association], StoreLane],
    ) -> None:
        """Start listening. Raises Unavailable that names the address that is taken; then none is open."""
        equipment = Equipment(
            bounds=self._bounds,
            connections=Connections(self._bounds, lambda: _addresses(entity)),
            alarms=self.alarms,
            ledger=ledger,
            disk_is_full=disk_is_full,
            lane=lane,
            shares_ports=self._settings.listener.processes > 1,
        )
        try:
            for setting, port, tls in self._ports():
                self._servers.append(self._listening(entity, handlers, equipment, setting, port, tls))
        except Unavailable:
            for server in self._servers:
                server.server_close()
            raise
        for server in self._servers:
            threading.Thread(target=server.serve_forever, name="listener-accept", daemon=True).start()

    @property
    def addresses(self) -> list[str]:
        """Return where it listens, for the log."""
        return [
            f"{each.server_address[0]}:{each.server_address[1]}{' (TLS)' if each.tls else ''}"
            for each in self._servers
        ]

    def close(self) -> None:
        """Stop accepting on every port; associations go on."""
        for server in self._servers:
            server.shutdown()

    def tick(self) -> None:
        """Take changed rules and certificates into use, and write what strangers were refused."""
        for each in self._reloaders:
            self._watch(each)
        self._write(self.alarms.due(datetime.now(UTC)))

    def tell_the_rest(self) -> None:
        """Write every refusal that was counted and not told yet; call it last."""
        self._write(self.alarms.all())

    def _ports(self) -> Sequence[tuple[str, int, ServerTls | None]]:
        ports: list[tuple[str, int, ServerTls | None]] = []
        if self._settings.tls.plain:
            ports.append(("listener.port", self._settings.listener.port, None))
        if self._tls is not None:
            ports.append(("tls.port", self._settings.tls.port, self._tls))
        return ports

    def _listening(
        self,
        entity: ListenerEntity,
        handlers: list[evt.EventHandlerType],
        equipment: Equipment,
        setting: str,
        port: int,
        tls: ServerTls | None,
    ) -> ListenerServer:
        host = self._settings.listener.host
        try:
            server = entity.make_server(
                (host, port),
                evt_handlers=handlers,
                server_class=ListenerServer,
                equipment=equipment,
                tls=tls,
            )
        except OSError as error:
            raise Unavailable(
                "cannot_listen",
                f"{host}:{port}: {error.strerror}",
                f"Free the address or change listener.host and {setting}.",
            ) from error
        return cast(ListenerServer, server)

    def _watch(self, reloader: Reloader) -> None:
        reload = reloader.reload_if_changed()
        if reload is None:
            return
        try:
            with self._turn, transaction(self._engine) as session:
                note_reload(session, reload, ACTOR)
        except SQLAlchemyError as error:
            reloader.put_back(reload)
            log.error("database is away", problem=type(error).__name__)

    def _write(self, due: Sequence[Alarm]) -> None:
        """Log and audit refusals: as many lines as rows, so that no stranger fills the log either."""
        if not due:
            return
        for alarm in due:
            log.warning(str(alarm.kind.event), **alarm.detail)
        try:
            with self._turn, transaction(self._engine) as session:
                alarms.write(session, due, datetime.now(UTC))
        except SQLAlchemyError as error:
            self.alarms.put_back(due)
            log.error("database is away", problem=type(error).__name__)


def _addresses(entity: ListenerEntity) -> list[str]:
    return [each.requestor.address or "" for each in entity.connected_associations if each.is_acceptor]
