"""Machines that a scenario can run on: each has threads, containers and a resctrl, real or not.

Owns: what a scenario needs of its machine, and the fake one. Must not know: the plugin, or what a scenario
claims.

Rules:
    1. A scenario asks a world for its parts and never which world it is. What a world cannot do stands in
       `lacks`, and the scenario that needs it says so (`pytest.mark.needs`): a listed skip with its reason.
    2. What a world tells of groups and threads it sees by itself, past the code under test and past whatever
       wrapper a scenario put around `fs`.
    3. A world gives back what it took: `close` ends its threads and removes its groups, also after a failure.
    4. Groups of ours carry `prefix`, those that stand in the way `FILLER_PREFIX`, which no sweep hits.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import time
from contextlib import contextmanager
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from attrs import frozen

from resctrl.testing import FakeFs, FakePidSource

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from nri_resctrl_plugin.cgroups import PidSource
    from resctrl import FsProvider, Tid

__all__ = [
    "DEADLINE",
    "FILLER_PREFIX",
    "WORLDS",
    "Capability",
    "ContainerHandle",
    "FakeWorld",
    "Machine",
    "World",
    "WorldMissing",
    "eventually",
]

DEADLINE: Final = 10.0
"""Seconds after which what is waited for has not come. Limbo takes a kernel 1 to 2 s."""

FILLER_PREFIX: Final = "filler_"
"""Begins the names of the groups that use up RMIDs."""

T = TypeVar("T")


class Capability(Enum):
    """What a world may lack; the value is the reason that the skip tells."""

    UNMOUNTING = "its resctrl cannot be unmounted"
    CONTROL_GROUPS = "it has no control groups"
    LIMBO = "a freed RMID can be used again at once"
    OTHER_MACHINES = "it cannot show a machine without resctrl or without monitoring"


class Machine(Enum):
    """A machine that lacks something."""

    WITHOUT_RESCTRL = "without resctrl"
    WITHOUT_MONITORING = "without monitoring"


class WorldMissing(Exception):  # noqa: N818 - no error: there is no such machine here
    """This world cannot be had on this machine; the message says why."""


@frozen
class ContainerHandle:
    """A container of a world, as a runtime would tell it.

    Attributes:
        name: Its id.
        cgroups_path: Where its cgroup is.
        cgroup_parent: Where its pod's cgroup is.
        pid: Its first process.
    """

    name: str
    cgroups_path: str
    cgroup_parent: str
    pid: int


class World(Protocol):
    """A machine for scenarios."""

    name: str
    fs: FsProvider
    """Its files; any wrapper may be put around it."""
    root: Path
    """Where resctrl is mounted, or would be."""
    prefix: str
    """With what the groups of this world begin, and nobody else's."""
    pid_source: PidSource
    """Lists the live threads of its containers."""
    lacks: frozenset[Capability]

    def new_container(self, threads: int = 1) -> ContainerHandle:
        """Start a container with so many threads, in no group yet; 0 for one whose processes ended."""
        ...

    def threads_of(self, container: ContainerHandle) -> set[Tid]:
        """Return the threads that live in a container now."""
        ...

    def spawn_task(self, parent: Tid | None = None) -> Tid:
        """Start a thread: as a child of one, and so in its container and group, or in neither."""
        ...

    def end_task(self, tid: Tid) -> None:
        """End a thread."""
        ...

    def use_up_rmids(self) -> AbstractContextManager[None]:
        """Fill the machine with groups of others until none fits; remove them at the end."""
        ...

    def free_one_rmid(self) -> None:
        """Remove one of these groups. Its RMID may go into limbo."""
        ...

    def add_group(self, path: Path) -> None:
        """Make a group as somebody else would do it, of either kind."""
        ...

    def put(self, group: Path, tid: Tid) -> None:
        """Move a thread as somebody else would do it."""
        ...

    def groups_in(self, directory: Path) -> set[str]:
        """Return the groups in the root or in a `mon_groups`; none if that is not there."""
        ...

    def tasks_in(self, group: Path) -> set[Tid]:
        """Return the threads in a group, as far as this world started them."""
        ...

    def mount_state(self, *, mounted: bool) -> None:
        """Mount or unmount, as somebody else would do it; nothing if it is so already."""
        ...

    def is_mounted(self) -> bool:
        """Tell whether resctrl is mounted."""
        ...

    def other_machine(self, machine: Machine) -> FsProvider:
        """Return the files of a machine that lacks something."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


async def eventually(
    condition: Callable[[], Awaitable[T | None]], what: str, *, deadline: float = DEADLINE
) -> T:
    """Wait until something comes, by asking for it again and again.

    Args:
        condition: Returns it, or None while it has not come.
        what: Its name, for the failure.
        deadline: Seconds to wait at most.

    Returns:
        What came.

    Raises:
        AssertionError: It did not come.
    """
    end = time.monotonic() + deadline
    while (value := await condition()) is None:
        assert time.monotonic() < end, f"waited {deadline} s in vain for {what}"
        await asyncio.sleep(0.01)
    return value


class RawGroups:
    """What every world does with resctrl in the same way: straight through a provider of its own."""

    def __init__(self, raw: FsProvider, root: Path) -> None:
        self._raw = raw
        self.root = root
        self._made: list[Path] = []

    def add_group(self, path: Path) -> None:
        """Make a group; where RMIDs are in limbo, wait for one."""
        self._patiently(path)
        self._made.append(path)

    def put(self, group: Path, tid: Tid) -> None:
        """Move a thread."""
        self._raw.write_all(group / "tasks", [b"%d\n" % tid])

    def groups_in(self, directory: Path) -> set[str]:
        """Return the names of the groups in a directory."""
        try:
            return set(self._raw.read_child_dirs(directory)) - {"info", "mon_data", "mon_groups"}
        except FileNotFoundError:
            return set()

    @contextmanager
    def use_up_rmids(self) -> Iterator[None]:
        """Make groups until none fits; limbo is waited for, so that what is left is ENOSPC."""
        try:
            self._fill()
            yield
        finally:
            self._remove(self._mon_groups, FILLER_PREFIX)

    def free_one_rmid(self) -> None:
        """Remove one filler."""
        name = min(name for name in self.groups_in(self._mon_groups) if name.startswith(FILLER_PREFIX))
        self._raw.remove_dir(self._mon_groups / name)

    def remove_groups(self, *prefixes: str) -> None:
        """Remove the groups with these prefixes at both levels, and what `add_group` made."""
        for directory in (self._mon_groups, self.root):
            for prefix in (*prefixes, FILLER_PREFIX):
                self._remove(directory, prefix)
        for path in reversed(self._made):
            if self._raw.exists(path):
                self._raw.remove_dir(path)

    @property
    def _mon_groups(self) -> Path:
        return self.root / "mon_groups"

    def _remove(self, directory: Path, prefix: str) -> None:
        for name in self.groups_in(directory):
            if name.startswith(prefix):
                self._raw.remove_dir(directory / name)

    def _fill(self) -> None:
        for number in itertools.count():
            try:
                self._patiently(self._mon_groups / f"{FILLER_PREFIX}{number:04d}")
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                return

    def _patiently(self, path: Path) -> None:
        """Make a group; wait while RMIDs are in limbo."""
        end = time.monotonic() + DEADLINE
        while True:
            try:
                self._raw.create_dir(path)
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > end:
                    raise
                time.sleep(0.01)
            else:
                return


class FakeWorld(RawGroups):
    """A machine in memory: `FakeFs` for the kernel, dictionaries for the cgroups."""

    name = "fake"

    def __init__(self) -> None:
        self.kernel = FakeFs(num_rmids=12, num_closids=6, limbo=0.1)
        super().__init__(self.kernel, self.kernel.root)
        self.fs: FsProvider = self.kernel
        self.prefix = "pod_"
        self.lacks: frozenset[Capability] = frozenset()
        self._source = FakePidSource()
        self.pid_source: PidSource = self._source
        self._living: set[Tid] = set()
        self._homes: dict[Tid, str] = {}
        self._numbers = itertools.count()

    def new_container(self, threads: int = 1) -> ContainerHandle:
        """Start a container."""
        name = f"container{next(self._numbers)}"
        path = f"/kubepods/{name}"
        first = None
        for _ in range(threads):
            tid = self._start(first, path)
            first = first if first is not None else tid
        self._source.follow(path, lambda: sorted(self._in(path)))
        return ContainerHandle(name, path, "/kubepods", first or 0)

    def threads_of(self, container: ContainerHandle) -> set[Tid]:
        """Return a container's threads."""
        return self._in(container.cgroups_path)

    def spawn_task(self, parent: Tid | None = None) -> Tid:
        """Start a thread."""
        return self._start(parent, self._homes[parent] if parent is not None else "/")

    def end_task(self, tid: Tid) -> None:
        """End a thread."""
        self.kernel.end(tid)
        self._living.remove(tid)

    def tasks_in(self, group: Path) -> set[Tid]:
        """Return a group's threads."""
        return self.kernel.tasks_in(group) & self._living

    def mount_state(self, *, mounted: bool) -> None:
        """Mount or unmount."""
        if mounted and not self.is_mounted():
            self.kernel.mount()
        elif not mounted and self.is_mounted():
            self.kernel.unmount()

    def is_mounted(self) -> bool:
        """Tell whether resctrl is mounted."""
        return self.kernel.mount_point is not None

    def other_machine(self, machine: Machine) -> FsProvider:
        """Return the files of a lesser machine."""
        match machine:
            case Machine.WITHOUT_RESCTRL:
                return FakeFs(supported=False)
            case Machine.WITHOUT_MONITORING:
                return FakeFs(monitoring=False)

    def close(self) -> None:
        """Remove the groups and end the threads; what is left of either is a failure."""
        self.mount_state(mounted=True)
        self.remove_groups(self.prefix)
        for tid in set(self._living):
            self.end_task(tid)

    def _start(self, parent: Tid | None, home: str) -> Tid:
        tid = self.kernel.spawn(parent)
        self._living.add(tid)
        self._homes[tid] = home
        return tid

    def _in(self, path: str) -> set[Tid]:
        return {tid for tid in self._living if self._homes[tid] == path}


WORLDS: Final[Mapping[str, Callable[[], World]]] = MappingProxyType({"fake": FakeWorld})
"""The worlds that there are. Making one raises WorldMissing where this machine cannot."""
