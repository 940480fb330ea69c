"""What the pod table answers to those who ask.

Owns: the questions. Must not know: facts, what changes a record.

Numbered rule:

1. A question changes nothing, and has an answer for what is not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nri_resctrl_plugin.model import ContainerId, ContainerState, PodUid
from nri_resctrl_plugin.pods_facts import LiveSandbox
from nri_resctrl_plugin.pods_phases import (
    ATTEMPT_PENDING,
    CONTAINER_STATES,
    COUNTED,
    CREATION_PENDING,
    GROUP_FAILED,
    ContainerPhase,
    GroupPhase,
    SandboxPhase,
)

if TYPE_CHECKING:
    from nri_resctrl_plugin.events import PodResctrlAddOrUpdate, ResctrlGroupState
    from nri_resctrl_plugin.model import ContainerCgroup
    from nri_resctrl_plugin.pods_records import SandboxRecord
    from nri_resctrl_plugin.pods_state import State

__all__ = ["Questions"]


class Questions:
    """Everything that can be asked about pods, groups and containers.

    Args:
        state: What is remembered.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    @property
    def idle(self) -> bool:
        """Whether no action is in flight."""
        return not self._state.in_flight

    def busy(self, pod_uid: PodUid) -> bool:
        """Whether an action of the pod is in flight, even if the pod is gone meanwhile."""
        return pod_uid in self._state.in_flight

    def snapshot(self) -> dict[PodUid, PodResctrlAddOrUpdate]:
        """What a consumer of every event holds: each pod as last told."""
        return {uid: pod.told for uid, pod in self._state.pods.items() if pod.told is not None}

    def knows_pod(self, pod_uid: PodUid) -> bool:
        """Whether the pod lives."""
        pod = self._state.pods.get(pod_uid)
        return pod is not None and bool(pod.sandboxes)

    def group_state(self, pod_uid: PodUid) -> ResctrlGroupState | None:
        """The group of a live pod, or None before its first outcome. Failed while a retry is in flight."""
        pod = self._state.pods.get(pod_uid)
        return None if pod is None or not pod.has_outcome() else pod.state().group_state

    def creation_pending(self, pod_uid: PodUid) -> bool:
        """Whether a create of this live pod is in flight or comes next."""
        pod = self._state.pods.get(pod_uid)
        return pod is not None and pod.phase in CREATION_PENDING

    def container_state(self, container_id: ContainerId) -> ContainerState | None:
        """How far the container is, or None if it is not known, or stopped."""
        container = self._state.containers.get(container_id)
        return None if container is None else CONTAINER_STATES.get(container.phase)

    def container_pod(self, container_id: ContainerId) -> PodUid | None:
        """The pod of the container, or None if the container is not known, is stopped, or has no pod."""
        if self.container_state(container_id) in {None, ContainerState.NO_POD}:
            return None
        return self._state.containers[container_id].sandbox.pod_uid

    def attempt_pending(self, container_id: ContainerId) -> bool:
        """Whether a reconcile of the container is in flight, queued, or waits for the group."""
        container = self._state.containers.get(container_id)
        return container is not None and container.phase in ATTEMPT_PENDING

    def failed_pods(self) -> tuple[PodUid, ...]:
        """Live pods whose group is Failed, those with a retry in flight too, in the order of appearance."""
        return tuple(uid for uid, pod in self._state.pods.items() if pod.phase in GROUP_FAILED)

    def partial_containers(self) -> tuple[ContainerId, ...]:
        """Containers that are PARTIAL, those with a pending attempt too, in the order of arrival."""
        return tuple(
            container_id
            for container_id in self._state.containers
            if self.container_state(container_id) is ContainerState.PARTIAL
        )

    def sandboxes(self) -> tuple[LiveSandbox, ...]:
        """Sandboxes that live as far as events told, in the order of arrival."""
        known = self._state.sandboxes.values()
        return tuple(_live(sandbox) for sandbox in known if sandbox.phase is SandboxPhase.LIVE)

    def sandboxes_of(self, pod_uid: PodUid) -> tuple[LiveSandbox, ...]:
        """Those of one pod; none of a pod that is not known. Costs nothing for the others."""
        pod = self._state.pods.get(pod_uid)
        return () if pod is None else tuple(map(_live, pod.sandboxes.values()))

    def sandbox_of(self, container_id: ContainerId) -> LiveSandbox | None:
        """The sandbox of a container that has a pod."""
        if self.container_pod(container_id) is None:
            return None
        return _live(self._state.containers[container_id].sandbox)

    def unwatched(self, pod_uid: PodUid) -> dict[ContainerId, ContainerCgroup]:
        """Those of its containers that count and that no inspection looks at, and where their threads are."""
        pod = self._state.pods.get(pod_uid)
        if pod is None:
            return {}
        phases = COUNTED if pod.phase in GROUP_FAILED else (ContainerPhase.RUNTIME_MONITORED,)
        return {each.told.container_id: each.told.cgroup for each in pod.containers() if each.phase in phases}

    def orphans(self) -> tuple[PodUid, ...]:
        """Pods that are gone and whose groups could not all be deleted, in the order of appearance."""
        return tuple(uid for uid, pod in self._state.pods.items() if pod.phase is GroupPhase.ORPHAN)


def _live(sandbox: SandboxRecord) -> LiveSandbox:
    return LiveSandbox(sandbox.sandbox_id, sandbox.pod_uid, sandbox.cgroup, sandbox.cgroups())
