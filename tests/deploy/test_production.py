"""Every command line of both production forms as plain processes: a study comes back from a PACS that routes.

The parts run confined as their unit or container says, as far as that goes without systemd and an engine.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import Request, urlopen

import psycopg
import psycopg.sql
import pytest
from forms import COMPOSE, SERVICES, SETTINGS, Line, compose, from_compose, from_unit, unit
from PIL import Image
from pydicom import dcmread

from cds_plugin.broker import server_binary
from cds_plugin.config import load_settings
from cds_plugin.demo.ports import LOOPBACK, free_ports
from cds_plugin.dicomize import dicomize
from cds_plugin.phantom import draw_phantom
from cds_plugin.reach import port_is_open

pytestmark = pytest.mark.slow

RESULT_SECONDS, STOP_SECONDS, HEALTH_SECONDS = 180, 90, 60
ROLE, PASSWORD = "cds-plugin", "s/e c:r@t%"
PARTS = ("listener", "worker", "deliver", "sweep", "web")
RESULTS = {"SEG", "SR", "OT"}
FORMS = ("systemd", "compose")


@dataclass
class Pacs:
    """Orthanc with the configuration of the compose form, on ports of this machine."""

    http: int
    dicom: int
    routes_to: int
    process: subprocess.Popen[bytes] | None = None

    def get(self, path: str, body: Any = None) -> Any:
        secret = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
        content = None if body is None else json.dumps(body).encode()
        request = Request(
            f"http://{LOOPBACK}:{self.http}{path}", content, {"Authorization": f"Basic {secret}"}
        )
        with urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def modalities(self, study: str) -> set[str]:
        """Return the modalities of what is there of a study."""
        query = {"Level": "Series", "Expand": True, "Query": {"StudyInstanceUID": study}}
        return {each["MainDicomTags"]["Modality"] for each in self.get("/tools/find", query)}


@dataclass
class Installation:
    """The parts of one form while they run."""

    lines: Mapping[str, Line]
    environment: Mapping[str, str]
    folder: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    heard: Mapping[int, int] = field(default_factory=dict)
    """Who told systemd that it works: pid -> process group."""

    def begin(self, name: str, line: Line) -> subprocess.Popen[bytes]:
        with self.log(name).open("ab") as log:
            return subprocess.Popen(
                line.confinement.around(line.command),
                env={**os.environ, **line.environment, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.folder,
            )

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def start(self) -> None:
        assert self.begin("upgrade", self.lines["upgrade"]).wait(60) == 0, self.told()
        for name in PARTS:
            self.running[name] = self.begin(name, self.lines[name])

    def wait_for(self, what: Callable[[], bool], seconds: float = RESULT_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            dead = {name: part.returncode for name, part in self.running.items() if part.poll() is not None}
            assert not dead and time.monotonic() < deadline, (dead, self.told())
            time.sleep(0.2)

    def stop(self) -> dict[str, int]:
        """Ask each part to end as both managers do, and return how it did."""
        for part in self.running.values():
            part.send_signal(signal.SIGTERM)
        try:
            return {name: part.wait(STOP_SECONDS) for name, part in self.running.items()}
        finally:
            for part in self.running.values():
                part.poll() is None and os.killpg(part.pid, signal.SIGKILL)

    def told(self) -> str:
        return "\n".join(f"{file.name}: {file.read_text()[-1500:]}" for file in self.folder.glob("*.log"))


@contextmanager
def systemd_that_listens(address: Path) -> Iterator[dict[int, int]]:
    """Yield who said WATCHDOG=1 so far, as systemd would hear it at `address`: pid -> process group."""
    heard: dict[int, int] = {}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ear.bind(str(address))

        def listen() -> None:
            while True:
                words, credentials, _, _ = ear.recvmsg(1024, socket.CMSG_SPACE(12))
                if words == b"over":
                    return
                if words == b"WATCHDOG=1" and credentials:
                    (pid,) = struct.unpack_from("i", credentials[0][2])
                    with suppress(ProcessLookupError):
                        heard[pid] = os.getpgid(pid)

        listening = threading.Thread(target=listen, daemon=True)
        listening.start()
        yield heard
        ear.sendto(b"over", str(address))
        listening.join()


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of secrets that the compose form wants."""
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "database_password").write_text(PASSWORD + "\n")
    (folder / "broker_password").write_text(PASSWORD + "\n")
    (folder / "orthanc_users.json").write_text(json.dumps({"RegisteredUsers": {"admin": PASSWORD}}))
    return folder


@pytest.fixture(scope="module")
def pacs(
    servers_installed: None, systemd_tools: None, secrets: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pacs]:
    folder = tmp_path_factory.mktemp("orthanc")
    running = Pacs(*free_ports(3))
    written = json.loads((COMPOSE / "orthanc.json").read_text())
    here = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": running.http,
        "DicomPort": running.dicom,
        "RemoteAccessAllowed": False,
        "LuaScripts": [str(COMPOSE / Path(script).name) for script in written["LuaScripts"]],
        "DicomModalities": {"cds": [written["DicomModalities"]["cds"][0], LOOPBACK, running.routes_to]},
    }
    assert here.keys() <= written.keys()
    (folder / "etc").mkdir()
    (folder / "etc" / "orthanc.json").write_text(json.dumps(written | here))
    shutil.copy(secrets / "orthanc_users.json", folder / "etc" / "users.json")
    with (folder / "log").open("wb") as log:
        running.process = subprocess.Popen(["Orthanc", str(folder / "etc")], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while not (port_is_open(LOOPBACK, running.http) and port_is_open(LOOPBACK, running.dicom)):
            assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
            time.sleep(0.1)
        yield running
    finally:
        running.process.kill()  # its own end takes three seconds
        running.process.wait(30)


@pytest.fixture(scope="module")
def password_role(postgres_server: str) -> str:
    """Return the server with a role that must say its password."""
    with psycopg.connect(f"postgresql://{postgres_server}/postgres", autocommit=True) as server:
        server.execute(f"CREATE ROLE \"{ROLE}\" LOGIN PASSWORD '{PASSWORD}'")
        (file,), (known,) = (
            server.execute(question).fetchone() or ("",)
            for question in ("SHOW hba_file", "SELECT pg_read_file(current_setting('hba_file'))")
        )
        lines = [f'host all "{ROLE}" {LOOPBACK}/32 scram-sha-256', *known.splitlines()]
        rows = ", ".join("(" + psycopg.sql.Literal(line).as_string(server) + ")" for line in lines)
        server.execute(f"COPY (VALUES {rows}) TO '{file}'")
        server.execute("SELECT pg_reload_conf()")
    return postgres_server


@contextmanager
def broker_of_compose(secrets: Path, folder: Path, port: int) -> Iterator[None]:
    """Run the broker's command line; its names stand for what is installed here."""
    tools = folder / "tools"
    tools.mkdir()
    (tools / "valkey-server").symlink_to(server_binary())
    (tools / "valkey-cli").symlink_to(shutil.which("redis-cli") or "/bin/false")
    path = f"{tools}:{os.environ['PATH']}"
    line = from_compose("broker", folder, secrets)
    server = subprocess.Popen(
        [word.replace("6379", str(port)).replace("/data/", f"{folder}/") for word in line.command],
        env={**os.environ, "PATH": path},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        health = from_compose("broker", folder, secrets, health=True)
        asked = [word.replace("6379", str(port)) for word in health.command]
        deadline = time.monotonic() + 20
        while subprocess.run(asked, env={**os.environ, "PATH": path}, timeout=20, check=False).returncode:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait(20)


def lines_of(form: str, state: Path, secrets: Path) -> dict[str, Line]:
    """Return the command lines of every part of a form."""
    if form == "compose":
        return {name: from_compose(name, state, secrets) for name in ("upgrade", *PARTS)}
    units = {service.removeprefix("cds-plugin-").split(".")[0].rstrip("@"): service for service in SERVICES}
    assert set(units) == {"upgrade", *PARTS}
    return {name: from_unit(file, state, "cpu" if name == "worker" else "") for name, file in units.items()}


def overrides(pacs: Pacs, database: str, broker: str, port: int, web: int, state: Path) -> dict[str, str]:
    """Return what differs on this machine from the settings file of both forms."""
    (destination,) = load_settings(SETTINGS, {}).destinations
    where = {"name": destination.name, "ae_title": destination.ae_title, "host": LOOPBACK, "port": pacs.dicom}
    return {
        "CDS_LISTENER__HOST": LOOPBACK,
        "CDS_LISTENER__PORT": str(port),
        "CDS_LISTENER__QUIET_SECONDS": "1",
        "CDS_STORAGE__DIRECTORY": str(state),
        "CDS_DATABASE__URL": f"postgresql+psycopg://{ROLE}@{database}",
        "CDS_BROKER__URL": broker,
        "CDS_WEB__PORT": str(web),
        "CDS_DESTINATIONS": json.dumps([where]),
        "TMPDIR": str(state),
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture
def state() -> Iterator[Path]:
    """Yield a folder on the disk for what the parts keep: below /dev even who is confined may write."""
    with TemporaryDirectory(prefix="cds-state-") as name:
        yield Path(name)


@pytest.fixture(params=FORMS)
def installation(
    request: pytest.FixtureRequest,
    password_role: str,
    redis_url: str,
    pacs: Pacs,
    secrets: Path,
    state: Path,
    tmp_path: Path,
) -> Iterator[Installation]:
    """Yield the running parts: systemd's on PostgreSQL's socket and Redis, compose's on TCP and Valkey."""
    form = str(request.param)
    name = f"production_{form}"
    with psycopg.connect(f"postgresql://{password_role}/postgres", autocommit=True) as server:
        server.execute(f'CREATE DATABASE {name} OWNER "{ROLE}"')
        (sockets,) = server.execute("SHOW unix_socket_directories").fetchone() or ("",)
    Path(sockets).chmod(0o711)  # as /run/postgresql is: who has no capability must get through
    host, number = password_role.split("@")[1].split(":")
    over_tcp = f"{host}:{number}/{name}"
    database = over_tcp if form == "compose" else f"/{name}?host={sockets}&port={number}"
    plain_port, web, broker_port = free_ports(3)
    port = pacs.routes_to if form == "compose" else plain_port
    broker = f"redis://{LOOPBACK}:{broker_port}/0" if form == "compose" else redis_url
    environment = overrides(pacs, database, broker, port, web, state)
    parts = Installation(lines_of(form, state, secrets), environment, tmp_path)
    with (
        broker_of_compose(secrets, tmp_path, broker_port),
        systemd_that_listens(state / "notify") as parts.heard,
    ):
        environment |= {"NOTIFY_SOCKET": str(state / "notify")} if form == "systemd" else {}
        parts.start()
        try:
            yield parts
        finally:
            ended = parts.stop()
    assert ended == dict.fromkeys(PARTS, 0), parts.told()


def a_drawn_study(folder: Path) -> tuple[str, list[Path]]:
    picture = folder / "phantom.png"
    Image.fromarray(draw_phantom(1).rgb).save(picture)
    files = dicomize([picture], folder / "study")
    return str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID), files


def test_a_study_comes_back(
    installation: Installation,
    pacs: Pacs,
    secrets: Path,
    dcmtk: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    form = "compose" if "CDS_BROKER__PASSWORD_FILE" in installation.lines["web"].environment else "systemd"
    port = int(installation.environment["CDS_LISTENER__PORT"])
    installation.wait_for(lambda: port_is_open(LOOPBACK, port))
    study, files = a_drawn_study(tmp_path)
    to = pacs.dicom if form == "compose" else port
    sent = dcmtk("storescu", "-R", "-aet", "ORTHANC", "-aec", "CDS", LOOPBACK, to, *files)
    assert sent.returncode == 0, sent.stderr
    installation.wait_for(lambda: pacs.modalities(study) >= RESULTS)
    if form == "compose":
        check_health(installation, pacs, secrets)
    else:
        installation.wait_for(lambda: all(watched(installation, name) for name in PARTS))
    told = installation.told()
    assert not any(word in told for word in ("Traceback", "Permission denied", "not permitted")), told
    assert PASSWORD not in told


def watched(installation: Installation, name: str) -> bool:
    """Return whether the watchdog heard a part, from whom its unit lets speak."""
    file = f"cds-plugin-{name}{'@' if name == 'worker' else ''}.service"
    pid, access = installation.running[name].pid, unit(file)["NotifyAccess"][-1]
    heard = dict(installation.heard)
    return pid in (heard if access == "main" else heard.values())


def check_health(installation: Installation, pacs: Pacs, secrets: Path) -> None:
    """Every health check of our parts and of the PACS says yes."""
    asked = {
        name: installation.begin(
            f"health-{name}", from_compose(name, installation.folder, secrets, health=True)
        )
        for name in PARTS
    }
    orthanc = compose()["services"]["orthanc"]["healthcheck"]["test"][1:]
    there = [word.replace("4242", str(pacs.dicom)) for word in orthanc]
    assert subprocess.run(there, timeout=20, check=False).returncode == 0
    assert {name: each.wait(HEALTH_SECONDS) for name, each in asked.items()} == dict.fromkeys(PARTS, 0)
