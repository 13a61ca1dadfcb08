"""Chapter 8: transport, who may speak, and what is audited."""

from __future__ import annotations

from collections.abc import Iterator

from cds_db.events import AUDIT_CODE
from cds_plugin.config.rule import CONDITIONS, Action
from cds_plugin.config.transport import DICOM_TLS_PORT, ClientCertificate
from cds_plugin.conformance.markdown import Section, bullets, table
from cds_plugin.tls import profile


def sections() -> Iterator[Section]:
    """Yield chapter 8."""
    yield Section("8", "Security")
    yield Section("8.1", "Secure transport", (_transport(), _suites()))
    yield Section("8.2", "Association level: who may speak", (_rules(),))
    yield Section("8.3", "Web services", (_web(),))
    yield Section("8.4", "Audit trail", (_audit(), _audit_table()))
    yield Section(
        "8.5",
        "Not supported",
        (
            "Digital signatures, attribute confidentiality profiles, user identity negotiation, time "
            "synchronisation and network address profiles (the operating system's business), LDAP.",
        ),
    )


def _transport() -> str:
    wanted = ", ".join(each.value for each in ClientCertificate)
    lines = (
        "BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile (PS3.15 annex B.12), both as server "
        "and "
        "as client; off by default.",
        f"TLS {_version(profile.OLDEST_VERSION.name)} and 1.3; port {DICOM_TLS_PORT} (configurable), beside "
        f"the "
        "plain port or in its place.",
        f"A client certificate is, as configured: {wanted}. Certificates are checked against the named "
        "authorities and revocation lists, and no others.",
        "Certificates, keys, authorities and revocation lists may be replaced while the product runs.",
        "Security level "
        f"{profile.SECURITY_LEVEL} of OpenSSL: no key below 112 bits of security, no SHA-1 signature. No "
        f"session "
        "is resumed, no renegotiation, no compression.",
    )
    return bullets(lines)


def _version(openssl: str) -> str:
    return openssl.removeprefix("TLSv").replace("_", ".")


def _suites() -> str:
    rows = [("1.3", f"`{suite}`") for suite in profile.CIPHER_SUITES_TLS_1_3]
    rows += [("1.2", f"`{suite}`") for suite in profile.CIPHER_SUITES_TLS_1_2]
    return table(("TLS", "cipher suite"), rows)


def _rules() -> str:
    conditions = ", ".join(f"`{each}`" for each in CONDITIONS)
    actions = ", ".join(f"`{each}`" for each in Action)
    return (
        f"Rules, of which the first that holds decides, look at {conditions}. They decide: {actions}; where "
        "results go in which form; quiet time; priority; named repairs. A caller of which no rule takes "
        "anything "
        "is rejected, unless it is on the same machine, where it is stored and not analysed. Beyond loopback "
        "the "
        "product does not start while a rule lets anybody in. `cds-plugin rules explain` tells what would "
        "happen "
        "to an object and why."
    )


def _web() -> str:
    return (
        "Bearer tokens (RFC 6750; only their SHA-256 is stored) or client certificates. Without callers in "
        "the "
        "settings the web server answers on loopback only; beyond loopback it demands callers, and TLS "
        "unless "
        "the administrator states that a proxy ends it. The caller's name is to rules what a calling AE "
        "title is."
    )


def _audit() -> str:
    return (
        "Every reception, refusal, analysis and delivery is an append-only row in the transaction of what it "
        "records, linked into a hash chain within a second; `cds-plugin audit verify` names changed, "
        "missing, "
        "inserted and re-ordered rows. Rows carry the codes of PS3.15 A.5 (CID 400, CID 401); they are not "
        "sent "
        "as syslog messages."
    )


def _audit_table() -> str:
    rows = [
        (
            f"`{event}`",
            f"{code.value} {code.meaning}",
            f"{code.type_value or ''} {code.type_meaning or ''}".strip(),
        )
        for event, code in AUDIT_CODE.items()
    ]
    return table(("event", "event identifier (CID 400)", "event type (CID 401)"), rows)
