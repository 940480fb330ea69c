"""The cgroup hierarchies of a machine: v2, v1, or both beside each other.

Owns: what mountinfo says about them, their order of preference, and the way from a path of a hierarchy to a
directory below its mount point. Must not know: runtimes, containers, threads.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Hierarchy", "parse_mountinfo", "path_in"]

_V1_PREFERENCE: Final = ("memory", "pids", "cpu", "cpuacct", "cpuset", "devices", "freezer", "blkio")
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


@frozen
class Hierarchy:
    """One mounted cgroup hierarchy: where, which part of it the mount shows, and what identifies it."""

    mount_point: str
    root: str
    controllers: frozenset[str]

    @property
    def is_unified(self) -> bool:
        """Whether this is cgroup v2."""
        return not self.controllers

    @property
    def threads_file(self) -> str:
        """The file in each of its cgroups that lists threads."""
        return "cgroup.threads" if self.is_unified else "tasks"

    @property
    def preference(self) -> tuple[int, int, str]:
        """v2 first; then the v1 controllers that every runtime joins; named hierarchies last."""
        ranks = [_V1_PREFERENCE.index(name) for name in self.controllers if name in _V1_PREFERENCE]
        return (1 if self.controllers else 0, min(ranks, default=len(_V1_PREFERENCE)), self.mount_point)

    def shown(self, path: str) -> str | None:
        """Return where a path of the hierarchy is below the mount point; None outside of what it shows."""
        root = [part for part in self.root.split("/") if part]
        parts = [part for part in path.split("/") if part]
        if parts[: len(root)] != root or ".." in parts[len(root) :] or len(parts) == len(root):
            return None
        return "/".join(parts[len(root) :])


def path_in(hierarchy: Hierarchy, actual: dict[str, str]) -> str | None:
    """Return what `/proc/<pid>/cgroup` says about one hierarchy."""
    if hierarchy.is_unified:
        return actual.get("")
    for controllers, path in actual.items():
        if controllers and not hierarchy.controllers.isdisjoint(controllers.split(",")):
            return path
    return None


def parse_mountinfo(text: str, below: str) -> Iterator[Hierarchy]:
    """Yield the cgroup mounts at or below a directory, in the order of mounting."""
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in {"cgroup", "cgroup2"}:  # noqa: PLR2004 - proc(5)
            continue
        root, mount_point = (_unescape(part) for part in fields[3:5])
        if mount_point != below and not mount_point.startswith(below.rstrip("/") + "/"):
            continue
        options = kind[2].split(",")
        controllers = {name for name in options if name in _V1_PREFERENCE or name.startswith("name=")}
        if kind[0] == "cgroup2":
            controllers = set()
        elif not controllers:  # net_cls, perf_event, rdma, ...: whatever is no mount flag
            controllers = set(options) - {"rw", "ro"}
        yield Hierarchy(mount_point, root, frozenset(controllers))


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)
