"""What the fake's /proc tells of file systems and mounts (K87), and of threads (K88).

Owns: the texts, and the directories of threads. Must not know: how they are read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from resctrl.testing.nodes import Node

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["filesystems", "mountinfo", "thread_dirs"]

_NUMBER: Final = re.compile("[1-9][0-9]{0,9}")


def thread_dirs(
    proc: Node, lives: Callable[[int], bool], groups: Callable[[int], str] | None
) -> Callable[[str], Node | None]:
    """Return what finds /proc/<tid>, with `cpu_resctrl_groups` in it and in its task/<tid>.

    Args:
        proc: Where they stand.
        lives: Tells whether there is such a thread.
        groups: Returns the text of the file; None where this kernel has no such file.
    """

    def found(name: str, tid: int, parent: Node) -> Node:
        directory = Node(name, proc.fs, parent, {})
        if groups is not None:
            directory.add_file("cpu_resctrl_groups", lambda: groups(tid))
        return directory

    def find(name: str) -> Node | None:
        if _NUMBER.fullmatch(name) is None or not lives(int(name)):
            return None
        directory = found(name, int(name), proc)
        task = directory.add_dir("task")
        task.entries[name] = found(name, int(name), task)
        return directory

    return find


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
