"""Destinations that are away are left alone for a while: how often they failed, since when, until when."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from cds_db.columns import Instant

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add three columns to the states of destinations; none is away."""
    table = "destination_states"
    op.add_column(table, sa.Column("failures", sa.Integer(), nullable=False, server_default="0"))
    op.add_column(table, sa.Column("away_since", Instant()))
    op.add_column(table, sa.Column("left_alone_until", Instant()))
