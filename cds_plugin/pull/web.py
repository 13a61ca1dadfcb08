"""HTTP to a DICOMweb server: bounded in bytes and seconds, no redirects, nothing unpacked."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import requests
from requests import Response, Session
from urllib3.exceptions import HTTPError

from cds_plugin.config import PeerEntry, Settings
from cds_plugin.errors import Refused, Unavailable
from cds_plugin.pull.bounds import ANSWER_BYTES, CHUNK_BYTES, CONNECT_SECONDS, OBJECT_SECONDS, READ_SECONDS
from cds_plugin.websession import secret_of, web_session

DICOM_JSON = "application/dicom+json"
UNAUTHORISED = frozenset((HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN))
TRY_LATER = frozenset((HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS))


@dataclass(frozen=True, slots=True)
class WebPeer:
    """One DICOMweb server; the session keeps its connections."""

    entry: PeerEntry
    session: Session

    def json(self, path: str, parameters: Mapping[str, str | int | list[str]]) -> list[dict[str, Any]]:
        """Return the matches of a query; none where there are none. Raises Refused and Unavailable."""
        with self.answer(path, DICOM_JSON, parameters) as answer:
            if answer.status_code == HTTPStatus.NO_CONTENT:
                return []
            body = bytearray()
            for chunk in self.content(answer):
                body += chunk
                if len(body) > ANSWER_BYTES:
                    raise Refused("answer_too_large", f"{self} answered too much", "Ask for less at once.")
        return _list_of_objects(body, str(self))

    @contextmanager
    def answer(
        self, path: str, accept: str, parameters: Mapping[str, str | int | list[str]] | None = None
    ) -> Iterator[Response]:
        """Yield the answer to a GET before its body. Raises Refused and Unavailable."""
        headers = {"Accept": accept, "Accept-Encoding": "identity"}
        try:
            answer = self.session.get(
                f"{self.entry.web_url.rstrip('/')}/{path}",
                params=parameters,
                headers=headers,
                stream=True,
                allow_redirects=False,
                timeout=(CONNECT_SECONDS, READ_SECONDS),
            )
        except (requests.RequestException, HTTPError, OSError, UnicodeError) as error:
            raise self._away(error) from error
        with answer:
            self._check(answer)
            yield answer

    def content(self, answer: Response) -> Iterator[bytes]:
        """Yield the body as it comes. Raises Unavailable where it breaks off or takes too long."""
        deadline = time.monotonic() + OBJECT_SECONDS
        try:
            while chunk := answer.raw.read1(CHUNK_BYTES, decode_content=False):
                yield chunk
                if time.monotonic() > deadline:
                    raise Unavailable("web_too_slow", f"{self} sends too slowly", "Look at the network.")
        except (requests.RequestException, HTTPError, OSError) as error:
            raise self._away(error) from error

    def _check(self, answer: Response) -> None:
        status = answer.status_code
        if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT, HTTPStatus.NO_CONTENT):
            if answer.headers.get("Content-Encoding", "identity") != "identity":
                raise Refused("web_encoded", f"{self} compresses its answers", "Switch that off for us.")
            return
        if status in UNAUTHORISED:
            raise Refused("web_unauthorised", f"{self} answered {status}", "Correct web_authorization.")
        if status in TRY_LATER or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Unavailable("web_failed", f"{self} answered {status}", "Look at its log.")
        raise Refused("web_refused", f"{self} answered {status}", "Look at its log.")

    def _away(self, error: Exception) -> Unavailable:
        over_tls = isinstance(error, requests.exceptions.SSLError)
        what = "cannot be trusted" if over_tls else "cannot be reached or went away"
        action = "Compare its certificate with web_authorities." if over_tls else "Start it."
        return Unavailable("web_away", f"{self} {what} ({type(error).__name__})", action)

    def __str__(self) -> str:
        return self.entry.web_url


@contextmanager
def opened_web(settings: Settings, entry: PeerEntry) -> Iterator[WebPeer]:
    """Yield a DICOMweb server with its credentials. Raises Refused where a file of the settings is wrong."""
    file = entry.web_authorization
    authorization = None if file is None else secret_of(file, "peers.web_authorization")
    with web_session(settings.tls, authorization, entry.web_authorities) as session:
        yield WebPeer(entry, session)


def _list_of_objects(body: bytes | bytearray, who: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused("bad_json", f"{who} answered no JSON", "Look at the server.") from error
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise Refused("bad_json", f"{who} answered no DICOM JSON", "Look at the server.")
    return found
