"""Lesions that nobody outlined are found by the segmentation bundle, once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_collection import index_of

from cds_bundles.classifier_data import labelled_lesions
from cds_bundles.digest import shipped_bundles
from cds_bundles.index import read_index
from cds_bundles.lesion_boxes import found_boxes
from cds_bundles.lesion_crops import Box, mask_box
from cds_bundles.picture_files import PictureFiles, read_mask

pytestmark = pytest.mark.slow

BUNDLE = "dermoscopy_lesion_segmentation"


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    sides = [min(one[axis + 2], other[axis + 2]) - max(one[axis], other[axis]) for axis in (0, 1)]
    shared = max(0, sides[0]) * max(0, sides[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def test_boxes_are_found_once_and_fit_the_lesions(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    outlined = read_index(index_of(tmp_path, lesions=15, pictures_of_each=1))[:4]
    bare = [replace(picture, mask_path=None) for picture in outlined]
    assert labelled_lesions(bare) == ()
    bundle, kept = shipped_bundles()[BUNDLE], tmp_path / "run" / "boxes.json"
    boxes = found_boxes(bare, bundle, PictureFiles(), kept)
    lesions = labelled_lesions(bare, boxes=boxes)
    assert [lesion.picture.path for lesion in lesions] == [picture.path for picture in outlined]
    for lesion, picture in zip(lesions, outlined, strict=True):
        assert picture.mask_path is not None
        truth = mask_box(read_mask(picture.mask_path))
        assert truth is not None and overlap(lesion.bbox, truth) > 0.5
    told = json.loads(kept.read_text())
    kept.write_text(json.dumps({name: [1, 2, 30, 40] for name in told}))
    assert set(found_boxes(bare, bundle, PictureFiles(), kept).values()) == {(1, 2, 30, 40)}
    outlined[0].path.touch()
    again = found_boxes(bare[:1], bundle, PictureFiles(), kept)
    assert again[bare[0].path] == boxes[bare[0].path]
