"""How often is a lesion known again, and how often wrongly? On held-out pictures of HAM10000, by simulation.

    python -m benchmarks.lesion_matching --data FOLDER [--out docs/lesion-over-time.json]

A patient is made up for every held-out lesion with several pictures: one of them is of the earlier visit,
with a number of other lesions of the same body site and, where there are enough, sex; another is seen now.
Then the same patient without that lesion at the earlier visit. What is claimed is what the product's own
`matched` claims.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from tqdm import tqdm

from cds_bundles.classifier_data import Lesion, read_rgb, training_and_held_out
from cds_bundles.clinical_facts import KnownFacts
from cds_bundles.lesion_answers import facts_of
from cds_bundles.predictors import load_predictor
from cds_plugin.priors.following import BOUNDS
from cds_plugin.priors.known import KnownLesion, Place, SeenLesion
from cds_plugin.priors.matching import matched
from cds_plugin.study import Appearance, Sha256

BUNDLE = Path("monai_bundles/dermoscopy_lesion_classification")
OTHERS = (1, 3, 8)
"""Lesions of the same site that the earlier visit also saw."""
ROUNDS, RESAMPLES, SEED = 3, 2000, 20
VISIT = datetime(2024, 1, 1, tzinfo=UTC)

Shares = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Picture:
    """A held-out picture: which lesion it shows, where that is, of whom, and how it looks."""

    lesion: str
    site: str
    sex: str
    appearance: Appearance


def pictures(data: Path) -> list[Picture]:
    """Return the held-out pictures as the shipped classifier sees them, by reference boxes."""
    classifier = load_predictor(BUNDLE)
    _, held_out = training_and_held_out(data)
    facts = facts_of(data)
    return [
        _picture(classifier, each, facts.get(each.picture.isic_id, KnownFacts()))
        for each in tqdm(held_out, file=sys.stderr, mininterval=10)
    ]


def _picture(classifier: Any, lesion: Lesion, facts: KnownFacts) -> Picture:
    (opinion,) = classifier(read_rgb(lesion.picture.path), [lesion.bbox])
    look = Appearance(opinion.appearance, Sha256(classifier.appearance_model))
    return Picture(lesion.picture.lesion_id, facts.site, facts.sex, look)


def claim(now: Picture, before: Sequence[Picture]) -> str | None:
    """Return which lesion of the earlier visit `now` is said to be, if any."""
    known = [
        KnownLesion(
            each.lesion, "visit 1", str(number), VISIT, Place(each.site or None), each.appearance, 0.0, None
        )
        for number, each in enumerate(before)
    ]
    found = matched([SeenLesion(1, Place(now.site or None), now.appearance)], known, BOUNDS)
    return found[1].prior.tracking_uid if found else None


def trials(every: Sequence[Picture], others: int) -> Iterator[tuple[str, bool, bool, bool]]:
    """Yield (lesion, known again, taken for another one, claimed though it was new) of each simulation."""
    rng = np.random.default_rng(SEED)
    by_lesion: dict[str, list[Picture]] = defaultdict(list)
    for each in every:
        by_lesion[each.lesion].append(each)
    for _ in range(ROUNDS):
        for lesion, shots in by_lesion.items():
            if len(shots) < 2:
                continue
            first, now = (shots[place] for place in rng.choice(len(shots), 2, replace=False))
            rest = _neighbours(rng, every, now, others)
            if len(rest) < others:
                continue
            again = claim(now, [first, *rest])
            new = claim(now, rest)
            yield lesion, again == lesion, again not in (None, lesion), new is not None


def _neighbours(rng: Generator, every: Sequence[Picture], now: Picture, count: int) -> list[Picture]:
    """Return a picture each of `count` other lesions of the site; of one sex where there are enough."""
    here = [each for each in every if each.site == now.site and each.lesion != now.lesion]
    alike = [each for each in here if each.sex == now.sex]
    pool = alike if len({each.lesion for each in alike}) >= count else here
    chosen: dict[str, Picture] = {}
    for place in rng.permutation(len(pool)):
        if len(chosen) < count:
            chosen.setdefault(pool[place].lesion, pool[place])
    return list(chosen.values())


def figures(every: Sequence[Picture]) -> list[dict[str, Any]]:
    """Return a row of figures for each number of other lesions."""
    rows = []
    for others in OTHERS:
        made = list(trials(every, others))
        names = sorted({lesion for lesion, *_ in made})
        place = {name: number for number, name in enumerate(names)}
        counts = np.zeros((len(names), 4))
        for lesion, again, wrong, new in made:
            counts[place[lesion]] += (1, again, wrong, new)
        rows.append({"others": others, "lesions": len(names), "trials": len(made), **_shares(counts)})
    return rows


def _shares(counts: Shares) -> dict[str, dict[str, float]]:
    """Return shares with 95 % intervals over lesions; precision where half the lesions are new."""
    rng = np.random.default_rng(SEED)
    drawn = counts[rng.integers(len(counts), size=(RESAMPLES, len(counts)))].sum(axis=1)
    return {
        name: {
            "value": round(float(_figures(counts.sum(axis=0)[None])[name][0]), 4),
            "low": round(float(np.quantile(_figures(drawn)[name], 0.025)), 4),
            "high": round(float(np.quantile(_figures(drawn)[name], 0.975)), 4),
        }
        for name in ("known_again", "taken_for_another", "new_called_known", "precision")
    }


def _figures(sums: Shares) -> dict[str, Shares]:
    trials_made, again, wrong, new = sums.T
    return {
        "known_again": again / trials_made,
        "taken_for_another": wrong / trials_made,
        "new_called_known": new / trials_made,
        "precision": again / np.maximum(again + wrong + new, 1),
    }


def pairs_auc(every: Sequence[Picture]) -> dict[str, float | int]:
    """Return how well likeness tells pairs of one lesion from pairs of two lesions of one site and sex."""
    vectors = np.array([each.appearance.vector for each in every])
    lesion, place, sex = (
        np.array([getattr(each, name) for each in every]) for name in ("lesion", "site", "sex")
    )
    upper = np.triu_indices(len(every), 1)
    like = (vectors @ vectors.T)[upper]
    same = (lesion[:, None] == lesion)[upper]
    rival = ((place[:, None] == place) & (sex[:, None] == sex))[upper] & ~same
    ranks = np.searchsorted(np.sort(like[rival]), like[same])
    return {
        "auc": round(float(ranks.mean() / rival.sum()), 4),
        "same": int(same.sum()),
        "different": int(rival.sum()),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/lesion-over-time.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    every = pictures(given.data)
    document = {
        "split": "HAM10000 fold 0",
        "pictures": len(every),
        "bounds": {"likeness": BOUNDS.likeness, "margin": BOUNDS.margin},
        "pairs": pairs_auc(every),
        "patients": figures(every),
    }
    given.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
