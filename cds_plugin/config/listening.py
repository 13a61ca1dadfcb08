"""Where and how the listener answers."""

from __future__ import annotations

from pydantic import Field

from cds_plugin.config.table import AeTitle, Port, Table


class Listener(Table):
    """Where the PACS sends to, and when a study counts as complete."""

    ae_title: AeTitle = Field("CDS", description="an AE title of 1 to 16 characters")
    host: str = Field("127.0.0.1", description="the address to listen on, such as 127.0.0.1 or 0.0.0.0")
    port: Port = Field(11112, description="a TCP port, 1 to 65535")
    processes: int = Field(1, ge=1, le=32, description="listener processes that share the port, 1 to 32")
    quiet_seconds: float = Field(
        5.0, ge=0.1, le=86400, description="seconds without a new image, 0.1 to 86400"
    )
    association_idle_seconds: float = Field(
        60,
        ge=0.1,
        le=86400,
        description="seconds after which an open association no longer holds a study, 0.1 to 86400",
    )
    force_close_seconds: float = Field(
        300,
        ge=1,
        le=604800,
        description="seconds after which a study is closed whatever is open, 1 to 604800",
    )
