"""What strangers say first on a TLS port: thousands of damaged hellos end the handshake and nothing else.

The parser is OpenSSL's, whose branches the fuzzer cannot count: the damage is drawn from a fixed seed.
"""

from __future__ import annotations

import random
import re
import socket
import ssl
import threading
from contextlib import suppress

import pytest
from certificates import Certificates

from cds_plugin.config import ClientCertificate
from cds_plugin.tls.identity import identity_of
from cds_plugin.tls.serving import HandshakeFailed, ServerTls, Unspoken

HELLOS = 1000
SECONDS = 5.0
RECORD_HEAD_BYTES = 5
REASON = re.compile(r"[a-z0-9 .:()_-]{1,120}")
"""Words of OpenSSL and ours; nothing that a peer wrote."""


def hello_of(newest: ssl.TLSVersion) -> bytes:
    """Return a ClientHello as Python writes it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.maximum_version = False, newest
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="cds.example").do_handshake()
    return outgoing.read()


def damaged(hello: bytes, dice: random.Random) -> bytes:
    """Return the hello with some bytes changed, cut, doubled or preceded by noise."""
    said = bytearray(hello)
    for _ in range(dice.choice((1, 1, 2, 8))):
        place = dice.randrange(len(said))
        match dice.randrange(5):
            case 0:
                said[place] = dice.randrange(256)
            case 1:
                del said[place : place + dice.choice((1, 2, 40))]
            case 2:
                said[place:place] = said[place : place + dice.choice((1, 2, 40))]
            case 3:
                said[place : place + 2] = dice.choice((b"\0\0", b"\xff\xff", b"\0\1"))
            case _:
                said = bytearray(dice.randbytes(dice.choice((1, 5, 300)))) + said
        said = said or bytearray(b"\x16")
    if dice.random() < 0.5:  # the length of the record is right again, so that the hello itself is read
        said[3:RECORD_HEAD_BYTES] = max(0, len(said) - RECORD_HEAD_BYTES).to_bytes(2, "big")
    return bytes(said)


def outcome(serving: ServerTls, said: bytes) -> str:
    """Say this to a server and close; return why it ended the handshake, or that it went on."""
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(said)
        ours.shutdown(socket.SHUT_WR)
        try:
            with serving.accept(theirs, SECONDS) as secured:
                assert identity_of(secured) is None
                return "went on"
        except HandshakeFailed as failure:
            assert REASON.fullmatch(str(failure)), str(failure)
            return str(failure)
        except Unspoken:
            return "not a word"
        finally:
            assert theirs.fileno() == -1, "the connection is closed, or has gone over to TLS"


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_damaged_hellos(certificates: Certificates, newest: ssl.TLSVersion) -> None:
    mode = ClientCertificate.REQUIRED
    serving = ServerTls(certificates.server.settings(certificates.ca, mode="only", client_certificate=mode))
    dice, hello, before = random.Random(str(newest)), hello_of(newest), threading.active_count()
    reasons = {outcome(serving, damaged(hello, dice)) for _ in range(HELLOS)}
    assert "went on" not in reasons, "nobody gets in without a certificate"
    assert len(reasons) > 5, "the damage reached different parts of the parser"
    assert threading.active_count() == before
    assert outcome(serving, hello) in ("closed by the peer", "unexpected eof while reading")
