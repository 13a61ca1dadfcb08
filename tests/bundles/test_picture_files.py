"""Pictures that were decoded once are the same pictures, until their files change."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_collection import index_of

from cds_bundles.index import Picture, read_index
from cds_bundles.picture_files import (
    LONGEST_SIDE,
    PIXELS,
    PictureFiles,
    UnreadablePicture,
    decoded,
    read_lesion,
    read_rgb,
)


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Picture, ...]:
    return read_index(index_of(tmp_path, lesions=18, pictures_of_each=1))


def test_kept_pictures_and_masks_are_those_of_the_files(
    pictures: tuple[Picture, ...], tmp_path: Path
) -> None:
    files = decoded(pictures, tmp_path / "cache", 1.0)
    assert len(files.places) == len(pictures)
    for picture in pictures:
        rgb, mask = read_lesion(picture)
        kept, kept_mask = files.lesion(picture)
        assert np.array_equal(kept, rgb) and np.array_equal(kept_mask, mask)
        assert np.array_equal(files.mask(picture), mask)
        assert np.array_equal(files.rgb(picture.path), rgb)


def test_what_is_kept_is_used_until_a_file_changes(pictures: tuple[Picture, ...], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    decoded(pictures, cache, 1.0)
    (folder,) = cache.iterdir()
    made = (folder / PIXELS).stat().st_mtime_ns
    decoded(pictures, cache, 1.0)
    assert [each.name for each in cache.iterdir()] == [folder.name]
    assert (folder / PIXELS).stat().st_mtime_ns == made
    changed = pictures[3].path
    cv2.imwrite(str(changed), np.full((96, 96, 3), 7, np.uint8))
    os.utime(changed, ns=(1, 1))
    files = decoded(pictures, cache, 1.0)
    assert (files.rgb(changed) == 7).all()
    (only,) = cache.iterdir()
    assert only.name != folder.name


def test_no_more_is_kept_than_allowed_and_the_rest_is_read(
    pictures: tuple[Picture, ...], tmp_path: Path
) -> None:
    files = decoded(pictures, tmp_path / "cache", 100_000 / 1e9)
    assert 0 < len(files.places) < len(pictures)
    assert sum(each.stat().st_size for each in (tmp_path / "cache").rglob(PIXELS)) <= 100_000
    for picture in pictures:
        assert np.array_equal(files.rgb(picture.path), read_rgb(picture.path))
        assert np.array_equal(files.lesion(picture)[1], read_lesion(picture)[1])
    assert not decoded(pictures, tmp_path / "none", 0).places
    assert not (tmp_path / "none").exists()


def test_large_pictures_are_kept_smaller_with_their_masks(
    pictures: tuple[Picture, ...], tmp_path: Path
) -> None:
    large = cv2.resize(cv2.imread(str(pictures[0].path)), (1600, 1200))
    cv2.imwrite(str(pictures[0].path), large)
    kept, direct = decoded(pictures, tmp_path / "cache", 1.0), PictureFiles()
    for files in (kept, direct):
        rgb, mask = files.lesion(pictures[0])
        assert rgb.shape == (480, LONGEST_SIDE, 3) and mask.shape == (480, LONGEST_SIDE)
    assert np.array_equal(kept.rgb(pictures[0].path), direct.rgb(pictures[0].path))
    assert np.array_equal(kept.mask(pictures[0]), direct.mask(pictures[0]))


def test_a_file_that_is_no_picture_is_named(pictures: tuple[Picture, ...], tmp_path: Path) -> None:
    pictures[2].path.write_text("no picture")
    with pytest.raises(UnreadablePicture, match=pictures[2].path.name):
        decoded(pictures, tmp_path / "cache", 1.0)
