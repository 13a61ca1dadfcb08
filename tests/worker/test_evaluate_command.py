"""`cds-plugin evaluate` on drawn pictures with known masks, and on real ones where they are at hand."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cds_plugin.errors import Refused
from cds_plugin.phantom import draw_phantom
from cds_worker.evaluation.cases import read_cases

REAL_PICTURES = 6


def evaluate(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cds_plugin", "evaluate", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three phantoms with label pictures, two of one lesion, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("index")
    rows = []
    for seed in (1, 2, 3):
        phantom = draw_phantom(seed, width=400, height=300)
        Image.fromarray(phantom.rgb).save(folder / f"{seed}.png")
        labels = np.zeros((300, 400), np.uint8)
        for number, mask in enumerate(phantom.masks, start=1):
            labels[mask] = number
        Image.fromarray(labels).save(folder / f"{seed}-labels.png")
        rows.append(row(f"{seed}.png", "nv", f"lesion-{seed % 2}", f"{seed}-labels.png"))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    rows.append(row("broken.jpg", "mel", "lesion-9", "1-labels.png"))
    with (folder / "index.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "index.csv"


def row(path: str, dx: str, lesion_id: str, mask_path: str) -> dict[str, str]:
    return {"path": path, "dx": dx, "lesion_id": lesion_id, "mask_path": mask_path}


@pytest.mark.slow
def test_instances_are_counted_and_unreadable_pictures_named(index: Path, tmp_path: Path) -> None:
    done = evaluate("--task", "instances", "--index", index, "--out", tmp_path / "out", "--json")
    assert done.returncode == 1
    metrics: dict[str, Any] = json.loads(done.stdout)
    assert metrics == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["counts"]["measured"] == 3
    assert [Path(each["path"]).name for each in metrics["refused"]] == ["broken.jpg"]
    figure = metrics["figures"]["count_accuracy"]
    assert (figure["n"], figure["lesions"]) == (3, 2)
    assert figure["interval_95"][0] <= figure["value"] <= figure["interval_95"][1]
    with (tmp_path / "out" / "pictures.csv").open() as stream:
        pictures = list(csv.DictReader(stream))
    assert [Path(each["path"]).name for each in pictures] == ["1.png", "2.png", "3.png"]
    right = np.mean([float(each["lesions"] == each["true_lesions"]) for each in pictures])
    assert figure["value"] == pytest.approx(right, abs=1e-4)


@pytest.mark.slow
def test_real_pictures_are_segmented_and_named(derm_test_data: Path, tmp_path: Path) -> None:
    with (derm_test_data / "index.csv").open() as stream:
        held_out = [
            each
            for each in csv.DictReader(stream)
            if each["path"].startswith("ham10000/") and each["fold"] == "0"
        ]
    chosen = [
        row(
            os.path.relpath(derm_test_data / each["path"], tmp_path),
            each["dx"],
            each["lesion_id"],
            os.path.relpath(derm_test_data / each["mask_path"], tmp_path),
        )
        for each in held_out[:: len(held_out) // REAL_PICTURES][:REAL_PICTURES]
    ]
    with (tmp_path / "index.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(chosen[0]))
        writer.writeheader()
        writer.writerows(chosen)
    done = evaluate(
        "--task", "segmentation", "--index", tmp_path / "index.csv", "--out", tmp_path / "out", "--json"
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)
    assert metrics["figures"]["mean_iou"]["n"] == REAL_PICTURES
    assert metrics["figures"]["mean_iou"]["value"] > 0.5


@pytest.mark.parametrize("content", [None, "", "dx,lesion_id\nnv,1\n", "path,dx,lesion_id,mask_path\n"])
def test_an_index_that_is_none_is_refused(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "index.csv").write_text(content)
    with pytest.raises(Refused) as caught:
        read_cases(tmp_path / "index.csv")
    assert caught.value.code == "bad_index"


def test_an_index_is_read_relative_to_itself_with_defaults(tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text("\ufeffpath,dx,extra\na/1.jpg,NV ,x\n", encoding="utf-8")
    (case,) = read_cases(tmp_path / "index.csv")
    assert case.path == tmp_path / "a" / "1.jpg"
    assert (case.dx, case.lesion_id, case.mask_path) == ("nv", "a/1.jpg", None)
