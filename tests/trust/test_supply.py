"""What we are built from is pinned: packages by version and hash, weights as files without code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from cds_bundles.digest import shipped_bundles

ROOT = Path(__file__).parents[2]
LOCKS = ("product", "develop", "fuzz")
EXTRAS = {
    "product": ("worker", "embedded"),
    "develop": ("worker", "embedded", "train", "dev"),
    "fuzz": ("fuzz",),
}
ENTRY = re.compile(r"(?P<asked>[^\\\n]+?) \\\n(?P<hashes>(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)")
HEADER_LENGTH_BYTES = 8
"""A safetensors file begins with the length of its JSON header, little-endian."""


def locked(name: str) -> dict[str, Requirement]:
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    return {
        canonicalize_name(found.name): found
        for found in (Requirement(each["asked"]) for each in ENTRY.finditer(text))
    }


def pinned_version(requirement: Requirement) -> Version:
    (only,) = requirement.specifier
    assert only.operator == "=="
    return Version(only.version)


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_locked_by_version_and_hash(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    rest = ENTRY.sub("", text).split("\n")
    assert [line for line in rest if line] == ["--only-binary :all:"], "no line without hashes, no setup.py"
    assert "://" not in text and "index" not in text
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = list(project["dependencies"])
    asked += [each for extra in EXTRAS[name] for each in project["optional-dependencies"][extra]]
    entries = locked(name)
    for each in map(Requirement, asked):
        entry = entries[canonicalize_name(each.name)]
        assert pinned_version(entry) in each.specifier, f"{each}: run make lock"


def test_the_locks_agree() -> None:
    develop = locked("develop")
    for name in ("product", "fuzz"):
        for package, entry in locked(name).items():
            assert package in develop or name == "fuzz"
            assert package not in develop or entry.specifier == develop[package].specifier


def test_what_is_installed_is_what_is_locked() -> None:
    wrong = {}
    for package, entry in locked("develop").items():
        if entry.marker is None or entry.marker.evaluate():
            found = _installed(package)
            if found is None or Version(found) != pinned_version(entry):
                wrong[package] = found
    assert wrong == {}, "run make setup"


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def test_whatever_installs_asks_for_the_hashes() -> None:
    """No pip in a recipe that would take what it finds: dependencies by hash, then ourselves without any."""
    for path in ("Makefile", "deploy/compose/Dockerfile", "docs/deploying.md", "README.md", "docs/models.md"):
        for line in re.findall(r"^.*\bpip install\b.*$", (ROOT / path).read_text(), re.MULTILINE):
            assert "--require-hashes" in line or "--no-deps" in line, f"{path}: {line}"


def test_weights_are_files_that_hold_no_code() -> None:
    for folder in shipped_bundles().values():
        for path in (folder / "models").iterdir():
            assert path.suffix in (".safetensors", ".json"), path
            content = path.read_bytes()
            if path.suffix == ".safetensors":
                length = int.from_bytes(content[:HEADER_LENGTH_BYTES], "little")
                content = content[HEADER_LENGTH_BYTES : HEADER_LENGTH_BYTES + length]
            json.loads(content)


def test_what_is_hidden_from_processes_under_test_is_no_part_of_the_product() -> None:
    program = "import sitecustomize; print(*sitecustomize.NOT_OF_THE_PRODUCT)"
    hidden = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    names = packages_distributions()
    distributions = {canonicalize_name(each) for name in hidden.stdout.split() for each in names[name]}
    assert distributions and not distributions & set(locked("product"))
