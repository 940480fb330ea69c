"""What the runtime tells, as frozen values: the boundary between the wire and everything else.

Owns: the values that handlers get, and the mapping from the generated messages. Must not know: sockets,
streams, deadlines, or what anybody does with the values.

Rules:
    1. Values never hold a generated message; those are mutable, and keep every unknown field's bytes.
    2. Whatever arrives becomes a value of the promised type: absent is empty, nothing raises on hostile text.
    3. An absent or empty pod is `None`, never a pod with an empty id.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from attrs import field, frozen

__all__ = ["Container", "ContainerStatus", "PodSandbox", "RuntimeInfo"]

_NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})


class ContainerStatus(Enum):
    """State of a container as the runtime reports it. Unreliable in stop and remove events."""

    UNKNOWN = 0
    CREATED = 1
    PAUSED = 2
    RUNNING = 3
    STOPPED = 4


@frozen(kw_only=True)
class PodSandbox:
    """One pod sandbox.

    Attributes:
        id: The runtime's id of the sandbox; never empty.
        uid: The pod's uid as the kubelet gave it; two sandboxes of one pod share it. May be empty.
        name: Name of the pod.
        namespace: Kubernetes namespace of the pod.
        labels: Labels of the pod.
        pid: Host pid of the sandbox's (pause) process, 0 where there is none or none is told.
        cgroup_parent: Cgroup parent of the pod: a full path (containerd) or the leaf slice alone (CRI-O).
        cgroups_path: Cgroup path of the sandbox container itself.
    """

    id: str
    uid: str = ""
    name: str = ""
    namespace: str = ""
    labels: Mapping[str, str] = field(default=_NO_LABELS, repr=False, hash=False)
    pid: int = 0
    cgroup_parent: str = ""
    cgroups_path: str = ""


@frozen(kw_only=True)
class Container:
    """One container.

    Attributes:
        id: The runtime's id of the container; never empty.
        pod_sandbox_id: Id of the sandbox that it belongs to.
        name: Name inside the pod.
        state: As told; see `ContainerStatus`.
        labels: Labels of the container.
        pid: Host pid of its first process, 0 where none is told (CRI-O before 1.36, and before START).
        cgroups_path: `slice:prefix:name` (systemd) or an absolute path (cgroupfs).
        clos_id: The class of service asked for by name: None where nothing was asked, "" where the runtime
            chooses (NRI 0.11 and later).
        enable_monitoring: Whether the runtime keeps a monitoring group of its own for the container.
    """

    id: str
    pod_sandbox_id: str = ""
    name: str = ""
    state: ContainerStatus = ContainerStatus.UNKNOWN
    labels: Mapping[str, str] = field(default=_NO_LABELS, repr=False, hash=False)
    pid: int = 0
    cgroups_path: str = ""
    clos_id: str | None = None
    enable_monitoring: bool = False


@frozen(kw_only=True)
class RuntimeInfo:
    """Who is at the other end, from Configure.

    Attributes:
        name: "containerd" or "cri-o".
        version: Its version, in any spelling.
        nri_version: Version of its NRI, often empty. Never gate a feature on it: probe behaviour.
        registration_timeout: Seconds that the runtime waits for a plugin to register.
        request_timeout: Seconds that the runtime waits for an answer before it drops the plugin.
        config: Configuration text; always empty for a plugin that the runtime did not launch itself.
    """

    name: str = ""
    version: str = ""
    nri_version: str = ""
    registration_timeout: float = 5.0
    request_timeout: float = 2.0
    config: str = field(default="", repr=False)
