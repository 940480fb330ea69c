"""What the pod table asks for: actions.

Owns: the words of the table to its shell. Must not know: the facts that answer them (`pods_facts`), the rules
(`pods_rules`), the table (`pods`).

Numbered rule:

1. Every action but `Emit` is answered by exactly one completion fact, whatever became of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from attrs import frozen

from nri_resctrl_plugin.events import PodResctrlEvent
from nri_resctrl_plugin.model import ContainerCgroup, ContainerId, PodUid

__all__ = [
    "Action",
    "CreateGroup",
    "DeleteGroup",
    "Emit",
    "Inspect",
    "InspectedContainer",
    "Reconcile",
    "Work",
]


@frozen
class CreateGroup:
    """Make the pod's group, or find it; answered by `GroupCreated` or `GroupRefused`."""

    pod_uid: PodUid


@frozen
class DeleteGroup:
    """Remove the pod's groups; answered by `GroupDeleted` or `GroupKept`.

    Attributes:
        pod_uid: The pod.
        path: Its main group.
        others: Its further groups.
    """

    pod_uid: PodUid
    path: Path
    others: tuple[Path, ...] = ()


@frozen
class Reconcile:
    """Put the container's threads into groups of the pod; answered by `TasksReconciled`.

    Attributes:
        pod_uid: The pod.
        container_id: The container.
        path: The pod's main group.
        cgroup: Where the container's threads are found.
        others: The pod's further groups.
        movable: Those of the pod's groups that are the home of no other counted container, as far as
            completions told: they may be renamed for this one. A group that was found on disk may hold
            threads of a container whose first attempt is yet to come, and a rename takes all threads of a
            group along into another class: whoever renames looks first who is in it.
    """

    pod_uid: PodUid
    container_id: ContainerId
    path: Path
    cgroup: ContainerCgroup
    others: tuple[Path, ...] = ()
    movable: frozenset[Path] = frozenset()


@frozen
class InspectedContainer:
    """One container that an inspection looks at.

    Attributes:
        container_id: The container.
        cgroup: Where its threads are found.
    """

    container_id: ContainerId
    cgroup: ContainerCgroup


@frozen
class Inspect:
    """See whether the pod's groups and its containers' threads are where they are believed to be.

    Answered by `PodInspected`; nothing is changed by it, but a further group that turns out to be in nobody's
    use may be removed and then counts as not there.

    Attributes:
        pod_uid: The pod.
        groups: Its groups, the main one first.
        containers: Those that were started, without the ones that the runtime monitors.
    """

    pod_uid: PodUid
    groups: tuple[Path, ...]
    containers: tuple[InspectedContainer, ...]


@frozen
class Emit:
    """Tell the event to whoever listens. Needs no answer."""

    event: PodResctrlEvent


Work: TypeAlias = CreateGroup | DeleteGroup | Reconcile | Inspect
"""An action that takes time and is answered by a completion fact."""

Action: TypeAlias = Work | Emit
