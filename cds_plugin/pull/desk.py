"""Where pulled objects come in: this process's reception, incoming folder and sender."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from cds_db import studies
from cds_db.session import transaction
from cds_plugin.caller import Caller
from cds_plugin.config import PeerEntry, Retrieve, Settings
from cds_plugin.errors import Unavailable
from cds_plugin.presence import Presence, this_process
from cds_plugin.receive.activity import keep_recorded
from cds_plugin.receive.answers import Offered, Status
from cds_plugin.receive.associations import OpenAssociation
from cds_plugin.receive.bounds import Bounds
from cds_plugin.receive.libraries import libraries_set
from cds_plugin.receive.reception import Reception
from cds_plugin.receive.rulebook import RuleBook
from cds_plugin.receive.spool import Spool
from cds_plugin.receive.turn import turns
from cds_plugin.sealing.vault import Vault

PROCESS_NAME = "pull"
TELL_SECONDS = 2.0
"""How often the database learns that the pull of a study goes on; its revision stays open meanwhile."""


@dataclass(slots=True)
class Desk:
    """Takes in the objects of one study from one peer, as its sender."""

    reception: Reception
    folder: Path
    sender: OpenAssociation
    _told: datetime

    @property
    def bounds(self) -> Bounds:
        """Return the limits of an object."""
        return self.reception.bounds

    def receive(self, offered: Offered, refusal: str | None = None) -> tuple[Status, str]:
        """Give a complete file to the reception, and return its answer."""
        answer = self.reception.receive(offered, refusal)
        self.still_here()
        return answer

    def still_here(self) -> None:
        """Tell the database now and then that this study is still being pulled."""
        now = self.sender.active_at = datetime.now(UTC)
        if not self.sender.recorded or (now - self._told).total_seconds() < TELL_SECONDS:
            return
        with suppress(SQLAlchemyError), self.reception.turn, transaction(self.reception.engine) as session:
            keep_recorded(session, self.reception.listener, [self.sender])
            self._told = now

    def new_file(self) -> Path:
        """Return the path of a file that does not exist yet, in the incoming folder."""
        return self.folder / f"{uuid.uuid4().hex}.dcm"

    def disk_is_full(self) -> bool:
        """Return whether the disk is below its watermark."""
        return self.reception.spool.free_bytes() < self.bounds.free_bytes

    def leave(self) -> None:
        """Say that the pull of this study is over: from now on quiet time counts."""
        with suppress(SQLAlchemyError), self.reception.turn, transaction(self.reception.engine) as session:
            studies.close_association(session, self.sender.id)


@dataclass(frozen=True, slots=True)
class Office:
    """What a whole run has in common: one reception and one incoming folder for many studies."""

    reception: Reception
    folder: Path
    entry: PeerEntry
    address: str

    @contextmanager
    def desk(self) -> Iterator[Desk]:
        """Yield the desk of one study."""
        ours = self.reception.book.settings.listener.ae_title
        sender = OpenAssociation.begun(Caller(self.entry.ae_title, self.address, ours))
        desk = Desk(self.reception, self.folder, sender, sender.opened_at)
        try:
            yield desk
        finally:
            desk.leave()


@contextmanager
def opened_office(settings: Settings, engine: Engine, entry: PeerEntry) -> Iterator[Office]:
    """Yield what a run needs; the incoming folder goes with it. Raises Unavailable for an unknown host."""
    spool, turn = Spool(settings.storage.directory, Vault.of(settings)), turns(engine)
    spool.make_folders()
    name = this_process()
    with ExitStack() as opened:
        folder = opened.enter_context(spool.incoming_folder())
        opened.enter_context(libraries_set(folder))
        opened.enter_context(Presence(engine, PROCESS_NAME, turn))
        reception = Reception(
            RuleBook(lambda: settings), engine, spool, name, settings.limits.as_bounds(), turn
        )
        yield Office(reception, folder, entry, address_of(entry))


def address_of(entry: PeerEntry) -> str:
    """Return the IP address of a peer, for rules that ask for it. Raises Unavailable."""
    web = entry.retrieve is Retrieve.WADO_RS
    host = (urlsplit(entry.web_url).hostname if web else entry.host) or entry.host
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unavailable("unknown_host", f"{host} has no address", "Correct the peer's host.") from error
    return str(ip_address(str(found[0][4][0]).partition("%")[0]))
