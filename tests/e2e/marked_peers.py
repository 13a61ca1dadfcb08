"""Peers that quote the patient back to us: a PACS that refuses with a comment, a web server with a body."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from marks import NAME, PATIENT_ID
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.presentation import StoragePresentationContexts

from cds_plugin.demo.ports import LOOPBACK

COMMENT = f"{PATIENT_ID} {NAME}"


@contextmanager
def refusing_pacs(port: int) -> Iterator[None]:
    """While the block runs, a PACS answers every object with 0xC000 and a comment that names the patient."""
    entity = AE("REFUSES")
    entity.supported_contexts = StoragePresentationContexts
    entity.add_supported_context("1.2.840.10008.1.1")
    server = entity.start_server((LOOPBACK, port), block=False, evt_handlers=[(evt.EVT_C_STORE, _refuse)])
    try:
        yield
    finally:
        server.shutdown()


def _refuse(_event: evt.Event) -> Dataset:
    answer = Dataset()
    answer.Status, answer.ErrorComment = 0xC000, COMMENT
    return answer


class _Refuses(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        left = int(self.headers.get("Content-Length", 0))
        while left > 0:
            left -= len(self.rfile.read(min(left, 65536)))
        body = json.dumps({"error": COMMENT, "00081198": {"vr": "SQ", "Value": [{"00080005": COMMENT}]}})
        self.send_response(409, f"Conflict {PATIENT_ID}")
        self.send_header("Content-Type", "application/dicom+json")
        self.end_headers()
        self.wfile.write(body.encode())
        self.close_connection = True

    def do_GET(self) -> None:
        self.send_error(404, COMMENT)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: pytest's own output is no part of the product."""


@contextmanager
def refusing_web(port: int) -> Iterator[None]:
    """While the block runs, a STOW-RS server refuses everything with the patient in its answer."""
    server = ThreadingHTTPServer((LOOPBACK, port), _Refuses)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
