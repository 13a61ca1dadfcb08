"""The listener's side: handshakes within a time limit, and certificates that change under way."""

from __future__ import annotations

import socket
import ssl
import time

from cds_db.events import Event
from cds_plugin.config import Tls
from cds_plugin.errors import Refused
from cds_plugin.reloading import Reload, Reloader
from cds_plugin.tls.files import server_context, signature

SHORTEST_WAIT_SECONDS = 0.001
"""What is left of a time limit that just ran out: zero would mean a socket that does not wait at all."""


class HandshakeFailed(Exception):
    """No TLS connection came about; the text is one of a bounded set, nothing that the peer wrote."""


class Unspoken(Exception):
    """The peer closed without a word, as health checks do."""


class ServerTls:
    """The TLS of one listener; safe to use from every thread.

    `context` is that of the files in use now, which `files` replaces when they change. Associations go on
    with what they began with.
    """

    def __init__(self, tls: Tls) -> None:
        """Load the files. Raises Refused that names the setting whose file is wrong."""
        self._tls = tls
        self.files = Reloader(lambda: signature(tls), self._take)
        self.context = server_context(tls)

    def _take(self) -> Reload:
        try:
            self.context = server_context(self._tls)
        except Refused as refusal:
            return Reload(Event.TLS_FILES_CHANGED, refusal.message)
        return Reload(Event.TLS_FILES_CHANGED)

    def accept(self, connection: socket.socket, seconds: float) -> ssl.SSLSocket:
        """Return the TLS connection over an accepted one, handshake done within `seconds`.

        Raises HandshakeFailed or Unspoken; then the connection is closed.
        """
        deadline = time.monotonic() + seconds
        try:
            connection.settimeout(seconds)
            if not connection.recv(1, socket.MSG_PEEK):
                raise Unspoken
            connection.settimeout(max(deadline - time.monotonic(), SHORTEST_WAIT_SECONDS))
            return self._shake_hands(connection)
        except OSError as error:
            raise HandshakeFailed(reason_of(error, seconds)) from error
        finally:
            # The descriptor has gone over to the TLS socket where there is one: this closes nothing then.
            connection.close()

    def _shake_hands(self, connection: socket.socket) -> ssl.SSLSocket:
        secured = self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        try:
            secured.do_handshake()
        except OSError:
            secured.close()
            raise
        return secured


def reason_of(error: OSError, seconds: float) -> str:
    """Return why a handshake failed, in words that hold nothing of what the peer wrote."""
    if isinstance(error, TimeoutError):
        return f"not done within {seconds:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return "closed by the peer"
