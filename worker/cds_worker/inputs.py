"""What `analyze` was pointed at: files in a fixed order, told by content, and names for what comes out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

JPEG_SIGNATURE = b"\xff\xd8\xff"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
STEM_CHARACTERS = 80
"""A file name has at most 255 bytes; ours adds a number and an ending."""


class InputKind(StrEnum):
    """What a file is, by its first bytes; whatever is no picture is left to the DICOM reader to refuse."""

    DICOM = "dicom"
    PICTURE = "picture"


@dataclass(frozen=True, slots=True)
class Input:
    r"""One file, under the path that the caller wrote, continued below a folder.

    Bytes of a name that are no UTF-8 appear in `given` as \\xNN.
    """

    given: str
    path: Path


def kind_of(path: Path) -> InputKind:
    """Return whether `path` is a JPEG or PNG picture, or to be read as DICOM; raises OSError."""
    with path.open("rb") as stream:
        head = stream.read(len(PNG_SIGNATURE))
    is_picture = head.startswith(JPEG_SIGNATURE) or head == PNG_SIGNATURE
    return InputKind.PICTURE if is_picture else InputKind.DICOM


def list_inputs(paths: Iterable[str], out: Path) -> Iterator[Input]:
    """Yield every file of `paths`, folders recursed and sorted.

    Hidden files and a folder `out` inside another are left out. A path that does not exist is yielded too,
    for the reader to refuse by name.
    """
    for given in paths:
        root = Path(given)
        if not root.is_dir():
            yield Input(_printable(given), root)
            continue
        spared = out.resolve() if out.resolve() != root.resolve() else None
        for path in sorted(root.rglob("*")):
            below = path.relative_to(root)
            if path.is_file() and not _is_hidden(below) and spared not in path.resolve().parents:
                yield Input(_printable(os.path.join(given, below)), path)


def _printable(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


@dataclass(slots=True)
class OutputNames:
    """Gives every input its own stem, whatever the inputs are called; differs even where case is ignored."""

    _taken: set[str] = field(default_factory=set)

    def stem_for(self, path: Path) -> str:
        """Return the input's stem in safe characters, with a number where another input had it."""
        base = re.sub(r"[^A-Za-z0-9_-]+", "_", path.stem)[:STEM_CHARACTERS].strip("_") or "picture"
        stem, number = base, 1
        while stem.lower() in self._taken:
            number += 1
            stem = f"{base}-{number}"
        self._taken.add(stem.lower())
        return stem
