"""Where a backup lies: a folder, which later backups add to, or one tar file."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from cds_plugin.backup.manifest import FILES, MANIFEST, MANIFEST_BYTES, Manifest, manifest_of, sums_of
from cds_plugin.durable import PART, PRIVATE, locked, sync_file, sync_folder
from cds_plugin.errors import Refused

CHUNK_BYTES = 1 << 20
PRIVATE_FILE = 0o600
TAR = ".tar"
OURS = re.compile(
    rf"{FILES}|database-[0-9TZ]+|(SHA256SUMS-[0-9TZ]+|settings-[0-9TZ]+\.json|manifest\.json)(\.part)?"
)
"""What a backup that was interrupted may have left in a folder before it had a manifest."""


class Readable(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""


class Target(ABC):
    """A backup that is being made."""

    @abstractmethod
    def put(self, name: str, source: Path) -> tuple[str, int]:
        """Copy a file under a name; return the SHA-256 and the number of its bytes."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Write a small file."""

    @abstractmethod
    def finish(self, manifest: Manifest, names: Collection[str]) -> None:
        """Write the manifest last: before it there is no backup. `names` are its files."""


class FolderTarget(Target):
    """A folder. A file that an earlier backup has, unchanged since, is not copied again.

    What changed since (it was sealed, say) lies beside the earlier one until the end: a backup that is
    interrupted leaves the earlier one whole.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = _known_sums(folder)
        self._changed: list[tuple[Path, Path]] = []

    def put(self, name: str, source: Path) -> tuple[str, int]:
        target = self._folder / name
        facts = source.stat()
        if name in self._known and _is_same(target, facts):
            return self._known[name], facts.st_size
        target.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        draft = target.with_name(target.name + PART)
        with source.open("rb") as opened, new_private(draft) as copy:
            sha256, size = copied(opened, copy)
            copy.flush()
            os.fsync(copy.fileno())
        os.utime(draft, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        if name in self._known:
            self._changed.append((draft, target))
        else:
            draft.replace(target)
        return sha256, size

    def write(self, name: str, content: bytes) -> None:
        target = self._folder / name
        draft = target.with_name(target.name + PART)
        with new_private(draft) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)

    def finish(self, manifest: Manifest, names: Collection[str]) -> None:
        for draft, target in self._changed:
            draft.replace(target)
        self._sync(names)
        self.write(MANIFEST, manifest.as_bytes())
        sync_folder(self._folder)
        self._forget_all_but({*names, MANIFEST, manifest.sums})

    def _sync(self, names: Collection[str]) -> None:
        for folder in {(self._folder / name).parent for name in names}:
            sync_folder(folder)

    def _forget_all_but(self, names: Collection[str]) -> None:
        """Remove what only earlier backups had: also what a retention rule has let go since."""
        ours = [self._folder / FILES, *self._folder.glob("database-*")]
        ours += [*self._folder.glob("SHA256SUMS-*"), *self._folder.glob("settings-*.json")]
        ours += self._folder.glob(f"settings-*.json{PART}")
        for path in (file for each in ours for file in (each, *each.rglob("*")) if file.is_file()):
            if path.relative_to(self._folder).as_posix() not in names:
                path.unlink()
        for folder in self._folder.glob("database-*"):
            if not any(folder.iterdir()):
                folder.rmdir()


class TarTarget(Target):
    """One file, written whole each time."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar

    def put(self, name: str, source: Path) -> tuple[str, int]:
        with source.open("rb") as opened:
            hashing = _HashingReader(opened)
            member = tarfile.TarInfo(name)
            facts = os.fstat(opened.fileno())
            member.size, member.mode, member.mtime = facts.st_size, PRIVATE_FILE, int(facts.st_mtime)
            self._tar.addfile(member, cast("BinaryIO", hashing))
        return hashing.hexdigest(), member.size

    def write(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), PRIVATE_FILE
        self._tar.addfile(member, BytesIO(content))

    def finish(self, manifest: Manifest, names: Collection[str]) -> None:
        self.write(MANIFEST, manifest.as_bytes())


class Source:
    """A backup that lies there; `open` gives its files by their names."""

    def __init__(
        self, open_file: Callable[[str], BinaryIO], modified: Callable[[str], float] = lambda _name: 0.0
    ) -> None:
        """`modified` says when a file was last written before it was copied, in seconds since 1970."""
        self._open = open_file
        self.modified = modified
        self.manifest = manifest_of(self._read(MANIFEST, MANIFEST_BYTES))
        content = self._read(self.manifest.sums, None)
        if hashlib.sha256(content).hexdigest() != self.manifest.sums_sha256:
            raise damaged(self.manifest.sums)
        self.sums = sums_of(content, self.manifest)

    def open(self, name: str) -> BinaryIO:
        """Return an open file of the backup. Raises Refused where it is missing."""
        try:
            return self._open(name)
        except (OSError, KeyError, tarfile.TarError) as error:
            raise Refused("backup_damaged", f"{name} is missing from the backup.", OTHER_BACKUP) from error

    def copy(self, name: str, *targets: BinaryIO) -> None:
        """Copy a file to every target. Raises Refused where its bytes are not those of the list."""
        with self.open(name) as file:
            sha256, _ = copied(_Readable(file, name), *targets)
        if sha256 != self.sums[name]:
            raise damaged(name)

    def _read(self, name: str, most: int | None) -> bytes:
        with self.open(name) as file:
            content = _Readable(file, name).read(-1 if most is None else most + 1)
        if most is not None and len(content) > most:
            raise damaged(name)
        return content


OTHER_BACKUP = "Take another backup."


def damaged(name: str) -> Refused:
    """Return the refusal of a file whose bytes are not those of the list."""
    return Refused("backup_damaged", f"{name} is not as it was written.", OTHER_BACKUP)


@contextmanager
def opened_target(out: Path) -> Iterator[Target]:
    """Yield the backup to be made at `out`: a tar file where it ends so, else a folder."""
    if out.suffix != TAR:
        if out.exists() and not out.is_dir():
            raise Refused("not_a_folder", f"{out} is a file.", "Name a folder, or a file that ends in .tar.")
        if out.is_dir():
            _known_sums(out)
        for folder in (out, out / FILES):
            folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        try:
            with locked(out / FILES, fcntl.LOCK_EX | fcntl.LOCK_NB):
                yield FolderTarget(out)
        except BlockingIOError as error:
            raise Refused("backup_runs", f"Another backup writes to {out}.", "Wait for it.") from error
        return
    out.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    draft = out.with_name(out.name + PART)
    try:
        with new_private(draft) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
            yield TarTarget(tar)
        sync_file(draft)
        draft.replace(out)
        sync_folder(out.parent)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def opened_source(place: Path) -> Iterator[Source]:
    """Yield the backup at `place`, its manifest read. Raises Refused."""
    with ExitStack() as held:
        if place.is_dir():
            held.enter_context(_no_backup_into(place))
            yield _folder_source(place)
            return
        try:
            tar = held.enter_context(tarfile.open(place, "r:"))
            members = {each.name: each for each in tar if each.isreg()}
        except (tarfile.TarError, OSError) as error:
            what = f"{place} is neither a folder nor a whole tar file."
            raise Refused("not_a_backup", what, "Name what cds-plugin backup made.") from error
        yield Source(
            lambda name: cast("BinaryIO", tar.extractfile(members[name])), lambda name: members[name].mtime
        )


def _folder_source(place: Path) -> Source:
    return Source(lambda name: (place / name).open("rb"), lambda name: (place / name).stat().st_mtime)


@contextmanager
def _no_backup_into(place: Path) -> Iterator[None]:
    """While the block runs no backup changes a folder. Raises Refused where one does."""
    with ExitStack() as held:
        if (place / FILES).is_dir():
            try:
                held.enter_context(locked(place / FILES, fcntl.LOCK_SH | fcntl.LOCK_NB))
            except BlockingIOError as error:
                raise Refused("backup_runs", f"A backup writes to {place}.", "Wait for it.") from error
        yield


def copied(source: Readable, *targets: BinaryIO) -> tuple[str, int]:
    """Copy all bytes to every target; return their SHA-256 and number."""
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
        for target in targets:
            target.write(chunk)
    return digest.hexdigest(), size


class _Readable:
    """A file of a backup; one that fails or ends early while it is read is damaged."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name

    def read(self, size: int, /) -> bytes:
        try:
            return self._file.read(size)
        except (OSError, tarfile.TarError) as error:
            raise damaged(self._name) from error


class _HashingReader:
    """Reads a file for tarfile and hashes what passes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self._digest.update(chunk)
        return chunk

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def _known_sums(folder: Path) -> dict[str, str]:
    """Return what an earlier backup in the folder has; a folder that holds something else is refused."""
    if (folder / MANIFEST).exists():
        return _folder_source(folder).sums
    if not all(OURS.fullmatch(each.name) for each in folder.iterdir()):
        raise Refused("not_empty", f"{folder} holds something else.", "Name an empty folder, or a new one.")
    return {}


def _is_same(copy: Path, facts: os.stat_result) -> bool:
    try:
        there = copy.stat()
    except FileNotFoundError:
        return False
    return (there.st_size, there.st_mtime_ns) == (facts.st_size, facts.st_mtime_ns)


def new_private(path: Path) -> BinaryIO:
    """Return a new, empty file that only its owner may read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE), "wb")
