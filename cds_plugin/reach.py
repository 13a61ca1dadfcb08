"""Whether something of this machine accepts connections; nothing is said to it."""

from __future__ import annotations

import socket

PEER_SECONDS = 5.0
"""How long a check waits for a peer."""
WILDCARD_HOSTS = frozenset({"0.0.0.0", "::", ""})


def port_is_open(host: str, port: int) -> bool:
    """Return whether something accepts connections there; it is told nothing."""
    try:
        socket.create_connection((reachable(host), port), PEER_SECONDS).close()
    except OSError:
        return False
    return True


def reachable(host: str) -> str:
    """Return the address to reach a server of this machine at that listens on `host`."""
    return "127.0.0.1" if host in WILDCARD_HOSTS else host
