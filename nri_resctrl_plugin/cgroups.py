"""Where a container's threads are: from what the runtime told to the ids that the kernel lists.

Owns: the path forms of the runtimes, the layouts of cgroup v1, v2 and hybrid hosts, the walk. Must not know:
resctrl, pods, or what is done with the ids.

Rules:
    1. Threads, not processes: v2 `cgroup.threads`, v1 `tasks` (`cgroup.procs` lists leaders only).
    2. Nested cgroups belong to the container (crun's `container`, systemd or docker inside it), so the walk
       is recursive. It begins at the container's own cgroup and never above it, follows no symbolic link and
       never touches the root cgroup.
    3. `/proc/<pid>/cgroup` is the reliable way where a pid is known, but a pid may have been recycled: what
       it says counts only if it names this container. Otherwise the path that the runtime told is used.
    4. What vanishes while it is read (ENOENT, ENODEV) is gone and no error: a container that ended has no
       threads. A thread listed as 0 is one outside our pid namespace: it lives, and cannot be named, so the
       listing is refused with the mend instead of being shortened in silence.
    5. One hierarchy is enough: a container's threads are below its cgroup in each one that the runtime joins.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from attrs import frozen

from nri_resctrl_plugin.errors import CgroupError, CgroupPathError
from resctrl.model import Tid

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from nri_resctrl_plugin.model import ContainerCgroup

__all__ = ["CgroupPidSource", "ContainerPlace", "PidSource", "parse_cgroups_path"]

MAX_CGROUPS: Final = 10_000
"""How many cgroups below one container are walked; more is an attack or a leak, and would stall others."""

MIN_ID_LENGTH: Final = 12
"""A shorter last path element may be a common word, so it alone does not identify a container."""

_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV})
_V1_PREFERENCE: Final = ("memory", "pids", "cpu", "cpuacct", "cpuset", "devices", "freezer", "blkio")
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


class PidSource(Protocol):
    """Lists the live threads of a container."""

    def thread_ids(self, container: ContainerCgroup) -> Collection[Tid]:
        """Return the ids of the threads that live now; none for a container that is gone. May block."""
        ...


@frozen
class ContainerPlace:
    """A container's cgroup as its name says.

    Attributes:
        path: Absolute path below the hierarchy's root, normalised.
        name: The part that identifies the container, normally its id.
        literal: The runtime's text taken as one directory name, or None. runc with the cgroupfs driver makes
            such a directory when it is given the systemd form.
    """

    path: str
    name: str
    literal: str | None = None

    def own_part(self, actual: str) -> str | None:
        """Return the leading part of a process's cgroup path that is this container's cgroup.

        Args:
            actual: A path from `/proc/<pid>/cgroup`: the container's cgroup or one below it, possibly with
                a prefix (a kubelet inside a container).

        Returns:
            The path, or None where nothing says that the process is in this container.
        """
        parts, wanted = actual.split("/"), self.path.split("/")
        if parts[: len(wanted)] == wanted:
            return self.path
        if len(self.name) >= MIN_ID_LENGTH:
            names_it = re.compile(rf"(?<![0-9A-Za-z]){re.escape(self.name)}(?![0-9A-Za-z])")
            for index, part in enumerate(parts):
                if names_it.search(part):
                    return "/".join(parts[: index + 1])
        return None


def parse_cgroups_path(cgroups_path: str, cgroup_parent: str = "") -> ContainerPlace:
    """Read what a runtime calls `cgroups_path`.

    Args:
        cgroups_path: `slice:prefix:name` (systemd driver) or an absolute path (cgroupfs driver).
        cgroup_parent: The pod's cgroup: a path, or a slice's name alone (CRI-O); "" where it was not told.

    Returns:
        Where that is below the root of a hierarchy.

    Raises:
        CgroupPathError: It is empty, relative, the root itself, the pod's cgroup or one above it, or contains
            what no runtime writes.
    """
    place = _parse(cgroups_path)
    base = cgroup_parent.rstrip("/").rpartition("/")[2]
    parent = cgroup_parent
    with contextlib.suppress(CgroupPathError):  # a parent that is no slice to systemd says nothing here
        parent = _expand_slice(cgroups_path, base)
    above = [part for part in parent.split("/") if part not in {"", "."}]
    parts = place.path.split("/")[1:]
    if above[: len(parts)] == parts:
        raise CgroupPathError(cgroups_path, f"it is the pod's cgroup {parent!r}, or above it")
    return place


def _parse(cgroups_path: str) -> ContainerPlace:
    if not cgroups_path:
        raise CgroupPathError(cgroups_path, "it is empty")
    if any(character < " " or character == "\x7f" for character in cgroups_path):
        raise CgroupPathError(cgroups_path, "it contains a control character")
    if cgroups_path.startswith("/"):
        return _from_absolute(cgroups_path)
    if cgroups_path.count(":") == 2:  # noqa: PLR2004 - the systemd form has three parts
        return _from_systemd(cgroups_path)
    raise CgroupPathError(cgroups_path, "it is neither an absolute path nor of the form slice:prefix:name")


def _from_absolute(text: str) -> ContainerPlace:
    parts = [part for part in text.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise CgroupPathError(text, "it contains '..'")
    if not parts:
        raise CgroupPathError(text, "it is the root cgroup")
    return ContainerPlace("/" + "/".join(parts), parts[-1])


def _from_systemd(text: str) -> ContainerPlace:
    if "/" in text:
        raise CgroupPathError(text, "a unit name contains no '/'")
    parent, prefix, name = text.split(":")
    if name in {"", ".", ".."}:
        raise CgroupPathError(text, "the unit has no name")
    unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope"
    return ContainerPlace(f"{_expand_slice(text, parent or 'system.slice')}/{unit}", name, f"/{text}")


def _expand_slice(text: str, name: str) -> str:
    """Expand `a-b.slice` to `/a.slice/a-b.slice`; `-.slice` is the root."""
    stem = name.removesuffix(".slice")
    if stem == name:
        raise CgroupPathError(text, f"{name!r} does not end in '.slice'")
    if stem == "-":
        return ""
    parts = stem.split("-")
    if "" in parts or "." in parts or ".." in parts:
        raise CgroupPathError(text, f"{name!r} has an empty part")
    return "".join(f"/{'-'.join(parts[:end])}.slice" for end in range(1, len(parts) + 1))


@frozen
class _Hierarchy:
    """One mounted cgroup hierarchy: where, which part of it the mount shows, and what identifies it."""

    mount_point: str
    root: str
    controllers: frozenset[str]

    @property
    def threads_file(self) -> str:
        return "tasks" if self.controllers else "cgroup.threads"

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


class CgroupPidSource:
    """The threads that the kernel's cgroup files list.

    Args:
        cgroup_root: Where cgroups are mounted. In a pod: the host's, and the pod must be in the host's pid
            namespace (hostPID), or all ids read as 0.
        proc_root: Where procfs is mounted.
    """

    def __init__(self, cgroup_root: Path = Path("/sys/fs/cgroup"), proc_root: Path = Path("/proc")) -> None:
        self._cgroup_root = cgroup_root
        self._proc_root = proc_root
        self._hierarchies: tuple[_Hierarchy, ...] = ()

    def thread_ids(self, container: ContainerCgroup) -> Collection[Tid]:
        """Return the ids of a container's live threads, each once.

        Args:
            container: What the runtime told of it.

        Raises:
            CgroupPathError: The path that was told cannot be trusted.
            CgroupError: No hierarchy is mounted, or the kernel refuses to list.
        """
        place = parse_cgroups_path(container.cgroups_path, container.cgroup_parent)
        for directory, threads_file in self._candidates(place, container.pid):
            found = _walk(directory, threads_file)
            if found:
                return found
        return ()

    def _candidates(self, place: ContainerPlace, pid: int) -> Iterator[tuple[str, str]]:
        """Yield directories to walk, the most reliable first."""
        hierarchies = self._mounted()
        tried: set[str] = set()
        actual = self._cgroups_of(pid) if pid > 0 else {}
        for hierarchy in hierarchies:
            path = _path_in(hierarchy, actual)
            own = place.own_part(path) if path is not None else None
            shown = hierarchy.shown(own) if own is not None else None
            if shown is not None:
                directory = f"{hierarchy.mount_point}/{shown}"
                tried.add(directory)
                yield directory, hierarchy.threads_file
        told = [place.path] if place.literal is None else [place.path, place.literal]
        for hierarchy in hierarchies:
            for path in told:
                # A mount may show a part of the hierarchy while the runtime counts from its real root, or
                # the runtime may itself live below that part and count from there.
                for shown in (hierarchy.shown(path), path.lstrip("/")):
                    directory = f"{hierarchy.mount_point}/{shown}"
                    if shown is not None and directory not in tried:
                        tried.add(directory)
                        yield directory, hierarchy.threads_file

    def _mounted(self) -> tuple[_Hierarchy, ...]:
        """Return the hierarchies at or below the cgroup root; read once, since they never come later."""
        if not self._hierarchies:
            path = self._proc_root / "self" / "mountinfo"
            try:
                text = path.read_text(encoding="utf-8", errors="surrogateescape")
            except OSError as error:
                raise _refused(str(path), error) from error
            root = os.path.realpath(self._cgroup_root)
            found = {hierarchy.mount_point: hierarchy for hierarchy in _parse_mountinfo(text, root)}
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
        except OSError:
            return {}  # dead (ENOENT, ESRCH) or hidden: the path that was told is used instead
        lines = (line.split(":", 2) for line in text.splitlines())
        return {line[1]: line[2] for line in lines if len(line) == 3}  # noqa: PLR2004 - id:controllers:path


def _path_in(hierarchy: _Hierarchy, actual: dict[str, str]) -> str | None:
    """Return what `/proc/<pid>/cgroup` says about one hierarchy."""
    if not hierarchy.controllers:
        return actual.get("")
    for controllers, path in actual.items():
        if controllers and not hierarchy.controllers.isdisjoint(controllers.split(",")):
            return path
    return None


def _parse_mountinfo(text: str, below: str) -> Iterator[_Hierarchy]:
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
        yield _Hierarchy(mount_point, root, frozenset(controllers))


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def _walk(top: str, threads_file: str) -> list[Tid]:
    """List the threads of a cgroup and of all below it."""
    if os.path.realpath(top) != top:
        raise CgroupPathError(top, "it leads through a symbolic link, which no cgroup is")
    found: dict[Tid, None] = {}
    waiting, seen = [top], 0
    while waiting:
        directory = waiting.pop()
        seen += 1
        if seen > MAX_CGROUPS:
            raise CgroupError(f"more than {MAX_CGROUPS} cgroups below {top!r}")
        try:
            with open(f"{directory}/{threads_file}", "rb") as file:  # noqa: PTH123 - Path costs as much as the read
                found.update((Tid(int(line)), None) for line in file.read().split())
            with os.scandir(directory) as entries:
                waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            if error.errno not in _GONE:
                raise _refused(directory, error) from error
        except ValueError as error:
            raise CgroupError(f"{directory}/{threads_file} lists something that is no thread id") from error
    if found and min(found) <= 0:
        raise CgroupError(
            f"{top!r} holds threads outside our pid namespace (as 0): run in the host's (hostPID: true)"
        )
    return list(found)


def _refused(path: str, error: OSError) -> CgroupError:
    name = errno.errorcode.get(error.errno or 0, str(error.errno))
    return CgroupError(f"cannot list the threads at {path!r}: {name}")
