"""Real peers for the tests: PostgreSQL, Redis, Orthanc, dcmtk, dciodvfy; and third-party pictures."""

from __future__ import annotations

import os
import shutil
import socketserver
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import psycopg
import pytest
from certificates import Certificates, make_certificates
from servers import PostgresServer, RedisServer, ScratchOrthanc, ServerMissing, postgres_programs

from cds_db.migrate import upgrade
from cds_plugin.demo.orthanc import Orthanc
from cds_plugin.demo.ports import free_ports

DCIODVFY_SECONDS = 60.0
STOP_POLL_SECONDS = 0.05
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 2 << 30
"""All tests together leave less than half a gigabyte."""
PRODUCT = str(Path(__file__).parent / "product")
LONGEST = (
    "test_worker_process.py",
    "test_ohif.py",
    "test_hospital.py",
    "test_discreet.py",
    "test_train_bundles.py",
    "test_production.py",
    "test_demo.py",
    "test_pull_orthanc.py",
    "test_analyze_command.py",
    "test_chaos.py",
    "test_evaluate_command.py",
    "test_backup.py",
    "test_sweep.py",
)
"""Test files that take half a minute or more, with the longest first."""
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def absent(reason: str) -> NoReturn:
    """Skip a test whose peer is missing; in CI that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have it: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def product_alone() -> None:
    """Let the processes that tests start do without the packages of training and development."""
    os.environ["PYTHONPATH"] = PRODUCT


@pytest.fixture
def free_port() -> int:
    """Return a TCP port of loopback that was free a moment ago."""
    return free_ports(1)[0]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Return certificates of two CAs, good and bad."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def pytest_configure() -> None:
    """Spare the tests two waits: for the disk at every commit, and for servers in this process to end.

    Files lie in memory where there is room for them. socketserver looks every half second whether to end.
    """
    if _has_room(MEMORY):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    socketserver.BaseServer.serve_forever.__defaults__ = (STOP_POLL_SECONDS,)


def _has_room(folder: Path) -> bool:
    if not os.access(folder, os.W_OK):
        return False
    facts = os.statvfs(folder)
    return facts.f_bavail * facts.f_frsize > MEMORY_BYTES and not facts.f_flag & os.ST_NOEXEC


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: at the end no process is left alone with one of them."""
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    name = item.path.name
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)


@pytest.fixture(scope="session")
def upgraded_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an SQLite file of the current schema without any row; copy it."""
    path = tmp_path_factory.mktemp("upgraded") / "cds.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def derm_test_data() -> Path:
    """Return the folder of third-party pictures that DERM_TEST_DATA names."""
    folder = os.environ.get("DERM_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        absent("DERM_TEST_DATA names no folder of dermoscopy pictures")
    return Path(folder)


@pytest.fixture(scope="session")
def dcmtk() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a callable that runs a dcmtk tool: `dcmtk("storescu", "-R", ...)`."""

    def run(tool: str, *arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        binary = shutil.which(tool)
        if binary is None:
            absent(f"dcmtk's {tool} is not installed")
        command = [binary, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)

    return run


@pytest.fixture(scope="session")
def dciodvfy() -> Callable[[Path], list[str]]:
    """Return a callable that gives the lines in which dciodvfy says Error about a file."""
    binary = shutil.which("dciodvfy")
    if binary is None:
        absent("dicom3tools' dciodvfy is not installed")

    def errors(path: Path) -> list[str]:
        done = subprocess.run(
            [binary, str(path)],
            capture_output=True,
            text=True,
            timeout=DCIODVFY_SECONDS,
            check=False,
            errors="replace",
        )
        return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]

    return errors


@pytest.fixture(scope="session")
def ohif_folder() -> Path:
    """Return the folder with OHIF's built site, where there is a Chromium to look at it with."""
    folder = Path(__file__).parents[1] / "var" / "viewer" / "ohif"
    if not (folder / "index.html").is_file():
        absent("OHIF is not there; deploy/viewer/get-ohif var/viewer/ohif fetches it")
    if not any(shutil.which(name) for name in CHROMIUM):
        absent("no Chromium is installed")
    return folder


@pytest.fixture(scope="session")
def systemd_tools() -> None:
    """Let a test run where systemd's tools are; no service manager needs to run."""
    for tool in ("systemd-analyze", "systemd-sysusers"):
        if shutil.which(tool) is None:
            absent(f"{tool} is not installed")


@pytest.fixture(scope="session")
def compose_schema() -> Path:
    """Return the JSON schema of the Compose specification."""
    file = Path(__file__).parents[1] / "var" / "compose" / "compose.schema.json"
    if not file.is_file():
        absent("the schema of the Compose specification is not there; tests/get-peers fetches it")
    return file


@pytest.fixture(scope="session")
def larvitar_folder() -> Path:
    """Return the folder with Larvitar's script, where there is a Chromium to run it in."""
    folder = Path(__file__).parents[1] / "var" / "viewer" / "larvitar"
    if not (folder / "larvitar.js").is_file():
        absent("Larvitar is not there; tests/get-larvitar var/viewer/larvitar fetches it")
    if not any(shutil.which(name) for name in CHROMIUM):
        absent("no Chromium is installed")
    return folder


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """Yield a running Orthanc that knows no peer."""
    if shutil.which("Orthanc") is None:
        absent("Orthanc is not installed")
    http_port, dicom_port = free_ports(2)
    with ScratchOrthanc(tmp_path / "orthanc", http_port, dicom_port) as server:
        yield server


@pytest.fixture(scope="session")
def servers_installed() -> None:
    """Skip a test that starts PostgreSQL, Redis and Orthanc by itself where one of them is missing."""
    try:
        postgres_programs()
    except ServerMissing as error:
        absent(str(error))
    for program in ("redis-server", "Orthanc"):
        if shutil.which(program) is None:
            absent(f"{program} is not installed")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Yield the URL (without database name) of a PostgreSQL that runs as an ordinary user on a free port."""
    with tempfile.TemporaryDirectory(prefix="cds-postgres-") as name:
        try:
            with PostgresServer(Path(name)) as server:
                yield server.address
        except ServerMissing as error:
            absent(str(error))


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """Yield the SQLAlchemy URL of a fresh, empty PostgreSQL database."""
    with _database(postgres_server) as url:
        yield url


@pytest.fixture(scope="module")
def module_postgres_url(postgres_server: str) -> Iterator[str]:
    """Yield the SQLAlchemy URL of a PostgreSQL database that all tests of a module share."""
    with _database(postgres_server) as url:
        yield url


@contextmanager
def _database(server: str) -> Iterator[str]:
    name = f"test_{time.monotonic_ns()}"
    with psycopg.connect(f"postgresql://{server}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield f"postgresql+psycopg://{server}/{name}"
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """Yield the URL of a Redis server on a free loopback port."""
    with _redis(tmp_path) as url:
        yield url


@pytest.fixture(scope="module")
def module_redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of a Redis server that all tests of a module share."""
    with _redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    try:
        with RedisServer(folder) as server:
            yield server.url
    except ServerMissing as error:
        absent(str(error))
