"""What the segmenter reaches on held-out pictures and scenes; its score threshold is chosen without them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from .index import Picture
from .scene_artefacts import Mask, Rgb
from .scenes import Scene, compose, cover_with_skin, drawn_skin, through_dermatoscope
from .segmentation import LesionSegmenter
from .segmenter_data import Sources, read_lesion, read_rgb
from .segmenter_figures import Figure, dice, figure, iou, matched, whole_mask
from .segmenter_training import split_sources

SCENE_FRAME = (450, 600)
"""(height, width) of the scenes that figures are made on: a common whole frame."""
MOST_LESIONS = 6
ISIC_2017_TEST = "isic2017-test"
"""A hard part of Task 1: on all 600 of it the challenge's winner had a mean IoU of 0.765 (Yuan and Lo)."""
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(4, 20))


def multi_lesion_scenes(source: Sources, count: int, seed: int) -> Iterator[Scene]:
    """`count` scenes of one to six real lesions on real skin, all from one side of the split."""
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        skin = cover_with_skin(rng, source.empty_skin(rng), *SCENE_FRAME)
        yield through_dermatoscope(rng, compose(rng, skin, 1 + number % MOST_LESIONS, source.fragment))


def drawn_scenes(count: int, seed: int) -> Iterator[Scene]:
    """`count` scenes of one to six drawn lesions on drawn skin."""
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        skin = drawn_skin(rng, *SCENE_FRAME)
        yield through_dermatoscope(rng, compose(rng, skin, 1 + number % MOST_LESIONS, None))


def outlined(pictures: Iterable[Picture], most: int) -> Iterator[tuple[Rgb, Mask]]:
    """The first `most` of `pictures` with their masks."""
    for picture in list(pictures)[:most]:
        yield read_lesion(picture)


@dataclass(slots=True)
class SegmenterEvaluation:
    """`run()` prints the held-out figures and writes them to `report`."""

    data_root: str
    predictor: LesionSegmenter
    report: str
    scenes: int = 300
    ham10000_pictures: int = 200
    seed: int = 4711
    threads: int = 1

    def run(self) -> None:
        """Outlines, counts and false finds on the held-out side of the split."""
        torch.set_num_threads(self.threads)
        cv2.setNumThreads(1)
        _, held_out = split_sources(Path(self.data_root))
        figures: dict[str, Figure] = {}
        task1 = outlined(held_out.task1, len(held_out.task1))
        figures |= self.outlines(task1, "task1", "Task 1, fold 0")
        hard = [picture for picture in held_out.task1 if ISIC_2017_TEST in picture.official_split]
        figures |= self.outlines(outlined(hard, len(hard)), "task1_isic2017_test", "Task 1, fold 0, of it")
        ham10000 = outlined(held_out.ham10000, self.ham10000_pictures)
        figures |= self.outlines(ham10000, "ham10000", "HAM10000, fold 0")
        composed = multi_lesion_scenes(held_out, self.scenes, self.seed)
        figures |= self.counts(composed, "composed_scenes", "held-out lesions and skin")
        drawn = drawn_scenes(self.scenes // 4, self.seed + 1)
        figures |= self.counts(drawn, "drawn_scenes", "unseen seeds")
        figures |= self.false_finds(held_out)
        text = json.dumps({"score_threshold": self.predictor.score_threshold, "figures": figures}, indent=2)
        Path(self.report).parent.mkdir(parents=True, exist_ok=True)
        Path(self.report).write_text(text + "\n", encoding="utf-8")
        print(text)

    def outlines(self, cases: Iterable[tuple[Rgb, Mask]], name: str, split: str) -> dict[str, Figure]:
        """IoU and Dice of all finds together with the one annotated mask; nothing found counts 0."""
        overlaps, doubles, single = [], [], []
        for rgb, mask in cases:
            lesions = self.predictor(rgb)
            union = whole_mask(lesions, *mask.shape)
            overlaps.append(iou(union, mask))
            doubles.append(dice(union, mask))
            single.append(float(len(lesions) == 1))
        return {
            f"{name}_mean_iou": figure(overlaps, split, "picture"),
            f"{name}_mean_dice": figure(doubles, split, "picture"),
            f"{name}_exactly_one_found": figure(single, split, "picture"),
        }

    def counts(self, scenes: Iterable[Scene], name: str, split: str) -> dict[str, Figure]:
        """How often the number of lesions is right, and how well the single lesions are found."""
        right, overlaps, precise = [], [], []
        for scene in scenes:
            lesions = self.predictor(scene.rgb)
            found = matched(lesions, scene.masks)
            right.append(float(len(lesions) == len(scene.masks)))
            overlaps += found
            precise += [1.0] * sum(value > 0 for value in found)
            precise += [0.0] * (len(lesions) - sum(value > 0 for value in found))
        return {
            f"{name}_right_number": figure(right, split, "scene"),
            f"{name}_lesion_iou": figure(overlaps, split, "lesion, missed ones count 0"),
            f"{name}_sensitivity": figure([float(value > 0) for value in overlaps], split, "lesion"),
            f"{name}_precision": figure(precise, split, "find"),
        }

    def false_finds(self, source: Sources) -> dict[str, Figure]:
        """Share of pictures without a lesion in which something is found all the same."""
        skin = [float(bool(self.predictor(read_rgb(path)))) for path in source.skin]
        other = [float(bool(self.predictor(read_rgb(path)))) for path in source.nonskin]
        return {
            "background_skin_false_finds": figure(skin, "skin beside held-out lesions", "picture"),
            "nonskin_false_finds": figure(other, "photographs kept out of training", "picture"),
        }


@dataclass(slots=True)
class ThresholdChoice:
    """`run()` prints the share of right counts for each score threshold, on training-side cases only."""

    data_root: str
    predictor: LesionSegmenter
    cases: int = 240
    seed: int = 815
    threads: int = 1

    def run(self) -> None:
        """One JSON line a threshold: composed scenes, drawn scenes, single real lesions and empty skin."""
        torch.set_num_threads(self.threads)
        training, _ = split_sources(Path(self.data_root))
        kinds: dict[str, list[Scene]] = {
            "composed": list(multi_lesion_scenes(training, self.cases, self.seed)),
            "drawn": list(drawn_scenes(self.cases // 3, self.seed)),
            "single": [Scene(rgb, (mask,)) for rgb, mask in outlined(training.task1, self.cases)],
            "empty": [Scene(read_rgb(path), ()) for path in training.skin],
        }
        best = {kind: [self._right(scene) for scene in scenes] for kind, scenes in kinds.items()}
        for index, threshold in enumerate(THRESHOLDS):
            shares = {kind: _share([row[index] for row in rows]) for kind, rows in best.items()}
            print(json.dumps({"score_threshold": threshold, "right_number": shares}), flush=True)

    def _right(self, scene: Scene) -> list[bool]:
        """Whether the number of finds is right, for each of THRESHOLDS."""
        height, width = self.predictor.frame_size(*scene.rgb.shape[:2])
        finds = self.predictor.candidates(scene.rgb)
        right = []
        for threshold in THRESHOLDS:
            self.predictor.score_threshold = threshold
            right.append(len(self.predictor.select(finds, height, width)) == len(scene.masks))
        return right


def _share(right: list[bool]) -> float:
    return round(float(np.mean(right)), 3)
