"""Target `child`: hostile pictures through the real decoder, which has a child process for them."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
from fuzz_decoders import BYTES, CODES
from invariants import Breach, Watch, watched
from picture_forms import FORMS
from strangers import a_folder
from streams import Mutate

from cds_plugin.decoder import Decoder
from cds_plugin.errors import Refused
from cds_plugin.photograph.child import BYTES_PER_PIXEL, SPARE_BYTES
from cds_plugin.photograph.exchange import Kind, Request

NAMES = tuple(FORMS)
CONTAINED = CODES | {"too_much_memory", "decoding_too_slow", "decoder_crashed"}
"""A refusal for whatever happened in the child."""
SECONDS = 20.0
"""What a picture may take here; the product gives it a minute."""


class Children:
    """One decoder for many files; a context manager. An input's first byte names the form of the rest."""

    longest = BYTES

    def __enter__(self) -> Children:
        self._others = {each.pid for each in psutil.Process().children()}
        self._opened = ExitStack()
        self._watch: Watch = self._opened.enter_context(watched())
        self._folder = self._opened.enter_context(a_folder())
        self._decoder = self._opened.enter_context(Decoder(SECONDS))
        self._left = 2**30, 2**30
        self.settled()
        self._left = _left()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def one(self, data: bytes) -> None:
        """Decode a file; whatever it is, this process and the next file are none the worse."""
        form = FORMS[NAMES[data[0] % len(NAMES) if data else 0]]
        request, content = form.file(data[1:])
        path = self._folder / "picture"
        path.write_bytes(content)
        try:
            self._check_decoded(request, path)
        except Refused as refusal:
            if refusal.code not in CONTAINED:
                raise Breach(f"a refusal with the code {refusal.code}") from refusal
        self._check_nothing_left()
        self._watch.check()

    def settled(self) -> None:
        """The next file is decoded."""
        self.one(next(seeds()))

    def _check_decoded(self, request: Request, path: Path) -> None:
        if request.kind is Kind.PICTURE:
            rgb = self._decoder.decode_picture(path, request.max_pixels).rgb
        else:
            photograph = self._decoder.decode(path, request.max_pixels, request.frame)
            rgb, header = photograph.rgb, photograph.header
            if rgb.shape[:2] != (header.Rows, header.Columns):
                raise Breach(f"decoded to {rgb.shape}")
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
            raise Breach(f"decoded to {rgb.dtype} {rgb.shape}")

    def _check_nothing_left(self) -> None:
        """One child at most, its memory within the limit; no descriptor, thread or file is left."""
        children = [each for each in psutil.Process().children() if each.pid not in self._others]
        limit = 2 * SPARE_BYTES + BYTES_PER_PIXEL * 512 * 512
        for each in children:
            resident = each.memory_info().rss if each.status() != psutil.STATUS_ZOMBIE else 0
            if resident > limit:
                raise Breach(f"the child holds {resident} bytes")
        if len(children) > 1 or list(self._folder.iterdir()) != [self._folder / "picture"]:
            raise Breach("children or files are left")
        threads, descriptors = _left()
        if threads > self._left[0] or descriptors > self._left[1]:
            raise Breach(f"threads and descriptors left: {threads}, {descriptors}; {self._left} before")


def _left() -> tuple[int, int]:
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


def seeds() -> Iterator[bytes]:
    """Yield the first seed of every form."""
    for number, form in enumerate(FORMS.values()):
        yield bytes((number,)) + next(form.seeds())


def mutated(data: bytes, longest: int, seed: int, mutate: Mutate) -> bytes:
    """Return an input of some form changed as that form's are."""
    name = NAMES[data[0] % len(NAMES) if data else 0]
    head = bytes((NAMES.index(name),))
    if random.Random(seed).random() < 0.2:
        kept = random.Random(seed).choice(sorted((Path(__file__).parent / "corpus" / name).iterdir()))
        return (head + kept.read_bytes())[:longest]
    return head + FORMS[name].mutated(data[1:], longest - 1, seed, mutate)
