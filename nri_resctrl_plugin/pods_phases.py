"""The pod table's vocabulary: the phases things go through, what can happen to them, and what can follow.

Owns: phases, triggers, effects, and what phases mean to those who ask. Must not know: the rows
(`pods_rules`), how they are executed (`pods_state`).

Numbered rule:

1. The text of a phase, a trigger or an effect is its documentation: it is told in
   `docs/explanation/transitions.md`.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING

from nri_resctrl_plugin.model import ContainerState

__all__ = [
    "ATTEMPT_ENDED",
    "ATTEMPT_PENDING",
    "CONTAINER_STATES",
    "COUNTED",
    "CREATION_PENDING",
    "GROUP_EXISTS",
    "GROUP_FAILED",
    "ContainerEffect",
    "ContainerPhase",
    "ContainerTrigger",
    "GroupEffect",
    "GroupPhase",
    "GroupTrigger",
    "SandboxEffect",
    "SandboxPhase",
    "SandboxTrigger",
]


class _Word(Enum):
    """A member is the one object of its kind and told apart as such: rows are looked up at every turn."""

    if not TYPE_CHECKING:  # type checkers know the method by its declaration in Enum
        __hash__ = object.__hash__


# --- sandboxes ---


class SandboxPhase(_Word):
    """What is known of one sandbox id."""

    UNKNOWN = "never heard of, or forgotten"
    LIVE = "running; its pod lives as long as one of its sandboxes does"
    STOPPED = "stopped, and remembered until it is removed or no longer listed"


class SandboxTrigger(_Word):
    """What can happen to a sandbox."""

    STARTED = "PodStarted"
    NAMED = "a container's START carries it"
    LISTED = "Synchronize lists it"
    STOPPED = "PodStopped"
    REMOVED = "PodRemoved"
    UNLISTED = "Synchronize does not list it"


class SandboxEffect(_Word):
    """What a sandbox does to its pod and its containers."""

    JOIN = "it joins its pod, which appears with it, and so do its containers that had no pod"
    LEAVE = "its containers go, and it leaves its pod, which goes with the last one"


# --- a pod's group ---


class GroupPhase(_Word):
    """How a pod and its group stand to each other. At most one action is in flight in any of them."""

    ABSENT = "no pod, no group, nothing to remember"
    CREATING = "the pod appeared and its first create is in flight; nothing is told yet"
    EXISTS = "the group is there and nothing is in flight"
    WORKING = "the group is there, as far as is known, and a reconcile or an inspection is in flight"
    FAILED = "the create was refused; only a retry changes that"
    RETRYING = "Failed, and another create is in flight"
    LEAVING = "the pod is gone and an action is in flight: the delete, or one that must end before it"
    RETURNING = (
        "the pod is back while an action of its earlier life is in flight; its create comes after that"
    )
    ORPHAN = "the pod is gone and its group could not be deleted"


class GroupTrigger(_Word):
    """What can happen to a pod's group."""

    APPEARED = "a sandbox of the pod came to life"
    GONE = "the pod's last live sandbox went"
    CREATED = "GroupCreated"
    REFUSED = "GroupRefused"
    DELETED = "GroupDeleted"
    KEPT = "GroupKept"
    ENDED = "TasksReconciled or PodInspected"
    MOVED = "after ENDED: it told of other groups than were known"
    LOST = "after ENDED: the main group is not there any more"
    LOST_AGAIN = "LOST, and it was made again as often as one audit does that"
    WORK = "a container's attempt waits"
    RETRIED = "GroupRetried, or a repeated START of a container that is PARTIAL"
    ORPHAN_RETRIED = "OrphanRetried"
    AUDITED = "PodAudited"


class GroupEffect(_Word):
    """What follows for the group and its audience."""

    CREATE = "CreateGroup"
    DELETE = "DeleteGroup"
    RECONCILE = "Reconcile for the next waiting attempt, the first one of a START before others"
    INSPECT = "Inspect, with each container whose attempt ended"
    GIVE_UP = "the next waiting attempt ends"
    ANNOUNCE = "Emit AddOrUpdate"
    REMOVED = "Emit Removed"


# --- containers ---


class ContainerPhase(_Word):
    """How far one container has come. Finer than `ContainerState`: it says whose turn an attempt is."""

    UNKNOWN = "never heard of, or forgotten"
    NO_POD = "seen, but its sandbox is not known"
    CREATED = "listed, not started"
    STARTING = "PARTIAL: started, its first attempt waits for the group or its turn"
    ENTERING = "PARTIAL: the first attempt after its START is in flight"
    QUEUED = "PARTIAL: an attempt that was not promised an event waits"
    TRYING = "PARTIAL: an attempt that was not promised an event is in flight"
    PARTIAL = "PARTIAL: the attempt ended, only a retry or a repeated START brings another"
    RECONCILED = "RECONCILED: all of its live threads are in the group"
    RUNTIME_MONITORED = "RUNTIME_MONITORED: counted, but left to the runtime"
    STOPPED = "stopped, and remembered until it is removed or no longer listed"


class ContainerTrigger(_Word):
    """What can happen to a container."""

    ADRIFT = "seen, and its sandbox is not known"
    SEEN_CREATED = "listed as created, and its pod is known"
    STARTED = "ContainerStarted, or its pod became known after it"
    STARTED_MONITORED = "as STARTED, but the runtime monitors it"
    LISTED = "Synchronize lists it as started, and its pod is known"
    LISTED_MONITORED = "as LISTED, but the runtime monitors it"
    TAKEN = "its reconcile is its pod's next action"
    GIVEN_UP = "the group is Failed: its waiting attempt ends"
    COMPLETE = "TasksReconciled, complete"
    INCOMPLETE = "TasksReconciled, not complete"
    RETRIED = "ContainerRetried"
    FOUND_COMPLETE = "PodInspected: COMPLETE"
    FOUND_ASTRAY = "PodInspected: ASTRAY, or the main group is lost"
    FOUND_ASTRAY_AGAIN = "PodInspected: ASTRAY_AGAIN, or the main group is lost again"
    FOUND_GONE = "PodInspected: GONE"
    STOPPED = "ContainerStopped"
    REMOVED = "ContainerRemoved, its sandbox went, or Synchronize does not list it"


class ContainerEffect(_Word):
    """What a container does to its pod."""

    TELL = "Emit AddOrUpdate of its pod if that differs from the last one and the group's outcome is known"
    RETRY_GROUP = "the group is retried"


# --- what phases mean to those who ask ---

GROUP_EXISTS = frozenset({GroupPhase.EXISTS, GroupPhase.WORKING})
"""The group state is Exists."""

GROUP_FAILED = frozenset({GroupPhase.FAILED, GroupPhase.RETRYING})
"""The group state is Failed."""

CREATION_PENDING = frozenset({GroupPhase.CREATING, GroupPhase.RETRYING, GroupPhase.RETURNING})
"""A create of a live pod is in flight or comes next."""

ATTEMPT_PENDING = frozenset(
    {ContainerPhase.STARTING, ContainerPhase.ENTERING, ContainerPhase.QUEUED, ContainerPhase.TRYING}
)
"""A reconcile is in flight, queued, or waits for the group."""

ATTEMPT_ENDED = frozenset({ContainerPhase.PARTIAL, ContainerPhase.RECONCILED})
"""Every reconcile that the container had coming has ended: an inspection tells something about it."""

COUNTED = (
    ContainerPhase.STARTING,
    ContainerPhase.ENTERING,
    ContainerPhase.QUEUED,
    ContainerPhase.TRYING,
    ContainerPhase.PARTIAL,
    ContainerPhase.RECONCILED,
    ContainerPhase.RUNTIME_MONITORED,
)
"""The container is one of its pod's `total_containers`: started and neither stopped nor removed."""

CONTAINER_STATES = MappingProxyType(
    {
        ContainerPhase.NO_POD: ContainerState.NO_POD,
        ContainerPhase.CREATED: ContainerState.CREATED,
        ContainerPhase.STARTING: ContainerState.PARTIAL,
        ContainerPhase.ENTERING: ContainerState.PARTIAL,
        ContainerPhase.QUEUED: ContainerState.PARTIAL,
        ContainerPhase.TRYING: ContainerState.PARTIAL,
        ContainerPhase.PARTIAL: ContainerState.PARTIAL,
        ContainerPhase.RECONCILED: ContainerState.RECONCILED,
        ContainerPhase.RUNTIME_MONITORED: ContainerState.RUNTIME_MONITORED,
    }
)
"""The state that is told to those who ask. UNKNOWN and STOPPED have none."""
