"""STOW-RS over HTTPS: who shows a known certificate needs no token, and new files count from then on."""

from __future__ import annotations

import shutil
import socket
import ssl
import time
from pathlib import Path

import pytest
import requests
from certificates import Certificates, Pair, make_certificates
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


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def digest_of(pair: Pair) -> str:
    return fingerprint(ssl.PEM_cert_to_DER_cert(pair.certificate.read_text()))


def secured(site: Site, shown: Certificates, own: Pair) -> Site:
    callers = (
        WebCaller(name="CAMERA", certificate_sha256=digest_of(shown.client)),
        WebCaller(name="GATEWAY", token_sha256=DIGEST),
    )
    web = site.settings.web.model_copy(update={"tls": True, "callers": callers})
    return site.with_settings(tls=own.settings(shown.ca), web=web)


def posted(site: Site, shown: Certificates, client: Pair | None = None, token: str = "") -> int:
    headers = {"Content-Type": RELATED} | ({"Authorization": f"Bearer {token}"} if token else {})
    return requests.post(
        f"{site.url}/studies",
        data=a_body(file_of(a_photograph())),
        headers=headers,
        timeout=20,
        verify=str(shown.ca),
        cert=(str(client.certificate), str(client.key)) if client else None,
    ).status_code


def test_a_certificate_or_a_token_names_the_caller(site: Site, shown: Certificates) -> None:
    site = secured(site, shown, shown.server)
    with site.serving():
        assert posted(site, shown, shown.client) == 200
        assert posted(site, shown, token=TOKEN) == 200
        assert posted(site, shown) == 401
        assert posted(site, shown, shown.second_server) == 401, "of our CA, but nobody we know"
        for unwelcome in (shown.expired, shown.stranger):
            with pytest.raises(requests.ConnectionError):
                posted(site, shown, unwelcome)
        with pytest.raises(requests.ConnectionError):
            requests.get(site.url.replace("https", "http") + "/health/live", timeout=9)
    assert [each.calling_ae for each in site.instances()] == ["CAMERA", "GATEWAY"]


@pytest.mark.slow
def test_a_handshake_that_never_ends_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, site: Site, shown: Certificates
) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_SECONDS", 0.5)
    site = secured(site, shown, shown.server)
    with site.serving():
        assert web_answers(site.settings.web, READY_PATH)
        for beginning in (b"", b"\x16\x03\x01\x02\x00"):
            with socket.create_connection((LOOPBACK, site.settings.web.port), timeout=9) as connection:
                started = time.monotonic()
                connection.sendall(beginning)
                assert not connection.recv(9)
                assert time.monotonic() - started < 5
        assert posted(site, shown, token=TOKEN) == 200
    assert not web_answers(site.settings.web, READY_PATH)


@pytest.mark.slow
def test_a_renewed_certificate_is_taken_into_use(site: Site, shown: Certificates, tmp_path: Path) -> None:
    own = Pair(tmp_path / "own.pem", tmp_path / "own.key")
    shutil.copy(shown.server.certificate, own.certificate)
    shutil.copy(shown.server.key, own.key)
    site = secured(site, shown, own)
    with site.serving():
        assert _serves(site) == digest_of(shown.server)
        own.certificate.write_text("broken")
        _until_audited(site, 1)
        assert _serves(site) == digest_of(shown.server), "the old one stays"
        shutil.copy(shown.second_server.certificate, own.certificate)
        shutil.copy(shown.second_server.key, own.key)
        _until_audited(site, 2)
        assert _serves(site) == digest_of(shown.second_server)
        assert posted(site, shown, shown.client) == 200
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
