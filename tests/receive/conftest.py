"""A listener on loopback with a database and a storage folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ward import LOOPBACK, Ward

from cds_db.migrate import upgrade
from cds_db.session import open_engine
from cds_plugin.config import Database, Destination, Listener, Rule, Settings, Storage


@pytest.fixture
def ward(tmp_path: Path, free_port: int) -> Iterator[Ward]:
    """Return surroundings with an upgraded SQLite database; start its listener yourself."""
    url = f"sqlite:///{tmp_path / 'cds.db'}"
    upgrade(url)
    settings = Settings(
        listener=Listener(port=free_port, quiet_seconds=0.5),
        storage=Storage(directory=tmp_path / "var"),
        database=Database(url=url),
        destinations=(Destination(name="pacs", ae_title="PACS", host=LOOPBACK, port=free_port),),
        rules=(
            Rule(calling_ae="IMPORTER", results_to=("pacs",)),
            Rule(calling_ae="*", results_to=("pacs",)),
        ),
    )
    engine = open_engine(url)
    yield Ward(settings, engine)
    engine.dispose()
