"""A test CA with a certificate for this listener and one for a caller: to try TLS out, not for a hospital."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cds_plugin.errors import Refused

RSA_BITS = 3072
"""128 bits of security (NIST SP 800-57 part 1, table 2). RSA: older DICOM profiles know no other."""
CA_DAYS = 3650
LEAF_DAYS = 825
"""What some TLS stacks accept at most of a server's certificate."""
COMMON_NAME_CHARACTERS = 64
"""ub-common-name (RFC 5280 appendix A.1)."""
CLOCK_SKEW = timedelta(hours=1)
"""Certificates begin in the past: a modality's clock may be behind."""
PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
ORGANISATION = "cds-plugin test authority"
ALL_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA that signs for as long as the command runs; every key it makes has `bits`."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
    bits: int

    def sign(self, common_name: str, names: Sequence[str], *, server: bool, days: int = LEAF_DAYS) -> Signed:
        """Return a certificate with a new key; `names` are DNS names and IP addresses.

        That of a server is for both directions: a DICOM node answers and calls.
        """
        key = _new_key(self.bits)
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH] + [ExtendedKeyUsageOID.SERVER_AUTH] * server
        builder = (
            _builder(_name(common_name), self.certificate.subject, key, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage("digital_signature", "key_encipherment"), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
        )
        if names:
            alternatives = x509.SubjectAlternativeName(_alternatives(names))
            builder = builder.add_extension(alternatives, critical=False)
        return Signed(builder.sign(self.key, hashes.SHA256()), key)


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return private_pem(self.key)


def new_authority(bits: int = RSA_BITS) -> Authority:
    """Return a CA with a new key."""
    key = _new_key(bits)
    name = _name(ORGANISATION)
    builder = (
        _builder(name, name, key, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
    )
    return Authority(builder.sign(key, hashes.SHA256()), key, bits)


def private_pem(key: rsa.RSAPrivateKey) -> bytes:
    """Return the key as PKCS #8 in PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_files(folder: Path, hosts: Sequence[str], client: str) -> Mapping[str, Path]:
    """Write ca, server and client as .pem and .key below `folder`, for its owner only; return them by name.

    Raises Refused where one of them is there already: nothing is ever overwritten.
    """
    folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    names = [f"{part}.{kind}" for part in ("ca", "server", "client") for kind in ("pem", "key")]
    _refuse_existing(folder / name for name in names)
    _refuse_bad_names(hosts, client)
    authority = new_authority()
    server = authority.sign(hosts[0][:COMMON_NAME_CHARACTERS], hosts, server=True)
    caller = authority.sign(client, (), server=False)
    ca_pem = authority.certificate.public_bytes(serialization.Encoding.PEM)
    contents = (
        *(ca_pem, private_pem(authority.key)),
        *(server.certificate_pem, server.key_pem),
        *(caller.certificate_pem, caller.key_pem),
    )
    for name, content in zip(names, contents, strict=True):
        _write_new(folder / name, content)
    return {name: folder / name for name in names}


def _refuse_existing(files: Iterable[Path]) -> None:
    there = [file.name for file in files if file.exists()]
    if there:
        raise Refused(
            "tls_files_exist", f"already there: {', '.join(there)}", "Choose another --out, or move them."
        )


def _refuse_bad_names(hosts: Sequence[str], client: str) -> None:
    try:
        _alternatives(hosts)
        _name(client)
    except ValueError as error:
        raise Refused("bad_name", str(error), "Give DNS names or IP addresses, in ASCII.") from error


def _write_new(file: Path, content: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)


def _new_key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW + min(timedelta(days=days), timedelta()))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*wanted: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in wanted for usage in ALL_USAGES})


def _alternatives(names: Sequence[str]) -> list[x509.GeneralName]:
    return [_alternative(name) for name in dict.fromkeys(names)]


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
