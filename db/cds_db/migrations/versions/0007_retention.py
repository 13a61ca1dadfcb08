"""Files that a retention rule removed: their rows stay and say when."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from cds_db.columns import Instant

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

DUE = sa.text("purging_since IS NOT NULL AND purged_at IS NULL")


def upgrade() -> None:
    """Add two instants to what has a file; every file that there is stays."""
    for table in ("instances", "results"):
        op.add_column(table, sa.Column("purging_since", Instant()))
        op.add_column(table, sa.Column("purged_at", Instant()))
        op.create_index(
            f"ix_{table}_being_purged", table, ["purging_since"], sqlite_where=DUE, postgresql_where=DUE
        )
