"""The file beside a classifier's weights that says how its answers are to be read: models/trust.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from cds_bundles.calibration import COVERAGE, OperatingPoint, VectorScaling
from cds_bundles.classes import CLASSES


@dataclass(frozen=True, slots=True)
class Trust:
    """Calibration, prediction-set thresholds and operating points, and on what they were fitted."""

    scaling: VectorScaling
    set_thresholds: tuple[float, ...]
    """By class: the probability from which on it belongs to a prediction set."""
    operating_points: Mapping[float, OperatingPoint]
    """By wanted sensitivity."""
    coverage: float = COVERAGE
    fitted_on: str = ""

    def save(self, path: Path) -> None:
        """Writes JSON that a person can read."""
        document = {
            "fitted_on": self.fitted_on,
            "classes": list(CLASSES),
            "scales": [round(value, 6) for value in self.scaling.scales],
            "offsets": [round(value, 6) for value in self.scaling.offsets],
            "coverage": self.coverage,
            "set_thresholds": [round(value, 6) for value in self.set_thresholds],
            "operating_points": [
                {"wanted_sensitivity": wanted, **{k: round(v, 6) for k, v in asdict(point).items()}}
                for wanted, point in sorted(self.operating_points.items())
            ],
        }
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Trust:
        """What `save` wrote; `ValueError` where the classes are other ones."""
        document = json.loads(path.read_text(encoding="utf-8"))
        if tuple(document["classes"]) != CLASSES:
            raise ValueError(f"{path} is of the classes {document['classes']}, not {list(CLASSES)}")
        points = {
            float(row["wanted_sensitivity"]): OperatingPoint(
                row["threshold"], row["sensitivity"], row["specificity"]
            )
            for row in document["operating_points"]
        }
        return cls(
            VectorScaling(tuple(document["scales"]), tuple(document["offsets"])),
            tuple(document["set_thresholds"]),
            points,
            document["coverage"],
            document["fitted_on"],
        )
