"""Where a container's threads are: from what the runtime told to the ids that the kernel lists.

Owns: the search for a container's directory, and which one is remembered. Must not know: how a tree is walked
(`cgroup_walk`), resctrl, pods, or what is done with the ids.

Rules:
    1. Threads, not processes: v2 `cgroup.threads`, v1 `tasks` (`cgroup.procs` lists leaders only).
    2. Nested cgroups belong to the container (crun's `container`, systemd or docker inside it), so it is
       listed with all below it. The root cgroup never is, and what a symbolic link leads to is refused.
    3. `/proc/<pid>/cgroup` is the reliable way where a pid is known, but a pid may have been recycled: what
       it says counts only if it names this container. Otherwise the path that the runtime told is used.
    4. A container that ended has no threads, and no error.
    5. One hierarchy is enough: a container's threads are below its cgroup in each one that the runtime joins.
    6. A directory that was found is remembered and searched again only once it is empty or gone. So a known
       container costs what listing its tree again costs: two system calls for each of its cgroups. Files stay
       open for that; where the process has no descriptor left, they are given back first.
    7. Gone is only what was seen: a directory that stood there and stands nowhere now, in a hierarchy that is
       still mounted. Whatever else is amiss is ignorance.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from attrs import frozen

from nri_resctrl_plugin.cgroup_mounts import Hierarchy, parse_mountinfo, path_in
from nri_resctrl_plugin.cgroup_paths import ContainerPlace, parse_cgroups_path
from nri_resctrl_plugin.cgroup_walk import USED_UP, OpenFiles, Tree, refused, room_for_files, stands
from nri_resctrl_plugin.errors import CgroupError, CgroupPathError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from nri_resctrl_plugin.model import ContainerCgroup
    from resctrl import Tid

__all__ = ["CgroupPidSource", "CgroupWitness", "ContainerPlace", "PidSource", "parse_cgroups_path"]

MAX_REMEMBERED: Final = 8_192
"""How many directories are remembered, the oldest forgotten first; they are found again when needed."""


class PidSource(Protocol):
    """Lists the live threads of a container."""

    def thread_ids(self, container: ContainerCgroup) -> Collection[Tid]:
        """Return the ids of the threads that live now; none for a container that is gone. May block."""
        ...


@runtime_checkable
class CgroupWitness(Protocol):
    """Knows which cgroups are gone. Optional beside `PidSource`: without it, nothing is ever found gone."""

    def is_gone(self, cgroup: ContainerCgroup) -> bool:
        """Tell whether a cgroup is surely gone.

        Returns:
            True only if it was seen before, by this call or by a listing, and is nowhere now. Never raises
            because something cannot be known: that is False. May block.
        """
        ...


@frozen
class _Found:
    """Where a cgroup was found."""

    tree: Tree
    hierarchy: Hierarchy


class CgroupPidSource:
    """The threads that the kernel's cgroup files list; also a `CgroupWitness`.

    Args:
        cgroup_root: Where cgroups are mounted. In a pod: the host's, and the pod must be in the host's pid
            namespace (hostPID), or all ids read as 0.
        proc_root: Where procfs is mounted.
    """

    def __init__(self, cgroup_root: Path = Path("/sys/fs/cgroup"), proc_root: Path = Path("/proc")) -> None:
        self._cgroup_root = cgroup_root
        self._proc_root = proc_root
        self._hierarchies: tuple[Hierarchy, ...] = ()
        self._found: dict[tuple[str, str], _Found] = {}
        self._files = OpenFiles(room_for_files())
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the files that stay open; what is listed later opens them anew."""
        with self._lock:
            self._files.close_all()

    def thread_ids(self, container: ContainerCgroup) -> Collection[Tid]:
        """Return the ids of a container's live threads, each once.

        Args:
            container: What the runtime told of it.

        Raises:
            CgroupPathError: The path that was told cannot be trusted.
            CgroupError: No hierarchy is mounted, or the kernel refuses to list.
        """
        with self._lock:
            try:
                return self._list(container)
            except CgroupError as error:
                if not _is_used_up(error):
                    raise
            self._files.close_all()
            return self._list(container)

    def is_gone(self, cgroup: ContainerCgroup) -> bool:
        """Tell whether a cgroup was seen and is gone now; one stat for a cgroup that is there."""
        with self._lock:
            return self._look(cgroup)

    def _list(self, container: ContainerCgroup) -> Collection[Tid]:
        known = self._found.get(_key(container))
        if known is not None and (tids := known.tree.threads()):
            return tids
        empty: _Found | None = None
        for place in self._candidates(container):
            found = place.tree.threads()
            if found:
                self._remember(container, place)
                return found
            if found is not None and empty is None:
                empty = place
        if empty is not None:
            self._remember(container, empty)
        return ()

    def _look(self, cgroup: ContainerCgroup) -> bool:
        known = self._found.get(_key(cgroup))
        if known is not None:
            if stands(known.tree.top):
                return False
            known.tree.close()
        try:
            there = next((each for each in self._candidates(cgroup) if stands(each.tree.top)), None)
        except CgroupError:
            return False
        if there is not None:
            self._remember(cgroup, there)
        # An unmounted hierarchy shows nothing at all: then it cannot be known what is gone.
        return there is None and known is not None and _is_mounted(known.hierarchy)

    def _remember(self, container: ContainerCgroup, place: _Found) -> None:
        self._found.pop(_key(container), None)
        if len(self._found) >= MAX_REMEMBERED:
            del self._found[next(iter(self._found))]
        self._found[_key(container)] = place

    def _candidates(self, container: ContainerCgroup) -> Iterator[_Found]:
        """Yield directories where the cgroup may be, the most reliable first; each once, and no link."""
        tried: set[str] = set()
        for directory, hierarchy in self._guesses(container):
            if directory not in tried:
                tried.add(directory)
                if os.path.realpath(directory) != directory:
                    raise CgroupPathError(directory, "it leads through a symbolic link, which no cgroup is")
                yield self._tree(directory, hierarchy)

    def _tree(self, directory: str, hierarchy: Hierarchy) -> _Found:
        tree = Tree(directory, hierarchy.threads_file, self._files, keeps=hierarchy.is_unified)
        return _Found(tree, hierarchy)

    def _guesses(self, container: ContainerCgroup) -> Iterator[tuple[str, Hierarchy]]:
        place = parse_cgroups_path(container.cgroups_path, container.cgroup_parent)
        hierarchies = self._mounted()
        actual = self._cgroups_of(container.pid) if container.pid > 0 else {}
        for hierarchy in hierarchies:
            path = path_in(hierarchy, actual)
            own = place.own_part(path) if path is not None else None
            shown = hierarchy.shown(own) if own is not None else None
            if shown is not None:
                yield f"{hierarchy.mount_point}/{shown}", hierarchy
        told = [place.path] if place.literal is None else [place.path, place.literal]
        for hierarchy in hierarchies:
            for path in told:
                # A mount may show a part of the hierarchy while the runtime counts from its real root, or
                # the runtime may itself live below that part and count from there.
                for shown in (hierarchy.shown(path), path.lstrip("/")):
                    if shown is not None:
                        yield f"{hierarchy.mount_point}/{shown}", hierarchy

    def _mounted(self) -> tuple[Hierarchy, ...]:
        """Return the hierarchies at or below the cgroup root; read once, since they never come later."""
        if not self._hierarchies:
            path = self._proc_root / "self" / "mountinfo"
            try:
                text = path.read_text(encoding="utf-8", errors="surrogateescape")
            except OSError as error:
                raise refused(str(path), error) from error
            root = os.path.realpath(self._cgroup_root)
            found = {hierarchy.mount_point: hierarchy for hierarchy in parse_mountinfo(text, root)}
            self._hierarchies = tuple(sorted(found.values(), key=lambda each: each.preference))
        if not self._hierarchies:
            raise CgroupError(f"no cgroup hierarchy is mounted at or below {str(self._cgroup_root)!r}")
        return self._hierarchies

    def _cgroups_of(self, pid: int) -> dict[str, str]:
        """Return a process's cgroup path by controller list; empty for a process that is gone."""
        try:
            text = (self._proc_root / str(pid) / "cgroup").read_text(
                encoding="utf-8", errors="surrogateescape"
            )
        except OSError as error:
            if error.errno in USED_UP:
                raise refused(f"/proc/{pid}/cgroup", error) from error
            return {}  # dead (ENOENT, ESRCH) or hidden: the path that was told is used instead
        lines = (line.split(":", 2) for line in text.splitlines())
        return {line[1]: line[2] for line in lines if len(line) == 3}  # noqa: PLR2004 - id:controllers:path


def _key(container: ContainerCgroup) -> tuple[str, str]:
    """Return what a cgroup is remembered by: the pid of a container comes and goes, its path stays."""
    return container.cgroups_path, container.cgroup_parent


def _is_mounted(hierarchy: Hierarchy) -> bool:
    """Tell whether a hierarchy's own files are there: an unmounted one leaves an empty directory."""
    return stands(f"{hierarchy.mount_point}/{hierarchy.threads_file}")


def _is_used_up(error: CgroupError) -> bool:
    """Tell whether it is descriptors that are wanting."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in USED_UP
