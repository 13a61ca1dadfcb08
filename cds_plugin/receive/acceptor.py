"""The accepting side of pynetdicom: bounded connections, TLS handshakes that hold up nobody.

This leans on private parts of pynetdicom 3.0 (`RequestHandler._create_association`); tests pin them.
"""

from __future__ import annotations

import socket
import socketserver
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import structlog
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from cds_db.events import Event
from cds_plugin.caller import TlsIdentity
from cds_plugin.receive.alarms import Alarms
from cds_plugin.receive.associations import AssociationLedger
from cds_plugin.receive.bounds import BACKLOG, Bounds
from cds_plugin.receive.connections import Connections
from cds_plugin.receive.lane import StoreLane, put_on_lane
from cds_plugin.receive.requests import put_in_order
from cds_plugin.receive.server import BoundedMessages, WakingQueue
from cds_plugin.receive.upper_layer import OrderlyProvider, OrderlyStateMachine
from cds_plugin.tls.identity import identity_of
from cds_plugin.tls.serving import HandshakeFailed, ServerTls, Unspoken
from cds_plugin.wire import quicken, say_goodbye

log = structlog.get_logger()

NO_DESCRIPTOR_SECONDS = 0.05
"""Out of file descriptors the waiting connection stays readable: without a pause accepting would spin."""


class ListenerEntity(AE):
    """An AE whose limit of associations counts those that were asked for, not bare connections."""

    @property
    def active_associations(self) -> list[Association]:
        """Return the associations that have a request; bare connections have a limit of their own."""
        return [each for each in self.connected_associations if each.requestor.primitive is not None]

    @property
    def connected_associations(self) -> list[Association]:
        """Return every association that has a connection, asked for or not yet."""
        return super().active_associations


@dataclass(frozen=True, slots=True)
class Equipment:
    """What every connection of one listener process is held to and equipped with."""

    bounds: Bounds
    connections: Connections
    alarms: Alarms
    ledger: AssociationLedger
    disk_is_full: Callable[[], bool]
    lane: Callable[[Association], StoreLane]
    shares_ports: bool = False
    """Other listener processes bind the same ports."""


class ListenerServer(ThreadedAssociationServer):
    """Accepts connections up to a bound and equips each association; `tls` is None on a plain port."""

    request_queue_size = BACKLOG
    daemon_threads = True

    def __init__(self, *args: Any, equipment: Equipment, tls: ServerTls | None, **kwargs: Any) -> None:
        self.equipment = equipment
        self.tls = tls
        self.closed = False
        super().__init__(*args, **{**kwargs, "request_handler": ListenerRequestHandler})

    def server_bind(self) -> None:
        """Bind the port, together with other listener processes where there are several."""
        if self.equipment.shares_ports and self.socket is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def get_request(self) -> Any:
        """Return the next connection; wait a moment where there is no descriptor for it."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(NO_DESCRIPTOR_SECONDS)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Turn a connection away where there are too many; pynetdicom counts only associations."""
        refusal = self.equipment.connections.admit(client_address[0], time.monotonic())
        if refusal is not None:
            self.note(Event.CONNECTION_REFUSED, client_address[0], refusal)
        return refusal is None

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hand a connection to a thread of its own."""
        try:
            super().process_request(request, client_address)
        except RuntimeError:
            self.equipment.connections.arrived(client_address[0])
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Make an association of a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.equipment.connections.arrived(client_address[0])

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        say_goodbye(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log that a connection was given up; socketserver would print a traceback."""
        log.warning("connection given up", peer=client_address[0], problem=type(sys.exception()).__name__)

    def note(self, event: Event, address: str, reason: str) -> None:
        """Have a refusal logged and audited, within bounds."""
        self.equipment.alarms.note(event, address, reason, datetime.now(UTC))

    def shutdown(self) -> None:
        """Stop accepting and close the listening socket; associations go on."""
        self.closed = True
        socketserver.BaseServer.shutdown(self)
        self.server_close()


class ListenerRequestHandler(RequestHandler):
    """Puts TLS, the quick socket and the bounded messages into each new association."""

    server: ListenerServer
    _identity: TlsIdentity | None = None

    def handle(self) -> None:
        """Shake hands where the port speaks TLS, then start the association."""
        if self.server.tls is None or self._is_secured(self.server.tls):
            super().handle()

    def _is_secured(self, tls: ServerTls) -> bool:
        address = self.client_address[0]
        try:
            secured = tls.accept(self.request, self.server.equipment.bounds.handshake_seconds)
        except Unspoken:
            return False
        except HandshakeFailed as failure:
            self.server.note(Event.TLS_HANDSHAKE_FAILED, address, str(failure))
            return False
        if self.server.closed:
            secured.close()
            return False
        self.request = secured
        self._identity = identity_of(secured)
        shown = self._identity.fingerprint if self._identity else None
        log.info("tls handshake done", peer=address, version=secured.version(), certificate=shown)
        return True

    def _create_association(self) -> Association:
        association = super()._create_association()
        equipment = self.server.equipment
        quicken(association, equipment.bounds.pdu_seconds)
        put_in_order(association)
        association.dul.state_machine = OrderlyStateMachine(association.dul)
        association.dimse = BoundedMessages(association, equipment.bounds, equipment.disk_is_full)
        association.dul.to_user_queue = WakingQueue(association.dimse.msg_queue)
        put_on_lane(association, equipment.lane(association))
        if isinstance(association.dul, OrderlyProvider):
            address = self.client_address[0]
            association.dul.complain = partial(self.server.note, Event.CALLER_REFUSED, address)
        equipment.ledger.introduce(association, self._identity)
        return association
