"""Alembic runs this; cds_db.migrate hands the connection in, with its transaction open."""

from __future__ import annotations

from alembic import context

from cds_db.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
)
context.run_migrations()
