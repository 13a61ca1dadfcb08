"""The file beside a classifier's weights that says how its answers are to be read: models/trust.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cds_bundles.calibration import COVERAGE, OperatingPoint, VectorScaling
from cds_bundles.classes import CLASSES
from cds_bundles.clinical_facts import FactsModel

DECIMALS = 6


@dataclass(frozen=True, slots=True)
class Reading:
    """From which probability on something is said; fitted on answers of one kind."""

    set_thresholds: tuple[float, ...]
    """By class: the probability from which on it belongs to a prediction set."""
    operating_points: Mapping[float, OperatingPoint]
    """By wanted sensitivity."""

    def as_json(self) -> dict[str, Any]:
        """The fields as a person can read them."""
        return {
            "set_thresholds": [round(value, DECIMALS) for value in self.set_thresholds],
            "operating_points": [
                {"wanted_sensitivity": wanted, **{k: round(v, DECIMALS) for k, v in asdict(point).items()}}
                for wanted, point in sorted(self.operating_points.items())
            ],
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Reading:
        """What `as_json` gave."""
        points = {
            float(row["wanted_sensitivity"]): OperatingPoint(
                row["threshold"], row["sensitivity"], row["specificity"]
            )
            for row in document["operating_points"]
        }
        return cls(tuple(document["set_thresholds"]), points)


@dataclass(frozen=True, slots=True)
class Trust:
    """Calibration, what the patient's facts add, prediction sets and operating points; and their source."""

    members: tuple[float, ...]
    """Weight of each network's logits; they sum to 1."""
    scaling: VectorScaling
    picture_alone: Reading
    facts: FactsModel
    facts_weight: float
    """Power of what the facts say, beside the picture."""
    with_facts: Reading
    coverage: float = COVERAGE
    fitted_on: str = ""

    def probabilities(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """Calibrated rows (N, C) from the members' `logits` (N, M, C)."""
        return self.scaling.probabilities(np.tensordot(np.array(self.members), logits, axes=(0, 1)))

    def save(self, path: Path) -> None:
        """Writes JSON that a person can read."""
        document = {
            "fitted_on": self.fitted_on,
            "classes": list(CLASSES),
            "members": [round(value, DECIMALS) for value in self.members],
            "scales": [round(value, DECIMALS) for value in self.scaling.scales],
            "offsets": [round(value, DECIMALS) for value in self.scaling.offsets],
            "coverage": self.coverage,
            "picture_alone": self.picture_alone.as_json(),
            "with_facts": self.with_facts.as_json(),
            "facts_weight": self.facts_weight,
            "facts_coefficients": self.facts.coefficients.tolist(),
        }
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Trust:
        """What `save` wrote; `ValueError` where the classes are other ones."""
        document = json.loads(path.read_text(encoding="utf-8"))
        if tuple(document["classes"]) != CLASSES:
            raise ValueError(f"{path} is of the classes {document['classes']}, not {list(CLASSES)}")
        return cls(
            tuple(document["members"]),
            VectorScaling(tuple(document["scales"]), tuple(document["offsets"])),
            Reading.of(document["picture_alone"]),
            FactsModel(np.array(document["facts_coefficients"])),
            document["facts_weight"],
            Reading.of(document["with_facts"]),
            document["coverage"],
            document["fitted_on"],
        )
