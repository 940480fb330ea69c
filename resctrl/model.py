"""The values that the library takes and gives: frozen, typed, without behaviour of their own.

Owns: names for numbers and the shapes of results. Must not know: the file system.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NewType, TypeAlias

from attrs import field, frozen, validators

__all__ = [
    "AssignmentResult",
    "CleanupReport",
    "ReconcileResult",
    "ResctrlConfig",
    "SupportInfo",
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
    """

    removed: int
    removal_failures: int
    removal_race: int
    non_prefix_groups: int


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
