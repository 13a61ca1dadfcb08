"""Target `pdus`: a stranger's bytes on a real listener's port, from connect to disconnect."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

from invariants import (
    Breach,
    Watch,
    check_answers,
    check_incoming,
    check_stored,
    wait_for_threads,
    watched,
)
from pdus import (
    ASSOCIATE_RQ,
    C_CANCEL_RQ,
    C_FIND_RQ,
    COMMAND_FIELD,
    CONTEXTS,
    DATA_SET_TYPE,
    IS_COMMAND,
    IS_LAST,
    N_ACTION_RQ,
    N_EVENT_REPORT_RQ,
    P_DATA_TF,
    PDU_HEAD,
    RESPONDED_TO,
    RESPONSE,
    STATUS,
    abort,
    associate_rq,
    command_set,
    commit,
    context,
    echo,
    echo_command,
    item,
    p_data,
    pdu,
    pdv,
    pdvs_of,
    photograph,
    references,
    release,
    split,
    store,
    user_information,
)
from pynetdicom import association
from strangers import Stranger, a_folder, a_ward, echoes, threads

AT_ONCE, RESET = 1, 2
"""Bits of an input's first byte: say all without waiting for the A-ASSOCIATE-AC; end with a reset."""
BATCH = 200
"""Cases between two looks at what only settles after a second: incoming, the database, a C-ECHO."""
BYTES = 32 * 1024
"""The longest input."""
QUIET_SECONDS = 0.008
"""A listener in this very process that says nothing for so long has read what it was sent."""
NAP_SECONDS = 0.0005
"""pynetdicom looks every 10 ms whether a thread has ended; here it looks more often."""
Mutate = Callable[[bytes, int], bytes]


class Pdus:
    """One listener for many conversations; a context manager."""

    longest = BYTES

    def __enter__(self) -> Pdus:
        with ExitStack() as opened:
            self._watch: Watch = opened.enter_context(watched())
            opened.enter_context(_short_naps())
            self._ward = a_ward(opened.enter_context(a_folder()))
            opened.callback(self._ward.engine.dispose)
            opened.enter_context(self._ward.listening())
            self._threads = threads()
            self._batch: list[bytes] = []
            self._acknowledged: list[str] = []
            self._closing = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def one(self, data: bytes) -> None:
        """Say `data` to the listener and check what holds at once; the rest once per batch."""
        self._batch.append(data)
        self._acknowledged += self._said(data)
        wait_for_threads(self._threads)
        self._watch.check()
        if len(self._batch) >= BATCH:
            self.settled()

    def settled(self) -> None:
        """Check what holds once all is quiet, for the inputs since the last time."""
        batch, self._batch = self._batch, []
        acknowledged, self._acknowledged = self._acknowledged, []
        try:
            check_incoming(self._ward)
            check_stored(self._ward, acknowledged)
            if not echoes(self._ward.port):
                raise Breach("C-ECHO is no longer answered")
            wait_for_threads(self._threads)
            self._watch.check()
        except Breach as breach:
            breach.inputs = batch
            raise

    def _said(self, data: bytes) -> list[str]:
        how, script = (data[0], data[1:]) if data else (0, b"")
        opening = 0 if how & AT_ONCE else _opening(script)
        with Stranger(self._ward.port) as stranger:
            if opening:
                stranger.say(script[:opening])
                stranger.listen(until=1)
            stranger.say(script[opening:])
            if how & RESET:
                stranger.reset()
                return []
            answers = stranger.listen(QUIET_SECONDS)
        check_answers(answers)
        return answers.stored


@contextmanager
def _short_naps() -> Iterator[None]:
    before = association.time
    association.time = SimpleNamespace(sleep=lambda seconds: before.sleep(min(seconds, NAP_SECONDS)))
    try:
        yield
    finally:
        association.time = before


def _opening(script: bytes) -> int:
    """Return how many bytes a well-behaved peer says before it waits: a whole A-ASSOCIATE-RQ."""
    whole, _ = split(script[: PDU_HEAD.size + 0xFFFF] if script[:1] == bytes((ASSOCIATE_RQ,)) else b"")
    return PDU_HEAD.size + len(whole[0][1]) if whole else 0


def seeds() -> Iterator[bytes]:
    """Yield scripts of whole conversations."""
    image = photograph(b"1.2.3.4")
    hello, bye = b"\0" + associate_rq(), release()
    yield hello + echo() + bye
    yield hello + commit(13, references(b"1.2.3.4\0", b"1.2.3.5\0")) + bye
    yield hello + commit(13, references()) + commit(13, references(b"1"), message=2) + echo() + bye
    yield hello + store(3, b"1.2.3.4", image) + bye
    yield hello + store(3, b"1.2.3.5", image, fragment=40) + abort()
    yield hello + store(5, b"1.2.3.4", image) + echo(message=2) + bye
    yield b"\1" + associate_rq() + echo() + bye
    yield b"\2" + associate_rq() + store(3, b"1.2.3.4", image)[:150]
    yield hello + b"".join(p_data(each) for each in _odd_messages()) + bye
    yield from (hello + p_data(each) + bye for each in _odd_messages())
    yield b"\0" + associate_rq(user=user_information(*_negotiation())) + echo() + bye
    yield b"\0" + associate_rq([context(n, b"1.2.3", b"1.2") for n in range(1, 60, 2)]) + bye
    yield b"\0" + associate_rq([*CONTEXTS, *CONTEXTS], called=b"WRONG") + bye
    yield b"\0" + pdu(ASSOCIATE_RQ, b"\0" * 68)


def _odd_messages() -> Iterator[bytes]:
    whole = IS_COMMAND | IS_LAST
    for field in (C_FIND_RQ, C_CANCEL_RQ, N_ACTION_RQ, N_EVENT_REPORT_RQ, N_EVENT_REPORT_RQ | RESPONSE):
        said = {**echo_command(), COMMAND_FIELD: field, RESPONDED_TO: 1, STATUS: 0}
        yield pdv(1, whole, command_set(said))
    yield pdv(1, IS_LAST, b"\0" * 20)
    yield pdv(1, whole, command_set({COMMAND_FIELD: 0x30, DATA_SET_TYPE: 1})) + pdv(1, IS_LAST, b"\0\0")


def _negotiation() -> Iterator[bytes]:
    """Yield the sub-items of PS3.7 annex D.3.3."""
    sop_class = struct.pack(">H", 5) + b"1.2.3"
    yield item(0x53, struct.pack(">HH", 1, 1))
    yield item(0x54, sop_class + b"\1\1")
    yield item(0x55, b"VERSION")
    yield item(0x56, sop_class + b"\1\0\1")
    yield item(0x57, sop_class + sop_class + struct.pack(">H", 7) + sop_class)
    yield item(0x58, b"\1\1" + struct.pack(">H", 4) + b"user" + struct.pack(">H", 0))


def mutated(data: bytes, longest: int, seed: int, mutate: Mutate) -> bytes:
    """Return a script changed in one place, most often with the lengths around it made right again."""
    dice = random.Random(seed)
    whole, rest = split(data[1:])
    if not whole or dice.random() < 0.25:
        return mutate(data, longest)
    how = bytes((dice.choice((data[0], 0, 0, AT_ONCE, RESET)),))
    number = dice.randrange(len(whole))
    choice = dice.random()
    if choice < 0.15:
        whole.insert(dice.randrange(len(whole) + 1), whole[number])
    elif choice < 0.25 and len(whole) > 1:
        del whole[number]
    elif choice < 0.35:
        other = dice.choice(_VOCABULARY)
        whole.insert(dice.randrange(1, len(whole) + 1), other)
    else:
        kind, body = whole[number]
        whole[number] = kind, _body(kind, body, dice, mutate)
    return (how + b"".join(pdu(kind, body) for kind, body in whole) + rest)[:longest]


def _body(kind: int, body: bytes, dice: random.Random, mutate: Mutate) -> bytes:
    if kind == P_DATA_TF:
        return _presentation_data(body, dice, mutate)
    if kind == ASSOCIATE_RQ and len(body) > 68 and dice.random() < 0.8:
        return body[:68] + _items(body[68:], dice, mutate, depth=0)
    return mutate(body or b"\0", len(body) + 64)


def _items(encoded: bytes, dice: random.Random, mutate: Mutate, depth: int) -> bytes:
    """Change one item among several, or one inside it, and write its length anew."""
    items = []
    while len(encoded) >= 4:
        kind, _, length = struct.unpack_from(">BBH", encoded)
        items.append((kind, encoded[4 : 4 + length]))
        encoded = encoded[4 + length :]
    if not items:
        return mutate(encoded or b"\0", len(encoded) + 32)
    number = dice.randrange(len(items))
    kind, body = items[number]
    nested = kind in (0x20, 0x50) and depth == 0 and dice.random() < 0.7
    prefix = 4 if kind == 0x20 else 0
    if nested:
        body = body[:prefix] + _items(body[prefix:], dice, mutate, depth + 1)
    elif dice.random() < 0.2:
        items.insert(number, items[number])
    else:
        body = mutate(body or b"\0", len(body) + 32)
    items[number] = kind, body
    return b"".join(item(kind, body[:0xFFFF]) for kind, body in items) + encoded


def _presentation_data(body: bytes, dice: random.Random, mutate: Mutate) -> bytes:
    values = list(pdvs_of(body))
    if not values:
        return mutate(body or b"\0", len(body) + 32)
    number = dice.randrange(len(values))
    context_id, control, data = values[number]
    choice = dice.random()
    if choice < 0.1:
        context_id = dice.randrange(256)
    elif choice < 0.2:
        control = dice.randrange(256)
    elif choice < 0.3:
        values.append(values[number])
    else:
        data = mutate(data or b"\0", len(data) + 64)
    values[number] = context_id, control, data
    return b"".join(pdv(*each) for each in values)


_VOCABULARY = [each for seed in seeds() for each in split(seed[1:])[0]]
