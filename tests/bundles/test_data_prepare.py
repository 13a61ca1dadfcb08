"""Collections as their publishers ship them become one index whose folds leak nothing."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cds_bundles.cli import data
from cds_bundles.data_folders import FolderUnknown, records
from cds_bundles.data_prepare import NothingToPrepare, dealt, prepare
from cds_bundles.index import grouped, leaks, read_index


def draw(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.resize(small, (60, 45), interpolation=cv2.INTER_CUBIC))
    return path


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def ham10000(tmp_path: Path) -> Path:
    """Twelve pictures of eight lesions in two parts, as Harvard Dataverse ships them."""
    folder = tmp_path / "HAM10000"
    lines = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    for number in range(12):
        name = f"ISIC_00{number:05d}"
        part = f"HAM10000_images_part_{1 + number % 2}"
        draw(folder / part / f"{name}.jpg", number)
        draw(folder / "HAM10000_segmentations_lesion_tschandl" / f"{name}_segmentation.png", 100 + number)
        lines.append(f"HAM_{number % 8:07d},{name},{'mel' if number % 3 else 'nv'},histo,50.0,male,back")
    write(folder / "HAM10000_metadata", *lines)
    return folder


@pytest.fixture
def challenge(tmp_path: Path) -> Path:
    """ISIC 2019's layout: one-hot ground truth and a table of metadata."""
    folder = tmp_path / "ISIC_2019"
    truth = ["image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK"]
    facts = ["image,age_approx,anatom_site_general,lesion_id,sex"]
    for number in range(10):
        name = f"ISIC_01{number:05d}"
        draw(folder / "ISIC_2019_Training_Input" / f"{name}.jpg", 300 + number)
        marks = ["0.0"] * 9
        marks[(0, 3, 7)[number % 3]] = "1.0"
        truth.append(",".join([name, *marks]))
        facts.append(f"{name},60,anterior torso,MSK_{number // 2},female")
    write(folder / "ISIC_2019_Training_GroundTruth.csv", *truth)
    write(folder / "ISIC_2019_Training_Metadata.csv", *facts)
    return folder


def test_ham10000_as_published(ham10000: Path) -> None:
    rows = records(ham10000)
    assert len(rows) == 12
    first = rows[0]
    assert (first.name, first.lesion_id, first.dx, first.histology) == (
        "ISIC_0000000",
        "HAM_0000000",
        "nv",
        True,
    )
    assert first.mask_path and first.mask_path.is_file() and (first.age, first.site) == ("50.0", "back")


def test_a_challenge_as_published(challenge: Path) -> None:
    rows = records(challenge)
    assert [row.dx for row in rows[:3]] == ["mel", "akiec", "scc"]
    assert {row.lesion_id for row in rows} == {f"MSK_{number}" for number in range(5)}
    assert {row.sex for row in rows} == {"female"}


def test_an_archive_download(tmp_path: Path) -> None:
    draw(tmp_path / "ISIC_9.jpg", 1)
    write(
        tmp_path / "metadata.csv",
        "isic_id,diagnosis_1,diagnosis_3,lesion_id,patient_id,sex",
        "ISIC_9,Benign,Nevus,IL_1,IP_7,male",
    )
    (row,) = records(tmp_path)
    assert (row.dx, row.patient_id, row.lesion_id) == ("nv", "IP_7", "IL_1")


def test_a_site_s_own_folder(tmp_path: Path) -> None:
    draw(tmp_path / "a" / "1.png", 1)
    write(tmp_path / "pictures.csv", "path,dx,lesion_id,patient_id", "a/1.png,Melanoma,L1,P1")
    (row,) = records(tmp_path)
    assert (row.path, row.dx, row.patient_id) == (tmp_path / "a" / "1.png", "mel", "P1")


def test_an_unknown_layout_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(FolderUnknown, match=r"pictures\.csv"):
        records(tmp_path)


def test_one_index_without_leaks(ham10000: Path, challenge: Path, tmp_path: Path) -> None:
    index = tmp_path / "out" / "index.csv"
    prepared = prepare([ham10000, challenge], index, folds=3)
    pictures = read_index(index)
    assert prepared.pictures == len(pictures) == 22
    assert {p.source for p in pictures} == {"HAM10000", "ISIC_2019"}
    assert leaks(pictures) == ()
    assert all(p.path.is_file() for p in pictures)
    assert {p.fold for p in pictures} == {0, 1, 2}


def test_look_alikes_share_a_fold_and_are_named(tmp_path: Path) -> None:
    lines = ["path,dx,lesion_id"]
    for number in range(8):
        draw(tmp_path / f"{number}.png", number % 7)
        lines.append(f"{number}.png,nv,L{number}")
    write(tmp_path / "pictures.csv", *lines)
    prepared = prepare([tmp_path], tmp_path / "index.csv", folds=2)
    assert prepared.look_alikes == (("0", "7"),)
    folds = {p.isic_id: p.fold for p in read_index(tmp_path / "index.csv")}
    assert folds["0"] == folds["7"]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_whoever_shares_a_lesion_or_patient_shares_a_group(pairs: list[tuple[int, int]]) -> None:
    rows = [
        {f"lesion {lesion}"} | ({f"patient {patient}"} if patient else set()) for lesion, patient in pairs
    ]
    groups = grouped(rows, ())
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            if one & other:
                assert groups[i] == groups[j]


def test_folds_keep_groups_and_balance_classes() -> None:
    classes = ["mel" if number % 4 == 0 else "nv" for number in range(200)]
    groups = [number // 2 for number in range(200)]
    parts = dealt(classes, groups, 5, seed=1)
    assert all(parts[2 * n] == parts[2 * n + 1] for n in range(100))
    shares = [sum(p == f and c == "mel" for p, c in zip(parts, classes, strict=True)) for f in range(5)]
    assert max(shares) - min(shares) <= 2


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(NothingToPrepare):
        dealt(["nv"] * 4, [1, 1, 2, 2], 3, seed=1)


def test_the_command(ham10000: Path, tmp_path: Path) -> None:
    out = tmp_path / "index.csv"
    answer = CliRunner().invoke(data, ["prepare", str(ham10000), "--out", str(out), "--folds", "2", "--json"])
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["pictures"] == 12
    with out.open(newline="") as stream:
        assert next(csv.DictReader(stream))["modality"] == "dermoscopy"


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    answer = CliRunner().invoke(data, ["prepare", str(tmp_path), "--out", str(tmp_path / "index.csv")])
    assert answer.exit_code == 1
    assert "pictures.csv" in answer.output
