"""A real Orthanc as the peer, and the product's surroundings without a listener."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from clinic import Clinic
from servers import ScratchOrthanc
from ward import LOOPBACK, Ward

from cds_db.session import open_engine
from cds_plugin.config import Database, Destination, Listener, Rule, Settings, Storage
from cds_plugin.demo.ports import free_ports


@pytest.fixture
def ward(tmp_path: Path, upgraded_database: Path) -> Iterator[Ward]:
    """Yield surroundings with an upgraded SQLite database."""
    shutil.copy(upgraded_database, tmp_path / "cds.db")
    (port,) = free_ports(1)
    settings = Settings(
        listener=Listener(port=port, quiet_seconds=0.5),
        storage=Storage(directory=tmp_path / "var"),
        database=Database(url=f"sqlite:///{tmp_path / 'cds.db'}"),
        destinations=(Destination(name="pacs", ae_title="PACS", host=LOOPBACK, port=port),),
        rules=(Rule(calling_ae="*", results_to=("pacs",)),),
    )
    engine = open_engine(settings.database.url)
    yield Ward(settings, engine)
    engine.dispose()


@pytest.fixture
def clinic(ward: Ward, tmp_path: Path) -> Iterator[Clinic]:
    """Yield a running Orthanc that knows our listener, beside the product's surroundings."""
    http_port, dicom_port = free_ports(2)
    peers = {"cds": ("CDS", LOOPBACK, ward.port)}
    with ScratchOrthanc(tmp_path / "orthanc", http_port, dicom_port, peers) as orthanc:
        yield Clinic(ward, orthanc, tmp_path)
