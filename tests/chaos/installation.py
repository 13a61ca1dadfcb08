"""An installation as processes: ours, PostgreSQL, Redis and Orthanc, with breakable links between them."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from clocks import Clocks
from disks import small_disk
from links import Link, Links
from servers import PostgresServer, RedisServer, ScratchOrthanc, end_if_there
from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError

from cds_db.migrate import upgrade
from cds_db.models import Association, AuditEntry, Job
from cds_db.processes import alive
from cds_db.session import open_engine, snapshot
from cds_db.stages import JobState
from cds_plugin.checks import answers_echo
from cds_plugin.config import Settings, load_settings
from cds_plugin.demo.orthanc import Orthanc
from cds_plugin.demo.ports import LOOPBACK, free_ports
from cds_plugin.supervisor import Part, Supervisor, command_line, die_with

PARTS = {"listener": "listen", "worker": "worker", "deliver": "deliver", "sweep": "sweep"}
STOP_ORDER = ("listener", "worker", "deliver", "sweep")
DISK_BYTES = 400_000_000
"""A full one is held in memory."""
READY_SECONDS = 1800.0
"""A machine that is busy with other things takes minutes to import what the worker needs."""
WATCH = "watch"
WATCH_SECONDS = 0.2
DATABASE = "cds"
SETTINGS = """
[listener]
port = {listener}
processes = 2
quiet_seconds = 1.0
association_idle_seconds = 10
force_close_seconds = 60
[limits]
free_disk_bytes = 262144
[storage]
directory = "{storage}"
[database]
url = "{database}"
[broker]
url = "{broker}"
[[destinations]]
name = "pacs"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {pacs}
[[rules]]
calling_ae = "*"
results_to = ["pacs"]
"""


@dataclass(slots=True)
class LoggedPart(Part):
    """A part of ours that logs into a file."""

    log: Path = Path(os.devnull)
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self) -> None:
        """Start the child; it ends when this process does."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                list(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                preexec_fn=die_with(os.getpid()),
            )
        self.started = time.monotonic()


@dataclass
class Site:
    """What runs, and the handles that faults take."""

    folder: Path
    settings: Settings
    config: Path
    postgres: PostgresServer
    broker: RedisServer
    pacs: Orthanc
    links: Links
    to_listener: Link
    to_pacs: Link
    to_database: Link
    clocks: Clocks
    has_small_disk: bool
    supervisor: Supervisor
    over: threading.Event
    """Set: our parts are to stop."""
    engine: Engine
    """Straight to the database, past the link that faults break."""

    @property
    def storage(self) -> Path:
        return self.settings.storage.directory

    def pids(self, part: str) -> list[psutil.Process]:
        """Return the process of a part and those that it started; empty while it is down."""
        pid = self.supervisor.parts[part].pid
        try:
            return [] if pid is None else [(own := psutil.Process(pid)), *own.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def is_quiet(self) -> bool:
        """Return whether nothing waits any more: no job, no row of an association, no unsealed audit row."""
        waiting = (
            select(Job.id).where(Job.state.in_((JobState.WAITING, JobState.RUNNING))),
            select(Association.id),
            select(AuditEntry.id).where(AuditEntry.seq.is_(None)),
        )
        try:
            with snapshot(self.engine) as session:
                return all(session.scalar(each.limit(1)) is None for each in waiting)
        except SQLAlchemyError:
            return False

    def stop_ours(self) -> None:
        """End our parts all at once, as a power cut would; the others go on."""
        self.over.set()
        for thread in threading.enumerate():
            if thread.name == WATCH:
                thread.join()
        for each in [process for part in PARTS for process in self.pids(part)]:
            end_if_there(each)

    def wait_until_ready(self, parts: Iterable[str]) -> None:
        """Wait until these parts of ours said hello, and the listener answers."""
        since = datetime.now(UTC)
        deadline = time.monotonic() + READY_SECONDS
        missing = set(parts)
        while missing:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not ready: {missing}; read the logs in {self.folder}")
            with snapshot(self.engine) as session:
                missing -= {each.name for each in alive(session, since)}
            time.sleep(WATCH_SECONDS)
        while not answers_echo(LOOPBACK, self.settings.listener.port, "CDS"):
            time.sleep(WATCH_SECONDS)


@contextmanager
def a_site(folder: Path, wait_for: Iterable[str] = PARTS, breakable: bool = True) -> Iterator[Site]:
    """Yield a site, these parts of it up; everything is ended afterwards, each process by its id.

    One that is not `breakable` has no proxies, no disk of its own and the clock that all have.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "broker").mkdir()
    with ExitStack() as stack:
        links = stack.enter_context(Links())
        place = stack.enter_context(TemporaryDirectory(prefix="cds-postgres-"))  # its user may go there
        disk = breakable and stack.enter_context(small_disk(Path(place), DISK_BYTES))
        postgres = stack.enter_context(PostgresServer(Path(place)))
        broker = stack.enter_context(RedisServer(folder / "broker"))
        disk = disk and stack.enter_context(small_disk(folder / "storage", DISK_BYTES))
        (listener_port, dicom_port, http_port) = free_ports(3)
        to_listener, to_pacs = links.to(listener_port), links.to(dicom_port)
        to_database = links.to(postgres.port)
        peers = {"cds": ("CDS", LOOPBACK, to_listener.port)}
        pacs = stack.enter_context(ScratchOrthanc(folder / "orthanc", http_port, dicom_port, peers))
        url = postgres.create(DATABASE)
        upgrade(url)
        config = folder / "cds-plugin.toml"
        config.write_text(
            SETTINGS.format(
                listener=listener_port,
                storage=folder / "storage",
                database=url.replace(f":{postgres.port}/", f":{to_database.port}/") if breakable else url,
                broker=broker.url,
                pacs=to_pacs.port if breakable else dicom_port,
            )
        )
        clocks = Clocks.made(folder) if breakable else Clocks(folder, None)
        engine = open_engine(url)
        stack.callback(engine.dispose)
        supervisor = _supervisor(folder, config, clocks)
        site = Site(
            folder=folder,
            settings=load_settings(config, {}),
            config=config,
            postgres=postgres,
            broker=broker,
            pacs=pacs,
            links=links,
            to_listener=to_listener,
            to_pacs=to_pacs,
            to_database=to_database,
            clocks=clocks,
            has_small_disk=disk,
            supervisor=supervisor,
            over=threading.Event(),
            engine=engine,
        )
        stack.enter_context(_running(site))
        site.wait_until_ready(wait_for)
        yield site


def _supervisor(folder: Path, config: Path, clocks: Clocks) -> Supervisor:
    parts: dict[str, Part] = {
        name: LoggedPart(
            name,
            command_line(command, str(config)),
            log=folder / f"{name}.log",
            environment={"OMP_NUM_THREADS": "1", **clocks.environment(name)},
        )
        for name, command in PARTS.items()
    }
    return Supervisor(parts, STOP_ORDER)


@contextmanager
def _running(site: Site) -> Iterator[None]:
    """Start the parts and start again what dies, as systemd would."""

    def watch() -> None:
        site.supervisor.start()
        while not site.over.wait(WATCH_SECONDS):
            site.supervisor.restart_dead()

    threading.Thread(target=watch, name=WATCH).start()
    try:
        yield
    finally:
        site.stop_ours()
