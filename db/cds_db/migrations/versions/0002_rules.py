"""What rules decide: waiting time, urgency and routes of a revision, kinds of a delivery, kept originals."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from cds_db.columns import Document, Instant, Words

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; what is there already keeps the behaviour of its time."""
    op.add_column("revisions", sa.Column("quiet_seconds", sa.Float()))
    op.add_column("revisions", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("revisions", sa.Column("routes", Document()))
    op.add_column("deliveries", sa.Column("kinds", Words()))
    op.add_column("instances", sa.Column("original_path", sa.String(512)))
    op.add_column("instances", sa.Column("original_sha256", sa.String(64)))
    op.add_column("jobs", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("claimed_at", Instant()))
    op.create_index("ix_jobs_claimed_at", "jobs", ["claimed_at"])
