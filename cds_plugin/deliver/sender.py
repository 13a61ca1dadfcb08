"""C-STORE as SCU: stored files to a peer, asking for exactly the contexts that may be sent.

The data set goes byte for byte as it is stored; only where the peer does not take its transfer syntax, and
the caller allows it, it goes in another one (see recoding.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from ssl import SSLContext
from typing import BinaryIO, Protocol, cast

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.dsutils import split_dataset
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from cds_db.models import Result
from cds_plugin.config import Settings
from cds_plugin.deliver.recoding import alternatives, recoded
from cds_plugin.deliver.verdict import DUPLICATE, WARNINGS, Verdict, verdict_of
from cds_plugin.errors import Refused, Unavailable
from cds_plugin.sealing.sealed import SealBroken
from cds_plugin.sealing.vault import Vault
from cds_plugin.tls.outgoing import ClientContext, ClientTls, TlsPeer, client_tls
from cds_plugin.wire import PatientMessages, quicken

CONTEXTS = 128
"""Presentation context ids are the odd numbers up to 255 (PS3.8 section 9.3.2.2)."""
CONNECT_SECONDS = 10.0
ACSE_SECONDS = 30.0
"""For the peer's answer to an association request."""
DIMSE_SECONDS = 120.0
"""For the peer's answer to one C-STORE: a PACS may index and copy before it answers."""
PDU_SECONDS = 60.0
"""For one PDU to go out or to come in: a peer that stops reading must not hold us."""
MESSAGE_IDS = 65536
REJECTED_PERMANENTLY = 1
"""Result of an A-ASSOCIATE-RJ (PS3.8 table 9-21)."""
REJECTED = "association_rejected"
"""The code of the failure: who rejects for good is there, and somebody has to change settings."""
GONE = "peer_gone"
"""The code of the failure: there was an association, and it broke."""


@dataclass(frozen=True, slots=True)
class Peer:
    """An application entity that takes objects; `tls` is None where it takes plain DICOM."""

    ae_title: str
    host: str
    port: int
    tls: ClientTls | None = None

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"


class PeerTable(TlsPeer, Protocol):
    """What a table of the settings says of a peer."""

    @property
    def ae_title(self) -> str: ...
    @property
    def port(self) -> int: ...


def peer_of(settings: Settings, table: PeerTable) -> Peer:
    """Return the peer that a table of the settings describes, with our TLS files where it speaks TLS."""
    return Peer(table.ae_title, table.host, table.port, client_tls(settings.tls, table))


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One DICOM file and the facts of its File Meta Information that a C-STORE needs.

    A stored one is opened through its `vault`, and only while it is sent.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    vault: Vault | None = None

    def plain(self) -> AbstractContextManager[Path]:
        """Return the path of the plain bytes, for as long as it is entered."""
        return nullcontext(self.path) if self.vault is None else self.vault.plain(self.path)

    def open(self) -> BinaryIO:
        """Return the plain bytes."""
        return self.path.open("rb") if self.vault is None else self.vault.open(self.path)

    @property
    def size_bytes(self) -> int:
        """Return the number of plain bytes."""
        with self.open() as file:
            return file.seek(0, os.SEEK_END)

    @property
    def context(self) -> tuple[str, str]:
        """Return the presentation context that the file needs."""
        return self.sop_class_uid, self.transfer_syntax_uid


@dataclass(frozen=True, slots=True)
class Answer:
    """What the peer said to one object; `status` is None where it took no such presentation context.

    An Error Comment (0000,0902) is left in the peer's own log: it may quote the patient. `sent_in` is the
    transfer syntax in which it went. A web server that answers nothing about the object has no `status`
    either; then `comment` is what it said.
    """

    outgoing: Outgoing
    status: int | None
    comment: str = ""
    sent_in: str | None = None

    @property
    def verdict(self) -> Verdict:
        """Return what follows from it; without a status the peer takes no such object."""
        return Verdict.REFUSED if self.status is None else verdict_of(self.status)

    @property
    def stored(self) -> bool:
        """Return whether the peer has the object now; a warning counts."""
        return self.verdict is Verdict.STORED

    def as_detail(self) -> dict[str, str | bool]:
        """Return what the audit keeps of it: what was answered, and what was sent."""
        said = {"status": "none" if self.status is None else f"0x{self.status:04X}"}
        sent = {"transfer_syntax": self.sent_in} if self.sent_in else {}
        recoded = {"recoded": True} if self.sent_in not in (None, self.outgoing.transfer_syntax_uid) else {}
        notable = self.status in WARNINGS or self.status == DUPLICATE or not self.stored
        comment = {"comment": self.comment} if self.comment and notable else {}
        return {**said, **sent, **recoded, **comment}

    def __str__(self) -> str:
        if self.status is None:
            return self.comment or f"it accepted no presentation context of {self.outgoing.sop_class_uid}"
        return f"status 0x{self.status:04X}" + (f" {self.comment}" if self.comment else "")


def stored_outgoing(vault: Vault, result: Result) -> Outgoing:
    """Return the stored file of a result after checking that its bytes are those that were recorded.

    Raises Refused for others, Unavailable where the storage fails or the key is not there.
    """
    try:
        intact = vault.digest_of(result.path)[0] == result.sha256
    except (FileNotFoundError, SealBroken):
        intact = False
    except OSError as error:
        raise Unavailable(
            "storage_fails", f"A result can't be read: {error.strerror}", "Look at storage.directory."
        ) from error
    if not intact:
        raise Refused(
            "result_changed",
            f"{result.path} is not the file that was recorded",
            "Restore it; nothing else is ever sent.",
        )
    return read_outgoing(vault.directory / result.path, vault)


def read_outgoing(path: Path, vault: Vault | None = None) -> Outgoing:
    """Return what a C-STORE of the file needs. Raises Refused where it is no DICOM file."""
    try:
        with nullcontext(path) if vault is None else vault.plain(path) as file:
            meta, _ = split_dataset(file)
        return Outgoing(
            path=path,
            sop_class_uid=str(meta.MediaStorageSOPClassUID),
            sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
            transfer_syntax_uid=str(meta.TransferSyntaxUID),
            vault=vault,
        )
    except (InvalidDicomError, AttributeError, EOFError, ValueError, OSError) as error:
        raise Refused("not_dicom", f"{path} is no DICOM file", "Send DICOM files.") from error


def send_files(
    files: Sequence[Outgoing],
    peer: Peer,
    calling_ae: str,
    on_answer: Callable[[Answer], bool],
    *,
    recode: bool = False,
) -> None:
    """Send `files` in order, telling `on_answer` after each; it returns whether to go on.

    With `recode` an object also goes in another transfer syntax where the peer does not take its own.

    Raises Unavailable where the peer cannot be reached, rejects the association, or goes away in between.
    """
    _config.STORE_SEND_CHUNKED_DATASET = True
    for batch in _batches(files, recode):
        pairs = dict.fromkeys(pair for each in batch for pair in _contexts(each, recode))
        contexts = [build_context(*pair) for pair in pairs]
        with association_with(peer, calling_ae, contexts) as association:
            for number, outgoing in enumerate(batch, start=1):
                if not on_answer(_send(association, outgoing, number % MESSAGE_IDS, peer)):
                    return


def _contexts(outgoing: Outgoing, recode: bool) -> list[tuple[str, str]]:
    """Return the presentation contexts that an object may go in, the preferred one first."""
    others = alternatives(outgoing.transfer_syntax_uid) if recode else ()
    return [outgoing.context, *((outgoing.sop_class_uid, each) for each in others)]


def _batches(files: Sequence[Outgoing], recode: bool = False) -> Iterator[list[Outgoing]]:
    """Split so that no association needs more contexts than there are ids."""
    batch: list[Outgoing] = []
    contexts: set[tuple[str, str]] = set()
    for outgoing in files:
        needed = set(_contexts(outgoing, recode))
        if len(contexts | needed) > CONTEXTS:
            yield batch
            batch, contexts = [], set()
        batch.append(outgoing)
        contexts |= needed
    if batch:
        yield batch


@contextmanager
def association_with(
    peer: Peer,
    calling_ae: str,
    contexts: Sequence[PresentationContext],
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    handlers: Sequence[evt.EventHandlerType] = (),
) -> Iterator[Association]:
    """Yield an association that the peer accepted; it may have accepted no context.

    It is released, or aborted where the block raises: a release would wait for a peer that is still busy
    with our request. Raises Unavailable where the peer cannot be reached or rejects the association.
    """
    entity = AE(ae_title=calling_ae)
    entity.connection_timeout = CONNECT_SECONDS
    entity.acse_timeout = ACSE_SECONDS
    entity.dimse_timeout = entity.network_timeout = DIMSE_SECONDS
    tls = _tls_arguments(peer)
    association = entity.associate(
        peer.host,
        peer.port,
        contexts=list(contexts),
        ae_title=peer.ae_title,
        ext_neg=list(roles),
        tls_args=cast(tuple[SSLContext, str] | None, tls),
        evt_handlers=[(evt.EVT_CONN_OPEN, _equip), *handlers],
    )
    if not association.is_established and not _only_contexts_refused(association):
        raise _away(peer, association, tls[0] if tls else None)
    in_order = False
    try:
        yield association
        in_order = True
    finally:
        if in_order or not association.is_established:
            association.release()
        else:
            association.abort()


def _equip(event: Event) -> None:
    quicken(event.assoc, PDU_SECONDS)
    event.assoc.dimse = PatientMessages(event.assoc)


def _tls_arguments(peer: Peer) -> tuple[ClientContext, str] | None:
    """Return what pynetdicom needs for TLS; files that are wrong now can be right at the next attempt."""
    try:
        return peer.tls.arguments() if peer.tls else None
    except Refused as refusal:
        raise Unavailable(refusal.code, refusal.message, refusal.action) from refusal


def _away(peer: Peer, association: Association, tls: ClientContext | None) -> Unavailable:
    if association.is_rejected:
        answer = association.acceptor.primitive
        for_good = answer is not None and answer.result == REJECTED_PERMANENTLY
        return Unavailable(
            REJECTED if for_good else "peer_busy",
            f"{peer} rejected the association",
            "Make the peer know our AE title." if for_good else "Nothing: it is tried again.",
        )
    if tls is not None and tls.problem:
        how = f"cannot be reached over TLS: {tls.problem}"
        action = "Compare its certificates with [tls]."
    else:
        how, action = "cannot be reached", "Start the peer, or correct its host and port."
    return Unavailable("peer_away", f"{peer} {how}", action)


def _only_contexts_refused(association: Association) -> bool:
    """Return whether the peer answered, and merely accepts none of the contexts; pynetdicom aborts then."""
    return bool(association.rejected_contexts) and not association.accepted_contexts


def _send(association: Association, outgoing: Outgoing, message_id: int, peer: Peer) -> Answer:
    accepted = {
        (str(each.abstract_syntax), str(each.transfer_syntax[0])) for each in association.accepted_contexts
    }
    ways = [each for each in _contexts(outgoing, recode=True) if each in accepted]
    if not ways:
        return Answer(outgoing, None)
    _, syntax = ways[0]
    as_stored = syntax == outgoing.transfer_syntax_uid
    try:
        with outgoing.plain() as path:
            what = path if as_stored else dcmread(BytesIO(recoded(path, syntax)))
            answer = association.send_c_store(what, msg_id=message_id)
    except RuntimeError as error:
        raise _gone(peer) from error
    if "Status" not in answer:
        raise _gone(peer)
    return Answer(outgoing, int(answer.Status), sent_in=syntax)


def _gone(peer: Peer) -> Unavailable:
    return Unavailable(GONE, f"{peer} went away while objects were sent", "Look at the peer's log.")
