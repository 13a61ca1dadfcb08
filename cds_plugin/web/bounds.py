"""What a stranger may make the web server hold: every limit with its unit and its reason."""

from __future__ import annotations

from dataclasses import dataclass

from cds_plugin.receive.bounds import GIBIBYTE, KIBIBYTE

CONNECTIONS = 128
"""TCP connections at once; one more is closed at once, so that bare connects do not grow the process."""
CONNECTIONS_PER_ADDRESS = 96
"""TCP connections at once from one address: a proxy has room, and no single peer can take every place."""
HANDSHAKE_SECONDS = 10.0
"""For a TLS handshake; asyncio's own limit is a minute."""
BACKLOG = 128
"""Connections that wait in the kernel while the server is busy."""
UPLOADS = 16
"""Uploads at once; each may hold a thread, a file, a database connection. One more is told to come back."""
RETRY_AFTER_SECONDS = 5
"""When the caller of one upload too many, or of a full disk, may come back."""
HEAD_BYTES = 32 * KIBIBYTE
"""Request line and header fields; a bearer token and a media type need less than one."""
HEAD_SECONDS = 30.0
"""From connect, or from the first byte of a later request, to the end of the header fields."""
KEEP_ALIVE_SECONDS = 15
"""Silence between two requests of one connection."""
DRAIN_SECONDS = 30.0
"""How long the rest of a body is read and thrown away, so that a refused caller sees its answer."""
SILENCE_SECONDS = 60.0
"""A body that stands still for so long is given up."""
REQUEST_SECONDS = 3600.0
"""One upload; the largest allowed one needs 20 Mbit/s."""
REQUEST_BYTES = 8 * GIBIBYTE
"""One upload on the wire; objects are stored one by one as they arrive, so memory does not grow with it."""
PARTS = 10_000
"""Objects in one upload; the answer names each of them."""
STOP_GRACE_SECONDS = 10
"""An orderly stop lets running uploads end by themselves this long."""
HEALTH_SECONDS = 1.0
"""How long an answer about health is remembered: anybody may ask, and the database is not asked each time."""


@dataclass(frozen=True, slots=True)
class WebBounds:
    """The limits of one web server that are settings; the defaults are the named constants of this module."""

    connections: int = CONNECTIONS
    connections_per_address: int = CONNECTIONS_PER_ADDRESS
    head_seconds: float = HEAD_SECONDS
    uploads: int = UPLOADS
    request_bytes: int = REQUEST_BYTES
    parts: int = PARTS
    silence_seconds: float = SILENCE_SECONDS
    request_seconds: float = REQUEST_SECONDS
