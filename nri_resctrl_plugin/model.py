"""The plugin's nouns: identities, where a container's threads are, and how far the plugin has come with it.

Owns: the words that the table, the events and the cgroup rules share. Must not know: NRI, resctrl, files.
"""

from __future__ import annotations

from enum import Enum
from typing import NewType

from attrs import frozen

__all__ = ["ContainerCgroup", "ContainerId", "ContainerState", "PodUid", "SandboxId"]

PodUid = NewType("PodUid", str)
"""The kubelet's uid of a pod; the sandbox id takes its place where the runtime gives none."""

SandboxId = NewType("SandboxId", str)
"""The runtime's id of one pod sandbox. Two sandboxes of one pod share its uid."""

ContainerId = NewType("ContainerId", str)
"""The runtime's id of one container."""


@frozen(kw_only=True)
class ContainerCgroup:
    """Where a container's threads are found, as far as the runtime told.

    Attributes:
        cgroups_path: As the runtime names it: a path (`/kubepods/burstable/pod<uid>/<id>`) or the systemd
            form `slice:prefix:name`.
        cgroup_parent: The pod's cgroup parent, or "" where it was not told.
        pid: A host pid that lives in it, or 0 where none is known (always 0 before START, and for CRI-O
            before 1.36).
    """

    cgroups_path: str
    cgroup_parent: str = ""
    pid: int = 0


class ContainerState(Enum):
    """How far the plugin has come with one container."""

    NO_POD = "no_pod"
    """Its pod is not known (yet); it counts nowhere."""
    CREATED = "created"
    """Listed by the runtime, not started: it counts from its START."""
    PARTIAL = "partial"
    """Started; not all of its live threads are known to be in the group."""
    RECONCILED = "reconciled"
    """All of its live threads are in the group."""
    RUNTIME_MONITORED = "runtime_monitored"
    """The runtime keeps a monitoring group for it (enable_monitoring): left alone. It counts in the pod's
    total, never among the reconciled, since its threads are not in the pod's group."""
