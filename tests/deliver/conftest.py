"""Fixtures of the delivery tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from postroom import LOOPBACK, Postroom

from cds_db.session import open_engine
from cds_plugin.config import Database, Destination, Settings, Storage
from cds_plugin.demo.ports import free_ports


@pytest.fixture
def ports() -> list[int]:
    return free_ports(2)


@pytest.fixture
def postroom(tmp_path: Path, ports: list[int], upgraded_database: Path) -> Iterator[Postroom]:
    url = f"sqlite:///{tmp_path / 'cds.db'}"
    shutil.copy(upgraded_database, tmp_path / "cds.db")
    settings = Settings(
        storage=Storage(directory=tmp_path / "var"),
        database=Database(url=url),
        destinations=tuple(
            Destination(name=name, ae_title="PACS", host=LOOPBACK, port=port)
            for name, port in zip(("pacs", "second"), ports, strict=True)
        ),
    )
    engine = open_engine(url)
    yield Postroom(settings, engine)
    engine.dispose()
