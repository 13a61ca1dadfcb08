"""Every bundle learns from a stranger's collection by MONAI's own command, and goes on where it stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from monai.bundle.scripts import run as run_bundle
from tiny_collection import index_of

from cds_bundles.digest import shipped_bundles
from cds_bundles.weights import weights_metadata

pytestmark = pytest.mark.slow

SECONDS = 280


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return index_of(tmp_path_factory.mktemp("own"), lesions=30)


def as_command(run: str, config_file: str, out: Path, options: dict[str, object]) -> str:
    """Train as `python -m monai.bundle run`, with everything that is installed; return what it said."""
    command = [sys.executable, "-m", "monai.bundle", "run", run, "--config_file", config_file]
    for name, value in options.items():
        command += [
            f"--{name}",
            value if isinstance(value, str) else json.dumps(value, default=str).strip('"'),
        ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=out,
        env={**os.environ, "PYTHONPATH": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def here(run: str, config_file: str, out: Path, options: dict[str, object]) -> str:
    """Train by the function behind that command, in this process, which has imported everything already."""
    paths = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    run_bundle(run, config_file=config_file, **paths)
    return ""


def train(
    bundle: str,
    index: Path,
    out: Path,
    run: str = "run",
    config: str = "train.json",
    by: Callable[..., str] = here,
    **options: Any,
) -> str:
    folder = shipped_bundles()[bundle]
    options = {"bundle_root": folder, "data_root": index, "cache": out / "decoded", "threads": 1} | options
    return by(run, str(folder / "configs" / config), out, options)


def test_the_classifier(own: Path, tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    how = {
        "weights": weights,
        "work_directory": tmp_path / "run",
        "start": "none",
        "fold": 1,
        "stages": [[32, 3], [48, 3]],
        "batch": 4,
        "check_every": 2,
        "validation_share": 0.2,
    }
    told = train("dermoscopy_lesion_classification", own, tmp_path, by=as_command, **how)
    assert "6/6" in told
    facts = weights_metadata(weights)
    assert (facts["steps"], facts["held_out_fold"], facts["device"]) == ("6", "1", "cpu")
    assert len((tmp_path / "run" / "checks.jsonl").read_text().splitlines()) == 3
    weights.unlink()
    train("dermoscopy_lesion_classification", own, tmp_path, **how)
    assert weights_metadata(weights) == facts


def test_the_segmenter(own: Path, tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    train(
        "dermoscopy_lesion_segmentation",
        own,
        tmp_path,
        weights=weights,
        run_directory=tmp_path / "run",
        second_opinion_scenes=12,
        steps=2,
        batch=1,
        check_every=2,
        validation_batches=1,
        validation_share=0.2,
    )
    header = weights_metadata(weights)
    assert header["steps"] == "2"
    assert int(header["second_opinion_skin"]) > 0, header


def test_the_quality_gate(own: Path, tmp_path: Path) -> None:
    weights, scene = tmp_path / "model.safetensors", tmp_path / "scene.safetensors"
    train(
        "dermoscopy_quality_gate",
        own,
        tmp_path,
        weights=weights,
        scene_weights=scene,
        run_directory=tmp_path / "run",
        steps=3,
        batch=4,
        scene_batches=2,
        scene_batch=12,
        scene_plain_lesions=8,
        start="none",
        check_every=2,
        validation_share=0.2,
    )
    assert weights_metadata(weights)["steps"] == "3"
    assert weights_metadata(scene)["photographs"] == "0"


def test_the_comparison(own: Path, tmp_path: Path) -> None:
    variants = [{"name": "plain"}, {"name": "balanced", "balance_power": 1.0}]
    train(
        "dermoscopy_lesion_classification",
        own,
        tmp_path,
        config="compare.json",
        work_directory=tmp_path / "run",
        report=tmp_path / "report.json",
        start="none",
        size=32,
        steps=3,
        batch=4,
        folds=[0, 1],
        variants=variants,
    )
    train(
        "dermoscopy_lesion_classification",
        own,
        tmp_path,
        "embeddings",
        config="compare.json",
        work_directory=tmp_path / "run",
        embedding_report=tmp_path / "embeddings.json",
        start="none",
        size=32,
        folds=[0, 1],
        variants=variants,
    )
    frozen = json.loads((tmp_path / "embeddings.json").read_text())
    assert set(frozen["folds"]["each"]) == {"0", "1"}
    assert "gain_in_balanced_accuracy" in frozen["comparison"]["SMOTE on embeddings"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["comparison"]) == {
        "plain",
        "plain, logits adjusted afterwards",
        "SMOTE on embeddings",
        "rare embeddings repeated",
        "balanced",
    }
    assert "gain_in_balanced_accuracy" in report["comparison"]["balanced"]
    assert set(report["folds"]["each"]) == {"0", "1"}
    together = report["folds"]["together"]["accuracy"]
    assert together["n"] == sum(each["accuracy"]["n"] for each in report["folds"]["each"].values())
