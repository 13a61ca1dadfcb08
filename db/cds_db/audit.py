"""The audit trail: append, seal, verify, query. There is no update and no delete.

Writers append rows in the transaction of what they record and know nothing of the chain. One sealer at a
time gives committed rows their place and hash. The order of the chain is the order of sealing: a row whose
transaction commits late is sealed late, whatever its id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain as joined
from itertools import islice
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Table,
    Text,
    UnaryExpression,
    bindparam,
    func,
    insert,
    select,
    type_coerce,
    update,
)
from sqlalchemy.orm import Session

from cds_db.chain import Content, Head, Sealed, Walked, compare_heads, link, walk
from cds_db.columns import InstantText, Json, canonical_json
from cds_db.events import Event, Outcome
from cds_db.models import AuditEntry, AuditHead, Base
from cds_db.prepared import Prepared, Transaction

SEAL_BATCH = 1000
"""Rows that one transaction seals: tens of milliseconds of SQLite's write lock."""
UNSEALED_GRACE_SECONDS = 60
"""The sealer runs every second; a row that waits longer has none, or was written past it."""
STREAM_ROWS = 1000
HEAD_ID = 1

_CONTENT = (
    type_coerce(AuditEntry.at, InstantText),
    AuditEntry.event,
    AuditEntry.actor,
    AuditEntry.study_instance_uid,
    AuditEntry.sop_instance_uid,
    AuditEntry.outcome,
    type_coerce(AuditEntry.detail, Text),
)
_TABLE: Table = Base.metadata.tables[AuditEntry.__tablename__]
_APPEND = Prepared(
    lambda _dialect: insert(_TABLE).inline(),
    ["at", "event", "actor", "study_instance_uid", "sop_instance_uid", "outcome", "detail"],
)


class ChainBroken(Exception):
    """The chain can't be continued, because its head does not fit its rows."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found; `problem` names the first bad row and what is wrong about it."""

    intact: bool
    sealed: int
    unsealed: int
    first_bad_seq: int | None
    problem: str | None
    head: str | None
    """The stored head's hash: noted elsewhere, it also proves that nobody computed the chain anew."""


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which rows to list; None lets everything pass. `since` is inclusive, `until` exclusive."""

    since: datetime | None = None
    until: datetime | None = None
    study: str | None = None
    event: Event | None = None
    actor: str | None = None
    model: str | None = None
    """Name or SHA-256 of a bundle that took part."""
    outcome: Outcome | None = None
    limit: int | None = None
    """The newest so many."""


def append(
    transaction: Transaction,
    *,
    event: Event,
    actor: str,
    now: datetime,
    study_instance_uid: str | None = None,
    sop_instance_uid: str | None = None,
    outcome: Outcome = Outcome.SUCCESS,
    detail: Mapping[str, Json] | None = None,
) -> None:
    """Add a row to the caller's transaction; it becomes part of the chain once that is committed."""
    row = {
        "at": now,
        "event": str(event),
        "actor": actor,
        "study_instance_uid": study_instance_uid,
        "sop_instance_uid": sop_instance_uid,
        "outcome": str(outcome),
        "detail": dict(detail or {}),
    }
    _APPEND.run(transaction, row)


def seal(session: Session, now: datetime, limit: int = SEAL_BATCH) -> int:
    """Link up to `limit` committed rows into the chain, in order of their ids; return how many.

    Waits for another sealer. Raises ChainBroken where the head is gone or not at the last row: then nothing
    is sealed until somebody has looked at what `verify` names.
    """
    head = _locked_head(session)
    links = _next_links(session, Head(head.seq, head.hash), limit)
    if not links:
        return 0
    session.connection().execute(_SEAL_ONE, [_place(row_id, row) for row_id, row in links])
    last = links[-1][1]
    head.seq, head.hash, head.sealed_at = last.seq, last.hash, now
    session.flush()
    return len(links)


def verify(session: Session, now: datetime) -> Verification:
    """Return whether the trail is intact, in one pass and flat memory. Call it within `snapshot`.

    The first of: a row changed, missing, inserted or re-ordered; a head that is gone or does not match the
    rows; a row that has been unsealed for longer than UNSEALED_GRACE_SECONDS.
    """
    head = session.get(AuditHead, HEAD_ID)
    stored = Head(head.seq, head.hash) if head else None
    walked = walk(_sealed_rows(session))
    if walked.problem is None:
        walked = compare_heads(walked.head, stored)
    if walked.problem is None:
        walked = _check_unsealed(session, walked.head, now)
    return Verification(
        intact=walked.problem is None,
        sealed=_count(session, AuditEntry.seq.is_not(None)),
        unsealed=_count(session, AuditEntry.seq.is_(None)),
        first_bad_seq=walked.first_bad_seq,
        problem=walked.problem,
        head=stored.hash if stored else None,
    )


def query(session: Session, wanted: AuditFilter) -> Iterator[AuditEntry]:
    """Yield the rows that pass, oldest first: the sealed in order of the chain, then the unsealed."""
    if wanted.limit is not None:
        newest_first = joined(
            _stream(session, wanted, AuditEntry.seq.is_(None), AuditEntry.id.desc()),
            _stream(session, wanted, AuditEntry.seq.is_not(None), AuditEntry.seq.desc()),
        )
        yield from reversed(list(islice(newest_first, wanted.limit)))
        return
    yield from _stream(session, wanted, AuditEntry.seq.is_not(None), AuditEntry.seq.asc())
    yield from _stream(session, wanted, AuditEntry.seq.is_(None), AuditEntry.id.asc())


_SEAL_ONE = (
    update(_TABLE)
    .where(_TABLE.c.id == bindparam("row_id"), _TABLE.c.seq.is_(None))
    .values(seq=bindparam("place"), previous_hash=bindparam("before"), hash=bindparam("own"))
)


def _place(row_id: int, row: Sealed) -> dict[str, Any]:
    return {"row_id": row_id, "place": row.seq, "before": row.previous_hash, "own": row.hash}


def _locked_head(session: Session) -> AuditHead:
    wanted = select(AuditHead).where(AuditHead.id == HEAD_ID).with_for_update()
    head = session.scalars(wanted, execution_options={"populate_existing": True}).one_or_none()
    if head is None:
        raise ChainBroken("the stored head is gone")
    last = session.scalar(select(func.max(AuditEntry.seq))) or 0
    if last != head.seq:
        raise ChainBroken(f"the stored head is at row {head.seq}, the last row is {last}")
    return head


def _next_links(session: Session, head: Head, limit: int) -> list[tuple[int, Sealed]]:
    waiting = select(AuditEntry.id, *_CONTENT).where(AuditEntry.seq.is_(None)).order_by(AuditEntry.id)
    links: list[tuple[int, Sealed]] = []
    rows: Iterable[Any] = session.execute(waiting.limit(limit))
    for row_id, *content in rows:
        row = link(head, Content(*content))
        links.append((row_id, row))
        head = Head(row.seq, row.hash)
    return links


def _sealed_rows(session: Session) -> Iterator[Sealed]:
    wanted = (
        select(AuditEntry.seq, AuditEntry.previous_hash, AuditEntry.hash, *_CONTENT)
        .where(AuditEntry.seq.is_not(None))
        .order_by(AuditEntry.seq)
        .execution_options(yield_per=STREAM_ROWS)
    )
    rows: Iterable[Any] = session.execute(wanted)
    for seq, previous_hash, own_hash, *content in rows:
        yield Sealed(seq, Content(*content), previous_hash, own_hash)


def _check_unsealed(session: Session, head: Head, now: datetime) -> Walked:
    late = AuditEntry.seq.is_(None), AuditEntry.at < now - timedelta(seconds=UNSEALED_GRACE_SECONDS)
    row_id = session.scalar(select(func.min(AuditEntry.id)).where(*late))
    if row_id is None:
        return Walked(head)
    count = _count(session, *late)
    return Walked(head, head.seq + 1, f"{count} rows are unsealed for too long, the first has id {row_id}")


def _count(session: Session, *conditions: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).select_from(AuditEntry).where(*conditions)) or 0


def _stream(
    session: Session, wanted: AuditFilter, part: ColumnElement[bool], order: UnaryExpression[Any]
) -> Iterator[AuditEntry]:
    chosen = select(AuditEntry).where(part, *_conditions(wanted)).order_by(order)
    for entry in session.scalars(chosen.execution_options(yield_per=STREAM_ROWS)):
        if wanted.model is None or names_model(entry.detail, wanted.model):
            yield entry


def _conditions(wanted: AuditFilter) -> Iterator[ColumnElement[bool]]:
    exact = {
        AuditEntry.study_instance_uid: wanted.study,
        AuditEntry.event: wanted.event,
        AuditEntry.actor: wanted.actor,
        AuditEntry.outcome: wanted.outcome,
    }
    yield from (column == str(value) for column, value in exact.items() if value is not None)
    if wanted.since is not None:
        yield AuditEntry.at >= wanted.since
    if wanted.until is not None:
        yield AuditEntry.at < wanted.until
    if wanted.model is not None:
        yield type_coerce(AuditEntry.detail, Text).contains(
            canonical_json(wanted.model)[1:-1], autoescape=True
        )


def names_model(detail: Mapping[str, Any], model: str) -> bool:
    """Return whether `model` is the name or the SHA-256 of one of the bundles in an audit row's detail."""
    bundles = detail.get("bundles")
    if not isinstance(bundles, Mapping):
        return False
    return any(model in (name, identity.get("sha256")) for name, identity in bundles.items())
