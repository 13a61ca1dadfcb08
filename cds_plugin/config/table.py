"""What every table of the settings file is made of."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

AeTitle = Annotated[
    str, StringConstraints(pattern=r"^[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?$")
]
"""1-16 printable ASCII characters, no backslash, no outer spaces (PS3.5 section 6.2)."""
OptionalAeTitle = Annotated[
    str,
    StringConstraints(pattern=r"^([\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?)?$"),
]
"""The same, or empty where none is needed."""
Port = Annotated[int, Field(ge=1, le=65535)]


class Table(BaseModel):
    """A table of the settings file: frozen, and no key but those it knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def is_loopback(host: str) -> bool:
    """Return whether `host` is a loopback address or "localhost"."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
