"""What bounds and watches the work: lost jobs, since when a stage lasts, who worked last, what is overdue."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from cds_db.columns import Instant

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns that may be empty and one table; code that does not know them goes on."""
    op.add_column("jobs", sa.Column("lost", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("revisions", sa.Column("moved_at", Instant()))
    op.add_column("processes", sa.Column("worked_at", Instant()))
    op.create_table(
        "overdue",
        sa.Column("subject", sa.String(16), nullable=False),
        sa.Column("subject_id", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("since", Instant(), nullable=False),
        sa.Column("said_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "subject_id", "state", name="pk_overdue"),
    )
