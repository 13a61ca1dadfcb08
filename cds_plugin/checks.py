"""Whether the parts around us answer: a DICOM peer, the broker. Each check is bounded in time."""

from __future__ import annotations

from kombu.exceptions import KombuError
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from redis.exceptions import RedisError

from cds_plugin.config import Settings
from cds_plugin.queue import make_app

PEER_SECONDS = 5.0
"""How long a check waits for a peer."""
WILDCARD_HOSTS = frozenset({"0.0.0.0", "::", ""})


def answers_echo(host: str, port: int, ae_title: str, calling: str = "CDS-CHECK") -> bool:
    """Return whether a C-ECHO to `ae_title` at host:port is answered with Success (PS3.4 annex A)."""
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = PEER_SECONDS
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1" if host in WILDCARD_HOSTS else host, port, ae_title=ae_title)
    if not association.is_established:
        return False
    answer = association.send_c_echo()
    association.release()
    return bool(answer) and answer.Status == 0x0000


def broker_answers(settings: Settings) -> bool:
    """Return whether a connection to the broker can be made."""
    with make_app(settings).connection_for_write(connect_timeout=PEER_SECONDS) as connection:
        try:
            connection.ensure_connection(max_retries=1, interval_start=0)
        except (KombuError, RedisError, OSError):
            return False
    return True
