"""Whatever goes wrong unexpectedly is told by kind and place: a library's words may quote a header."""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SECRET = "ZZYX^PATIENT"
START = f"import sys; from cds_plugin.discretion import be_discreet; be_discreet(); secret = {SECRET!r}\n"


def said(program: str) -> list[dict[str, Any]]:
    """Run a program that is discreet from its first line on; return the lines of its log."""
    done = subprocess.run(
        [sys.executable, "-c", START + program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == ""
    assert SECRET not in done.stderr
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_an_exception_that_nobody_caught_is_told_by_its_kind_and_place() -> None:
    program = """
def inner():
    raise ValueError("bad " + secret)
try:
    inner()
except ValueError as error:
    raise KeyError(secret) from error
"""
    (line,) = said(program)
    assert (line["event"], line["error"], line["from"]) == ("uncaught", "KeyError", ["ValueError"])
    assert any("inner" in call for call in line["at_calls"][1])


def test_so_is_one_of_a_thread_and_one_that_nobody_can_catch() -> None:
    program = """
import threading
class Leaving:
    def __del__(self):
        raise ValueError(secret)
def work():
    raise ValueError(secret)
thread = threading.Thread(target=work); thread.start(); thread.join()
Leaving()
"""
    assert [line["event"] for line in said(program)] == ["uncaught-in-thread", "unraisable"]


@pytest.mark.parametrize(
    "saying",
    [
        'log.error(f"cannot parse {secret}")',
        'log.warning("cannot parse %s", secret)',
        "log.error(ValueError(secret))",
        'log.error("it failed", exc_info=ValueError(secret))',
        'log.setLevel("DEBUG"); log.debug("dataset %s", secret)',
    ],
)
def test_of_a_library_only_the_place_is_told(saying: str) -> None:
    (line,) = said(f'import logging; log = logging.getLogger("pynetdicom.acse")\n{saying}')
    assert (line["event"], line["logger"], line["at"]) == ("library", "pynetdicom.acse", "<string>:3")


def test_of_those_that_never_see_an_object_the_fixed_text_is_told() -> None:
    program = """
import logging
try:
    raise ValueError(secret)
except ValueError as error:
    logging.getLogger("celery.app.trace").error("task failed: %s", error, exc_info=True)
"""
    (line,) = said(program)
    assert (line["event"], line["error"]) == ("task failed: %s", "ValueError")


def test_a_warning_is_told_by_its_kind() -> None:
    (line,) = said("import warnings; warnings.warn('Invalid value ' + secret, UserWarning)")
    assert (line["error"], line["at"]) == ("UserWarning", "<string>:2")


def test_no_core_file_is_left_behind() -> None:
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if hard == 0:
        pytest.skip("the system allows no core files")
    program = f"""
import os, resource
resource.setrlimit(resource.RLIMIT_CORE, ({hard}, {hard})); be_discreet()
os._exit(resource.getrlimit(resource.RLIMIT_CORE)[0] != 0)
"""
    done = subprocess.run([sys.executable, "-c", START + program], check=False, timeout=60)
    assert done.returncode == 0


def test_the_command_line_is_discreet_from_the_start() -> None:
    """Typer has a hook of its own, which would print the text."""
    program = (
        "import cds_plugin.commands.rules as rules, cds_plugin.cli as cli\n"
        f"def fail(*_): raise ValueError({SECRET!r})\n"
        "rules.load_settings = fail; cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "rules", "check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert json.loads(line)["error"] == "ValueError"
    assert SECRET not in done.stderr


def test_what_a_command_writes_is_for_its_owner_only(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "CDS_STORAGE__DIRECTORY": "here/var",
        "CDS_DATABASE__URL": "sqlite:///here/cds.db",
    }
    command = [sys.executable, "-m", "cds_plugin", "db", "upgrade"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, umask=0o022)
    made = {each.name: stat.S_IMODE(each.stat().st_mode) for each in tmp_path.rglob("*")}
    assert made["cds.db"] == 0o600 and made["here"] == 0o700
    assert not [name for name, mode in made.items() if mode & 0o077]
