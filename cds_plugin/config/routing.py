"""Where results go."""

from __future__ import annotations

from pydantic import Field

from cds_plugin.config.table import AeTitle, Port, Table


class Destination(Table):
    """A peer that results are sent to."""

    name: str = Field(min_length=1, max_length=64, description="a name that rules use")
    ae_title: AeTitle = Field(description="an AE title of 1 to 16 characters")
    host: str = Field(min_length=1, description="a host name or address")
    port: Port = Field(description="a TCP port, 1 to 65535")
    tls: bool = Field(False, description="true to speak TLS with it, by the files of [tls]")
    tls_server_name: str = Field(
        "", description='the name in its certificate (empty: host; "*": any that our authorities signed)'
    )
