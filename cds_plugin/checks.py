"""Whether the parts around us answer: a DICOM peer, the broker. Each check is bounded in time."""

from __future__ import annotations

import socket
from ssl import SSLContext
from typing import cast

from kombu.exceptions import KombuError
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from redis.exceptions import RedisError

from cds_plugin.config import Settings
from cds_plugin.queue import make_app
from cds_plugin.tls.outgoing import ANY_NAME, ClientTls

PEER_SECONDS = 5.0
"""How long a check waits for a peer."""
WILDCARD_HOSTS = frozenset({"0.0.0.0", "::", ""})


def answers_echo(
    host: str, port: int, ae_title: str, calling: str = "CDS-CHECK", tls: ClientTls | None = None
) -> bool:
    """Return whether a C-ECHO to `ae_title` at host:port is answered with Success (PS3.4 annex A).

    Raises Refused where `tls` is given and one of its files is wrong.
    """
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = PEER_SECONDS
    ae.add_requested_context(Verification)
    association = ae.associate(
        reachable(host),
        port,
        ae_title=ae_title,
        tls_args=cast(tuple[SSLContext, str] | None, tls.arguments() if tls else None),
    )
    if not association.is_established:
        return False
    answer = association.send_c_echo()
    association.release()
    return bool(answer) and answer.Status == 0x0000


def listener_answers(settings: Settings) -> bool:
    """Return whether our own listener answers a C-ECHO, on its plain port or else on its TLS port.

    Over TLS the certificate must be the very one of `tls.certificate`, whatever names it bears. Raises
    Refused where the TLS files are wrong.
    """
    place = settings.listener
    if settings.tls.plain:
        return answers_echo(place.host, place.port, place.ae_title)
    own = settings.tls.model_copy(update={"authorities": settings.tls.certificate, "revoked": None})
    return answers_echo(place.host, settings.tls.port, place.ae_title, tls=ClientTls(own, ANY_NAME))


def port_is_open(host: str, port: int) -> bool:
    """Return whether something accepts connections there; it is told nothing."""
    try:
        socket.create_connection((reachable(host), port), PEER_SECONDS).close()
    except OSError:
        return False
    return True


def reachable(host: str) -> str:
    """Return the address to reach a server of this machine at that listens on `host`."""
    return "127.0.0.1" if host in WILDCARD_HOSTS else host


def broker_answers(settings: Settings) -> bool:
    """Return whether a connection to the broker can be made."""
    with make_app(settings).connection_for_write(connect_timeout=PEER_SECONDS) as connection:
        try:
            connection.ensure_connection(max_retries=1, interval_start=0)
        except (KombuError, RedisError, OSError):
            return False
    return True
