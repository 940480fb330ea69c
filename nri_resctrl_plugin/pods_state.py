"""What the pod table remembers, and the execution of the rows on it.

Owns: the records of sandboxes, containers and pods, the actions in flight, and how an effect is carried out.
Must not know: facts (`pods` turns them into triggers), who carries actions out, what the rows say.

Numbered rules:

1. A phase is changed in three places only, each by a row that was looked up.
2. Effects are carried out as the row says, without conditions of their own, so that a wrong row shows: where
   the row promises a pod or a waiting attempt that is not there, this raises.
3. What waits gets its turn after the whole fact is taken in; what changed is told after that, once per pod.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from attrs import define, field

from nri_resctrl_plugin.events import Exists, Failed, PodResctrlAddOrUpdate, PodResctrlRemoved
from nri_resctrl_plugin.model import ContainerId, PodUid, SandboxId
from nri_resctrl_plugin.pods_facts import (
    Action,
    Container,
    CreateGroup,
    DeleteGroup,
    Emit,
    Reconcile,
    Work,
)
from nri_resctrl_plugin.pods_rules import (
    COUNTED,
    GROUP_EXISTS,
    GROUP_FAILED,
    ContainerEffect,
    ContainerPhase,
    ContainerTrigger,
    GroupEffect,
    GroupPhase,
    GroupTrigger,
    Rules,
    SandboxEffect,
    SandboxPhase,
    SandboxTrigger,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ContainerRecord", "PodRecord", "SandboxRecord", "State", "Turn", "start_trigger"]

_NO_UID = PodUid("")


@define(eq=False)
class SandboxRecord:
    """One sandbox. Kept while it is not UNKNOWN, or while containers wait for it.

    Attributes:
        sandbox_id: Its id.
        pod_uid: Its pod; means something only while it is LIVE.
        phase: What is known of it.
        containers: What is known in it, stopped ones too, in the order of arrival.
    """

    sandbox_id: SandboxId
    pod_uid: PodUid = _NO_UID
    phase: SandboxPhase = SandboxPhase.UNKNOWN
    containers: dict[ContainerId, ContainerRecord] = field(factory=dict)


@define(eq=False)
class ContainerRecord:
    """One container.

    Attributes:
        told: The runtime's newest word about it.
        sandbox: Where it was first seen; it stays there.
        phase: How far it has come.
    """

    told: Container
    sandbox: SandboxRecord
    phase: ContainerPhase = ContainerPhase.UNKNOWN


@define(eq=False)
class PodRecord:
    """One pod and its group.

    Attributes:
        pod_uid: Its uid.
        phase: How it and its group stand to each other.
        sandboxes: The live ones; the pod lives while there are any.
        path: Where its group was last made.
        left: Its group is on disk, as far as completions told.
        reason: Why the last create was refused.
        told: The last AddOrUpdate, unless Removed was told since.
    """

    pod_uid: PodUid
    phase: GroupPhase = GroupPhase.ABSENT
    sandboxes: dict[SandboxId, SandboxRecord] = field(factory=dict)
    path: Path = Path()
    left: bool = False
    reason: str = ""
    told: PodResctrlAddOrUpdate | None = None

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

    def has_outcome(self) -> bool:
        """Whether the group was made or refused since the pod appeared: before that, nothing is told."""
        return self.phase in GROUP_EXISTS or self.phase in GROUP_FAILED

    def state(self) -> PodResctrlAddOrUpdate:
        """Its present state in the words of the audience; means something only once there is an outcome."""
        phases = [container.phase for container in self.containers()]
        return PodResctrlAddOrUpdate(
            pod_uid=self.pod_uid,
            group_state=Exists(self.path) if self.phase in GROUP_EXISTS else Failed(self.reason),
            total_containers=sum(phase in COUNTED for phase in phases),
            reconciled_containers=phases.count(ContainerPhase.RECONCILED),
        )


@define(eq=False)
class Turn:
    """What one fact has brought so far. Dictionaries stand for ordered sets."""

    events: list[Action] = field(factory=list)
    works: list[Action] = field(factory=list)
    touched: dict[PodUid, None] = field(factory=dict)
    to_tell: dict[PodUid, PodRecord] = field(factory=dict)


class State:
    """The records, and the rows executed on them.

    Args:
        rules: The rows.
    """

    def __init__(self, rules: Rules) -> None:
        self._sandbox_rules = {(row.phase, row.trigger): row for row in rules.sandbox}
        self._group_rules = {
            (row.phase, row.trigger, left): row
            for row in rules.group
            for left in ((True, False) if row.left is None else (row.left,))
        }
        self._container_rules = {(row.phase, row.trigger): row for row in rules.container}
        self.sandboxes: dict[SandboxId, SandboxRecord] = {}
        self.pods: dict[PodUid, PodRecord] = {}
        self.containers: dict[ContainerId, ContainerRecord] = {}
        self.in_flight: dict[PodUid, Work] = {}
        self._turn = Turn()

    def begin(self) -> None:
        """Start to take in one fact."""
        self._turn = Turn()

    def settle(self) -> list[Action]:
        """End it: give waiting attempts their turn, tell what changed, and return what is to be done."""
        turn = self._turn
        for pod_uid in list(turn.touched):
            pod = self.pods.get(pod_uid)
            if pod is not None:
                for _ in pod.waiting():
                    self._group(GroupTrigger.WORK, pod)
        for pod in turn.to_tell.values():
            if pod.has_outcome() and pod.state() != pod.told:
                self._tell(pod)
        return [*turn.events, *turn.works]

    # --- the three machines ---

    def sandbox(self, trigger: SandboxTrigger, sandbox_id: SandboxId, pod_uid: PodUid = _NO_UID) -> None:
        """Something happened to a sandbox.

        Args:
            trigger: What.
            sandbox_id: To which.
            pod_uid: Its pod, where the trigger can bring it to life.
        """
        sandbox = self.sandboxes.get(sandbox_id) or SandboxRecord(sandbox_id)
        row = self._sandbox_rules.get((sandbox.phase, trigger))
        if row is None:
            return
        self.sandboxes[sandbox_id] = sandbox
        sandbox.phase = row.target
        for effect in row.effects:
            self._do_sandbox(effect, sandbox, pod_uid)
        self._forget(sandbox)

    def group(self, trigger: GroupTrigger, pod_uid: PodUid) -> None:
        """Something happened to a pod's group, if there is such a pod."""
        pod = self.pods.get(pod_uid)
        if pod is not None:
            self._group(trigger, pod)

    def _group(self, trigger: GroupTrigger, pod: PodRecord) -> None:
        row = self._group_rules.get((pod.phase, trigger, pod.left))
        if row is None:
            return
        pod.phase = row.target
        self._turn.touched[pod.pod_uid] = None
        for effect in row.effects:
            self._do_group(effect, pod)
        if pod.phase is GroupPhase.ABSENT:
            del self.pods[pod.pod_uid]

    def container(self, trigger: ContainerTrigger, container_id: ContainerId) -> None:
        """Something happened to a container, if there is such a container."""
        container = self.containers.get(container_id)
        if container is None:
            return
        row = self._container_rules.get((container.phase, trigger))
        if row is None:
            return
        container.phase = row.target
        self._turn.touched[container.sandbox.pod_uid] = None
        for effect in row.effects:
            self._do_container(effect, container.sandbox.pod_uid)
        if container.phase is ContainerPhase.UNKNOWN:
            del self.containers[container_id]
            del container.sandbox.containers[container_id]
            self._forget(container.sandbox)

    # --- what effects do ---

    def _do_sandbox(self, effect: SandboxEffect, sandbox: SandboxRecord, pod_uid: PodUid) -> None:
        match effect:
            case SandboxEffect.JOIN:
                sandbox.pod_uid = pod_uid
                pod = self.pods.setdefault(pod_uid, PodRecord(pod_uid))
                pod.sandboxes[sandbox.sandbox_id] = sandbox
                self._group(GroupTrigger.APPEARED, pod)
                for container in sandbox.containers.values():
                    self.container(start_trigger(container.told), container.told.container_id)
            case SandboxEffect.LEAVE:
                for container_id in list(sandbox.containers):
                    self.container(ContainerTrigger.REMOVED, container_id)
                pod = self.pods.get(sandbox.pod_uid, PodRecord(sandbox.pod_uid))
                if pod.sandboxes.pop(sandbox.sandbox_id, None) and not pod.sandboxes:
                    self._group(GroupTrigger.GONE, pod)
            case _:
                assert_never(effect)

    def _do_group(self, effect: GroupEffect, pod: PodRecord) -> None:
        match effect:
            case GroupEffect.CREATE:
                self._launch(CreateGroup(pod.pod_uid))
            case GroupEffect.DELETE:
                self._launch(DeleteGroup(pod.pod_uid, pod.path))
            case GroupEffect.RECONCILE:
                told = pod.waiting()[0].told
                self.container(ContainerTrigger.TAKEN, told.container_id)
                self._launch(Reconcile(pod.pod_uid, told.container_id, pod.path, told.cgroup))
            case GroupEffect.GIVE_UP:
                self.container(ContainerTrigger.GIVEN_UP, pod.waiting()[0].told.container_id)
            case GroupEffect.ANNOUNCE:
                self._tell(pod)
            case GroupEffect.REMOVED:
                pod.told = None
                self._turn.events.append(Emit(PodResctrlRemoved(pod.pod_uid)))
            case _:
                assert_never(effect)

    def _do_container(self, effect: ContainerEffect, pod_uid: PodUid) -> None:
        match effect:
            case ContainerEffect.TELL:
                self._turn.to_tell[pod_uid] = self.pods[pod_uid]
            case ContainerEffect.RETRY_GROUP:
                self._group(GroupTrigger.RETRIED, self.pods[pod_uid])
            case _:
                assert_never(effect)

    def _tell(self, pod: PodRecord) -> None:
        pod.told = pod.state()
        self._turn.events.append(Emit(pod.told))

    def _launch(self, work: Work) -> None:
        self.in_flight[work.pod_uid] = work
        self._turn.works.append(work)

    def _forget(self, sandbox: SandboxRecord) -> None:
        if sandbox.phase is SandboxPhase.UNKNOWN and not sandbox.containers:
            self.sandboxes.pop(sandbox.sandbox_id, None)


def start_trigger(told: Container) -> ContainerTrigger:
    """What a container means that was started, or whose pod became known after its start."""
    if not told.started:
        return ContainerTrigger.SEEN_CREATED
    return ContainerTrigger.STARTED_MONITORED if told.runtime_monitored else ContainerTrigger.STARTED
