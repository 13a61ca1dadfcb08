"""Objects and echoes over TLS, to dcmtk and Orthanc and back; what is wrong with a certificate is said."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from certificates import Certificates, Pair
from drawn_objects import a_photograph, written
from pydicom import dcmread
from pydicom.uid import JPEGBaseline8Bit
from servers import ScratchOrthanc
from typer.testing import CliRunner

from cds_db.migrate import upgrade
from cds_db.session import open_engine
from cds_plugin.checks import answers_echo, listener_answers
from cds_plugin.cli import build
from cds_plugin.commands.up import _listener_is_up
from cds_plugin.config import Destination, Settings, Tls, load_settings
from cds_plugin.deliver.sender import Answer, Peer, peer_of, read_outgoing, send_files
from cds_plugin.demo.ports import LOOPBACK, free_ports
from cds_plugin.doctor import _certificate, _peer
from cds_plugin.errors import Unavailable
from cds_plugin.reach import port_is_open
from cds_plugin.receive.listener import DicomListener
from cds_plugin.tls.outgoing import ClientTls

START_SECONDS = 20.0


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return written(a_photograph(transfer_syntax=JPEGBaseline8Bit), tmp_path / "out" / "a.dcm")


@contextmanager
def a_storescp(folder: Path, port: int, shown: Pair, ca: Path) -> Iterator[None]:
    """Run dcmtk's storescp over TLS; it wants a certificate of whoever calls."""
    folder.mkdir()
    tls = ["+tls", str(shown.key), str(shown.certificate), "+cf", str(ca)]
    command = ["storescp", "-od", str(folder), "-pm", "+xa", "+B", "-aet", "DCMTK", *tls, str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        deadline = time.monotonic() + START_SECONDS
        while not port_is_open(LOOPBACK, port) and time.monotonic() < deadline:
            time.sleep(0.05)
        try:
            yield
        finally:
            server.terminate()


def sent(picture: Path, tls: ClientTls | None, port: int) -> list[Answer]:
    answers: list[Answer] = []
    peer = Peer("DCMTK", LOOPBACK, port, tls)
    send_files([read_outgoing(picture)], peer, "CDS", lambda answer: answers.append(answer) is None)
    return answers


def test_dcmtk_takes_objects_over_tls(
    tmp_path: Path, free_port: int, certificates: Certificates, picture: Path
) -> None:
    tls = ClientTls(certificates.server.settings(certificates.ca), LOOPBACK)
    with a_storescp(tmp_path / "in", free_port, certificates.second_server, certificates.ca):
        assert [answer.status for answer in sent(picture, tls, free_port)] == [0]
        assert answers_echo(LOOPBACK, free_port, "DCMTK", tls=tls)
        assert not answers_echo(LOOPBACK, free_port, "DCMTK"), "it takes no plain DICOM"
    (arrived,) = (tmp_path / "in").iterdir()
    assert dcmread(arrived).SOPInstanceUID == dcmread(picture).SOPInstanceUID


def test_what_is_wrong_with_a_certificate_is_said(
    tmp_path: Path, free_port: int, certificates: Certificates, picture: Path
) -> None:
    good = certificates.server.settings(certificates.ca)
    cases = {
        "hostname|ip address mismatch": ClientTls(good, "pacs.hospital"),
        "self-signed certificate|unable to get": ClientTls(
            certificates.server.settings(certificates.stranger_ca), LOOPBACK
        ),
        "over TLS": ClientTls(certificates.stranger.settings(certificates.ca), LOOPBACK),
        "tls.authorities": ClientTls(certificates.server.settings(tmp_path / "gone.pem"), LOOPBACK),
    }
    with a_storescp(tmp_path / "in", free_port, certificates.second_server, certificates.ca):
        for said, tls in cases.items():
            with pytest.raises(Unavailable, match=f"(?i){said}"):
                sent(picture, tls, free_port)
    assert not list((tmp_path / "in").iterdir())


def test_a_name_can_be_named_or_left_open(
    tmp_path: Path, free_port: int, certificates: Certificates, picture: Path
) -> None:
    files = certificates.server.settings(certificates.ca)
    with a_storescp(tmp_path / "in", free_port, certificates.elsewhere, certificates.ca):
        with pytest.raises(Unavailable, match="over TLS"):
            sent(picture, ClientTls(files, LOOPBACK), free_port)
        for name in ("pacs.example", "*"):
            assert sent(picture, ClientTls(files, name), free_port)[0].stored


def test_a_pinned_certificate_needs_no_authority(
    tmp_path: Path, free_port: int, certificates: Certificates, picture: Path
) -> None:
    pinned = certificates.server.settings(certificates.second_server.certificate)
    with a_storescp(tmp_path / "in", free_port, certificates.second_server, certificates.ca):
        assert sent(picture, ClientTls(pinned, LOOPBACK), free_port)[0].stored


def test_a_peer_without_tls_is_said_to_be_one(
    free_port: int, certificates: Certificates, picture: Path
) -> None:
    tls = ClientTls(certificates.server.settings(certificates.ca), LOOPBACK)
    with socket.create_server((LOOPBACK, free_port)) as server:
        server.settimeout(START_SECONDS)
        with pytest.raises(Unavailable, match="over TLS: wrong version number"):
            _answering(server, lambda: sent(picture, tls, free_port))


def _answering(server: socket.socket, ask: Callable[[], object]) -> None:
    """Answer the next caller with an A-ABORT, as a listener without TLS does."""

    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x00")
            connection.recv(4096)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        ask()
    finally:
        thread.join(START_SECONDS)


def test_settings_make_a_peer(tmp_path: Path, certificates: Certificates) -> None:
    text = f"""
    [tls]
    authorities = "{certificates.ca}"
    [[destinations]]
    name = "a"
    ae_title = "A"
    host = "pacs.example"
    port = 2762
    tls = true
    [[destinations]]
    name = "b"
    ae_title = "B"
    host = "10.0.0.1"
    port = 2762
    tls = true
    tls_server_name = "*"
    [[destinations]]
    name = "c"
    ae_title = "C"
    host = "10.0.0.2"
    port = 104
    """
    file = tmp_path / "cds-plugin.toml"
    file.write_text(text)
    settings = load_settings(file, {})
    a, b, c = (peer_of(settings, each) for each in settings.destinations)
    assert a.tls and b.tls and c.tls is None
    assert (a.tls.server_name, b.tls.server_name) == ("pacs.example", "*")


def test_the_send_command_over_tls(
    tmp_path: Path, free_port: int, certificates: Certificates, picture: Path
) -> None:
    file = tmp_path / "cds-plugin.toml"
    mine = certificates.server
    file.write_text(
        f'[tls]\ncertificate = "{mine.certificate}"\nkey = "{mine.key}"\nauthorities = "{certificates.ca}"\n'
    )
    arguments = [
        "send",
        str(picture),
        "--to",
        f"DCMTK@{LOOPBACK}:{free_port}",
        "--tls",
        "--config",
        str(file),
    ]
    with a_storescp(tmp_path / "in", free_port, certificates.second_server, certificates.ca):
        done = CliRunner().invoke(build("send"), arguments)
        assert done.exit_code == 0, done.output
        other = CliRunner().invoke(build("send"), [*arguments, "--server-name", "other.example"])
        assert other.exit_code == 1 and "over TLS" in other.output
    file.write_text("")
    bare = CliRunner().invoke(build("send"), arguments)
    assert bare.exit_code == 2 and "tls.authorities" in bare.output


def test_doctor_tells_of_the_certificate(certificates: Certificates, tmp_path: Path) -> None:
    tls = certificates.server.settings(certificates.ca, mode="only")
    assert tls.key
    tls.key.chmod(0o600)
    now = datetime.now(UTC)
    assert _certificate(tls, now).ok
    soon = _certificate(tls, now + timedelta(days=810))
    assert not soon.ok and "14 days" in soon.detail
    tls.key.chmod(0o644)
    assert "others may read" in _certificate(tls, now).detail
    tls.key.chmod(0o600)
    gone = tls.model_copy(update={"authorities": tmp_path / "gone.pem"})
    assert "tls.authorities" in _certificate(gone, now).detail


def test_doctor_asks_a_destination_over_tls(
    tmp_path: Path, free_port: int, certificates: Certificates
) -> None:
    there = Destination(name="pacs", ae_title="DCMTK", host=LOOPBACK, port=free_port, tls=True)
    settings = listening_settings(tmp_path, certificates.server.settings(certificates.ca), there)
    with a_storescp(tmp_path / "in", free_port, certificates.second_server, certificates.ca):
        assert _peer(settings, there, "destination").ok
        elsewhere = _peer(
            settings, there.model_copy(update={"tls_server_name": "other.example"}), "destination"
        )
        assert not elsewhere.ok and elsewhere.action
        broken = settings.tls.model_copy(update={"authorities": tmp_path / "gone.pem"})
        finding = _peer(settings.model_copy(update={"tls": broken}), there, "destination")
    assert not finding.ok and "tls.authorities" in finding.detail


def listening_settings(folder: Path, tls: Tls, *destinations: Destination) -> Settings:
    url = f"sqlite:///{folder / 'cds.db'}"
    upgrade(url)
    (plain,) = free_ports(1)
    return Settings.model_validate(
        {
            "listener": {"port": plain},
            "storage": {"directory": folder / "var"},
            "database": {"url": url},
            "tls": tls,
            **({"destinations": destinations} if destinations else {}),
        }
    )


def test_our_own_listener_is_asked_over_tls(
    tmp_path: Path, free_port: int, certificates: Certificates
) -> None:
    settings = listening_settings(
        tmp_path, certificates.server.settings(certificates.ca, mode="only", port=free_port)
    )
    engine = open_engine(settings.database.url)
    since = datetime.now(UTC)
    assert not listener_answers(settings) and not _listener_is_up(settings, engine, since)
    with DicomListener(settings, engine):
        assert listener_answers(settings) and _listener_is_up(settings, engine, since)
        posing = certificates.second_server.settings(certificates.ca, mode="only", port=free_port)
        assert not listener_answers(settings.model_copy(update={"tls": posing})), "another certificate"


@pytest.mark.slow
def test_orthanc_both_ways_over_tls(tmp_path: Path, certificates: Certificates, picture: Path) -> None:
    http_port, dicom_port, tls_port = free_ports(3)
    theirs = certificates.second_server
    tls = certificates.server.settings(certificates.ca, mode="only", port=tls_port)
    settings = listening_settings(tmp_path, tls)
    engine = open_engine(settings.database.url)
    more = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(theirs.certificate),
        "DicomTlsPrivateKey": str(theirs.key),
        "DicomTlsTrustedCertificates": str(certificates.ca),
        "DicomTlsRemoteCertificateRequired": True,
        "DicomModalities": {
            "cds": {"AET": "CDS", "Host": LOOPBACK, "Port": tls_port, "UseDicomTls": True},
        },
    }
    peer = Peer("ORTHANC", LOOPBACK, dicom_port, ClientTls(tls, LOOPBACK))
    with (
        ScratchOrthanc(tmp_path / "orthanc", http_port, dicom_port, more=more) as orthanc,
        DicomListener(settings, engine),
    ):
        send_files([read_outgoing(picture)], peer, "CDS", lambda answer: answer.stored)
        assert answers_echo(LOOPBACK, dicom_port, "ORTHANC", tls=peer.tls)
        (kept,) = orthanc.get("/instances")
        orthanc.post("/modalities/cds/echo", {})
        assert orthanc.post("/modalities/cds/store", [kept])["FailedInstancesCount"] == 0
        stranger = ClientTls(certificates.stranger.settings(certificates.ca), LOOPBACK)
        with pytest.raises(Unavailable):
            send_files([read_outgoing(picture)], Peer("ORTHANC", LOOPBACK, dicom_port, stranger), "CDS", bool)
    engine.dispose()
    assert len(list((tmp_path / "var" / "spool").rglob("*.dcm"))) == 1
