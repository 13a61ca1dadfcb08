"""STOW-RS out: to a real Orthanc, and to a server that answers as it is told."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates
from dicomweb_client.api import DICOMwebClient
from postroom import LOOPBACK, Postroom
from pydantic import SecretStr
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit
from pynetdicom.dsutils import split_dataset

from cds_db.stages import DeliveryState
from cds_plugin.config import Destination, DestinationKind
from cds_plugin.deliver import stow
from cds_plugin.demo.orthanc import Orthanc
from cds_plugin.doctor import examine
from cds_plugin.study import ResultKind

JSON = {"Content-Type": "application/dicom+json"}
CANNOT_UNDERSTAND, SYNTAX_NOT_SUPPORTED, OUT_OF_RESOURCES = 0xC000, 0xC122, 0xA700


@dataclass
class Request:
    """One Store Instances request: its header fields and its files."""

    path: str
    headers: dict[str, str]
    files: list[bytes]

    @property
    def uids(self) -> list[str]:
        return [str(dcmread(BytesIO(each)).SOPInstanceUID) for each in self.files]


Answering = Callable[[Request], tuple[int, dict[str, Any] | None]]


@dataclass
class Server:
    """An HTTP server on loopback that keeps what it got and answers as it is told."""

    answer: Answering
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://{LOOPBACK}:{self.port}/dicom-web"

    @contextmanager
    def serving(self) -> Iterator[Server]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
                parts = BytesParser().parsebytes(head + body).get_payload()
                files = [each.get_payload(decode=True) for each in parts]
                request = Request(self.path, dict(self.headers), files)
                outer.requests.append(request)
                status, document = outer.answer(request)
                content = b"" if document is None else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self.port = server.server_address[1]
        if self.tls is not None:
            server.socket = self.tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def over_web(url: str, **more: object) -> Destination:
    return Destination.model_validate({"name": "pacs", "kind": DestinationKind.DICOMWEB, "url": url, **more})


def answered(stored: list[str], failed: dict[str, int]) -> dict[str, Any]:
    """Return a Store Instances Response."""
    return {
        "00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [uid]}} for uid in stored]},
        "00081198": {
            "vr": "SQ",
            "Value": [
                {"00081155": {"vr": "UI", "Value": [uid]}, "00081197": {"vr": "US", "Value": [reason]}}
                for uid, reason in failed.items()
            ],
        },
    }


def stores_all(request: Request) -> tuple[int, dict[str, Any]]:
    return 200, answered(request.uids, {})


def data_set(path: Path) -> bytes:
    return path.read_bytes()[split_dataset(path)[1] :]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["c-store", "stow-rs"])
def test_orthanc_gives_back_over_wado_rs_what_was_sent_bit_for_bit(
    way: str, postroom: Postroom, orthanc: Orthanc, tmp_path: Path
) -> None:
    by_dicom = Destination(name="pacs", ae_title="ORTHANC", host=LOOPBACK, port=orthanc.dicom_port)
    postroom.to(by_dicom if way == "c-store" else over_web(orthanc.dicomweb_url))
    (job_id,) = postroom.a_real_analysis("pacs", kinds=frozenset(ResultKind))
    postroom.run(job_id)
    postroom.run(job_id)
    assert postroom.delivery(job_id).state is DeliveryState.DELIVERED, postroom.delivery(job_id).last_error
    assert len(orthanc.get("/instances")) == len(ResultKind)
    sent = {path.stem: path for path in (postroom.settings.storage.directory / "results").iterdir()}
    study = str(dcmread(next(iter(sent.values()))).StudyInstanceUID)
    client = DICOMwebClient(url=orthanc.dicomweb_url)
    back = client.retrieve_study(study, media_types=(("application/dicom", "*"),))
    assert {str(each.SOPInstanceUID) for each in back} == set(sent)
    for each in back:
        path = tmp_path / "back.dcm"
        each.save_as(path, enforce_file_format=True)
        original = dcmread(sent[str(each.SOPInstanceUID)])
        assert each.file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID
        assert data_set(path) == data_set(sent[str(each.SOPInstanceUID)])
        assert each.get("PixelData") == original.get("PixelData")


def test_every_file_goes_as_it_is_stored_in_one_request(postroom: Postroom) -> None:
    (job_id,) = postroom.a_real_analysis("pacs")
    with Server(stores_all).serving() as server:
        postroom.to(over_web(server.url))
        postroom.run(job_id)
    (request,) = server.requests
    stored = {path.read_bytes() for path in (postroom.settings.storage.directory / "results").iterdir()}
    assert set(request.files) == stored and len(request.files) == 3
    assert request.path == "/dicom-web/studies"
    assert "authorization" not in {each.lower() for each in request.headers}
    assert postroom.stage() == "complete"


def test_large_deliveries_are_split(postroom: Postroom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stow, "BYTES_PER_REQUEST", 1)
    (job_id,) = postroom.a_real_analysis("pacs")
    with Server(stores_all).serving() as server:
        postroom.to(over_web(server.url))
        postroom.run(job_id)
    assert [len(each.files) for each in server.requests] == [1, 1, 1]


def test_what_was_stored_of_a_partial_failure_is_not_sent_again(postroom: Postroom) -> None:
    (job_id,) = postroom.a_real_analysis("pacs")
    full = Server(lambda request: (202, answered(request.uids[:1], {request.uids[1]: OUT_OF_RESOURCES})))
    with full.serving():
        postroom.to(over_web(full.url))
        postroom.run(job_id)
    assert postroom.delivery(job_id).state is DeliveryState.PENDING
    assert postroom.events().count("object-delivered") == 1, "one stored, one failed, one not named"
    postroom.make_due(job_id)
    with Server(stores_all).serving() as server:
        postroom.to(over_web(server.url))
        postroom.run(job_id)
    (request,) = server.requests
    assert set(request.uids) == set(full.requests[0].uids[1:])
    assert postroom.stage() == "complete"


def test_what_the_server_refuses_fails_with_its_reason(postroom: Postroom) -> None:
    (job_id,) = postroom.a_real_analysis("pacs")
    server = Server(lambda request: (409, answered([], dict.fromkeys(request.uids, CANNOT_UNDERSTAND))))
    with server.serving():
        postroom.to(over_web(server.url))
        postroom.run(job_id)
    delivery = postroom.delivery(job_id)
    assert delivery.state is DeliveryState.FAILED and "0xC000" in (delivery.last_error or "")
    assert postroom.events().count("object-refused") == 3


@pytest.mark.parametrize("status", [400, 413])
def test_a_body_refused_as_a_whole_is_sent_file_by_file(status: int, postroom: Postroom) -> None:
    (job_id,) = postroom.a_real_analysis("pacs")
    server = Server(lambda request: (status, None) if len(request.files) > 1 else stores_all(request))
    with server.serving():
        postroom.to(over_web(server.url))
        postroom.run(job_id)
    assert [len(each.files) for each in server.requests] == [3, 1, 1, 1]
    assert postroom.stage() == "complete"


def test_a_single_file_refused_is_named(postroom: Postroom) -> None:
    (job_id,) = postroom.a_real_analysis("pacs")
    with Server(lambda _: (413, None)).serving() as server:
        postroom.to(over_web(server.url))
        postroom.run(job_id)
    delivery = postroom.delivery(job_id)
    assert delivery.state is DeliveryState.FAILED and "413" in (delivery.last_error or "")


def takes_no_jpeg(request: Request) -> tuple[int, dict[str, Any]]:
    failed = {
        str(each.SOPInstanceUID): SYNTAX_NOT_SUPPORTED
        for each in map(dcmread, map(BytesIO, request.files))
        if each.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    }
    return (202 if failed else 200), answered([uid for uid in request.uids if uid not in failed], failed)


def test_a_server_that_takes_no_jpeg_gets_it_decoded(postroom: Postroom) -> None:
    (job_id,) = postroom.a_real_analysis("pacs")
    with Server(takes_no_jpeg).serving() as server:
        postroom.to(over_web(server.url))
        postroom.run(job_id)
    assert postroom.stage() == "complete"
    last = dcmread(BytesIO(server.requests[-1].files[0]))
    assert last.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert any(each.get("recoded") for each in postroom.details("object-delivered"))


@pytest.mark.parametrize(
    ("status", "slow"), [(401, True), (403, True), (404, True), (302, True), (503, False), (429, False)]
)
def test_a_server_that_takes_nothing_is_tried_again(status: int, slow: bool, postroom: Postroom) -> None:
    (job_id,) = postroom.a_real_analysis("pacs")
    with Server(lambda _: (status, None)).serving() as server:
        postroom.to(over_web(server.url))
        postroom.run(job_id)
    delivery, job = postroom.delivery(job_id), postroom.job(job_id)
    assert delivery.state is DeliveryState.PENDING and str(status) in (delivery.last_error or "")
    assert ((job.not_before - job.claimed_at).total_seconds() > 10) == slow


def test_nobody_there_and_an_answer_without_a_body(postroom: Postroom) -> None:
    (job_id,) = postroom.a_real_analysis("pacs")
    with Server(lambda _: (200, None)).serving() as server:
        pass
    postroom.to(over_web(server.url))
    postroom.run(job_id)
    assert "cannot be reached" in (postroom.delivery(job_id).last_error or "")
    postroom.make_due(job_id)
    with Server(lambda _: (200, None)).serving() as server:
        postroom.to(over_web(server.url))
        postroom.run(job_id)
    assert postroom.stage() == "complete", "200 says that all was stored"


def test_token_and_client_certificate_over_tls(
    postroom: Postroom, certificates: Certificates, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server.certificate, certificates.server.key)
    context.load_verify_locations(certificates.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    token = tmp_path / "token"
    token.write_text("Bearer of-the-file\n")
    postroom.settings = postroom.settings.model_copy(
        update={"tls": certificates.client.settings(certificates.ca)}
    )
    (by_file,) = postroom.a_real_analysis("pacs")
    (by_variable,) = postroom.a_real_analysis("pacs")
    with Server(stores_all, tls=context).serving() as server:
        postroom.to(over_web(server.url, authorities=certificates.ca, authorization=token))
        postroom.run(by_file)
        postroom.to(
            over_web(
                server.url,
                authorities=certificates.ca,
                authorization_variable="PACS_TOKEN",
                authorization_value=SecretStr("Bearer of-the-environment"),
            )
        )
        postroom.run(by_variable)
        assert [each.headers["Authorization"] for each in server.requests] == [
            "Bearer of-the-file",
            "Bearer of-the-environment",
        ]
        assert "of-the" not in str(postroom.settings) + json.dumps(postroom.settings.redacted())
        postroom.to(over_web(server.url))
        (untrusted,) = postroom.a_real_analysis("pacs")
        postroom.run(untrusted)
    assert "cannot be trusted" in (postroom.delivery(untrusted).last_error or "")
    assert len(server.requests) == 2


@pytest.mark.slow
def test_doctor_asks_the_server(postroom: Postroom, orthanc: Orthanc) -> None:
    postroom.to(over_web(orthanc.dicomweb_url))
    finding = next(each for each in examine(postroom.settings) if each.check == "destination pacs")
    assert finding.ok, finding
