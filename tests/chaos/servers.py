"""PostgreSQL and Redis as processes on free ports of loopback, which may be killed and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
import redis

from cds_plugin.demo.orthanc import Orthanc
from cds_plugin.demo.ports import LOOPBACK, free_ports

START_SECONDS = 120.0
"""On a machine that is busy with other things; mostly it takes one."""
STOP_SECONDS = 30.0


class ServerMissing(Exception):
    """The server's program is not installed here."""


@dataclass
class PostgresServer:
    """A PostgreSQL of its own in `folder`, run as an ordinary user; a context manager."""

    folder: Path
    port: int = field(default_factory=lambda: free_ports(1)[0])
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PostgresServer:
        self._as_user = as_ordinary_user(self.folder)
        command = ["initdb", "-D", "data", "-U", "cds", "-A", "trust", "-N"]
        subprocess.run(self._command(*command), check=True, capture_output=True, cwd=self.folder)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGQUIT)

    @property
    def address(self) -> str:
        """Return the part of its URLs before the database's name."""
        return f"cds@{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers; what a killed one left in memory may need a moment to go."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            self._launch()
            if self._answers(deadline):
                return
            if time.monotonic() > deadline:
                raise TimeoutError((self.folder / "log").read_text()[-3000:])

    def stop(self, number: signal.Signals) -> None:
        """End it: SIGTERM waits for its clients, SIGINT throws them out, SIGQUIT ends at once."""
        if self.process is None:
            return
        everybody = psutil.Process(self.process.pid).children() if number == signal.SIGKILL else []
        self.process.send_signal(number)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(STOP_SECONDS)
        for each in everybody:
            end_if_there(each)

    @property
    def runs(self) -> bool:
        """Return whether its first process lives."""
        return self.process is not None and self.process.poll() is None

    def create(self, name: str) -> str:
        """Return the SQLAlchemy URL of a new, empty database."""
        with psycopg.connect(f"postgresql://{self.address}/postgres", autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return f"postgresql+psycopg://{self.address}/{name}"

    def _launch(self) -> None:
        options = ["-h", LOOPBACK, "-p", str(self.port), "-k", str(self.folder), "-c", "max_connections=200"]
        options += ["-c", "fsync=off"]  # only what a power cut would leave needs it
        with (self.folder / "log").open("ab") as log:
            command = self._command("postgres", "-D", "data", *options)
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)

    def _answers(self, deadline: float) -> bool:
        while self.runs and time.monotonic() < deadline:
            try:
                psycopg.connect(f"postgresql://{self.address}/postgres").close()
                return True
            except psycopg.OperationalError:
                time.sleep(0.1)
        return False

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [*self._as_user, str(postgres_programs() / program), *arguments]


class ScratchOrthanc(Orthanc):
    """An Orthanc whose folder nobody reads any more: it is killed, for ending by itself takes it 3.5 s."""

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@dataclass
class RedisServer:
    """A Redis that keeps nothing on disk; a context manager."""

    folder: Path
    port: int = field(default_factory=lambda: free_ports(1)[0])
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGTERM)

    @property
    def url(self) -> str:
        """Return its URL as a broker."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        binary = shutil.which("redis-server")
        if binary is None:
            raise ServerMissing("redis-server is not installed")
        options = ["--port", str(self.port), "--bind", LOOPBACK, "--save", "", "--dir", str(self.folder)]
        self.process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline:
                raise TimeoutError("redis-server does not answer")
            time.sleep(0.05)

    def stop(self, number: signal.Signals) -> None:
        """End it; what it held is gone."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(STOP_SECONDS)

    def forget(self) -> None:
        """Throw away everything that it holds."""
        with redis.Redis(host=LOOPBACK, port=self.port) as client:
            client.flushall()

    def _answers(self) -> bool:
        try:
            with redis.Redis(host=LOOPBACK, port=self.port) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def postgres_programs() -> Path:
    """Return the folder of initdb and postgres."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    binary = shutil.which("initdb")
    if binary is None:
        raise ServerMissing("PostgreSQL is not installed")
    return Path(binary).parent


def as_ordinary_user(folder: Path) -> list[str]:
    """Return what a command starts with to run as an ordinary user, who then owns `folder`."""
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam("postgres")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def end_if_there(process: psutil.Process) -> None:
    """Kill a process that may be gone already."""
    try:
        process.kill()
        process.wait(STOP_SECONDS)
    except psutil.NoSuchProcess:
        pass
