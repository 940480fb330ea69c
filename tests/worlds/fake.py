"""The machine in memory: `FakeFs` for the kernel, dictionaries for the cgroups.

Owns: the fake world. Must not know: the plugin, or what a scenario claims.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from resctrl.testing import FakeFs, FakePidSource
from tests.worlds.groups import ProviderFiles, RawGroups
from tests.worlds.protocol import Capability, ContainerHandle, Machine

if TYPE_CHECKING:
    from pathlib import Path

    from nri_resctrl_plugin.cgroups import PidSource
    from resctrl import FsProvider, Tid

__all__ = ["FakeSite", "FakeWorld"]


def _kernel(machine: Machine) -> FakeFs:
    match machine:
        case Machine.FULL:
            return FakeFs(num_rmids=12, num_closids=6, limbo=0.1)
        case Machine.WITHOUT_RESCTRL:
            return FakeFs(supported=False)
        case Machine.WITHOUT_MONITORING:
            return FakeFs(monitoring=False)


class FakeWorld(RawGroups):
    """A machine in memory."""

    name = "fake"

    def __init__(self, machine: Machine = Machine.FULL) -> None:
        self.kernel = _kernel(machine)
        super().__init__(ProviderFiles(self.kernel), self.kernel.root, prefix="pod_", others_prefix="others_")
        self.fs: FsProvider = self.kernel
        self.lacks: frozenset[Capability] = frozenset()
        self._mountable = machine is not Machine.WITHOUT_RESCTRL
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

    def close(self) -> None:
        """Remove the groups and end the threads."""
        self.mount_state(mounted=self._mountable)
        self.remove_groups()
        for tid in set(self._living):
            self.end_task(tid)

    def _start(self, parent: Tid | None, home: str) -> Tid:
        tid = self.kernel.spawn(parent)
        self._living.add(tid)
        self._homes[tid] = home
        return tid

    def _in(self, path: str) -> set[Tid]:
        return {tid for tid in self._living if self._homes[tid] == path}


class FakeSite:
    """Every scenario has a new fake."""

    def world(self, machine: Machine) -> FakeWorld:
        """Return a new machine."""
        return FakeWorld(machine)

    def close(self) -> None:
        """Nothing is shared."""
