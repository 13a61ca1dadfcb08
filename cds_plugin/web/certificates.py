"""HTTPS with the files of `[tls]`, which may change while the server runs."""

from __future__ import annotations

import ssl

from cds_plugin.config import ClientCertificate, Settings
from cds_plugin.tls.serving import ServerTls


class WebTls:
    """The TLS of the web server. Raises Refused on making it where a file of `[tls]` is wrong."""

    def __init__(self, settings: Settings) -> None:
        asks = any(each.certificate_sha256 for each in settings.web.callers)
        mode = ClientCertificate.OPTIONAL if asks else ClientCertificate.NONE
        self._serving = ServerTls(settings.tls.model_copy(update={"client_certificate": mode}))
        self.files = self._serving.files
        self.context = self._serving.context
        self.context.sni_callback = self._take_newest

    def _take_newest(self, connection: ssl.SSLObject, _name: str | None, _first: ssl.SSLContext) -> None:
        """Let a connection go on with the files of the moment: a listening socket keeps its first context."""
        connection.context = self._serving.context
