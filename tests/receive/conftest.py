"""A listener on loopback with a database and a storage folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ward import LOOPBACK, Ward

from cds_db.migrate import upgrade
from cds_db.session import open_engine
from cds_plugin.config import Database, Destination, Listener, Rule, Settings, Storage


@pytest.fixture
def ward(tmp_path: Path, upgraded_database: Path, free_port: int) -> Iterator[Ward]:
    """Yield surroundings with an upgraded SQLite database; start its listener yourself."""
    shutil.copy(upgraded_database, tmp_path / "cds.db")
    yield from _ward(f"sqlite:///{tmp_path / 'cds.db'}", tmp_path, free_port)


@pytest.fixture
def ward_on_postgres(postgres_url: str, tmp_path: Path, free_port: int) -> Iterator[Ward]:
    """Yield surroundings with an upgraded PostgreSQL database."""
    upgrade(postgres_url)
    yield from _ward(postgres_url, tmp_path, free_port)


def _ward(url: str, folder: Path, port: int) -> Iterator[Ward]:
    settings = Settings(
        listener=Listener(port=port, quiet_seconds=0.5),
        storage=Storage(directory=folder / "var"),
        database=Database(url=url),
        destinations=(Destination(name="pacs", ae_title="PACS", host=LOOPBACK, port=port),),
        rules=(
            Rule(calling_ae="IMPORTER", results_to=("pacs",)),
            Rule(calling_ae="*", results_to=("pacs",)),
        ),
    )
    engine = open_engine(url)
    yield Ward(settings, engine)
    engine.dispose()
