"""How long the objects of one picture take: 12 megapixels, twenty overlapping lesions.

python -m benchmarks.results [--out docs/performance/results.json]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import DermoscopicPhotographyImageStorage

from cds_plugin.results.build import Wanted, build_results
from cds_plugin.results.context import ResultContext
from cds_plugin.results.segmentation import build_segmentation
from cds_plugin.results.source import read_source
from cds_plugin.study import (
    Analysis,
    BoundingBox,
    BundleIdentity,
    Bundles,
    Lesion,
    LesionClass,
    OperatingPoint,
    Quality,
    ResultKind,
    Rgb,
    Sha256,
    Verdict,
)

ROWS, COLUMNS, LESIONS = 3000, 4000, 20
ROUNDS = 3
NOW = datetime(2026, 1, 1, tzinfo=UTC)
WITH_MODELS = frozenset({ResultKind.HEAT_MAP})
"""Its maps come from a model, which is not what is measured here."""


def lesions() -> Iterator[Lesion]:
    """Yield ellipses of 870 x 700 pixels in five columns and four rows; each touches its neighbours."""
    probabilities = (0.05, 0.05, 0.05, 0.05, 0.6, 0.15, 0.05)
    for number in range(1, LESIONS + 1):
        mask = np.zeros((700, 870), np.uint8)
        cv2.ellipse(mask, (435, 350), (434, 349), 0, 0, 360, 1, -1)
        x, y = (number - 1) % 5 * 780, (number - 1) // 5 * 740
        box = BoundingBox(x, y, x + 870, y + 700)
        yield Lesion(number, box, mask.astype(np.bool_), 0.9, probabilities, (LesionClass.MEL,), 0.5)


def analysis() -> Analysis:
    """Return what a pipeline would say of that picture."""
    names = ("quality_gate", "lesion_segmentation", "lesion_classification")
    bundles = Bundles(*(BundleIdentity(f"dermoscopy_{name}", "0.0.0", Sha256("ab" * 32)) for name in names))
    quality, point = Quality(Verdict.DIAGNOSTIC, (), None), OperatingPoint(0.2, 0.95, 0.99)
    return Analysis(ROWS, COLUMNS, quality, tuple(lesions()), bundles, point)


def header() -> Dataset:
    """Return the header of a dermoscopic picture."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.Modality = DermoscopicPhotographyImageStorage, "DMS"
    for number, keyword in enumerate(("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"), start=1):
        setattr(dataset, keyword, f"1.2.3.{number}")
    dataset.Rows, dataset.Columns = ROWS, COLUMNS
    return dataset


def measured(work: Callable[[], object]) -> dict[str, float]:
    """Return the medians of wall clock and processor seconds over ROUNDS."""
    walls, processors = [], []
    for _ in range(ROUNDS):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return {
        "wall_s": round(statistics.median(walls), 3),
        "processor_s": round(statistics.median(processors), 3),
    }


def main() -> None:
    """Print and keep the seconds of each kind of object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/performance/results.json"))
    out = parser.parse_args().out
    said, rgb = analysis(), photograph()
    context = ResultContext(read_source(header()), said, 1, NOW)
    report = {"rows": ROWS, "columns": COLUMNS, "lesions": LESIONS, "rounds": ROUNDS, "cores": os.cpu_count()}
    seconds = {"seg, masks in memory to data set": measured(lambda: build_segmentation(context))}
    for kind in (each for each in ResultKind if each not in WITH_MODELS):
        wanted = Wanted(frozenset({kind}))
        seconds[f"{kind}, to bytes"] = measured(
            lambda wanted=wanted: [  # type: ignore[misc]
                each.as_bytes() for each in build_results(header(), rgb, said, 1, NOW, wanted=wanted)
            ]
        )
    report["seconds"] = seconds
    report["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def photograph() -> Rgb:
    """Return noise on a skin colour, (ROWS, COLUMNS, 3)."""
    noise = np.random.default_rng(1).integers(-12, 12, (ROWS, COLUMNS, 1))
    return np.clip(np.array([200, 150, 130]) + noise, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
