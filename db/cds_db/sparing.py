"""What no retention rule may touch: conditions over a study, a picture or a result, as SQL. Pure.

A file is spared while anything may still need it: work that goes on, results that a destination has not
taken, a question that was not answered, a failure that somebody has to look at, a patient in doubt.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, aliased

from cds_db.models import Delivery, Instance, Lesion, Result, Revision, RevisionPicture, Study
from cds_db.stages import AskedState, DeliveryState, Stage

REPORT_KIND = "sr"
ON_THEIR_WAY = (Stage.RECEIVING, Stage.QUEUED, Stage.ANALYSING, Stage.DELIVERING)
"""Their whole study is spared."""
Condition: TypeAlias = ColumnElement[bool]


class Spared(StrEnum):
    """Why a file stays although it is older than the rule says."""

    ON_HOLD = "on_hold"
    AT_WORK = "at_work"
    NOT_DELIVERED = "not_delivered"
    FAILED = "failed"
    NOT_VOUCHED_FOR = "commitment_not_answered"
    ASKED_FOR = "commitment_asked_of_us"
    RERUN = "kept_for_rerun"
    PRIOR = "kept_as_prior"


def studies_spared() -> dict[Spared, Condition]:
    """Return the conditions over `Study` under which nothing of it is removed."""
    revision, delivery = aliased(Revision), aliased(Delivery)
    of_study = revision.study_instance_uid == Study.study_instance_uid

    def has_revision(*stages: Stage) -> Condition:
        return exists().where(of_study, revision.stage.in_(stages)).correlate(Study)

    def has_delivery(condition: Condition) -> Condition:
        return exists().where(of_study, delivery.revision_id == revision.id, condition).correlate(Study)

    unanswered = delivery.commitment.in_((AskedState.PENDING, AskedState.FAILED))
    pending = has_delivery(delivery.state == DeliveryState.PENDING)
    return {
        Spared.ON_HOLD: Study.conflict_at.is_not(None),
        Spared.AT_WORK: has_revision(Stage.RECEIVING, Stage.QUEUED, Stage.ANALYSING),
        Spared.NOT_DELIVERED: or_(has_revision(Stage.DELIVERING), pending),
        Spared.FAILED: has_delivery(delivery.state == DeliveryState.FAILED),
        Spared.NOT_VOUCHED_FOR: has_delivery(unanswered),
    }


def picture_failed() -> Condition:
    """Return the condition over `Instance` that its newest analysis did not end well.

    What is not analysed has none; an older failure counts no more once a later revision is complete, and one
    that somebody discarded is settled.
    """
    revision = aliased(Revision)
    again = exists().where(
        RevisionPicture.revision_id == revision.id, RevisionPicture.instance_id == Instance.id
    )
    newest = (
        select(revision.stage)
        .where(or_(revision.id == Instance.revision_id, again))
        .order_by(revision.number.desc())
        .limit(1)
        .correlate(Instance)
        .scalar_subquery()
    )
    analysed = and_(Instance.reason_not_analysed.is_(None), Instance.revision_id.is_not(None))
    return and_(analysed, newest.not_in((Stage.COMPLETE, Stage.DISCARDED, *ON_THEIR_WAY)))


def result_failed() -> Condition:
    """Return the condition over `Result` that the newest analysis of its picture did not end well."""
    return exists().where(
        Instance.sop_instance_uid == Result.source_sop_instance_uid, Instance.in_use, picture_failed()
    )


def picture_wants_rerun() -> Condition:
    """Return the condition over `Instance` that its newest report is not of the newest recipe of all."""
    newest_of_all = (
        select(Result.recipe)
        .where(Result.kind == REPORT_KIND)
        .order_by(Result.created_at.desc(), Result.sop_instance_uid)
        .limit(1)
        .correlate(None)
        .scalar_subquery()
    )
    own, revision = aliased(Result), aliased(Revision)
    newest_own = (
        select(own.recipe)
        .join(revision, revision.id == own.revision_id)
        .where(own.source_sop_instance_uid == Instance.sop_instance_uid, own.kind == REPORT_KIND)
        .order_by(revision.number.desc())
        .limit(1)
        .correlate(Instance)
        .scalar_subquery()
    )
    differs = func.coalesce(newest_own, "") != func.coalesce(newest_of_all, "")
    return and_(Instance.in_use, Instance.revision_id.is_not(None), differs)


def picture_is_prior() -> Condition:
    """Return the condition over `Instance` that it shows a lesion as it was seen last."""
    return _shows_newest(Instance.sop_instance_uid)


def result_is_prior() -> Condition:
    """Return the condition over `Result` that it reports a lesion as it was seen last."""
    return _shows_newest(Result.source_sop_instance_uid)


def _shows_newest(source: InstrumentedAttribute[str]) -> Condition:
    shown, later = aliased(Lesion), aliased(Lesion)
    seen_later = exists().where(
        later.tracking_uid == shown.tracking_uid, later.observed_at > shown.observed_at
    )
    return exists().where(shown.source_sop_instance_uid == source, ~seen_later)
