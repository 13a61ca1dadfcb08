"""Indexes for what the sweeper looks for every few seconds: deliveries that wait, studies on hold."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

ON_HOLD = sa.text("conflict_at IS NOT NULL")


def upgrade() -> None:
    """Add three indexes; no row changes."""
    op.create_index("ix_deliveries_state_destination", "deliveries", ["state", "destination"])
    op.create_index("ix_deliveries_commitment", "deliveries", ["commitment"])
    op.create_index(
        "ix_studies_on_hold", "studies", ["conflict_at"], sqlite_where=ON_HOLD, postgresql_where=ON_HOLD
    )
