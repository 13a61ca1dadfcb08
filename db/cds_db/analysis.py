"""From a closed revision to its results and the deliveries of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from cds_db import jobs
from cds_db.columns import Json
from cds_db.events import Event, Outcome
from cds_db.lesions import ReportedLesion, record_lesions
from cds_db.locks import locked_revision
from cds_db.models import Delivery, Instance, Result, Revision, RevisionPicture
from cds_db.moves import move, shortened
from cds_db.stages import DeliveryState, IllegalMove, JobKind, Stage
from cds_db.trail import note

REPORT_KIND = "sr"
"""Every picture of an analysed revision has a result of this kind."""


@dataclass(frozen=True, slots=True)
class NewResult:
    """An object that was built and lies at `path`, relative to the storage directory.

    `recipe` is the digest of the models and settings that made it.
    `frame` is the number of the picture within the source object, 1 where it is the only one.
    """

    sop_instance_uid: str
    sop_class_uid: str
    kind: str
    source_sop_instance_uid: str
    path: str
    sha256: str
    size_bytes: int
    recipe: str | None = None
    series_instance_uid: str | None = None
    frame: int = 1


def start_analysis(session: Session, revision_id: int, *, now: datetime, actor: str) -> None:
    """Begin a queued analysis, or begin again one whose worker was lost. Raises IllegalMove."""
    revision = locked_revision(session, revision_id)
    again = revision.stage is Stage.ANALYSING
    if not again:
        move(revision, Stage.ANALYSING, now)
    event = Event.ANALYSIS_RETRIED if again else Event.ANALYSIS_STARTED
    note(session, revision, event, now=now, actor=actor, detail={})


def revision_pictures(session: Session, revision_id: int) -> list[Instance]:
    """Return the instances of one revision that are to be analysed, in order of reception.

    They were received with it, or it takes them up again.
    """
    again = select(RevisionPicture.instance_id).where(RevisionPicture.revision_id == revision_id)
    wanted = select(Instance).where(
        or_(Instance.revision_id == revision_id, Instance.id.in_(again)),
        Instance.in_use,
        Instance.reason_not_analysed.is_(None),
    )
    return list(session.scalars(wanted.order_by(Instance.id)))


def results_of(
    session: Session, revision_id: int, source_sop_instance_uid: str | None = None
) -> list[Result]:
    """Return the results of a revision, or of one of its pictures, oldest first."""
    wanted = select(Result).where(Result.revision_id == revision_id)
    if source_sop_instance_uid is not None:
        wanted = wanted.where(Result.source_sop_instance_uid == source_sop_instance_uid)
    return list(
        session.scalars(
            wanted.order_by(Result.created_at, Result.source_sop_instance_uid, Result.frame, Result.kind)
        )
    )


def record_results(
    session: Session,
    revision_id: int,
    results: Sequence[NewResult],
    *,
    now: datetime,
    actor: str,
    detail: Mapping[str, Json],
    refused: bool = False,
    lesions: Sequence[ReportedLesion] = (),
) -> list[Result]:
    """Record all results of one picture and return those that hold.

    Where an earlier run recorded the picture, its results hold and nothing changes. `detail` is what the
    models answered (bundles, quality, lesions); `refused` says that the picture was not analysed.
    Raises IllegalMove when the revision is not being analysed, ValueError when `results` are not of one of
    its pictures.
    """
    revision = locked_revision(session, revision_id)
    source = _only_source(results)
    if revision.stage is not Stage.ANALYSING:
        raise IllegalMove(f"results for a revision that is {revision.stage}")
    if source not in {each.sop_instance_uid for each in revision_pictures(session, revision_id)}:
        raise ValueError(f"{source} is no picture of revision {revision_id}")
    earlier = results_of(session, revision_id, source)
    if earlier:
        return earlier
    _audit_picture(session, revision, source, now=now, actor=actor, detail=detail, refused=refused)
    for each in results:
        _record(session, revision, each, now=now, actor=actor)
    record_lesions(session, revision.id, lesions)
    session.flush()
    return results_of(session, revision_id, source)


def finish_analysis(
    session: Session,
    revision_id: int,
    destinations: Sequence[str],
    *,
    now: datetime,
    actor: str,
    kinds: Mapping[str, Sequence[str]] | None = None,
) -> list[int]:
    """End an analysis; return the ids of the delivery jobs, one per destination (none: complete at once).

    `kinds` names the kinds of result that a destination gets; one that it does not name gets all. Raises
    IllegalMove where the revision is not being analysed or a picture of it has no report yet.
    """
    revision = locked_revision(session, revision_id)
    results = results_of(session, revision_id)
    _check_reports(session, revision, results)
    move(revision, Stage.DELIVERING if destinations else Stage.COMPLETE, now)
    wanted = {name: " ".join(each) for name, each in (kinds or {}).items()}
    detail: dict[str, Json] = {"results": len(results), "destinations": list(destinations), "kinds": wanted}
    note(session, revision, Event.ANALYSIS_FINISHED, now=now, actor=actor, detail=detail)
    return [
        _delivery_job(session, revision, each, wanted.get(each), now) for each in dict.fromkeys(destinations)
    ]


def fail_analysis(session: Session, revision_id: int, *, reason: str, now: datetime, actor: str) -> None:
    """Give an analysis up for good; `reason` says why. Raises IllegalMove."""
    revision = locked_revision(session, revision_id)
    move(revision, Stage.FAILED, now)
    revision.failure = shortened(reason)
    note(
        session,
        revision,
        Event.ANALYSIS_FAILED,
        now=now,
        actor=actor,
        detail={"reason": revision.failure},
        outcome=Outcome.SERIOUS_FAILURE,
    )


def _only_source(results: Sequence[NewResult]) -> str:
    sources = {each.source_sop_instance_uid for each in results}
    if len(sources) != 1:
        raise ValueError(f"results of {len(sources)} pictures; one was expected")
    return sources.pop()


def _check_reports(session: Session, revision: Revision, results: Sequence[Result]) -> None:
    reported = {each.source_sop_instance_uid for each in results if each.kind == REPORT_KIND}
    missing = [
        each for each in revision_pictures(session, revision.id) if each.sop_instance_uid not in reported
    ]
    if missing:
        raise IllegalMove(f"{len(missing)} pictures of revision {revision.id} have no report")


def _delivery_job(
    session: Session, revision: Revision, destination: str, kinds: str | None, now: datetime
) -> int:
    delivery = Delivery(
        revision_id=revision.id,
        destination=destination,
        state=DeliveryState.PENDING,
        attempts=0,
        kinds=kinds,
        retry_hours=revision.retry_hours,
    )
    session.add(delivery)
    session.flush()
    return jobs.create(session, JobKind.DELIVERY, delivery.id, now, revision.priority)


def _audit_picture(
    session: Session,
    revision: Revision,
    source: str,
    *,
    now: datetime,
    actor: str,
    detail: Mapping[str, Json],
    refused: bool,
) -> None:
    note(
        session,
        revision,
        Event.PICTURE_REFUSED if refused else Event.PICTURE_ANALYSED,
        now=now,
        actor=actor,
        detail=detail,
        outcome=Outcome.MINOR_FAILURE if refused else Outcome.SUCCESS,
        sop_instance_uid=source,
    )


def _record(session: Session, revision: Revision, result: NewResult, *, now: datetime, actor: str) -> None:
    fields = asdict(result)
    session.add(Result(revision_id=revision.id, created_at=now, **fields))
    sop_instance_uid = fields.pop("sop_instance_uid")
    note(
        session,
        revision,
        Event.RESULT_CREATED,
        now=now,
        actor=actor,
        detail=fields,
        sop_instance_uid=sop_instance_uid,
    )
