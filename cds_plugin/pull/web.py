"""What a pull asks a DICOMweb server: matches and objects, and what its answers mean."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from requests import Response

from cds_plugin.config import PeerEntry, Settings
from cds_plugin.errors import Refused, Unavailable
from cds_plugin.pull.bounds import ANSWER_BYTES, OBJECT_SECONDS, READ_SECONDS
from cds_plugin.webserver import DICOM_JSON, TRY_LATER, UNAUTHORISED, TooLarge, WebServer
from cds_plugin.websession import secret_of, web_session


@dataclass(frozen=True, slots=True)
class WebPeer:
    """One DICOMweb server that is asked."""

    server: WebServer

    def json(self, path: str, parameters: Mapping[str, str | int | list[str]]) -> list[dict[str, Any]]:
        """Return the matches of a query; none where there are none. Raises Refused and Unavailable."""
        with self.answer(path, DICOM_JSON, parameters) as answer:
            if answer.status_code == HTTPStatus.NO_CONTENT:
                return []
            try:
                body = self.server.body(answer, ANSWER_BYTES, OBJECT_SECONDS)
            except TooLarge as error:
                raise Refused(
                    "answer_too_large", f"{self} answered too much", "Ask for less at once."
                ) from error
        return _list_of_objects(body, str(self))

    @contextmanager
    def answer(
        self, path: str, accept: str, parameters: Mapping[str, str | int | list[str]] | None = None
    ) -> Iterator[Response]:
        """Yield the answer to a GET before its body. Raises Refused and Unavailable."""
        with self.server.request("GET", path, {"Accept": accept}, READ_SECONDS, params=parameters) as answer:
            self._check(answer)
            yield answer

    def content(self, answer: Response) -> Iterator[bytes]:
        """Yield the body as it comes. Raises Unavailable where it breaks off or takes too long."""
        return self.server.content(answer, OBJECT_SECONDS)

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

    def __str__(self) -> str:
        return str(self.server)


@contextmanager
def opened_web(settings: Settings, entry: PeerEntry) -> Iterator[WebPeer]:
    """Yield a DICOMweb server with its credentials. Raises Refused where a file of the settings is wrong."""
    file = entry.web_authorization
    authorization = None if file is None else secret_of(file, "peers.web_authorization")
    with web_session(settings.tls, authorization, entry.web_authorities) as session:
        yield WebPeer(WebServer(entry.web_url, session, "web_authorities"))


def _list_of_objects(body: bytes | bytearray, who: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused("bad_json", f"{who} answered no JSON", "Look at the server.") from error
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise Refused("bad_json", f"{who} answered no DICOM JSON", "Look at the server.")
    return found
