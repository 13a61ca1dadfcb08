"""Studies out of a real Orthanc that speaks TLS alone: by C-GET, C-MOVE, and DICOMweb over HTTPS."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates, Pair
from clinic import Clinic, documents
from drawn_objects import a_photograph, written
from pydicom.uid import JPEGBaseline8Bit, generate_uid
from servers import ScratchOrthanc
from ward import LOOPBACK, Ward

from cds_plugin.config import Tls
from cds_plugin.demo.ports import free_ports

pytestmark = pytest.mark.slow


@contextmanager
def https_in_front(port: int, shown: Pair, ca: Path) -> Iterator[int]:
    """Yield the port of a proxy that ends TLS before an HTTP server, as hospitals have one before Orthanc.

    It wants a client certificate. (Orthanc's own HTTPS crashes where its web server meets OpenSSL 3.)
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.certificate, shown.key)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    loop, started = asyncio.new_event_loop(), threading.Event()
    ports: list[int] = []

    async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while some := await source.read(65536):
                target.write(some)
                await target.drain()
        target.close()

    async def serve(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        inner_source, inner_target = await asyncio.open_connection(LOOPBACK, port)
        await asyncio.gather(pass_on(source, inner_target), pass_on(inner_source, target))

    async def run() -> None:
        server = await asyncio.start_server(serve, LOOPBACK, 0, ssl=context)
        ports.append(server.sockets[0].getsockname()[1])
        started.set()

    def forever() -> None:
        loop.run_until_complete(run())
        loop.run_forever()

    thread = threading.Thread(target=forever, daemon=True)
    thread.start()
    assert started.wait(30)
    yield ports[0]
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


@pytest.fixture
def secure(ward: Ward, certificates: Certificates, tmp_path: Path) -> Iterator[Clinic]:
    """Yield an Orthanc that takes DICOM over TLS only, with client certificates, and knows our port."""
    http_port, dicom_port, tls_port = free_ports(3)
    tls = certificates.server.settings(certificates.ca, mode="only", port=tls_port)
    ward.settings = ward.settings.model_copy(update={"tls": tls})
    theirs = certificates.second_server
    more = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(theirs.certificate),
        "DicomTlsPrivateKey": str(theirs.key),
        "DicomTlsTrustedCertificates": str(certificates.ca),
        "DicomTlsRemoteCertificateRequired": True,
        "DicomModalities": {"cds": {"AET": "CDS", "Host": LOOPBACK, "Port": tls_port, "UseDicomTls": True}},
    }
    with ScratchOrthanc(tmp_path / "orthanc", http_port, dicom_port, more=more) as orthanc:
        yield Clinic(ward, orthanc, tmp_path)


def a_study(clinic: Clinic) -> str:
    study = generate_uid()
    for seed in range(3):
        picture = a_photograph(study, seed=seed, transfer_syntax=JPEGBaseline8Bit)
        path = written(picture, clinic.folder / f"{seed}.dcm")
        clinic.orthanc.post("/instances", path.read_bytes())
    return study


def table(tls: Tls) -> str:
    written_keys = tls.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    return "[tls]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in written_keys.items())


@pytest.mark.parametrize("way", ["c-get", "c-move"])
def test_a_study_comes_over_dicom_tls(secure: Clinic, certificates: Certificates, way: str) -> None:
    study, tls = a_study(secure), secure.ward.settings.tls
    said: dict[str, Any] = {"retrieve": way, "tls": True, "tls_table": table(tls)}
    with ExitStack() as running:
        if way == "c-move":
            running.enter_context(secure.ward.listening())
        (pulled,) = documents(secure.pull("--study", study, **said))
        (stranger,) = documents(
            secure.pull(
                "--study",
                study,
                "--again",
                **(said | {"tls_table": table(certificates.server.settings(certificates.stranger_ca))}),
            )
        )
    assert (pulled["state"], pulled["fetched"]) == ("complete", 3)
    assert stranger["state"] == "incomplete" and "certificate" in stranger["error"]["message"]
    shown = {row.detail.get("certificate") for row in secure.ward.audit("instance-stored")}
    assert (None in shown) is (way == "c-get"), "what is moved comes over the listener's TLS port"


def test_a_study_comes_over_https(secure: Clinic, certificates: Certificates) -> None:
    study, theirs = a_study(secure), certificates.second_server
    mine = table(certificates.client.settings(certificates.ca))
    others = {"web_authorities": certificates.stranger_ca}
    with https_in_front(secure.orthanc.http_port, theirs, certificates.ca) as port:
        url = f"https://{LOOPBACK}:{port}/dicom-web"
        said: dict[str, Any] = {"retrieve": "wado-rs", "web_url": url, "web_authorities": certificates.ca}
        (untrusted,) = documents(secure.pull("--study", study, tls_table=mine, **(said | others)))
        (unknown,) = documents(secure.pull("--study", study, **said))
        (pulled,) = documents(secure.pull("--study", study, tls_table=mine, **said))
    assert "cannot be trusted" in untrusted["error"]["message"]
    assert unknown["error"]["code"] in ("web_away", "web_gone"), "it wants our certificate"
    assert (pulled["state"], pulled["fetched"]) == ("complete", 3)
