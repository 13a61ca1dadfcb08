"""MONAI bundles: signature, then digests, then a parser (a bundle's configuration is code)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from cds_bundles.digest import (
    BUNDLE_NAMES,
    MANIFEST_NAME,
    BundleMissing,
    BundleOdd,
    bundle_digest,
    bundles_in,
    parse_manifest,
    shipped_bundles,
    shipped_manifest,
)
from cds_bundles.signing import KeyUnusable, NotSigned, Trust, read_signature, read_small, signer
from cds_plugin.config import BundleFolder
from cds_plugin.errors import Refused
from cds_plugin.study import BundleIdentity, Bundles, Sha256
from cds_worker.stack import Stack

PREDICTOR_KEY = "predictor"

log = structlog.get_logger("bundles")

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
    doubt: str = ""
    """Why no trusted key vouches for them; only where the settings allow that, else empty."""

    @property
    def identities(self) -> Bundles:
        """Return who they are, as results and audit name them."""
        return Bundles(self.quality_gate.identity, self.segmentation.identity, self.classification.identity)


def check_bundles(where: BundleFolder) -> CheckedBundles:
    """Return the bundles in the folder of the settings (empty: those shipped), signature and digests checked.

    Raises Refused for a missing folder or manifest, for a manifest that no trusted key signed unless the
    settings allow that, and for a folder whose bytes differ from what was pinned.
    """
    folders, manifest = _locate(where.directory)
    try:
        content, signature = read_small(manifest), read_signature(manifest)
    except OSError as error:
        raise _missing(f"{error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise Refused("bundle_manifest", f"{error}.", "Restore the manifest.") from error
    doubt = _doubt(manifest, content, signature, where)
    pinned = _pinned(content)
    gate, segmentation, classification = (_check(name, folders[name], pinned) for name in BUNDLE_NAMES)
    return CheckedBundles(gate, segmentation, classification, doubt)


def _locate(directory: str) -> tuple[Mapping[str, Path], Path]:
    try:
        if not directory:
            return shipped_bundles(), shipped_manifest()
        return bundles_in(Path(directory)), Path(directory) / MANIFEST_NAME
    except (BundleMissing, OSError) as error:
        raise _missing(str(error)) from error


def _doubt(manifest: Path, content: bytes, signature: bytes | None, where: BundleFolder) -> str:
    """Return why no trusted key vouches for the manifest, empty where one does; only if that is allowed."""
    try:
        signer(content, signature, Trust.of(where.trusted_keys, where.revoked_keys))
    except (NotSigned, KeyUnusable) as error:
        if not where.allow_unsigned:
            raise _unsigned(manifest, where.directory, str(error)) from error
        log.warning("bundles-not-signed", manifest=str(manifest), problem=str(error))
        return str(error)
    return ""


def _unsigned(manifest: Path, directory: str, problem: str) -> Refused:
    option = f" --directory {directory}" if directory else ""
    return Refused(
        "bundle_unsigned",
        f"No trusted key signed {manifest}: {problem}.",
        f"Have its maker run: cds-plugin bundle sign{option} --key FILE, and name that key in "
        "bundles.trusted_keys; for trials alone: bundles.allow_unsigned = true.",
    )


def _pinned(content: bytes) -> Mapping[str, str]:
    try:
        return parse_manifest(content)
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
    except BundleOdd as error:
        raise Refused("bundle_files", f"{error}.", "Restore the bundle's files.") from error
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
