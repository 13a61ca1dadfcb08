"""`alive`: what a health check asks of one part of this machine."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cds_db import processes
from cds_db.migrate import upgrade
from cds_db.session import open_engine, transaction
from cds_plugin.cli import build
from cds_plugin.config import load_settings
from cds_plugin.liveness import PARTS, SILENCE

Hello = Callable[..., None]
HERE = socket.gethostname()


@pytest.fixture
def settings_file(tmp_path: Path, free_port: int) -> Path:
    file = tmp_path / "cds-plugin.toml"
    file.write_text(f"[listener]\nport = {free_port}\n[web]\nenabled = true\nport = {free_port}\n")
    return file


@pytest.fixture
def hello(settings_file: Path) -> Hello:
    """Return a callable with which a part says hello; the database is there."""
    url = load_settings(settings_file).database.url
    upgrade(url)
    engine = open_engine(url)

    def say(part: str, host: str = HERE, ago: timedelta = timedelta(0)) -> None:
        with transaction(engine) as session:
            processes.say_hello(session, part, host, os.getpid(), datetime.now(UTC) - ago)

    return say


def asked(settings_file: Path, *words: str) -> Result:
    return CliRunner().invoke(build("alive"), ["alive", *words, "--config", str(settings_file)])


def test_a_part_that_said_hello_lately_is_alive(settings_file: Path, hello: Hello) -> None:
    hello("sweep")
    answer = asked(settings_file, "sweep", "--json")
    assert answer.exit_code == 0 and json.loads(answer.stdout) == {"part": "sweep", "alive": True}
    assert asked(settings_file, "deliver").exit_code == 1


def test_one_of_another_machine_or_of_long_ago_is_not(settings_file: Path, hello: Hello) -> None:
    hello("sweep", host="elsewhere")
    hello("worker", ago=SILENCE + timedelta(seconds=1))
    for part in ("sweep", "worker"):
        answer = asked(settings_file, part)
        assert answer.exit_code == 1 and "no sign of life" in answer.stdout


@pytest.mark.parametrize("part", ["listener", "web"])
def test_one_that_should_listen_must_do_so(
    settings_file: Path, hello: Hello, part: str, free_port: int
) -> None:
    hello(part)
    assert asked(settings_file, part).exit_code == 1


def test_the_listener_is_only_connected_to(settings_file: Path, hello: Hello, free_port: int) -> None:
    hello("listener")
    with socket.create_server(("127.0.0.1", free_port)):
        assert asked(settings_file, "listener").exit_code == 0


def test_without_a_database_nobody_is_called_alive(settings_file: Path) -> None:
    assert asked(settings_file, "sweep").exit_code == 1
    assert not (settings_file.parent / "var").exists()


def test_an_unknown_part_is_wrong_usage(settings_file: Path) -> None:
    answer = asked(settings_file, "printer")
    assert answer.exit_code == 2 and all(part in answer.stderr for part in PARTS)
