"""What the plugin tells the world: one pod's group and how complete it is.

Owns: the event values, the group state, their JSON form. Must not know: who listens, or how pods are kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from attrs import field, frozen

from nri_resctrl_plugin.model import PodUid

__all__ = [
    "Exists",
    "Failed",
    "PodResctrlAddOrUpdate",
    "PodResctrlEvent",
    "PodResctrlRemoved",
    "ResctrlGroupState",
]


@frozen
class Exists:
    """The pod's group is there.

    Attributes:
        path: Its directory. For a pod with more than one, the main group.
        others: Its further groups, below the control groups that its containers run in, in the order of
            their paths. The pod's usage is the sum over all of them.
    """

    path: Path
    others: tuple[Path, ...] = ()


@frozen
class Failed:
    """The pod's group could not be made.

    Attributes:
        reason: Why, for people; two Failed states are equal whatever their reasons.
    """

    reason: str = field(default="", eq=False)


ResctrlGroupState: TypeAlias = Exists | Failed


@frozen
class PodResctrlAddOrUpdate:
    """A pod is there, or something about it changed; always the full present state.

    Attributes:
        pod_uid: The pod.
        group_state: Its group.
        total_containers: Containers started and neither stopped nor removed.
        reconciled_containers: Those of them whose live threads are all in the pod's groups.
    """

    pod_uid: PodUid
    group_state: ResctrlGroupState
    total_containers: int
    reconciled_containers: int

    @property
    def groups(self) -> tuple[Path, ...]:
        """All groups of the pod, the main one first; none while its group is Failed."""
        match self.group_state:
            case Exists(path, others):
                return (path, *others)
            case Failed():
                return ()


@frozen
class PodResctrlRemoved:
    """A pod is gone. Its group is deleted after this is told."""

    pod_uid: PodUid


PodResctrlEvent: TypeAlias = PodResctrlAddOrUpdate | PodResctrlRemoved
