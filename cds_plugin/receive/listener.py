"""The DICOM listener: C-ECHO, storage commitment, and C-STORE for every class and transfer syntax."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import structlog
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from cds_db import studies
from cds_db.session import transaction
from cds_plugin.commitment.request import PUSH_MODEL, PUSH_MODEL_SYNTAXES
from cds_plugin.config import Settings
from cds_plugin.deliver.answering import AnswerHandler
from cds_plugin.presence import Presence, this_process
from cds_plugin.receive.acceptor import ListenerEntity
from cds_plugin.receive.activity import keep_recorded
from cds_plugin.receive.associations import AssociationLedger, OpenAssociation
from cds_plugin.receive.bounds import Bounds
from cds_plugin.receive.commitment import CommitmentHandler
from cds_plugin.receive.door import Doorkeeper
from cds_plugin.receive.gate import Gate
from cds_plugin.receive.lane import StoreLane, lane_of
from cds_plugin.receive.libraries import libraries_set
from cds_plugin.receive.reception import Reception
from cds_plugin.receive.rulebook import RuleBook
from cds_plugin.receive.server import BoundedMessages
from cds_plugin.receive.spool import Spool
from cds_plugin.receive.store import StoreHandler
from cds_plugin.receive.turn import turns
from cds_plugin.sealing.vault import Vault

log = structlog.get_logger()

PROCESS_NAME = "listener"
FLUSH_SECONDS = 1.0
"""How often the activity of associations reaches the database."""
STOP_GRACE_SECONDS = 3.0
"""An orderly stop lets associations end by themselves this long."""


class DicomListener:
    """A running listener; a context manager that starts on entering and stops in order on leaving."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        bounds: Bounds | None = None,
        book: RuleBook | None = None,
    ) -> None:
        self._settings = settings
        self._book = book or RuleBook(lambda: settings)
        self._engine = engine
        self._bounds = bounds or settings.limits.as_bounds(settings.listener.processes)
        self._spool = Spool(settings.storage.directory, Vault.of(settings))
        self._ledger = AssociationLedger()
        self._name = this_process()
        self._turn = turns(engine)
        self._gate = Gate(settings, engine, self._turn, self._bounds, self._book)
        self._entity = listener_entity(settings, self._bounds)
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        self._spool.make_folders()
        self._forget_predecessor()
        with ExitStack() as opened:
            incoming = opened.enter_context(self._spool.incoming_folder())
            opened.enter_context(libraries_set(incoming))
            opened.enter_context(Presence(self._engine, PROCESS_NAME, self._turn))
            store = self._handler()
            self._gate.open(
                self._entity,
                self._handlers(store),
                self._ledger,
                self._disk_is_full,
                lambda association: self._lane(association, store, incoming),
            )
            self._closing = opened.pop_all()
        self._keeper = threading.Thread(target=self._keep, name="listener-keeper")
        self._keeper.start()
        log.info("listening", ae_title=self._settings.listener.ae_title, addresses=self._gate.addresses)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gate.close()
        self._end_associations()
        self._stopping.set()
        self._keeper.join()
        self._closing.close()

    def _forget_predecessor(self) -> None:
        """Let go what a process of this very name held open: in containers process ids come again."""
        with suppress(SQLAlchemyError), self._turn, transaction(self._engine) as session:
            studies.forget_listener(session, self._name)

    def _handlers(self, store: StoreHandler) -> list[evt.EventHandlerType]:
        return [
            (evt.EVT_C_ECHO, lambda _event: 0x0000),
            (evt.EVT_C_STORE, store),
            (evt.EVT_N_ACTION, CommitmentHandler(self._settings, self._engine, self._ledger, self._turn)),
            (evt.EVT_N_EVENT_REPORT, self._hear_answer),
            (evt.EVT_REQUESTED, Doorkeeper(self._book, self._ledger, self._gate.alarms).answer),
            (evt.EVT_ESTABLISHED, self._ledger.open),
            (evt.EVT_PDU_RECV, self._ledger.touch),
            (evt.EVT_CONN_CLOSE, _end_what_never_began),
        ]

    def _hear_answer(self, event: evt.Event) -> tuple[int, None]:
        """Note what a destination says of the objects that it was asked to vouch for."""
        entry = self._ledger.entry(event.assoc)
        return AnswerHandler(self._engine).answer(event, entry.calling_ae)

    def _lane(self, association: Association, store: StoreHandler, incoming: Path) -> StoreLane:
        return StoreLane(
            association, self._ledger.entry, store.answer, self._bounds, self._disk_is_full, incoming
        )

    def _disk_is_full(self) -> bool:
        return self._spool.free_bytes() < self._bounds.free_bytes

    def _handler(self) -> StoreHandler:
        reception = Reception(
            book=self._book,
            engine=self._engine,
            spool=self._spool,
            listener=self._name,
            bounds=self._bounds,
            turn=self._turn,
        )
        return StoreHandler(reception, self._ledger)

    def _keep(self) -> None:
        while not self._stopping.wait(FLUSH_SECONDS):
            self._gate.tick()
            self._flush()
        self._gate.tell_the_rest()
        self._flush()

    def _flush(self) -> None:
        """Tell the database which associations live; what it did not take is told again next time."""
        ended = self._ledger.ended()
        if not ended and not self._ledger.recorded():
            return
        try:
            with self._turn, transaction(self._engine) as session:
                keep_recorded(session, self._name, self._ledger.recorded())
                for entry in ended.values():
                    studies.close_association(session, entry.id)
        except SQLAlchemyError as error:
            log.error("database is away", problem=type(error).__name__)
            return
        for association, entry in ended.items():
            self._clean_up_after(association, entry)

    def _clean_up_after(self, association: Association, entry: OpenAssociation) -> None:
        messages = association.dimse
        unfinished = messages.unfinished() if isinstance(messages, BoundedMessages) else ()
        for path in unfinished:
            with suppress(OSError):
                path.unlink()
        lane = lane_of(association)
        if lane is not None:
            lane.give_up()
        self._ledger.forget(association)
        log.info("association ended", association=entry.id, aborted=association.is_aborted)

    def _end_associations(self) -> None:
        """Wait for associations to end, then cut the rest: their senders were promised nothing yet."""
        waiting = threading.Event()
        for _ in range(int(STOP_GRACE_SECONDS * 10)):
            if not self._entity.connected_associations:
                return
            waiting.wait(0.1)
        left = self._entity.connected_associations
        for association in left:
            _cut(association)
        for association in left:
            association.join(STOP_GRACE_SECONDS)


def listener_entity(settings: Settings, bounds: Bounds) -> ListenerEntity:
    """Return the application entity that a listener runs: contexts, limits and times, without handlers."""
    entity = ListenerEntity(ae_title=settings.listener.ae_title)
    entity.add_supported_context(Verification)
    entity.add_supported_context(PUSH_MODEL, PUSH_MODEL_SYNTAXES, scu_role=True, scp_role=True)
    entity.require_called_aet = False  # rules may name more AE titles than one: the doorkeeper asks
    entity.maximum_associations = bounds.associations
    entity.maximum_pdu_size = bounds.pdu_bytes
    entity.acse_timeout = bounds.acse_seconds
    entity.dimse_timeout = bounds.dimse_seconds
    entity.network_timeout = bounds.network_seconds
    return entity


def _end_what_never_began(event: evt.Event) -> None:
    """Wake the thread of a connection that closed without asking for an association.

    pynetdicom lets it wait for the whole ACSE timeout: health checks by bare connects would pile up.
    """
    if event.assoc.requestor.primitive is None:
        event.assoc.dul.to_user_queue.put(cast(Any, None))


def _cut(association: Association) -> None:
    wrapper = association.dul.socket
    if wrapper is not None and wrapper.socket is not None:
        with suppress(OSError):
            wrapper.socket.shutdown(socket.SHUT_RDWR)
