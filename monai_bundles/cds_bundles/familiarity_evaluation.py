"""Does a classifier notice what it never learned? Held-out lesions against pictures of other kinds."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from cds_bundles.classification import LesionClassifier
from cds_bundles.index import HAM10000, SMARTPHONE, Picture, from_source, patient_of, read_index, split
from cds_bundles.lesion_crops import Box, Rgb, mask_box
from cds_bundles.metric_ranking import roc_auc
from cds_bundles.metric_resampling import Measure, estimates
from cds_bundles.metric_shares import share
from cds_bundles.segmenter_data import Sources, drawn_scene, read_lesion, read_rgb
from cds_bundles.segmenter_sources import split_sources

SEED = 31
SPLIT = (
    "HAM10000 fold 0, one picture a lesion, against every smartphone photograph (by patient), the held-out "
    "everyday photographs, drawn scenes, and skin beside held-out lesions"
)
FAMILIAR = "ham10000_fold_0"
DRAWN_FRAME = (300, 400)
"""(height, width) of a drawn picture."""
HIGH_SHARE = 0.95
"""An `ood_score` above this is reported: 5 % of held-out lesions have one."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A picture (H, W, 3), the box that is looked at, and what it has in common with others of its kind."""

    rgb: Rgb
    bbox: Box
    group: str


@dataclass(frozen=True, slots=True)
class Strangeness:
    """What the classifier says of one picture: three scores, higher for what is stranger."""

    group: str
    ood_score: float
    """The shipped one, 0 to 1."""
    distance: float
    """Of the features from those of training lesions, without an upper end."""
    energy: float
    """Minus the log of the summed exponentials of the logits (Liu et al., NeurIPS 2020)."""


SCORES = ("ood_score", "distance", "energy")


@dataclass(slots=True)
class FamiliarityEvaluation:
    """`run()` measures how well `predictor` tells held-out lesions from other pictures; writes `report`."""

    data_root: str
    predictor: LesionClassifier
    report: str
    lesions: int = 500
    """Held-out lesions that are looked at, drawn by lot."""
    drawn: int = 100
    threads: int = 1

    def run(self) -> dict[str, Any]:
        """AUC of each score and the share above `HIGH_SHARE`, for each kind of picture, with intervals."""
        torch.set_num_threads(self.threads)
        root = Path(self.data_root)
        familiar = self._see(FAMILIAR, held_out_lesions(root, self.lesions))
        kinds = other_pictures(root, self.drawn)
        figures: dict[str, Any] = {"split": SPLIT, FAMILIAR: shares(familiar)}
        for name, pictures in kinds.items():
            figures[name] = told_apart(familiar, self._see(name, pictures))
        Path(self.report).parent.mkdir(parents=True, exist_ok=True)
        Path(self.report).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(figures, indent=2))
        return figures

    def _see(self, name: str, pictures: Iterable[Shown]) -> list[Strangeness]:
        return [strangeness(self.predictor, each) for each in tqdm(pictures, desc=name, file=sys.stderr)]


def strangeness(predictor: LesionClassifier, shown: Shown) -> Strangeness:
    """The three scores of one picture."""
    logits, features = predictor.look(shown.rgb, [shown.bbox])
    distance, score = predictor.familiarity.distance(features), predictor.familiarity.ood_scores(features)
    energy = -np.logaddexp.reduce(logits[0].mean(axis=0).astype(np.float64))
    return Strangeness(shown.group, float(score[0]), float(distance[0]), float(energy))


def told_apart(familiar: Sequence[Strangeness], strange: Sequence[Strangeness]) -> dict[str, Any]:
    """AUC of each of SCORES, `strange` against `familiar`, with intervals over groups; then `shares`."""
    every = [*familiar, *strange]
    is_strange = np.arange(len(every)) >= len(familiar)
    measures = {
        f"auc_{name}": roc_auc(is_strange, np.array([getattr(each, name) for each in every]))
        for name in SCORES
    }
    figures = _with_intervals(measures, every)
    return {name: each | {"n_strange": len(strange)} for name, each in figures.items()} | shares(strange)


def shares(rows: Sequence[Strangeness]) -> dict[str, Any]:
    """The share whose `ood_score` is above `HIGH_SHARE`, with its interval."""
    high = np.array([each.ood_score > HIGH_SHARE for each in rows])
    return _with_intervals({f"ood_score_above_{HIGH_SHARE}": share(high)}, rows)


def _with_intervals(measures: Mapping[str, Measure], rows: Sequence[Strangeness]) -> dict[str, Any]:
    found = estimates(measures, [each.group for each in rows], SPLIT)
    return {name: each.as_json() for name, each in found.items()}


def held_out_lesions(root: Path, count: int) -> Iterator[Shown]:
    """Up to `count` pictures of HAM10000's fold 0, no two of one lesion, with the box of the mask."""
    pictures = from_source(split(from_source(read_index(root / "index.csv"), HAM10000))[1], HAM10000)
    one_a_lesion = list({picture.lesion_id: picture for picture in pictures}.values())
    order = np.random.default_rng(SEED).permutation(len(one_a_lesion))[:count]
    return (_outlined(one_a_lesion[place], one_a_lesion[place].lesion_id) for place in order)


def other_pictures(root: Path, drawn: int) -> dict[str, Iterable[Shown]]:
    """What is no dermoscopy of a lesion, by kind. The classifier has learned from none of it."""
    smartphone = from_source(read_index(root / "index.csv"), SMARTPHONE)
    held_out: Sources = split_sources(root)[1]
    return {
        "smartphone_photograph": (_outlined(each, patient_of(each)) for each in smartphone),
        "non_skin": (_middle(read_rgb(path), path.stem) for path in held_out.nonskin),
        "drawn": (_drawn(number) for number in range(drawn)),
        "bare_skin": (_middle(read_rgb(path), path.stem) for path in held_out.skin),
    }


def _outlined(picture: Picture, group: str) -> Shown:
    rgb, mask = read_lesion(picture)
    box = mask_box(mask)
    return _middle(rgb, group) if box is None else Shown(rgb, box, group)


def _middle(rgb: Rgb, group: str) -> Shown:
    """The middle half, where a lesion would be."""
    rows, columns = rgb.shape[:2]
    return Shown(rgb, (columns // 4, rows // 4, max(1, 3 * columns // 4), max(1, 3 * rows // 4)), group)


def _drawn(number: int) -> Shown:
    scene = drawn_scene(np.random.default_rng((SEED, number)), *DRAWN_FRAME)
    box = mask_box(scene.masks[0]) if scene.masks else None
    name = f"drawn_{number}"
    return _middle(scene.rgb, name) if box is None else Shown(scene.rgb, box, name)
