"""Typed tables: instances, studies, revisions, results, deliveries, jobs, associations, audit."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from cds_db.columns import Document, Instant, Words, enum_of
from cds_db.stages import (
    AskedState,
    CommitmentState,
    DeliveryState,
    JobKind,
    JobState,
    Origin,
    PulledState,
    PullState,
    Stage,
)

UID_LENGTH = 64
"""PS3.5 section 9: a UID has at most 64 characters."""
SHA256_LENGTH = 64
NAME_LENGTH = 64
ON_HOLD = "conflict_at IS NOT NULL"
"""The condition of an index of the studies on hold: mostly there is none."""
PATH_LENGTH = 512

RowId = BigInteger().with_variant(Integer(), "sqlite")
CONSTRAINT_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """The metadata of every table."""

    metadata = MetaData(naming_convention=CONSTRAINT_NAMES)


def _being_purged(name: str) -> Index:
    """Return the index of the rows whose files are still to be removed: mostly an empty one."""
    due = text("purging_since IS NOT NULL AND purged_at IS NULL")
    return Index(name, "purging_since", sqlite_where=due, postgresql_where=due)


class Removable:
    """A row whose file a retention rule may remove; the row stays and says what was there.

    From `purging_since` on the file counts as gone; `purged_at` says when it was seen to be.
    """

    purging_since: Mapped[datetime | None] = mapped_column(Instant)
    purged_at: Mapped[datetime | None] = mapped_column(Instant)


class Study(Base):
    """One Study Instance UID; the row that writers lock."""

    __tablename__ = "studies"
    __table_args__ = (
        Index(
            "ix_studies_on_hold", "conflict_at", sqlite_where=text(ON_HOLD), postgresql_where=text(ON_HOLD)
        ),
    )

    study_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH), primary_key=True)
    patient_id: Mapped[str] = mapped_column(Words)
    issuer_of_patient_id: Mapped[str] = mapped_column(Words)
    created_at: Mapped[datetime] = mapped_column(Instant)
    conflict_at: Mapped[datetime | None] = mapped_column(Instant)


class Association(Base):
    """An association that is open now; closed ones have no row."""

    __tablename__ = "associations"

    id: Mapped[str] = mapped_column(String(NAME_LENGTH), primary_key=True)
    listener: Mapped[str] = mapped_column(String(NAME_LENGTH), index=True)
    calling_ae: Mapped[str] = mapped_column(Words)
    peer: Mapped[str] = mapped_column(Words)
    opened_at: Mapped[datetime] = mapped_column(Instant)
    active_at: Mapped[datetime] = mapped_column(Instant)


class Revision(Base):
    """The images of a study that were closed together; late images make the next number."""

    __tablename__ = "revisions"
    __table_args__ = (UniqueConstraint("study_instance_uid", "number"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    study_instance_uid: Mapped[str] = mapped_column(ForeignKey("studies.study_instance_uid"))
    number: Mapped[int]
    stage: Mapped[Stage] = mapped_column(enum_of(Stage), index=True)
    calling_ae: Mapped[str] = mapped_column(Words)
    opened_at: Mapped[datetime] = mapped_column(Instant)
    last_received_at: Mapped[datetime] = mapped_column(Instant)
    closed_at: Mapped[datetime | None] = mapped_column(Instant)
    moved_at: Mapped[datetime | None] = mapped_column(Instant)
    """When it came to its stage; None: before that was noted."""
    failure: Mapped[str | None] = mapped_column(Words)
    quiet_seconds: Mapped[float | None] = mapped_column(Float)
    priority: Mapped[int] = mapped_column(default=0, server_default="0")
    routes: Mapped[Mapping[str, Any] | None] = mapped_column(Document)
    """Destination -> kinds of result, as the rules of its pictures say."""
    retry_hours: Mapped[float | None] = mapped_column(Float)
    """As the rules of its pictures say; None: as each destination says."""
    origin: Mapped[Origin | None] = mapped_column(enum_of(Origin))
    """None: pictures that were received together; else why its pictures are analysed once more."""
    wanted_recipe: Mapped[str | None] = mapped_column(String(SHA256_LENGTH))
    """The models and settings that a repeated analysis was asked for; None: any."""


class RevisionPicture(Base):
    """A picture that a repeated analysis takes up; it was received with an earlier revision."""

    __tablename__ = "revision_pictures"

    revision_id: Mapped[int] = mapped_column(ForeignKey("revisions.id"), primary_key=True)
    instance_id: Mapped[int] = mapped_column(ForeignKey("instances.id"), primary_key=True, index=True)


class Instance(Removable, Base):
    """One stored object. The same SOP Instance UID with other bytes is a second row with in_use false."""

    __tablename__ = "instances"
    __table_args__ = (
        UniqueConstraint("sop_instance_uid", "sha256"),
        Index(
            "uq_instances_in_use",
            "sop_instance_uid",
            unique=True,
            sqlite_where=text("in_use"),
            postgresql_where=text("in_use"),
        ),
        _being_purged("ix_instances_being_purged"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    sha256: Mapped[str] = mapped_column(String(SHA256_LENGTH))
    in_use: Mapped[bool]
    sop_class_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    transfer_syntax_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    study_instance_uid: Mapped[str] = mapped_column(ForeignKey("studies.study_instance_uid"), index=True)
    series_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    revision_id: Mapped[int | None] = mapped_column(ForeignKey("revisions.id"), index=True)
    association_id: Mapped[str] = mapped_column(Words)
    calling_ae: Mapped[str] = mapped_column(Words)
    peer: Mapped[str] = mapped_column(Words)
    path: Mapped[str] = mapped_column(String(PATH_LENGTH), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    reason_not_analysed: Mapped[str | None] = mapped_column(Words)
    received_at: Mapped[datetime] = mapped_column(Instant)
    original_path: Mapped[str | None] = mapped_column(String(PATH_LENGTH))
    original_sha256: Mapped[str | None] = mapped_column(String(SHA256_LENGTH))
    """Where a rule had the object repaired: the bytes that were sent."""


class Result(Removable, Base):
    """One object that this product made, written and hashed once; its bytes lie at `path`.

    It is of that `frame` of its picture, 1 and up; 1 where the picture is an object of its own.
    """

    __tablename__ = "results"
    __table_args__ = (
        UniqueConstraint("revision_id", "source_sop_instance_uid", "frame", "kind"),
        _being_purged("ix_results_being_purged"),
    )

    sop_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH), primary_key=True)
    sop_class_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    kind: Mapped[str] = mapped_column(String(16))
    revision_id: Mapped[int] = mapped_column(ForeignKey("revisions.id"))
    source_sop_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH), index=True)
    frame: Mapped[int] = mapped_column(default=1, server_default="1")
    path: Mapped[str] = mapped_column(String(PATH_LENGTH))
    sha256: Mapped[str] = mapped_column(String(SHA256_LENGTH))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(Instant)
    recipe: Mapped[str | None] = mapped_column(String(SHA256_LENGTH))
    """The digest of models and settings that made it; None: made before that was noted."""
    series_instance_uid: Mapped[str | None] = mapped_column(String(UID_LENGTH))


class Lesion(Base):
    """A lesion as one revision reported it, with what a later visit can know it again by.

    `frame` counts from 1; 0: the picture has only one. The box is in pixels, `x1` and `y1` exclusive.
    """

    __tablename__ = "lesions"

    revision_id: Mapped[int] = mapped_column(ForeignKey("revisions.id"), primary_key=True)
    source_sop_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH), primary_key=True)
    frame: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    tracking_uid: Mapped[str] = mapped_column(String(UID_LENGTH), index=True)
    observed_at: Mapped[datetime] = mapped_column(Instant)
    x0: Mapped[int]
    y0: Mapped[int]
    x1: Mapped[int]
    y1: Mapped[int]
    site: Mapped[str | None] = mapped_column(Words)
    laterality: Mapped[str | None] = mapped_column(Words)
    malignancy: Mapped[float] = mapped_column(Float)
    area_mm2: Mapped[float | None] = mapped_column(Float)
    appearance: Mapped[bytes | None] = mapped_column(LargeBinary)
    """A vector of length one, single precision, little-endian."""
    appearance_model: Mapped[str | None] = mapped_column(String(SHA256_LENGTH))


class Delivery(Base):
    """The results of one revision on their way to one destination."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("revision_id", "destination"),
        Index(None, "state", "destination"),
        Index(None, "commitment"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    revision_id: Mapped[int] = mapped_column(ForeignKey("revisions.id"))
    destination: Mapped[str] = mapped_column(String(NAME_LENGTH))
    state: Mapped[DeliveryState] = mapped_column(enum_of(DeliveryState))
    attempts: Mapped[int]
    last_error: Mapped[str | None] = mapped_column(Words)
    delivered_at: Mapped[datetime | None] = mapped_column(Instant)
    kinds: Mapped[str | None] = mapped_column(Words)
    """The kinds of result that go, with blanks between them; None: all."""
    retry_hours: Mapped[float | None] = mapped_column(Float)
    """As the rule says; None: as the destination says."""
    retry_until: Mapped[datetime | None] = mapped_column(Instant)
    """When it is given up; None before its first attempt, and again once somebody had it retried."""
    commitment: Mapped[AskedState | None] = mapped_column(enum_of(AskedState))
    """Whether the destination vouches for the objects; None: it was not asked."""
    asked: Mapped[int] = mapped_column(default=0, server_default="0")
    """How often commitment was asked for."""


class DeliveredObject(Base):
    """An object that a destination took; a later attempt sends only the others.

    `transfer_syntax_uid` is what it went in, `commitment_failure` why the destination does not vouch for it.
    """

    __tablename__ = "delivered_objects"

    delivery_id: Mapped[int] = mapped_column(ForeignKey("deliveries.id"), primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(ForeignKey("results.sop_instance_uid"), primary_key=True)
    delivered_at: Mapped[datetime] = mapped_column(Instant)
    transfer_syntax_uid: Mapped[str | None] = mapped_column(String(UID_LENGTH))
    committed_at: Mapped[datetime | None] = mapped_column(Instant)
    commitment_failure: Mapped[int | None]


class AskedCommitment(Base):
    """A storage commitment that we asked a destination for (PS3.4 annex J), and its answer."""

    __tablename__ = "asked_commitments"

    transaction_uid: Mapped[str] = mapped_column(String(UID_LENGTH), primary_key=True)
    delivery_id: Mapped[int] = mapped_column(ForeignKey("deliveries.id"), index=True)
    asked_at: Mapped[datetime] = mapped_column(Instant)
    answered_at: Mapped[datetime | None] = mapped_column(Instant)
    committed: Mapped[int | None]
    failed: Mapped[int | None]


class DestinationState(Base):
    """A destination that somebody paused, or that is away; without a row it is neither."""

    __tablename__ = "destination_states"

    name: Mapped[str] = mapped_column(String(NAME_LENGTH), primary_key=True)
    paused_at: Mapped[datetime | None] = mapped_column(Instant)
    paused_by: Mapped[str | None] = mapped_column(Words)
    reason: Mapped[str | None] = mapped_column(Words)
    failures: Mapped[int] = mapped_column(default=0, server_default="0")
    """Associations in a row that failed."""
    away_since: Mapped[datetime | None] = mapped_column(Instant)
    left_alone_until: Mapped[datetime | None] = mapped_column(Instant)


class Job(Base):
    """Work that a task does: `subject_id` is a revision, a delivery or a commitment, as its kind says."""

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("kind", "subject_id"),
        Index(None, "state", "not_before"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    kind: Mapped[JobKind] = mapped_column(enum_of(JobKind))
    subject_id: Mapped[int] = mapped_column(RowId)
    state: Mapped[JobState] = mapped_column(enum_of(JobState))
    attempts: Mapped[int]
    lost: Mapped[int] = mapped_column(default=0, server_default="0")
    """How many processes in a row took it and never said what became of it."""
    not_before: Mapped[datetime] = mapped_column(Instant)
    woken_at: Mapped[datetime | None] = mapped_column(Instant)
    lease_owner: Mapped[str | None] = mapped_column(Words)
    lease_until: Mapped[datetime | None] = mapped_column(Instant)
    last_error: Mapped[str | None] = mapped_column(Words)
    priority: Mapped[int] = mapped_column(default=0, server_default="0")
    claimed_at: Mapped[datetime | None] = mapped_column(Instant, index=True)
    """When it was last taken: senders take turns."""


class Commitment(Base):
    """A storage commitment request (PS3.4 annex J) and how it was answered.

    `sha256` is that of the references; a request that is sent again is one row. `referenced` is emptied
    once the report went out.
    """

    __tablename__ = "commitments"
    __table_args__ = (
        UniqueConstraint("calling_ae", "transaction_uid", "sha256"),
        Index(None, "state"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    calling_ae: Mapped[str] = mapped_column(Words)
    peer: Mapped[str] = mapped_column(Words)
    transaction_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    sha256: Mapped[str] = mapped_column(String(SHA256_LENGTH))
    referenced: Mapped[Mapping[str, Any]] = mapped_column(Document)
    instances: Mapped[int]
    state: Mapped[CommitmentState] = mapped_column(enum_of(CommitmentState))
    requested_at: Mapped[datetime] = mapped_column(Instant)
    reported_at: Mapped[datetime | None] = mapped_column(Instant)
    not_held: Mapped[int | None]
    last_error: Mapped[str | None] = mapped_column(Words)


class PulledStudy(Base):
    """A study that was asked of a peer: `held` of the `instances` that were wanted from it are there.

    `said` is the number of instances that the peer's answer to the query named, `modalities` what was wanted.
    """

    __tablename__ = "pulled_studies"

    peer: Mapped[str] = mapped_column(String(NAME_LENGTH), primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH), primary_key=True)
    state: Mapped[PullState] = mapped_column(enum_of(PullState))
    instances: Mapped[int]
    held: Mapped[int]
    said: Mapped[int | None]
    modalities: Mapped[str] = mapped_column(Words)
    last_error: Mapped[str | None] = mapped_column(Words)
    started_at: Mapped[datetime] = mapped_column(Instant)
    updated_at: Mapped[datetime] = mapped_column(Instant)


class PulledInstance(Base):
    """An instance that a peer has and that was not there when it was asked for, and what became of it."""

    __tablename__ = "pulled_instances"

    peer: Mapped[str] = mapped_column(String(NAME_LENGTH), primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH), primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH), index=True)
    state: Mapped[PulledState] = mapped_column(enum_of(PulledState))
    attempts: Mapped[int]
    last_error: Mapped[str | None] = mapped_column(Words)
    updated_at: Mapped[datetime] = mapped_column(Instant)


class Process(Base):
    """A process of this product that said hello; `seen_at` is its last sign of life.

    `worked_at` is when it last took a message or finished a round, or could not have; None: it does neither.
    """

    __tablename__ = "processes"

    name: Mapped[str] = mapped_column(String(NAME_LENGTH), primary_key=True)
    host: Mapped[str] = mapped_column(String(NAME_LENGTH), primary_key=True)
    pid: Mapped[int] = mapped_column(primary_key=True)
    started_at: Mapped[datetime] = mapped_column(Instant)
    seen_at: Mapped[datetime] = mapped_column(Instant)
    worked_at: Mapped[datetime | None] = mapped_column(Instant)


class Overdue(Base):
    """A state that lasts longer than its limit, once the sweeper said so; `since` is when it began."""

    __tablename__ = "overdue"

    subject: Mapped[str] = mapped_column(String(16), primary_key=True)
    subject_id: Mapped[str] = mapped_column(String(UID_LENGTH), primary_key=True)
    state: Mapped[str] = mapped_column(String(16), primary_key=True)
    since: Mapped[datetime] = mapped_column(Instant)
    said_at: Mapped[datetime] = mapped_column(Instant)


class AuditEntry(Base):
    """One append-only row. `seq`, `previous_hash` and `hash` are None until the sealer linked it."""

    __tablename__ = "audit"
    __table_args__ = (
        Index(
            "ix_audit_unsealed", "id", sqlite_where=text("seq IS NULL"), postgresql_where=text("seq IS NULL")
        ),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    seq: Mapped[int | None] = mapped_column(BigInteger, unique=True)
    at: Mapped[datetime] = mapped_column(Instant, index=True)
    event: Mapped[str] = mapped_column(String(NAME_LENGTH), index=True)
    actor: Mapped[str] = mapped_column(Words)
    study_instance_uid: Mapped[str | None] = mapped_column(Words, index=True)
    sop_instance_uid: Mapped[str | None] = mapped_column(Words)
    outcome: Mapped[str] = mapped_column(String(16))
    detail: Mapped[Mapping[str, Any]] = mapped_column(Document)
    previous_hash: Mapped[str | None] = mapped_column(String(SHA256_LENGTH))
    hash: Mapped[str | None] = mapped_column(String(SHA256_LENGTH))


class AuditHead(Base):
    """The last sealed row: always exactly one row (id 1), made by the migration with seq 0."""

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seq: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[str] = mapped_column(String(SHA256_LENGTH))
    sealed_at: Mapped[datetime] = mapped_column(Instant)
