"""Which pictures the segmenter learns from, and which are kept from it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from .index import (
    BACKGROUND_SKIN,
    HAM10000,
    HELD_OUT_FOLD,
    NO_LESION,
    NO_SKIN,
    NON_SKIN,
    TASK1,
    Picture,
    index_file,
    read_index,
    split,
    validation_part,
)
from .near_duplicates import CORRELATION, closest, thumbnails
from .picture_files import PictureFiles
from .scene_artefacts import Random, Rgb
from .scenes import Fragment, cut_fragment, lesion_free_part

LARGEST_FRAGMENT_SHARE = 0.55
"""Fragments cover at most this share of the picture they come from: the rest is needed as margin."""
DRAWS = 200
"""Random pictures looked at before a source is given up as unsuitable."""


class NoneSuitable(LookupError):
    """Among many pictures there was none with what was looked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Sources:
    """One side of the split: outlined pictures by collection, lesion-free skin, other photographs."""

    collections: tuple[tuple[Picture, ...], ...]
    skin: tuple[Path, ...]
    nonskin: tuple[Path, ...]
    weights: tuple[float, ...] = ()
    """How often real frames come from each collection, against each other; equally often where not given."""
    files: PictureFiles = field(default_factory=PictureFiles)

    def fingerprint(self) -> str:
        """How many pictures, and a digest of their names: two runs that learn from the same have the same."""
        names = [p.isic_id or p.path.name for each in self.collections for p in each]
        digest = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]
        return f"{len(names)} pictures {digest}"

    def weighted(self, by_source: Mapping[str, float]) -> Sources:
        """The same, with real frames drawn as often as `by_source` says, against 1 for those not named."""
        weights = tuple(by_source.get(each[0].source, 1.0) for each in self.collections)
        return replace(self, weights=weights)

    def of_source(self, name: str) -> tuple[Picture, ...]:
        """The outlined pictures of one collection; none where it is not there."""
        return next((each for each in self.collections if each[0].source == name), ())

    @property
    def task1(self) -> tuple[Picture, ...]:
        """The outlined pictures of ISIC 2018 Task 1."""
        return self.of_source(TASK1)

    @property
    def ham10000(self) -> tuple[Picture, ...]:
        """The outlined pictures of HAM10000."""
        return self.of_source(HAM10000)

    def fragment(self, rng: Random) -> Fragment:
        """A lesion wholly in view, cut from a random picture; `NoneSuitable` where hardly any has one."""
        for _ in range(DRAWS):
            rgb, mask = self.files.lesion(self.lesion(rng))
            cut = cut_fragment(rgb, mask) if mask.mean() < LARGEST_FRAGMENT_SHARE else None
            if cut is not None:
                return cut
        raise NoneSuitable(f"{DRAWS} pictures without a lesion wholly in view")

    def lesion(self, rng: Random) -> Picture:
        """A random outlined picture, as often from one collection as from the others."""
        pool = self.collections[int(rng.integers(len(self.collections)))]
        return pool[int(rng.integers(len(pool)))]

    def frame(self, rng: Random) -> Picture:
        """A random outlined picture, the collections by their weights."""
        weights = np.array(self.weights or [1.0] * len(self.collections))
        pool = self.collections[int(rng.choice(len(weights), p=weights / weights.sum()))]
        return pool[int(rng.integers(len(pool)))]

    def empty_skin(self, rng: Random) -> Rgb:
        """Skin without a lesion: a background picture, or what lies beside a lesion; else `NoneSuitable`."""
        if self.skin and rng.random() < 0.6:
            return self.files.rgb(self.skin[int(rng.integers(len(self.skin)))])
        for _ in range(DRAWS):
            part = lesion_free_part(*self.files.lesion(self.lesion(rng)))
            if part is not None:
                return part
        raise NoneSuitable(f"{DRAWS} pictures without enough skin beside the lesion")


class NothingOutlined(ValueError):
    """The index leaves no outlined lesion on the training side."""


def split_sources(
    data: Path, fold: int = HELD_OUT_FOLD, files: PictureFiles | None = None
) -> tuple[Sources, Sources]:
    """(training, held-out) sources of the index `data`; look-alikes leave the training side."""
    files = files or PictureFiles()
    every = read_index(index_file(data))
    training, held_out = split((p for p in every if p.is_dermoscopy and p.mask_path is not None), fold)
    if not training:
        raise NothingOutlined(
            f"{data}: no outlined lesion to train on; needed are pictures with a mask in mask_path, "
            f"in folds other than {fold}"
        )
    distinct = without_duplicates(training, held_out, files)
    training_side, held_out_side = sources(distinct, held_out, every)
    return replace(training_side, files=files), replace(held_out_side, files=files)


def sources(
    training: Sequence[Picture], held_out: Sequence[Picture], every: Sequence[Picture]
) -> tuple[Sources, Sources]:
    """(training, held-out); background skin goes where its parent picture is, other photographs alternate."""
    held_out_ids = {picture.isic_id for picture in held_out}
    skin = [p.path for p in every if p.source == BACKGROUND_SKIN or p.dx == NO_LESION]
    other = sorted(p.path for p in every if p.source == NON_SKIN or p.dx == NO_SKIN)
    train_skin = tuple(path for path in skin if parent_of(path) not in held_out_ids)
    test_skin = tuple(path for path in skin if parent_of(path) in held_out_ids)
    return (
        Sources(_collections(training), train_skin, tuple(other[0::2])),
        Sources(_collections(held_out), test_skin, tuple(other[1::2])),
    )


def validation_sources(training: Sources, share: float, seed: int) -> tuple[Sources, Sources]:
    """`training` in two: what is trained on, and about `share` of the pictures for looking on the way.

    Skin goes where its parent picture is; photographs of something else are only trained on.
    """
    every = [picture for collection in training.collections for picture in collection]
    rest, looked_at = validation_part(every, share, seed)
    names = {picture.isic_id for picture in looked_at}
    skin = tuple(path for path in training.skin if parent_of(path) in names)
    return (
        replace(
            training, collections=_collections(rest), skin=tuple(p for p in training.skin if p not in skin)
        ),
        replace(training, collections=_collections(looked_at), skin=skin, nonskin=()),
    )


def _collections(pictures: Sequence[Picture]) -> tuple[tuple[Picture, ...], ...]:
    """The outlined ones by source; Task 1 first, then in the order in which they come."""
    by_source: dict[str, list[Picture]] = {}
    for picture in pictures:
        if picture.mask_path is not None:
            by_source.setdefault(picture.source, []).append(picture)
    return tuple(tuple(by_source[name]) for name in sorted(by_source, key=lambda name: name != TASK1))


def parent_of(background: Path) -> str:
    """Name of the picture that a background was cut from: `collection__NAME.jpg`."""
    return background.stem.rpartition("__")[2]


def without_duplicates(
    training: Sequence[Picture], held_out: Sequence[Picture], files: PictureFiles | None = None
) -> tuple[Picture, ...]:
    """`training` without what looks like a held-out picture under another name."""
    if not held_out:
        return tuple(training)
    read = (files or PictureFiles()).rgb
    ours, theirs = (thumbnails((picture.path for picture in side), read) for side in (training, held_out))
    likeness = closest(ours, theirs)
    return tuple(p for p, like in zip(training, likeness, strict=True) if like < CORRELATION)
