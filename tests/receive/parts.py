"""Parts of the product as processes of a test: started with a settings file, waited for, killed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ward import Ward

from cds_plugin.receive.spool import sha256_of

START_SECONDS = 60
"""On a busy machine; most often it takes two."""


def settings_file(ward: Ward, folder: Path, more: str = "") -> Path:
    """Write the ward's place as a settings file; `more` are further tables, in TOML."""
    path = folder / "cds-plugin.toml"
    path.write_text(
        f'[listener]\nport = {ward.port}\n[storage]\ndirectory = "{ward.directory}"\n'
        f'[database]\nurl = "{ward.settings.database.url}"\n{more}'
    )
    return path


def command_of(part: str, config: Path) -> list[str]:
    return [sys.executable, "-m", "cds_plugin", part, "--config", str(config)]


def log_of(config: Path) -> Path:
    """Return where the processes started with these settings log."""
    return config.parent / "log"


@contextmanager
def a_part(
    part: str, config: Path, is_up: Callable[[], object] = lambda: True
) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a running part once it is up; it is killed at the end if it still runs."""
    with log_of(config).open("ab") as log, subprocess.Popen(command_of(part, config), stderr=log) as process:
        try:
            until(is_up, why=lambda: log_of(config).read_text()[-3000:])
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def until(
    is_so: Callable[[], object],
    between: Callable[[], object] = lambda: None,
    why: Callable[[], str] = lambda: "it did not come about",
) -> None:
    """Wait for something to come about."""
    deadline = time.monotonic() + START_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, why()
        between()
        time.sleep(0.1)


def kill_soon(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Kill a process (SIGKILL) while the test goes on."""
    threading.Timer(seconds, process.kill).start()


def assert_kept(ward: Ward, acknowledged: Sequence[str]) -> None:
    """Every acknowledged instance has its row and its very bytes."""
    kept = {each.sop_instance_uid: each for each in ward.instances()}
    for uid in acknowledged:
        assert sha256_of(ward.directory / kept[uid].path) == kept[uid].sha256
