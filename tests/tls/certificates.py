"""Certificates for the tests, good and bad, made once per run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from cds_plugin.config import Tls
from cds_plugin.tls.authority import Authority, Signed, new_authority

QUICK_BITS = 2048
"""The least that the profile takes: a third of the time of those that the product makes."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its key as PEM files."""

    certificate: Path
    key: Path

    def settings(self, authorities: Path | None, **more: object) -> Tls:
        """Return a table [tls] with this certificate as ours."""
        files = {"certificate": self.certificate, "key": self.key, "authorities": authorities}
        return Tls.model_validate({**files, **more})


@dataclass(frozen=True)
class Certificates:
    """What the tests show each other."""

    ca: Path
    server: Pair
    second_server: Pair
    elsewhere: Pair
    client: Pair
    expired: Pair
    revoked: Pair
    revocations: Path
    stranger: Pair
    stranger_ca: Path


def make_certificates(folder: Path) -> Certificates:
    """Write everything below `folder`."""
    ours, theirs = new_authority(QUICK_BITS), new_authority(QUICK_BITS)
    revoked = ours.sign("revoked", (), server=False)
    here = ("localhost", "127.0.0.1")
    return Certificates(
        ca=_written(folder / "ca.pem", ours.certificate.public_bytes(Encoding.PEM)),
        server=_pair(folder, "server", ours.sign("cds", here, server=True)),
        second_server=_pair(folder, "second", ours.sign("cds-2", here, server=True)),
        elsewhere=_pair(folder, "elsewhere", ours.sign("elsewhere", ("pacs.example",), server=True)),
        client=_pair(folder, "client", ours.sign("camera-1", ("camera.example",), server=False)),
        expired=_pair(folder, "expired", ours.sign("old", (), server=False, days=-1)),
        revoked=_pair(folder, "revoked", revoked),
        revocations=_written(folder / "revocations.pem", _revocations(ours, revoked)),
        stranger=_pair(folder, "stranger", theirs.sign("camera-1", here, server=True)),
        stranger_ca=_written(folder / "stranger-ca.pem", theirs.certificate.public_bytes(Encoding.PEM)),
    )


def _pair(folder: Path, name: str, signed: Signed) -> Pair:
    certificate = _written(folder / f"{name}.pem", signed.certificate_pem)
    return Pair(certificate, _written(folder / f"{name}.key", signed.key_pem))


def _written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


def _revocations(authority: Authority, revoked: Signed) -> bytes:
    now = datetime.now(UTC)
    serial = revoked.certificate.serial_number
    entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.certificate.subject)
    dated = builder.last_update(now - timedelta(hours=1)).next_update(now + timedelta(days=1))
    listed = dated.add_revoked_certificate(entry)
    return listed.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.PEM)
