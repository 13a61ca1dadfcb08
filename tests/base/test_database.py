"""Every part opens the database the same way: a wrong, old or absent one is named before anything starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select, text
from typer.testing import CliRunner

from cds_db.migrate import current, upgrade
from cds_db.models import Study
from cds_db.session import open_engine, snapshot
from cds_plugin.cli import build
from cds_plugin.config import Database, Settings, load_settings
from cds_plugin.console import Exit
from cds_plugin.database import UPDATE, UPGRADE, open_database, opened_database
from cds_plugin.doctor import examine
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


def of_version(folder: Path, version: str) -> str:
    """Return the URL of a database that says it has the schema of another version."""
    url = f"sqlite:///{folder / 'cds.db'}"
    upgrade(url)
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE alembic_version SET version_num = '{version}'"))
    engine.dispose()
    return url


def test_a_newer_schema_of_the_same_generation_is_worked_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = of_version(tmp_path, "0999")
    with opened_database(settings(url)) as engine, snapshot(engine) as session:
        assert session.scalars(select(Study)).all() == []
    assert "newer" in "".join(capsys.readouterr()) and current(url) == "0999"


@pytest.mark.parametrize(("version", "said"), [("1001", "does not know"), ("0001", "needs")])
def test_another_schema_is_refused_by_name(tmp_path: Path, version: str, said: str) -> None:
    with pytest.raises(Refused, match=f"schema {version}.* {said}") as refused:
        open_database(settings(of_version(tmp_path, version)))
    assert refused.value.action == (UPDATE if version == "1001" else UPGRADE)


@pytest.mark.parametrize(
    ("version", "code", "said"),
    [("0999", Exit.DONE, "schema 0999"), ("1001", Exit.FAILED, "Update this installation")],
)
def test_commands_say_what_a_later_schema_is(tmp_path: Path, version: str, code: int, said: str) -> None:
    file = tmp_path / "cds-plugin.toml"
    file.write_text(f'[database]\nurl = "{of_version(tmp_path, version)}"\n')
    done = CliRunner().invoke(build("db"), ["db", "upgrade", "--config", str(file)])
    assert done.exit_code == code and said in " ".join(done.output.split())
    finding = next(examine(load_settings(file)))
    assert finding.check == "database" and finding.ok is (code == Exit.DONE)
    assert said in f"{finding.detail} {finding.action}"
    assert current(load_settings(file).database.url) == version
    if code == Exit.FAILED:
        up = CliRunner().invoke(build("up"), ["up", "--config", str(file)])
        assert up.exit_code == code and said in " ".join(up.output.split())


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
def test_doctor_names_a_server_whose_clock_is_another(postgres_url: str) -> None:
    upgrade(postgres_url)
    assert next(examine(settings(postgres_url))).ok
    engine = open_engine(postgres_url)
    with engine.begin() as connection:
        for statement in A_CLOCK_AHEAD:
            connection.execute(text(statement.format(database=engine.url.database)))
    engine.dispose()
    found = next(examine(settings(postgres_url)))
    assert not found.ok and "differ by 60." in found.detail and "NTP" in found.action


A_CLOCK_AHEAD = (
    "CREATE SCHEMA ahead",
    "CREATE FUNCTION ahead.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS "
    "$$ SELECT pg_catalog.clock_timestamp() + interval '60.5 s' $$",
    'ALTER DATABASE "{database}" SET search_path = ahead, pg_catalog, public',
)


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
