"""What the segmenter reaches on held-out pictures and scenes; its score threshold is chosen without them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from .index import Picture
from .metric_instances import Finds, average_precision
from .metric_instances import matched as taken_by
from .metric_overlap import boundary_f1, dice, iou, thresholded_jaccard
from .metric_resampling import estimates
from .scene_artefacts import Mask, Rgb
from .scenes import Scene, compose, cover_with_skin, drawn_skin, through_dermatoscope
from .segmentation import LesionInstance, LesionSegmenter
from .segmenter_data import Sources, read_lesion, read_rgb
from .segmenter_figures import Figure, figure, matched, whole_mask
from .segmenter_sources import split_sources
from .skin_tone import skin_tone

SCENE_FRAME = (450, 600)
"""(height, width) of the scenes that figures are made on: a common whole frame."""
MOST_LESIONS = 6
ISIC_2017_TEST = "isic2017-test"
"""A hard part of Task 1: on all 600 of it the challenge's winner had a mean IoU of 0.765 (Yuan and Lo)."""
LEAST_OF_A_TONE = 20
"""Pictures; fewer of a skin tone get no figure of their own."""
LEAST_IOUS = {"ap50": 0.50, "ap75": 0.75}
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


@dataclass(frozen=True, slots=True)
class OutlineRow:
    """How well the outlines of one picture agree with its mask."""

    iou: float
    dice: float
    boundary_f1: float
    finds: int
    tone: str
    """Of the skin beside the lesion, as `skin_tone` names it."""


def outline_row(lesions: Sequence[LesionInstance], rgb: Rgb, mask: Mask) -> OutlineRow:
    """The overlap of all `lesions` together with `mask` (H, W)."""
    union = whole_mask(lesions, *mask.shape)
    tone = skin_tone(rgb, mask).name
    return OutlineRow(iou(union, mask), dice(union, mask), boundary_f1(union, mask), len(lesions), tone)


def finds_at(lesions: Sequence[LesionInstance], masks: Sequence[Mask]) -> dict[str, Finds]:
    """Scores and hits of one scene's finds, at each of LEAST_IOUS."""
    table = np.zeros((len(lesions), len(masks)))
    for row, lesion in enumerate(lesions):
        table[row] = [iou(whole_mask((lesion,), *mask.shape), mask) for mask in masks]
    scores = tuple(lesion.score for lesion in lesions)
    hits = {
        name: tuple(each is not None for each in taken_by(table, least)) for name, least in LEAST_IOUS.items()
    }
    return {name: Finds(scores, each, len(masks)) for name, each in hits.items()}


def precisions(scenes: Sequence[dict[str, Finds]], split: str) -> dict[str, Figure]:
    """Average precision at each of LEAST_IOUS, with intervals over scenes."""
    measures = {name: average_precision([scene[name] for scene in scenes]) for name in LEAST_IOUS}
    names = [str(number) for number in range(len(scenes))]
    return {name: each.as_json() for name, each in estimates(measures, names, split).items()}


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
        """How all finds together agree with the one annotated mask; nothing found counts 0."""
        rows = [outline_row(self.predictor(rgb), rgb, mask) for rgb, mask in cases]
        values = {
            "mean_iou": [row.iou for row in rows],
            "mean_dice": [row.dice for row in rows],
            "mean_boundary_f1": [row.boundary_f1 for row in rows],
            "thresholded_jaccard": [thresholded_jaccard(row.iou) for row in rows],
            "exactly_one_found": [float(row.finds == 1) for row in rows],
        }
        for tone in sorted({row.tone for row in rows}):
            of_tone = [row.dice for row in rows if row.tone == tone]
            if len(of_tone) >= LEAST_OF_A_TONE:
                values[f"mean_dice_{tone}"] = of_tone
        return {f"{name}_{what}": figure(each, split, "picture") for what, each in values.items()}

    def counts(self, scenes: Iterable[Scene], name: str, split: str) -> dict[str, Figure]:
        """How often the number of lesions is right, and how well the single lesions are found."""
        right, overlaps, precise = [], [], []
        rows: list[dict[str, Finds]] = []
        for scene in scenes:
            lesions = self.predictor(scene.rgb)
            found = matched(lesions, scene.masks)
            rows.append(finds_at(lesions, scene.masks))
            right.append(float(len(lesions) == len(scene.masks)))
            overlaps += found
            precise += [1.0] * sum(value > 0 for value in found)
            precise += [0.0] * (len(lesions) - sum(value > 0 for value in found))
        return {
            f"{name}_right_number": figure(right, split, "scene"),
            f"{name}_lesion_iou": figure(overlaps, split, "lesion, missed ones count 0"),
            f"{name}_sensitivity": figure([float(value > 0) for value in overlaps], split, "lesion"),
            f"{name}_precision": figure(precise, split, "find"),
            **{f"{name}_{what}": each for what, each in precisions(rows, split).items()},
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
