"""A small disk of its own for the storage folder, which can be filled up; only root can mount one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

BALLAST = "ballast"
TRIES = 3
"""Others write to the disk at the same time."""


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[bool]:
    """Mount a tmpfs on `folder` and yield whether that worked; it is unmounted at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=700", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


def cleared(folder: Path) -> None:
    """Remove a folder with all that a killed campaign left mounted in it."""
    mounted = [Path(each.mountpoint) for each in psutil.disk_partitions(all=True)]
    for place in sorted(each for each in mounted if each.is_relative_to(folder.resolve())):
        subprocess.run(["umount", "--lazy", str(place)], check=False)
    shutil.rmtree(folder, ignore_errors=True)


def fill(folder: Path, leave_bytes: int) -> None:
    """Fill the disk of `folder` until `leave_bytes` are free."""
    with (folder / BALLAST).open("ab") as ballast:
        for _ in range(TRIES):
            state = os.statvfs(folder)
            missing = state.f_bavail * state.f_frsize - leave_bytes
            with suppress(OSError):
                if missing > 0:
                    os.posix_fallocate(ballast.fileno(), os.fstat(ballast.fileno()).st_size, missing)


def relieve(folder: Path) -> None:
    """Give the room back."""
    (folder / BALLAST).unlink(missing_ok=True)
