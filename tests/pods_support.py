"""Small words for tests of the pod table: one pod with its group, and what is asked and told of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nri_resctrl_plugin.events import (
    Exists,
    Failed,
    PodResctrlAddOrUpdate,
    PodResctrlEvent,
)
from nri_resctrl_plugin.model import ContainerCgroup, ContainerId, PodUid, SandboxId
from nri_resctrl_plugin.pods import (
    Action,
    Container,
    ContainerStarted,
    Emit,
    Fact,
    GroupCreated,
    PodRef,
    PodStarted,
    PodTable,
    Reconcile,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "A1",
    "A2",
    "B1",
    "GOLD",
    "LEAD",
    "PATH",
    "A",
    "B",
    "X",
    "Y",
    "Z",
    "events",
    "exists",
    "failed",
    "reconcile",
    "running",
    "start",
    "table_after",
    "word",
    "works",
]

A, B = PodUid("A"), PodUid("B")
A1, A2, B1 = PodRef(SandboxId("a1"), A), PodRef(SandboxId("a2"), A), PodRef(SandboxId("b1"), B)
X, Y, Z = ContainerId("x"), ContainerId("y"), ContainerId("z")
PATH = Path("/groups/pod_A")
GOLD, LEAD = Path("/groups/gold/pod_A"), Path("/groups/lead/pod_A")


def word(
    container_id: ContainerId = X,
    pod: PodRef = A1,
    *,
    started: bool = True,
    monitored: bool = False,
    cgroup: ContainerCgroup | None = None,
) -> Container:
    cgroup = cgroup or ContainerCgroup(cgroups_path=f"/{container_id}")
    return Container(container_id, pod.sandbox_id, cgroup, started, monitored)


def start(container_id: ContainerId = X, pod: PodRef = A1) -> ContainerStarted:
    return ContainerStarted(word(container_id, pod))


def table_after(*facts: Fact) -> PodTable:
    table = PodTable()
    for fact in facts:
        table.apply(fact)
    return table


def running(*facts: Fact) -> PodTable:
    """A table with pod A and its group, after more facts."""
    return table_after(PodStarted(A1), GroupCreated(A, PATH), *facts)


def events(actions: Iterable[Action]) -> list[PodResctrlEvent]:
    return [action.event for action in actions if isinstance(action, Emit)]


def works(actions: Iterable[Action]) -> list[Action]:
    return [action for action in actions if not isinstance(action, Emit)]


def reconcile(
    container_id: ContainerId = X,
    cgroup: ContainerCgroup | None = None,
    *groups: Path,
    movable: Iterable[Path] = (PATH,),
) -> Reconcile:
    """The attempt of a container of pod A; as long as it is alone at home, the group may move with it."""
    main, *others = groups or (PATH,)
    cgroup = cgroup or ContainerCgroup(cgroups_path=f"/{container_id}")
    return Reconcile(A, container_id, main, cgroup, tuple(others), frozenset(movable))


def exists(total: int, reconciled: int) -> PodResctrlAddOrUpdate:
    return PodResctrlAddOrUpdate(A, Exists(PATH), total, reconciled)


def failed(total: int) -> PodResctrlAddOrUpdate:
    return PodResctrlAddOrUpdate(A, Failed(), total, 0)
