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
CONNECTIONS_PER_ADDRESS = 128
"""TCP connections at once from one address: half of all, so that no single peer can take every place."""
CONNECTIONS_PER_SECOND = 100.0
"""New connections per second and address: a PACS that opens an association per object stays far below."""
BURST_SECONDS = 3.0
"""So many seconds' worth of connections may come at once before that rate holds."""
ADDRESSES_REMEMBERED = 4096
"""Addresses whose rate is known at once: about half a megabyte; the one that was quiet longest is dropped."""
BACKLOG = 128
"""Connections that wait in the kernel while the listener is busy."""
PDU_BYTES = 128 * KIBIBYTE
"""The maximum PDU length offered (PS3.8 section D.1); the largest that DCMTK sends."""
SMALLEST_PDU_BYTES = 4 * KIBIBYTE
"""Less would only cost time: the smallest that DCMTK sends."""
LARGEST_PDU_BYTES = MEBIBYTE
"""What the wire takes at most; see `wire.PDU_BYTES_ACCEPTED`."""
PDU_SECONDS = 60.0
"""A PDU that has begun must be complete by then: slower than 17 kbit/s is no PACS."""
MESSAGE_BYTES = 4 * MEBIBYTE
"""A DIMSE message that is not a C-STORE data set is held in memory."""
CONTEXTS = 128
"""Presentation contexts of one association: their numbers are the odd ones of a byte (PS3.8 9.3.2.2)."""
REQUEST_BYTES = 256 * KIBIBYTE
"""An A-ASSOCIATE-RQ: 128 contexts with 40 transfer syntaxes each are 150 kB."""
MESSAGES_WAITING = 64
"""Requests of one association that arrived and are not answered yet; one at a time is what is negotiated."""
EVENT_REPORTS = 64
"""Storage commitment reports over one association; a PACS opens one for each."""
OBJECT_BYTES = GIBIBYTE
"""One object on the wire: 120 million pixels of RGB are 360 MB."""
INFLATED_BYTES = GIBIBYTE
"""A deflated data set after inflating: a bomb must not fill the disk."""
FREE_BYTES = 512 * MEBIBYTE
"""The disk watermark: below it nothing more is taken in, so that database and results can still write."""
HANDSHAKE_SECONDS = 10.0
"""From TCP connect to the end of the TLS handshake: three round trips and two signatures."""
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
    connections_per_address: int = CONNECTIONS_PER_ADDRESS
    connections_per_second: float = CONNECTIONS_PER_SECOND
    pdu_bytes: int = PDU_BYTES
    message_bytes: int = MESSAGE_BYTES
    object_bytes: int = OBJECT_BYTES
    inflated_bytes: int = INFLATED_BYTES
    free_bytes: int = FREE_BYTES
    handshake_seconds: float = HANDSHAKE_SECONDS
    pdu_seconds: float = PDU_SECONDS
    acse_seconds: float = ACSE_SECONDS
    dimse_seconds: float = DIMSE_SECONDS
    network_seconds: float = NETWORK_SECONDS
