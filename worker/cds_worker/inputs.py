"""What `analyze` was pointed at: files in a fixed order, told apart by content, and names for what comes out."""

from __future__ import annotations

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
    """One file: `given` is the path as the caller wrote it, continued below a folder."""

    given: str
    path: Path


def kind_of(path: Path) -> InputKind:
    """Return whether `path` is a JPEG or PNG picture, or to be read as DICOM; raises OSError."""
    with path.open("rb") as stream:
        head = stream.read(len(PNG_SIGNATURE))
    is_picture = head.startswith(JPEG_SIGNATURE) or head == PNG_SIGNATURE
    return InputKind.PICTURE if is_picture else InputKind.DICOM


def list_inputs(paths: Iterable[Path], out: Path) -> Iterator[Input]:
    """Yield every file of `paths`, folders recursed and sorted; hidden files and those below `out` are left out.

    A path that does not exist is yielded too, for the reader to refuse by name.
    """
    for given in paths:
        if not given.is_dir():
            yield Input(str(given), given)
            continue
        for path in sorted(given.rglob("*")):
            if path.is_file() and not _is_hidden(path.relative_to(given)) and not _is_below(path, out):
                yield Input(str(path), path)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


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
