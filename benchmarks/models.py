"""`make bench-models`: seconds of each stage of the models, one picture of 600 x 450 pixels with one lesion.

Warm, without decoding and without making results: what `analyze` calls quality, segmentation and
classification. The picture is drawn; a real one can be given. The classification's seconds are also measured
for each network and number of orientations, so that what a look costs can be weighed against what it gains.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cds_bundles.classification import ORIENTATIONS, LesionClassifier, logits_and_features
from cds_plugin.config import Settings
from cds_plugin.errors import Refused
from cds_plugin.phantom import draw_phantom
from cds_plugin.photograph import Photograph
from cds_worker.pipeline import Pipeline

WIDTH, HEIGHT = 600, 450
WARM_UP = 3
STAGES = ("quality", "segmentation", "classification")
BUSY = 0.5
"""Runnable processes per core, beyond our own, from which on a timing means little."""

Pixels = NDArray[np.uint8]


def picture(path: Path | None) -> Pixels:
    """Return (450, 600, 3) sRGB: the picture at `path`, or a drawn one with one lesion."""
    if path is None:
        return draw_phantom(1, width=WIDTH, height=HEIGHT, lesions=1).rgb
    rgb = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if rgb is None:
        raise Refused("unreadable_file", f"{path} can't be read.", "Give a JPEG or PNG.")
    return np.asarray(cv2.resize(rgb, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)


def stages(pipeline: Pipeline, rgb: Pixels, rounds: int) -> dict[str, Any]:
    """Return what each stage and all of them take, over `rounds` analyses after some to warm up."""
    photograph = Photograph(Dataset(), rgb, None)
    analyses = [pipeline.analyse(photograph) for _ in range(WARM_UP + rounds)][WARM_UP:]
    seconds = {name: [each.seconds.get(name, 0.0) for each in analyses] for name in STAGES}
    seconds["models"] = [sum(each.seconds.get(name, 0.0) for name in STAGES) for each in analyses]
    return {
        "verdict": analyses[0].quality.verdict.value,
        "lesions": len(analyses[0].lesions),
        "seconds": {name: spread(values) for name, values in seconds.items()},
    }


def looks(classifier: LesionClassifier, rgb: Pixels, rounds: int) -> list[dict[str, Any]]:
    """Return what one lesion costs in each network of the classifier, by number of orientations."""
    rows = []
    for member in classifier.look.members:
        crops = classifier.look.crops(rgb, [(200, 125, 400, 325)], member.size)
        for count in ORIENTATIONS:
            found = timed(partial(logits_and_features, member.network, crops, count), rounds)
            in_use = count == member.orientations
            rows.append(
                {"network": member.architecture, "size": member.size, "orientations": count}
                | {"in_use": in_use, "seconds": spread(found)}
            )
    return rows


def timed(call: Callable[[], object], rounds: int) -> list[float]:
    """Return the seconds of `rounds` calls after some to warm up."""
    seconds = []
    for _ in range(WARM_UP + rounds):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the quarter below and above it, in seconds."""
    low, high = np.quantile(values, (0.25, 0.75))
    return {"median": round(median(values), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def main() -> None:
    """Measure, write JSON, print a table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--picture", type=Path)
    arguments.add_argument("--out", type=Path, required=True)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    load_before = os.getloadavg()[0]
    pipeline = Pipeline.open(Settings())
    rgb = picture(options.picture)
    document = {
        "picture": f"{WIDTH} x {HEIGHT}, " + ("given" if options.picture else "drawn"),
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "threads": options.threads},
        "torch": torch.__version__,
        "load_before": round(load_before, 2),
        "calm": load_before < BUSY * (os.cpu_count() or 1),
        "rounds": options.rounds,
        "bundles": {each.name: each.version for each in pipeline.bundles},
        **stages(pipeline, rgb, options.rounds),
        "looks": looks(pipeline.classifier, rgb, options.rounds),
    }
    options.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    show(document)


def show(document: dict[str, Any]) -> None:
    """Print medians and quarters."""
    calm = "" if document["calm"] else f"; the machine was busy (load {document['load_before']})"
    print(f"{document['lesions']} lesion, {document['machine']['threads']} threads{calm}")
    for name, seconds in document["seconds"].items():
        print(f"{name:16} {seconds['median']:.3f} s  ({seconds['low']:.3f} to {seconds['high']:.3f})")
    for row in document["looks"]:
        used = " (in use)" if row["in_use"] else ""
        name = f"{row['network']}, {row['size']} px, {row['orientations']} orientations{used}"
        print(f"{row['seconds']['median']:.3f} s  {name}")


if __name__ == "__main__":
    main()
