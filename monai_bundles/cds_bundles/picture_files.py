"""Pictures and masks as arrays: read from their files, or from a copy that was decoded once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cds_bundles.index import Picture
from cds_bundles.resize import resize_rgb

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]

LONGEST_SIDE = 640
"""Larger pictures are kept at this many pixels: the networks see at most 450."""
GIGABYTE = 1_000_000_000
PIXELS, ROWS = "pixels.u8", "rows.json"
LAYOUT = "1"
"""Of the two files; a change makes kept ones stale."""


class UnreadablePicture(FileNotFoundError, ValueError):
    """A picture or mask that the index names can't be read."""


def read_rgb(path: Path) -> Rgb:
    """The picture at `path` as (H, W, 3) uint8 sRGB."""
    rgb = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if rgb is None:
        raise UnreadablePicture(f"{path} can't be read as a picture")
    return rgb.astype(np.uint8, copy=False)


def read_mask(path: Path) -> Mask:
    """The mask at `path` as boolean (H, W): lesion where it is above half of its range."""
    grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise UnreadablePicture(f"{path} can't be read as a mask")
    return np.asarray(grey > 127)


def read_lesion(picture: Picture) -> tuple[Rgb, Mask]:
    """A picture and its lesion's mask, of one size; ValueError where it has none."""
    if picture.mask_path is None:
        raise ValueError(f"{picture.path} has no mask")
    rgb, mask = read_rgb(picture.path), read_mask(picture.mask_path)
    return rgb, _at_size(mask, rgb.shape[1], rgb.shape[0])


def _at_size(mask: Mask, width: int, height: int) -> Mask:
    if mask.shape == (height, width):
        return mask
    grey = np.where(mask, 255, 0).astype(np.uint8)
    kernel = cv2.INTER_AREA if mask.shape[1] > width else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(grey, (width, height), interpolation=kernel) > 127)


class Place(NamedTuple):
    """Where a picture lies in the file of pixels; its mask, if it has one, follows as bits."""

    offset: int
    height: int
    width: int
    masked: bool


@dataclass(frozen=True, slots=True, eq=False)
class PictureFiles:
    """Pictures at most LONGEST_SIDE long: out of one file of raw bytes, else out of their own."""

    places: Mapping[str, Place] = field(default_factory=dict)
    pixels: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))

    @classmethod
    def kept_in(cls, folder: Path) -> PictureFiles:
        """What `decoded` wrote there."""
        rows = json.loads((folder / ROWS).read_text(encoding="utf-8"))
        places = {path: Place(*fields) for path, fields in rows.items()}
        return cls(places, np.memmap(folder / PIXELS, np.uint8, "r")) if places else cls()

    def rgb(self, path: Path) -> Rgb:
        """The picture at `path` as (H, W, 3) uint8 sRGB."""
        place = self.places.get(str(path))
        return _reduced(read_rgb(path)) if place is None else self._rgb(place)

    def lesion(self, picture: Picture) -> tuple[Rgb, Mask]:
        """A picture and its lesion's mask, of one size; ValueError where it has none."""
        place = self.places.get(str(picture.path))
        if place is None or not place.masked:
            return _reduced_lesion(picture)
        return self._rgb(place), self._mask(place)

    def mask(self, picture: Picture) -> Mask:
        """The mask alone, at the picture's size."""
        place = self.places.get(str(picture.path))
        return self._mask(place) if place and place.masked else _reduced_lesion(picture)[1]

    def _rgb(self, place: Place) -> Rgb:
        end = place.offset + 3 * place.height * place.width
        return np.array(self.pixels[place.offset : end]).reshape(place.height, place.width, 3)

    def _mask(self, place: Place) -> Mask:
        area = place.height * place.width
        first = place.offset + 3 * area
        bits = np.unpackbits(self.pixels[first : first + (area + 7) // 8], count=area)
        return bits.reshape(place.height, place.width).astype(np.bool_)


def decoded(pictures: Iterable[Picture], cache: Path, most_gigabytes: float) -> PictureFiles:
    """`pictures` out of a folder in `cache` that is made anew whenever one of their files has changed.

    At most `most_gigabytes` are written, and folders of an earlier state are removed; 0 keeps nothing.
    """
    every = tuple(pictures)
    if not most_gigabytes:
        return PictureFiles()
    folder = cache / state_of(every)
    if not (folder / ROWS).is_file():
        scratch = cache / f"{folder.name}.{os.getpid()}.new"
        _write(every, scratch, int(most_gigabytes * GIGABYTE))
        for old in cache.iterdir():
            if old != scratch:
                shutil.rmtree(old)
        scratch.rename(folder)
    return PictureFiles.kept_in(folder)


def state_of(pictures: Iterable[Picture]) -> str:
    """A digest of the pictures' and masks' names, sizes and times of change."""
    digest = hashlib.sha256(f"{LAYOUT} {LONGEST_SIDE}".encode())
    for path in (path for each in pictures for path in (each.path, each.mask_path) if path):
        facts = path.stat()
        digest.update(f"\n{path} {facts.st_size} {facts.st_mtime_ns}".encode())
    return digest.hexdigest()[:24]


def _write(pictures: tuple[Picture, ...], folder: Path, most_bytes: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    places: dict[str, Place] = {}
    offset = 0
    with (folder / PIXELS).open("wb") as stream:
        for picture in tqdm(pictures, desc="decoding once", file=sys.stderr, mininterval=5):
            block, height, width = _block(picture)
            if offset + len(block) <= most_bytes:
                stream.write(block)
                places[str(picture.path)] = Place(offset, height, width, picture.mask_path is not None)
                offset += len(block)
    (folder / ROWS).write_text(json.dumps(places), encoding="utf-8")


def _block(picture: Picture) -> tuple[bytes, int, int]:
    if picture.mask_path is None:
        rgb = _reduced(read_rgb(picture.path))
        return rgb.tobytes(), *rgb.shape[:2]
    rgb, mask = _reduced_lesion(picture)
    return rgb.tobytes() + np.packbits(mask).tobytes(), *rgb.shape[:2]


def _reduced_lesion(picture: Picture) -> tuple[Rgb, Mask]:
    rgb, mask = read_lesion(picture)
    rgb = _reduced(rgb)
    return rgb, _at_size(mask, rgb.shape[1], rgb.shape[0])


def _reduced(rgb: Rgb) -> Rgb:
    height, width = rgb.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale >= 1:
        return rgb
    return resize_rgb(rgb, max(1, round(width * scale)), max(1, round(height * scale)))
