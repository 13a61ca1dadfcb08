"""Passwords of database and broker that stand in files of their own, so that the settings hold none."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import make_url

from cds_plugin.errors import Refused

PASSWORD_BYTES = 1024
"""A longer file is not a password."""
REDIS_USER = "default"
"""Whom Redis and Valkey mean where a password comes without a name."""
NETWORK_SCHEMES = frozenset({"postgresql+psycopg", "redis", "rediss", "amqp", "amqps"})


def url_with_password(table: str, url: str, file: Path | None) -> str:
    """Return the URL with the password of the file in it; the URL itself where there is no file.

    Raises Refused where the file can't be read, is empty or long, or the URL takes no password from it.
    """
    if file is None:
        return url
    key = f"{table}.password_file"
    parsed = make_url(url) if "://" in url else None
    if parsed is None or parsed.drivername not in NETWORK_SCHEMES:
        raise Refused("bad_setting", f"{key}: {table}.url takes no password", "Leave it out.")
    if parsed.password is not None:
        raise Refused("bad_setting", f"{key}: {table}.url has a password already", "Keep one of them.")
    is_redis = parsed.drivername.startswith("redis")
    user = parsed.username or (REDIS_USER if is_redis else None)
    if user is None:
        raise Refused("bad_setting", f"{key}: {table}.url names no user", "Write USER@ before the host.")
    return parsed.set(username=user, password=_read(key, file)).render_as_string(hide_password=False)


def _read(key: str, file: Path) -> str:
    try:
        with file.open("rb") as opened:
            written = opened.read(PASSWORD_BYTES + 1)
        password = written.decode().strip("\r\n")
    except OSError as error:
        raise Refused("bad_setting", f"{key}: {file}: {error.strerror}", "Name a readable file.") from error
    except UnicodeDecodeError as error:
        raise Refused("bad_setting", f"{key}: {file}: not UTF-8", "Write one line of text.") from error
    if not password or len(written) > PASSWORD_BYTES or not password.isprintable():
        raise Refused("bad_setting", f"{key}: {file}: not one line of text", "Write the password, alone.")
    return password
