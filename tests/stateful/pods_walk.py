"""A small cast and random steps for `PodsWorld`: what the sweep walks, without hypothesis and its cost.

Each walk draws a mood first: which kinds of things happen in it, how often, where containers live, and how
well actions end. Walks of many moods reach corners that an average one does not (an orphan whose pod comes
back, is refused, and goes).
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, TypeAlias

from nri_resctrl_plugin.model import ContainerCgroup, ContainerId, PodUid, SandboxId
from nri_resctrl_plugin.pods import (
    Container,
    ContainerRemoved,
    ContainerRetried,
    ContainerStarted,
    ContainerStopped,
    Fact,
    Finding,
    GroupCreated,
    GroupDeleted,
    GroupRetried,
    OrphanRetried,
    PodAudited,
    PodInspected,
    PodRef,
    PodRemoved,
    PodStarted,
    PodStopped,
    PodTable,
    Reconcile,
    Synchronized,
    TasksReconciled,
)
from tests.stateful.pods_ground import CLASSES
from tests.stateful.pods_model import PodsWorld

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CONTAINERS", "PODS", "SANDBOXES", "STEPS", "VARIANTS", "container", "sandbox", "walk"]

PODS = (PodUid("A"), PodUid("B"))
SANDBOXES = {SandboxId("a1"): PODS[0], SandboxId("a2"): PODS[0], SandboxId("b1"): PODS[1]}
Homes: TypeAlias = dict[ContainerId, SandboxId]
CONTAINERS: Homes = {
    ContainerId("x"): SandboxId("a1"),
    ContainerId("y"): SandboxId("a1"),
    ContainerId("z"): SandboxId("a2"),
    ContainerId("w"): SandboxId("b1"),
}
STEPS = 40
VARIANTS = 30
"""How many ways there are for an action to end well or badly."""


def container(
    container_id: ContainerId,
    sandbox_id: SandboxId,
    *,
    pid: int = 1,
    started: bool = True,
    monitored: bool = False,
) -> Container:
    """A container as the runtime tells of it; the pid makes one word differ from the next."""
    cgroup = ContainerCgroup(cgroups_path=f"/pods/{container_id}", cgroup_parent="/pods", pid=pid)
    return Container(container_id, sandbox_id, cgroup, started, monitored)


def sandbox(sandbox_id: SandboxId, *, pid: int = 0) -> PodRef:
    """A sandbox as the runtime tells of it: without its cgroup (no pid), or with it."""
    cgroup = ContainerCgroup(cgroups_path=f"/pods/{sandbox_id}" if pid % 2 else "", pid=pid)
    return PodRef(sandbox_id, SANDBOXES[sandbox_id], cgroup if pid else None)


def walk(table: PodTable, seed: int) -> PodsWorld:
    """Walk a table through one world; an AssertionError tells where it is wrong.

    Args:
        table: The table, fresh.
        seed: Which walk; the same seed is the same walk for as long as the table is right.

    Returns:
        The world, at rest.
    """
    rng = Random(seed)  # noqa: S311 - a test's walk is to be repeatable, not secret
    steadiness = rng.choice((1.0, 0.3, 0.1))
    kinds = [*_POD_KINDS, *_CONTAINER_KINDS]
    strife = rng.choice((0.0, 0.2, 0.4, 0.6))
    weights = [rng.choice((0.0, 1.0, 1.0, 4.0)) * steadiness for _ in _POD_KINDS]
    weights += [rng.choice((0.0, 1.0, 1.0, 4.0)) for _ in _CONTAINER_KINDS]
    weights[0] += 1.0  # nothing happens where no pod ever starts
    ending = rng.choice((0.1, 0.2, 0.5))
    well, complete = rng.choice((0.2, 0.5, 0.9)), rng.choice((0.2, 0.5, 0.8))
    names = list(CONTAINERS) if rng.random() < 0.7 else list(CONTAINERS)[: rng.randrange(1, 3)]
    homes = _homes(rng)
    wander = rng.random() < 0.2
    world = PodsWorld(table=table)
    if rng.random() < 0.3:  # begin amid a life
        world.feed(_synchronized(rng, homes, names[0]))
        while world.pending:
            _end_an_action(rng, world, well, complete)
    for _ in range(STEPS):
        if world.pending and rng.random() < ending:
            _end_an_action(rng, world, well, complete)
        elif rng.random() < strife:
            _meddle(rng, world)
        else:
            kind = rng.choices(kinds, weights)[0]
            if wander:
                homes = _homes(rng)
            world.feed(kind(rng, homes, rng.choice(names)))
    world.drain()
    world.reach_truth()
    return world


def _end_an_action(rng: Random, world: PodsWorld, well: float, complete: float) -> None:
    pod_uid = rng.choice(sorted(world.pending))
    chance = complete if isinstance(world.pending[pod_uid][0], Reconcile) else well
    world.finish(pod_uid, good=rng.random() < chance, variant=rng.randrange(VARIANTS))


def _meddle(rng: Random, world: PodsWorld) -> None:
    """Let other hands do something on the ground, or an audit begin."""
    kind, pod_uid, sandbox_id = rng.randrange(5), rng.choice(PODS), rng.choice(list(SANDBOXES))
    if kind == 0:
        world.feed(PodAudited(pod_uid))
    elif kind == 1:
        world.take_census()
    elif kind == 2:
        world.vanish(sandbox_id)
    elif kind == 3:
        world.lose_group(pod_uid, rng.randrange(3))
    else:
        world.meddle(rng.choice(list(CONTAINERS)), rng.choice((None, *CLASSES)), ends=rng.random() < 0.2)


def _homes(rng: Random) -> Homes:
    """Where containers live: each in its own sandbox, all in one, or as no runtime should tell it."""
    return rng.choice(
        (
            CONTAINERS,
            CONTAINERS,
            dict.fromkeys(CONTAINERS, SandboxId("a1")),
            {container_id: rng.choice(list(SANDBOXES)) for container_id in CONTAINERS},
        )
    )


def _home(rng: Random, homes: Homes, container_id: ContainerId) -> PodRef:
    return sandbox(homes[container_id], pid=rng.randrange(4))


def _container_started(rng: Random, homes: Homes, container_id: ContainerId) -> Fact:
    pod = _home(rng, homes, container_id)
    word = container(
        container_id,
        pod.sandbox_id,
        pid=rng.randrange(1, 9),
        started=rng.random() < 0.5,  # a START is one, whatever state the container is told with
        monitored=rng.random() < 0.15,
    )
    return ContainerStarted(word, pod if rng.random() < 0.3 else None)


def _synchronized(rng: Random, homes: Homes, _: ContainerId) -> Fact:
    pods = [sandbox(each, pid=rng.randrange(4)) for each in SANDBOXES if rng.random() < 0.7]
    containers = [
        container(
            container_id,
            sandbox_id,
            pid=rng.randrange(1, 9),
            started=rng.random() < 0.6,
            monitored=rng.random() < 0.15,
        )
        for container_id, sandbox_id in homes.items()
        if rng.random() < 0.7
    ]
    return Synchronized(tuple(pods), tuple(containers))


def _unasked(rng: Random, homes: Homes, container_id: ContainerId) -> Fact:
    """A completion that nobody asked for, unless by chance somebody did."""
    pod_uid = SANDBOXES[homes[container_id]]
    found = Path("/groups/found"), Path("/groups/gold/found")
    finding = rng.choice(list(Finding))
    return rng.choice(
        (
            GroupCreated(pod_uid, Path("/groups/found")),
            GroupDeleted(pod_uid),
            TasksReconciled(pod_uid, container_id, complete=True),
            TasksReconciled(pod_uid, container_id, complete=True, groups=found, homes=frozenset(found)),
            TasksReconciled(pod_uid, container_id, complete=True, groups=(), homes=frozenset(found)),
            PodInspected(pod_uid, ((container_id, finding),), lost=rng.random() < 0.3, others=found),
        )
    )


_POD_KINDS: tuple[Callable[[Random, Homes, ContainerId], Fact], ...] = (
    lambda rng, homes, name: PodStarted(_home(rng, homes, name)),
    lambda rng, homes, name: PodStopped(_home(rng, homes, name).sandbox_id),
    lambda rng, homes, name: PodRemoved(_home(rng, homes, name).sandbox_id),
    _synchronized,
    _unasked,
    lambda _, homes, name: GroupRetried(SANDBOXES[homes[name]]),
    lambda _, homes, name: OrphanRetried(SANDBOXES[homes[name]]),
    lambda _, homes, name: PodAudited(SANDBOXES[homes[name]]),
)
_CONTAINER_KINDS: tuple[Callable[[Random, Homes, ContainerId], Fact], ...] = (
    _container_started,
    _container_started,
    lambda _rng, _homes, name: ContainerStopped(name),
    lambda _rng, _homes, name: ContainerRemoved(name),
    lambda _rng, _homes, name: ContainerRetried(name),
)
