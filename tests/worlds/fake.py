"""The machine in memory: `FakeFs` for the kernel, dictionaries for the cgroups.

Owns: the fake world. Must not know: the plugin, or what a scenario claims.
"""

from __future__ import annotations

import itertools
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from attrs import evolve

from resctrl import Tid
from resctrl.testing import FakeFs, FakePidSource
from tests.worlds.groups import ProviderFiles, RawGroups
from tests.worlds.protocol import Capability, ContainerHandle, Machine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nri_resctrl_plugin.cgroups import PidSource
    from resctrl import FsProvider

__all__ = ["FakeSite", "FakeWorld"]


_FORK: Final = 0.001
"""Seconds that a fork seems to take: what is born within them is listed only afterwards."""
_WORK: Final = 4096
_DOMAINS: Final = (0, 1)


def _kernel(machine: Machine) -> FakeFs:
    match machine:
        case Machine.FULL:
            return FakeFs(num_rmids=12, num_closids=6, limbo=0.1, domains=_DOMAINS)
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
        self._chance = random.Random(0)  # noqa: S311 - the same forks in every run

    def new_container(self, threads: int = 1, *, depth: int = 0) -> ContainerHandle:
        """Start a container; what is nested in its cgroup is listed with it."""
        handle = self._new_cgroup()
        first = None
        for _ in range(threads):
            tid = self._start(first, handle.cgroups_path)
            first = first if first is not None else tid
        self._source.follow(handle.cgroups_path, lambda: sorted(self.threads_of(handle)))
        return evolve(handle, pid=first or 0)

    def new_forking_container(self, lineages: int, generation: float) -> ContainerHandle:
        """Start a container whose processes fork while they are listed.

        A fork begins after a listing, the likelier the shorter the generations. The successor is in the group
        that its parent was in then, and is listed one or two listings later, when its parent has ended.
        """
        handle = self._new_cgroup()
        heads = [self._start(None, handle.cgroups_path) for _ in range(lineages)]
        forks: dict[Tid, tuple[Tid, int]] = {}
        likely = 0.6 * _FORK / (_FORK + generation)

        def listing() -> list[Tid]:
            for number, head in enumerate(heads):
                if head not in forks:
                    continue
                successor, seen = forks.pop(head)
                if seen or self._chance.random() < 0.5:
                    self.end_task(head)
                    heads[number] = successor
                else:
                    forks[head] = successor, seen + 1
            for head in heads:
                if head not in forks and self._chance.random() < likely:
                    forks[head] = self._start(head, handle.cgroups_path), 0
            return list(heads)

        self._source.follow(handle.cgroups_path, listing)
        return evolve(handle, pid=heads[0])

    def exec_in(self, container: ContainerHandle) -> Tid:
        """Start a process in a container, by nobody in it."""
        return self._start(None, container.cgroups_path)

    def end_container(self, container: ContainerHandle) -> None:
        """End a container's threads and remove its cgroup."""
        for tid in self.threads_of(container):
            self.end_task(tid)
        self._source.remove(container.cgroups_path)

    @contextmanager
    def frozen(self, container: ContainerHandle) -> Iterator[None]:
        """Nothing runs here but when it is listed."""
        yield

    def work(self, container: ContainerHandle) -> None:
        """Let the counters of the group of a container's first thread rise."""
        for domain in _DOMAINS:
            self.kernel.move_bytes(Tid(container.pid), _WORK, local=_WORK // 2, domain=domain)

    def threads_of(self, container: ContainerHandle) -> set[Tid]:
        """Return a container's threads."""
        return {tid for tid in self._living if self._homes[tid] == container.cgroups_path}

    def spawn_task(self, parent: Tid | None = None) -> Tid:
        """Start a thread."""
        return self._start(parent, self._homes[parent] if parent is not None else "/")

    def end_task(self, tid: Tid) -> None:
        """End a thread."""
        self.kernel.end(tid)
        self._living.remove(tid)

    def tasks_in(self, group: Path) -> set[Tid]:
        """Return a group's threads."""
        listed = self.kernel.tasks_in(group)
        return listed if self.is_ours(group) else listed & self._living

    def traffic(self, group: Path) -> dict[str, int]:
        """Read the counters."""
        readings = {}
        for domain in self.kernel.read_child_dirs(group / "mon_data"):
            for event in ("mbm_local_bytes", "mbm_total_bytes"):
                readings[f"{domain}/{event}"] = int(
                    self.kernel.read_text(group / "mon_data" / domain / event)
                )
        return readings

    @contextmanager
    def refused_counters(self, word: str) -> Iterator[None]:
        """Let every counter say a word."""
        self.kernel.fail_counters(word)
        try:
            yield
        finally:
            self.kernel.fail_counters(None)

    def part_domains(self) -> frozenset[str]:
        """Take the second L3 cache offline and back."""
        for online in (False, True):
            self.kernel.set_online(1, online=online)
        return frozenset({"mon_L3_01"})

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

    def _new_cgroup(self) -> ContainerHandle:
        name = f"container{next(self._numbers)}"
        path = f"/kubepods/{name}"
        self._source.set(path, ())
        return ContainerHandle(name, path, "/kubepods", 0)


class FakeSite:
    """Every scenario has a new fake."""

    def world(self, machine: Machine) -> FakeWorld:
        """Return a new machine."""
        return FakeWorld(machine)

    def close(self) -> None:
        """Nothing is shared."""
