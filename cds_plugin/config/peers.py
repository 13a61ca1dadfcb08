"""Whom studies are pulled from, and where requesters of storage commitment listen."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from cds_plugin.config.routing import Called
from cds_plugin.config.table import AeTitle, Port


class Retrieve(StrEnum):
    """How instances come from a peer."""

    C_GET = "c-get"
    C_MOVE = "c-move"
    WADO_RS = "wado-rs"


class PeerEntry(Called):
    """A peer that we call; rules match `ae_title` as the sender of what was pulled from it."""

    name: str = Field(min_length=1, max_length=64, description="a name for pull --from")
    ae_title: AeTitle = Field(description="an AE title of 1 to 16 characters")
    host: str = Field("", description="a host name or address; needed unless only its web services are used")
    port: Port = Field(104, description="a TCP port, 1 to 65535")
    retrieve: Retrieve = Field(Retrieve.C_GET, description='"c-get", "c-move" or "wado-rs"')
    web_url: str = Field(
        "", pattern=r"^(https?://[^\s@?#]+)?$", description="the root of its DICOMweb services, https://..."
    )
    web_authorization: Path | None = Field(
        None, description='a file with the value of the Authorization header, such as "Bearer ..."'
    )
    web_authorities: Path | None = Field(
        None, description="a PEM file: CAs of its web server (without it those of the system)"
    )

    @model_validator(mode="after")
    def _can_be_called(self) -> Self:
        if self.retrieve is Retrieve.WADO_RS and not self.web_url:
            raise ValueError('web_url is needed where retrieve = "wado-rs"')
        if self.retrieve is not Retrieve.WADO_RS and not self.host:
            raise ValueError(f'host is needed where retrieve = "{self.retrieve}"')
        return self

    def below(self, base: Path) -> PeerEntry:
        """Return the entry with its files made absolute from `base`."""
        names = ("web_authorization", "web_authorities")
        written = {name: getattr(self, name) for name in names}
        absolute = {name: (base / file).resolve() for name, file in written.items() if file is not None}
        return self.model_copy(update=absolute)
