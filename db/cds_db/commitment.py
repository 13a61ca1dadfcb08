"""Storage commitment: requests kept until they are answered, and what the rows say is held (PS3.4 annex J).

A request of the same requester with the same transaction UID and the same references is one row: while it
waits it is not asked twice, and once it was answered it is answered again, for the requester seems not to
have heard. With other references it is a request of its own whose transaction UID is already in use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from cds_db import audit, jobs
from cds_db.columns import Json, canonical_json
from cds_db.events import Event, Outcome
from cds_db.locks import insert_if_absent, locked_commitment
from cds_db.models import Commitment, Instance, Job
from cds_db.stages import CommitmentState, JobKind, JobState, check_move, check_revival

PENDING_OF_ONE_REQUESTER = 1000
"""Requests of one AE title that wait for their report: a week of a busy modality."""
PENDING_INSTANCES = 2_000_000
"""References in all waiting requests together, about 250 MB: AE titles cost a stranger nothing."""
KEPT = timedelta(days=30)
"""An answered request is known for so long; its transaction UID may be used again after that."""
UIDS_PER_QUERY = 500
"""Databases bound the parameters of a statement."""
FAILURES_IN_AUDIT = 100
"""An audit row names so many instances that are not held; their number stands beside them."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An instance that a requester asks for."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class CommitmentRequest:
    """What an N-ACTION asks, and who asks it from which address."""

    calling_ae: str
    peer: str
    transaction_uid: str
    references: tuple[Reference, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the reporter needs it; `in_use` says that its transaction UID was another request's."""

    id: int
    calling_ae: str
    peer: str
    transaction_uid: str
    references: tuple[Reference, ...]
    requested_at: datetime
    in_use: bool


@dataclass(frozen=True, slots=True)
class KeptFile:
    """One stored version of an instance; `path` is relative to the storage directory.

    `purged` says that a retention rule had its file removed, or is about to.
    """

    sop_class_uid: str
    path: str
    sha256: str
    size_bytes: int
    purged: bool = False


@dataclass(frozen=True, slots=True)
class CommitmentLine:
    """Where a request stands; `not_held` is known once it was reported."""

    calling_ae: str
    peer: str
    transaction_uid: str
    instances: int
    state: CommitmentState
    requested_at: datetime
    reported_at: datetime | None
    not_held: int | None
    last_error: str | None


class TooManyPending(Exception):
    """More requests wait than are kept: the requester should ask again later."""


def record_request(session: Session, request: CommitmentRequest, *, now: datetime) -> int:
    """Keep a request and return the id of the job that answers it. Raises TooManyPending."""
    _forget_old(session, now)
    _check_pending(session, request)
    values = {
        "calling_ae": request.calling_ae,
        "peer": request.peer,
        "transaction_uid": request.transaction_uid,
        "sha256": _digest(request.references),
        "referenced": _document(request.references),
        "instances": len(request.references),
        "state": CommitmentState.PENDING,
        "requested_at": now,
    }
    commitment_id = insert_if_absent(session, Commitment, values, Commitment.id)
    _audit_request(session, request, now, again=commitment_id is None)
    if commitment_id is None:
        return _asked_again(session, request, now)
    return jobs.create(session, JobKind.COMMITMENT, commitment_id, now)


def asked(session: Session, commitment_id: int) -> Asked | None:
    """Return a request that waits for its report; None where it does not."""
    row = session.get(Commitment, commitment_id)
    if row is None or row.state is not CommitmentState.PENDING:
        return None
    earlier = select(Commitment.id).where(
        Commitment.calling_ae == row.calling_ae,
        Commitment.transaction_uid == row.transaction_uid,
        Commitment.id < row.id,
    )
    return Asked(
        id=row.id,
        calling_ae=row.calling_ae,
        peer=row.peer,
        transaction_uid=row.transaction_uid,
        references=tuple(Reference(*pair) for pair in row.referenced["instances"]),
        requested_at=row.requested_at,
        in_use=session.scalar(earlier.limit(1)) is not None,
    )


def listed(session: Session, state: CommitmentState | None, limit: int) -> list[CommitmentLine]:
    """Return the requests that came last, newest first; `state` narrows them."""
    names = [each.name for each in fields(CommitmentLine)]
    wanted = select(*(getattr(Commitment, name) for name in names))
    if state is not None:
        wanted = wanted.where(Commitment.state == state)
    newest = wanted.order_by(Commitment.requested_at.desc(), Commitment.id.desc()).limit(limit)
    return [CommitmentLine(*row) for row in session.execute(newest)]


def kept_files(session: Session, sop_instance_uids: Sequence[str]) -> dict[str, list[KeptFile]]:
    """Return every stored version of each of these instances; those without one are absent."""
    found: dict[str, list[KeptFile]] = {}
    columns = (
        Instance.sop_instance_uid,
        Instance.sop_class_uid,
        Instance.path,
        Instance.sha256,
        Instance.size_bytes,
        Instance.purging_since.is_not(None),
    )
    for start in range(0, len(sop_instance_uids), UIDS_PER_QUERY):
        some = Instance.sop_instance_uid.in_(sop_instance_uids[start : start + UIDS_PER_QUERY])
        rows: Iterable[Any] = session.execute(select(*columns).where(some))
        for uid, *facts in rows:
            found.setdefault(uid, []).append(KeptFile(*facts))
    return found


def note_reported(
    session: Session, commitment_id: int, not_held: Mapping[str, int], *, now: datetime, actor: str
) -> None:
    """Note that the requester took the report; `not_held` maps SOP Instance UIDs to failure reasons."""
    row = locked_commitment(session, commitment_id)
    check_move(row.state, CommitmentState.REPORTED)
    row.state, row.reported_at, row.not_held = CommitmentState.REPORTED, now, len(not_held)
    row.referenced, row.last_error = {}, None
    some = {uid: f"0x{reason:04X}" for uid, reason in list(not_held.items())[:FAILURES_IN_AUDIT]}
    _audit(
        session,
        Event.COMMITMENT_REPORTED,
        row,
        now=now,
        actor=actor,
        outcome=Outcome.MINOR_FAILURE if not_held else Outcome.SUCCESS,
        detail={"instances": row.instances, "not_held": len(not_held), "failures": some},
    )


def note_attempt(session: Session, commitment_id: int, error: str, *, now: datetime, actor: str) -> None:
    """Note why the report did not reach the requester; it is tried again."""
    row = locked_commitment(session, commitment_id)
    if row.last_error == error:
        return
    row.last_error = error
    detail: Mapping[str, Json] = {"error": error}
    _audit(session, Event.COMMITMENT_RETRIED, row, now=now, actor=actor, detail=detail)


def give_up(
    session: Session, commitment_id: int, error: str, *, now: datetime, actor: str, keep: bool = False
) -> None:
    """Note that the requester gets no report. `keep`: what it asked for stays known, for `revive`."""
    row = locked_commitment(session, commitment_id)
    check_move(row.state, CommitmentState.FAILED)
    row.state, row.last_error = CommitmentState.FAILED, error
    if not keep:
        row.referenced = {}
    detail: Mapping[str, Json] = {"error": error}
    _audit(
        session,
        Event.COMMITMENT_FAILED,
        row,
        now=now,
        actor=actor,
        outcome=Outcome.SERIOUS_FAILURE,
        detail=detail,
    )


def revive(session: Session, commitment_id: int, *, now: datetime, actor: str) -> bool:
    """Let a report that was given up be tried anew; False where what was asked for is no longer known."""
    row = locked_commitment(session, commitment_id)
    if not row.referenced:
        return False
    if row.state is not CommitmentState.PENDING:
        check_revival(row.state, CommitmentState.PENDING)
        row.state, row.requested_at = CommitmentState.PENDING, now
    _audit(session, Event.COMMITMENT_REVIVED, row, now=now, actor=actor, outcome=Outcome.SUCCESS, detail={})
    return True


def discard(session: Session, commitment_id: int) -> str:
    """End a report that was given up, and return its transaction UID. Raises IllegalMove."""
    row = locked_commitment(session, commitment_id)
    check_move(row.state, CommitmentState.DISCARDED)
    row.state, row.referenced = CommitmentState.DISCARDED, {}
    return row.transaction_uid


def _asked_again(session: Session, request: CommitmentRequest, now: datetime) -> int:
    same = select(Commitment.id).where(
        Commitment.calling_ae == request.calling_ae,
        Commitment.transaction_uid == request.transaction_uid,
        Commitment.sha256 == _digest(request.references),
    )
    row = locked_commitment(session, session.scalars(same).one())
    job = session.scalars(
        select(Job).where(Job.kind == JobKind.COMMITMENT, Job.subject_id == row.id),
        execution_options={"populate_existing": True},
    ).one()
    if row.state is not CommitmentState.PENDING:
        check_revival(row.state, CommitmentState.PENDING)
        row.state, row.referenced, row.requested_at = (
            CommitmentState.PENDING,
            _document(request.references),
            now,
        )
        job.state, job.attempts, job.lost = JobState.WAITING, 0, 0
        job.not_before, job.woken_at = now, None
    session.flush()
    return job.id


def _check_pending(session: Session, request: CommitmentRequest) -> None:
    pending = Commitment.state == CommitmentState.PENDING
    own = select(func.count()).where(pending, Commitment.calling_ae == request.calling_ae)
    if (session.scalar(own) or 0) >= PENDING_OF_ONE_REQUESTER:
        raise TooManyPending(f"{PENDING_OF_ONE_REQUESTER} requests of this AE title wait for their report")
    waiting = session.scalar(select(func.sum(Commitment.instances)).where(pending)) or 0
    if waiting + len(request.references) > PENDING_INSTANCES:
        raise TooManyPending("too many instances wait for a report")


def _forget_old(session: Session, now: datetime) -> None:
    over = Commitment.state != CommitmentState.PENDING, Commitment.requested_at < now - KEPT
    old = list(session.scalars(select(Commitment.id).where(*over).limit(UIDS_PER_QUERY)))
    if old:
        session.execute(delete(Job).where(Job.kind == JobKind.COMMITMENT, Job.subject_id.in_(old)))
        session.execute(delete(Commitment).where(Commitment.id.in_(old)))


def _audit_request(session: Session, request: CommitmentRequest, now: datetime, *, again: bool) -> None:
    audit.append(
        session,
        event=Event.COMMITMENT_REQUESTED,
        actor=request.calling_ae,
        now=now,
        detail={
            "transaction_uid": request.transaction_uid,
            "peer": request.peer,
            "instances": len(request.references),
            "again": again,
        },
    )


def _audit(
    session: Session,
    event: Event,
    row: Commitment,
    *,
    now: datetime,
    actor: str,
    detail: Mapping[str, Json],
    outcome: Outcome = Outcome.MINOR_FAILURE,
) -> None:
    whose: dict[str, Json] = {"transaction_uid": row.transaction_uid, "calling_ae": row.calling_ae}
    audit.append(session, event=event, actor=actor, now=now, outcome=outcome, detail={**whose, **detail})


def _document(references: Sequence[Reference]) -> dict[str, Json]:
    return {"instances": [[each.sop_class_uid, each.sop_instance_uid] for each in references]}


def _digest(references: Sequence[Reference]) -> str:
    return hashlib.sha256(canonical_json(_document(references)).encode()).hexdigest()
