"""What a stranger may make the listener hold: every limit with its unit and its reason."""

from __future__ import annotations

from dataclasses import dataclass

KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE
GIBIBYTE = 1024 * MEBIBYTE

ASSOCIATIONS = 64
"""Associations at once; pynetdicom's default of 10 turns a busy PACS away. Each costs two threads."""
CONNECTIONS = 256
"""TCP connections at once, with or without an association: bare connects must not grow the process."""
BACKLOG = 128
"""Connections that wait in the kernel while the listener is busy."""
PDU_BYTES = 128 * KIBIBYTE
"""The maximum PDU length offered (PS3.8 section D.1); the largest that DCMTK sends."""
PDU_SECONDS = 60.0
"""A PDU that has begun must be complete by then: slower than 17 kbit/s is no PACS."""
MESSAGE_BYTES = 4 * MEBIBYTE
"""A DIMSE message that is not a C-STORE data set is held in memory."""
OBJECT_BYTES = GIBIBYTE
"""One object on the wire: 120 million pixels of RGB are 360 MB."""
INFLATED_BYTES = GIBIBYTE
"""A deflated data set after inflating: a bomb must not fill the disk."""
FREE_BYTES = 512 * MEBIBYTE
"""The disk watermark: below it nothing more is taken in, so that database and results can still write."""
ACSE_SECONDS = 30.0
"""From TCP connect to A-ASSOCIATE-RQ, and from our A-RELEASE-RP to the peer's disconnect."""
DIMSE_SECONDS = 60.0
"""For the peer's answer to a request of ours."""
NETWORK_SECONDS = 900.0
"""A silent association is aborted; PACS keep theirs open between studies."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of one listener; the defaults are the named constants of this module."""

    associations: int = ASSOCIATIONS
    connections: int = CONNECTIONS
    object_bytes: int = OBJECT_BYTES
    inflated_bytes: int = INFLATED_BYTES
    free_bytes: int = FREE_BYTES
    pdu_seconds: float = PDU_SECONDS
    acse_seconds: float = ACSE_SECONDS
    network_seconds: float = NETWORK_SECONDS
