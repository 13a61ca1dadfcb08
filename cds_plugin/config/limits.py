"""What a stranger may make the listener hold, as settings; the reasons stand in `receive/bounds.py`."""

from __future__ import annotations

from math import ceil

from pydantic import Field

from cds_plugin.config.table import Table
from cds_plugin.receive import bounds
from cds_plugin.receive.bounds import Bounds


class Limits(Table):
    """What strangers may make the listener hold, all its processes together. Defaults suit a department."""

    associations: int = Field(
        bounds.ASSOCIATIONS, ge=1, le=1024, description="associations at once, 1 to 1024"
    )
    connections: int = Field(bounds.CONNECTIONS, ge=1, le=4096, description="connections at once, 1 to 4096")
    connections_per_address: int = Field(
        bounds.CONNECTIONS_PER_ADDRESS,
        ge=1,
        le=4096,
        description="connections at once from one address, 1 to 4096",
    )
    connections_per_second: float = Field(
        bounds.CONNECTIONS_PER_SECOND,
        gt=0,
        le=100_000,
        description="new connections per second and address, up to 100000",
    )
    handshake_seconds: float = Field(
        bounds.HANDSHAKE_SECONDS, ge=0.1, le=600, description="seconds for a TLS handshake, 0.1 to 600"
    )
    first_message_seconds: float = Field(
        bounds.ACSE_SECONDS, ge=0.1, le=600, description="seconds to A-ASSOCIATE-RQ, 0.1 to 600"
    )
    pdu_seconds: float = Field(
        bounds.PDU_SECONDS, ge=0.1, le=3600, description="seconds for one PDU, 0.1 to 3600"
    )
    dimse_seconds: float = Field(
        bounds.DIMSE_SECONDS, ge=0.1, le=3600, description="seconds for an answer to us, 0.1 to 3600"
    )
    idle_seconds: float = Field(
        bounds.NETWORK_SECONDS, ge=0.1, le=86400, description="seconds of silence, 0.1 to 86400"
    )
    pdu_bytes: int = Field(
        bounds.PDU_BYTES,
        ge=bounds.SMALLEST_PDU_BYTES,
        le=bounds.LARGEST_PDU_BYTES,
        description=f"bytes of a PDU, {bounds.SMALLEST_PDU_BYTES} to {bounds.LARGEST_PDU_BYTES}",
    )
    message_bytes: int = Field(
        bounds.MESSAGE_BYTES, ge=65536, description="bytes of a message that is no object, 65536 or more"
    )
    object_bytes: int = Field(bounds.OBJECT_BYTES, ge=65536, description="bytes of an object, 65536 or more")
    inflated_bytes: int = Field(
        bounds.INFLATED_BYTES, ge=65536, description="bytes of a data set after inflating, 65536 or more"
    )
    free_disk_bytes: int = Field(bounds.FREE_BYTES, ge=0, description="bytes that stay free, 0 or more")

    def as_bounds(self, processes: int = 1) -> Bounds:
        """Return them as one of several listener processes takes them: counts are divided, rounded up.

        The kernel spreads connections evenly, though not exactly so: one process may be full while another
        has room. Whoever it turns away may come back at once, and then most likely meets another.
        """
        return Bounds(
            associations=ceil(self.associations / processes),
            connections=ceil(self.connections / processes),
            connections_per_address=ceil(self.connections_per_address / processes),
            connections_per_second=self.connections_per_second / processes,
            pdu_bytes=self.pdu_bytes,
            message_bytes=self.message_bytes,
            object_bytes=self.object_bytes,
            inflated_bytes=self.inflated_bytes,
            free_bytes=self.free_disk_bytes,
            handshake_seconds=self.handshake_seconds,
            pdu_seconds=self.pdu_seconds,
            acse_seconds=self.first_message_seconds,
            dimse_seconds=self.dimse_seconds,
            network_seconds=self.idle_seconds,
        )
