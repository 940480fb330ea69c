"""What the fake's /proc tells of file systems and mounts (K87).

Owns: the texts. Must not know: how they are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["filesystems", "mountinfo"]


def filesystems(*, supported: bool) -> str:
    """Return /proc/filesystems of a kernel that knows resctrl, or does not."""
    names = ["sysfs", "tmpfs", "proc", "cgroup2", *(["resctrl"] if supported else [])]
    return "".join(f"nodev\t{name}\n" for name in names) + "\text4\n"


def mountinfo(mount_point: Path | None, *, read_only: bool) -> str:
    """Return /proc/self/mountinfo with resctrl mounted somewhere, or nowhere."""
    mounts = [("/", "ext4", "/dev/root"), ("/proc", "proc", "proc"), ("/sys", "sysfs", "sysfs")]
    if mount_point is not None:
        mounts.append((str(mount_point), "resctrl", "resctrl"))
    lines = []
    for number, (point, fs_type, source) in enumerate(mounts, start=20):
        access = "ro" if read_only and fs_type == "resctrl" else "rw"
        parent = 1 if point == "/" else 20
        lines.append(
            f"{number} {parent} 0:{number} / {_escape(point)} {access},relatime shared:{number - 19} - "
            f"{fs_type} {source} {access}\n"
        )
    return "".join(lines)


def _escape(text: str) -> str:
    for character in "\\ \t\n":
        text = text.replace(character, f"\\{ord(character):03o}")
    return text
