"""HTTPS with the files of `[tls]`, which may change while the server runs."""

from __future__ import annotations

import ssl

from cds_plugin.config import ClientCertificate, Settings
from cds_plugin.tls.serving import Reload, ServerTls


class WebTls:
    """The TLS of the web server. Raises Refused on making it where a file of `[tls]` is wrong."""

    def __init__(self, settings: Settings) -> None:
        asks = any(each.certificate_sha256 for each in settings.web.callers)
        mode = ClientCertificate.OPTIONAL if asks else ClientCertificate.NONE
        self._serving = ServerTls(settings.tls.model_copy(update={"client_certificate": mode}))
        self.context = self._serving.context
        self.context.sni_callback = self._take_newest

    def reload_if_changed(self) -> Reload | None:
        """Take changed files into use for new connections; None where nothing changed."""
        return self._serving.reload_if_changed()

    def put_back(self, reload: Reload) -> None:
        """Have `reload_if_changed` return this again, because it could not be told."""
        self._serving.put_back(reload)

    def _take_newest(self, connection: ssl.SSLObject, _name: str | None, _first: ssl.SSLContext) -> None:
        """Let a connection go on with the files of the moment: a listening socket keeps its first context."""
        connection.context = self._serving.context
