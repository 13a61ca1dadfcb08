"""A small PACS that can be made to misbehave: C-FIND and C-GET by pynetdicom, DICOMweb by http.server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

from drawn_objects import DERMOSCOPIC
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification
from ward import LOOPBACK

from cds_plugin.pull.finding import STUDY_ROOT_FIND
from cds_plugin.pull.getting import STUDY_ROOT_GET

BOUNDARY = "cut-here"


def keys_of(picture: Dataset, level: str) -> Dataset:
    """Return what a C-FIND at a level answers of a picture."""
    match = Dataset()
    match.QueryRetrieveLevel = level
    match.StudyInstanceUID = picture.StudyInstanceUID
    match.SeriesInstanceUID = picture.SeriesInstanceUID
    match.SOPInstanceUID = picture.SOPInstanceUID
    match.SOPClassUID = picture.SOPClassUID
    match.Modality = picture.Modality
    return match


@dataclass
class Archive:
    """Pictures, and how they are handed out; change a hook to misbehave."""

    pictures: list[FileDataset] = field(default_factory=list)
    matches: Callable[[Dataset], list[Dataset]] | None = None
    sent: Callable[[list[FileDataset]], list[FileDataset]] = lambda wanted: wanted
    abort_after: list[int] = field(default_factory=list)
    """The first C-GET aborts after so many objects, the next one after the next number."""
    asked: list[str] = field(default_factory=list)

    @contextmanager
    def listening(self, port: int) -> Iterator[None]:
        """Answer on a port of loopback."""
        entity = AE("ARCHIVE")
        entity.add_supported_context(Verification)
        entity.add_supported_context(STUDY_ROOT_FIND)
        entity.add_supported_context(STUDY_ROOT_GET)
        entity.add_supported_context(DERMOSCOPIC, AllTransferSyntaxes, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_C_FIND, self._find), (evt.EVT_C_GET, self._get)]
        server = entity.start_server((LOOPBACK, port), block=False, evt_handlers=handlers)
        assert server is not None
        try:
            yield
        finally:
            server.shutdown()

    def _find(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
        wanted = event.identifier
        self.asked.append(str(wanted.QueryRetrieveLevel))
        found = self.matches(wanted) if self.matches else self._matching(wanted)
        yield from ((0xFF00, each) for each in found)

    def _matching(self, wanted: Dataset) -> list[Dataset]:
        level = str(wanted.QueryRetrieveLevel)
        key = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}[level]
        fixed = [name for name in ("StudyInstanceUID", "SeriesInstanceUID") if wanted.get(name)]
        found = [each for each in self.pictures if all(each.get(n) == wanted.get(n) for n in fixed)]
        return list({each.get(key): keys_of(each, level) for each in found}.values())

    def _get(self, event: Event) -> Iterator[Any]:
        uids = event.identifier.SOPInstanceUID
        names = {uids} if isinstance(uids, str) else set(uids)
        chosen = self.sent([each for each in self.pictures if each.SOPInstanceUID in names])
        last = self.abort_after.pop(0) if self.abort_after else len(chosen)
        yield len(chosen)
        yield from ((0xFF00, each) for each in chosen[:last])
        if last < len(chosen):
            event.assoc.abort()


@dataclass
class WebArchive:
    """A DICOMweb server; `hooks` maps the end of a path to (status, headers, body) or raises."""

    pictures: list[FileDataset] = field(default_factory=list)
    hooks: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    knows_paging: bool = True
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @contextmanager
    def listening(self) -> Iterator[str]:
        """Serve on loopback and yield the root of the services."""
        archive = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                archive.asked.append(self.path)
                archive.headers.append(dict(self.headers))
                status, headers, content = archive.answer(self.path)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://{LOOPBACK}:{server.server_port}/dicom-web"
        finally:
            server.shutdown()
            server.server_close()

    def answer(self, target: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, header fields and body for a request."""
        place = urlsplit(target)
        for end, answer in self.hooks.items():
            if place.path.endswith(end):
                return answer
        parts = place.path.split("/")
        if parts[-2] == "instances":
            (picture,) = [each for each in self.pictures if each.SOPInstanceUID == parts[-1]]
            return 200, {"Content-Type": media_type()}, multipart(file_of(picture))
        key = {"studies": "StudyInstanceUID", "series": "SeriesInstanceUID", "instances": "SOPInstanceUID"}
        found = {each.get(key[parts[-1]]): as_json(each) for each in self.pictures if _is_under(each, parts)}
        return 200, {"Content-Type": "application/dicom+json"}, self._page(list(found.values()), place.query)

    def _page(self, found: list[dict[str, Any]], query: str) -> bytes:
        words = parse_qs(query)
        if self.knows_paging:
            start = int(words.get("offset", ["0"])[0])
            found = found[start : start + int(words["limit"][0])]
        return json.dumps(found).encode()


def _is_under(picture: Dataset, parts: list[str]) -> bool:
    named = dict(zip(parts[2::2], parts[3::2], strict=False))
    wanted = {"studies": picture.StudyInstanceUID, "series": picture.SeriesInstanceUID}
    return all(wanted.get(name, uid) == uid for name, uid in named.items())


def as_json(picture: Dataset) -> dict[str, Any]:
    """Return what QIDO-RS says of a picture."""
    match = keys_of(picture, "IMAGE")
    match.NumberOfStudyRelatedInstances = 1
    return match.to_json_dict()


def file_of(picture: FileDataset) -> bytes:
    """Return a picture as a DICOM file."""
    buffer = BytesIO()
    picture.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def media_type(boundary: str = BOUNDARY) -> str:
    """Return the media type of a WADO-RS answer."""
    return f'multipart/related; type="application/dicom"; boundary={boundary}'


def multipart(*files: bytes) -> bytes:
    """Return files as the body of a WADO-RS answer."""
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + each + b"\r\n" for each in files) + f"--{BOUNDARY}--\r\n".encode()


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for something to come about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
