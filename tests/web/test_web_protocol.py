"""Connections that only cost: they are closed, the server goes on, and uvicorn still is what we lean on."""

from __future__ import annotations

import socket
import time
from importlib.metadata import version

import pytest
import requests
from uvicorn.protocols.http.h11_impl import H11Protocol
from ward import LOOPBACK
from web_site import RELATED, Site

from cds_plugin.web import protocol


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch, site: Site) -> Site:
    """Return a site whose limits of time are short."""
    monkeypatch.setattr(protocol, "DRAIN_SECONDS", 0.4)
    return site.with_web(header_seconds=0.4)


def connected(site: Site) -> socket.socket:
    connection = socket.create_connection((LOOPBACK, site.settings.web.port))
    connection.settimeout(9)
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Wait for the end of the connection; the answer before it is read and dropped."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def test_silence_and_half_headers_are_cut_off(hasty: Site) -> None:
    with hasty.serving():
        for beginning in (b"", b"POST /stud", b"POST /studies HTTP/1.1\r\nHost: x\r\n"):
            with connected(hasty) as connection:
                started = time.monotonic()
                connection.sendall(beginning)
                assert is_closed(connection)
                assert time.monotonic() - started < 5
        assert requests.get(f"{hasty.url}/health/live", timeout=9).ok


def test_a_header_that_drips_is_cut_off(hasty: Site) -> None:
    with hasty.serving(), connected(hasty) as connection:
        started = time.monotonic()
        with pytest.raises(OSError):
            for _ in range(100):
                connection.sendall(b"G")
                time.sleep(0.05)
        assert time.monotonic() - started < 4


def test_a_second_request_has_the_same_limit(hasty: Site) -> None:
    with hasty.serving(), connected(hasty) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while b"alive" not in answer:
            answer += connection.recv(65536)
        connection.sendall(b"GET /hea")
        assert is_closed(connection)


def test_a_refused_body_is_not_read_for_ever(hasty: Site) -> None:
    head = (
        b"POST /studies HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 99999999\r\n\r\n"
    )
    with hasty.serving(), connected(hasty) as connection:
        connection.sendall(head)
        assert b"415" in connection.recv(65536)
        started = time.monotonic()
        with pytest.raises(OSError):
            for _ in range(200):
                connection.sendall(b"x" * 1000)
                time.sleep(0.05)
        assert time.monotonic() - started < 5


def test_an_upload_under_way_is_not_held_to_the_limit_of_headers(hasty: Site) -> None:
    head = f"POST /studies HTTP/1.1\r\nHost: x\r\nContent-Type: {RELATED}\r\nContent-Length: 20\r\n\r\n"
    with hasty.serving(), connected(hasty) as connection:
        connection.sendall(head.encode())
        for _ in range(20):
            time.sleep(0.06)
            connection.sendall(b"\n")
        assert b" 400 " in connection.recv(65536)


def test_what_is_no_http_gets_400(site: Site) -> None:
    with site.serving():
        for nonsense in (b"\x16\x03\x01\x00\xee\x01", b"\x01\x00\x00\x00\x00\xcd" * 30, b"GET / HTTP/9"):
            with connected(site) as connection:
                connection.sendall(nonsense + b"\r\n\r\n")
                assert connection.recv(65536).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("limit", ["connections", "connections_per_address"])
def test_connections_have_a_limit(site: Site, limit: str) -> None:
    site = site.with_web(**{limit: 3})
    with site.serving():
        time.sleep(0.3)
        held = [connected(site) for _ in range(3)]
        time.sleep(0.3)
        with connected(site) as one_more:
            assert is_closed(one_more)
        for each in held:
            each.close()
        time.sleep(0.3)
        assert requests.get(f"{site.url}/health/live", timeout=9).ok


def test_uvicorn_is_what_we_lean_on() -> None:
    assert version("uvicorn").startswith("0."), "look at H11Protocol again"
    for name in ("connection_made", "connection_lost", "data_received", "on_response_complete"):
        assert callable(getattr(H11Protocol, name))
