"""Every part opens the database the same way: a wrong, old or absent one is named before anything starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select, text

from cds_db.migrate import upgrade
from cds_db.models import Study
from cds_db.session import snapshot
from cds_plugin.config import Database, Settings
from cds_plugin.console import Exit
from cds_plugin.database import open_database, opened_database
from cds_plugin.errors import CdsError, Refused, Unavailable


def settings(url: str) -> Settings:
    return Settings(database=Database(url=url))


def nobody_there(port: int) -> str:
    return f"postgresql+psycopg://nobody@127.0.0.1:{port}/cds"


def test_a_database_that_was_never_upgraded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        open_database(settings(f"sqlite:///{tmp_path / 'cds.db'}"))
    assert refused.value.code == "database_not_current"
    assert not (tmp_path / "cds.db").exists()


def test_a_server_that_is_away_is_unavailable(free_port: int) -> None:
    with pytest.raises(Unavailable) as away:
        open_database(settings(nobody_there(free_port)))
    assert away.value.code == "database"


def test_a_failure_while_a_command_works_is_named_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'cds.db'}"
    upgrade(url)
    with (
        pytest.raises(CdsError) as failed,
        opened_database(settings(url)) as engine,
        snapshot(engine) as session,
    ):
        assert session.scalars(select(Study)).all() == []
        session.execute(text("SELECT * FROM no_such_table"))
    assert failed.value.code == "database"


@pytest.mark.slow
def test_no_part_starts_without_its_database(tmp_path: Path, free_port: int) -> None:
    file = tmp_path / "cds-plugin.toml"
    file.write_text(f'[database]\nurl = "{nobody_there(free_port)}"\n')
    command = [sys.executable, "-m", "cds_plugin"]
    running = {
        name: subprocess.Popen([*command, name, "--config", file], stderr=subprocess.PIPE, text=True)
        for name in ("listen", "sweep", "deliver", "worker", "up")
    }
    for name, process in running.items():
        _, said = process.communicate(timeout=60)
        assert process.returncode == Exit.FAILED, (name, said)
        assert "Start it, or correct database.url." in said, (name, said)
