"""`cds-plugin demo` as a stranger runs it."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from pydicom.uid import (
    Comprehensive3DSRStorage,
    DermoscopicPhotographyImageStorage,
    SegmentationStorage,
    VLPhotographicImageStorage,
)

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


def test_real_whole_frames_go_through_orthanc_to_a_viewer(
    tmp_path: Path, derm_test_data: Path, ohif_folder: Path
) -> None:
    study = tmp_path / "study"
    study.mkdir()
    for picture in sorted((derm_test_data / "ham10000_full_frame").rglob("*.jpg"))[:2]:
        shutil.copy(picture, study)
    options = ("--pacs", "orthanc", "--study", str(study), "--viewer", str(ohif_folder))
    command = [sys.executable, "-m", "cds_plugin", "demo", "--directory", str(tmp_path), *options]
    log = tmp_path / "demo.log"
    with log.open("wb") as stream, subprocess.Popen(command, cwd=tmp_path, stderr=stream) as process:
        address = _address_in(log, process)
        page, instances = requests.get(address, timeout=30), requests.get(_instances(address), timeout=30)
        process.send_signal(signal.SIGINT)
        code = process.wait(DEMO_SECONDS)
    assert code == 0, log.read_text()[-3000:]
    assert "app.bundle" in page.text
    classes = {each["00080016"]["Value"][0] for each in instances.json()}
    assert VLPhotographicImageStorage in classes and DermoscopicPhotographyImageStorage not in classes
    assert {SegmentationStorage, Comprehensive3DSRStorage} <= classes


def _address_in(log: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + DEMO_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"Look at it: (\S+)", log.read_text())
        if found:
            return found[1]
        time.sleep(0.3)
    raise AssertionError(log.read_text()[-3000:])


def _instances(address: str) -> str:
    root, _, study = address.partition("/viewer?StudyInstanceUIDs=")
    return f"{root}/dicom-web/studies/{study}/instances"


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = demonstration(tmp_path, "--study", str(empty))
    assert done.returncode == 1
    assert "nothing_to_send" in done.stderr
