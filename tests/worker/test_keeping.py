"""Results on disk: named by their bytes, private, whole, and safe from the sweep until their rows stand."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from cds_plugin.durable import remove_orphans
from cds_plugin.errors import Unavailable
from cds_plugin.sealing.vault import Vault
from cds_worker.keeping import KeptFile, kept


def no_rows(_paths: Sequence[str]) -> set[str]:
    return set()


def swept(storage: Path, file: KeptFile) -> int:
    """Let the orphan sweep look at a file's folder long after the grace."""
    return remove_orphans((storage / file.path).parent, storage, no_rows, time.time() + 60)


def test_named_by_its_bytes_in_private_folders(tmp_path: Path) -> None:
    with kept(Vault(tmp_path), [b"report", b"overlay"]) as files:
        pass
    for file, content in zip(files, (b"report", b"overlay"), strict=True):
        digest = hashlib.sha256(content).hexdigest()
        path = tmp_path / file.path
        assert file == KeptFile(f"results/{digest[:2]}/{digest}.dcm", digest, len(content))
        assert path.read_bytes() == content
        assert [each.stat().st_mode & 0o077 for each in (path, path.parent, path.parent.parent)] == [0, 0, 0]
        assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_no_sweep_takes_it_before_its_row_is_committed(tmp_path: Path) -> None:
    with kept(Vault(tmp_path), [b"report"]) as (file,):
        assert swept(tmp_path, file) == 0
    assert swept(tmp_path, file) == 1
    with kept(Vault(tmp_path), [b"report"]) as (again,):
        assert again == file and (tmp_path / file.path).exists()


def test_the_same_bytes_twice_are_one_file(tmp_path: Path) -> None:
    with kept(Vault(tmp_path), [b"report", b"report"]) as (one, other):
        assert one == other


def test_a_storage_that_takes_nothing_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "results").write_bytes(b"not a folder")
    with pytest.raises(Unavailable) as away, kept(Vault(tmp_path), [b"report"]):
        pytest.fail("nothing was kept")
    assert away.value.code == "results_folder"


def test_what_fails_inside_is_no_failure_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), kept(Vault(tmp_path), [b"report"]):
        (tmp_path / "missing").read_bytes()
