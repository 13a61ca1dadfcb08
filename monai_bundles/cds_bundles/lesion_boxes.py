"""Boxes of lesions that nobody outlined: those that the segmentation bundle finds, kept in a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from cds_bundles.digest import bundle_digest
from cds_bundles.index import Picture
from cds_bundles.lesion_crops import Box
from cds_bundles.picture_files import PictureFiles
from cds_bundles.predictors import load_predictor


def found_boxes(
    pictures: Iterable[Picture], bundle: Path, files: PictureFiles, kept: Path
) -> dict[Path, Box | None]:
    """The box of the first find in each picture, in the pixels that `files` gives; None where there is none.

    `bundle`: folder of the segmentation bundle. `kept`: a JSON file; what it says of an unchanged picture by
    the same bundle is not asked again.
    """
    digest = bundle_digest(bundle)
    known = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    names = {picture.path: _name(picture.path, digest) for picture in pictures}
    missing = [path for path, name in names.items() if name not in known]
    if missing:
        segmenter = load_predictor(bundle)
        for path in tqdm(missing, desc="looking for lesions", file=sys.stderr, mininterval=5):
            finds = segmenter(files.rgb(path))
            known[names[path]] = finds[0].bbox if finds else None
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(known), encoding="utf-8")
    return {path: _box(known[name]) for path, name in names.items()}


def _name(path: Path, digest: str) -> str:
    facts = path.stat()
    return f"{path} {facts.st_size} {facts.st_mtime_ns} {digest}"


def _box(found: list[int] | None) -> Box | None:
    if found is None:
        return None
    x0, y0, x1, y1 = (int(each) for each in found)
    return (x0, y0, x1, y1)
