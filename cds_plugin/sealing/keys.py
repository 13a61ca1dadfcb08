"""The keys of sealed files: one file, a key per line, the last one seals; all of them open."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cds_plugin.durable import sync_folder
from cds_plugin.errors import Refused

KEY_BYTES = 32
"""AES-256."""
ID_BYTES = 8
"""Enough to tell the keys of one installation from each other."""
KEY_LINE = re.compile(r"[0-9a-fA-F]{64}")
SETTING = "storage.encryption_key_file"
MAKE_ONE = "Make one with: cds-plugin storage new-key FILE"
FILE_BYTES = 1 << 20
OTHERS = stat.S_IRWXO | stat.S_IWGRP
"""A group of its own may read: systemd's credentials and 640 root:GROUP look so."""


@dataclass(frozen=True, slots=True)
class Key:
    """One secret, and the name that sealed files call it by."""

    secret: bytes = field(repr=False)

    @property
    def id(self) -> bytes:
        """Return its name: a digest, which tells nothing about it."""
        return hashlib.sha256(b"cds-plugin storage key\0" + self.secret).digest()[:ID_BYTES]


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one file; `newest` seals."""

    newest: Key
    by_id: Mapping[bytes, Key] = field(repr=False)


def read_keys(file: Path, storage: Path) -> Keys:
    """Return the keys of a file that lies outside the storage directory. Raises Refused that says why not."""
    if file.resolve().is_relative_to(storage.resolve()):
        raise _wrong(file, "lies in the storage directory that it should protect", "Keep it elsewhere.")
    try:
        with file.open(encoding="ascii") as opened:
            facts, text = os.fstat(opened.fileno()), opened.read(FILE_BYTES + 1)
    except OSError as error:
        raise _wrong(file, f"can't be read ({error.strerror})", MAKE_ONE) from error
    except UnicodeDecodeError as error:
        raise _wrong(file, "is no text", MAKE_ONE) from error
    if facts.st_mode & OTHERS:
        raise _wrong(file, "may be read or written by others", f"chmod 600 {file}")
    return _parsed(file, text)


def add_key(file: Path) -> Key:
    """Write a new key behind those of a file, which is made where there is none; it seals from now on.

    Durable before it returns: what it seals is lost without it. Who may read the file stays as it was. The
    draft is taken before the old keys are read, so that of two who add one at once neither loses a key.
    Raises OSError.
    """
    key = Key(secrets.token_bytes(KEY_BYTES))
    file = file.resolve()
    draft = file.with_name(file.name + ".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(_old_keys(file, descriptor) + key.secret.hex().encode() + b"\n")
            opened.flush()
            os.fsync(descriptor)
        draft.replace(file)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(file.parent)
    return key


def _old_keys(file: Path, draft: int) -> bytes:
    """Return what a file of keys has, and give owner and mode of it to the draft that takes its place."""
    if not file.exists():
        return b""
    facts, old = file.stat(), file.read_bytes()
    if (facts.st_uid, facts.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(draft, facts.st_uid, facts.st_gid)
    os.fchmod(draft, stat.S_IMODE(facts.st_mode))
    return old if not old or old.endswith(b"\n") else old + b"\n"


def _parsed(file: Path, text: str) -> Keys:
    lines = [line.strip() for line in text.splitlines()]
    written = [line for line in lines if line and not line.startswith("#")]
    if not written:
        raise _wrong(file, "holds no key", MAKE_ONE)
    if len(text) > FILE_BYTES or not all(KEY_LINE.fullmatch(line) for line in written):
        raise _wrong(file, "should hold 64 hexadecimal digits per line", MAKE_ONE)
    keys = [Key(bytes.fromhex(line)) for line in written]
    return Keys(keys[-1], {each.id: each for each in keys})


def _wrong(file: Path, what: str, action: str) -> Refused:
    return Refused("storage_key", f"{SETTING}: {file} {what}.", action)
