"""The pod table's records, and the execution of the rows on them.

Owns: which records there are, the actions in flight, and how an effect is carried out. Must not know: facts
(`pods` turns them into triggers), who carries actions out, what the rows say.

Numbered rules:

1. A phase is changed in three places only, each by a row that was looked up.
2. Effects are carried out as the row says, without conditions of their own, so that a wrong row shows: where
   the row promises a pod or a waiting attempt that is not there, this raises.
3. What waits gets its turn after the whole fact is taken in; what changed is told after that, once per pod.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from attrs import define, field

from nri_resctrl_plugin.events import PodResctrlRemoved
from nri_resctrl_plugin.model import ContainerId, PodUid, SandboxId
from nri_resctrl_plugin.pods_actions import (
    Action,
    CreateGroup,
    DeleteGroup,
    Emit,
    Inspect,
    InspectedContainer,
    Reconcile,
    Work,
)
from nri_resctrl_plugin.pods_phases import (
    ATTEMPT_ENDED,
    ContainerEffect,
    ContainerPhase,
    ContainerTrigger,
    GroupEffect,
    GroupPhase,
    GroupTrigger,
    SandboxEffect,
    SandboxPhase,
    SandboxTrigger,
)
from nri_resctrl_plugin.pods_records import ContainerRecord, PodRecord, SandboxRecord

if TYPE_CHECKING:
    from nri_resctrl_plugin.pods_facts import Container, PodRef
    from nri_resctrl_plugin.pods_rules import Rules

__all__ = ["State", "Turn", "start_trigger"]


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

    def sandbox(self, trigger: SandboxTrigger, sandbox_id: SandboxId, told: PodRef | None = None) -> None:
        """Something happened to a sandbox.

        Args:
            trigger: What.
            sandbox_id: To which.
            told: The word about it, where the trigger can bring it to life.
        """
        sandbox = self.sandboxes.get(sandbox_id) or SandboxRecord(sandbox_id)
        if told is not None:
            sandbox.hear(told.cgroup)
        row = self._sandbox_rules.get((sandbox.phase, trigger))
        if row is None:
            return
        self.sandboxes[sandbox_id] = sandbox
        sandbox.phase = row.target
        for effect in row.effects:
            self._do_sandbox(effect, sandbox, sandbox.pod_uid if told is None else told.pod_uid)
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
                main, *others = pod.groups
                self._launch(DeleteGroup(pod.pod_uid, main, tuple(others)))
            case GroupEffect.RECONCILE:
                container, (main, *others) = pod.waiting()[0], pod.groups
                told, movable = container.told, pod.movable(container)
                self.container(ContainerTrigger.TAKEN, told.container_id)
                self._launch(
                    Reconcile(pod.pod_uid, told.container_id, main, told.cgroup, tuple(others), movable)
                )
            case GroupEffect.INSPECT:
                seen = [each.told for each in pod.containers() if each.phase in ATTEMPT_ENDED]
                containers = tuple(InspectedContainer(told.container_id, told.cgroup) for told in seen)
                self._launch(Inspect(pod.pod_uid, pod.groups, containers))
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
