"""`cds-plugin evaluate` on drawn pictures with known outlines, and on real ones where they are at hand."""

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
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from cds_plugin.cli import build
from cds_plugin.phantom import draw_phantom

REAL_PICTURES = 4


def evaluate(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command as a process; its plots need what training installs."""
    return subprocess.run(
        [sys.executable, "-m", "cds_plugin", "evaluate", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
    )


def evaluate_here(*arguments: object) -> Result:
    """Run the command in this process, which has imported torch and MONAI already."""
    return CliRunner().invoke(build("evaluate"), ["evaluate", *map(str, arguments)])


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
    out = tmp_path / "out"
    done = evaluate("--task", "instances", "--index", index, "--out", out, "--json")
    assert done.returncode == 1, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert document == json.loads((out / "figures.json").read_text())
    assert document["counts"]["measured"] == 3
    assert [Path(each["path"]).name for each in document["refused"]] == ["broken.jpg"]
    figure = document["figures"]["count_accuracy"]
    assert (figure["n"], figure["lesion_ids"]) == (3, 2)
    assert figure["interval_95"][0] <= figure["value"] <= figure["interval_95"][1]
    with (out / "pictures.csv").open() as stream:
        pictures = list(csv.DictReader(stream))
    assert [Path(each["path"]).name for each in pictures] == ["1.png", "2.png", "3.png"]
    right = np.mean([each["lesions"] == each["true_lesions"] for each in pictures])
    assert figure["value"] == pytest.approx(right, abs=1e-4)
    assert "Research use, not for diagnosis." in (out / "report.html").read_text()

    kept = (out / "observations.jsonl").read_bytes()
    again = evaluate_here("--task", "quality", "--index", index, "--out", out)
    assert again.exit_code == 1
    assert "good_analysed" in again.stdout
    assert (out / "observations.jsonl").read_bytes() == kept, "no picture was looked at twice"


@pytest.mark.slow
def test_real_pictures_are_outlined_and_named(derm_test_data: Path, tmp_path: Path) -> None:
    with (derm_test_data / "index.csv").open() as stream:
        held_out = [
            each
            for each in csv.DictReader(stream)
            if each["path"].startswith("ham10000/") and each["fold"] == "0"
        ]
    chosen = [
        {
            **each,
            "path": os.path.relpath(derm_test_data / each["path"], tmp_path),
            "mask_path": os.path.relpath(derm_test_data / each["mask_path"], tmp_path),
        }
        for each in held_out[:: len(held_out) // REAL_PICTURES][:REAL_PICTURES]
    ]
    with (tmp_path / "index.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(chosen[0]))
        writer.writeheader()
        writer.writerows([*chosen, {**chosen[0], "path": "none.jpg", "fold": "1"}])
    common = "--index", tmp_path / "index.csv", "--out", tmp_path / "out", "--where", "fold=0", "--json"
    done = evaluate_here("--task", "segmentation", *common)
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["split"], document["figures"]["mean_iou"]["n"]) == ("fold 0", REAL_PICTURES)
    assert document["figures"]["mean_iou"]["value"] > 0.5
    named = json.loads(evaluate_here("--task", "classification", *common).stdout)
    assert named["figures"]["accuracy"]["n"] == REAL_PICTURES
    assert named["subgroups"]["skin_tone"]


def test_a_condition_that_is_none_is_wrong_usage(tmp_path: Path) -> None:
    done = evaluate("--task", "quality", "--index", "i.csv", "--out", tmp_path, "--where", "fold")
    assert done.returncode == 2
    assert "COLUMN=VALUE" in done.stderr


def test_a_missing_index_is_refused_before_models_are_loaded(tmp_path: Path) -> None:
    done = evaluate_here("--task", "quality", "--index", tmp_path / "none.csv", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "bad_index" in done.stderr
    assert not (tmp_path / "out").exists()
