"""Who vouches for the bundles: Ed25519 signatures (RFC 8032) over the manifest's bytes, and whom to believe.

A manifest pins every byte of the bundles; `manifest.sig` beside it holds the signatures of one or more keys.
One good signature of a trusted key that is not revoked is enough, so an old and a new key can stand side by
side while a site changes over. Imports no torch.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE_NAME = "manifest.sig"
BUILT_IN_KEYS: tuple[str, ...] = ("yAurP3dYP1eE6ZPvW5BHLpB51SlM4wyLroANVHov5t0=",)
"""Public keys that vouch for the bundles in this package: base64 of 32 bytes (RFC 8032 section 5.1.5)."""
PURPOSE = b"cds-plugin bundle manifest, version 1\n"
"""Signed in front of the manifest: a signature made for anything else says nothing here."""
KEY_ID_CHARACTERS = 32
"""128 bits of the key's SHA-256: names a key; trust is decided by the whole key."""
KEY_ID = re.compile(f"[0-9a-f]{{{KEY_ID_CHARACTERS}}}")
MAX_SIGNATURES = 16
"""A change of keys needs two."""
MAX_FILE_BYTES = 1 << 20
"""A manifest or signature file is some hundred bytes."""
PRIVATE_FILE = 0o600


class NotSigned(ValueError):
    """No trusted key vouches for the manifest; the text says why."""


class KeyUnusable(ValueError):
    """A file that should hold a private or public key doesn't; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose signatures count: key id -> public key, without the revoked ones."""

    keys: Mapping[str, Ed25519PublicKey]
    revoked: frozenset[str]

    @classmethod
    def of(cls, more: Iterable[str] = (), revoked: Iterable[str] = ()) -> Self:
        """Return the trust in the built-in keys and `more` (base64), without those of the ids `revoked`.

        Raises KeyUnusable for a key, and for what is no id: it would revoke nothing.
        """
        known = {key_id(each): each for each in map(public_key, (*BUILT_IN_KEYS, *more))}
        gone = frozenset(revoked)
        if wrong := [each for each in gone if not KEY_ID.fullmatch(each)]:
            raise KeyUnusable(f"{wrong[0][:60]!r} is no key id: {KEY_ID_CHARACTERS} hexadecimal digits")
        return cls({name: key for name, key in known.items() if name not in gone}, gone)


def public_key(text: str) -> Ed25519PublicKey:
    """Return the key that `text`, base64 of 32 bytes, holds. Raises KeyUnusable."""
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error) as error:
        raise KeyUnusable(f"{text[:60]!r} is no Ed25519 public key: base64 of 32 bytes") from error


def public_text(key: Ed25519PublicKey) -> str:
    """Return a key as settings hold it: base64 of its 32 bytes."""
    return base64.b64encode(key.public_bytes_raw()).decode()


def key_id(key: Ed25519PublicKey) -> str:
    """Return the name of a key: the first 32 hexadecimal digits of the SHA-256 over its 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:KEY_ID_CHARACTERS]


def signer(manifest: bytes, signature: bytes | None, trust: Trust) -> str:
    """Return the id of a trusted key that signed `manifest`; `signature` is the content of manifest.sig.

    Raises NotSigned.
    """
    if signature is None:
        raise NotSigned(f"there is no {SIGNATURE_NAME}")
    problems = []
    for name, value in _signatures(signature):
        if name in trust.revoked:
            problems.append(f"key {name} is revoked")
        elif name not in trust.keys:
            problems.append(f"key {name} is not trusted")
        elif _matches(trust.keys[name], value, manifest):
            return name
        else:
            problems.append(f"the signature of key {name} does not match")
    raise NotSigned("; ".join(problems) or f"{SIGNATURE_NAME} holds no signature")


def _matches(key: Ed25519PublicKey, signature: bytes, manifest: bytes) -> bool:
    try:
        key.verify(signature, PURPOSE + manifest)
    except InvalidSignature:
        return False
    return True


def _signatures(content: bytes) -> list[tuple[str, bytes]]:
    try:
        rows = json.loads(content)["signatures"]
        pairs = [(str(row["key_id"]), base64.b64decode(row["signature"], validate=True)) for row in rows]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise NotSigned(f"{SIGNATURE_NAME} can't be read ({type(error).__name__})") from error
    if len(pairs) > MAX_SIGNATURES:
        raise NotSigned(f"{SIGNATURE_NAME} holds more than {MAX_SIGNATURES} signatures")
    return pairs


def sign(manifest: bytes, keys: Sequence[Ed25519PrivateKey]) -> bytes:
    """Return the content of manifest.sig: one signature per key over `manifest`."""
    rows = [
        {
            "key_id": key_id(key.public_key()),
            "signature": base64.b64encode(key.sign(PURPOSE + manifest)).decode(),
        }
        for key in keys
    ]
    document = {
        "algorithm": "Ed25519 over the purpose line and the bytes of manifest.json",
        "signatures": rows,
    }
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


def signature_beside(manifest: Path) -> Path:
    """Return where the signatures of a manifest lie."""
    return manifest.with_name(SIGNATURE_NAME)


def read_small(path: Path) -> bytes:
    """Return the content of a manifest or signature file. Raises OSError, or ValueError for a huge one."""
    with path.open("rb") as stream:
        content = stream.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    return content


def read_signature(manifest: Path) -> bytes | None:
    """Return the content of the manifest.sig beside a manifest, None where there is none."""
    try:
        return read_small(signature_beside(manifest))
    except FileNotFoundError:
        return None


def new_private_key(path: Path) -> Ed25519PrivateKey:
    """Make a key and keep it in `path`, PKCS #8 PEM for its owner only. Raises OSError if that is there."""
    key = Ed25519PrivateKey.generate()
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    return key


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Return the Ed25519 key in a PEM file that nobody but its owner may read. Raises KeyUnusable."""
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise KeyUnusable(f"{path}: others may read it; chmod 600 it")
        key = serialization.load_pem_private_key(read_small(path), password=None)
    except OSError as error:
        raise KeyUnusable(f"{path}: {error.strerror}") from error
    except (TypeError, UnsupportedAlgorithm) as error:
        raise KeyUnusable(
            f"{path}: is encrypted or of an unknown kind; wanted is a plain Ed25519 key"
        ) from error
    except KeyUnusable:
        raise
    except ValueError as error:
        raise KeyUnusable(f"{path}: holds no private key in PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnusable(f"{path}: holds a key, but none of Ed25519")
    return key
