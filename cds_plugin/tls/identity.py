"""Who the peer is by its certificate."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterable
from typing import Any

from cds_plugin.caller import TlsIdentity

NAMES = 64
"""Subject alternative names that are kept of one certificate: rules ask for one, audit rows name few."""
NAME_CHARACTERS = 253
"""The longest DNS name (RFC 1035 section 2.3.4)."""
NAMED = frozenset({"DNS", "IP Address"})


def fingerprint(der: bytes) -> str:
    """Return the SHA-256 of a DER certificate in hexadecimal digits."""
    return hashlib.sha256(der).hexdigest()


def identity_of(connection: ssl.SSLSocket) -> TlsIdentity | None:
    """Return the peer's verified certificate in short; None where it showed none, or none was asked for."""
    der = connection.getpeercert(binary_form=True)
    told: dict[str, Any] | None = connection.getpeercert()
    if der is None or not told:
        return None
    alternatives: Iterable[tuple[str, str]] = told.get("subjectAltName", ())
    names = [text[:NAME_CHARACTERS] for kind, text in alternatives if kind in NAMED]
    return TlsIdentity(_common_name(told), tuple(names[:NAMES]), fingerprint(der))


def _common_name(told: dict[str, Any]) -> str:
    parts = (part for group in told.get("subject", ()) for part in group)
    return next((str(value)[:NAME_CHARACTERS] for key, value in parts if key == "commonName"), "")
