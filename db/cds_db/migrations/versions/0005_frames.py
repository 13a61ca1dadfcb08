"""Results of objects of several frames: each frame has its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

OLD = "uq_results_revision_id_source_sop_instance_uid_kind"
NEW = "uq_results_revision_id_source_sop_instance_uid_frame_kind"
UNIQUE = ["revision_id", "source_sop_instance_uid", "frame", "kind"]
ASIDE = "delivered_objects_aside"


def upgrade() -> None:
    """Add the frame to what makes a result unique; what is there is of the first frame."""
    if op.get_bind().dialect.name == "sqlite":
        _with_deliveries_aside()
    else:
        _change()


def _with_deliveries_aside() -> None:
    """SQLite changes a constraint by copying the table, and drops no table that rows refer to."""
    op.execute(sa.text(f"CREATE TEMPORARY TABLE {ASIDE} AS SELECT * FROM delivered_objects"))
    op.execute(sa.text("DELETE FROM delivered_objects"))
    _change()
    op.execute(sa.text(f"INSERT INTO delivered_objects SELECT * FROM {ASIDE}"))
    op.execute(sa.text(f"DROP TABLE {ASIDE}"))


def _change() -> None:
    with op.batch_alter_table("results") as results:
        results.add_column(sa.Column("frame", sa.Integer(), nullable=False, server_default="1"))
        results.drop_constraint(OLD, type_="unique")
        results.create_unique_constraint(NEW, UNIQUE)
