"""The web server: where it answers, and who may call it."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from cds_plugin.config.table import AeTitle, Port, Table
from cds_plugin.web import bounds
from cds_plugin.web.bounds import WebBounds


def _plain_digits(written: object) -> object:
    """Return a fingerprint as openssl prints it (AB:CD:...) in lower case without colons."""
    return written.replace(":", "").lower() if isinstance(written, str) else written


Digest = Annotated[str, BeforeValidator(_plain_digits), StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 in hexadecimal digits."""


class WebCaller(Table):
    """Somebody who may call: known by a bearer token or by a client certificate. Rules see `name`."""

    name: AeTitle = Field(description="1 to 16 characters; rules match it as the calling AE title")
    token_sha256: Digest | None = Field(
        None, description="the SHA-256 of a bearer token; cds-plugin web --new-token NAME makes both"
    )
    certificate_sha256: Digest | None = Field(
        None, description="the SHA-256 fingerprint of a client certificate"
    )

    @model_validator(mode="after")
    def _is_known_by_one_thing(self) -> Self:
        if (self.token_sha256 is None) == (self.certificate_sha256 is None):
            raise ValueError("give either token_sha256 or certificate_sha256")
        return self


class Web(Table):
    """STOW-RS and the health of this installation over HTTP."""

    enabled: bool = Field(False, description="true or false")
    host: str = Field("127.0.0.1", description="the address to listen on, such as 127.0.0.1 or 0.0.0.0")
    port: Port = Field(8114, description="a TCP port, 1 to 65535")
    tls: bool = Field(False, description="true: HTTPS with tls.certificate and tls.key")
    plain_http: bool = Field(
        False, description="true: HTTP without TLS beyond loopback, such as behind a proxy that ends TLS"
    )
    callers: tuple[WebCaller, ...] = Field(
        (), description="tables [[web.callers]]; none: anybody on loopback"
    )
    connections: int = Field(
        bounds.CONNECTIONS, ge=1, le=1024, description="TCP connections at once, 1 to 1024"
    )
    connections_per_address: int = Field(
        bounds.CONNECTIONS_PER_ADDRESS,
        ge=1,
        le=1024,
        description="TCP connections at once from one address, 1 to 1024",
    )
    header_seconds: float = Field(
        bounds.HEAD_SECONDS, ge=0.1, le=600, description="seconds for the header fields, 0.1 to 600"
    )
    silence_seconds: float = Field(
        bounds.SILENCE_SECONDS, ge=0.1, le=3600, description="seconds of silence in a body, 0.1 to 3600"
    )
    uploads: int = Field(bounds.UPLOADS, ge=1, le=64, description="uploads at once, 1 to 64")
    upload_bytes: int = Field(
        bounds.REQUEST_BYTES, ge=65536, description="bytes of one upload, 65536 or more"
    )
    upload_objects: int = Field(
        bounds.PARTS, ge=1, le=100_000, description="objects in one upload, 1 to 100000"
    )
    upload_seconds: float = Field(
        bounds.REQUEST_SECONDS, ge=1, le=86400, description="seconds for one upload, 1 to 86400"
    )

    def as_bounds(self) -> WebBounds:
        """Return the limits as the server takes them."""
        return WebBounds(
            connections=self.connections,
            connections_per_address=self.connections_per_address,
            head_seconds=self.header_seconds,
            uploads=self.uploads,
            request_bytes=self.upload_bytes,
            parts=self.upload_objects,
            silence_seconds=self.silence_seconds,
            request_seconds=self.upload_seconds,
        )

    def problem(self, *, on_loopback: bool, certificate: bool, authorities: bool) -> str | None:
        """Return what contradicts itself, as `web.KEY: text`, or None.

        `certificate` and `authorities` say whether those files of the table [tls] are named.
        """
        if not self.enabled:
            return None
        if self.tls and not certificate:
            return "web.tls: needs tls.certificate and tls.key; cds-plugin tls init makes them"
        if any(each.certificate_sha256 for each in self.callers) and not (self.tls and authorities):
            return "web.callers: certificate_sha256 needs web.tls = true and tls.authorities"
        return None if on_loopback else self._problem_beyond_loopback()

    def _problem_beyond_loopback(self) -> str | None:
        if not self.callers:
            return (
                f"web.host: {self.host!r} is beyond loopback while nobody is named in [[web.callers]]; "
                "name every caller, or listen on 127.0.0.1"
            )
        if not self.tls and not self.plain_http:
            return (
                f"web.tls: {self.host!r} is beyond loopback and tokens would cross the network in the open; "
                "write web.tls = true, or web.plain_http = true behind a proxy that ends TLS"
            )
        return None
