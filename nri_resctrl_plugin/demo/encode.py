"""Values as the messages in which a runtime would send them.

Owns: the way from `nri.messages` back to the wire. Must not know: when they are sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nri_resctrl_plugin.nri import api

if TYPE_CHECKING:
    from nri_resctrl_plugin.nri.messages import Container, PodSandbox

__all__ = ["container_message", "pod_message"]


def pod_message(pod: PodSandbox) -> api.PodSandbox:
    """Return a pod sandbox as a message."""
    return api.PodSandbox(
        id=pod.id,
        name=pod.name,
        uid=pod.uid,
        namespace=pod.namespace,
        labels=dict(pod.labels),
        linux=api.LinuxPodSandbox(cgroup_parent=pod.cgroup_parent, cgroups_path=pod.cgroups_path),
        pid=pod.pid,
    )


def container_message(container: Container) -> api.Container:
    """Return a container as a message."""
    rdt = None
    if container.clos_id is not None or container.enable_monitoring:
        rdt = api.LinuxRdt(
            clos_id=None if container.clos_id is None else api.OptionalString(value=container.clos_id),
            enable_monitoring=api.OptionalBool(value=container.enable_monitoring),
        )
    return api.Container(
        id=container.id,
        pod_sandbox_id=container.pod_sandbox_id,
        name=container.name,
        state=api.ContainerState(container.state.value),
        labels=dict(container.labels),
        linux=api.LinuxContainer(cgroups_path=container.cgroups_path, rdt=rdt),
        pid=container.pid,
    )
