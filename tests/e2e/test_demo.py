"""`cds-plugin demo` as a stranger runs it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

DEMO_SECONDS = 280


def demonstration(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cds_plugin", "demo", "--directory", str(directory), *options]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=DEMO_SECONDS, check=False, cwd=directory
    )


def test_drawn_pictures_go_through_the_whole_path(tmp_path: Path) -> None:
    done = demonstration(tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    for word in ("diagnostic", "lesion 1", "SEG", "audit", "research use"):
        assert word.lower() in done.stdout.lower(), done.stdout
    overlays = list(tmp_path.rglob("overlay*.jpg"))
    assert overlays and all(path.stat().st_size > 10_000 for path in overlays)


def test_real_whole_frames_go_through_orthanc(tmp_path: Path, derm_test_data: Path) -> None:
    if shutil.which("Orthanc") is None:
        pytest.skip("Orthanc is not installed")
    study = tmp_path / "study"
    study.mkdir()
    for picture in sorted((derm_test_data / "ham10000_full_frame").rglob("*.jpg"))[:2]:
        shutil.copy(picture, study)
    done = demonstration(tmp_path, "--pacs", "orthanc", "--study", str(study))
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = demonstration(tmp_path, "--study", str(empty))
    assert done.returncode == 1
    assert "nothing_to_send" in done.stderr
