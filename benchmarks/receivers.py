"""The receivers that are measured: this plugin, Orthanc and dcmtk's storescp, each in its own process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import psutil
from sqlalchemy import func, select

from cds_db.migrate import upgrade
from cds_db.models import Instance
from cds_db.session import open_engine, snapshot
from cds_plugin.checks import answers_echo
from cds_plugin.demo.orthanc import Orthanc
from cds_plugin.demo.ports import LOOPBACK, free_ports

START_SECONDS = 60.0
STOP_SECONDS = 30.0
AE_TITLE = "BENCH"


class Receiver(Protocol):
    """A running storage SCP on loopback; a context manager that starts and ends its processes."""

    name: str
    port: int

    def __enter__(self) -> Self:
        """Start, and return once associations are accepted."""

    def __exit__(self, *_: object) -> None:
        """End every process by its id."""

    @abstractmethod
    def held(self) -> int:
        """Return how many objects it holds."""

    @property
    def pids(self) -> Sequence[int]:
        """Return its processes; what they started counts with them."""


@dataclass
class Plugin:
    """What `up` runs to receive, durably and audited: broker, listener(s) and the sweeper that seals."""

    directory: Path
    environment: Mapping[str, str]
    processes: int = 1
    extra: str = ""
    """More tables of the settings file."""
    name: str = "cds-plugin"
    port: int = field(default_factory=lambda: free_ports(1)[0])
    listener_pid: int = 0
    pids: list[int] = field(default_factory=list)
    _running: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True)
        config = self.directory / "cds-plugin.toml"
        config.write_text(
            f'[listener]\nae_title = "{AE_TITLE}"\nport = {self.port}\nquiet_seconds = 600\n'
            + (f"processes = {self.processes}\n" if self.processes > 1 else "")
            + self.extra
        )
        upgrade(self._url)
        self._start("broker", config)
        self._start("sweep", config)
        self.listener_pid = self._start("listen", config)
        _wait_for_echo(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def held(self) -> int:
        """Return the rows of objects, each committed after its file was durable."""
        engine = open_engine(self._url)
        try:
            with snapshot(engine) as session:
                return session.scalar(select(func.count()).select_from(Instance)) or 0
        finally:
            engine.dispose()

    @property
    def _url(self) -> str:
        return f"sqlite:///{self.directory / 'var' / 'cds.db'}"

    def _start(self, part: str, config: Path) -> int:
        command = [sys.executable, "-m", "cds_plugin", part, "--config", str(config)]
        self.pids.append(_started(command, self.directory / f"{part}.log", self.environment, self._running))
        return self.pids[-1]


@dataclass
class OrthancServer:
    """Orthanc with its defaults; only folders, ports and the names of its AE are set."""

    directory: Path
    environment: Mapping[str, str]
    name: str = "Orthanc"
    port: int = 0
    pids: list[int] = field(default_factory=list)
    _server: Orthanc | None = None

    def __enter__(self) -> Self:
        http_port, self.port = free_ports(2)
        server = Orthanc(self.directory, http_port, self.port, ae_title=AE_TITLE)
        with _environment(self.environment):
            self._server = server.__enter__()
        assert server.process is not None
        self.pids = [server.process.pid]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.stop()

    def held(self) -> int:
        """Return the instances that its statistics count."""
        assert self._server is not None
        return int(self._server.get("/statistics")["CountInstances"])


@dataclass
class Storescp:
    """dcmtk's storescp, a process per association; it writes files and makes nothing durable.

    `+xy`: by its defaults it takes no JPEG.
    """

    directory: Path
    environment: Mapping[str, str]
    name: str = "storescp"
    port: int = field(default_factory=lambda: free_ports(1)[0])
    pids: list[int] = field(default_factory=list)
    _running: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True)
        files = self.directory / "files"
        files.mkdir()
        binary = shutil.which("storescp", path="/usr/local/bin:/usr/bin:/bin")
        assert binary is not None, "dcmtk is not installed"
        command = [binary, "--fork", "+xy", "-aet", AE_TITLE, "-od", str(files), str(self.port)]
        self.pids = [_started(command, self.directory / "storescp.log", self.environment, self._running)]
        _wait_for_echo(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def held(self) -> int:
        """Return the files written."""
        return sum(1 for _ in (self.directory / "files").iterdir())


def cpu_seconds(receiver: Receiver) -> float:
    """Return the processor time that a receiver has used, its ended children included."""
    total = 0.0
    for pid in receiver.pids:
        root = psutil.Process(pid)
        for each in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += sum(each.cpu_times()[:4])
    return total


def versions() -> dict[str, str]:
    """Return what was measured, by name."""
    plugin = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "cds-plugin": plugin,
        "Orthanc": _first_line("Orthanc", "--version"),
        "storescp": _first_line("/usr/bin/storescp", "--version"),
        "storescu": _first_line("/usr/bin/storescu", "--version"),
        "python": sys.version.split()[0],
        "machine": json.dumps({"cores": os.cpu_count(), "kernel": os.uname().release}),
    }


def _first_line(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()[0].strip()


def _started(command: list[str], log: Path, environment: Mapping[str, str], running: ExitStack) -> int:
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **environment})
    running.callback(_end, process)
    return process.pid


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for_echo(receiver: Receiver) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not answers_echo(LOOPBACK, receiver.port, AE_TITLE):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{receiver.name} does not answer")
        time.sleep(0.1)


class _environment:
    """While the block runs, children inherit these variables too."""

    def __init__(self, extra: Mapping[str, str]) -> None:
        self._extra = extra

    def __enter__(self) -> None:
        self._before = {name: os.environ.get(name) for name in self._extra}
        os.environ.update(self._extra)

    def __exit__(self, *_: object) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
