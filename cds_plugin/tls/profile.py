"""What may be negotiated, in both directions: versions, cipher suites, key lengths, each with its source.

This is the BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile of PS3.15 B.12. Of the Modified
profile (B.13) it keeps the prohibitions: no CBC, no SHA-1, RSA and finite fields from 2048 bits, ECDSA and
ECDHE from 256. It does not claim B.13, which also asks servers for Camellia and CCM suites that OpenSSL and
Python do not offer.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping

OLDEST_VERSION = ssl.TLSVersion.TLSv1_2
"""TLS 1.0 and 1.1 must not be negotiated (RFC 8996 sections 4, 5); TLS 1.3 is preferred (RFC 9325 3.1.1)."""

CIPHER_SUITES_TLS_1_2: Mapping[str, str] = {
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
}
"""The recommended suites of RFC 9325 section 4.2, strongest first: IANA's name and OpenSSL's."""

CIPHER_SUITES_TLS_1_3 = ("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256")
"""What OpenSSL offers (RFC 8446 section 9.1, RFC 9325 section 4.2.1); Python has no way to choose others."""

SECURITY_LEVEL = 2
"""112 bits, OpenSSL's SSL_CTX_set_security_level(3): RSA from 2048 bits, no SHA-1 in certificates or
signatures. Its bound for elliptic curves is 224 bits; no curve below 256 is in OpenSSL's default groups."""


def apply(context: ssl.SSLContext) -> None:
    """Hold a context to the profile.

    Nothing is resumed: a certificate that was replaced, revoked or has run out is looked at anew each time.
    """
    context.minimum_version = OLDEST_VERSION
    context.set_ciphers(":".join((*CIPHER_SUITES_TLS_1_2.values(), f"@SECLEVEL={SECURITY_LEVEL}")))
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options |= ssl.OP_NO_TICKET
    if context.protocol is ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
