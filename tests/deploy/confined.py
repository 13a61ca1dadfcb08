"""Runs a command under what of a unit's or a container's confinement can be had without systemd or an engine.

    python confined.py '{"writable": [...], ...}' COMMAND...

The file system is read-only but for `writable`, no capability is left, no memory can be made code, and system
calls and address families that are not allowed give EPERM. The first two are left out where this process may
not ask for them, the third on an older kernel.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP, PR_SET_MDWE = 38, 24, 65
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
SCMP_ACT_ALLOW, SCMP_ACT_EPERM, SCMP_CMP_EQ = 0x7FFF0000, 0x00050001, 4
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
CAP_SETPCAP, CAP_SYS_ADMIN = 8, 21
MDWE_SINCE = (6, 3)
"""The kernel that can refuse to make memory code."""
LAST_CAPABILITY = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Confinement:
    """What a process may not do."""

    writable: tuple[str, ...] | None = None
    """The only folders that it may write to; None: it may write as its user may."""
    proc_subset: bool = False
    """Of /proc it sees processes only, nothing of the machine."""
    capabilities: bool = True
    new_privileges: bool = True
    writable_code: bool = True
    system_calls: tuple[str, ...] = ()
    """The names of those that are allowed; empty: every one is."""
    families: tuple[str, ...] = ()
    umask: int = 0o22

    def around(self, command: list[str]) -> list[str]:
        """Return the command line that runs `command` like this."""
        return [sys.executable, __file__, json.dumps(asdict(self)), *command]


class MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


class Compare(ctypes.Structure):
    _fields_ = [
        ("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)
    ]  # fmt: skip


def main() -> None:
    """Confine this process and become the command."""
    wanted, command = json.loads(sys.argv[1]), sys.argv[2:]
    os.umask(wanted["umask"])
    if wanted["writable"] is not None and _has_capability(CAP_SYS_ADMIN):
        _read_only_but_for(wanted["writable"], wanted["proc_subset"])
    if not wanted["capabilities"] and _has_capability(CAP_SETPCAP):
        _drop_capabilities()
    if not wanted["new_privileges"]:
        _prctl(PR_SET_NO_NEW_PRIVS, 1)
    if not wanted["writable_code"] and _kernel() >= MDWE_SINCE:
        _prctl(PR_SET_MDWE, 1)
    if wanted["system_calls"]:
        _filter(frozenset(wanted["system_calls"]), wanted["families"])
    os.execvp(command[0], command)


@cache
def allowed_by(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the system calls that a SystemCallFilter= allows, as this machine's systemd knows its groups.

    A ~ before a name or @group takes it away again.
    """
    calls: set[str] = set()
    for word in words:
        named = _members(word.lstrip("~"))
        calls = calls - named if word.startswith("~") else calls | named
    return tuple(sorted(calls))


@cache
def _members(word: str) -> frozenset[str]:
    if not word.startswith("@"):
        return frozenset({word})
    shown = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", word], capture_output=True, text=True, check=True
    ).stdout
    inner = [line.strip() for line in shown.splitlines()[1:] if line.strip() and "#" not in line]
    return frozenset().union(*(_members(each) for each in inner))


def _kernel() -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))


def _has_capability(number: int) -> bool:
    (line,) = (each for each in Path("/proc/self/status").read_text().splitlines() if "CapEff" in each)
    return bool(int(line.split()[1], 16) >> number & 1)


def _read_only_but_for(folders: list[str], proc_subset: bool) -> None:
    _check(LIBC.unshare(CLONE_NEWNS))
    _check(LIBC.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    if proc_subset:
        _check(LIBC.mount(b"proc", b"/proc", b"proc", 0, b"subset=pid,hidepid=invisible"))
    for folder in folders:
        _check(LIBC.mount(folder.encode(), folder.encode(), None, MS_BIND, None))
    _set_mount("/", MountAttr(set=MOUNT_ATTR_RDONLY), AT_RECURSIVE)
    for folder in (*folders, "/dev", "/proc"):
        _set_mount(folder, MountAttr(clear=MOUNT_ATTR_RDONLY), AT_RECURSIVE)


def _set_mount(folder: str, change: MountAttr, flags: int) -> None:
    size = ctypes.c_size_t(ctypes.sizeof(change))
    _check(LIBC.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, folder.encode(), flags, ctypes.byref(change), size))


def _drop_capabilities() -> None:
    for number in range(LAST_CAPABILITY + 1):
        _prctl(PR_CAPBSET_DROP, number)
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)


def _filter(calls: frozenset[str], families: list[str]) -> None:
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(SCMP_ACT_EPERM))
    for name in sorted(calls - ({"socket"} if families else set())):
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            _check(seccomp.seccomp_rule_add(context, SCMP_ACT_ALLOW, number, 0))
    for family in families:
        only = Compare(arg=0, op=SCMP_CMP_EQ, a=FAMILIES[family])
        number = seccomp.seccomp_syscall_resolve_name(b"socket")
        _check(seccomp.seccomp_rule_add_array(context, SCMP_ACT_ALLOW, number, 1, ctypes.byref(only)))
    _check(seccomp.seccomp_load(context))


def _prctl(*words: int) -> None:
    _check(LIBC.prctl(*words, *[0] * (5 - len(words))))


def _check(code: int) -> None:
    if code != 0:
        raise OSError(ctypes.get_errno() or -code, f"{os.strerror(ctypes.get_errno() or abs(code))}")


if __name__ == "__main__":
    main()
