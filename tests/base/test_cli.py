"""The command line: what is listed, what is absent without the models, what it imports."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner

from cds_plugin.cli import COMMANDS, GROUP, build

ROOT = Path(__file__).parents[2]


def test_every_command_is_registered_and_every_registered_one_is_known() -> None:
    ours = [each for each in entry_points(group=GROUP) if each.dist and each.dist.name == "cds-plugin"]
    assert {each.name for each in ours} == set(COMMANDS)


def test_the_readme_lists_the_commands_of_the_help() -> None:
    table = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| `")]
    first_column = " ".join(line.split("|")[1] for line in table)
    listed = {words.split()[0] for words in re.findall(r"`([^`]+)`", first_column)}
    assert set(COMMANDS) <= listed
    assert not {name for name in listed if "/" not in name} - set(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_explains_itself(name: str) -> None:
    answer = CliRunner().invoke(build(name), [name, "--help"])
    assert answer.exit_code == 0, answer.output
    assert "Usage" in answer.output


def test_a_base_install_names_the_extra_of_an_absent_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cds_plugin.cli.entry_points", lambda group: [])
    answer = CliRunner().invoke(build("analyze"), ["analyze", "picture.jpg", "--out", "x"])
    assert answer.exit_code == 1
    assert "install cds-plugin[worker]" in answer.output


def test_help_and_the_listener_import_no_torch() -> None:
    code = (
        "import sys; from cds_plugin.cli import build; build(None); build('listen'); build('deliver');"
        "bad = {'torch', 'torchvision', 'monai', 'timm'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_wrong_usage_is_exit_code_two() -> None:
    command = [sys.executable, "-m", "cds_plugin"]
    assert subprocess.run([*command, "nonsense"], capture_output=True, check=False).returncode == 2
    environment = {"CDS_LISTENER__PROT": "1", "PATH": ""}
    done = subprocess.run([*command, "status"], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert "listener.prot" in done.stderr


def test_a_command_run_before_leaves_no_closed_stream_behind() -> None:
    assert CliRunner().invoke(build("conformance"), ["conformance"]).exit_code == 0
    structlog.get_logger("later").warning("still heard")
