"""Alembic's environment and versions, shipped in the wheel."""
