"""The independent witness: what /proc and the cgroup mounts say, without a line of the code under test.

Owns: reading processes, threads, cgroups and mounts. Must not know: NRI, CRI, the plugin, resctrl.

Rules:
    1. It enumerates threads from /proc and asks each for its cgroup, the other way round than the plugin.
    2. What vanishes while it is read was not there.
    3. A zombie is no task of a cgroup, and no process that somebody left running.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "NOT_YET_EXECED",
    "cgroup_mounts",
    "cgroups_of",
    "comm",
    "exists",
    "mounts_below",
    "process_of",
    "processes_in",
    "processes_naming",
    "processes_on_socket",
    "processes_with_environment",
    "threads_in",
    "threads_of",
]

PROC = Path("/proc")

NOT_YET_EXECED = "runc:[2:INIT]"
"""Name of a container's first process, and of its threads, until it becomes the workload."""


def exists(tid: int) -> bool:
    """Tell whether the kernel knows a task of that id; threads count, and zombies until they are reaped."""
    return (PROC / str(tid)).exists()


def comm(tid: int) -> str:
    """Return the name of a task's program, "" for one that is gone."""
    return _text(PROC / str(tid) / "comm").rstrip("\n")


def threads_of(pid: int) -> set[int]:
    """Return the thread ids of one process."""
    return set(_numbers_in(PROC / str(pid) / "task"))


def process_of(tid: int) -> int:
    """Return the id of the process that a thread belongs to, 0 for one that is gone."""
    for line in _text(PROC / str(tid) / "status").splitlines():
        if line.startswith("Tgid:"):
            return int(line.split()[1])
    return 0


def cgroups_of(tid: int) -> set[str]:
    """Return the cgroup paths of a task, over all hierarchies, without the mounts' prefixes."""
    lines = _text(PROC / str(tid) / "cgroup").splitlines()
    return {line.split(":", 2)[2] for line in lines if line.count(":") >= 2}


def threads_in(name: str) -> set[int]:
    """Return the threads with a cgroup, in any hierarchy, whose path contains `name`.

    A container's id is such a name: `/kubepods/pod<uid>/<id>`, `.../cri-containerd-<id>.scope/nested`.
    """
    return {tid for pid in _numbers_in(PROC) for tid in threads_of(pid) if _lives_in(tid, name)}


def processes_in(name: str) -> set[int]:
    """Return the processes with a thread in such a cgroup (see `threads_in`)."""
    return {pid for pid in _numbers_in(PROC) if any(_lives_in(tid, name) for tid in threads_of(pid))}


def processes_naming(text: str) -> set[int]:
    """Return the live processes whose command line contains a text, this one left out."""
    return {
        pid
        for pid in _numbers_in(PROC)
        if pid != os.getpid() and text in _text(PROC / str(pid) / "cmdline").replace("\0", " ")
    }


def processes_with_environment(setting: str) -> set[int]:
    """Return the live processes that were started with a setting `NAME=value` in their environment."""
    return {pid for pid in _numbers_in(PROC) if setting in _text(PROC / str(pid) / "environ").split("\0")}


def processes_on_socket(path: Path) -> bool:
    """Tell whether somebody holds a unix socket of that path open."""
    return any(line.endswith(f" {path}") for line in _text(PROC / "net/unix").splitlines())


def mounts_below(directory: Path) -> list[Path]:
    """Return the mount points in or at a directory, the innermost first."""
    points = [Path(point) for point, _ in _mounts() if Path(point).is_relative_to(directory)]
    return sorted(points, key=lambda it: len(it.parts), reverse=True)


def cgroup_mounts() -> dict[Path, str]:
    """Return where cgroup hierarchies are mounted, and their type: `cgroup` (v1) or `cgroup2`."""
    return {Path(point): kind for point, kind in _mounts() if kind in {"cgroup", "cgroup2"}}


def _mounts() -> Iterator[tuple[str, str]]:
    for line in _text(PROC / "self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        yield left.split()[4].replace("\\040", " "), right.split()[0]


def _lives_in(tid: int, name: str) -> bool:
    return any(name in path for path in cgroups_of(tid)) and not _is_zombie(tid)


def _is_zombie(tid: int) -> bool:
    return _text(PROC / str(tid) / "stat").rpartition(")")[2].split()[:1] in (["Z"], ["X"], [])


def _numbers_in(directory: Path) -> list[int]:
    try:
        return [int(it) for it in os.listdir(directory) if it.isdigit()]  # noqa: PTH208 - ten times as fast
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
