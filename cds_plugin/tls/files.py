"""The PEM files of `[tls]`: loaded into contexts; each failure names its setting."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

from cds_plugin.config import ClientCertificate, Tls
from cds_plugin.errors import Refused
from cds_plugin.reloading import state_of
from cds_plugin.tls import profile

ACTION = "Correct the file or the setting; cds-plugin tls show FILE tells what is in it."

VERIFY_MODE = {
    ClientCertificate.REQUIRED: ssl.CERT_REQUIRED,
    ClientCertificate.OPTIONAL: ssl.CERT_OPTIONAL,
    ClientCertificate.NONE: ssl.CERT_NONE,
}


def server_context(tls: Tls) -> ssl.SSLContext:
    """Return the context of the listener. Raises Refused that names the setting whose file is wrong."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    profile.apply(context)
    _load_own(context, tls)
    context.verify_mode = VERIFY_MODE[tls.client_certificate]
    if context.verify_mode is not ssl.CERT_NONE:
        load_trusted(context, tls)
    return context


def load_client(context: ssl.SSLContext, tls: Tls) -> None:
    """Make `context` ready to verify servers, and to show our certificate where there is one."""
    profile.apply(context)
    load_trusted(context, tls)
    if tls.certificate is not None:
        _load_own(context, tls)


def load_trusted(context: ssl.SSLContext, tls: Tls) -> None:
    """Trust the authorities of `[tls]` and no others, and refuse what they revoked.

    A peer's own certificate among the authorities is trusted as it stands (RFC 5280 section 6.1 asks for no
    self-signed anchor): that pins a peer whose CA nobody here trusts.
    """
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    for name, file in _written(authorities=tls.authorities, revoked=tls.revoked):
        _check_readable(name, file)
        try:
            context.load_verify_locations(cafile=file)
        except OSError as error:
            raise _wrong(
                name, file, f"holds no certificate or revocation list in PEM ({_reason(error)})"
            ) from error
    if tls.revoked is not None:
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF


def signature(tls: Tls) -> tuple[tuple[str, int, int, int] | None, ...]:
    """Return what changes whenever one of the files is written, replaced or removed."""
    return tuple(state_of(file) for file in (tls.certificate, tls.key, tls.authorities, tls.revoked))


def _load_own(context: ssl.SSLContext, tls: Tls) -> None:
    if tls.certificate is None or tls.key is None:
        raise Refused("tls_files", "tls.certificate: no certificate is set", ACTION)
    for name, file in _written(certificate=tls.certificate, key=tls.key):
        _check_readable(name, file)
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=_no_password)
    except ssl.SSLError as error:
        raise _wrong(
            "certificate", tls.certificate, f"does not go with tls.key ({_reason(error)})"
        ) from error
    except ValueError as error:
        raise _wrong("key", tls.key, "is encrypted: store it without a password, mode 0600") from error


def _no_password() -> str:
    """OpenSSL would otherwise ask the terminal."""
    raise ValueError("an encrypted key")


def _written(**files: Path | None) -> Iterator[tuple[str, Path]]:
    return ((name, file) for name, file in files.items() if file is not None)


def _check_readable(name: str, file: Path) -> None:
    try:
        with file.open("rb") as opened:
            opened.read(1)
    except OSError as error:
        raise _wrong(name, file, error.strerror or "cannot be read") from error


def _wrong(name: str, file: Path, problem: str) -> Refused:
    return Refused("tls_files", f"tls.{name}: {file}: {problem}", ACTION)


def _reason(error: OSError) -> str:
    """Return why a file could not be loaded; it may also have gone since it was looked at."""
    if not isinstance(error, ssl.SSLError):
        return error.strerror or "cannot be read"
    return (error.reason or "not PEM").replace("_", " ").lower()
