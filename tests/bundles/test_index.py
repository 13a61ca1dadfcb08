"""The index becomes rows, and no lesion or picture is on both sides of a split."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cds_bundles import cli
from cds_bundles.index import (
    HAM10000,
    TASK1,
    IndexUnreadable,
    LeakFound,
    check_no_leak,
    leaks,
    read_index,
    split,
)

HEADER = (
    "path,isic_id,lesion_id,dx,mask_path,dataset,official_split,fold,width,height,"
    "geometry,modality,note,mask_frac"
)
HELD_OUT = "ham10000/a.jpg,I1,L1,mel,ham10000/a.png,HAM,train,0,256,256,crop,dermoscopy,dx_type=histo,0.5"
SAME_LESION = "ham10000/b.jpg,I2,L1,mel,,HAM,train,1,256,256,crop,dermoscopy,dx_type=histo,"
OTHER = "ham10000/c.jpg,I3,L2,nv,,HAM,train,2,256,256,crop,dermoscopy,dx_type=consensus,"
TASK1_TRAIN = "isic2018_task1/d.jpg,I5,,nv,,Task1,task1-train;isic2017-train,,288,288,crop,dermoscopy,,"
TASK1_TEST = "isic2018_task1/e.jpg,I4,,,,Task1,task1-train;isic2017-test,,288,288,crop,dermoscopy,,"
TASK1_SAME = "isic2018_task1/f.jpg,I1,,mel,,Task1,task1-train;isic2017-train,,288,288,crop,dermoscopy,,"


def written(folder: Path, *rows: str) -> Path:
    index = folder / "index.csv"
    index.write_text("\n".join((HEADER, *rows)) + "\n")
    return index


def ids(pictures: tuple[object, ...]) -> list[str]:
    return [picture.isic_id for picture in pictures]  # type: ignore[attr-defined]


def test_a_row_becomes_a_picture(tmp_path: Path) -> None:
    first, second = read_index(written(tmp_path, HELD_OUT, TASK1_TEST))
    assert (first.source, first.fold, first.histology, first.held_out) == (HAM10000, 0, True, True)
    assert first.mask_path == tmp_path / "ham10000/a.png"
    assert (second.source, second.lesion_id, second.mask_path, second.held_out) == (TASK1, "I4", None, True)


def test_split_drops_what_shares_a_lesion_or_a_picture_with_held_out_ones(tmp_path: Path) -> None:
    rows = (HELD_OUT, SAME_LESION, OTHER, TASK1_TRAIN, TASK1_TEST, TASK1_SAME)
    training, held_out = split(read_index(written(tmp_path, *rows)))
    assert ids(training) == ["I3", "I5"]
    assert ids(held_out) == ["I1", "I4"]


def test_a_leak_is_found_and_named(tmp_path: Path) -> None:
    one, two, three = read_index(written(tmp_path, HELD_OUT, SAME_LESION, OTHER))
    assert leaks((one, two, three)) == ("lesion L1",)
    assert leaks((one, three)) == ()
    with pytest.raises(LeakFound, match="L1"):
        check_no_leak((two,), (one,))


def test_a_broken_index_is_named(tmp_path: Path) -> None:
    index = written(tmp_path, HELD_OUT.replace(",0,256", ",zero,256"))
    with pytest.raises(IndexUnreadable, match=r"index\.csv"):
        read_index(index)


def test_data_check_reports_leaks_and_missing_files(tmp_path: Path) -> None:
    index = written(tmp_path, HELD_OUT, SAME_LESION)
    answer = CliRunner().invoke(cli.data, ["check", "--index", str(index), "--json"])
    document = json.loads(answer.stdout)
    assert answer.exit_code == 1
    assert document["leaks"] == ["lesion L1"]
    assert len(document["missing_files"]) == 3
    assert "leak: lesion L1" in answer.stderr


def test_data_check_without_an_index_is_wrong_usage(tmp_path: Path) -> None:
    assert CliRunner().invoke(cli.data, ["check", "--index", str(tmp_path / "none.csv")]).exit_code == 2


def test_the_data_at_hand_has_no_leak(derm_test_data: Path) -> None:
    pictures = read_index(derm_test_data / "index.csv")
    training, held_out = split(pictures)
    assert leaks(pictures) == ()
    assert {p.fold for p in held_out if p.source == HAM10000} == {0}
    assert 0 not in {p.fold for p in training}
