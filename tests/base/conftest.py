"""A database of the current schema, for the parts that need one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from cds_db.migrate import upgrade
from cds_db.session import open_engine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """Yield an engine on an SQLite file of this test."""
    url = f"sqlite:///{tmp_path / 'cds.db'}"
    upgrade(url)
    opened = open_engine(url)
    yield opened
    opened.dispose()
