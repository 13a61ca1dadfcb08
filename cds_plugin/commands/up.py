"""`cds-plugin up`: every part on this machine."""

from __future__ import annotations

import fcntl
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from cds_db.processes import alive
from cds_db.session import open_engine, snapshot
from cds_plugin.checks import broker_answers, listener_answers
from cds_plugin.config import EMBEDDED_BROKER, Settings, load_settings
from cds_plugin.console import ConfigOption, Exit, JsonOption, guarded, print_json, stdout
from cds_plugin.database import upgrade_database
from cds_plugin.errors import Refused
from cds_plugin.reach import port_is_open
from cds_plugin.supervisor import Part, Supervisor, command_line, wait_until
from cds_plugin.watching import Watcher
from cds_plugin.web.paths import LIVE_PATH
from cds_plugin.web.probe import web_answers

READY_SECONDS = 180.0
"""Loading the models on a busy two-core machine takes half a minute; more than this is a fault."""
WATCH_SECONDS = 0.2
STOP_ORDER = ("listener", "web", "worker", "deliver", "sweep", "broker")
COMMANDS = {"listener": "listen", "worker": "worker", "deliver": "deliver", "sweep": "sweep"}

log = structlog.get_logger("up")


def command(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Run every part on this machine until Ctrl-C; prints one line once all of them answer."""
    guarded(lambda: _up(config, json))


def _up(config: Path | None, as_json: bool) -> int:
    settings = load_settings(config)
    log.info("settings", **settings.redacted())
    with _only_one(settings.storage.directory):
        upgrade_database(settings)
        supervisor = _supervisor(settings, config)
        _stop_on_signal(supervisor)
        supervisor.start()
        try:
            return _serve(supervisor, settings, as_json)
        finally:
            supervisor.stop()


def _serve(supervisor: Supervisor, settings: Settings, as_json: bool) -> int:
    engine = open_engine(settings.database.url)
    checks = _checks(settings, engine, datetime.now(UTC))
    missing = wait_until(checks, supervisor, READY_SECONDS, lambda name: log.info("part ready", part=name))
    if missing and not supervisor.stopping:
        log.error("not ready", parts=missing)
        return Exit.FAILED
    if not supervisor.stopping:
        _announce(supervisor, settings, as_json)
    with Watcher(engine, supervisor.parts.values()):
        while not supervisor.stopping:
            supervisor.restart_dead()
            time.sleep(WATCH_SECONDS)
    return Exit.DONE


def _supervisor(settings: Settings, config: Path | None) -> Supervisor:
    file = str(config.resolve()) if config else None
    names = dict(COMMANDS) | ({"web": "web"} if settings.web.enabled else {})
    if settings.broker.url == EMBEDDED_BROKER:
        names = {"broker": "broker", **names}
    return Supervisor({name: Part(name, command_line(sub, file)) for name, sub in names.items()}, STOP_ORDER)


def _checks(settings: Settings, engine: Engine, since: datetime) -> dict[str, Callable[[], bool]]:
    checks: dict[str, Callable[[], bool]] = {
        "broker": lambda: broker_answers(settings),
        "listener": lambda: _listener_is_up(settings, engine, since),
    }
    if settings.web.enabled:
        checks["web"] = lambda: web_answers(settings.web, LIVE_PATH)
    for name in ("worker", "deliver", "sweep"):
        checks[name] = lambda name=name: _said_hello(engine, name, since)  # type: ignore[misc]
    return checks


def _listener_is_up(settings: Settings, engine: Engine, since: datetime) -> bool:
    """Return whether it answers; nothing is said to a TLS port: our certificate need not be a caller's."""
    if settings.tls.plain:
        return listener_answers(settings)
    return _said_hello(engine, "listener", since) and port_is_open(settings.listener.host, settings.tls.port)


def _said_hello(engine: Engine, name: str, since: datetime) -> bool:
    """Return whether a part said hello; a database that is away while the parts start is waited for."""
    try:
        with snapshot(engine) as session:
            return any(process.name == name for process in alive(session, since))
    except SQLAlchemyError:
        return False


def _announce(supervisor: Supervisor, settings: Settings, as_json: bool) -> None:
    listener, tls = settings.listener, settings.tls
    port = listener.port if tls.plain else tls.port
    if as_json:
        where = {"ae": listener.ae_title, "host": listener.host, "port": port}
        where |= {"tls_port": tls.port} if tls.listens else {}
        web = {"web": {"host": settings.web.host, "port": settings.web.port}} if settings.web.enabled else {}
        print_json({"ready": True, "listener": where, **web, "pids": {"broker": None} | supervisor.pids()})
        return
    secure = f", with TLS on port {tls.port}" if tls.listens else ""
    stdout.print(f"ready: {listener.ae_title} listens on {listener.host}:{port}{secure}; Ctrl-C stops it")


def _stop_on_signal(supervisor: Supervisor) -> None:
    def stop(_number: int, _frame: object) -> None:
        supervisor.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def _only_one(directory: Path) -> IO[str]:
    directory.mkdir(parents=True, exist_ok=True)
    lock = (directory / "up.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise Refused(
            "already_running",
            f"another `up` uses {directory}",
            "Stop it, or choose another storage.directory.",
        ) from error
    return lock
