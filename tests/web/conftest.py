"""A web server on loopback with a database and a storage folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ward import LOOPBACK
from web_site import Site

from cds_db.migrate import upgrade
from cds_db.session import open_engine
from cds_plugin.config import Database, Destination, Listener, Rule, Settings, Storage, Web
from cds_plugin.demo.ports import free_ports


@pytest.fixture
def site(tmp_path: Path, upgraded_database: Path) -> Iterator[Site]:
    """Yield surroundings with an upgraded SQLite database; start the server yourself."""
    shutil.copy(upgraded_database, tmp_path / "cds.db")
    yield from _site(f"sqlite:///{tmp_path / 'cds.db'}", tmp_path)


@pytest.fixture
def site_on_postgres(postgres_url: str, tmp_path: Path) -> Iterator[Site]:
    """Yield surroundings with an upgraded PostgreSQL database."""
    upgrade(postgres_url)
    yield from _site(postgres_url, tmp_path)


def _site(url: str, folder: Path) -> Iterator[Site]:
    dicom_port, http_port = free_ports(2)
    settings = Settings(
        listener=Listener(port=dicom_port, quiet_seconds=0.5),
        web=Web(enabled=True, port=http_port),
        storage=Storage(directory=folder / "var"),
        database=Database(url=url),
        destinations=(Destination(name="pacs", ae_title="PACS", host=LOOPBACK, port=dicom_port),),
        rules=(Rule(calling_ae="*", results_to=("pacs",)),),
    )
    engine = open_engine(url)
    yield Site(settings, engine)
    engine.dispose()
