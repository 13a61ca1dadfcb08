"""Studies pulled from peers: what was wanted, what is held by now, what was refused for good.

An instance is held once its row was committed, whoever brought it; the rows here only remember what a peer
was asked for, so that a run that was cut off goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, select, update
from sqlalchemy.orm import Session

from cds_db import audit
from cds_db.columns import Json
from cds_db.events import Event, Outcome
from cds_db.locks import insert_if_absent, insert_those_absent
from cds_db.models import Instance, PulledInstance, PulledStudy, Result
from cds_db.stages import PulledState, PullState

UIDS_PER_QUERY = 500
"""Databases bound the parameters of a statement."""
FAILURES_IN_AUDIT = 100
"""An audit row names so many instances that did not come; their number stands beside them."""


@dataclass(frozen=True, slots=True)
class Pull:
    """One study asked of one peer by `actor`; `said` is how many instances the peer's answer named."""

    peer: str
    study_instance_uid: str
    modalities: str
    said: int | None
    actor: str


@dataclass(frozen=True, slots=True)
class PullEnd:
    """How the pull of a study ended; `failures` maps SOP Instance UIDs to what was said."""

    instances: int
    held: int
    fetched: int
    failures: Mapping[str, str]
    error: str | None = None

    @property
    def state(self) -> PullState:
        """Return complete only where everything that the peer has is held."""
        whole = self.error is None and self.held == self.instances and not self.failures
        return PullState.COMPLETE if whole else PullState.INCOMPLETE


def is_done(session: Session, pull: Pull) -> bool:
    """Return whether the study was complete and the peer has as many instances as it had then."""
    row = session.get(PulledStudy, (pull.peer, pull.study_instance_uid))
    return (
        row is not None
        and row.state is PullState.COMPLETE
        and row.modalities == pull.modalities
        and pull.said is not None
        and row.said == pull.said
    )


def held_paths(session: Session, sop_instance_uids: Sequence[str]) -> dict[str, str]:
    """Return which instances are held, with the path of the version in use; our own results count too."""
    found: dict[str, str] = {}
    for start in range(0, len(sop_instance_uids), UIDS_PER_QUERY):
        some = sop_instance_uids[start : start + UIDS_PER_QUERY]
        stored = select(Instance.sop_instance_uid, Instance.path).where(
            Instance.sop_instance_uid.in_(some), Instance.in_use, Instance.purging_since.is_(None)
        )
        made_here = select(Result.sop_instance_uid, Result.path).where(
            Result.sop_instance_uid.in_(some), Result.purging_since.is_(None)
        )
        for uid, path in (*session.execute(made_here), *session.execute(stored)):
            found[uid] = path
    return found


def begin(session: Session, pull: Pull, wanted: Sequence[str], *, instances: int, now: datetime) -> None:
    """Note that a study is being pulled and which of its instances are wanted."""
    values: dict[str, Any] = {
        "state": PullState.RUNNING,
        "instances": instances,
        "held": instances - len(wanted),
        "said": pull.said,
        "modalities": pull.modalities,
        "updated_at": now,
    }
    key = {"peer": pull.peer, "study_instance_uid": pull.study_instance_uid}
    inserted = insert_if_absent(session, PulledStudy, {**key, **values, "started_at": now}, PulledStudy.peer)
    if inserted is None:
        same = (PulledStudy.peer == pull.peer, PulledStudy.study_instance_uid == pull.study_instance_uid)
        session.execute(update(PulledStudy).where(*same).values(**values, last_error=None))
    facts = {**key, "state": PulledState.WANTED, "attempts": 0, "updated_at": now}
    insert_those_absent(session, PulledInstance, [{**facts, "sop_instance_uid": uid} for uid in wanted])
    detail: Mapping[str, Json] = {"peer": pull.peer, "instances": instances, "wanted": len(wanted)}
    _audit(session, Event.PULL_STARTED, pull, now=now, detail=detail)


def refused_before(session: Session, pull: Pull) -> dict[str, str]:
    """Return the instances of a study that were refused, with what was said: asking again changes nothing."""
    refused = select(PulledInstance.sop_instance_uid, PulledInstance.last_error).where(
        PulledInstance.peer == pull.peer,
        PulledInstance.study_instance_uid == pull.study_instance_uid,
        PulledInstance.state == PulledState.REFUSED,
    )
    return {uid: error or "refused" for uid, error in session.execute(refused)}


def note_failure(
    session: Session, peer: str, sop_instance_uid: str, state: PulledState, error: str, *, now: datetime
) -> None:
    """Note that an instance did not come, and why; one that nobody asked for is passed over."""
    same = (PulledInstance.peer == peer, PulledInstance.sop_instance_uid == sop_instance_uid)
    session.execute(
        update(PulledInstance)
        .where(*same)
        .values(state=state, attempts=PulledInstance.attempts + 1, last_error=error or None, updated_at=now)
    )


def finish(session: Session, pull: Pull, end: PullEnd, *, now: datetime) -> None:
    """Note how the pull of a study ended."""
    same = (PulledStudy.peer == pull.peer, PulledStudy.study_instance_uid == pull.study_instance_uid)
    values = {"state": end.state, "instances": end.instances, "held": end.held, "last_error": end.error}
    session.execute(update(PulledStudy).where(*same).values(**values, updated_at=now))
    _settle_instances(session, pull, now)
    _audit(
        session,
        Event.PULL_FINISHED,
        pull,
        now=now,
        outcome=Outcome.SUCCESS if end.state is PullState.COMPLETE else Outcome.MINOR_FAILURE,
        detail={
            "peer": pull.peer,
            "instances": end.instances,
            "held": end.held,
            "fetched": end.fetched,
            "not_held": len(end.failures),
            "failures": dict(list(end.failures.items())[:FAILURES_IN_AUDIT]),
            "error": end.error,
        },
    )


def _settle_instances(session: Session, pull: Pull, now: datetime) -> None:
    """Note as held what is held by now, and as failed what nobody told anything of."""
    of_study = (
        PulledInstance.peer == pull.peer,
        PulledInstance.study_instance_uid == pull.study_instance_uid,
    )
    stored = select(Instance.sop_instance_uid).where(Instance.in_use, Instance.purging_since.is_(None))
    not_yet = PulledInstance.state != PulledState.HELD
    for condition, state in (
        (and_(not_yet, PulledInstance.sop_instance_uid.in_(stored)), PulledState.HELD),
        (PulledInstance.state == PulledState.WANTED, PulledState.FAILED),
    ):
        session.execute(
            update(PulledInstance)
            .where(*of_study, condition)
            .values(state=state, updated_at=now)
            .execution_options(synchronize_session=False)
        )


def note_query(session: Session, peer: str, asked: Mapping[str, Json], *, now: datetime, actor: str) -> None:
    """Note in the audit trail what a peer was asked."""
    audit.append(
        session, event=Event.PEER_QUERIED, actor=actor, now=now, detail={"peer": peer, **dict(asked)}
    )


def _audit(
    session: Session,
    event: Event,
    pull: Pull,
    *,
    now: datetime,
    detail: Mapping[str, Json],
    outcome: Outcome = Outcome.SUCCESS,
) -> None:
    audit.append(
        session,
        event=event,
        actor=pull.actor,
        now=now,
        study_instance_uid=pull.study_instance_uid,
        outcome=outcome,
        detail=detail,
    )
