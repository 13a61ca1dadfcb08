"""MONAI bundles: the digest of the whole folder first, then a parser (a bundle's configuration is code)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cds_bundles.digest import (
    BUNDLE_NAMES,
    MANIFEST_NAME,
    BundleMissing,
    bundle_digest,
    bundles_in,
    read_manifest,
    shipped_bundles,
    shipped_manifest,
)
from cds_plugin.errors import Refused
from cds_plugin.study import BundleIdentity, Bundles, Sha256
from cds_worker.stack import Stack

PREDICTOR_KEY = "predictor"
_INSTANTIATION_ERRORS = (
    RuntimeError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ImportError,
    AttributeError,
)


@dataclass(frozen=True, slots=True)
class CheckedBundle:
    """A folder whose digest equals the one its manifest pins; only such a folder is ever parsed."""

    identity: BundleIdentity
    directory: Path


@dataclass(frozen=True, slots=True)
class CheckedBundles:
    """The three bundles of the pipeline."""

    quality_gate: CheckedBundle
    segmentation: CheckedBundle
    classification: CheckedBundle

    @property
    def identities(self) -> Bundles:
        """Return who they are, as results and audit name them."""
        return Bundles(self.quality_gate.identity, self.segmentation.identity, self.classification.identity)


def check_bundles(directory: str) -> CheckedBundles:
    """Return the bundles below `directory` (empty: those shipped), each with its digest checked.

    Raises Refused for a missing folder or manifest, and for a folder whose bytes differ from what was pinned.
    """
    folders, pinned = _locate(directory)
    return CheckedBundles(*(_check(name, folders[name], pinned) for name in BUNDLE_NAMES))


def _locate(directory: str) -> tuple[Mapping[str, Path], Mapping[str, str]]:
    try:
        if not directory:
            return shipped_bundles(), read_manifest(shipped_manifest())
        return bundles_in(Path(directory)), read_manifest(Path(directory) / MANIFEST_NAME)
    except (BundleMissing, OSError) as error:
        raise _missing(str(error)) from error
    except (ValueError, LookupError) as error:
        raise Refused(
            "bundle_manifest", f"The bundle manifest can't be read: {error!r}.", "Restore the manifest."
        ) from error


def _missing(message: str) -> Refused:
    return Refused(
        "bundle_missing", message, "Install the bundles again, or correct the setting bundles.directory."
    )


def _check(name: str, directory: Path, pinned: Mapping[str, str]) -> CheckedBundle:
    try:
        found = bundle_digest(directory)
    except (BundleMissing, OSError) as error:
        raise _missing(str(error)) from error
    if pinned.get(name) != found:
        raise Refused(
            "bundle_digest",
            f"The bundle {name} has sha256 {found}; its manifest pins {pinned.get(name, 'none')}.",
            "Restore the bundle's files, or have who trained it pin the new digest.",
        )
    return CheckedBundle(BundleIdentity(name, _version(directory), Sha256(found)), directory)


def _version(directory: Path) -> str:
    metadata = directory / "configs" / "metadata.json"
    try:
        return str(json.loads(metadata.read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise Refused(
            "bundle_metadata", f"{metadata} names no version: {error!r}.", "Restore the bundle's files."
        ) from error


def load_predictor(bundle: CheckedBundle, stack: Stack, device: str) -> Any:
    """Return the bundle's `predictor` on `device`, built by MONAI's ConfigParser from configs/inference.json.

    Raises Refused where the configuration can't be built.
    """
    try:
        parser = stack.config_parser()
        parser.read_config(str(bundle.directory / "configs" / "inference.json"))
        parser.read_meta(str(bundle.directory / "configs" / "metadata.json"))
        parser.update({"bundle_root": str(bundle.directory), "device": device})
        return parser.get_parsed_content(PREDICTOR_KEY)
    except _INSTANTIATION_ERRORS as error:
        raise Refused(
            "bundle_unusable",
            f"The bundle {bundle.identity.name} can't be built on {device}: {error}",
            "Install the libraries that the bundle's metadata.json names, or choose another device.",
        ) from error
