"""Where results go."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from cds_plugin.config.table import OptionalAeTitle, Port, Table, is_loopback

RETRY_HOURS = 72.0
"""A PACS may be away over a weekend."""


class DestinationKind(StrEnum):
    """How a destination takes objects: C-STORE, or STOW-RS."""

    DICOM = "dicom"
    DICOMWEB = "dicomweb"


class Called(Table):
    """An application entity that we call."""

    name: str = Field(min_length=1, max_length=64, description="a name that rules use")
    ae_title: OptionalAeTitle = Field("", description="an AE title of 1 to 16 characters")
    host: str = Field("", description="a host name or address")
    port: Port = Field(104, description="a TCP port, 1 to 65535")
    tls: bool = Field(False, description="true to speak TLS with it, by the files of [tls]")
    tls_server_name: str = Field(
        "", description='the name in its certificate (empty: host; "*": any that our authorities signed)'
    )


class Destination(Called):
    """A peer that results are sent to: an application entity, or a DICOMweb server at `url`."""

    kind: DestinationKind = Field(DestinationKind.DICOM, description='"dicom" or "dicomweb"')
    url: str = Field(
        "", pattern=r"^(https?://[^\s@?#]+)?$", description="the root of its DICOMweb services, https://..."
    )
    authorization: Path | None = Field(
        None, description='a file with the value of the Authorization header, such as "Bearer ..."'
    )
    authorization_variable: str = Field(
        "",
        pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$",
        description="the environment variable that holds that value, in place of a file",
    )
    authorization_value: SecretStr | None = Field(None, exclude=True, repr=False)
    """What the variable holds; set when the settings are read, never in a file."""
    authorities: Path | None = Field(
        None, description="a PEM file: CAs of its web server (without it those of the system)"
    )
    commitment: bool = Field(False, description="true to ask it for storage commitment")
    retry_hours: float = Field(
        RETRY_HOURS, gt=0, le=8760, description="hours for which a delivery is tried again, up to 8760"
    )

    @model_validator(mode="after")
    def _can_be_called(self) -> Self:
        if self.kind is DestinationKind.DICOM and not (self.ae_title and self.host):
            missing = "host" if self.ae_title else "ae_title"
            raise ValueError(f'{missing}: needed where kind = "dicom"')
        if self.kind is DestinationKind.DICOM and (self.url or self.authorization):
            raise ValueError('url, authorization: have no effect beside kind = "dicom"')
        if self.kind is DestinationKind.DICOMWEB and not self.url:
            raise ValueError('url: needed where kind = "dicomweb"')
        if self.kind is DestinationKind.DICOMWEB and self.commitment:
            raise ValueError('commitment: goes over DICOM; there is none where kind = "dicomweb"')
        return self

    @model_validator(mode="after")
    def _keeps_its_secret(self) -> Self:
        if self.authorization is not None and self.authorization_variable:
            raise ValueError("authorization_variable: authorization names a file already")
        parts = urlsplit(self.url)
        secret = self.authorization is not None or self.authorization_variable
        if secret and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise ValueError("url: http:// would show the authorization to the network; use https://")
        return self

    @property
    def address(self) -> str:
        """Return where it is, for people."""
        over_web = self.kind is DestinationKind.DICOMWEB
        return self.url if over_web else f"{self.ae_title}@{self.host}:{self.port}"

    def below(self, base: Path) -> Destination:
        """Return the entry with its files made absolute from `base`."""
        names = ("authorization", "authorities")
        written = {name: getattr(self, name) for name in names}
        absolute = {name: (base / file).resolve() for name, file in written.items() if file is not None}
        return self.model_copy(update=absolute)
