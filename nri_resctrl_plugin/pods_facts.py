"""What the pod table hears: facts.

Owns: the words of the shell to the table. Must not know: the actions that some of them answer
(`pods_actions`), the rules (`pods_rules`), the table (`pods`).

Numbered rules:

1. A fact says what happened, in the past tense, and nothing about what should follow.
2. Facts may be unknown, duplicate or late; that is for the table to bear.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TypeAlias

from attrs import field, frozen

from nri_resctrl_plugin.model import ContainerCgroup, ContainerId, PodUid, SandboxId

__all__ = [
    "Completion",
    "Container",
    "ContainerRemoved",
    "ContainerRetried",
    "ContainerStarted",
    "ContainerStopped",
    "Fact",
    "Finding",
    "GroupCreated",
    "GroupDeleted",
    "GroupKept",
    "GroupRefused",
    "GroupRetried",
    "LiveSandbox",
    "OrphanRetried",
    "PodAudited",
    "PodInspected",
    "PodRef",
    "PodRemoved",
    "PodStarted",
    "PodStopped",
    "Synchronized",
    "TasksReconciled",
]


@frozen
class PodRef:
    """One pod sandbox and the pod it belongs to.

    Attributes:
        sandbox_id: The sandbox; never used twice by a runtime.
        pod_uid: The pod; two sandboxes may share it (the kubelet re-creates a sandbox under the same uid).
        cgroup: The sandbox's own cgroup, as far as the runtime told; two words about one sandbox are equal
            whatever they say of it.
    """

    sandbox_id: SandboxId
    pod_uid: PodUid
    cgroup: ContainerCgroup | None = field(default=None, eq=False)


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


@frozen
class LiveSandbox:
    """A sandbox that lives as far as events told: what a census looks at.

    Attributes:
        sandbox_id: The sandbox.
        pod_uid: Its pod.
        cgroup: Its own cgroup, where that was told.
        containers: Where the threads of each of its containers are found, those left out that ended.
    """

    sandbox_id: SandboxId
    pod_uid: PodUid
    cgroup: ContainerCgroup | None
    containers: tuple[ContainerCgroup, ...] = ()


class Finding(Enum):
    """What an inspection found of one container."""

    COMPLETE = "all of its live threads are in a group of the pod"
    ASTRAY = "some live thread is in no group of the pod"
    ASTRAY_AGAIN = "ASTRAY, by a thread that was put back as often as one audit does that"
    GONE = "its cgroup is surely gone"
    UNKNOWN = "it could not be told, or there are no threads"


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
    """Synchronize, all chunks together: everything that the runtime knows at this moment.

    Attributes:
        pods: The sandboxes that live.
        containers: The containers.
        resting: Sandboxes that are listed and in which nothing runs. They are no pods: most were stopped.
    """

    pods: tuple[PodRef, ...]
    containers: tuple[Container, ...]
    resting: tuple[PodRef, ...] = ()


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


@frozen
class PodAudited:
    """The pod is to be inspected. Counts only while its group Exists and nothing is in flight for it."""

    pod_uid: PodUid


# --- facts from the shell: how an action ended ---


@frozen
class GroupCreated:
    """`CreateGroup` succeeded, or found the group already there.

    Attributes:
        pod_uid: The pod.
        path: The group that was made or found: the pod's main group from now on.
        others: Further groups of the pod that were found. Those that are known from before stay known.
    """

    pod_uid: PodUid
    path: Path
    others: tuple[Path, ...] = ()


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
    """`DeleteGroup` succeeded, or found no group: none of the pod's groups is left."""

    pod_uid: PodUid


@frozen
class GroupKept:
    """`DeleteGroup` failed: one of the groups is still there.

    Attributes:
        pod_uid: The pod.
        left: Those that are still there; None, or none at all: all of them, as far as could be seen.
    """

    pod_uid: PodUid
    left: tuple[Path, ...] | None = None


@frozen
class TasksReconciled:
    """`Reconcile` ended.

    Attributes:
        pod_uid: The pod.
        container_id: The container.
        complete: All of its live threads are in groups of the pod. False after any failure.
        groups: The pod's groups as they are now, the main one first; None, or none at all: as asked.
        homes: The groups that hold threads of the container, as far as this attempt could see.
    """

    pod_uid: PodUid
    container_id: ContainerId
    complete: bool
    groups: tuple[Path, ...] | None = None
    homes: frozenset[Path] = frozenset()


@frozen
class PodInspected:
    """`Inspect` ended.

    Attributes:
        pod_uid: The pod.
        findings: What was found of each container; one that is left out is UNKNOWN.
        lost: The main group is not there any more.
        others: The further groups that are there, also such as were not known; None: those that were.
        given_up: It is not to be made again, if it is lost: it was, as often as one audit does that.
    """

    pod_uid: PodUid
    findings: tuple[tuple[ContainerId, Finding], ...]
    lost: bool = False
    others: tuple[Path, ...] | None = None
    given_up: bool = False


Completion: TypeAlias = (
    GroupCreated | GroupRefused | GroupDeleted | GroupKept | TasksReconciled | PodInspected
)
"""How an action ended."""

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
    | PodAudited
    | Completion
)
