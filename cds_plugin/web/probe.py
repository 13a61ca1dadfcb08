"""Whether our own web server answers; bounded in time."""

from __future__ import annotations

import ssl
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection

from cds_plugin.config import Web
from cds_plugin.reach import PEER_SECONDS, reachable


def web_answers(web: Web, path: str) -> bool:
    """Return whether GET `path` gives 200. Over TLS its certificate is not looked at: nothing is told."""
    connection = _connection(web)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _connection(web: Web) -> HTTPConnection:
    host = reachable(web.host)
    if not web.tls:
        return HTTPConnection(host, web.port, timeout=PEER_SECONDS)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return HTTPSConnection(host, web.port, timeout=PEER_SECONDS, context=context)
