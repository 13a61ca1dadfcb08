"""An HTTP session to a DICOMweb server: whom it trusts, what it shows, and nothing from the surroundings."""

from __future__ import annotations

from pathlib import Path

from requests import Session

from cds_plugin.config import Tls
from cds_plugin.errors import Refused

AUTHORIZATION_BYTES = 16 * 1024
"""A bearer token; header fields of servers end there as well."""


def web_session(tls: Tls, authorization: str | None, authorities: Path | None) -> Session:
    """Return a session that shows our certificate of `[tls]` where there is one.

    `authorization` is the value of that header, `authorities` whom to trust in place of the system's CAs.
    Raises Refused where a file can't be read.
    """
    session = Session()
    session.trust_env = False  # no proxy, no netrc: settings alone say who gets what
    if authorization is not None:
        session.headers["Authorization"] = authorization
    if authorities is not None:
        session.verify = str(readable(authorities))
    if tls.certificate is not None and tls.key is not None:
        session.cert = (str(readable(tls.certificate)), str(readable(tls.key)))
    return session


def secret_of(path: Path, setting: str) -> str:
    """Return the one line of a file that holds a secret. Raises Refused that names the setting."""
    value = readable(path).read_bytes()[: AUTHORIZATION_BYTES + 1].strip()
    if not value or len(value) > AUTHORIZATION_BYTES or not value.isascii() or b"\n" in value:
        raise Refused("bad_setting", f"{setting}: {path} is not one line", "Write one line.")
    return value.decode("ascii")


def readable(path: Path) -> Path:
    """Return the path of a file that can be opened. Raises Refused."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise Refused("bad_setting", f"{path}: {error.strerror}", "Name a readable file.") from error
    return path
