"""One call makes one study with one series, an instance per picture."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

from pydicom.uid import UID

from cds_plugin.decoder import Decoder
from cds_plugin.dicomize.facts import Facts
from cds_plugin.dicomize.objects import SeriesIdentity, build_object, new_uid
from cds_plugin.errors import Unavailable

MAX_PIXELS = 120_000_000
"""As `worker.max_pixels` by default."""
SUFFIXES = frozenset((".jpg", ".jpeg", ".png"))


class Dicomizer:
    """Adds pictures, one by one, to one series of one study in the folder `out`."""

    def __init__(
        self, out: Path, decoder: Decoder, facts: Facts | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        self._out = out
        self._decoder = decoder
        self._facts = facts or Facts()
        self._max_pixels = max_pixels
        self._series = _new_series(self._facts)
        self._stems: set[str] = set()

    @property
    def study_instance_uid(self) -> UID:
        """Return the study that every picture goes to."""
        return self._series.study_instance_uid

    def add(self, image: Path, stem: str | None = None) -> Path:
        """Write `<stem>.dcm` (default: the image's own stem, numbered where taken) and return its path.

        Raises Refused where the file is no usable picture, Unavailable where it cannot be read or written.
        """
        picture = self._decoder.decode_picture(image, self._max_pixels)
        number = len(self._stems) + 1
        dataset = build_object(picture, image.stat().st_size, number, self._series, self._facts)
        target = self._out / f"{self._free_stem(stem or image.stem)}.dcm"
        partial = target.with_suffix(".partial")
        try:
            self._out.mkdir(parents=True, exist_ok=True)
            dataset.save_as(partial, enforce_file_format=True)
            partial.replace(target)
        except OSError as error:
            raise Unavailable(
                "cannot_write", f"{self._out}: {os.strerror(error.errno or 0)}.", "Check the folder."
            ) from error
        return target

    def _free_stem(self, stem: str) -> str:
        free, number = stem, 1
        while free.lower() in self._stems:
            number += 1
            free = f"{stem}-{number}"
        self._stems.add(free.lower())
        return free


def dicomize(
    images: Sequence[Path],
    out: Path,
    facts: Facts | None = None,
    *,
    decoder: Decoder | None = None,
    max_pixels: int = MAX_PIXELS,
) -> list[Path]:
    """Return the DICOM files made of `images`, in their order; the first picture that is refused ends it.

    Colours stay as they are: an embedded ICC profile is carried over. A baseline JPEG that stands upright
    keeps its compressed pixels, without EXIF and other metadata; all else is stored uncompressed.
    """
    with ExitStack() as stack:
        dicomizer = Dicomizer(out, decoder or stack.enter_context(Decoder()), facts, max_pixels)
        return [dicomizer.add(image) for image in images]


def find_pictures(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files of `paths`, folders replaced by the JPEG and PNG files below them, sorted."""
    for path in paths:
        if path.is_dir():
            yield from sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES)
        else:
            yield path


def _new_series(facts: Facts) -> SeriesIdentity:
    study = UID(facts.study.instance_uid) if facts.study.instance_uid else new_uid()
    patient_id = facts.patient.id or f"CDS-{study[-12:].replace('.', '')}"
    return SeriesIdentity(study, new_uid(), patient_id, facts.study.at or datetime.now().astimezone())
