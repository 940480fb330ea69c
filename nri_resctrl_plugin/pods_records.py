"""What the pod table remembers of sandboxes, containers and pods.

Owns: the records, and what follows from them alone: what counts, what is told, what waits, what may move.
Must not know: when a record changes, and what a change brings (`pods_state`).

Numbered rules:

1. A pod's groups are what completions told to be on disk: a group is known until one tells that it is gone.
2. The main group comes first; the order of the others is that of their paths, so that it says nothing.
3. A home is believed in: an attempt that failed may not have seen all of them, so it takes none away.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, evolve, field

from nri_resctrl_plugin.events import Exists, Failed, PodResctrlAddOrUpdate
from nri_resctrl_plugin.model import ContainerCgroup, ContainerId, PodUid, SandboxId
from nri_resctrl_plugin.pods_facts import Container
from nri_resctrl_plugin.pods_phases import (
    CONTAINER_STATES,
    COUNTED,
    GROUP_EXISTS,
    GROUP_FAILED,
    ContainerPhase,
    GroupPhase,
    SandboxPhase,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["ContainerRecord", "PodRecord", "SandboxRecord"]

_NO_UID = PodUid("")


@define(eq=False)
class SandboxRecord:
    """One sandbox. Kept while it is not UNKNOWN, or while containers wait for it.

    Attributes:
        sandbox_id: Its id.
        pod_uid: Its pod; means something only while it is LIVE.
        cgroup: Its own cgroup, where that was told.
        phase: What is known of it.
        containers: What is known in it, stopped ones too, in the order of arrival.
    """

    sandbox_id: SandboxId
    pod_uid: PodUid = _NO_UID
    cgroup: ContainerCgroup | None = None
    phase: SandboxPhase = SandboxPhase.UNKNOWN
    containers: dict[ContainerId, ContainerRecord] = field(factory=dict)

    def hear(self, cgroup: ContainerCgroup | None) -> None:
        """Keep the newest word about its cgroup."""
        if cgroup is not None:
            self.cgroup = _newest(self.cgroup or cgroup, cgroup)

    def cgroups(self) -> tuple[ContainerCgroup, ...]:
        """Where the threads of its containers are found, those left out that ended."""
        alive = (each for each in self.containers.values() if each.phase in CONTAINER_STATES)
        return tuple(container.told.cgroup for container in alive)


@define(eq=False)
class ContainerRecord:
    """One container.

    Attributes:
        told: The runtime's newest word about it.
        sandbox: Where it was first seen; it stays there.
        phase: How far it has come.
        homes: The groups of its pod that hold threads of it, as far as completions told.
    """

    told: Container
    sandbox: SandboxRecord
    phase: ContainerPhase = ContainerPhase.UNKNOWN
    homes: frozenset[Path] = frozenset()

    def hear(self, told: Container) -> None:
        """Keep the newest word about it, without losing what only an older one told."""
        self.told = evolve(
            told,
            started=told.started or self.told.started,
            cgroup=_newest(self.told.cgroup, told.cgroup),
        )


@define(eq=False)
class PodRecord:
    """One pod and its groups.

    Attributes:
        pod_uid: Its uid.
        phase: How it and its group stand to each other.
        sandboxes: The live ones; the pod lives while there are any.
        groups: Its groups on disk, as far as completions told, the main one first.
        reason: Why there is no group, while it is Failed.
        told: The last AddOrUpdate, unless Removed was told since.
    """

    pod_uid: PodUid
    phase: GroupPhase = GroupPhase.ABSENT
    sandboxes: dict[SandboxId, SandboxRecord] = field(factory=dict)
    groups: tuple[Path, ...] = ()
    reason: str = ""
    told: PodResctrlAddOrUpdate | None = None

    @property
    def left(self) -> bool:
        """Whether a group of it is on disk, as far as completions told."""
        return bool(self.groups)

    def containers(self) -> Iterator[ContainerRecord]:
        """Every container in its live sandboxes, in the order of arrival per sandbox."""
        for sandbox in self.sandboxes.values():
            yield from sandbox.containers.values()

    def waiting(self) -> list[ContainerRecord]:
        """The containers whose attempt waits: first attempts of a START before others."""
        containers = list(self.containers())
        return [
            container
            for phase in (ContainerPhase.STARTING, ContainerPhase.QUEUED)
            for container in containers
            if container.phase is phase
        ]

    def movable(self, mover: ContainerRecord) -> frozenset[Path]:
        """The groups that are the home of no counted container but this one."""
        others = (each for each in self.containers() if each is not mover and each.phase in COUNTED)
        return frozenset(self.groups).difference(*(container.homes for container in others))

    def found(self, main: Path | None, others: Iterable[Path]) -> bool:
        """Take in which groups are on disk; return whether that is news.

        Args:
            main: The main group; None: there is none.
            others: The further ones, the main one perhaps among them.
        """
        known = self.groups
        self.groups = (*([] if main is None else [main]), *sorted({*others} - {main}))
        for container in self.containers():
            container.homes &= frozenset(self.groups)
        return self.groups != known

    def has_outcome(self) -> bool:
        """Whether the group was made or refused since the pod appeared: before that, nothing is told."""
        return self.phase in GROUP_EXISTS or self.phase in GROUP_FAILED

    def state(self) -> PodResctrlAddOrUpdate:
        """Its present state in the words of the audience; means something only once there is an outcome."""
        phases = [container.phase for container in self.containers()]
        return PodResctrlAddOrUpdate(
            pod_uid=self.pod_uid,
            group_state=(
                Exists(self.groups[0], self.groups[1:]) if self.phase in GROUP_EXISTS else Failed(self.reason)
            ),
            total_containers=sum(phase in COUNTED for phase in phases),
            reconciled_containers=phases.count(ContainerPhase.RECONCILED),
        )


def _newest(old: ContainerCgroup, new: ContainerCgroup) -> ContainerCgroup:
    """The newest word about a cgroup, with what only the older one told."""
    return ContainerCgroup(
        cgroups_path=new.cgroups_path or old.cgroups_path,
        cgroup_parent=new.cgroup_parent or old.cgroup_parent,
        pid=new.pid or old.pid,
    )
