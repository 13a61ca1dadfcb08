"""TLS for both directions: files, port, and who must show a certificate."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import Field

from cds_plugin.config.table import Port, Table

DICOM_TLS_PORT = 2762
"""dicom-tls, the port that IANA keeps for DICOM over TLS (PS3.15 annex B)."""


class TlsMode(StrEnum):
    """Whether the listener speaks TLS: not at all, on a port beside the plain one, or on nothing else."""

    OFF = "off"
    BESIDE = "beside"
    ONLY = "only"


class ClientCertificate(StrEnum):
    """What a TLS caller must show. A certificate that is shown is always verified."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    NONE = "none"


class Tls(Table):
    """Our certificate, whom we trust, and the listener's TLS port.

    `certificate` and `key` are also our client certificate towards destinations. All files are PEM; they may
    be replaced while the product runs.
    """

    mode: TlsMode = Field(TlsMode.OFF, description='"off", "beside" (the plain port) or "only"')
    port: Port = Field(DICOM_TLS_PORT, description="a TCP port, 1 to 65535")
    client_certificate: ClientCertificate = Field(
        ClientCertificate.REQUIRED, description='"required", "optional" or "none"'
    )
    certificate: Path | None = Field(None, description="a PEM file: our certificate, then its chain")
    key: Path | None = Field(None, description="a PEM file: the private key, not encrypted")
    authorities: Path | None = Field(None, description="a PEM file: certificates of the CAs that we trust")
    revoked: Path | None = Field(None, description="a PEM file: certificate revocation lists of those CAs")

    @property
    def listens(self) -> bool:
        """Return whether there is a TLS port."""
        return self.mode is not TlsMode.OFF

    @property
    def plain(self) -> bool:
        """Return whether there is a port without TLS."""
        return self.mode is not TlsMode.ONLY

    def below(self, base: Path) -> Tls:
        """Return the table with its files made absolute from `base`."""
        names = ("certificate", "key", "authorities", "revoked")
        written = {name: getattr(self, name) for name in names}
        absolute = {name: (base / file).resolve() for name, file in written.items() if file is not None}
        return self.model_copy(update=absolute)

    def problem(self, plain_port: int) -> str | None:
        """Return what contradicts itself, as `tls.KEY: text`, or None."""
        if (self.certificate is None) != (self.key is None):
            missing = "key" if self.key is None else "certificate"
            return f"tls.{missing}: certificate and key go together"
        if self.revoked and not self.authorities:
            return "tls.authorities: needed to check tls.revoked"
        return self._problem_of_listening(plain_port) if self.listens else None

    def _problem_of_listening(self, plain_port: int) -> str | None:
        if self.certificate is None:
            return f'tls.certificate: needed while tls.mode is "{self.mode}"; cds-plugin tls init makes one'
        if self.authorities is None and self.client_certificate is not ClientCertificate.NONE:
            return f'tls.authorities: needed while tls.client_certificate is "{self.client_certificate}"'
        if self.plain and self.port == plain_port:
            return f'tls.port: {self.port} is the plain port; choose another, or mode = "only"'
        return None
