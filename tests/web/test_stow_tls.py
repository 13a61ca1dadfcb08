"""STOW-RS over HTTPS: who shows a known certificate needs no token, and new files count from then on."""

from __future__ import annotations

import shutil
import socket
import ssl
import time
from pathlib import Path

import pytest
import requests
from certificates import Certificates, Pair
from drawn_objects import a_photograph
from ward import LOOPBACK
from web_site import RELATED, Site, a_body, file_of

from cds_plugin.config import WebCaller
from cds_plugin.tls.identity import fingerprint
from cds_plugin.web import server
from cds_plugin.web.callers import new_token
from cds_plugin.web.paths import READY_PATH
from cds_plugin.web.probe import web_answers

TOKEN, DIGEST = new_token()
RELOAD_SECONDS = 20.0


def digest_of(pair: Pair) -> str:
    return fingerprint(ssl.PEM_cert_to_DER_cert(pair.certificate.read_text()))


def secured(site: Site, certificates: Certificates, own: Pair) -> Site:
    callers = (
        WebCaller(name="CAMERA", certificate_sha256=digest_of(certificates.client)),
        WebCaller(name="GATEWAY", token_sha256=DIGEST),
    )
    web = site.settings.web.model_copy(update={"tls": True, "callers": callers})
    return site.with_settings(tls=own.settings(certificates.ca), web=web)


def posted(site: Site, certificates: Certificates, client: Pair | None = None, token: str = "") -> int:
    headers = {"Content-Type": RELATED} | ({"Authorization": f"Bearer {token}"} if token else {})
    return requests.post(
        f"{site.url}/studies",
        data=a_body(file_of(a_photograph())),
        headers=headers,
        timeout=20,
        verify=str(certificates.ca),
        cert=(str(client.certificate), str(client.key)) if client else None,
    ).status_code


def test_a_certificate_or_a_token_names_the_caller(site: Site, certificates: Certificates) -> None:
    site = secured(site, certificates, certificates.server)
    with site.serving():
        assert posted(site, certificates, certificates.client) == 200
        assert posted(site, certificates, token=TOKEN) == 200
        assert posted(site, certificates) == 401
        assert posted(site, certificates, certificates.second_server) == 401, "of our CA, but nobody we know"
        for unwelcome in (certificates.expired, certificates.stranger):
            with pytest.raises(requests.ConnectionError):
                posted(site, certificates, unwelcome)
        with pytest.raises(requests.ConnectionError):
            requests.get(site.url.replace("https", "http") + "/health/live", timeout=9)
    assert [each.calling_ae for each in site.instances()] == ["CAMERA", "GATEWAY"]


@pytest.mark.slow
def test_a_handshake_that_never_ends_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, site: Site, certificates: Certificates
) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_SECONDS", 0.5)
    site = secured(site, certificates, certificates.server)
    with site.serving():
        assert web_answers(site.settings.web, READY_PATH)
        for beginning in (b"", b"\x16\x03\x01\x02\x00"):
            with socket.create_connection((LOOPBACK, site.settings.web.port), timeout=9) as connection:
                started = time.monotonic()
                connection.sendall(beginning)
                assert not connection.recv(9)
                assert time.monotonic() - started < 5
        assert posted(site, certificates, token=TOKEN) == 200
    assert not web_answers(site.settings.web, READY_PATH)


@pytest.mark.slow
def test_a_renewed_certificate_is_taken_into_use(
    site: Site, certificates: Certificates, tmp_path: Path
) -> None:
    own = Pair(tmp_path / "own.pem", tmp_path / "own.key")
    shutil.copy(certificates.server.certificate, own.certificate)
    shutil.copy(certificates.server.key, own.key)
    site = secured(site, certificates, own)
    with site.serving():
        assert _serves(site) == digest_of(certificates.server)
        own.certificate.write_text("broken")
        _until_audited(site, 1)
        assert _serves(site) == digest_of(certificates.server), "the old one stays"
        shutil.copy(certificates.second_server.certificate, own.certificate)
        shutil.copy(certificates.second_server.key, own.key)
        _until_audited(site, 2)
        assert _serves(site) == digest_of(certificates.second_server)
        assert posted(site, certificates, certificates.client) == 200
    outcomes = [each.outcome for each in site.audit("tls-files-changed")]
    assert outcomes == ["minor_failure", "success"]


def _serves(site: Site) -> str:
    pem = ssl.get_server_certificate((LOOPBACK, site.settings.web.port))
    return fingerprint(ssl.PEM_cert_to_DER_cert(pem))


def _until_audited(site: Site, rows: int) -> None:
    deadline = time.monotonic() + RELOAD_SECONDS
    while len(site.audit("tls-files-changed")) < rows:
        assert time.monotonic() < deadline
        time.sleep(0.1)
