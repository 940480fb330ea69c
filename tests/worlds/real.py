"""A real machine: the kernel's resctrl, cgroups, processes with threads.

Owns: the real worlds. Must not know: the plugin, or what a scenario claims.

Rules:
    1. Nothing of others is touched: cgroups stand below one directory of our own, groups carry our prefixes,
       threads are children of our own first process. An observer looks at the files itself.
    2. In the guest the world may unmount resctrl. On hardware it must not: there it leaves the mounts of
       everybody else first, and unmounts for itself alone.
    3. RMIDs that a scenario freed rest. The next scenario begins when enough have come back: every group that
       is made is counted, whoever makes it.
"""

from __future__ import annotations

import errno
import itertools
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from attrs import define, evolve, field, frozen

from nri_resctrl_plugin.cgroups import CgroupPidSource, PidSource
from resctrl import FsProvider, Tid
from tests.worlds import cgroup_dirs, mounts
from tests.worlds.counting import Counting, GuestCounting, HardwareCounting
from tests.worlds.groups import OsFiles, RawGroups
from tests.worlds.protocol import Capability, ContainerHandle, Machine, WorldMissing
from tests.worlds.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

__all__ = ["RUN_PREFIX", "HardwareSite", "KernelSite", "RealWorld"]

RUN_PREFIX: Final = "RESCTRL_TEST_PREFIX"
"""Environment variable: begins the name of every group of a hardware run, so that a teardown finds them."""

_ROOT: Final = Path("/sys/fs/resctrl")
_MODEL: Final = Path("/sys/module/fakerdt/parameters")
_SWEEP: Final = 1.1
"""Seconds from one look of the kernel's limbo worker to the next (CQM_LIMBOCHECK_INTERVAL), and some."""
_COOLS: Final = 1.5
"""Seconds that a group's few cache lines take on hardware to be few enough."""
_A_SCENARIO: Final = 16
"""How many RMIDs a scenario may use, those apart that it uses up on purpose."""
_A_PROBE: Final = 8
"""How many RMIDs are asked for at once to see whether the rest came back."""
_POLL: Final = 0.02
"""Seconds from one probe to the next."""


class Mounting(Protocol):
    """Mounts and unmounts resctrl as somebody else would."""

    lacks: frozenset[Capability]

    def mount(self) -> None:
        """Let it be mounted."""
        ...

    def unmount(self) -> None:
        """Let it be mounted no more."""
        ...


class GuestMounting:
    """The guest is ours: its resctrl is mounted and unmounted for real."""

    lacks: frozenset[Capability] = frozenset()

    def mount(self) -> None:
        mounts.mount_resctrl(_ROOT)

    def unmount(self) -> None:
        mounts.unmount(_ROOT)


class HiddenMounting:
    """The machine's resctrl stays mounted for all others; this thread and those it starts lose sight of it.

    Must be made before any thread that shall share that sight.
    """

    lacks: frozenset[Capability] = frozenset({Capability.MOUNTING})

    def __init__(self) -> None:
        mounts.own_mount_namespace()
        self._hidden: int | None = None

    def mount(self) -> None:
        assert self._hidden is not None
        mounts.attach(self._hidden, _ROOT)
        os.close(self._hidden)
        self._hidden = None

    def unmount(self) -> None:
        self._hidden = mounts.detached_copy(_ROOT)
        mounts.unmount(_ROOT)


@define
class Resting:
    """RMIDs that were freed and may be in limbo.

    Attributes:
        seconds: How long at most.
    """

    seconds: float
    _until: list[tuple[float, int]] = field(factory=list)

    def freed(self, count: int) -> None:
        """Note that so many were freed now."""
        self._until.append((time.monotonic() + self.seconds, count))

    def wait(self, room: int, made_at_once: Callable[[int], int]) -> None:
        """Wait until a scenario finds enough of so many RMIDs.

        Args:
            room: How many there are, without those that others hold.
            made_at_once: Makes so many groups at once and removes them; returns how many it made until one
                was refused.
        """
        refused = False
        while not self._are_enough(room):
            if room >= _A_PROBE + 2 * _A_SCENARIO:
                made = made_at_once(_A_PROBE)
                # None was free, and now some are: the kernel has been through all that rest, since it looks
                # through them at once. A first success says nothing: those may never have rested.
                if refused and made == _A_PROBE:
                    self._until.clear()
                if made:
                    self.freed(made)
                refused = made < _A_PROBE
            time.sleep(_POLL)

    def _are_enough(self, room: int) -> bool:
        now = time.monotonic()
        self._until = [(end, count) for end, count in self._until if end > now]
        return not self._until or sum(count for _, count in self._until) + _A_SCENARIO <= room


@frozen
class _Shared:
    """What the worlds of a site share."""

    name: str
    prefix: str
    others_prefix: str
    cgroups: Path
    """Where the hierarchy is mounted."""
    home: Path
    """The directory of our own in it."""
    tasks: Tasks
    mounting: Mounting
    counting: Counting
    resting: Resting
    files: OsFiles = field(factory=OsFiles)


class RealWorld(RawGroups):
    """A real machine for one scenario."""

    def __init__(self, shared: _Shared, number: int, machine: Machine) -> None:
        super().__init__(shared.files, _ROOT, shared.prefix, shared.others_prefix)
        self.name = shared.name
        self.fs: FsProvider = shared.counting.fs
        self.pid_source: PidSource = CgroupPidSource()
        self._shared = shared
        self._machine = machine
        self._living: set[Tid] = set()
        self._numbers = itertools.count()
        self._outside: Tid | None = None
        self._bred: dict[str, ContainerHandle] = {}
        self._forking = itertools.cycle([False, True])
        self._cgroup = shared.home / f"world{number}"
        self._cgroup.mkdir()
        self.mount_state(mounted=machine is not Machine.WITHOUT_RESCTRL)
        room = _num_rmids() - 1 - len(self.groups_in(_ROOT)) - len(self.groups_in(self._mon_groups))
        self.lacks = shared.mounting.lacks | shared.counting.lacks | _lacks()
        if Capability.LIMBO not in self.lacks:
            shared.resting.wait(room, self._made_at_once)
        self._made_before = self._made_so_far()

    def new_container(self, threads: int = 1, *, depth: int = 0) -> ContainerHandle:
        """Start a container."""
        handle = self._new_cgroup()
        first = self._process_in(handle, depth)
        if threads:
            self._living.update(self._shared.tasks.threads(first, threads - 1))
        else:
            self.end_task(first)
        return evolve(handle, pid=first)

    def new_forking_container(self, lineages: int, generation: float) -> ContainerHandle:
        """Start a container whose processes fork without pause."""
        handle = self._new_cgroup()
        first = self._process_in(handle, 0)
        self._bred[handle.name] = handle
        self._shared.tasks.breed(first, lineages, generation)
        return evolve(handle, pid=first)

    def end_container(self, container: ContainerHandle) -> None:
        """Kill a container's processes and remove its cgroups."""
        cgroup = self._cgroup / container.name
        self._living -= self.threads_of(container)
        self._bred.pop(container.name, None)
        cgroup_dirs.kill(cgroup)
        cgroup_dirs.remove_tree(cgroup)

    def frozen(self, container: ContainerHandle) -> AbstractContextManager[None]:
        """Freeze a container's cgroup."""
        return cgroup_dirs.frozen(self._cgroup / container.name)

    def work(self, container: ContainerHandle) -> None:
        """Let the container's first process use processor and memory."""
        self._shared.tasks.work(Tid(container.pid))

    def threads_of(self, container: ContainerHandle) -> set[Tid]:
        """Return a container's threads, by its cgroups."""
        return cgroup_dirs.threads_below(self._cgroup / container.name)

    def spawn_task(self, parent: Tid | None = None) -> Tid:
        """Start a thread and a process by turns."""
        if parent is None:
            if self._outside is None:
                (self._cgroup / "outside").mkdir()
                self._outside = self._shared.tasks.process()
                self._living.add(self._outside)
                cgroup_dirs.enter(self._cgroup / "outside", self._outside)
            parent = self._outside
        tasks = self._shared.tasks
        tid = tasks.fork(parent) if next(self._forking) else tasks.threads(parent, 1)[0]
        self._living.add(tid)
        return tid

    def exec_in(self, container: ContainerHandle) -> Tid:
        """Let a process that was started outside enter a container's cgroup."""
        return self._process_in(container, 0)

    def end_task(self, tid: Tid) -> None:
        """End a task."""
        self._shared.tasks.end(tid)
        self._living.remove(tid)

    def tasks_in(self, group: Path) -> set[Tid]:
        """Return a group's threads."""
        listed = cgroup_dirs.ids(group / "tasks")
        if self.is_ours(group):
            return listed
        return listed & self._living.union(*map(self.threads_of, self._bred.values()))

    def traffic(self, group: Path) -> dict[str, int]:
        """Read the counters."""
        files = group.glob("mon_data/mon_L3_*/mbm_*_bytes")
        return {f"{file.parent.name}/{file.name}": int(file.read_text(encoding="ascii")) for file in files}

    def refused_counters(self, word: str) -> AbstractContextManager[None]:
        """Let every counter say a word."""
        return self._shared.counting.refused(word)

    def part_domains(self) -> frozenset[str]:
        """Let domains count apart."""
        return self._shared.counting.part_domains()

    def mount_state(self, *, mounted: bool) -> None:
        """Mount or unmount."""
        if mounted and not self.is_mounted():
            self._shared.mounting.mount()
        elif not mounted and self.is_mounted():
            self._shared.mounting.unmount()

    def is_mounted(self) -> bool:
        """Tell whether resctrl is mounted."""
        return mounts.is_mounted_at(_ROOT)

    def close(self) -> None:
        """Kill the processes, remove groups and cgroups."""
        with ExitStack() as stack:  # the last first, each whatever came of those before
            stack.callback(lambda: self._shared.resting.freed(self._made_so_far() - self._made_before))
            stack.callback(cgroup_dirs.remove_tree, self._cgroup)
            if self._machine is not Machine.WITHOUT_RESCTRL:
                stack.callback(self.remove_groups)
                stack.callback(self.mount_state, mounted=True)
            stack.callback(cgroup_dirs.kill, self._cgroup)

    def _made_so_far(self) -> int:
        """Return how many groups were made by everybody who knows this machine."""
        return self._shared.counting.fs.made + self._shared.files.made

    def _made_at_once(self, count: int) -> int:
        """Make so many groups, or until one is refused, and remove them; returns how many that were."""
        made: list[Path] = []
        try:
            for number in range(count):
                path = self._mon_groups / f"{self.others_prefix}probe_{number}"
                self._raw.mkdir(path)
                made.append(path)
        except OSError as error:
            if error.errno not in {errno.EBUSY, errno.ENOSPC}:
                raise
        finally:
            for path in made:
                self._raw.rmdir(path)
        return len(made)

    def _new_cgroup(self) -> ContainerHandle:
        """Make a container's cgroup, with nothing in it."""
        name = f"container{next(self._numbers)}"
        (self._cgroup / name).mkdir()
        home = f"/{self._cgroup.relative_to(self._shared.cgroups)}"
        return ContainerHandle(name, f"{home}/{name}", home, 0)

    def _process_in(self, container: ContainerHandle, depth: int) -> Tid:
        """Start a process outside, and let it enter a cgroup so many levels below a container's own."""
        cgroup = (self._cgroup / container.name).joinpath(*["inner"] * depth)
        cgroup.mkdir(parents=True, exist_ok=True)
        process = self._shared.tasks.process()
        self._living.add(process)
        cgroup_dirs.enter(cgroup, process)
        return process


class RealSite:
    """Makes one real world after the other, with one first process for all.

    Args:
        name: The name of the worlds.
        run: Begins the names of all groups, ours and those of others.
        mounting: How resctrl is mounted and unmounted.
        counting: What can be done to its counters.
        limbo: Seconds that a freed RMID rests at most.
        machine: What this machine is.
    """

    def __init__(
        self, name: str, *, run: str, mounting: Mounting, counting: Counting, limbo: float, machine: Machine
    ) -> None:
        cgroups = cgroup_dirs.cgroup_mount()
        home = cgroups / f"resctrl-{name}-{os.getpid()}"
        home.mkdir()
        self._machine = machine
        self._numbers = itertools.count()
        self._shared = _Shared(
            name, f"{run}pod_", f"{run}others_", cgroups, home, Tasks(), mounting, counting, Resting(limbo)
        )

    def world(self, machine: Machine) -> RealWorld:
        """Return a world."""
        if machine is not self._machine:
            raise WorldMissing(f"this machine is {self._machine.value}, not {machine.value}")
        return RealWorld(self._shared, next(self._numbers), machine)

    def close(self) -> None:
        """End the first process, and with it whatever it left."""
        self._shared.tasks.close()
        cgroup_dirs.remove_tree(self._shared.home)


class KernelSite(RealSite):
    """The guest: the kernel's own resctrl over a software model of the registers."""

    def __init__(self) -> None:
        if not _MODEL.is_dir():
            raise WorldMissing("this is not the guest of the kernel lane: it has no software RDT model")
        limbo = _SWEEP + int((_MODEL / "decay_ms").read_text(encoding="ascii")) / 1000
        super().__init__(
            "kernel",
            run="",
            mounting=GuestMounting(),
            counting=GuestCounting(),
            limbo=limbo,
            machine=_machine(),
        )


class HardwareSite(RealSite):
    """A machine with RDT hardware that others use too."""

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise WorldMissing("only root may make resctrl groups")
        if not mounts.is_mounted_at(_ROOT):
            raise WorldMissing(f"resctrl is not mounted: mount -t resctrl resctrl {_ROOT}")
        if (machine := _machine()) is not Machine.FULL:
            raise WorldMissing(f"this machine is {machine.value}")
        run = os.environ.get(RUN_PREFIX) or f"test{os.getpid()}_"
        for directory in (_ROOT, _ROOT / "mon_groups"):
            for name in OsFiles().child_dirs(directory):
                if name.startswith(run):
                    raise WorldMissing(f"{directory / name} is there already; give another {RUN_PREFIX}")
        super().__init__(
            "hardware",
            run=run,
            mounting=HiddenMounting(),
            counting=HardwareCounting(),
            limbo=_SWEEP + _COOLS,
            machine=machine,
        )


def _machine() -> Machine:
    """Return what machine this is."""
    if "\tresctrl\n" not in Path("/proc/filesystems").read_text(encoding="utf-8"):
        return Machine.WITHOUT_RESCTRL
    if not mounts.is_mounted_at(_ROOT):
        mounts.mount_resctrl(_ROOT)
    return Machine.FULL if (_ROOT / "mon_groups").is_dir() else Machine.WITHOUT_MONITORING


def _num_rmids() -> int:
    path = _ROOT / "info/L3_MON/num_rmids"
    return int(path.read_text(encoding="ascii")) if path.exists() else 0


def _lacks() -> frozenset[Capability]:
    info = _ROOT / "info"
    features = info / "L3_MON/mon_features"
    found = set()
    if not any(info.glob("*/num_closids")):
        found.add(Capability.CONTROL_GROUPS)
    if not features.exists() or "llc_occupancy" not in features.read_text(encoding="ascii").split():
        found.add(Capability.LIMBO)
    return frozenset(found)
