"""A bundle's identity: one SHA-256 over all of its files, and the manifest that pins it. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

BUNDLE_NAMES = (
    "dermoscopy_quality_gate",
    "dermoscopy_lesion_segmentation",
    "dermoscopy_lesion_classification",
)
MANIFEST_NAME = "manifest.json"
_PACKAGE = Path(__file__).resolve().parent


class BundleMissing(LookupError):
    """A bundle folder, or a file that every bundle must have, is not where it should be."""


class BundleOdd(ValueError):
    """A bundle folder holds something that a digest over names and bytes would not speak for."""


def file_digest(path: Path) -> str:
    """Lower-case hexadecimal SHA-256 of one file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def bundle_digest(directory: Path) -> str:
    """SHA-256 over the sorted lines `<sha256>  <relative path>` of all files below `directory`.

    Paths are POSIX and relative to `directory`; lines are joined with a line feed and end with one. Raises
    `BundleMissing` when there is nothing to digest, `BundleOdd` for a link or another special file, and for a
    name that could be read as two lines.
    """
    files = list(_plain_files(directory))
    if not files:
        raise BundleMissing(f"{directory} holds no files")
    lines = sorted(f"{file_digest(path)}  {path.relative_to(directory).as_posix()}\n" for path in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _plain_files(directory: Path) -> Iterator[Path]:
    """Yield every file below `directory`; what a link points to could change without a trace."""
    if directory.is_symlink():
        raise BundleOdd(f"{directory} is a link; a bundle must be a folder of its own")
    for path in directory.rglob("*"):
        kind = path.lstat().st_mode
        if not path.name.isprintable():
            raise BundleOdd(f"{directory} holds a file whose name is not printable: {path.name!a}")
        if stat.S_ISREG(kind):
            yield path
        elif not stat.S_ISDIR(kind):
            raise BundleOdd(f"{path} is a link or special; a bundle holds plain files only")


def bundle_version(directory: Path) -> str:
    """The version that the bundle's own metadata.json states."""
    metadata = directory / "configs" / "metadata.json"
    if not metadata.is_file():
        raise BundleMissing(f"{metadata} is missing")
    return str(json.loads(metadata.read_text(encoding="utf-8"))["version"])


def read_manifest(path: Path) -> dict[str, str]:
    """Bundle name -> pinned SHA-256, as `write_manifest` wrote it."""
    if not path.is_file():
        raise BundleMissing(f"{path} is missing")
    return parse_manifest(path.read_bytes())


def parse_manifest(content: bytes) -> dict[str, str]:
    """Bundle name -> pinned SHA-256. Raises ValueError or LookupError for what is no manifest."""
    document = json.loads(content)
    if not isinstance(document, dict) or not isinstance(document["sha256"], dict):
        raise ValueError("no table of digests")
    return {str(name): str(digest) for name, digest in document["sha256"].items()}


def write_manifest(path: Path, digests: Mapping[str, str]) -> None:
    """Pins `digests` (bundle name -> SHA-256) in `path`, replacing it in one step."""
    document = {"digest": "sha256 over the sorted lines '<sha256>  <relative path>'", "sha256": dict(digests)}
    scratch = path.with_name(path.name + ".new")
    scratch.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    scratch.replace(path)


def shipped_manifest() -> Path:
    """The manifest that pins the bundles shipped with this package."""
    return _PACKAGE / MANIFEST_NAME


def shipped_bundles() -> dict[str, Path]:
    """Bundle name -> folder of those shipped: package data in a wheel, the sister folders in a checkout."""
    return bundles_in(_PACKAGE if (_PACKAGE / BUNDLE_NAMES[0]).is_dir() else _PACKAGE.parent)


def bundles_in(directory: Path) -> dict[str, Path]:
    """Bundle name -> folder below `directory`; `BundleMissing` names the absent ones."""
    missing = [name for name in BUNDLE_NAMES if not (directory / name).is_dir()]
    if missing:
        raise BundleMissing(f"{directory} lacks the bundle folders {', '.join(missing)}")
    return {name: directory / name for name in BUNDLE_NAMES}
