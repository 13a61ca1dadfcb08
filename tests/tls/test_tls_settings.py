"""The table [tls]: what contradicts itself is named; the files are found beside the settings file."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
from certificates import Certificates, Pair
from cryptography.hazmat.primitives import serialization

from cds_db.events import Event
from cds_plugin.config import ClientCertificate, Limits, Tls, TlsMode, load_settings
from cds_plugin.errors import Refused
from cds_plugin.receive.bounds import Bounds
from cds_plugin.reloading import Reload
from cds_plugin.tls import profile
from cds_plugin.tls.files import server_context
from cds_plugin.tls.serving import ServerTls
from cds_plugin.wire import PDU_BYTES_ACCEPTED

FILES = 'certificate = "a.pem"\nkey = "a.key"\nauthorities = "ca.pem"\n'


def settings_of(folder: Path, text: str) -> Tls:
    file = folder / "cds-plugin.toml"
    file.write_text(text)
    return load_settings(file, {}).tls


def test_tls_is_off_until_there_are_certificates(tmp_path: Path) -> None:
    tls = settings_of(tmp_path, "")
    assert not tls.listens and tls.plain and tls.port == 2762
    assert tls.client_certificate is ClientCertificate.REQUIRED


def test_files_are_relative_to_the_settings_file(tmp_path: Path) -> None:
    tls = settings_of(tmp_path, f'[tls]\nmode = "only"\n{FILES}')
    assert tls.mode is TlsMode.ONLY and not tls.plain
    assert (tls.certificate, tls.authorities) == (tmp_path / "a.pem", tmp_path / "ca.pem")
    assert tls.revoked is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[tls]\nmode = "on"', ["tls.mode", '"only"']),
        ('[tls]\nmode = "only"', ["tls.certificate", "tls init"]),
        ('[tls]\ncertificate = "a.pem"', ["tls.key"]),
        ('[tls]\nkey = "a.pem"', ["tls.certificate"]),
        ('[tls]\nmode = "beside"\ncertificate = "a"\nkey = "b"', ["tls.authorities", "required"]),
        (f'[tls]\nmode = "beside"\nport = 11112\n{FILES}', ["tls.port", "11112"]),
        ('[tls]\nrevoked = "crl.pem"', ["tls.authorities"]),
        (
            '[[destinations]]\nname = "p"\nae_title = "P"\nhost = "h"\nport = 1\ntls = true',
            ["authorities", "'p'"],
        ),
        ("[tls]\nprot = 1", ["tls.prot", "'port'"]),
        ("[limits]\nassociations = 0", ["limits.associations", "1 to 1024"]),
        ("[limits]\npdu_bytes = 100", ["limits.pdu_bytes", "4096"]),
    ],
)
def test_what_contradicts_itself_is_named(tmp_path: Path, text: str, named: list[str]) -> None:
    with pytest.raises(Refused) as caught:
        settings_of(tmp_path, text)
    assert not [word for word in named if word not in str(caught.value)], str(caught.value)


def test_one_way_tls_needs_no_authorities(tmp_path: Path) -> None:
    text = '[tls]\nmode = "only"\nclient_certificate = "none"\ncertificate = "a"\nkey = "b"'
    assert settings_of(tmp_path, text).client_certificate is ClientCertificate.NONE


def test_the_default_limits_are_the_named_constants() -> None:
    assert Limits().as_bounds() == Bounds()


@pytest.mark.parametrize("name", sorted(Limits.model_fields))
def test_each_limit_reaches_one_bound(name: str) -> None:
    changed = Limits.model_validate({name: getattr(Limits(), name) + 65536 if "bytes" in name else 7})
    different = [
        f.name for f in fields(Bounds) if getattr(changed.as_bounds(), f.name) != getattr(Bounds(), f.name)
    ]
    assert len(different) == 1
    assert replace(changed.as_bounds(), **{different[0]: getattr(Bounds(), different[0])}) == Bounds()


def test_the_largest_pdu_is_what_the_wire_takes() -> None:
    with pytest.raises(ValueError, match="pdu_bytes"):
        Limits(pdu_bytes=PDU_BYTES_ACCEPTED + 1)
    assert Limits(pdu_bytes=PDU_BYTES_ACCEPTED).pdu_bytes == PDU_BYTES_ACCEPTED


def test_only_the_suites_of_the_profile_are_offered(certificates: Certificates) -> None:
    offered = {
        each["name"] for each in server_context(certificates.server.settings(certificates.ca)).get_ciphers()
    }
    assert offered == {*profile.CIPHER_SUITES_TLS_1_2.values(), *profile.CIPHER_SUITES_TLS_1_3}


def test_each_wrong_file_is_named(certificates: Certificates, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate")
    good = certificates.server.settings(certificates.ca)
    cases = {
        "tls.certificate": [{"certificate": tmp_path / "gone.pem"}, {"certificate": nonsense}],
        "tls.key": [{"key": tmp_path / "gone.key"}, {"key": _encrypted(certificates, tmp_path)}],
        "tls.authorities": [{"authorities": tmp_path / "gone.pem"}, {"authorities": nonsense}],
        "tls.revoked": [{"revoked": tmp_path / "gone.pem"}, {"revoked": nonsense}],
    }
    for named, changes in cases.items():
        for change in changes:
            with pytest.raises(Refused, match=named):
                server_context(good.model_copy(update=change))
    with pytest.raises(Refused, match=r"tls.certificate.*tls.key"):
        server_context(good.model_copy(update={"key": certificates.client.key}))


def _encrypted(certificates: Certificates, folder: Path) -> Path:
    key = serialization.load_pem_private_key(certificates.server.key.read_bytes(), None)
    file = folder / "encrypted.key"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    return file


def test_a_change_is_taken_once_it_settled_and_told_until_it_was_heard(
    certificates: Certificates, tmp_path: Path
) -> None:
    mine = Pair(tmp_path / "cert.pem", tmp_path / "key.pem")

    def install(pair: Pair) -> None:
        mine.certificate.write_bytes(pair.certificate.read_bytes())
        mine.key.write_bytes(pair.key.read_bytes())

    install(certificates.server)
    serving = ServerTls(mine.settings(certificates.ca)).files
    assert serving.reload_if_changed() is None
    install(certificates.second_server)
    assert serving.reload_if_changed() is None, "it may not be whole yet"
    reload = serving.reload_if_changed()
    assert reload == Reload(Event.TLS_FILES_CHANGED)
    assert serving.reload_if_changed() is None
    serving.put_back(reload)
    assert serving.reload_if_changed() == reload
    mine.key.unlink()
    serving.reload_if_changed()
    refused = serving.reload_if_changed()
    assert refused and refused.problem and "tls.key" in refused.problem
    assert serving.reload_if_changed() is None, "told once"
    install(certificates.server)
    serving.reload_if_changed()
    assert serving.reload_if_changed() == Reload(Event.TLS_FILES_CHANGED)
