"""The command `bundle`: which bundles these are, whether they are as pinned, and who vouches for them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cds_bundles.answering import DirectoryOption, JsonOption, failure, print_json
from cds_bundles.digest import (
    MANIFEST_NAME,
    BundleMissing,
    BundleOdd,
    bundle_digest,
    bundle_version,
    bundles_in,
    parse_manifest,
    shipped_bundles,
    shipped_manifest,
    write_manifest,
)
from cds_bundles.model_card import add_figures, rewrite
from cds_bundles.signing import (
    KeyUnusable,
    NotSigned,
    Trust,
    key_id,
    new_private_key,
    public_text,
    read_private_key,
    read_signature,
    read_small,
    sign,
    signature_beside,
    signer,
)

DEFAULT_KEY = Path("~/.config/cds-plugin/bundle-signing-key.pem")
"""Where a release engineer's key may lie; outside every checkout."""
KEY_VARIABLE = "CDS_SIGNING_KEY"

bundle = typer.Typer(help="Model bundles: list, verify, pin and sign them.", no_args_is_help=True)

KeysOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--key",
        envvar=KEY_VARIABLE,
        help=f"Private key, PEM; may be given several times (default: {DEFAULT_KEY}).",
        dir_okay=False,
    ),
]
TrustedOption = Annotated[
    list[str] | None,
    typer.Option("--trusted-key", metavar="BASE64", help="A public key to trust beside the built-in ones."),
]
RevokedOption = Annotated[
    list[str] | None,
    typer.Option("--revoked-key", metavar="ID", help="The id of a key not to trust any more."),
]
UnsignedOption = Annotated[bool, typer.Option("--allow-unsigned", help="Say so, but don't fail for it.")]


@bundle.command()
def card(
    directory: Annotated[Path, typer.Argument(help="A bundle's folder.", exists=True, file_okay=False)],
    section: Annotated[str, typer.Option(help="Heading of the figures in the card.")] = "",
    figures: Annotated[
        Path | None, typer.Option(help="Report of an evaluation, JSON.", exists=True, dir_okay=False)
    ] = None,
) -> None:
    """Put an evaluation's figures into a bundle's metadata, and the metadata's figures into its README."""
    if bool(section) != bool(figures):
        raise typer.BadParameter("--section and --figures go together")
    try:
        if figures:
            add_figures(directory, section, json.loads(figures.read_text(encoding="utf-8")))
        rewrite(directory)
    except (ValueError, OSError) as problem:
        raise failure(str(problem)) from problem


@bundle.command("list")
def list_bundles(directory: DirectoryOption = None, as_json: JsonOption = False) -> None:
    """List the bundles with version and SHA-256."""
    folders = _bundles(directory)
    for name, digest in _digests(folders).items():
        document = {"name": name, "version": _version(folders[name]), "sha256": digest}
        if as_json:
            print_json(document | {"directory": str(folders[name])})
        else:
            typer.echo("  ".join(document.values()))


@bundle.command()
def verify(
    directory: DirectoryOption = None,
    trusted_key: TrustedOption = None,
    revoked_key: RevokedOption = None,
    allow_unsigned: UnsignedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check who signed the manifest, and the bundles against it; exit 1 when one is not as it should be."""
    manifest = _manifest(directory)
    content, pinned = _read_manifest(manifest)
    signed_by, doubt = _signer(manifest, content, trusted_key or (), revoked_key or ())
    digests = _digests(_bundles(directory))
    for name, digest in digests.items():
        intact = pinned.get(name) == digest
        row = {"name": name, "sha256": digest, "pinned": pinned.get(name), "intact": intact}
        if as_json:
            print_json(row | {"signed_by": signed_by})
        else:
            typer.echo(f"{name}  {'intact' if intact else 'CHANGED'}  {digest}")
    typer.echo(f"{manifest}: {doubt or f'signed by key {signed_by}'}", err=True)
    if changed := [name for name, digest in digests.items() if pinned.get(name) != digest]:
        raise failure(f"not as the manifest pins them: {', '.join(changed)}; restore them, or pin them anew")
    if doubt and not allow_unsigned:
        raise failure(_how_to_sign(directory))


@bundle.command()
def pin(directory: DirectoryOption = None, key: KeysOption = None, as_json: JsonOption = False) -> None:
    """Write the bundles' present digests into the manifest, and sign it where a key is at hand."""
    keys, manifest = _keys(key), _manifest(directory)
    digests = _digests(_bundles(directory))
    before = manifest.read_bytes() if manifest.is_file() else None
    write_manifest(manifest, digests)
    signed = _sign(manifest, keys) if keys else ()
    if not keys and manifest.read_bytes() != before:
        signature_beside(manifest).unlink(missing_ok=True)
    if as_json:
        print_json({"manifest": str(manifest), "sha256": digests, "signed_by": list(signed)})
    else:
        typer.echo(f"pinned {len(digests)} bundles in {manifest}" + _by(signed))
    if read_signature(manifest) is None:
        typer.echo(
            f"not signed: worker, analyze and evaluate refuse them. {_how_to_sign(directory)}", err=True
        )


@bundle.command("sign")
def sign_manifest(
    directory: DirectoryOption = None, key: KeysOption = None, as_json: JsonOption = False
) -> None:
    """Sign the manifest, once the bundles are as it pins them."""
    keys, manifest = _keys(key), _manifest(directory)
    if not keys:
        raise failure(f"no private key at hand. {_how_to_sign(directory)}")
    _, pinned = _read_manifest(manifest)
    digests = _digests(_bundles(directory))
    if changed := [name for name, digest in digests.items() if pinned.get(name) != digest]:
        raise failure(f"not as the manifest pins them: {', '.join(changed)}; run: cds-plugin bundle pin")
    signed = _sign(manifest, keys)
    if as_json:
        print_json({"manifest": str(manifest), "signed_by": list(signed)})
    else:
        typer.echo(str(manifest) + _by(signed))


@bundle.command()
def keygen(
    out: Annotated[Path, typer.Option(help="File for the private key; never overwritten.", dir_okay=False)],
    as_json: JsonOption = False,
) -> None:
    """Make a private key to sign bundles with, and print the public key that settings trust."""
    try:
        made = new_private_key(out).public_key()
    except OSError as problem:
        raise failure(f"{out}: {problem.strerror}; choose another --out") from problem
    if as_json:
        print_json({"private_key": str(out), "key_id": key_id(made), "public_key": public_text(made)})
    else:
        typer.echo(f'key {key_id(made)}\n[bundles]\ntrusted_keys = ["{public_text(made)}"]')


def _how_to_sign(directory: Path | None) -> str:
    where = f" --directory {directory}" if directory else ""
    return (
        f"Run: cds-plugin bundle sign{where} --key FILE (or with {KEY_VARIABLE}=FILE in the environment), "
        "where FILE is made by: cds-plugin bundle keygen --out FILE"
    )


def _by(signed: Sequence[str]) -> str:
    return f", signed by key {', '.join(signed)}" if signed else ""


def _keys(given: Sequence[Path] | None) -> tuple[Ed25519PrivateKey, ...]:
    """Return the private keys that were named, else the one at the usual place, else none."""
    usual = DEFAULT_KEY.expanduser()
    files = given or ([usual] if usual.is_file() else [])
    try:
        return tuple(map(read_private_key, files))
    except KeyUnusable as problem:
        raise failure(str(problem)) from problem


def _sign(manifest: Path, keys: Sequence[Ed25519PrivateKey]) -> tuple[str, ...]:
    signature_beside(manifest).write_bytes(sign(manifest.read_bytes(), keys))
    return tuple(key_id(key.public_key()) for key in keys)


def _signer(
    manifest: Path, content: bytes, trusted: Sequence[str], revoked: Sequence[str]
) -> tuple[str | None, str]:
    """Return the key that vouches for a manifest, or None and why there is none."""
    try:
        return signer(content, read_signature(manifest), Trust.of(trusted, revoked)), ""
    except KeyUnusable as problem:
        raise failure(str(problem)) from problem
    except (NotSigned, ValueError, OSError) as problem:
        return None, f"not signed by a trusted key: {problem}"


def _read_manifest(manifest: Path) -> tuple[bytes, dict[str, str]]:
    try:
        content = read_small(manifest)
        return content, parse_manifest(content)
    except (ValueError, LookupError, OSError) as problem:
        raise failure(f"{manifest} can't be read: {problem}") from problem


def _bundles(directory: Path | None) -> dict[str, Path]:
    try:
        return bundles_in(directory) if directory else shipped_bundles()
    except BundleMissing as problem:
        raise failure(str(problem)) from problem


def _digests(folders: Mapping[str, Path]) -> dict[str, str]:
    try:
        return {name: bundle_digest(folder) for name, folder in folders.items()}
    except (BundleMissing, BundleOdd, OSError) as problem:
        raise failure(str(problem)) from problem


def _manifest(directory: Path | None) -> Path:
    return directory / MANIFEST_NAME if directory else shipped_manifest()


def _version(folder: Path) -> str:
    try:
        return bundle_version(folder)
    except BundleMissing as problem:
        raise failure(str(problem)) from problem
