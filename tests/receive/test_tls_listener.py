"""The listener over TLS, with dcmtk, openssl and raw sockets on the other side."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from certificates import Certificates, Pair
from drawn_objects import DERMOSCOPIC, a_photograph, written
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from ward import AE_TITLE, LOOPBACK, Ward

from cds_plugin.config import ClientCertificate, Rule, TlsMode
from cds_plugin.demo.ports import free_ports
from cds_plugin.errors import Refused, Unavailable
from cds_plugin.tls import profile
from cds_plugin.tls.outgoing import ClientTls
from cds_plugin.tls.reading import read_certificates

Dcmtk = Callable[..., subprocess.CompletedProcess[str]]
CONTEXT = (DERMOSCOPIC, ExplicitVRLittleEndian)
NODE_FILES = ("certificate", "key", "authorities", "revoked")


@pytest.fixture
def secure(ward: Ward, certificates: Certificates, tmp_path: Path) -> Ward:
    """Return a ward that speaks TLS beside plain DICOM and wants a certificate of every caller."""
    node = tmp_path / "node"
    node.mkdir()
    mine = Pair(node / "cert.pem", node / "key.pem")
    install(certificates.server, mine)
    (port,) = free_ports(1)
    tls = mine.settings(certificates.ca, mode="beside", port=port)
    ward.settings = ward.settings.model_copy(update={"tls": tls})
    return ward


def install(pair: Pair, at: Pair) -> None:
    """Replace a certificate and its key, one after the other, as an administrator would."""
    at.certificate.write_bytes(pair.certificate.read_bytes())
    at.key.write_bytes(pair.key.read_bytes())


def changed(ward: Ward, **update: object) -> None:
    ward.settings = ward.settings.model_copy(update={"tls": ward.settings.tls.model_copy(update=update)})


def echo(dcmtk: Dcmtk, ward: Ward, ca: Path, shown: Pair | None) -> bool:
    """Return whether dcmtk's C-ECHO over TLS succeeds, showing a certificate or none."""
    certificate = ("+tls", shown.key, shown.certificate) if shown else ("+tla",)
    done = dcmtk(
        "echoscu", "-aec", AE_TITLE, *certificate, "+cf", ca, LOOPBACK, ward.settings.tls.port, timeout=30
    )
    return done.returncode == 0


def associated(ward: Ward, certificates: Certificates, shown: Pair) -> Association:
    """Return our own client's association over TLS."""
    how = ClientTls(shown.settings(certificates.ca), LOOPBACK)
    return AE("CAMERA").associate(
        LOOPBACK,
        ward.settings.tls.port,
        contexts=[build_context(*CONTEXT)],
        ae_title=AE_TITLE,
        tls_args=how.arguments(),
    )


def refusals(ward: Ward, within: float = 5.0) -> list[tuple[str, int]]:
    """Return the reasons of failed handshakes in the audit trail, once there is one, with their counts."""
    deadline = time.monotonic() + within
    while not (rows := ward.audit("tls-handshake-failed")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert {row.actor for row in rows} <= {LOOPBACK}
    return [(row.detail["reason"], row.detail["count"]) for row in rows]


def test_dcmtk_stores_over_tls(
    secure: Ward, certificates: Certificates, dcmtk: Dcmtk, tmp_path: Path
) -> None:
    picture = written(a_photograph(side=700), tmp_path / "a.dcm")
    shown = ("+tls", certificates.client.key, certificates.client.certificate, "+cf", certificates.ca)
    with secure.listening():
        done = dcmtk("storescu", "-R", *shown, "-aec", AE_TITLE, LOOPBACK, secure.settings.tls.port, picture)
        assert done.returncode == 0, done.stderr
        assert dcmtk("echoscu", "-aec", AE_TITLE, LOOPBACK, secure.port).returncode == 0, "plain goes on"
    assert len(secure.instances()) == 1


def test_the_association_knows_who_its_peer_is(secure: Ward, certificates: Certificates) -> None:
    listener = secure.listening()
    with listener:
        ours = associated(secure, certificates, certificates.client)
        plain = secure.connected(CONTEXT)
        assert ours.send_c_store(a_photograph()).Status == plain.send_c_store(a_photograph()).Status == 0
        over_tls, without = sorted(listener._ledger.recorded(), key=lambda entry: entry.tls is None)
        ours.release()
        plain.release()
    assert over_tls.caller.tls == read_certificates(certificates.client.certificate)[0].identity
    assert over_tls.tls and (over_tls.tls.common_name, over_tls.tls.names) == (
        "camera-1",
        ("camera.example",),
    )
    assert without.tls is None
    named, unnamed = sorted(secure.audit("instance-stored"), key=lambda row: "certificate" not in row.detail)
    assert named.detail["certificate"] == over_tls.tls.fingerprint and "certificate" not in unnamed.detail


def test_who_shows_no_good_certificate_is_refused_and_audited(
    secure: Ward, certificates: Certificates, dcmtk: Dcmtk
) -> None:
    changed(secure, revoked=certificates.revocations)
    reasons = {
        certificates.stranger: "certificate refused: unable to get local issuer certificate",
        certificates.expired: "certificate refused: certificate has expired",
        certificates.revoked: "certificate refused: certificate revoked",
        None: "peer did not return a certificate",
    }
    with secure.listening():
        for shown in reasons:
            assert not echo(dcmtk, secure, certificates.ca, shown)
        assert echo(dcmtk, secure, certificates.ca, certificates.client)
        assert in_time(lambda: set(refusals(secure)) == {(reason, 1) for reason in reasons.values()})


def test_a_certificate_may_be_optional_but_is_never_unchecked(
    secure: Ward, certificates: Certificates, dcmtk: Dcmtk
) -> None:
    changed(secure, client_certificate=ClientCertificate.OPTIONAL)
    with secure.listening():
        assert echo(dcmtk, secure, certificates.ca, None)
        assert echo(dcmtk, secure, certificates.ca, certificates.client)
        assert not echo(dcmtk, secure, certificates.ca, certificates.stranger)


def test_without_client_certificates_anybody_may_speak(
    secure: Ward, certificates: Certificates, dcmtk: Dcmtk
) -> None:
    changed(secure, client_certificate=ClientCertificate.NONE, authorities=None)
    with secure.listening():
        assert echo(dcmtk, secure, certificates.ca, None)
        assert echo(dcmtk, secure, certificates.ca, certificates.stranger)


def test_the_plain_port_can_be_switched_off(secure: Ward, certificates: Certificates, dcmtk: Dcmtk) -> None:
    changed(secure, mode=TlsMode.ONLY)
    with secure.listening():
        assert echo(dcmtk, secure, certificates.ca, certificates.client)
        assert socket.socket().connect_ex((LOOPBACK, secure.port)) != 0


def test_a_rule_can_ask_for_a_certificate(secure: Ward, certificates: Certificates) -> None:
    rule = Rule.model_validate({"certificate_name": "camera-1", "results_to": ["pacs"]})
    secure.settings = secure.settings.model_copy(update={"rules": (rule,)})
    with secure.listening():
        for shown in (certificates.client, certificates.second_server):
            sender = associated(secure, certificates, shown)
            assert sender.send_c_store(a_photograph()).Status == 0x0000
            sender.release()
        assert secure.sent(a_photograph()) == [0x0000]
    assert [each.reason_not_analysed is None for each in secure.instances()] == [True, False, False]


def s_client(ward: Ward, certificates: Certificates, *options: object) -> subprocess.CompletedProcess[str]:
    shown = certificates.client
    command = ["openssl", "s_client", "-connect", f"{LOOPBACK}:{ward.settings.tls.port}", "-brief"]
    command += ["-cert", shown.certificate, "-key", shown.key, "-CAfile", certificates.ca, *options]
    return subprocess.run(
        list(map(str, command)), input="", capture_output=True, text=True, timeout=30, check=False
    )


def test_versions_and_suites_are_those_of_the_profile(secure: Ward, certificates: Certificates) -> None:
    with secure.listening():
        for suite in ("ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"):
            done = s_client(secure, certificates, "-tls1_2", "-cipher", suite)
            assert done.returncode == 0 and suite in done.stderr, done.stderr
            assert suite in profile.CIPHER_SUITES_TLS_1_2.values()
        for suite in profile.CIPHER_SUITES_TLS_1_3:
            done = s_client(secure, certificates, "-tls1_3", "-ciphersuites", suite)
            assert done.returncode == 0 and suite in done.stderr, done.stderr
        assert "TLSv1.3" in s_client(secure, certificates).stderr, "preferred"
        for options, alert in {
            ("-tls1", "-cipher", "ALL:@SECLEVEL=0"): "protocol version",
            ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"): "protocol version",
            ("-tls1_2", "-cipher", "DHE-RSA-AES256-GCM-SHA384"): "handshake failure",
            ("-tls1_2", "-cipher", "AES256-GCM-SHA384"): "handshake failure",
            ("-tls1_2", "-cipher", "ECDHE-RSA-AES256-SHA384"): "handshake failure",
            ("-tls1_2", "-cipher", "NULL:@SECLEVEL=0"): "handshake failure",
        }.items():
            done = s_client(secure, certificates, *options)
            assert done.returncode != 0 and f"alert {alert}" in done.stderr, (options, done.stderr)


@pytest.mark.slow
def test_certificates_are_replaced_without_a_restart(
    secure: Ward, certificates: Certificates, dcmtk: Dcmtk
) -> None:
    tls = secure.settings.tls
    assert tls.certificate and tls.key
    with secure.listening():
        before = associated(secure, certificates, certificates.client)
        assert shown_name(secure, certificates) == "cds"
        tls.certificate.write_bytes(certificates.second_server.certificate.read_bytes())
        assert shown_name(secure, certificates) == "cds", "half of the change"
        tls.key.write_bytes(certificates.second_server.key.read_bytes())
        assert in_time(lambda: shown_name(secure, certificates) == "cds-2")
        assert before.send_c_store(a_photograph()).Status == 0, "an open association goes on"
        tls.certificate.write_text("broken")
        assert in_time(lambda: secure.audit("tls-files-changed")[-1].outcome == "minor_failure")
        assert shown_name(secure, certificates) == "cds-2", "the old one stays"
        before.release()
    *_, loaded, refused = secure.audit("tls-files-changed")
    assert loaded.outcome == "success" and "tls.certificate" in refused.detail["problem"]


def shown_name(ward: Ward, certificates: Certificates) -> str:
    context, name = ClientTls(certificates.client.settings(certificates.ca), LOOPBACK).arguments()
    connection = socket.create_connection((LOOPBACK, ward.settings.tls.port), 10)
    with context.wrap_socket(connection, server_hostname=name) as secured:
        shown = secured.getpeercert()
    assert shown
    return dict(part for group in shown["subject"] for part in group)["commonName"]


def in_time(happened: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not (well := happened()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return well


@pytest.mark.slow
def test_half_a_handshake_holds_up_nobody_and_ends(
    secure: Ward, certificates: Certificates, dcmtk: Dcmtk
) -> None:
    secure.bounds = replace(secure.bounds, handshake_seconds=3.0)
    half = [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"]
    with secure.listening(), ExitStack() as opened:
        waiting = []
        for beginning in half * 10:
            connection = opened.enter_context(socket.create_connection((LOOPBACK, secure.settings.tls.port)))
            connection.sendall(beginning)
            waiting.append(connection)
        assert echo(dcmtk, secure, certificates.ca, certificates.client)
        for connection in waiting:
            connection.settimeout(10)
            assert ended(connection)
    assert len(secure.audit("tls-handshake-failed")) <= 2, "summarised"
    assert sum(row.detail["count"] for row in secure.audit("tls-handshake-failed")) == len(waiting)


def ended(connection: socket.socket) -> bool:
    """Return whether the other side closed, after whatever alert it sent."""
    try:
        while connection.recv(1024):
            pass
    except ConnectionResetError:
        pass
    return True


def test_a_health_check_is_no_alarm_and_plain_dicom_on_the_tls_port_is(
    secure: Ward, certificates: Certificates, dcmtk: Dcmtk
) -> None:
    with secure.listening():
        for _ in range(5):
            socket.create_connection((LOOPBACK, secure.settings.tls.port)).close()
        assert dcmtk("echoscu", "-aec", AE_TITLE, LOOPBACK, secure.settings.tls.port).returncode != 0
        ((reason, count),) = refusals(secure)
    assert reason == "wrong version number" and count == 1


def test_tls_noise_on_the_plain_port_is_answered_by_its_end(secure: Ward, certificates: Certificates) -> None:
    with secure.listening():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(certificates.ca)
        connection = socket.create_connection((LOOPBACK, secure.port), 10)
        with connection, pytest.raises(OSError):
            context.wrap_socket(connection, server_hostname=LOOPBACK)
        assert secure.sent(a_photograph()) == [0x0000]


def test_the_end_of_a_connection_is_told_from_a_cut(secure: Ward, certificates: Certificates) -> None:
    secure.bounds = replace(secure.bounds, acse_seconds=0.3)
    with secure.listening():
        context, name = ClientTls(certificates.client.settings(certificates.ca), LOOPBACK).arguments()
        connection = socket.create_connection((LOOPBACK, secure.settings.tls.port), 10)
        with context.wrap_socket(connection, server_hostname=name, suppress_ragged_eofs=False) as secured:
            assert secured.recv(1) == b"", "close_notify; without it this is an error"


def test_a_wrong_file_stops_the_start_and_is_named(secure: Ward, tmp_path: Path) -> None:
    changed(secure, authorities=tmp_path / "gone.pem")
    with pytest.raises(Refused, match=r"tls\.authorities"):
        secure.listening()


def test_a_tls_port_that_is_taken_leaves_no_port_open(secure: Ward) -> None:
    taken = socket.create_server((LOOPBACK, secure.settings.tls.port))
    with taken, pytest.raises(Unavailable, match=r"tls\.port"), secure.listening():
        pass
    assert socket.socket().connect_ex((LOOPBACK, secure.port)) != 0


def test_many_send_at_once_over_tls(secure: Ward, certificates: Certificates) -> None:
    with secure.listening():
        senders = [associated(secure, certificates, certificates.client) for _ in range(4)]
        answers = [sender.send_c_store(a_photograph(side=300)).Status for sender in senders for _ in range(3)]
        for sender in senders:
            sender.release()
    assert answers == [0x0000] * 12 and len(secure.instances()) == 12
