"""Lesions as they were reported, for a later visit to know them again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from cds_db.columns import Instant, Words

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

UID = sa.String(64)
DIGEST = sa.String(64)
ROW = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the table; what was reported before it stays unknown to later visits."""
    op.create_table(
        "lesions",
        sa.Column("revision_id", ROW, nullable=False),
        sa.Column("source_sop_instance_uid", UID, nullable=False),
        sa.Column("frame", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("tracking_uid", UID, nullable=False),
        sa.Column("observed_at", Instant(), nullable=False),
        *(sa.Column(side, sa.Integer(), nullable=False) for side in ("x0", "y0", "x1", "y1")),
        sa.Column("site", Words()),
        sa.Column("laterality", Words()),
        sa.Column("malignancy", sa.Float(), nullable=False),
        sa.Column("area_mm2", sa.Float()),
        sa.Column("appearance", sa.LargeBinary()),
        sa.Column("appearance_model", DIGEST),
        sa.PrimaryKeyConstraint(
            "revision_id", "source_sop_instance_uid", "frame", "number", name="pk_lesions"
        ),
        sa.ForeignKeyConstraint(["revision_id"], ["revisions.id"], name="fk_lesions_revision_id"),
    )
    op.create_index("ix_lesions_tracking_uid", "lesions", ["tracking_uid"])
