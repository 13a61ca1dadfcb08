"""From a stored object to the revision that it joins: instances, duplicates, altered copies, conflicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, assert_never

from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import Session

from cds_db import audit
from cds_db.columns import storable
from cds_db.events import Event, Outcome
from cds_db.handling import Handling, together
from cds_db.joining import join
from cds_db.locks import insert_if_absent, locked_study
from cds_db.models import Instance, Result, Revision, Study
from cds_db.moves import hold
from cds_db.prepared import Prepared, Transaction
from cds_db.session import Writing
from cds_db.stages import Stage


@dataclass(frozen=True, slots=True)
class Original:
    """The bytes as sent, before `repairs` were made; `path` is relative to the storage directory."""

    path: str
    sha256: str
    repairs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReceivedInstance:
    """An object that lies in the spool, with who sent it. `path` is relative to the storage directory.

    `made_here` is true for an object of this product that comes back: what a PACS changed in it says
    nothing about the study's patient. `rule` names the rule that spoke, `handling` is what it wants for the
    study of an object that is analysed. `original` stands where the rule had the object repaired.
    `certificate` is the SHA-256 of the sender's TLS certificate where it showed one.
    """

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str
    series_instance_uid: str
    patient_id: str
    issuer_of_patient_id: str
    sha256: str
    size_bytes: int
    path: str
    calling_ae: str
    peer: str
    association_id: str
    reason_not_analysed: str | None
    made_here: bool = False
    rule: str | None = None
    handling: Handling | None = None
    original: Original | None = None
    certificate: str | None = None


class Stored(StrEnum):
    """What an object is to those already there."""

    NEW = "new"
    DUPLICATE = "duplicate"
    ALTERED = "altered"


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """What became of a received object; `revision_id` is None where it joined none."""

    outcome: Stored
    revision_id: int | None
    instance_id: int
    kept_anew: bool = False
    """A duplicate of what a retention rule had removed."""


def record_instance(
    transaction: Session | Writing, received: ReceivedInstance, *, now: datetime, actor: str
) -> StoredInstance:
    """Record an object and what follows from it: a duplicate, an altered copy, a conflict, a revision.

    Two listeners may record the same object at once: one of them finds a duplicate.
    """
    usual = _joined_at_once(transaction, received, now)
    if usual is not None:
        _audit_reception(transaction, received, usual, now=now, actor=actor)
        return usual
    session = transaction.session if isinstance(transaction, Writing) else transaction
    study = _study_of(session, received, now)
    stored = _stored(session, received, now)
    _audit_reception(session, received, stored, now=now, actor=actor)
    if received.original is not None:
        _audit_repair(session, received, received.original, now=now, actor=actor)
    if stored.outcome is Stored.DUPLICATE:
        return stored
    if not received.made_here and _disagrees(study, received):
        _put_on_hold(session, study, received, now=now, actor=actor)
    if stored.outcome is Stored.ALTERED or received.reason_not_analysed is not None:
        return stored
    revision = _joined_revision(session, study, received, now=now, actor=actor)
    session.execute(update(Instance).where(Instance.id == stored.instance_id).values(revision_id=revision.id))
    return StoredInstance(Stored.NEW, revision.id, stored.instance_id)


def is_own_uid(transaction: Transaction, sop_instance_uid: str) -> bool:
    """Return whether this SOP Instance UID stands in our results."""
    return _OWN.run(transaction, {"uid": sop_instance_uid}).fetchone() is not None


_OWN = Prepared(
    lambda _dialect: select(Result.sop_instance_uid).where(Result.sop_instance_uid == bindparam("uid"))
)


def handling_of(revision: Revision) -> Handling | None:
    """Return what the rules of its pictures want, None where none of them was asked."""
    if revision.routes is None or revision.quiet_seconds is None:
        return None
    routes = {name: tuple(kinds) for name, kinds in revision.routes.items()}
    return Handling(revision.quiet_seconds, revision.priority, routes, revision.retry_hours)


def _study_of(session: Session, received: ReceivedInstance, now: datetime) -> Study:
    values = {
        "study_instance_uid": received.study_instance_uid,
        "patient_id": received.patient_id,
        "issuer_of_patient_id": received.issuer_of_patient_id,
        "created_at": now,
    }
    insert_if_absent(session, Study, values, Study.study_instance_uid)
    return locked_study(session, received.study_instance_uid)


def _joined_at_once(
    transaction: Transaction, received: ReceivedInstance, now: datetime
) -> StoredInstance | None:
    """Record an object from which nothing else follows; None, with nothing written, for another."""
    if received.original is not None:
        return None
    patient = None if received.made_here else (received.patient_id, received.issuer_of_patient_id)
    joined = join(transaction, _row(received, now), patient, received.handling)
    return StoredInstance(Stored.NEW, joined[1], joined[0]) if joined is not None else None


def _row(received: ReceivedInstance, now: datetime) -> dict[str, Any]:
    return {
        "sop_instance_uid": received.sop_instance_uid,
        "sha256": received.sha256,
        "sop_class_uid": received.sop_class_uid,
        "transfer_syntax_uid": received.transfer_syntax_uid,
        "study_instance_uid": received.study_instance_uid,
        "series_instance_uid": received.series_instance_uid,
        "association_id": received.association_id,
        "calling_ae": received.calling_ae,
        "peer": received.peer,
        "path": received.path,
        "size_bytes": received.size_bytes,
        "reason_not_analysed": str(received.reason_not_analysed) if received.reason_not_analysed else None,
        "received_at": now,
        "original_path": received.original.path if received.original else None,
        "original_sha256": received.original.sha256 if received.original else None,
    }


def _stored(session: Session, received: ReceivedInstance, now: datetime) -> StoredInstance:
    values = _row(received, now)
    for in_use, outcome in ((True, Stored.NEW), (False, Stored.ALTERED)):
        same = _same_bytes(session, received)
        if same is not None:
            return _again(session, same, values)
        instance_id = insert_if_absent(session, Instance, values | {"in_use": in_use}, Instance.id)
        if instance_id is not None:
            return StoredInstance(outcome, None, instance_id)
    same = _same_bytes(session, received)
    assert same is not None, "a unique key refused both rows, so one of the same bytes exists"
    return _again(session, same, values)


def _again(session: Session, same: Instance, values: Mapping[str, Any]) -> StoredInstance:
    """Return a duplicate; where a retention rule had its file removed, the row vouches for the new one.

    Its age counts from now on, or the next purge would remove it before anybody made use of it.
    """
    places = ("path", "size_bytes", "original_path", "original_sha256", "received_at")
    anew = session.scalar(
        update(Instance)
        .where(Instance.id == same.id, Instance.purging_since.is_not(None))
        .values({name: values[name] for name in places} | {"purging_since": None, "purged_at": None})
        .returning(Instance.id),
        execution_options={"synchronize_session": False},
    )
    return StoredInstance(Stored.DUPLICATE, same.revision_id, same.id, kept_anew=anew is not None)


def _same_bytes(session: Session, received: ReceivedInstance) -> Instance | None:
    return session.scalars(
        select(Instance).where(
            Instance.sop_instance_uid == received.sop_instance_uid, Instance.sha256 == received.sha256
        )
    ).one_or_none()


def _disagrees(study: Study, received: ReceivedInstance) -> bool:
    known = (study.patient_id, study.issuer_of_patient_id)
    return known != (storable(received.patient_id), storable(received.issuer_of_patient_id))


def _put_on_hold(
    session: Session, study: Study, received: ReceivedInstance, *, now: datetime, actor: str
) -> None:
    held = hold(session, study, now)
    audit.append(
        session,
        event=Event.STUDY_CONFLICT,
        actor=actor,
        now=now,
        study_instance_uid=study.study_instance_uid,
        sop_instance_uid=received.sop_instance_uid,
        outcome=Outcome.SERIOUS_FAILURE,
        detail={
            "patient_id": [study.patient_id, received.patient_id],
            "issuer_of_patient_id": [study.issuer_of_patient_id, received.issuer_of_patient_id],
            "revisions_held": held,
        },
    )


def _joined_revision(
    session: Session, study: Study, received: ReceivedInstance, *, now: datetime, actor: str
) -> Revision:
    newest = session.scalars(
        select(Revision)
        .where(Revision.study_instance_uid == study.study_instance_uid)
        .order_by(Revision.number.desc())
        .limit(1),
        execution_options={"populate_existing": True},
    ).one_or_none()
    stage = Stage.RECEIVING if study.conflict_at is None else Stage.CONFLICT
    if newest is not None and newest.stage is stage and newest.closed_at is None:
        newest.last_received_at = max(newest.last_received_at, now)
        _handle(newest, received.handling)
        return newest
    return _opened_revision(
        session, received, newest.number + 1 if newest else 1, stage, now=now, actor=actor
    )


def _opened_revision(
    session: Session, received: ReceivedInstance, number: int, stage: Stage, *, now: datetime, actor: str
) -> Revision:
    revision = Revision(
        study_instance_uid=received.study_instance_uid,
        number=number,
        stage=stage,
        calling_ae=received.calling_ae,
        opened_at=now,
        moved_at=now,
        last_received_at=now,
        priority=0,
    )
    _handle(revision, received.handling)
    session.add(revision)
    session.flush()
    audit.append(
        session,
        event=Event.STUDY_OPENED,
        actor=actor,
        now=now,
        study_instance_uid=received.study_instance_uid,
        detail={"revision": number, "stage": stage, "calling_ae": received.calling_ae},
    )
    return revision


def _handle(revision: Revision, wanted: Handling | None) -> None:
    """Let a revision serve the rule of one more picture; the order of the pictures makes no difference."""
    if wanted is None:
        return
    before = handling_of(revision)
    merged = wanted if before is None else together(before, wanted)
    if merged != before:
        revision.quiet_seconds = merged.quiet_seconds
        revision.priority = merged.priority
        revision.retry_hours = merged.retry_hours
        revision.routes = {name: list(kinds) for name, kinds in merged.routes.items()}


def _audit_reception(
    transaction: Transaction, received: ReceivedInstance, stored: StoredInstance, *, now: datetime, actor: str
) -> None:
    audit.append(
        transaction,
        event=_event_of(stored.outcome),
        actor=actor,
        now=now,
        study_instance_uid=received.study_instance_uid,
        sop_instance_uid=received.sop_instance_uid,
        outcome=Outcome.MINOR_FAILURE if stored.outcome is Stored.ALTERED else Outcome.SUCCESS,
        detail={
            "calling_ae": received.calling_ae,
            "peer": received.peer,
            "association": received.association_id,
            "sop_class_uid": received.sop_class_uid,
            "transfer_syntax_uid": received.transfer_syntax_uid,
            "series_instance_uid": received.series_instance_uid,
            "sha256": received.sha256,
            "size_bytes": received.size_bytes,
            "path": received.path,
            "reason_not_analysed": received.reason_not_analysed,
            **({"rule": received.rule} if received.rule else {}),
            **({"certificate": received.certificate} if received.certificate else {}),
            **({"kept_anew": True} if stored.kept_anew else {}),
        },
    )


def _audit_repair(
    session: Session, received: ReceivedInstance, original: Original, *, now: datetime, actor: str
) -> None:
    audit.append(
        session,
        event=Event.INSTANCE_REPAIRED,
        actor=actor,
        now=now,
        study_instance_uid=received.study_instance_uid,
        sop_instance_uid=received.sop_instance_uid,
        detail={
            "repairs": list(original.repairs),
            "rule": received.rule,
            "original_path": original.path,
            "original_sha256": original.sha256,
            "path": received.path,
            "sha256": received.sha256,
            "calling_ae": received.calling_ae,
            "peer": received.peer,
            "association": received.association_id,
        },
    )


def _event_of(outcome: Stored) -> Event:
    match outcome:
        case Stored.NEW:
            return Event.INSTANCE_STORED
        case Stored.DUPLICATE:
            return Event.INSTANCE_DUPLICATE
        case Stored.ALTERED:
            return Event.INSTANCE_ALTERED
        case _:
            assert_never(outcome)
