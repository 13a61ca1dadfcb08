"""The first schema: studies, work, audit trail, and the triggers that keep the trail append-only."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from cds_db.columns import Document, Instant, Words
from cds_db.migrations.append_only import POSTGRESQL, SQLITE

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UID = sa.String(64)
NAME = sa.String(64)
DIGEST = sa.String(64)
STATE = sa.String(16)
PATH = sa.String(512)
ROW = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
GENESIS = "0" * 64


def upgrade() -> None:
    """Create every table and trigger."""
    _create_studies()
    _create_instances()
    _create_results()
    _create_deliveries()
    _create_jobs()
    _create_processes()
    _create_audit()
    _create_audit_head()
    for statement in POSTGRESQL if op.get_bind().dialect.name == "postgresql" else SQLITE:
        op.execute(statement)


def _create_studies() -> None:
    op.create_table(
        "studies",
        sa.Column("study_instance_uid", UID, nullable=False),
        sa.Column("patient_id", Words(), nullable=False),
        sa.Column("issuer_of_patient_id", Words(), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("conflict_at", Instant()),
        sa.PrimaryKeyConstraint("study_instance_uid", name="pk_studies"),
    )
    op.create_table(
        "revisions",
        sa.Column("id", ROW, nullable=False, autoincrement=True),
        sa.Column("study_instance_uid", UID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("stage", STATE, nullable=False),
        sa.Column("calling_ae", Words(), nullable=False),
        sa.Column("opened_at", Instant(), nullable=False),
        sa.Column("last_received_at", Instant(), nullable=False),
        sa.Column("closed_at", Instant()),
        sa.Column("failure", Words()),
        sa.PrimaryKeyConstraint("id", name="pk_revisions"),
        sa.ForeignKeyConstraint(
            ["study_instance_uid"], ["studies.study_instance_uid"], name="fk_revisions_study_instance_uid"
        ),
        sa.UniqueConstraint("study_instance_uid", "number", name="uq_revisions_study_instance_uid_number"),
    )
    op.create_index("ix_revisions_stage", "revisions", ["stage"])


def _create_instances() -> None:
    op.create_table(
        "associations",
        sa.Column("id", NAME, nullable=False),
        sa.Column("listener", NAME, nullable=False),
        sa.Column("calling_ae", Words(), nullable=False),
        sa.Column("peer", Words(), nullable=False),
        sa.Column("opened_at", Instant(), nullable=False),
        sa.Column("active_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_associations"),
    )
    op.create_index("ix_associations_listener", "associations", ["listener"])
    op.create_table(
        "instances",
        sa.Column("id", ROW, nullable=False, autoincrement=True),
        sa.Column("sop_instance_uid", UID, nullable=False),
        sa.Column("sha256", DIGEST, nullable=False),
        sa.Column("in_use", sa.Boolean(), nullable=False),
        sa.Column("sop_class_uid", UID, nullable=False),
        sa.Column("transfer_syntax_uid", UID, nullable=False),
        sa.Column("study_instance_uid", UID, nullable=False),
        sa.Column("series_instance_uid", UID, nullable=False),
        sa.Column("revision_id", ROW),
        sa.Column("association_id", Words(), nullable=False),
        sa.Column("calling_ae", Words(), nullable=False),
        sa.Column("peer", Words(), nullable=False),
        sa.Column("path", PATH, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("reason_not_analysed", Words()),
        sa.Column("received_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_instances"),
        sa.ForeignKeyConstraint(
            ["study_instance_uid"], ["studies.study_instance_uid"], name="fk_instances_study_instance_uid"
        ),
        sa.ForeignKeyConstraint(["revision_id"], ["revisions.id"], name="fk_instances_revision_id"),
        sa.UniqueConstraint("sop_instance_uid", "sha256", name="uq_instances_sop_instance_uid_sha256"),
    )
    op.create_index("ix_instances_study_instance_uid", "instances", ["study_instance_uid"])
    op.create_index("ix_instances_revision_id", "instances", ["revision_id"])
    op.create_index("ix_instances_path", "instances", ["path"])
    _index_where("uq_instances_in_use", "instances", "sop_instance_uid", "in_use", unique=True)


def _create_results() -> None:
    op.create_table(
        "results",
        sa.Column("sop_instance_uid", UID, nullable=False),
        sa.Column("sop_class_uid", UID, nullable=False),
        sa.Column("kind", STATE, nullable=False),
        sa.Column("revision_id", ROW, nullable=False),
        sa.Column("source_sop_instance_uid", UID, nullable=False),
        sa.Column("path", PATH, nullable=False),
        sa.Column("sha256", DIGEST, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid", name="pk_results"),
        sa.ForeignKeyConstraint(["revision_id"], ["revisions.id"], name="fk_results_revision_id"),
        sa.UniqueConstraint(
            "revision_id",
            "source_sop_instance_uid",
            "kind",
            name="uq_results_revision_id_source_sop_instance_uid_kind",
        ),
    )
    op.create_index("ix_results_source_sop_instance_uid", "results", ["source_sop_instance_uid"])


def _create_deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", ROW, nullable=False, autoincrement=True),
        sa.Column("revision_id", ROW, nullable=False),
        sa.Column("destination", NAME, nullable=False),
        sa.Column("state", STATE, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_error", Words()),
        sa.Column("delivered_at", Instant()),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.ForeignKeyConstraint(["revision_id"], ["revisions.id"], name="fk_deliveries_revision_id"),
        sa.UniqueConstraint("revision_id", "destination", name="uq_deliveries_revision_id_destination"),
    )
    op.create_table(
        "delivered_objects",
        sa.Column("delivery_id", ROW, nullable=False),
        sa.Column("sop_instance_uid", UID, nullable=False),
        sa.Column("delivered_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("delivery_id", "sop_instance_uid", name="pk_delivered_objects"),
        sa.ForeignKeyConstraint(["delivery_id"], ["deliveries.id"], name="fk_delivered_objects_delivery_id"),
        sa.ForeignKeyConstraint(
            ["sop_instance_uid"], ["results.sop_instance_uid"], name="fk_delivered_objects_sop_instance_uid"
        ),
    )


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", ROW, nullable=False, autoincrement=True),
        sa.Column("kind", STATE, nullable=False),
        sa.Column("subject_id", ROW, nullable=False),
        sa.Column("state", STATE, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", Instant(), nullable=False),
        sa.Column("woken_at", Instant()),
        sa.Column("lease_owner", Words()),
        sa.Column("lease_until", Instant()),
        sa.Column("last_error", Words()),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.UniqueConstraint("kind", "subject_id", name="uq_jobs_kind_subject_id"),
    )
    op.create_index("ix_jobs_state_not_before", "jobs", ["state", "not_before"])


def _create_processes() -> None:
    op.create_table(
        "processes",
        sa.Column("name", NAME, nullable=False),
        sa.Column("host", NAME, nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", Instant(), nullable=False),
        sa.Column("seen_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("name", "host", "pid", name="pk_processes"),
    )


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", ROW, nullable=False, autoincrement=True),
        sa.Column("seq", sa.BigInteger()),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("event", NAME, nullable=False),
        sa.Column("actor", Words(), nullable=False),
        sa.Column("study_instance_uid", Words()),
        sa.Column("sop_instance_uid", Words()),
        sa.Column("outcome", STATE, nullable=False),
        sa.Column("detail", Document(), nullable=False),
        sa.Column("previous_hash", DIGEST),
        sa.Column("hash", DIGEST),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
        sa.UniqueConstraint("seq", name="uq_audit_seq"),
        sqlite_autoincrement=True,
    )
    for column in ("at", "event", "study_instance_uid"):
        op.create_index(f"ix_audit_{column}", "audit", [column])
    _index_where("ix_audit_unsealed", "audit", "id", "seq IS NULL", unique=False)


def _create_audit_head() -> None:
    head = op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", DIGEST, nullable=False),
        sa.Column("sealed_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_head"),
    )
    op.bulk_insert(
        head, [{"id": 1, "seq": 0, "hash": GENESIS, "sealed_at": datetime(1970, 1, 1, tzinfo=UTC)}]
    )


def _index_where(name: str, table: str, column: str, condition: str, *, unique: bool) -> None:
    where = sa.text(condition)
    op.create_index(name, table, [column], unique=unique, sqlite_where=where, postgresql_where=where)
