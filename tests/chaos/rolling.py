"""A rolling upgrade with real old code: the processes of an older commit, replaced one after the other.

    python tests/chaos/rolling.py COMMIT [--back]

Needs the commit in this checkout's history, PostgreSQL and Redis; no test: CI may have no history. A study
is sent on the old schema, one while it is upgraded, one on the new schema, and one after each process that is
replaced. At the end each must have its results in the store, once, and the trail must be whole.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from servers import PostgresServer, RedisServer

from cds_plugin.demo.ports import LOOPBACK, free_ports
from cds_plugin.demo.store import DemoStore
from cds_plugin.dicomize import dicomize
from cds_plugin.phantom import draw_phantom
from cds_plugin.reach import port_is_open

HERE = Path(__file__).resolve().parents[2]

ORDER = ("sweep", "deliver", "worker", "listen")
"""Readers first, then who brings new work."""
STUDY_SECONDS, READY_SECONDS = 300, 120
SETTINGS = """
[listener]
port = {port}
quiet_seconds = 1.0
[database]
url = "{database}"
[broker]
url = "{broker}"
[[destinations]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs}
[[rules]]
calling_ae = "*"
results_to = ["pacs"]
"""
ROOMS = ("", "db", "worker", "monai_bundles")


@dataclass
class Rolling:
    """The parts as they run, each of the old code or of this one."""

    old: Path
    folder: Path
    port: int
    store: DemoStore
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    sent: int = 0

    def run(self, code: Path, *words: str) -> subprocess.CompletedProcess[str]:
        command, environment = self._command(code, *words)
        return subprocess.run(
            command,
            env=environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def start(self, code: Path, name: str) -> None:
        command, environment = self._command(code, name)
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command, env=environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )

    def stop(self, name: str) -> None:
        self.running[name].send_signal(signal.SIGTERM)
        code = self.running[name].wait(180)
        print(f"  {name} ended with {code}", flush=True)

    def replace(self, name: str, code: Path) -> None:
        """Stop a part and start it as the other code, then send a study."""
        self.stop(name)
        self.start(code, name)
        while name == "listen" and not port_is_open(LOOPBACK, self.port):
            assert self.running[name].poll() is None, self.told()
            time.sleep(0.2)
        self.study(f"{name} {'rolled back' if code == self.old else 'replaced'}")

    def study(self, when: str) -> None:
        """Send a study of one picture and wait until its report is in the store."""
        self.sent += 1
        before, began = len(self.reports()), time.monotonic()
        self.send()
        while len(self.reports()) == before:
            dead = [name for name, part in self.running.items() if part.poll() is not None]
            assert not dead and time.monotonic() - began < STUDY_SECONDS, (when, dead, self.told())
            time.sleep(0.5)
        print(f"  {when}: came back after {time.monotonic() - began:.0f} s", flush=True)

    def send(self) -> None:
        picture = self.folder / f"{self.sent}.png"
        Image.fromarray(draw_phantom(self.sent).rgb).save(picture)
        files = dicomize([picture], self.folder / f"study-{self.sent}")
        done = self.run(HERE, "send", *map(str, files), "--to", f"CDS@{LOOPBACK}:{self.port}")
        assert done.returncode == 0, done.stderr

    def reports(self) -> list[str]:
        return [str(header.SOPInstanceUID) for _, header in self.store.headers() if header.Modality == "SR"]

    def told(self) -> str:
        return "\n".join(f"{file.name}: {file.read_text()[-2000:]}" for file in self.folder.glob("*.log"))

    def _command(self, code: Path, *words: str) -> tuple[list[str], dict[str, str]]:
        path = os.pathsep.join(str(code / room) for room in ROOMS)
        config = [] if words[0] == "send" else ["--config", str(self.folder / "cds-plugin.toml")]
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        return [sys.executable, "-m", "cds_plugin", *words, *config], environment


@contextmanager
def an_old_site(commit: str) -> Iterator[Rolling]:
    """Yield the parts of an older commit, running on a database of its schema."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cds-rolling-")))
        old = folder / "old"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", old, commit], cwd=HERE, check=True)
        stack.callback(subprocess.run, ["git", "worktree", "remove", "--force", old], cwd=HERE, check=True)
        (folder / "postgres").mkdir()
        folder.chmod(0o755)
        postgres = stack.enter_context(PostgresServer(folder / "postgres"))
        broker = stack.enter_context(RedisServer(folder))
        port, pacs = free_ports(2)
        store = stack.enter_context(DemoStore(folder / "pacs", pacs))
        site = Rolling(old, folder, port, store)
        (folder / "cds-plugin.toml").write_text(
            SETTINGS.format(port=port, database=postgres.create("cds"), broker=broker.url, pacs=pacs)
        )
        try:
            yield site
        finally:
            for part in site.running.values():
                if part.poll() is None:
                    os.killpg(part.pid, signal.SIGKILL)


def main(commit: str, *, back: bool) -> None:
    """Upgrade a site of `commit` to this code while it works; `back`: then put the old code back."""
    with an_old_site(commit) as site:
        print(site.run(site.old, "db", "upgrade").stdout.strip(), flush=True)
        for name in ORDER:
            site.start(site.old, name)
        deadline = time.monotonic() + READY_SECONDS
        while not port_is_open(LOOPBACK, site.port):
            assert time.monotonic() < deadline, site.told()
            time.sleep(0.2)
        site.study("old code, old schema")
        site.sent += 1
        site.send()
        upgraded = site.run(HERE, "db", "upgrade")
        assert upgraded.returncode == 0, upgraded.stderr
        print(upgraded.stdout.strip(), "(with a study under way)", flush=True)
        site.study("old code, new schema")
        for name in ORDER:
            site.replace(name, HERE)
        for name in reversed(ORDER if back else ()):
            site.replace(name, site.old)
        settle(site)


def settle(site: Rolling) -> None:
    """Check that all came back, once each, and that the trail is whole."""
    deadline = time.monotonic() + STUDY_SECONDS
    while len(site.reports()) < site.sent and time.monotonic() < deadline:
        time.sleep(0.5)
    states = [json.loads(line) for line in site.run(HERE, "status", "--json").stdout.splitlines()]
    stages = [state["stage"] for state in states]
    delivered = [
        json.loads(line)["sop_instance_uid"]
        for line in site.run(
            HERE, "audit", "list", "--event", "object-delivered", "--json"
        ).stdout.splitlines()
    ]
    print(f"{site.sent} studies sent, {len(site.reports())} reports, stages {stages}", flush=True)
    print(f"{len(delivered)} objects delivered, {len(set(delivered))} different", flush=True)
    for name in ORDER:
        site.stop(name)
    verified = site.run(HERE, "audit", "verify")
    print(verified.stdout.strip())
    assert len(site.reports()) == site.sent == stages.count("complete")
    assert len(delivered) == len(set(delivered)) == len(site.store.headers())
    assert verified.returncode == 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("commit", help="of the older code")
    parser.add_argument(
        "--back", action="store_true", help="afterwards each process is replaced by its old code"
    )
    options = parser.parse_args()
    main(options.commit, back=options.back)
