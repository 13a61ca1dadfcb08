"""`cds-plugin analyze` as users run it: good files and hostile ones, the lines and what is written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.uid import SecondaryCaptureImageStorage

from cds_bundles.digest import BUNDLE_NAMES, bundle_digest, bundle_version, shipped_bundles, shipped_manifest
from cds_plugin.decoder import Decoder
from cds_plugin.dicomize import Dicomizer
from cds_plugin.phantom import draw_phantom
from cds_worker.inputs import Input
from cds_worker.offline import Offline
from cds_worker.pipeline import Pipeline

pytestmark = pytest.mark.slow

KEYS = {"input", "sop_instance_uid", "quality", "lesions", "outputs", "bundles", "seconds"}
LESION_KEYS = {
    *("number", "bbox", "score", "area_px", "area_mm2", "finding", "probabilities", "malignancy"),
    *("flagged", "prediction_set", "ood_score", "unfamiliar", "tracking_uid", "prior"),
}
CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


@dataclass(frozen=True)
class Run:
    """What one call printed and left."""

    returncode: int
    stdout: str
    stderr: str
    lines: dict[str, dict[str, Any]]
    """By the last part of `input`, continued by a number where it is there twice."""


def analyze(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cds_plugin", "analyze", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
    )


def draw(path: Path, seed: int, width: int = 400, height: int = 300) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_phantom(seed, width=width, height=height).rgb).save(path)
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, phantoms: list[Path]) -> Path:
    """A folder of good and of hostile files."""
    folder = tmp_path_factory.mktemp("corpus")
    draw(folder / "good.png", 1)
    draw(folder / "again" / "good.jpg", 2)
    upside = Image.open(draw(folder / "turned.png", 3))
    exif = upside.getexif()
    exif[274] = 6
    upside.save(folder / "turned.jpg", exif=exif)
    (folder / "turned.png").unlink()
    spaced = dcmread(phantoms[0])
    spaced.PixelSpacing = [0.05, 0.04]
    spaced.save_as(folder / "spaced.dcm")
    Image.fromarray(np.zeros((300, 400, 3), np.uint8)).save(folder / "black.png")
    for name, change in HOSTILE.items():
        change(folder / name, phantoms[1])
    (folder / ".hidden.png").write_bytes(b"x")
    return folder


def empty(path: Path, _: Path) -> None:
    path.write_bytes(b"")


def text(path: Path, _: Path) -> None:
    path.write_text("not a picture")


def cut_png(path: Path, _: Path) -> None:
    Image.fromarray(draw_phantom(5, width=400, height=300).rgb).save(path)
    path.write_bytes(path.read_bytes()[:5000])


def cut_dicom(path: Path, source: Path) -> None:
    path.write_bytes(source.read_bytes()[:3000])


def grey(path: Path, _: Path) -> None:
    Image.fromarray(np.full((300, 400), 90, np.uint8)).save(path)


def one_pixel_wide(path: Path, _: Path) -> None:
    Image.fromarray(np.full((300, 1, 3), 90, np.uint8)).save(path)


def changed(change: Callable[[Dataset], None]) -> Callable[[Path, Path], None]:
    def write(path: Path, source: Path) -> None:
        dataset = dcmread(source)
        change(dataset)
        dataset.save_as(path)

    return write


@changed
def quoted_uid(dataset: Dataset) -> None:
    with disable_value_validation():
        dataset.SOPClassUID = f'"{dataset.SOPClassUID}"'


@changed
def no_uid(dataset: Dataset) -> None:
    del dataset.StudyInstanceUID


@changed
def no_pixels(dataset: Dataset) -> None:
    dataset.PixelData = b""


@changed
def burned_in(dataset: Dataset) -> None:
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.BurnedInAnnotation = "YES"


@changed
def too_large(dataset: Dataset) -> None:
    dataset.Rows, dataset.Columns = 60000, 60000


HOSTILE: dict[str, Callable[[Path, Path], None]] = {
    "empty.dcm": empty,
    "text.jpg": text,
    "cut.png": cut_png,
    "cut.dcm": cut_dicom,
    "grey.png": grey,
    "narrow.png": one_pixel_wide,
    "quoted.dcm": quoted_uid,
    "no-uid.dcm": no_uid,
    "no-pixels.dcm": no_pixels,
    "burned-in.dcm": burned_in,
    "too-large.dcm": too_large,
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def run(corpus: Path, out: Path) -> Run:
    done = analyze(corpus, corpus / "good.png", corpus / "absent.dcm", "--out", out, "--json")
    lines: dict[str, dict[str, Any]] = {}
    for line in map(json.loads, done.stdout.splitlines()):
        name = Path(line["input"]).name
        lines[f"{name}#2" if name in lines else name] = line
    return Run(done.returncode, done.stdout, done.stderr, lines)


def test_every_file_has_its_line_and_refusals_make_the_exit_code(run: Run, corpus: Path) -> None:
    files = [path for path in corpus.rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert len(run.stdout.splitlines()) == len(files) + 2
    assert run.returncode == 1
    assert [name for name, line in run.lines.items() if "error" in line] == [
        *sorted(HOSTILE),
        "absent.dcm",
    ]


def test_refusals_say_what_is_wrong_and_what_to_do(run: Run) -> None:
    for name in (*HOSTILE, "absent.dcm"):
        error = run.lines[name]["error"]
        assert set(error) == {"code", "message", "action"}
        assert all(error.values()), name
    codes = {name: run.lines[name]["error"]["code"] for name in HOSTILE}
    assert codes["text.jpg"] == "not_dicom"
    assert codes["quoted.dcm"] == "invalid_uid"
    assert codes["no-uid.dcm"] == "missing_uid"
    assert codes["burned-in.dcm"] == "not_analysed"
    assert codes["too-large.dcm"] == "too_many_pixels"


def test_a_line_has_the_shape_of_the_contract(run: Run) -> None:
    line = run.lines["good.png"]
    assert set(line) >= KEYS
    assert line["quality"]["verdict"] in ("diagnostic", "limited")
    assert line["bundles"] == {
        name: {"version": bundle_version(path), "sha256": bundle_digest(path)}
        for name, path in shipped_bundles().items()
    }
    assert set(line["outputs"]) == {"source", "seg", "sr", "overlay"}
    assert set(line["operating_point"]) == {"malignancy_threshold", "sensitivity"}
    assert line["lesions"], "nothing found in a drawn lesion"
    for number, lesion in enumerate(line["lesions"], start=1):
        assert set(lesion) == LESION_KEYS
        assert lesion["number"] == number
        assert lesion["area_mm2"] is None
        assert tuple(lesion["probabilities"]) == CLASSES
        assert sum(lesion["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert lesion["finding"] == max(CLASSES, key=lesion["probabilities"].__getitem__)
        dangerous = sum(lesion["probabilities"][each] for each in ("akiec", "bcc", "mel"))
        assert lesion["malignancy"] == pytest.approx(dangerous, abs=1e-5)


def test_outputs_are_files_of_their_own_that_refer_to_the_source(run: Run) -> None:
    analysed = [line for line in run.lines.values() if "error" not in line]
    written = [path for line in analysed for key, path in line["outputs"].items() if path and key != "source"]
    assert len(set(written)) == len(written)
    for line in analysed:
        source = dcmread(line["outputs"]["source"], stop_before_pixels=True)
        assert source.SOPInstanceUID == line["sop_instance_uid"]
        report = dcmread(line["outputs"]["sr"])
        assert line["sop_instance_uid"] in report.to_json()


def test_the_segments_are_the_lesions_of_the_line(run: Run) -> None:
    line = run.lines["spaced.dcm"]
    segmentation = hd.seg.segread(line["outputs"]["seg"])
    assert segmentation.number_of_segments == len(line["lesions"])
    masks = segmentation.get_pixels_by_source_instance(
        [line["sop_instance_uid"]], ignore_spatial_locations=True
    )[0]
    for index, lesion in enumerate(line["lesions"]):
        rows, columns = np.nonzero(masks[..., index])
        assert lesion["bbox"] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert lesion["area_px"] == len(rows)
        assert lesion["area_mm2"] == pytest.approx(len(rows) * 0.05 * 0.04, rel=1e-4)


def test_exif_rotation_is_applied_before_anything_is_measured(run: Run) -> None:
    source = dcmread(run.lines["turned.jpg"]["outputs"]["source"], stop_before_pixels=True)
    assert (source.Rows, source.Columns) == (400, 300)
    for lesion in run.lines["turned.jpg"]["lesions"]:
        assert lesion["bbox"][2] <= 300
        assert lesion["bbox"][3] <= 400


def test_a_black_picture_is_not_analysed_and_the_report_says_so(run: Run) -> None:
    line = run.lines["black.png"]
    assert line["quality"]["verdict"] == "non_diagnostic"
    assert line["quality"]["reasons"]
    assert line["lesions"] == []
    assert line["outputs"]["seg"] is None
    assert "not analysed" in dcmread(line["outputs"]["sr"]).to_json()


def test_our_own_results_are_refused(run: Run, pipeline: Pipeline, tmp_path: Path) -> None:
    outputs = run.lines["good.png"]["outputs"]
    with Decoder() as decoder:
        offline = Offline(pipeline, decoder, Dicomizer(tmp_path, decoder), 10_000_000, tmp_path)
        for kind in ("sr", "seg", "overlay"):
            (line,) = offline.lines(Input(outputs[kind], Path(outputs[kind])))
            assert line["error"]["code"] == "not_analysed"
    assert not list(tmp_path.iterdir())


def test_the_table_is_readable_without_json(corpus: Path, tmp_path: Path) -> None:
    done = analyze(corpus / "good.png", corpus / "text.jpg", "--out", tmp_path, COLUMNS="200")
    assert done.returncode == 1
    assert "Research use, not for diagnosis" in done.stdout
    assert "good.png" in done.stdout
    assert "text.jpg" in done.stderr


def test_a_tampered_bundle_is_refused_and_nothing_is_analysed(corpus: Path, tmp_path: Path) -> None:
    bundles = tmp_path / "bundles"
    for name, folder in shipped_bundles().items():
        shutil.copytree(folder, bundles / name)
    for name in ("manifest.json", "manifest.sig"):
        shutil.copy(shipped_manifest().with_name(name), bundles / name)
    config = bundles / BUNDLE_NAMES[1] / "configs" / "inference.json"
    config.write_text(config.read_text() + " ")
    done = analyze(
        corpus / "good.png", "--out", tmp_path / "out", "--json", CDS_BUNDLES__DIRECTORY=str(bundles)
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "bundle_digest" in done.stderr
    assert BUNDLE_NAMES[1] in done.stderr
    environment = {**os.environ, "CDS_BUNDLES__DIRECTORY": str(bundles)}
    plugin = [sys.executable, "-m", "cds_plugin"]
    subprocess.run([*plugin, "db", "upgrade"], check=True, cwd=tmp_path, env=environment)
    worker = subprocess.run(
        [*plugin, "worker"], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert worker.returncode == 1
    assert "bundle_digest" in worker.stderr


def test_nothing_to_analyse_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = analyze(tmp_path / "empty", "--out", tmp_path / "out", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing_to_analyse" in done.stderr
