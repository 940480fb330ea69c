"""A node's cgroups and its resctrl as plain files: what the plugin reads and writes costs real system calls.

Owns: the two directories, and the provider that makes the second one answer like resctrl. Must not know: NRI,
or what is measured.

Rules:
    1. It is loaded into the process that is measured, so it brings next to nothing with it.
    2. What is cheap on a kernel stays cheap here: a group is one mkdir, one open for all its writes, and one
       read of its `tasks`. A real mkdir or read of `tasks` costs the kernel more, which is not measured here.
    3. A thread is in the group that it was written to last; nothing takes it out of another one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import resctrl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from resctrl.fs import WriteError

__all__ = ["FilesFs", "make_cgroups", "make_resctrl"]

_GROUP_FILES = ("tasks", "cpus", "cpus_list")


class FilesFs(resctrl.RealFs):
    """The real file system, and a directory in it that counts as a mounted resctrl.

    Args:
        root: That directory, made by `make_resctrl`.
    """

    __slots__ = ("_root",)

    def __init__(self, root: Path) -> None:
        self._root = root

    def create_dir(self, path: Path) -> None:
        """Make a group with its files."""
        super().create_dir(path)
        for name in _GROUP_FILES:
            (path / name).touch()

    def remove_dir(self, path: Path) -> None:
        """Remove a group with its files."""
        for name in _GROUP_FILES:
            (path / name).unlink()
        super().remove_dir(path)

    def read_text(self, path: Path) -> str:
        """Read a file; the two that tell about the mount say that it is there."""
        text = super().read_text(path)
        if path == Path("/proc/filesystems"):
            return f"{text}nodev\tresctrl\n"
        if path == Path("/proc/self/mountinfo"):
            return f"{text}99 23 0:99 / {self._root} rw - resctrl resctrl rw\n"
        return text

    def write_all(
        self, path: Path, chunks: Iterable[bytes], *, go_on: Callable[[WriteError], bool] | None = None
    ) -> int:
        """Write each chunk behind what is there: `tasks` takes threads, it is not overwritten."""
        del go_on  # nothing is refused here
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            return sum(1 for chunk in chunks if os.write(descriptor, chunk.replace(b",", b"\n")))
        finally:
            os.close(descriptor)


def make_resctrl(folder: Path, num_rmids: int) -> Path:
    """Make an empty resctrl.

    Args:
        folder: An existing directory.
        num_rmids: What it says it has; no mkdir is refused.

    Returns:
        Its root.
    """
    root = folder / "resctrl"
    (root / "info" / "L3_MON").mkdir(parents=True)
    (root / "info" / "L3_MON" / "num_rmids").write_text(f"{num_rmids}\n", encoding="ascii")
    (root / "info" / "last_cmd_status").write_text("ok\n", encoding="ascii")
    (root / "mon_groups").mkdir()
    for name in (*_GROUP_FILES, "schemata"):
        (root / name).touch()
    return root


def make_cgroups(folder: Path, containers: Iterable[tuple[str, Sequence[int]]]) -> tuple[Path, Path]:
    """Make a cgroup v2 hierarchy, and a procfs that says where it is mounted.

    Args:
        folder: An existing directory.
        containers: The cgroup of each, and its threads, the main process first.

    Returns:
        What would be /sys/fs/cgroup, and what would be /proc.
    """
    root, proc = folder / "cgroup", folder / "proc"
    (proc / "self").mkdir(parents=True)
    mount = f"30 23 0:26 / {root} rw - cgroup2 cgroup2 rw\n"
    (proc / "self" / "mountinfo").write_text(mount, encoding="utf-8")
    for path, tids in containers:
        cgroup = root / path.lstrip("/")
        cgroup.mkdir(parents=True)
        (cgroup / "cgroup.threads").write_text("".join(f"{tid}\n" for tid in tids), encoding="ascii")
        (proc / str(tids[0])).mkdir()
        (proc / str(tids[0]) / "cgroup").write_text(f"0::{path}\n", encoding="ascii")
    return root, proc
