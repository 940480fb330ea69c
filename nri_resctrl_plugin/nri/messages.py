"""What the runtime tells, as frozen values: the boundary between the wire and everything else.

Owns: the values that handlers get, and the mapping from the generated messages. Must not know: sockets,
streams, deadlines, or what anybody does with the values.

Rules:
    1. Values never hold a generated message; those are mutable, and keep every unknown field's bytes.
    2. Whatever arrives becomes a value of the promised type: absent is empty, nothing raises on hostile text.
    3. An absent or empty pod is `None`, never a pod with an empty id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Final

from attrs import field, frozen

from nri_resctrl_plugin.nri import api, wire
from nri_resctrl_plugin.nri.codec import decode

__all__ = [
    "CONTAINER_FIELDS",
    "POD_FIELDS",
    "Container",
    "ContainerStatus",
    "PodSandbox",
    "RuntimeInfo",
    "container_value",
    "decode_container",
    "decode_pod",
    "pod_value",
    "runtime_value",
    "sync_parts",
]

POD_FIELDS: Final = frozenset({1, 2, 3, 4, 5, 8, 9})
"""Numbers of the fields that the generated `PodSandbox` knows."""

CONTAINER_FIELDS: Final = frozenset({1, 2, 3, 4, 5, 11, 12})
"""Numbers of the fields that the generated `Container` knows."""

_MAX_PID: Final = (1 << 31) - 1
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


def decode_pod(data: bytes) -> PodSandbox | None:
    """Decode one pod of a Synchronize; None where it has no id.

    Raises:
        WireError: It cannot be decoded.
    """
    return pod_value(decode(wire.keep(data, POD_FIELDS), api.PodSandbox))


def decode_container(data: bytes) -> Container | None:
    """Decode one container of a Synchronize; None where it has no id.

    Raises:
        WireError: It cannot be decoded.
    """
    return container_value(decode(wire.keep(data, CONTAINER_FIELDS), api.Container))


def pod_value(pod: api.PodSandbox | None) -> PodSandbox | None:
    """Return what an event says of its pod; None where it says nothing, or sends an empty message."""
    if not isinstance(pod, api.PodSandbox) or not _text(pod.id):
        return None
    linux = pod.linux if isinstance(pod.linux, api.LinuxPodSandbox) else api.LinuxPodSandbox()
    return PodSandbox(
        id=pod.id,
        uid=_text(pod.uid),
        name=_text(pod.name),
        namespace=_text(pod.namespace),
        labels=_labels(pod.labels),
        pid=_pid(pod.pid),
        cgroup_parent=_text(linux.cgroup_parent),
        cgroups_path=_text(linux.cgroups_path),
    )


def container_value(container: api.Container | None) -> Container | None:
    """Return what an event says of its container; None where it says nothing, or sends an empty message."""
    if not isinstance(container, api.Container) or not _text(container.id):
        return None
    linux = container.linux if isinstance(container.linux, api.LinuxContainer) else api.LinuxContainer()
    rdt = linux.rdt if isinstance(linux.rdt, api.LinuxRdt) else api.LinuxRdt()
    monitoring = rdt.enable_monitoring
    return Container(
        id=container.id,
        pod_sandbox_id=_text(container.pod_sandbox_id),
        name=_text(container.name),
        state=_status(container.state),
        labels=_labels(container.labels),
        pid=_pid(container.pid),
        cgroups_path=_text(linux.cgroups_path),
        clos_id=_text(rdt.clos_id.value) if isinstance(rdt.clos_id, api.OptionalString) else None,
        enable_monitoring=isinstance(monitoring, api.OptionalBool) and bool(monitoring.value),
    )


def runtime_value(request: api.ConfigureRequest) -> RuntimeInfo:
    """Return what Configure says; times that are missing or nonsense are NRI's defaults of 5 s and 2 s."""
    return RuntimeInfo(
        name=_text(request.runtime_name),
        version=_text(request.runtime_version),
        nri_version=_text(request.NRI_version),
        registration_timeout=_seconds(request.registration_timeout, 5.0),
        request_timeout=_seconds(request.request_timeout, 2.0),
        config=_text(request.config),
    )


# The generated classes promise types that the wire can break: a varint in the place of a string arrives as an
# int, an entry of a map without its value as None. The functions below take `object` because of that.


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _pid(value: object) -> int:
    return value if isinstance(value, int) and 0 < value <= _MAX_PID else 0


def _seconds(milliseconds: object, default: float) -> float:
    return milliseconds / 1000 if isinstance(milliseconds, int) and milliseconds > 0 else default


def _labels(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict) or not value:
        return _NO_LABELS
    return MappingProxyType({_text(key): _text(text) for key, text in value.items()})


def _status(value: object) -> ContainerStatus:
    try:
        return ContainerStatus(value)
    except ValueError:
        return ContainerStatus.UNKNOWN


def sync_parts(request: api.SynchronizeRequest) -> tuple[list[bytes], list[bytes], bool]:
    """Return the encoded pods and containers of one part of a Synchronize, and whether more parts follow."""
    return _encoded(request.pods), _encoded(request.containers), bool(request.more)


def _encoded(items: Sequence[object]) -> list[bytes]:
    return [item for item in items if isinstance(item, bytes)]
