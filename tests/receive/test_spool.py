"""The spool: names nobody chooses, orphans that go, rows that stay, folders of the dead that are cleared."""

from __future__ import annotations

import fcntl
import json
import os
import string
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cds_plugin.durable import remove_orphans
from cds_plugin.receive.spool import Spool, sha256_of

Known = Callable[[Sequence[str]], set[str]]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "var")
    made.make_folders()
    return made


def arrived(spool: Spool, content: bytes) -> Path:
    path = spool.incoming / "tmpabc.dcm"
    path.write_bytes(content)
    return path


def keep(spool: Spool, content: bytes) -> str:
    path = arrived(spool, content)
    with spool.kept(path, sha256_of(path)) as kept:
        return kept


def none_known(_paths: Sequence[str]) -> set[str]:
    return set()


def test_the_name_comes_from_the_bytes(spool: Spool) -> None:
    path = keep(spool, b"picture")
    digest = sha256_of(spool.directory / path)
    assert path == f"spool/{digest[:2]}/{digest}.dcm"
    assert (spool.directory / path).read_bytes() == b"picture"
    assert not list(spool.incoming.iterdir())
    assert (spool.files.stat().st_mode & 0o777) == 0o700


def test_the_same_bytes_again_are_one_file(spool: Spool) -> None:
    assert keep(spool, b"picture") == keep(spool, b"picture")
    assert keep(spool, b"other") != keep(spool, b"picture")


def test_what_a_crash_left_under_the_name_is_replaced(spool: Spool) -> None:
    path = spool.directory / keep(spool, b"picture")
    path.write_bytes(b"pict")
    assert spool.directory / keep(spool, b"picture") == path
    assert path.read_bytes() == b"picture"
    assert not list(spool.incoming.iterdir())


def test_a_file_system_without_links_will_do(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("os.link", refused)
    assert (spool.directory / keep(spool, b"picture")).read_bytes() == b"picture"
    assert not list(spool.incoming.iterdir())


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_no_content_leaves_the_spool(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    spool = Spool(tmp_path_factory.getbasetemp() / "property")
    spool.make_folders()
    path = Path(keep(spool, content))
    assert path.parts[0] == "spool" and len(path.parts) == 3
    assert set(path.stem) <= set(string.hexdigits.lower())
    assert sha256_of(spool.directory / path) == path.stem


def orphans_removed(spool: Spool, path: str, age: float, known: Known = none_known) -> int:
    """Remove the orphans of a file's folder that were last written `age` seconds before now."""
    return remove_orphans((spool.directory / path).parent, spool.directory, known, time.time() - age)


def test_orphans_go_after_their_grace_and_rows_stay(spool: Spool) -> None:
    orphan, row = keep(spool, b"0"), keep(spool, b"1")
    assert [orphans_removed(spool, each, age=60) for each in (orphan, row)] == [0, 0]
    known = {row}
    removed = [orphans_removed(spool, each, -60, lambda paths: known & set(paths)) for each in (orphan, row)]
    assert removed == [1, 0]
    assert not (spool.directory / orphan).exists() and (spool.directory / row).exists()


def test_a_file_whose_row_is_being_committed_is_no_orphan(spool: Spool) -> None:
    path = arrived(spool, b"picture")
    with spool.kept(path, sha256_of(path)) as kept:
        assert orphans_removed(spool, kept, -60) == 0
    assert orphans_removed(spool, kept, -60) == 1


def test_quarantine_keeps_the_bytes_and_the_reason(spool: Spool) -> None:
    path = arrived(spool, b"strange")
    kept = spool.put_in_quarantine(path, sha256_of(path), {"reason": "SOP Instance UID is quoted"})
    assert (spool.directory / kept).read_bytes() == b"strange"
    note = json.loads((spool.directory / kept).with_suffix(".json").read_text())
    assert note == {"reason": "SOP Instance UID is quoted"}
    assert not list(spool.incoming.iterdir())


def test_what_dead_listeners_left_is_cleared_and_the_living_keep_theirs(spool: Spool) -> None:
    dead, alive = spool.incoming / "dead", spool.incoming / "alive"
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "half.dcm").write_bytes(b"half")
    (spool.incoming / "stray.dcm").write_bytes(b"stray")
    lock = os.open(alive, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with spool.incoming_folder() as mine:
        assert {each.name for each in spool.incoming.iterdir()} == {"alive", mine.name}
        assert (alive / "half.dcm").exists()
    os.close(lock)
    assert not mine.exists()
