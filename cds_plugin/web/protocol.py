"""The HTTP protocol of uvicorn, bounded in what a stranger can hold open, and with the caller's certificate.

uvicorn gives a connection any time to send its first request, and reads on for ever what a refused caller
still sends. Both get a limit here. It leans on uvicorn's `H11Protocol`, which its documentation offers as
a class to pass in; a test pins what is used of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from cds_plugin.caller import TlsIdentity
from cds_plugin.tls.identity import identity_of
from cds_plugin.web.bounds import DRAIN_SECONDS, WebBounds

CERTIFICATE = "client_certificate"
"""The key of the request's state that holds the caller's TlsIdentity."""


def certificate_of(scope: Mapping[str, Any]) -> TlsIdentity | None:
    """Return the verified client certificate of a request, if it came with one."""
    found: TlsIdentity | None = scope.get("state", {}).get(CERTIFICATE)
    return found


class BoundedProtocol(H11Protocol):
    """One HTTP connection; closed when a header, or the rest of an unwanted body, takes too long."""

    _timer: asyncio.TimerHandle | None = None

    def __init__(self, bounds: WebBounds, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bounds = bounds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Turn the connection away where there are too many; else wait for its first request."""
        super().connection_made(transport)
        encrypted = transport.get_extra_info("ssl_object")
        if encrypted is not None:
            self.app_state = {**self.app_state, CERTIFICATE: identity_of(encrypted)}
        if self._is_one_too_many():
            transport.abort()
            return
        self._wait(self._bounds.head_seconds)

    def _is_one_too_many(self) -> bool:
        """Return whether there are more connections than may be, in all or from this address."""
        others = (each for each in self.connections if isinstance(each, BoundedProtocol))
        from_here = sum(each._address == self._address for each in others)
        return (
            len(self.connections) > self._bounds.connections
            or from_here > self._bounds.connections_per_address
        )

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, and see what they leave us waiting for."""
        super().data_received(data)
        self._see()

    def on_response_complete(self) -> None:
        """Go on after an answer; what is left of the request is read for a while only."""
        super().on_response_complete()
        self._see()

    def _see(self) -> None:
        answered = self.conn.our_state in (h11.DONE, h11.MUST_CLOSE)
        if self.conn.their_state is h11.SEND_BODY:
            if answered:
                self._wait(DRAIN_SECONDS)
            else:
                self._stop_waiting()
        elif self.conn.their_state is h11.IDLE and not answered:
            self._wait(self._bounds.head_seconds)
        else:
            self._stop_waiting()

    def _wait(self, seconds: float) -> None:
        """Close the connection after `seconds`, unless a timer runs already."""
        if self._timer is None:
            self._timer = self.loop.call_later(seconds, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
