"""A database of the current schema, for the parts that need one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from cds_db.session import open_engine


@pytest.fixture
def engine(tmp_path: Path, upgraded_database: Path) -> Iterator[Engine]:
    """Yield an engine on an SQLite file of this test."""
    opened = open_engine(f"sqlite:///{shutil.copy(upgraded_database, tmp_path / 'cds.db')}")
    yield opened
    opened.dispose()
