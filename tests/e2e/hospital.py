"""A whole plugin as processes on loopback, as a hospital would run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Engine

from cds_db import audit, studies
from cds_db.audit import AuditFilter
from cds_db.events import Event
from cds_db.models import AuditEntry
from cds_db.session import open_engine, snapshot
from cds_plugin.config import load_settings
from cds_plugin.demo.ports import LOOPBACK, free_ports

READY_SECONDS = 240
RESULT_SECONDS = 180
STOP_SECONDS = 60
SEND_SECONDS = 120
POLL_SECONDS = 0.2


@dataclass
class Plugin:
    """`cds-plugin up` in a folder of its own; a context manager."""

    directory: Path
    pacs_ae: str
    pacs_port: int
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=lambda: free_ports(1)[0])
    web_port: int = field(default_factory=lambda: free_ports(1)[0])
    process: subprocess.Popen[str] | None = None
    pids: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> Plugin:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.config.write_text(
            f"[listener]\nport = {self.port}\nquiet_seconds = 1.0\n"
            f'[[destinations]]\nname = "pacs"\nae_title = "{self.pacs_ae}"\nhost = "{LOOPBACK}"\n'
            f'port = {self.pacs_port}\n[[rules]]\ncalling_ae = "*"\nresults_to = ["pacs"]\n'
            f"[web]\nenabled = true\nport = {self.web_port}\n"
        )
        with (self.directory / "log").open("a") as log:
            self.process = subprocess.Popen(
                self._command("up", "--json"),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environment,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log()[-3000:]
        ready = json.loads(line)
        assert ready["ready"] and ready["listener"]["port"] == self.port
        self.pids = ready["pids"]
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(STOP_SECONDS)

    @property
    def config(self) -> Path:
        return self.directory / "cds-plugin.toml"

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run a command of the plugin with its settings file."""
        command = self._command(*map(str, arguments))
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, env=self._environment
        )

    def take(self, files: Sequence[Path]) -> None:
        """Send files to the listener with C-STORE; every one must be acknowledged."""
        where = f"CDS@{LOOPBACK}:{self.port}"
        command = [sys.executable, "-m", "cds_plugin", "send", *map(str, files), "--to", where]
        subprocess.run(command, check=True, capture_output=True, timeout=SEND_SECONDS)

    def status(self, study: str) -> dict[str, Any] | None:
        done = self.run("status", study, "--json")
        return json.loads(done.stdout) if done.returncode == 0 and done.stdout else None

    def wait_for(
        self, study: str, stage: str = "complete", revision: int = 1, seconds: float = RESULT_SECONDS
    ) -> dict[str, Any]:
        """Return the status of a study, as the command gives it, once it reached a stage of a revision."""
        self.until(lambda: self._reached(study) == (stage, revision), seconds)
        state = self.status(study)
        assert state is not None
        return state

    def until(self, condition: Callable[[], object], seconds: float = RESULT_SECONDS) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.log()[-3000:]
            time.sleep(POLL_SECONDS)

    def recorded(self, study: str, event: Event) -> list[AuditEntry]:
        """Return the audit rows of one kind about a study, straight from the database."""
        with snapshot(self._engine) as session:
            return list(audit.query(session, AuditFilter(study=study, event=event)))

    def family(self) -> list[psutil.Process]:
        """Return every process that `up` has started and that still lives."""
        assert self.process is not None
        everybody = psutil.Process(self.process.pid).children(recursive=True)
        return [each for each in everybody if each.status() != psutil.STATUS_ZOMBIE]

    def audit(self, *filters: object) -> list[dict[str, Any]]:
        done = self.run("audit", "list", "--json", *filters)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def _reached(self, study: str) -> tuple[str, int] | None:
        with snapshot(self._engine) as session:
            state = studies.status(session, study)
        return None if state is None else (str(state.stage), state.revision)

    @cached_property
    def _engine(self) -> Engine:
        return open_engine(load_settings(self.config, self._environment).database.url)

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.environment}

    def _command(self, name: str, *arguments: str) -> list[str]:
        head, rest = (name, arguments)
        sub = [rest[0]] if name in ("audit", "db") else []
        return [
            sys.executable,
            "-m",
            "cds_plugin",
            head,
            *sub,
            "--config",
            str(self.config),
            *rest[len(sub) :],
        ]
