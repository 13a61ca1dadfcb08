"""Target `bodies`: an upload to the store transaction, from its media type to the answer (STOW-RS)."""

from __future__ import annotations

import asyncio
import json
import random
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from fuzz_datasets import INSTANCE, a_file
from invariants import Breach, Watch, watched
from pdus import photograph
from pydicom.dataset import Dataset
from starlette.requests import Request
from strangers import a_folder, a_reception, a_ward

from cds_plugin.errors import Refused
from cds_plugin.multipart import (
    MultipartBounds,
    MultipartReader,
    PartBegun,
    PartBytes,
    PartEnded,
    boundary_of,
)
from cds_plugin.receive.alarms import Alarms
from cds_plugin.web import upload
from cds_plugin.web.answers import MEANING
from cds_plugin.web.bounds import WebBounds
from cds_plugin.web.stow import DICOM, StoreService
from cds_plugin.web.uploads import UploadLedger

PIECES = (1 << 20, 4096, 61, 7, 1)
"""How many bytes of a body come at once; an input's first byte modulo their number says which."""
SMALL_PIECES = 120
"""So many are that small, about one of the places where something begins or ends; the rest comes at once."""
SYNTAX = re.compile(rb"--|\r\n\r\n")
BEFORE_SYNTAX = 8
"""Bytes before such a place from which on pieces are small."""
NAMES_A_STUDY = 0x80
"""A bit of the first byte: the request names the study."""
STUDY = "1.2.3"
BOUNDS = WebBounds(request_bytes=48 * 1024, parts=5)
PART_BYTES = 4096
BATCH = 2000
"""Uploads between two fresh folders."""
BYTES = 16 * 1024
Mutate = Callable[[bytes, int], bytes]
Parts = tuple[list[list[bytes]], str]


class Bodies:
    """One store service for many uploads; a context manager."""

    longest = BYTES

    def __enter__(self) -> Bodies:
        self._outer = ExitStack()
        self._watch: Watch = self._outer.enter_context(watched())
        self._outer.enter_context(_in_this_thread())
        self._loop = self._outer.enter_context(asyncio.Runner())
        self._inner = ExitStack()
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._inner.close()
        self._outer.close()

    def _begin(self) -> None:
        self._ward = a_ward(self._inner.enter_context(a_folder()))
        self._inner.callback(self._ward.engine.dispose)
        reception, self._incoming = self._inner.enter_context(a_reception(self._ward))
        self._store = StoreService(reception, self._incoming, UploadLedger(), Alarms(), BOUNDS)
        self._seen = 0

    def one(self, data: bytes) -> None:
        """Upload a body and check its answer against what is kept of it."""
        if self._seen >= BATCH:
            self._inner.close()
            self._begin()
        self._seen += 1
        how = data[0] if data else 0
        media_type, _, body = data[1:].partition(b"\n")
        piece = PIECES[how % NAMES_A_STUDY % len(PIECES)]
        _check_reader(media_type.decode("latin-1"), body, piece)
        request = Request(_scope(media_type, STUDY if how & NAMES_A_STUDY else ""), _Receive(body, piece))
        answer = self._loop.run(self._store.store(request))
        self._check(answer.status_code, bytes(answer.body))
        self._watch.check()

    def settled(self) -> None:
        """Nothing here settles later."""

    def _check(self, status: int, content: bytes) -> None:
        """The status is one of the contract; what is called stored has its row and its file."""
        if status not in set(MEANING):
            raise Breach(f"status {status}")
        if self._store.running or list(self._incoming.iterdir()):
            raise Breach("something is left of an upload that was answered")
        told = json.loads(content)
        if "error" in told:
            return
        module = Dataset.from_json(told)
        stored = [each.ReferencedSOPInstanceUID for each in module.get("ReferencedSOPSequence", ())]
        failed = len(module.get("FailedSOPSequence", ())) + len(module.get("OtherFailuresSequence", ()))
        if not stored and not failed and status != 400:
            raise Breach(f"{status} and nothing said of any object")
        if (status == 200) is not (bool(stored) and not failed):
            raise Breach(f"{status} with {len(stored)} stored and {failed} failed")
        self._check_kept(stored)

    def _check_kept(self, uids: list[str]) -> None:
        with closing(self._ward.engine.raw_connection()) as connection:
            cursor = connection.cursor()
            marks = ", ".join("?" * len(uids))
            cursor.execute(
                f"SELECT sop_instance_uid, path FROM instances WHERE sop_instance_uid IN ({marks})", uids
            )
            paths = dict(cursor.fetchall())
        for uid in uids:
            if uid not in paths or not (self._ward.directory / paths[uid]).is_file():
                raise Breach(f"acknowledged and not kept: {uid}")


@contextmanager
def _in_this_thread() -> Iterator[None]:
    """Receive without a worker thread, which would end with every case and begin again with the next."""

    async def at_once(work: Callable[..., Any], *arguments: Any) -> Any:
        return work(*arguments)

    before = upload.to_thread
    upload.to_thread = SimpleNamespace(run_sync=at_once)
    try:
        yield
    finally:
        upload.to_thread = before


class _Receive:
    """What an ASGI server hands to an application, piece by piece."""

    def __init__(self, body: bytes, piece: int) -> None:
        self._left = pieces_of(body, piece)
        self._left.reverse()

    async def __call__(self) -> dict[str, Any]:
        piece = self._left.pop() if self._left else b""
        return {"type": "http.request", "body": piece, "more_body": bool(self._left)}


def _scope(media_type: bytes, study: str) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "path": f"/studies/{study}",
        "path_params": {"study": study} if study else {},
        "query_string": b"",
        "headers": [(b"content-type", media_type)],
        "client": ("127.0.0.1", 1),
    }


def _check_reader(media_type: str, body: bytes, piece: int) -> None:
    """The pieces in which a body comes change nothing of what its parts are."""
    try:
        boundary = boundary_of(media_type, DICOM)
    except Refused:
        return
    whole, in_pieces = _parts(boundary, [body]), _parts(boundary, pieces_of(body, piece))
    if whole != in_pieces:
        raise Breach(f"a body has other parts in pieces of {piece}: {_short(whole)}, {_short(in_pieces)}")


def pieces_of(body: bytes, piece: int) -> list[bytes]:
    """Return a body in the pieces in which it comes; where the small ones are depends on the body alone."""
    first, small = 0, SMALL_PIECES * piece
    if len(body) > small:
        places = [each.start() for each in SYNTAX.finditer(body)] or [0]
        first = max(places[zlib.crc32(body) % len(places)] - BEFORE_SYNTAX, 0)
    last = min(first + small, len(body))
    cuts = [0, *range(first, last, piece), last, len(body)]
    return [body[start:end] for start, end in pairwise(cuts)]


def _parts(boundary: str, pieces: list[bytes]) -> Parts:
    """Return the parts that were complete, and how the body ended."""
    reader = MultipartReader(boundary, MultipartBounds(BOUNDS.parts, PART_BYTES))
    complete: list[list[bytes]] = []
    content = b""
    try:
        for piece in pieces:
            for event in reader.feed(piece):
                match event:
                    case PartBegun():
                        content = b""
                    case PartBytes(more):
                        content += more
                    case PartEnded():
                        complete.append([content])
        reader.finish()
    except Refused as refusal:
        return complete, refusal.code
    return complete, ""


def _short(parts: Parts) -> str:
    return f"{[len(each[0]) for each in parts[0]]} {parts[1]!r}"


MEDIA_TYPE = b'multipart/related; type="application/dicom"; boundary=cut'
HEAD = b"--cut\r\nContent-Type: application/dicom\r\n\r\n"
END = b"\r\n--cut--\r\n"
FRAGMENTS = (
    *(
        b"\r\n--cut\r\n",
        b"\r\n--cut--",
        b"--cut",
        b"\r\n--cu",
        b"\r\n\r\n",
        b"\n--cut\n",
        b"\r\n--cut \t\r\n",
    ),
    *(HEAD, END, b"\r\n" + HEAD, b"\r\nContent-Length: 3", b"\r\nX: " + b"y" * 64, b"\r\n--cut--cut\r\n"),
)
"""Pieces of multipart syntax, right and wrong."""


def seeds() -> Iterator[bytes]:
    """Yield whole uploads, and the shapes that a parser may stumble over."""
    one, other = (a_file(photograph(uid)) for uid in (INSTANCE, b"1.2.3.5"))
    head = bytes((0,)) + MEDIA_TYPE + b"\n"
    yield head + HEAD + one + END
    yield bytes((NAMES_A_STUDY | 3,)) + MEDIA_TYPE + b"\n" + HEAD + one + b"\r\n" + HEAD + other + END
    yield head + b"preamble\r\n" + HEAD + one + END + b"epilogue"
    yield head + HEAD + one
    yield head + HEAD + one + b"\r\n" + HEAD + b"no object" + END
    yield head + HEAD * 7 + END
    yield head + END
    yield head
    yield head + HEAD.replace(b"\r\n", b"\n") + one + END.replace(b"\r\n", b"\n")
    yield head + HEAD + b"\r\n--cu" * 9 + b"\r\n-" + END
    yield head + b"--cut\r\n" + b"A: b\r\n" * 20 + b"\r\n" + one + END
    yield bytes((1,)) + MEDIA_TYPE.replace(b"cut", b'"a b"') + b"\n" + HEAD.replace(b"cut", b"a b") + one
    yield bytes((2,)) + b"application/dicom\n" + one
    yield bytes((2,)) + MEDIA_TYPE.replace(b"dicom", b"dicom+json") + b"\n[]"
    yield head + HEAD + one * 12 + END


def mutated(data: bytes, longest: int, seed: int, mutate: Mutate) -> bytes:
    """Return an upload changed in one place: its syntax, its media type, its pieces, or just bytes."""
    dice = random.Random(seed)
    media_type, _, body = data[1:].partition(b"\n")
    how, choice = data[:1] or b"\0", dice.random()
    if choice < 0.1:
        how = bytes((dice.randrange(len(PIECES)) | dice.choice((0, NAMES_A_STUDY)),))
    elif choice < 0.2:
        media_type = mutate(media_type or b"m", 256).replace(b"\n", b"")
    elif choice < 0.55:
        place = dice.randrange(len(body) + 1)
        body = body[:place] + dice.choice(FRAGMENTS) + body[place + dice.choice((0, 0, 1, 9)) :]
    else:
        body = mutate(body or b"\0", longest)
    return (how + media_type + b"\n" + body)[:longest]
