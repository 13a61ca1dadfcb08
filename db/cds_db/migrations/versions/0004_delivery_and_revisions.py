"""Commitment asked of destinations, destinations that are paused, analyses that are repeated."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from cds_db.columns import Instant, Words

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

UID = sa.String(64)
NAME = sa.String(64)
DIGEST = sa.String(64)
STATE = sa.String(16)
ROW = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add columns and tables; what is there keeps its meaning."""
    _add_columns()
    _create_revision_pictures()
    _create_asked_commitments()
    op.create_table(
        "destination_states",
        sa.Column("name", NAME, nullable=False),
        sa.Column("paused_at", Instant()),
        sa.Column("paused_by", Words()),
        sa.Column("reason", Words()),
        sa.PrimaryKeyConstraint("name", name="pk_destination_states"),
    )


def _add_columns() -> None:
    op.add_column("revisions", sa.Column("retry_hours", sa.Float()))
    op.add_column("revisions", sa.Column("origin", STATE))
    op.add_column("revisions", sa.Column("wanted_recipe", DIGEST))
    op.add_column("results", sa.Column("recipe", DIGEST))
    op.add_column("results", sa.Column("series_instance_uid", UID))
    op.add_column("deliveries", sa.Column("retry_hours", sa.Float()))
    op.add_column("deliveries", sa.Column("retry_until", Instant()))
    op.add_column("deliveries", sa.Column("commitment", STATE))
    op.add_column("deliveries", sa.Column("asked", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("delivered_objects", sa.Column("transfer_syntax_uid", UID))
    op.add_column("delivered_objects", sa.Column("committed_at", Instant()))
    op.add_column("delivered_objects", sa.Column("commitment_failure", sa.Integer()))


def _create_revision_pictures() -> None:
    op.create_table(
        "revision_pictures",
        sa.Column("revision_id", ROW, nullable=False),
        sa.Column("instance_id", ROW, nullable=False),
        sa.PrimaryKeyConstraint("revision_id", "instance_id", name="pk_revision_pictures"),
        sa.ForeignKeyConstraint(["revision_id"], ["revisions.id"], name="fk_revision_pictures_revision_id"),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name="fk_revision_pictures_instance_id"),
    )
    op.create_index("ix_revision_pictures_instance_id", "revision_pictures", ["instance_id"])


def _create_asked_commitments() -> None:
    op.create_table(
        "asked_commitments",
        sa.Column("transaction_uid", UID, nullable=False),
        sa.Column("delivery_id", ROW, nullable=False),
        sa.Column("asked_at", Instant(), nullable=False),
        sa.Column("answered_at", Instant()),
        sa.Column("committed", sa.Integer()),
        sa.Column("failed", sa.Integer()),
        sa.PrimaryKeyConstraint("transaction_uid", name="pk_asked_commitments"),
        sa.ForeignKeyConstraint(["delivery_id"], ["deliveries.id"], name="fk_asked_commitments_delivery_id"),
    )
    op.create_index("ix_asked_commitments_delivery_id", "asked_commitments", ["delivery_id"])
