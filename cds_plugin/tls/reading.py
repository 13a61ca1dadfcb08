"""What a certificate file says, for people and for `doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cds_plugin.caller import TlsIdentity
from cds_plugin.errors import Refused
from cds_plugin.tls.identity import fingerprint


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate: whom it names as a peer, who signed it, and until when it is good."""

    identity: TlsIdentity
    issuer: str
    valid_until: datetime


def read_certificates(file: Path) -> tuple[Certificate, ...]:
    """Return the certificates of a PEM file in their order. Raises Refused where there is none."""
    try:
        found = x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else "holds no certificate in PEM"
        raise Refused("tls_files", f"{file}: {problem}", "Name a PEM file with a certificate.") from error
    return tuple(map(_read, found))


def _read(certificate: x509.Certificate) -> Certificate:
    digest = fingerprint(certificate.public_bytes(Encoding.DER))
    identity = TlsIdentity(_common_name(certificate.subject), _names(certificate), digest)
    return Certificate(identity, certificate.issuer.rfc4514_string(), certificate.not_valid_after_utc)


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = alternatives.get_values_for_type(x509.IPAddress)
    return (*alternatives.get_values_for_type(x509.DNSName), *map(str, addresses))
