"""A web server in a test: started in a thread, spoken to with plain HTTP."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import requests
from pydicom.dataset import Dataset
from ward import LOOPBACK, Ward

from cds_plugin.config import Settings, Web
from cds_plugin.receive.rulebook import RuleBook
from cds_plugin.web.paths import LIVE_PATH
from cds_plugin.web.probe import web_answers
from cds_plugin.web.server import WebServer

BOUNDARY = "cut-here"
RELATED = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
START_SECONDS = 20.0
ANSWER_SECONDS = 30.0


@dataclass
class Site(Ward):
    """The surroundings of a web server, and ways to send to it."""

    @property
    def url(self) -> str:
        scheme = "https" if self.settings.web.tls else "http"
        return f"{scheme}://{LOOPBACK}:{self.settings.web.port}"

    def with_web(self, **changes: Any) -> Site:
        """Return the same surroundings with other keys of `[web]`."""
        return self.with_settings(web=self.settings.web.model_copy(update=changes))

    def with_settings(self, **changes: Any) -> Site:
        """Return the same surroundings with other tables."""
        return replace(self, settings=Settings.model_validate(dict(self.settings) | changes))

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve while the block runs."""
        stop = threading.Event()
        server = WebServer(RuleBook(lambda: self.settings), self.engine)
        thread = threading.Thread(target=server.run, args=(stop,))
        thread.start()
        try:
            _wait_until_alive(self.settings.web)
            yield
        finally:
            stop.set()
            thread.join(START_SECONDS)
        assert not thread.is_alive()

    def post(self, body: Any, study: str = "", **headers: str) -> requests.Response:
        """POST a body to /studies, or to a study."""
        url = f"{self.url}/studies" + (f"/{study}" if study else "")
        wanted = {"Content-Type": RELATED} | {name.replace("_", "-"): text for name, text in headers.items()}
        return requests.post(url, data=body, headers=wanted, timeout=ANSWER_SECONDS)

    def stored(self, *pictures: Dataset, study: str = "", **headers: str) -> requests.Response:
        """Store objects with one POST."""
        return self.post(a_body(*map(file_of, pictures)), study, **headers)


def _wait_until_alive(web: Web) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not web_answers(web, LIVE_PATH):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def file_of(picture: Dataset) -> bytes:
    """Return an object as a DICOM file."""
    buffer = io.BytesIO()
    picture.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def a_body(*parts: bytes) -> bytes:
    """Return parts as a multipart/related body."""
    return b"".join(map(a_part, parts)) + f"--{BOUNDARY}--\r\n".encode()


def a_part(content: bytes) -> bytes:
    """Return the delimiter, header and content of one part."""
    return f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + content + b"\r\n"


def uids(answer: requests.Response, keyword: str) -> Sequence[str]:
    """Return the SOP Instance UIDs that a sequence of the answer names."""
    items = Dataset.from_json(answer.text).get(keyword) or []
    return [item.ReferencedSOPInstanceUID for item in items]


def reasons(answer: requests.Response, keyword: str) -> Sequence[int]:
    """Return the failure reasons in a sequence of the answer."""
    items = Dataset.from_json(answer.text).get(keyword) or []
    return [item.FailureReason for item in items]
