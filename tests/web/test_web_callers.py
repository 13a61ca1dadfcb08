"""Who calls: a token or a certificate that is known, and nothing else."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from cds_plugin.caller import TlsIdentity
from cds_plugin.config import Web, WebCaller
from cds_plugin.web.callers import ANYBODY, name_of_caller, new_token

FINGERPRINT = "ab" * 32
OPENSSL_FINGERPRINT = ":".join(["AB"] * 32)


def of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


WEB = Web(
    callers=(
        WebCaller(name="CAMERA", token_sha256=of("secret")),
        WebCaller(name="CAMERA", token_sha256=of("next")),
        WebCaller(name="PACS", certificate_sha256=OPENSSL_FINGERPRINT),
    )
)


def shown(fingerprint: str) -> TlsIdentity:
    return TlsIdentity("pacs", (), fingerprint)


def test_a_token_names_its_caller_and_two_may_name_the_same() -> None:
    assert name_of_caller(WEB, "Bearer secret", None) == "CAMERA"
    assert name_of_caller(WEB, "bearer  next ", None) == "CAMERA"


def test_a_certificate_names_its_caller() -> None:
    assert name_of_caller(WEB, "", shown(FINGERPRINT)) == "PACS"
    assert name_of_caller(WEB, "", shown("cd" * 32)) is None


def test_without_callers_it_is_anybody() -> None:
    assert name_of_caller(Web(), "", None) == ANYBODY
    assert name_of_caller(Web(), "Bearer whatever", None) == ANYBODY


@given(st.text(max_size=20).map(lambda text: f"Bearer {text}") | st.text(max_size=30))
def test_a_stranger_is_nobody(authorization: str) -> None:
    if authorization.split(" ", 1)[-1].strip() not in ("secret", "next"):
        assert name_of_caller(WEB, authorization, None) is None


def test_a_new_token_is_known_by_its_digest() -> None:
    token, digest = new_token()
    web = Web(callers=(WebCaller(name="NEW", token_sha256=digest),))
    assert name_of_caller(web, f"Bearer {token}", None) == "NEW"
    assert len(token) >= 40 and token != new_token()[0]
