"""What the runtime says, in the pod table's words.

Owns: the mapping from NRI values to facts, and which listed sandboxes count as stopped. Must not know: what
follows from a fact.

Rules:
    1. A pod without a uid goes by its sandbox id, so that two of them never share a group.
    2. containerd lists sandboxes that were stopped and not yet removed: no pid, no cgroup path, and none of
       their containers runs. They are not pods any more. CRI-O lists pods without a pid (drop_infra_ctr), so
       the pid alone says nothing; and between two crashes of such a pod's only container it looks the same,
       and lives. So these are told too, as resting.
    3. Runtimes list no exited containers; one that is listed as stopped all the same is left out.
    4. A sandbox without a pause process (CRI-O) has no cgroup of its own: that of its pod stands for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nri_resctrl_plugin.cgroup_paths import parent_as_path
from nri_resctrl_plugin.model import ContainerCgroup, ContainerId, PodUid, SandboxId
from nri_resctrl_plugin.nri.messages import ContainerStatus
from nri_resctrl_plugin.pods import Container, PodRef, Synchronized

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nri_resctrl_plugin.nri import messages

__all__ = ["container_told", "pod_ref", "synchronized"]


def pod_ref(pod: messages.PodSandbox) -> PodRef:
    """Return which pod a sandbox belongs to, and where its own cgroup is."""
    return PodRef(SandboxId(pod.id), PodUid(pod.uid or pod.id), _sandbox_cgroup(pod))


def _sandbox_cgroup(pod: messages.PodSandbox) -> ContainerCgroup | None:
    """Return what goes when the sandbox goes: its own cgroup, or the pod's where it has none (rule 4)."""
    if pod.cgroups_path:
        return ContainerCgroup(cgroups_path=pod.cgroups_path, pid=pod.pid)
    if pod.cgroup_parent:
        return ContainerCgroup(cgroups_path=parent_as_path(pod.cgroup_parent))
    return None


def container_told(container: messages.Container, pod: messages.PodSandbox | None) -> Container:
    """Return what is told of a container.

    Args:
        container: The runtime's word.
        pod: Its pod, where that is told too: its cgroup parent, and its id where the container names none.
    """
    sandbox_id = container.pod_sandbox_id or (pod.id if pod is not None else "")
    return Container(
        container_id=ContainerId(container.id),
        sandbox_id=SandboxId(sandbox_id),
        cgroup=ContainerCgroup(
            cgroups_path=container.cgroups_path,
            cgroup_parent=pod.cgroup_parent if pod is not None else "",
            pid=container.pid,
        ),
        started=_is_started(container),
        runtime_monitored=container.enable_monitoring,
    )


def synchronized(
    pods: Sequence[messages.PodSandbox], containers: Sequence[messages.Container]
) -> Synchronized:
    """Return a whole listing as one fact."""
    listed = [each for each in containers if each.state is not ContainerStatus.STOPPED]
    occupied = {each.pod_sandbox_id for each in listed if _is_started(each)}
    live = [pod for pod in pods if pod.pid > 0 or pod.cgroups_path or pod.id in occupied]
    by_id = {pod.id: pod for pod in live}
    return Synchronized(
        pods=tuple(pod_ref(pod) for pod in live),
        containers=tuple(container_told(each, by_id.get(each.pod_sandbox_id)) for each in listed),
        resting=tuple(pod_ref(pod) for pod in pods if pod.id not in by_id),
    )


def _is_started(container: messages.Container) -> bool:
    """Tell whether a container runs; a state that is not told goes by the pid."""
    state = container.state
    if state is ContainerStatus.RUNNING or state is ContainerStatus.PAUSED:
        return True
    return state is ContainerStatus.UNKNOWN and container.pid > 0
