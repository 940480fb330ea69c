"""What the pod table hears and what it asks for: facts in, actions out.

Owns: the words between the table and its shell. Must not know: the rules (`pods_rules`), the table (`pods`).

Numbered rules:

1. A fact says what happened, in the past tense, and nothing about what should follow.
2. Facts may be unknown, duplicate or late; that is for the table to bear.
3. Every action but `Emit` is answered by exactly one completion fact, whatever became of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from attrs import frozen

from nri_resctrl_plugin.events import PodResctrlEvent
from nri_resctrl_plugin.model import ContainerCgroup, ContainerId, PodUid, SandboxId

__all__ = [
    "Action",
    "Container",
    "ContainerRemoved",
    "ContainerRetried",
    "ContainerStarted",
    "ContainerStopped",
    "CreateGroup",
    "DeleteGroup",
    "Emit",
    "Fact",
    "GroupCreated",
    "GroupDeleted",
    "GroupKept",
    "GroupRefused",
    "GroupRetried",
    "OrphanRetried",
    "PodRef",
    "PodRemoved",
    "PodStarted",
    "PodStopped",
    "Reconcile",
    "Synchronized",
    "TasksReconciled",
    "Work",
]


@frozen
class PodRef:
    """One pod sandbox and the pod it belongs to.

    Attributes:
        sandbox_id: The sandbox; never used twice by a runtime.
        pod_uid: The pod; two sandboxes may share it (the kubelet re-creates a sandbox under the same uid).
    """

    sandbox_id: SandboxId
    pod_uid: PodUid


@frozen
class Container:
    """What the runtime tells of one container.

    Attributes:
        container_id: The container.
        sandbox_id: The sandbox it runs in.
        cgroup: Where its threads are found.
        started: It runs (or is paused); False while it is only created.
        runtime_monitored: The runtime keeps a monitoring group for it (`enable_monitoring`).
    """

    container_id: ContainerId
    sandbox_id: SandboxId
    cgroup: ContainerCgroup
    started: bool = True
    runtime_monitored: bool = False


# --- facts from the runtime ---


@frozen
class PodStarted:
    """RUN_POD_SANDBOX: the sandbox runs, even if it was stopped before."""

    pod: PodRef


@frozen
class PodStopped:
    """STOP_POD_SANDBOX: the sandbox and all of its containers ended. May repeat."""

    sandbox_id: SandboxId


@frozen
class PodRemoved:
    """REMOVE_POD_SANDBOX: the runtime forgets the sandbox. May come without a stop, and may repeat."""

    sandbox_id: SandboxId


@frozen
class ContainerStarted:
    """START_CONTAINER: the container exists and is about to run its program.

    Attributes:
        container: The container; `started` is taken as true.
        pod: Its pod, if the event carried one.
    """

    container: Container
    pod: PodRef | None = None


@frozen
class ContainerStopped:
    """STOP_CONTAINER: its processes ended."""

    container_id: ContainerId


@frozen
class ContainerRemoved:
    """REMOVE_CONTAINER: the runtime forgets the container."""

    container_id: ContainerId


@frozen
class Synchronized:
    """Synchronize, all chunks together: everything that the runtime knows at this moment."""

    pods: tuple[PodRef, ...]
    containers: tuple[Container, ...]


# --- facts from the agent: something refused or incomplete is to be tried once more ---


@frozen
class GroupRetried:
    """The pod's group is to be tried again. Counts only while it is Failed."""

    pod_uid: PodUid


@frozen
class ContainerRetried:
    """The container is to be reconciled again. Counts only while it is PARTIAL."""

    container_id: ContainerId


@frozen
class OrphanRetried:
    """The group that could not be deleted is to be tried again."""

    pod_uid: PodUid


# --- facts from the shell: how an action ended ---


@frozen
class GroupCreated:
    """`CreateGroup` succeeded, or found the group already there."""

    pod_uid: PodUid
    path: Path


@frozen
class GroupRefused:
    """`CreateGroup` failed.

    Attributes:
        pod_uid: The pod.
        reason: Why, for people.
    """

    pod_uid: PodUid
    reason: str = ""


@frozen
class GroupDeleted:
    """`DeleteGroup` succeeded, or found no group."""

    pod_uid: PodUid


@frozen
class GroupKept:
    """`DeleteGroup` failed: the group is still there."""

    pod_uid: PodUid


@frozen
class TasksReconciled:
    """`Reconcile` ended.

    Attributes:
        pod_uid: The pod.
        container_id: The container.
        complete: All of its live threads are in the group. False after any failure.
    """

    pod_uid: PodUid
    container_id: ContainerId
    complete: bool


Fact: TypeAlias = (
    PodStarted
    | PodStopped
    | PodRemoved
    | ContainerStarted
    | ContainerStopped
    | ContainerRemoved
    | Synchronized
    | GroupRetried
    | ContainerRetried
    | OrphanRetried
    | GroupCreated
    | GroupRefused
    | GroupDeleted
    | GroupKept
    | TasksReconciled
)


# --- actions ---


@frozen
class CreateGroup:
    """Make the pod's group, or find it; answered by `GroupCreated` or `GroupRefused`."""

    pod_uid: PodUid


@frozen
class DeleteGroup:
    """Remove the pod's group; answered by `GroupDeleted` or `GroupKept`."""

    pod_uid: PodUid
    path: Path


@frozen
class Reconcile:
    """Put the container's threads into the group; answered by `TasksReconciled`."""

    pod_uid: PodUid
    container_id: ContainerId
    path: Path
    cgroup: ContainerCgroup


@frozen
class Emit:
    """Tell the event to whoever listens. Needs no answer."""

    event: PodResctrlEvent


Work: TypeAlias = CreateGroup | DeleteGroup | Reconcile
"""An action that takes time and is answered by a completion fact."""

Action: TypeAlias = Work | Emit
