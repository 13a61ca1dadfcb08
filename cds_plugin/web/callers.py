"""Who calls the web server: a bearer token or a client certificate, each known only by its SHA-256. Pure."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from cds_plugin.caller import TlsIdentity
from cds_plugin.config import Web

ANYBODY = "STOW-RS"
"""The name of a caller where none is configured; the settings then hold the server to loopback."""
TOKEN_BYTES = 32
"""Of randomness: too many to guess, so a plain digest keeps the token itself out of the settings."""
SCHEME = "bearer"


def name_of_caller(web: Web, authorization: str, certificate: TlsIdentity | None) -> str | None:
    """Return the name under which rules know the caller; None for a stranger.

    `authorization` is that header field (RFC 6750 section 2.1) or the empty text.
    """
    if not web.callers:
        return ANYBODY
    scheme, _, token = authorization.strip().partition(" ")
    offered = _sha256(token.strip()) if scheme.lower() == SCHEME else ""
    fingerprint = certificate.fingerprint if certificate else ""
    names = [
        each.name
        for each in web.callers
        if _same(each.token_sha256, offered) | _same(each.certificate_sha256, fingerprint)
    ]
    return names[0] if names else None


def new_token() -> tuple[str, str]:
    """Return a fresh token and its SHA-256."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    return token, _sha256(token)


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _same(known: str | None, offered: str) -> bool:
    return hmac.compare_digest(known or "", offered) and bool(offered)
