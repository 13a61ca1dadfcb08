"""How good the quality gate is on held-out pictures: good ones refused, damaged ones let through."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydicom import dcmread
from tqdm import tqdm

from cds_bundles.index import HAM10000, SMARTPHONE, TASK1, Picture, from_source, patient_of, read_index, split
from cds_bundles.metric_ranking import roc_auc
from cds_bundles.metric_resampling import Measure, estimates
from cds_bundles.metric_shares import share
from cds_bundles.picture_files import read_lesion, read_rgb
from cds_bundles.quality import QualityAssessment, QualityGate
from cds_bundles.quality_damage import DAMAGES
from cds_bundles.quality_limits import Verdict
from cds_bundles.quality_variants import VARIANTS, drawn_on
from cds_bundles.segmenter_sources import split_sources
from cds_bundles.skin_tone import BLUISH_CAST, TONES, skin_tone

SPLIT = "fold 0 of HAM10000 (by lesion), Task 1 and PAD-UFES-20 (by patient); skin beside held-out lesions"
FRAMES_SPLIT = "the whole frames at hand, of any fold"
DRAWN_SPLIT = "drawn pictures"
RULE_DB = 25.0
"""The paper's rule: a reconstruction below this is a bad picture."""

VERDICTS: tuple[Verdict, ...] = ("diagnostic", "limited", "non_diagnostic")

DAMAGED_LESIONS = 300
VARIED_LESIONS = 60
DRAWN_PER_TYPE = 40
DRAWN_FRAME = (450, 600)
"""(height, width) of a drawn picture."""
SEED = 20

FULL_FRAME, DICOM = "ham10000_full_frame", "isic2020_dicom"

Rgb = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Judged:
    """One picture that the gate has seen; `group` is its lesion."""

    group: str
    psnr_db: float
    score: float
    """The worst defect: over 0.5 doubtful, over 1 useless."""
    verdict: Verdict
    tone: str = ""


class QualityEvaluation:
    """Runs `predictor` over the held-out pictures of `data_root` and writes the figures to `report`."""

    def __init__(self, data_root: str, predictor: QualityGate, report: str, threads: int = 1) -> None:
        self._root = Path(data_root)
        self._gate = predictor
        self._report = Path(report)
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)

    def run(self) -> dict[str, Any]:
        """Measures, prints and writes everything; returns it."""
        index = read_index(self._root / "index.csv")
        held_out = split(from_source(index, HAM10000) + from_source(index, TASK1))[1]
        good = {source: self._pictures(from_source(held_out, source), source) for source in (HAM10000, TASK1)}
        frames = self._loose(FULL_FRAME, "*.jpg") | self._loose(DICOM, "*.dcm")
        damaged = self._damaged(one_a_lesion(held_out, DAMAGED_LESIONS)) | self._foreign(index)
        whole = self._damaged_frames()
        every = [judged for rows in good.values() for judged in rows]
        report = {
            "split": SPLIT,
            "good": {name: verdict_figures(rows) for name, rows in good.items()},
            "good_frames": {name: verdict_figures(rows, FRAMES_SPLIT) for name, rows in frames.items()},
            "skin_tone": _by_tone(every),
            "varied": self._varied(one_a_lesion(held_out, VARIED_LESIONS)),
            "drawn": self._drawn(),
            "damaged": {name: damage_figures(every, rows) for name, rows in damaged.items()},
            "damaged_frames": {
                name: damage_figures(frames[FULL_FRAME], rows, FRAMES_SPLIT) for name, rows in whole.items()
            },
        }
        self._report.parent.mkdir(parents=True, exist_ok=True)
        self._report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(report, indent=2))
        return report

    def _pictures(self, pictures: Sequence[Picture], name: str) -> list[Judged]:
        return [self._judge(_read(p.path), p.lesion_id, _tone(p)) for p in tqdm(pictures, desc=name)]

    def _foreign(self, index: Sequence[Picture]) -> dict[str, list[Judged]]:
        """Held-out pictures that show no lesion through a dermatoscope."""
        _, held_out = split_sources(self._root)
        smartphone = [picture for picture in from_source(index, SMARTPHONE) if picture.held_out]
        return {
            "smartphone_photograph": [self._judge(_read(each.path), patient_of(each)) for each in smartphone],
            "no_lesion": [self._judge(_read(path), path.stem) for path in held_out.skin],
            "non_skin": [self._judge(_read(path), path.stem) for path in held_out.nonskin],
        }

    def _loose(self, folder: str, pattern: str) -> dict[str, list[Judged]]:
        paths = sorted((self._root / folder).glob(pattern))
        return {folder: [self._judge(_read(path), path.stem) for path in paths]} if paths else {}

    def _varied(self, pictures: Sequence[Picture]) -> dict[str, Any]:
        """Good pictures of other sizes, qualities and skins."""
        return {
            name: verdict_figures([self._judge(vary(_read(p.path)), p.lesion_id) for p in pictures])
            for name, vary in VARIANTS.items()
        }

    def _drawn(self) -> dict[str, Any]:
        """Drawn lesions on drawn skin of each type."""
        random = np.random.default_rng(SEED)
        return {
            f"skin_type_{skin_type}": verdict_figures(
                [
                    self._judge(drawn_on(random, skin_type, *DRAWN_FRAME), f"drawn_{number}")
                    for number in range(DRAWN_PER_TYPE)
                ],
                DRAWN_SPLIT,
            )
            for skin_type in range(1, 7)
        }

    def _damaged_frames(self) -> dict[str, list[Judged]]:
        """The whole frames at hand, damaged; the same strength in pixels is milder here than on crops."""
        random = np.random.default_rng(SEED)
        paths = sorted((self._root / FULL_FRAME).glob("*.jpg"))
        return {
            name: [self._judge(damage(_read(path), random), path.stem) for path in paths]
            for name, damage in DAMAGES.items()
            if paths
        }

    def _damaged(self, pictures: Sequence[Picture]) -> dict[str, list[Judged]]:
        random = np.random.default_rng(SEED)
        return {
            name: [self._judge(damage(_read(p.path), random), p.lesion_id) for p in tqdm(pictures, desc=name)]
            for name, damage in DAMAGES.items()
        }

    def _judge(self, rgb: Rgb, group: str, tone: str = "") -> Judged:
        found: QualityAssessment = self._gate(rgb)
        score = float("nan") if found.defect is None else found.defect
        return Judged(group, found.measures["psnr_db"], score, found.verdict, tone)


def one_a_lesion(pictures: Iterable[Picture], count: int) -> list[Picture]:
    """At most `count` of `pictures`, by lot, no two of one lesion."""
    of_lesion = list({picture.lesion_id: picture for picture in pictures}.values())
    chosen = np.random.default_rng(SEED).permutation(len(of_lesion))[:count]
    return [of_lesion[place] for place in chosen]


def verdict_figures(rows: Sequence[Judged], split: str = SPLIT) -> dict[str, Any]:
    """Share of each verdict, and share below 25 dB, with intervals over lesions."""
    shares: dict[str, Measure] = {
        name: share(np.array([row.verdict == name for row in rows])) for name in VERDICTS
    }
    shares["below_25_db"] = share(np.array([row.psnr_db < RULE_DB for row in rows]))
    median = round(float(np.median([row.psnr_db for row in rows])), 2)
    return _with_intervals(shares, rows, split) | {"median_psnr_db": median}


def damage_figures(good: Sequence[Judged], bad: Sequence[Judged], split: str = SPLIT) -> dict[str, Any]:
    """How well low PSNR alone, and all limits together, tell `bad` from `good`; and the verdicts on `bad`."""
    both = [*good, *bad]
    is_bad = np.arange(len(both)) >= len(good)
    aucs = {
        "auc_psnr": roc_auc(is_bad, np.array([-row.psnr_db for row in both])),
        "auc_score": roc_auc(is_bad, np.array([row.score for row in both])),
    }
    return _with_intervals(aucs, both, split) | verdict_figures(bad, split)


def _with_intervals(measures: Mapping[str, Measure], rows: Sequence[Judged], split: str) -> dict[str, Any]:
    found = estimates(measures, [row.group for row in rows], split)
    return {name: each.as_json() for name, each in found.items()}


def _by_tone(rows: Sequence[Judged]) -> dict[str, Any]:
    names = (*(tone.name for tone in TONES), BLUISH_CAST)
    bands = {name: [row for row in rows if row.tone == name] for name in names}
    return {name.replace(" ", "_"): verdict_figures(found) for name, found in bands.items() if found}


def _tone(picture: Picture) -> str:
    """The tone of the skin outside the mask, as `cds_bundles.skin_tone` names it."""
    return skin_tone(*read_lesion(picture)).name if picture.mask_path else ""


def _read(path: Path) -> Rgb:
    """The picture as uint8 (H, W, 3) sRGB; a DICOM file's pixels as pydicom decodes them."""
    return np.asarray(dcmread(path).pixel_array, np.uint8) if path.suffix == ".dcm" else read_rgb(path)
