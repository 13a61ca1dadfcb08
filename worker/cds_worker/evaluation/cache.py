"""Observations on disk, a line each, so that an interrupted evaluation goes on where it ended.

The key is the content of picture and mask, the digests of the bundles, and whatever else changes an answer.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import numpy as np

from cds_bundles.skin_tone import SkinTone
from cds_plugin.errors import Refused
from cds_plugin.study import BoundingBox, Lesion, LesionClass, Mask, Quality, Verdict
from cds_worker.evaluation.cases import Case
from cds_worker.evaluation.observing import Observation

FORMAT = "2"
"""Raised when a line, or how its content is made, changes."""

Line = dict[str, Any]
_BROKEN = (ValueError, LookupError, TypeError, zlib.error)


def key_of(case: Case, circumstances: Sequence[str]) -> str:
    """Return what an observation of `case` is kept under; raises Refused where the picture can't be read.

    `circumstances` are the bundle digests and settings that the answer depends on.
    """
    mask = _digest(case.mask_path) if case.mask_path is not None and case.mask_path.is_file() else ""
    parts = (FORMAT, _digest(case.path), mask, *circumstances)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise Refused("unreadable_file", f"{error.strerror}.", "Correct the column path.") from error


class Cache:
    """The lines of one file; a line that was cut off by an interruption is left out and made again."""

    def __init__(self, path: Path, fresh: bool = False) -> None:
        """Open the file at `path` on entering; `fresh` forgets what it holds."""
        self._path = path
        self._fresh = fresh
        self._known: dict[str, Line] = {}
        self._stream: TextIO | None = None

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._known = {} if self._fresh else _read(self._path)
            self._stream = self._path.open("w" if self._fresh else "a", encoding="utf-8")
            if self._path.stat().st_size and not _ends_a_line(self._path):
                self._stream.write("\n")
        except OSError as error:
            raise _unwritable(self._path, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def get(self, key: str) -> Observation | None:
        """Return what was kept under `key`; None where there is nothing, or nothing whole."""
        line = self._known.get(key)
        try:
            return None if line is None else _observation(line)
        except _BROKEN:
            return None

    def put(self, key: str, observation: Observation) -> None:
        """Keep `observation` from this moment on, whatever happens to the process."""
        if self._stream is None:
            raise ValueError("the cache is not open")
        try:
            self._stream.write(json.dumps({"key": key, **_line(observation)}, separators=(",", ":")) + "\n")
            self._stream.flush()
        except OSError as error:
            raise _unwritable(self._path, error) from error


def _read(path: Path) -> dict[str, Line]:
    known: dict[str, Line] = {}
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as stream:
            for text in stream:
                try:
                    line = json.loads(text)
                    known[line["key"]] = line
                except _BROKEN:
                    continue
    return known


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(-1, 2)
        return stream.read() == b"\n"


def _unwritable(path: Path, error: OSError) -> Refused:
    return Refused("output_folder", f"{path}: {error.strerror}.", "Choose another --out, or make room.")


def _line(observation: Observation) -> Line:
    quality = observation.quality
    return {
        "rows": observation.rows,
        "columns": observation.columns,
        "verdict": quality.verdict.value,
        "reasons": list(quality.reasons),
        "psnr_db": quality.psnr_db,
        "defect": quality.defect,
        "tone": list(observation.tone),
        "lesions": [_lesion_line(each) for each in observation.lesions],
    }


def _lesion_line(lesion: Lesion) -> Line:
    return {
        "bbox": lesion.bbox.as_list(),
        "mask": base64.b64encode(zlib.compress(np.packbits(lesion.mask).tobytes())).decode(),
        "score": lesion.score,
        "probabilities": list(lesion.probabilities),
        "prediction_set": [each.value for each in lesion.prediction_set],
        "ood_score": lesion.ood_score,
    }


def _observation(line: Line) -> Observation:
    return Observation(
        rows=line["rows"],
        columns=line["columns"],
        quality=Quality(
            Verdict(line["verdict"]), tuple(line["reasons"]), line["psnr_db"], defect=line["defect"]
        ),
        lesions=tuple(_lesion(each, number) for number, each in enumerate(line["lesions"], start=1)),
        tone=SkinTone(*line["tone"]),
    )


def _lesion(line: Line, number: int) -> Lesion:
    bbox = BoundingBox(*line["bbox"])
    return Lesion(
        number,
        bbox,
        _mask(line["mask"], bbox),
        line["score"],
        tuple(line["probabilities"]),
        tuple(LesionClass(each) for each in line["prediction_set"]),
        line["ood_score"],
    )


def _mask(text: str, bbox: BoundingBox) -> Mask:
    bits = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    flat = np.unpackbits(bits, count=bbox.height * bbox.width)
    return flat.reshape(bbox.height, bbox.width).astype(np.bool_)
