"""mount(2) and its kin, which the standard library does not have.

Owns: the system calls, and what /proc/self/mountinfo says of resctrl. Must not know: who may do what.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

__all__ = [
    "attach",
    "detached_copy",
    "is_mounted_at",
    "mount_points",
    "mount_resctrl",
    "own_mount_namespace",
    "remount",
    "unmount",
]

_MS_RDONLY: Final = 1
_MS_REMOUNT: Final = 32
_CLONE_NEWNS: Final = 0x00020000
_MS_REC: Final = 16384
_MS_PRIVATE: Final = 1 << 18
_OPEN_TREE: Final = 428  # the same number on every architecture, as all since Linux 5.1
_MOVE_MOUNT: Final = 429
_AT_FDCWD: Final = -100
_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4


def _call(name: str, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = getattr(libc, name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _mount(source: bytes, target: Path | str, kind: bytes | None, flags: int) -> None:
    _call("mount", source, os.fsencode(target), kind, ctypes.c_ulong(flags), None)


def mount_resctrl(target: Path) -> None:
    """Mount it, without options."""
    _mount(b"resctrl", target, b"resctrl", 0)


def detached_copy(target: Path) -> int:
    """Return a descriptor of what is mounted there, attached nowhere; closing it lets it go (Linux 5.2)."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    return _call("syscall", _OPEN_TREE, _AT_FDCWD, os.fsencode(target), ctypes.c_uint(flags))


def attach(copy: int, target: Path) -> None:
    """Let a detached copy be mounted somewhere; the descriptor stays open."""
    flags = ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH)
    _call("syscall", _MOVE_MOUNT, copy, b"", _AT_FDCWD, os.fsencode(target), flags)


def unmount(target: Path) -> None:
    """Unmount; EBUSY where a file is open or somebody stands in it."""
    _call("umount2", os.fsencode(target), 0)


def own_mount_namespace() -> None:
    """Leave the mounts of everybody else: what this thread and those it starts mount is theirs alone.

    Raises:
        OSError: EPERM without CAP_SYS_ADMIN.
    """
    _call("unshare", _CLONE_NEWNS)
    _mount(b"none", "/", None, _MS_REC | _MS_PRIVATE)


def remount(target: Path, *, read_only: bool) -> None:
    """Change a mount between read-only and writable."""
    _mount(b"resctrl", target, None, _MS_REMOUNT | (_MS_RDONLY if read_only else 0))


def mount_points() -> list[Path]:
    """Return where resctrl is mounted, as this thread sees it, in the order of mounting."""
    found = []
    for line in Path("/proc/thread-self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] == "resctrl":
            found.append(Path(before.split()[4]))
    return found


def is_mounted_at(target: Path) -> bool:
    """Tell whether resctrl is mounted there, as this thread sees it."""
    return target in mount_points()
