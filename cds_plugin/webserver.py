"""HTTP to a DICOMweb server, whichever way objects go: no redirects, bounded in bytes and seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import requests
from requests import Response, Session
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from cds_plugin.errors import Unavailable

CONNECT_SECONDS = 10.0
CHUNK_BYTES = 256 * 1024
DICOM_JSON = "application/dicom+json"
UNAUTHORISED = frozenset((HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN))
TRY_LATER = frozenset((HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS))
AWAY = "web_away"
"""The code of the failure: there was no connection, or none that can be trusted."""
GONE = "web_gone"
"""The code of the failure: the server was there, and the connection broke."""
FAILURES = (requests.RequestException, HTTPError, OSError, UnicodeError)
"""What `requests` raises where a server can't be reached, or says what is no HTTP."""


class TooLarge(Exception):
    """An answer is longer than its bound."""


@dataclass(frozen=True, slots=True)
class WebServer:
    """One DICOMweb server at `url`; the session keeps its connections and its credentials."""

    url: str
    session: Session
    authorities_setting: str = "authorities"

    def request(
        self, method: str, path: str, headers: Mapping[str, str], read_seconds: float, **more: Any
    ) -> Response:
        """Return an answer, whatever its status, before its body. Raises Unavailable."""
        try:
            return self.session.request(
                method,
                f"{self.url.rstrip('/')}/{path}",
                headers={"Accept-Encoding": "identity", **headers},
                stream=True,
                allow_redirects=False,
                timeout=(CONNECT_SECONDS, read_seconds),
                **more,
            )
        except FAILURES as error:
            raise self._failure(error) from error

    def content(self, answer: Response, seconds: float, unpacked: bool = False) -> Iterator[bytes]:
        """Yield a body as it comes. Raises Unavailable where it breaks off or takes longer than that."""
        deadline = time.monotonic() + seconds
        try:
            while chunk := answer.raw.read1(CHUNK_BYTES, decode_content=unpacked):
                yield chunk
                if time.monotonic() > deadline:
                    raise Unavailable("web_too_slow", f"{self} sends too slowly", "Look at the network.")
        except FAILURES as error:
            raise self._failure(error) from error

    def body(self, answer: Response, most: int, seconds: float) -> bytearray:
        """Return a whole body, unpacked, of at most so many bytes. Raises TooLarge and Unavailable."""
        body = bytearray()
        for chunk in self.content(answer, seconds, unpacked=True):
            body += chunk
            if len(body) > most:
                raise TooLarge
        return body

    def _failure(self, error: Exception) -> Unavailable:
        name = type(error).__name__
        if isinstance(error, requests.exceptions.SSLError):
            action = f"Compare its certificate with {self.authorities_setting}."
            return Unavailable(AWAY, f"{self} cannot be trusted ({name})", action)
        if _connected(error):
            return Unavailable(GONE, f"{self} went away ({name})", "Look at its log.")
        return Unavailable(AWAY, f"{self} cannot be reached ({name})", "Start it.")

    def __str__(self) -> str:
        return self.url


def _connected(error: Exception) -> bool:
    """Return whether there was a connection before the failure."""
    wrapped = error.args[0] if error.args else None
    reason = getattr(wrapped, "reason", None)
    unreached = isinstance(reason, NewConnectionError | ConnectTimeoutError)
    return not (unreached or isinstance(error, requests.exceptions.ConnectTimeout))
