"""What age, sex and body site say of a lesion before anybody looks at it; any of them may be missing.

A multinomial model of p(diagnosis | facts), learned with facts left out in every combination. A picture's
answer is multiplied by a power of p(diagnosis | facts) / p(diagnosis). numpy alone, but for the fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cds_bundles.classes import CLASSES

Floats = NDArray[np.float64]
Places = NDArray[np.intp]

AGE_KNOTS = (0.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0)
"""Years at which the influence of age may bend; between two of them it is straight."""
FACTS = ("age", "sex", "site")
SEXES = ("female", "male")
REGIONS: Mapping[str, tuple[str, ...]] = {
    "head and neck": ("ear", "face", "neck", "scalp"),
    "trunk": ("abdomen", "back", "chest"),
    "upper extremity": ("hand",),
    "lower extremity": ("foot",),
    "genital": (),
}
"""Regions of the body with the sites that HAM10000 (Tschandl 2018, column localization) names within them."""
REGION_OF: Mapping[str, str] = {
    **{region: region for region in REGIONS},
    **{site: region for region, sites in REGIONS.items() for site in sites},
    "head/neck": "head and neck",
    "anterior torso": "trunk",
    "posterior torso": "trunk",
    "lateral torso": "trunk",
    "oral/genital": "genital",
}
"""Region of each word for a site that is understood: HAM10000's, the regions, and the ISIC archive's."""
SITES = tuple(site for sites in REGIONS.values() for site in sites)
PENALTY = 3e-5
"""Weight of the squared coefficients beside the mean cross-entropy. Of 1e-6 to 3e-3, in steps of about three,
the one of least cross-entropy on HAM10000's folds 1 to 4, each predicted from the three others."""


class Facts(Protocol):
    """What may be known of a patient and a lesion."""

    @property
    def age_years(self) -> float | None:
        """0 to 120, or None."""

    @property
    def sex(self) -> str:
        """Of SEXES; anything else counts as not known."""

    @property
    def site(self) -> str:
        """A key of REGION_OF; anything else counts as not known."""


@dataclass(frozen=True, slots=True)
class KnownFacts:
    """Facts as a table holds them."""

    age_years: float | None = None
    sex: str = ""
    site: str = ""


def names_known(facts: Facts) -> tuple[str, ...]:
    """Which of "age", "sex" and "site" are known."""
    known = facts.age_years is not None, facts.sex in SEXES, facts.site in REGION_OF
    return tuple(name for name, given in zip(FACTS, known, strict=True) if given)


@dataclass(frozen=True, slots=True, eq=False)
class FactsModel:
    """p(diagnosis | facts): softmax of coefficients (C, F) times `features` (F,)."""

    coefficients: Floats

    @classmethod
    def silent(cls) -> FactsModel:
        """A model that learned nothing: facts change no answer."""
        return cls(np.zeros((len(CLASSES), len(features(KnownFacts())))))

    def evidence(self, facts: Facts) -> Floats:
        """(C,): log p(diagnosis | facts) - log p(diagnosis); zeros where nothing is known."""
        return self.log_probabilities(facts) - self.log_probabilities(KnownFacts())

    def log_probabilities(self, facts: Facts) -> Floats:
        """(C,): log p(diagnosis | facts)."""
        raised = self.coefficients @ features(facts)
        return np.asarray(raised - np.logaddexp.reduce(raised), np.float64)


def features(facts: Facts) -> Floats:
    """(F,): one, then age, sex, region and site, each with a place for "not known"."""
    region = REGION_OF.get(facts.site, "")
    return np.concatenate(
        [
            [1.0],
            _age_features(facts.age_years),
            _one_of(SEXES, facts.sex),
            _one_of(tuple(REGIONS), region),
            _one_of(SITES, facts.site) if region else np.zeros(len(SITES) + 1),
        ]
    )


def _one_of(names: Sequence[str], name: str) -> Floats:
    """One at the place of `name`; at the last, where it is none of `names`."""
    row = np.zeros(len(names) + 1)
    row[names.index(name) if name in names else -1] = 1.0
    return row


def _age_features(years: float | None) -> Floats:
    """Shares of the two knots around an age, then whether it is missing."""
    row = np.zeros(len(AGE_KNOTS) + 1)
    if years is None:
        row[-1] = 1.0
        return row
    age = min(max(years, AGE_KNOTS[0]), AGE_KNOTS[-1])
    upper = max(1, int(np.searchsorted(AGE_KNOTS, age)))
    low, high = AGE_KNOTS[upper - 1], AGE_KNOTS[upper]
    row[upper] = (age - low) / (high - low)
    row[upper - 1] = 1.0 - row[upper]
    return row


def left_out(facts: Facts) -> Iterator[KnownFacts]:
    """`facts` with each subset of them left out; a site is also blurred to its region."""
    sites = (facts.site, REGION_OF.get(facts.site, ""), "")
    for age, sex, site in product((facts.age_years, None), (facts.sex, ""), sites):
        yield KnownFacts(age, sex, site)


def fit_facts(rows: Sequence[Facts], labels: Places, penalty: float = PENALTY) -> FactsModel:
    """The model of least penalised cross-entropy on `rows` and `labels` (N,), with facts left out evenly."""
    every = np.stack([features(part) for row in rows for part in left_out(row)])
    values = torch.tensor(every)
    truth = torch.tensor(np.repeat(np.asarray(labels, np.int64), len(every) // len(rows)))
    coefficients = torch.zeros(len(CLASSES), values.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([coefficients], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        entropy = nn.functional.cross_entropy(values @ coefficients.T, truth)
        cost = entropy + penalty * coefficients[:, 1:].square().sum()
        cost.backward()  # type: ignore[no-untyped-call]
        return cost

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return FactsModel(np.round(coefficients.detach().numpy(), 4))


def informed(probabilities: Floats, evidence: Floats, weight: float) -> Floats:
    """Rows (N, C) that sum to 1: `probabilities` times the `weight`-th power of what the facts say."""
    raised = np.log(np.clip(probabilities, 1e-12, None)) + weight * evidence
    powers = np.exp(raised - raised.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)


def fit_weight(probabilities: Floats, evidence: Floats, labels: Places) -> float:
    """The power, 0 to 1.5 in steps of 0.05, of least cross-entropy on `labels` (N,)."""
    rows = np.arange(len(labels))
    candidates = [step / 20 for step in range(31)]
    costs = [
        -float(np.log(informed(probabilities, evidence, weight)[rows, labels]).mean())
        for weight in candidates
    ]
    return candidates[int(np.argmin(costs))]


def only(facts: Facts, name: str) -> KnownFacts:
    """Of `facts` the one called `name`, of FACTS."""
    match name:
        case "age":
            return KnownFacts(age_years=facts.age_years)
        case "sex":
            return KnownFacts(sex=facts.sex)
        case _:
            return KnownFacts(site=facts.site)
