"""Our side as a client: a context per association, so that changed files count from the next one on."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any, Protocol, cast

from cds_plugin.config import Tls
from cds_plugin.tls.files import load_client

ANY_NAME = "*"


class ReportingSocket(ssl.SSLSocket):
    """Tells its context why TLS failed: pynetdicom only logs it."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except ssl.SSLError as error:
            self._report(error)
            raise

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        try:
            return super().read(len, buffer)
        except ssl.SSLError as error:
            # With TLS 1.3 a server refuses our certificate after our side of the handshake is done.
            self._report(error)
            raise

    def _report(self, error: ssl.SSLError) -> None:
        if isinstance(self.context, ClientContext) and not isinstance(error, ssl.SSLWantReadError):
            detail = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason
            self.context.problem = str(detail or "closed by the peer").replace("_", " ").lower()


class ClientContext(ssl.SSLContext):
    """The context of one outgoing association; `problem` says why TLS failed, once it did."""

    problem: str | None = None
    sslsocket_class = ReportingSocket


@dataclass(frozen=True, slots=True)
class ClientTls:
    """How to speak TLS with one peer: our files, and the name that its certificate must bear."""

    tls: Tls
    server_name: str

    def arguments(self) -> tuple[ClientContext, str]:
        """Return fresh `tls_args` for pynetdicom. Raises Refused that names a setting whose file is wrong."""
        context = ClientContext(ssl.PROTOCOL_TLS_CLIENT)
        load_client(context, self.tls)
        if self.server_name == ANY_NAME:
            context.check_hostname = False
            return context, cast(str, None)
        return context, self.server_name


class TlsPeer(Protocol):
    """What a table of the settings says of a peer that may speak TLS."""

    @property
    def host(self) -> str: ...
    @property
    def tls(self) -> bool: ...
    @property
    def tls_server_name(self) -> str: ...


def client_tls(tls: Tls, peer: TlsPeer) -> ClientTls | None:
    """Return how to speak TLS with a destination or peer; None where it takes plain DICOM."""
    if not peer.tls:
        return None
    return ClientTls(tls, peer.tls_server_name or peer.host)
