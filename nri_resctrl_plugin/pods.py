"""PodTable: which pods and containers live, how far their groups are, and what must be done about it.

Owns: what each fact means to the rows. Must not know: NRI, resctrl, who carries actions out.

Numbered rules:

1. Every transition is a row of `pods_rules`; `pods_state` executes them. Nothing changes beside the rows.
2. It is pure: it knows no paths of ours, clocks, locks, errnos or logs. Same facts, same actions.
3. At most one action is in flight per pod, until its completion fact arrives. A first obvious table (create
   on add, delete on remove) let an old delete take away the group of a pod that was back.
4. It stores what is desired (rows) and what is actual (completion facts) and asks for the difference.
5. Unknown, duplicate and late facts are legal input; a completion that answers nothing in flight is ignored.
6. A pod lives by its sandboxes: two of them share its group and its counters, and it goes with the last.
7. One fact brings at most one AddOrUpdate per pod, told after all that the fact changed.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from attrs import evolve

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
from nri_resctrl_plugin.pods_facts import (
    Completion,
    Container,
    ContainerRemoved,
    ContainerRetried,
    ContainerStarted,
    ContainerStopped,
    Fact,
    Finding,
    GroupCreated,
    GroupDeleted,
    GroupKept,
    GroupRefused,
    GroupRetried,
    LiveSandbox,
    OrphanRetried,
    PodAudited,
    PodInspected,
    PodRef,
    PodRemoved,
    PodStarted,
    PodStopped,
    Synchronized,
    TasksReconciled,
)
from nri_resctrl_plugin.pods_phases import ContainerTrigger, GroupTrigger, SandboxPhase, SandboxTrigger
from nri_resctrl_plugin.pods_questions import Questions
from nri_resctrl_plugin.pods_records import ContainerRecord, SandboxRecord
from nri_resctrl_plugin.pods_rules import RULES, Rules
from nri_resctrl_plugin.pods_state import State, start_trigger

__all__ = [
    "Action",
    "Completion",
    "Container",
    "ContainerRemoved",
    "ContainerRetried",
    "ContainerStarted",
    "ContainerStopped",
    "CreateGroup",
    "DeleteGroup",
    "Emit",
    "Fact",
    "Finding",
    "GroupCreated",
    "GroupDeleted",
    "GroupKept",
    "GroupRefused",
    "GroupRetried",
    "Inspect",
    "InspectedContainer",
    "LiveSandbox",
    "OrphanRetried",
    "PodAudited",
    "PodInspected",
    "PodRef",
    "PodRemoved",
    "PodStarted",
    "PodStopped",
    "PodTable",
    "Reconcile",
    "Synchronized",
    "TasksReconciled",
    "Work",
]

LOST: Final = "the group was removed by somebody else"
"""Why a pod is Failed whose main group an inspection did not find any more."""

LOST_AGAIN: Final = "the group is removed by somebody else each time it is made"
"""Why a pod stays Failed whose main group an audit does not make once more."""

_FOUND: Final = MappingProxyType(
    {
        Finding.COMPLETE: ContainerTrigger.FOUND_COMPLETE,
        Finding.ASTRAY: ContainerTrigger.FOUND_ASTRAY,
        Finding.ASTRAY_AGAIN: ContainerTrigger.FOUND_ASTRAY_AGAIN,
        Finding.GONE: ContainerTrigger.FOUND_GONE,
    }
)
"""What a finding is to a container; UNKNOWN is nothing."""


class PodTable(Questions):
    """Pure bookkeeping of pods, containers and groups: facts in, actions out.

    The caller carries out the actions, in any order across pods, and answers each but `Emit` with its
    completion fact. Not thread-safe: one caller at a time.

    Args:
        rules: The rows to execute; others than the product's are for tests.
    """

    def __init__(self, *, rules: Rules = RULES) -> None:
        super().__init__(State(rules))

    # --- facts in ---

    def apply(self, fact: Fact) -> list[Action]:  # noqa: C901 - one arm per fact is the point
        """Take in one fact.

        Args:
            fact: What happened; unknown, duplicate and late ones are welcome.

        Returns:
            What is to be done now, events first.
        """
        state = self._state
        state.begin()
        match fact:
            case PodStarted(pod):
                state.sandbox(SandboxTrigger.STARTED, pod.sandbox_id, pod)
            case PodStopped(sandbox_id):
                state.sandbox(SandboxTrigger.STOPPED, sandbox_id)
            case PodRemoved(sandbox_id):
                state.sandbox(SandboxTrigger.REMOVED, sandbox_id)
            case ContainerStarted(container, pod):
                self._container_started(container, pod)
            case ContainerStopped(container_id):
                state.container(ContainerTrigger.STOPPED, container_id)
            case ContainerRemoved(container_id):
                state.container(ContainerTrigger.REMOVED, container_id)
            case Synchronized(pods, containers):
                self._synchronized(pods, containers)
            case GroupRetried(pod_uid):
                state.group(GroupTrigger.RETRIED, pod_uid)
            case ContainerRetried(container_id):
                state.container(ContainerTrigger.RETRIED, container_id)
            case OrphanRetried(pod_uid):
                state.group(GroupTrigger.ORPHAN_RETRIED, pod_uid)
            case PodAudited(pod_uid):
                state.group(GroupTrigger.AUDITED, pod_uid)
            case _:
                self._completed(fact)
        return state.settle()

    def _container_started(self, container: Container, pod: PodRef | None) -> None:
        if self._sandbox_phase(container) is SandboxPhase.STOPPED:
            return  # late: its sandbox ended before this word arrived
        if pod is not None:
            self._state.sandbox(SandboxTrigger.NAMED, pod.sandbox_id, pod)
        record = self._remember(evolve(container, started=True))
        self._follow(record, start_trigger(record.told))

    def _synchronized(self, pods: tuple[PodRef, ...], containers: tuple[Container, ...]) -> None:
        """Take in the difference to what the runtime lists.

        New sandboxes of live pods come before the vanished ones go, or a pod whose sandbox was re-created
        would go with the old one; new pods come last, so that vanished ones free their RMIDs first.
        """
        state = self._state
        listed = {container.container_id for container in containers}
        for container_id in [known for known in state.containers if known not in listed]:
            state.container(ContainerTrigger.REMOVED, container_id)
        for pod in pods:
            if self.knows_pod(pod.pod_uid):
                state.sandbox(SandboxTrigger.LISTED, pod.sandbox_id, pod)
        listed_sandboxes = {pod.sandbox_id for pod in pods}
        for sandbox_id in [known for known in state.sandboxes if known not in listed_sandboxes]:
            state.sandbox(SandboxTrigger.UNLISTED, sandbox_id)
        for pod in pods:
            state.sandbox(SandboxTrigger.LISTED, pod.sandbox_id, pod)
        for container in containers:
            if self._sandbox_phase(container) is not SandboxPhase.STOPPED:
                record = self._remember(container)
                self._follow(record, _list_trigger(record.told))

    def _completed(self, fact: Completion) -> None:
        """An action ended: record what is now known of the disk, then ask the rows."""
        state = self._state
        match state.in_flight.get(fact.pod_uid), fact:
            case CreateGroup(), GroupCreated(pod_uid, path, others):
                pod = state.pods[pod_uid]
                pod.found(path, {*others, *pod.groups})
                triggers = [GroupTrigger.CREATED]
            case CreateGroup(), GroupRefused(pod_uid, reason):
                state.pods[pod_uid].reason = reason
                triggers = [GroupTrigger.REFUSED]
            case DeleteGroup(), GroupDeleted(pod_uid):
                state.pods[pod_uid].found(None, ())
                triggers = [GroupTrigger.DELETED]
            case DeleteGroup(), GroupKept(pod_uid, left):
                if left:
                    pod = state.pods[pod_uid]
                    main = pod.groups[0] if pod.groups[0] in left else None
                    pod.found(main, {*pod.groups} & {*left})
                triggers = [GroupTrigger.KEPT]
            case Reconcile(container_id=asked), TasksReconciled(container_id=answered) if asked == answered:
                triggers = [GroupTrigger.ENDED, *self._reconciled(fact)]
            case Inspect(), PodInspected():
                triggers = [GroupTrigger.ENDED, *self._inspected(fact)]
            case _:
                return  # late, or never asked for
        del state.in_flight[fact.pod_uid]
        for trigger in triggers:
            state.group(trigger, fact.pod_uid)

    def _reconciled(self, fact: TasksReconciled) -> list[GroupTrigger]:
        state = self._state
        pod, groups = state.pods[fact.pod_uid], fact.groups
        news = pod.found(groups[0], groups) if groups else False
        # The container may have gone since, and even have come back in another pod.
        if self.container_pod(fact.container_id) == fact.pod_uid:
            container = state.containers[fact.container_id]
            homes = fact.homes if fact.complete else container.homes | fact.homes
            container.homes = homes.intersection(pod.groups)
            end = ContainerTrigger.COMPLETE if fact.complete else ContainerTrigger.INCOMPLETE
            state.container(end, fact.container_id)
        return [GroupTrigger.MOVED] if news else []

    def _inspected(self, fact: PodInspected) -> list[GroupTrigger]:
        state = self._state
        pod = state.pods[fact.pod_uid]
        main, *others = pod.groups
        left = {*(others if fact.others is None else fact.others)} - {main}
        news = pod.found(None if fact.lost else main, left)
        findings = [(each, _FOUND[finding]) for each, finding in fact.findings if finding in _FOUND]
        if fact.lost:
            pod.reason = LOST_AGAIN if fact.given_up else LOST
            fallen = ContainerTrigger.FOUND_ASTRAY_AGAIN if fact.given_up else ContainerTrigger.FOUND_ASTRAY
            findings += [(each.told.container_id, fallen) for each in pod.containers()]
        for container_id, trigger in findings:
            if self.container_pod(container_id) == pod.pod_uid:
                state.container(trigger, container_id)
        if fact.lost:
            return [GroupTrigger.LOST_AGAIN if fact.given_up else GroupTrigger.LOST]
        return [GroupTrigger.MOVED] if news else []

    def _sandbox_phase(self, told: Container) -> SandboxPhase:
        """What is known of the container's sandbox: the one it was first seen in, if it is known."""
        container = self._state.containers.get(told.container_id)
        sandbox = self._state.sandboxes.get(told.sandbox_id) if container is None else container.sandbox
        return SandboxPhase.UNKNOWN if sandbox is None else sandbox.phase

    def _remember(self, told: Container) -> ContainerRecord:
        """Keep the newest word about a container, without losing what only an older one told."""
        state = self._state
        record = state.containers.get(told.container_id)
        if record is None:
            sandbox = state.sandboxes.get(told.sandbox_id)
            if sandbox is None:
                sandbox = state.sandboxes[told.sandbox_id] = SandboxRecord(told.sandbox_id)
            record = ContainerRecord(told, sandbox)
            sandbox.containers[told.container_id] = state.containers[told.container_id] = record
        record.hear(told)
        return record

    def _follow(self, record: ContainerRecord, trigger: ContainerTrigger) -> None:
        known = record.sandbox.phase is SandboxPhase.LIVE
        self._state.container(trigger if known else ContainerTrigger.ADRIFT, record.told.container_id)


def _list_trigger(told: Container) -> ContainerTrigger:
    """What a container means that Synchronize lists."""
    if not told.started:
        return ContainerTrigger.SEEN_CREATED
    return ContainerTrigger.LISTED_MONITORED if told.runtime_monitored else ContainerTrigger.LISTED
