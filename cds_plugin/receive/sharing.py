"""Several listener processes on one port: started, started again, and stopped together.

The kernel spreads connections over the processes that share a port (SO_REUSEPORT, socket(7)); one that dies
takes only its own associations with it, and nothing that was acknowledged.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterable
from pathlib import Path

import structlog

from cds_plugin.config import Settings
from cds_plugin.errors import Unavailable
from cds_plugin.supervisor import Part, Supervisor, command_line

log = structlog.get_logger()

SHARING_OPTION = "--sharing"
"""Tells `listen` that it is one of several."""
WATCH_SECONDS = 0.2


def share(settings: Settings, config: Path | None, stop: threading.Event) -> None:
    """Run `listener.processes` listeners until `stop` is set. Raises Unavailable where a port is taken."""
    for setting, port in _ports(settings):
        _check_free(settings.listener.host, port, setting)
    names = [f"listener-{number + 1}" for number in range(settings.listener.processes)]
    command = [*command_line("listen", str(config.resolve()) if config else None), SHARING_OPTION]
    supervisor = Supervisor({name: Part(name, command) for name in names}, names)
    supervisor.start()
    log.info("listeners started", pids=supervisor.pids())
    try:
        while not stop.wait(WATCH_SECONDS):
            supervisor.restart_dead()
    finally:
        _ask_all_to_stop(supervisor)
        supervisor.stop()


def _ports(settings: Settings) -> Iterable[tuple[str, int]]:
    if settings.tls.plain:
        yield "listener.port", settings.listener.port
    if settings.tls.listens:
        yield "tls.port", settings.tls.port


def _check_free(host: str, port: int, setting: str) -> None:
    """Raise Unavailable where somebody listens: sharing a port with strangers would fail without a word."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Unavailable(
                "cannot_listen",
                f"{host}:{port}: {error.strerror}",
                f"Free the address or change listener.host and {setting}.",
            ) from error


def _ask_all_to_stop(supervisor: Supervisor) -> None:
    """Ask all at once: each waits for its associations, and they should not wait for each other."""
    for part in supervisor.parts.values():
        if part.pid is not None and part.process is not None:
            part.process.send_signal(signal.SIGTERM)
