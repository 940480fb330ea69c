"""`FakeFs`: a small resctrl kernel behind the `FsProvider` protocol, with true errnos.

Owns: the machine's properties and what a test does to it. Must not know: how anything is answered
(`resctrl.testing.vfs`, `resctrl.testing.kernel`).

Rules:
    1. It answers as the kernel does, not as a test would like it. What it cannot do it refuses loudly
       (NotImplementedError).
    2. Its beliefs are numbered in docs/explanation/kernel-semantics.md.
    3. Any number of threads may call it; each system call is atomic.
"""

from __future__ import annotations

import errno
import threading
import time
from typing import TYPE_CHECKING, Final

from resctrl.model import Tid
from resctrl.testing.info import Hardware
from resctrl.testing.kernel import Kernel
from resctrl.testing.nodes import FileSystem, fail
from resctrl.testing.tasks import Group
from resctrl.testing.vfs import SYSFS_MOUNT_POINT, Privilege, Vfs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = ["FakeFs", "Privilege"]

_SELF: Final = Tid(999)


class FakeFs(Vfs):
    """A machine with resctrl, in memory.

    Args:
        root: Where resctrl is mounted, or would be.
        num_rmids: RMIDs of the processor, RMID 0 included: at most `num_rmids - 1` groups.
        num_closids: CLOSIDs of the processor, CLOSID 0 included.
        limbo: Seconds that a freed RMID rests before it can be used again; `math.inf` for a cache that never
            cools down; 0.0 for a processor without llc_occupancy, which has no limbo.
        clock: Seconds, for the limbo.
        mounted: Whether resctrl is mounted at `root` to begin with.
        supported: Whether kernel and processor know resctrl at all.
        monitoring: Whether the processor can count.
        allocation: Whether it can allocate.
        alive: Tells of threads that live outside the fake (for instance by /proc): they can be assigned, and
            leave when they die. The fake cannot see their children.
        domains: Ids of the L3 caches.
        nodes_per_domain: NUMA nodes that share an L3 cache; with more than one (sub-NUMA clustering, Linux
            6.11) each counts by itself, and cache `i` has the nodes from `i * nodes_per_domain` on.
        packages: Ids of packages that count their energy (Linux 7.0).
        lists: Whether one write to `tasks` may hold several ids (Linux 6.7).
        proc_groups: Whether there is /proc/<tid>/cpu_resctrl_groups (Linux 5.6).
        privilege: Who calls; may be changed at any time.

    Raises:
        ValueError: No such machine: supported without monitoring and allocation, or without RMID 0.
    """

    def __init__(  # noqa: PLR0913 - a machine has that many properties; all by keyword
        self,
        *,
        root: Path = SYSFS_MOUNT_POINT,
        num_rmids: int = 8,
        num_closids: int = 4,
        limbo: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        mounted: bool = True,
        supported: bool = True,
        monitoring: bool = True,
        allocation: bool = True,
        alive: Callable[[int], bool] | None = None,
        domains: Iterable[int] = (0,),
        nodes_per_domain: int = 1,
        packages: Iterable[int] = (),
        lists: bool = True,
        proc_groups: bool = True,
        privilege: Privilege = Privilege.ROOT,
    ) -> None:
        if supported and not (monitoring or allocation):
            raise ValueError(
                "a machine that can neither monitor nor allocate has no resctrl: supported=False"
            )
        if min(num_rmids, num_closids) < 1 or limbo < 0:
            raise ValueError("num_rmids and num_closids count the reserved one; limbo is a duration")
        hardware = Hardware(
            num_rmids=num_rmids,
            num_closids=num_closids,
            monitoring=monitoring,
            allocation=allocation,
            llc_occupancy=limbo > 0,
            domains=tuple(domains),
            nodes_per_domain=nodes_per_domain,
            packages=tuple(packages) if monitoring else (),
        )
        self._root_path = root
        self._outside = alive is not None
        kernel = Kernel(hardware, limbo, clock, alive, self._writer, lists=lists)
        super().__init__(kernel, root, supported=supported, privilege=privilege, proc_groups=proc_groups)
        if not self._outside:
            self._kernel.tasks.spawn(None, _SELF)
        if supported and mounted:
            self._mount_at(self._find(root))

    # What tests drive: the world behind the files

    @property
    def root(self) -> Path:
        """Where resctrl is mounted, or would be."""
        return self._root_path

    @property
    def self_tid(self) -> Tid:
        """The thread that a write of `0` moves: 999, or the calling thread where threads live outside."""
        return self._writer()

    def spawn(self, parent: Tid | None = None, *, tid: Tid | None = None) -> Tid:
        """Start a thread; it inherits the group of its parent (none: the default group).

        Raises:
            LookupError: The parent does not live.
            ValueError: The wanted tid is taken.
        """
        with self._lock:
            return self._kernel.tasks.spawn(parent, tid)

    def end(self, tid: Tid) -> None:
        """End a thread. Until then a dead one counts as a zombie, which resctrl still lists and moves."""
        with self._lock:
            self._kernel.tasks.end(tid)

    def tasks_in(self, group: Path) -> set[Tid]:
        """Return the threads in a group as its `tasks` would list them, past privileges and quirks.

        Raises:
            OSError: ENOENT and the like: there is no such directory.
            ValueError: It is no group.
        """
        with self._lock:
            return {Tid(tid) for tid in self._kernel.threads_of(self._group(group))}

    def set_reading(self, group: Path, event: str, value: float | str, *, domain: int = 0) -> None:
        """Fix what a group counts by itself: a number, or a word such as "Unavailable" or "Error".

        Args:
            group: Its directory.
            event: Such as `llc_occupancy`.
            value: A float reads as a decimal fraction.
            domain: Id of the L3 cache; with several nodes a cache that of the node, for `core_energy` and
                `activity` that of the package.
        """
        with self._lock:
            self._group(group).counts[domain, event] = value

    def move_bytes(self, tid: Tid, total: int, *, local: int = 0, domain: int = 0) -> None:
        """Let a thread move bytes between a cache and memory: its group's counters grow.

        Args:
            tid: A live thread.
            total: Bytes, for `mbm_total_bytes`.
            local: Those of them that are local to the node, for `mbm_local_bytes`.
            domain: Id of the L3 cache, or of the node where a cache has several.

        Raises:
            LookupError: The thread does not live.
        """
        with self._lock:
            if not self._kernel.tasks.lives(tid):
                raise LookupError(f"no live thread {tid}")
            self._kernel.move_bytes(tid, domain, total, local)

    def fail_counters(self, word: str | None) -> None:
        """Let the hardware refuse every counter with "Unavailable" or "Error"; None lets them count again."""
        with self._lock:
            self._kernel.counters.word = word

    def set_online(self, domain: int, *, online: bool) -> None:
        """Let all processors at an L3 cache run, or take them offline: its counters go, and begin anew.

        Raises:
            ValueError: There is no such cache, or no other one runs.
        """
        with self._lock:
            self._kernel.set_online(domain, online=online)

    @property
    def free_rmids(self) -> int:
        """How many groups could be made now."""
        with self._lock:
            return self._kernel.rmids.free()

    @property
    def rmids_in_limbo(self) -> int:
        """How many freed RMIDs still rest."""
        with self._lock:
            return self._kernel.rmids.resting()

    def end_limbo(self) -> None:
        """Let every resting RMID be free now."""
        with self._lock:
            self._kernel.rmids.flush()

    @property
    def mount_point(self) -> Path | None:
        """Where resctrl is mounted now."""
        with self._lock:
            return self._mount_node.path() if self._mount_node is not None else None

    def mount(self, target: Path | None = None) -> None:
        """Let another process attach it, at the root or elsewhere; fails as the system call does."""
        with self._lock:
            self._mount(target if target is not None else self._root_path, Privilege.ROOT)

    def unmount(self) -> None:
        """Unmount: every group is destroyed, the RMIDs go into limbo. OSError EBUSY while a file is open."""
        with self._lock:
            point = self._mount_node
            if point is None or point.mounted is None:
                fail(errno.EINVAL, self._root_path)
            if any(node.fs is FileSystem.RESCTRL for node in self._held):
                fail(errno.EBUSY, point.path())
            self._kernel.unmount()
            point.mounted = None
            self._mount_node = None
            self._read_only = False

    def remount(self, *, read_only: bool) -> None:
        """Change the mount between writable and read-only (EROFS)."""
        with self._lock:
            self._read_only = read_only

    # Within

    def _writer(self) -> Tid:
        return Tid(threading.get_native_id()) if self._outside else _SELF

    def _group(self, path: Path) -> Group:
        group = self._find(path).owner
        if not isinstance(group, Group) or group.node is not self._find(path):
            raise ValueError(f"{str(path)!r} is no group")
        return group
