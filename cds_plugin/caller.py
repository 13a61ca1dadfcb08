"""Who speaks to us: what an association (or a web request) proves of its sender before any object. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """The client certificate of a peer that was verified against our CA.

    `common_name` is the subject's CN or the empty text, `names` are the DNS and IP subject alternative
    names, `fingerprint` is the SHA-256 of the DER certificate in 64 lower-case hexadecimal digits.
    """

    common_name: str
    names: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Caller:
    """The facts of a sender that rules may ask for; `address` is an IP address, no port.

    `called_ae` is the AE title that it asked for; `tls` is None without a verified client certificate.
    """

    calling_ae: str
    address: str
    called_ae: str = ""
    tls: TlsIdentity | None = None
