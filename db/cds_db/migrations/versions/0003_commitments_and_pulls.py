"""Storage commitment requests, and studies pulled from peers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from cds_db.columns import Document, Instant, Words

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UID = sa.String(64)
NAME = sa.String(64)
DIGEST = sa.String(64)
STATE = sa.String(16)
ROW = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the three tables; nothing that is there changes."""
    _create_commitments()
    _create_pulls()


def _create_commitments() -> None:
    op.create_table(
        "commitments",
        sa.Column("id", ROW, nullable=False, autoincrement=True),
        sa.Column("calling_ae", Words(), nullable=False),
        sa.Column("peer", Words(), nullable=False),
        sa.Column("transaction_uid", UID, nullable=False),
        sa.Column("sha256", DIGEST, nullable=False),
        sa.Column("referenced", Document(), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.Column("state", STATE, nullable=False),
        sa.Column("requested_at", Instant(), nullable=False),
        sa.Column("reported_at", Instant()),
        sa.Column("not_held", sa.Integer()),
        sa.Column("last_error", Words()),
        sa.PrimaryKeyConstraint("id", name="pk_commitments"),
        sa.UniqueConstraint(
            "calling_ae", "transaction_uid", "sha256", name="uq_commitments_calling_ae_transaction_uid_sha256"
        ),
    )
    op.create_index("ix_commitments_state", "commitments", ["state"])


def _create_pulls() -> None:
    op.create_table(
        "pulled_studies",
        sa.Column("peer", NAME, nullable=False),
        sa.Column("study_instance_uid", UID, nullable=False),
        sa.Column("state", STATE, nullable=False),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.Column("held", sa.Integer(), nullable=False),
        sa.Column("said", sa.Integer()),
        sa.Column("modalities", Words(), nullable=False),
        sa.Column("last_error", Words()),
        sa.Column("started_at", Instant(), nullable=False),
        sa.Column("updated_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("peer", "study_instance_uid", name="pk_pulled_studies"),
    )
    op.create_table(
        "pulled_instances",
        sa.Column("peer", NAME, nullable=False),
        sa.Column("sop_instance_uid", UID, nullable=False),
        sa.Column("study_instance_uid", UID, nullable=False),
        sa.Column("state", STATE, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_error", Words()),
        sa.Column("updated_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("peer", "sop_instance_uid", name="pk_pulled_instances"),
    )
    op.create_index("ix_pulled_instances_study_instance_uid", "pulled_instances", ["study_instance_uid"])
