"""Whether the parts around us answer: a DICOM peer, the broker. Each check is bounded in time."""

from __future__ import annotations

from ssl import SSLContext
from typing import cast

from kombu.exceptions import KombuError
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from redis.exceptions import RedisError

from cds_plugin.config import Settings
from cds_plugin.queue import make_app
from cds_plugin.reach import PEER_SECONDS, reachable
from cds_plugin.tls.outgoing import ANY_NAME, ClientTls

NOT_RECOGNISED = 0x03
"""The diagnostic "calling AE title not recognised" of an A-ASSOCIATE-RJ (PS3.8 table 9-21)."""


def answers_echo(
    host: str,
    port: int,
    ae_title: str,
    calling: str = "CDS-CHECK",
    tls: ClientTls | None = None,
    *,
    rejecting_counts: bool = False,
) -> bool:
    """Return whether a C-ECHO to `ae_title` at host:port is answered with Success (PS3.4 annex A).

    Where `rejecting_counts`, so does a peer that knows its own title and rejects the calling one. Raises
    Refused where `tls` is given and one of its files is wrong.
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
        return rejecting_counts and _rejects_our_title(association)
    answer = association.send_c_echo()
    association.release()
    return bool(answer) and answer.Status == 0x0000


def _rejects_our_title(association: Association) -> bool:
    said = association.acceptor.primitive
    return association.is_rejected and said is not None and said.diagnostic == NOT_RECOGNISED


def listener_answers(settings: Settings) -> bool:
    """Return whether our own listener answers, on its plain port or else on its TLS port.

    Rules may refuse this check as any caller: being rejected by them is an answer, too.

    Over TLS the certificate must be the very one of `tls.certificate`, whatever names it bears. Raises
    Refused where the TLS files are wrong.
    """
    place = settings.listener
    if settings.tls.plain:
        return answers_echo(place.host, place.port, place.ae_title, rejecting_counts=True)
    own = settings.tls.model_copy(update={"authorities": settings.tls.certificate, "revoked": None})
    tls = ClientTls(own, ANY_NAME)
    return answers_echo(place.host, settings.tls.port, place.ae_title, tls=tls, rejecting_counts=True)


def broker_answers(settings: Settings) -> bool:
    """Return whether a connection to the broker can be made."""
    with make_app(settings).connection_for_write(connect_timeout=PEER_SECONDS) as connection:
        try:
            connection.ensure_connection(max_retries=1, interval_start=0)
        except (KombuError, RedisError, OSError):
            return False
    return True
