"""What a scenario needs of its machine: threads, containers and a resctrl, real or not.

Owns: the protocols, and the names for what a world may lack. Must not know: any world, the plugin, or what a
scenario claims.

Rules:
    1. A scenario asks a world for its parts and never which world it is. What a world cannot do stands in
       `lacks`, and the scenario that needs it says so (`pytest.mark.needs`, `pytest.mark.machine`): a listed
       skip with its reason.
    2. What a world tells of groups and threads it sees by itself, past the code under test and past whatever
       wrapper a scenario put around `fs`.
    3. A world gives back what it took: `close` ends its threads and removes its groups, also after a failure.
    4. Groups of ours carry `prefix`, those of others that a scenario makes `others_prefix`; neither begins
       with the other, so no sweep of ours hits those.
"""

from __future__ import annotations

import asyncio
import time
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from nri_resctrl_plugin.cgroups import PidSource
    from resctrl import FsProvider, Tid

__all__ = [
    "DEADLINE",
    "Capability",
    "ContainerHandle",
    "Machine",
    "Site",
    "World",
    "WorldMissing",
    "eventually",
]

DEADLINE: Final = 10.0
"""Seconds after which what is waited for has not come. Limbo takes a kernel 1 to 2 s."""

T = TypeVar("T")


class Capability(Enum):
    """What a world may lack; the value is the reason that the skip tells."""

    MOUNTING = "its resctrl stays mounted for everybody else, so nobody can mount it anew"
    PARTING = "its processors are others' too, so no domain can be taken away"
    CONTROL_GROUPS = "it has no control groups"
    LIMBO = "a freed RMID can be used again at once"


class Machine(Enum):
    """What kind of machine a scenario is about; all but a few are about the first."""

    FULL = "full"
    WITHOUT_RESCTRL = "without-resctrl"
    WITHOUT_MONITORING = "without-monitoring"


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
    """A machine for one scenario."""

    name: str
    fs: FsProvider
    """Its files; any wrapper may be put around it."""
    root: Path
    """Where resctrl is mounted, or would be."""
    prefix: str
    """With what the groups of this world begin, and nobody else's."""
    others_prefix: str
    """With what the groups begin that a scenario makes for somebody else, and those that use up RMIDs."""
    pid_source: PidSource
    """Lists the live threads of its containers."""
    lacks: frozenset[Capability]

    def new_container(self, threads: int = 1, *, depth: int = 0) -> ContainerHandle:
        """Start a container, in no group yet.

        Args:
            threads: How many it has; 0 for one whose processes ended.
            depth: In which of the cgroups nested in its own they are, so many levels below.
        """
        ...

    def new_forking_container(self, lineages: int, generation: float) -> ContainerHandle:
        """Start a container in which processes fork without pause, in no group yet.

        Args:
            lineages: How many of them live at a time; each forks its successor and ends.
            generation: Seconds that each of them waits before.
        """
        ...

    def exec_in(self, container: ContainerHandle) -> Tid:
        """Start a process as `kubectl exec` does: its parent is outside, so it is in no group of ours."""
        ...

    def end_container(self, container: ContainerHandle) -> None:
        """End a container's processes and remove its cgroup, as a runtime does."""
        ...

    def frozen(self, container: ContainerHandle) -> AbstractContextManager[None]:
        """Let nothing in a container run meanwhile."""
        ...

    def work(self, container: ContainerHandle) -> None:
        """Let a container's first thread do something that its group's counters count."""
        ...

    def threads_of(self, container: ContainerHandle) -> set[Tid]:
        """Return the threads that live in a container now."""
        ...

    def spawn_task(self, parent: Tid | None = None) -> Tid:
        """Start a thread or a process: by one that lives, so in its container and group, or in neither."""
        ...

    def end_task(self, tid: Tid) -> None:
        """End a thread, and return when it is gone. The first thread of a process ends last."""
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

    def remove_group(self, path: Path) -> None:
        """Remove a group as somebody else would do it."""
        ...

    def control_group(self, name: str) -> Path:
        """Make a control group as somebody else would do it, and return where it stands."""
        ...

    def put(self, group: Path, *tids: Tid) -> None:
        """Move threads as somebody else would do it."""
        ...

    def groups_in(self, directory: Path) -> set[str]:
        """Return the groups in the root or in a `mon_groups`; none if that is not there."""
        ...

    def tasks_in(self, group: Path) -> set[Tid]:
        """Return the threads in a group; of a group of others those that this world started."""
        ...

    def traffic(self, group: Path) -> dict[str, int]:
        """Return what a group has counted of memory traffic, in bytes, by domain and event."""
        ...

    def refused_counters(self, word: str) -> AbstractContextManager[None]:
        """Let every counter say "Unavailable" or "Error" meanwhile, instead of a number."""
        ...

    def part_domains(self) -> frozenset[str]:
        """Take some domains away and bring them back: they begin to count anew while the others go on.

        Returns:
            Their names.
        """
        ...

    def mount_state(self, *, mounted: bool) -> None:
        """Mount or unmount, as somebody else would do it; nothing if it is so already."""
        ...

    def is_mounted(self) -> bool:
        """Tell whether resctrl is mounted."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


class Site(Protocol):
    """Where worlds of one kind are made, one after the other; lives as long as the test session."""

    def world(self, machine: Machine) -> World:
        """Return a world of its own for one scenario.

        Raises:
            WorldMissing: This is no such machine.
        """
        ...

    def close(self) -> None:
        """Give back what the worlds shared."""
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
