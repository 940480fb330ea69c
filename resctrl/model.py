"""The values that the library takes and gives: frozen, typed, without behaviour of their own.

Owns: names for numbers and the shapes of results. Must not know: the file system.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NewType, TypeAlias

from attrs import field, frozen, validators

from resctrl.errors import ResctrlError

__all__ = [
    "AssignmentResult",
    "Capacity",
    "CleanupReport",
    "ReconcileResult",
    "ResctrlConfig",
    "ResctrlGroup",
    "SupportInfo",
    "TaskGroups",
    "Tid",
    "TidSource",
]

Tid = NewType("Tid", int)
"""A thread id as the kernel counts it in the reader's pid namespace. resctrl moves threads, not processes."""

TidSource: TypeAlias = Callable[[], Iterable[Tid]]
"""Lists the live threads that belong in a group, afresh at each call."""


@frozen(kw_only=True)
class ResctrlConfig:
    """Where resctrl is and which groups are ours.

    Attributes:
        root: Mount point of the resctrl file system.
        group_prefix: Every group of ours is named `<group_prefix><uid>`. It may not contain `/` or a control
            character. An empty one is accepted here, but a sweep refuses it.
    """

    root: Path = field(default=Path("/sys/fs/resctrl"), converter=Path)
    group_prefix: str = field(default="pod_", validator=validators.matches_re(r"[^/\x00-\x1f\x7f]*"))


@frozen
class AssignmentResult:
    """What became of a list of threads.

    Attributes:
        assigned: Threads that are now in the group.
        missing: Threads that were gone when their turn came (ESRCH).
    """

    assigned: int
    missing: int


@frozen
class ReconcileResult:
    """How complete a group is after `Resctrl.reconcile_group`.

    Attributes:
        assigned: Threads written into the group, all passes together.
        missing: Live threads, as last listed, that are not in the group. 0 means complete.
        passes: How often the threads were listed and written.
    """

    assigned: int
    missing: int
    passes: int

    @property
    def complete(self) -> bool:
        """Whether every live thread is in the group."""
        return self.missing == 0


@frozen
class CleanupReport:
    """What a sweep of stale groups found.

    Attributes:
        removed: Prefixed groups that were removed.
        removal_failures: Prefixed groups that could not be removed.
        removal_race: Prefixed groups that somebody else removed first.
        non_prefix_groups: Groups without the prefix, left alone.
        kept: Prefixed groups that the caller wanted kept.
        failures: Why each of those that could not be removed could not; two reports are equal whatever they
            say of it.
    """

    removed: int
    removal_failures: int
    removal_race: int
    non_prefix_groups: int
    kept: int = 0
    failures: tuple[ResctrlError, ...] = field(default=(), eq=False)


@frozen
class TaskGroups:
    """Where a thread is, as /proc/<tid>/cpu_resctrl_groups tells it.

    Attributes:
        control_group: Name of its control group; "" is the default group.
        mon_group: Name of its monitoring group below that; "" is none.
    """

    control_group: str
    mon_group: str


@frozen
class ResctrlGroup:
    """A group, of whichever kind; the default group is none of them.

    Attributes:
        path: Its directory.
        control_group: Name of the control group that it is, or stands below; "" is the default group.
        name: Name of the monitoring group; "" for a control group itself.
        ours: Its directory's name begins with our prefix.
    """

    path: Path
    control_group: str
    name: str
    ours: bool


@frozen(kw_only=True)
class Capacity:
    """How many groups the machine has room for; each takes one RMID, of whichever kind it is.

    An RMID of a deleted group rests in limbo, for a second or two, before it can be used again. The kernel
    does not tell how many do, so they are not counted: with `free` above 0 a creation can still meet
    `RmidsBusyError`.

    Attributes:
        num_rmids: RMIDs of the machine, that of the default group included.
        in_use: RMIDs that are taken: by the default group, by each control group and each monitoring group.
        ours: The groups among them that carry our prefix.
    """

    num_rmids: int
    in_use: int
    ours: int

    @property
    def free(self) -> int:
        """RMIDs that no group has: groups that could be made, as soon as none rests in limbo."""
        return max(0, self.num_rmids - self.in_use)


@frozen(kw_only=True)
class SupportInfo:
    """What this machine offers.

    Attributes:
        kernel_support: resctrl stands in /proc/filesystems (kernel and processor both know it).
        mount_point: Where it is mounted, or None. The configured root wins where there are several.
        mounted: It is mounted at the configured root.
        writable: The root's `tasks` file can be opened for writing.
        monitoring: Monitoring groups can be made (`info/L3_MON` is there).
    """

    kernel_support: bool
    mount_point: Path | None
    mounted: bool
    writable: bool
    monitoring: bool
