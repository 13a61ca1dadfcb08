"""A bundle's digest changes with every byte and name, and the manifest says which is right."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cds_bundles import cli
from cds_bundles.digest import (
    BUNDLE_NAMES,
    BundleMissing,
    bundle_digest,
    read_manifest,
    shipped_bundles,
    shipped_manifest,
    write_manifest,
)

run = CliRunner().invoke


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """A folder with three bundles that hold a version and a weights file."""
    for name in BUNDLE_NAMES:
        (tmp_path / name / "configs").mkdir(parents=True)
        (tmp_path / name / "configs" / "metadata.json").write_text('{"version": "0.1.0"}')
        (tmp_path / name / "weights").write_bytes(name.encode())
    return tmp_path


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_digest_is_that_of_the_sorted_lines(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_bytes(b"one")
    (tmp_path / "a").write_bytes(b"two")
    lines = sorted([f"{sha256(b'one')}  b/c", f"{sha256(b'two')}  a"])
    assert bundle_digest(tmp_path) == sha256(("\n".join(lines) + "\n").encode())


def test_digest_changes_with_content_and_with_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    first = bundle_digest(tmp_path)
    (tmp_path / "a").write_bytes(b"onf")
    changed = bundle_digest(tmp_path)
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({first, changed, bundle_digest(tmp_path)}) == 3


def test_an_empty_folder_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(BundleMissing):
        bundle_digest(tmp_path)


def test_a_manifest_reads_back_as_written(tmp_path: Path) -> None:
    digests = {"b": "1" * 64, "a": "2" * 64}
    write_manifest(tmp_path / "manifest.json", digests)
    assert read_manifest(tmp_path / "manifest.json") == digests


def test_the_shipped_bundles_are_those_the_manifest_pins() -> None:
    digests = {name: bundle_digest(folder) for name, folder in shipped_bundles().items()}
    assert digests == read_manifest(shipped_manifest())


def test_pin_then_verify_then_a_changed_byte(bundles: Path) -> None:
    assert run(cli.bundle, ["verify", "--directory", str(bundles)]).exit_code == 1
    assert run(cli.bundle, ["pin", "--directory", str(bundles)]).exit_code == 0
    assert run(cli.bundle, ["verify", "--directory", str(bundles)]).exit_code == 0
    (bundles / BUNDLE_NAMES[1] / "weights").write_bytes(b"other")
    answer = run(cli.bundle, ["verify", "--directory", str(bundles), "--json"])
    verdicts = {row["name"]: row["intact"] for row in map(json.loads, answer.stdout.splitlines())}
    assert answer.exit_code == 1
    assert verdicts == {name: name != BUNDLE_NAMES[1] for name in BUNDLE_NAMES}
    assert BUNDLE_NAMES[1] in answer.stderr


def test_list_prints_one_document_a_bundle(bundles: Path) -> None:
    answer = run(cli.bundle, ["list", "--directory", str(bundles), "--json"])
    rows = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [(row["name"], row["version"]) for row in rows] == [(name, "0.1.0") for name in BUNDLE_NAMES]
    assert rows[0]["sha256"] == bundle_digest(bundles / BUNDLE_NAMES[0])


def test_an_absent_bundle_is_named(bundles: Path) -> None:
    (bundles / BUNDLE_NAMES[2]).rename(bundles / "elsewhere")
    answer = run(cli.bundle, ["list", "--directory", str(bundles)])
    assert answer.exit_code == 1
    assert BUNDLE_NAMES[2] in answer.stderr


def test_the_commands_import_no_torch() -> None:
    code = "import sys, cds_bundles.cli; sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
