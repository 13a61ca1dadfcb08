"""What `analyze` reads, in which order, and what it calls what comes out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cds_worker.inputs import InputKind, OutputNames, kind_of, list_inputs

stems = st.lists(st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1))


@given(stems)
def test_every_input_gets_a_stem_of_its_own_that_is_a_safe_file_name(names: list[str]) -> None:
    outputs = OutputNames()
    given_out = [outputs.stem_for(Path("folder", f"{name}.jpg")) for name in names]
    assert len({each.lower() for each in given_out}) == len(names)
    assert all(each.isascii() and not each.startswith(".") and "/" not in each for each in given_out)
    assert all(len(each) < 100 for each in given_out)


def test_names_stay_readable() -> None:
    outputs = OutputNames()
    assert outputs.stem_for(Path("a/ISIC_1.jpg")) == "ISIC_1"
    assert outputs.stem_for(Path("b/ISIC_1.png")) == "ISIC_1-2"
    assert outputs.stem_for(Path("b/isic_1.dcm")) == "isic_1-3"


def test_folders_are_read_whole_sorted_and_without_our_own_output(tmp_path: Path) -> None:
    for name in ("b.jpg", "a/z.png", ".hidden", "a/.cache/x.png", "out/old.sr.dcm", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    found = [each.given for each in list_inputs([str(tmp_path)], tmp_path / "out")]
    assert found == [str(tmp_path / name) for name in ("a/z.png", "b.jpg", "notes.txt")]


def test_a_missing_path_is_kept_so_that_it_can_be_named(tmp_path: Path) -> None:
    absent = tmp_path / "absent.dcm"
    assert [each.path for each in list_inputs([str(absent)], tmp_path / "out")] == [absent]


def test_pictures_are_told_by_content_not_by_name(tmp_path: Path) -> None:
    contents = {
        "a.dcm": (b"\xff\xd8\xff\xe0rest", InputKind.PICTURE),
        "b.txt": (b"\x89PNG\r\n\x1a\nrest", InputKind.PICTURE),
        "c.jpg": (b"\0" * 128 + b"DICM", InputKind.DICOM),
        "d.png": (b"", InputKind.DICOM),
    }
    for name, (content, kind) in contents.items():
        (tmp_path / name).write_bytes(content)
        assert kind_of(tmp_path / name) is kind


def test_the_path_is_shown_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / os.fsdecode(b"bad\xff.jpg")).write_bytes(b"x")
    given = [each.given for each in list_inputs(["./absent.jpg", "./folder/"], tmp_path / "out")]
    assert given == ["./absent.jpg", "./folder/bad\\xff.jpg"]
