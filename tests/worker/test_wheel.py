"""The wheel, installed into an environment of its own outside the checkout, analyses a phantom.

The environment gets this distribution from the wheel alone. Third-party libraries are too large to install
again (torch: 5 GB), so a .pth file adds the folder in which the tests found them; a .pth file of that folder
is not read, so an editable install that lies there stays out of reach.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cds_bundles.digest import BUNDLE_NAMES
from cds_plugin.phantom import draw_phantom

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SOURCES = ("cds_plugin", "db", "worker", "monai_bundles", "pyproject.toml", "README.md", "LICENSE")
MAX_WEIGHTS_BYTES = 25_000_000


@dataclass(frozen=True)
class Installed:
    """An environment that has the wheel."""

    wheel: Path
    folder: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, far from the checkout."""
        variables = {
            key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "CDS_"))
        } | {"PYTHONPATH": str(ROOT / "tests" / "product")}
        return subprocess.run(
            [str(self.folder / "bin" / command[0]), *command[1:]],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=variables,
            check=False,
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    wheel = build_wheel(folder)
    environment = folder / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", str(environment))
    python = environment / "bin" / "python"
    run(
        *(sys.executable, "-m", "pip", "--python", str(python)),
        *("install", "--quiet", "--no-deps", "--no-index", str(wheel)),
    )
    site_packages = next(environment.glob("lib/python*/site-packages"))
    (site_packages / "third_party.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return Installed(wheel, environment)


def build_wheel(folder: Path) -> Path:
    """Build from a copy, so that the checkout stays clean."""
    copy = folder / "source"
    copy.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            shutil.copy(source, copy / name)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(copy))
    return next(folder.glob("*.whl"))


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_holds_our_packages_and_nothing_else(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        files = {each.filename: each.file_size for each in archive.infolist()}
    top = {name.split("/")[0] for name in files}
    assert top == {
        "cds_plugin",
        "cds_db",
        "cds_worker",
        "cds_bundles",
        next(t for t in top if "dist-info" in t),
    }
    weights = {name: size for name, size in files.items() if name.endswith(".safetensors")}
    assert {name.split("/")[1] for name in weights} == set(BUNDLE_NAMES)
    assert max(weights.values()) <= MAX_WEIGHTS_BYTES
    assert "cds_worker/evaluation/report.html" in files
    assert not [name for name in files if name.endswith((".pt", ".pth", ".pkl", ".pyc"))]


def test_every_room_is_imported_from_the_wheel(installed: Installed) -> None:
    program = (
        "import cds_plugin, cds_db, cds_worker, cds_bundles as b; print(cds_plugin.__file__, b.__file__)"
    )
    done = installed.run("python", "-c", program)
    assert done.returncode == 0, done.stderr
    assert all(path.startswith(str(installed.folder)) for path in done.stdout.split())


def test_analyze_works_on_a_phantom(installed: Installed, tmp_path: Path) -> None:
    picture = tmp_path / "phantom.png"
    Image.fromarray(np.asarray(draw_phantom(seed=1).rgb)).save(picture)
    done = installed.run("cds-plugin", "analyze", str(picture), "--out", str(tmp_path / "out"), "--json")
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert line["input"] == str(picture)
    assert line["quality"]["verdict"] in ("diagnostic", "limited")
    assert set(line["bundles"]) == set(BUNDLE_NAMES)
    assert Path(line["outputs"]["sr"]).is_file()
