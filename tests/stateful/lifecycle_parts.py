"""The nouns of the lifecycle machine: sandboxes, containers, what the plugin must believe, who reads events.

Owns: the values. Must not know: the plugin, hypothesis, what happens when.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from enum import Enum, auto

from attrs import define, field, frozen

from nri_resctrl_plugin import PodResctrlAddOrUpdate, PodResctrlEvent, PodResctrlRemoved, PodUid
from nri_resctrl_plugin.nri.messages import Container, ContainerStatus, PodSandbox
from resctrl import Tid
from tests.plugin_support import cgroup_of, container, pod

__all__ = ["Belief", "Box", "Consumer", "Phase", "Sandbox", "Start"]


class Phase(Enum):
    """Where a sandbox or a container is in its life."""

    CREATED = auto()
    RUNNING = auto()
    STOPPED = auto()


@define(eq=False)
class Sandbox:
    """A sandbox of the runtime."""

    id: str
    uid: str
    phase: Phase = Phase.RUNNING
    late: bool = False
    """It stopped, the plugin heard of it, and no Synchronize was since: a late START must be ignored."""

    @property
    def cgroup(self) -> str:
        """Its own cgroup path."""
        return pod(self.uid, self.id).cgroups_path

    @property
    def pod_uid(self) -> PodUid:
        """The uid that the plugin knows it by."""
        return PodUid(self.uid or self.id)

    def told(self) -> PodSandbox:
        """What the runtime tells of it."""
        return pod(self.uid, self.id, live=self.phase is Phase.RUNNING)


@define(eq=False)
class Box:
    """A container of the runtime."""

    id: str
    sandbox: Sandbox
    monitored: bool = False
    phase: Phase = Phase.CREATED
    late: bool = False
    tids: list[Tid] = field(factory=list)

    @property
    def cgroup(self) -> str:
        """Its cgroup path."""
        return cgroup_of(self.id)

    def told(self) -> Container:
        """What the runtime tells of it."""
        state = {
            Phase.CREATED: ContainerStatus.CREATED,
            Phase.RUNNING: ContainerStatus.RUNNING,
            Phase.STOPPED: ContainerStatus.STOPPED,
        }[self.phase]
        return container(self.id, self.sandbox.id, state, monitored=self.monitored)


@define
class Belief:
    """What the plugin has been told and must therefore hold for true."""

    sandboxes: dict[str, Sandbox] = field(factory=dict)
    boxes: dict[str, Box] = field(factory=dict)

    def pods(self) -> set[PodUid]:
        """The pods that live."""
        return {sandbox.pod_uid for sandbox in self.sandboxes.values()}

    def pod_of(self, box: Box) -> PodUid | None:
        """The pod of a container, if it is known."""
        return box.sandbox.pod_uid if box.sandbox.id in self.sandboxes else None

    def forget(self, sandbox: Sandbox) -> None:
        """A sandbox went, with its containers."""
        self.sandboxes.pop(sandbox.id, None)
        self.boxes = {name: box for name, box in self.boxes.items() if box.sandbox is not sandbox}

    def totals(self) -> Counter[PodUid]:
        """How many containers each pod has running."""
        return Counter(uid for box in self.boxes.values() if (uid := self.pod_of(box)) is not None)


class Consumer:
    """Replays events and fails where they make no sense."""

    def __init__(self) -> None:
        self.world: dict[PodUid, PodResctrlAddOrUpdate] = {}

    def __call__(self, event: PodResctrlEvent) -> None:
        """Take one event."""
        if isinstance(event, PodResctrlRemoved):
            assert event.pod_uid in self.world, f"{event} of a pod that was never told"
            del self.world[event.pod_uid]
        else:
            assert self.world.get(event.pod_uid) != event, f"{event} twice in a row"
            self.world[event.pod_uid] = event


@frozen
class Start:
    """A START that the runtime waits for."""

    box: Box
    task: asyncio.Task[None]
