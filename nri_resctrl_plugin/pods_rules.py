"""The pod table's rules as data: what a sandbox, a pod's group and a container may become, and what follows.

Owns: every transition there is. Must not know: how the rows are executed (`pods_state`).

Numbered rules:

1. A row is (phase, trigger) -> (target, effects). Where no row stands, nothing happens: that is how unknown,
   duplicate and late facts are borne.
2. There is no row that could be left out: a test deletes and alters each in turn and must see a machine fail.
3. `docs/explanation/transitions.md` is rendered from these rows and from the words of `pods_phases`.
"""

from __future__ import annotations

from attrs import frozen

from nri_resctrl_plugin.pods_phases import (
    COUNTED,
    ContainerEffect,
    ContainerPhase,
    ContainerTrigger,
    GroupEffect,
    GroupPhase,
    GroupTrigger,
    SandboxEffect,
    SandboxPhase,
    SandboxTrigger,
)

__all__ = ["RULES", "ContainerRule", "GroupRule", "Rules", "SandboxRule"]


@frozen
class SandboxRule:
    """One row of a sandbox's life."""

    phase: SandboxPhase
    trigger: SandboxTrigger
    target: SandboxPhase
    effects: tuple[SandboxEffect, ...] = ()


@frozen
class GroupRule:
    """One row of the life of a pod's group.

    Attributes:
        phase: Where it holds.
        trigger: What happens.
        target: The phase after it.
        effects: What follows, in order.
        left: Where not None, the row holds only if a group of the pod is (True) or is not (False) on disk, as
            far as completions told. A refused create leaves an older group where it was.
    """

    phase: GroupPhase
    trigger: GroupTrigger
    target: GroupPhase
    effects: tuple[GroupEffect, ...] = ()
    left: bool | None = None


@frozen
class ContainerRule:
    """One row of a container's life."""

    phase: ContainerPhase
    trigger: ContainerTrigger
    target: ContainerPhase
    effects: tuple[ContainerEffect, ...] = ()


@frozen
class Rules:
    """The three tables that `PodTable` executes."""

    sandbox: tuple[SandboxRule, ...]
    group: tuple[GroupRule, ...]
    container: tuple[ContainerRule, ...]


# --- the rows ---

_S, _ST, _SE = SandboxPhase, SandboxTrigger, SandboxEffect
_G, _GT, _GE = GroupPhase, GroupTrigger, GroupEffect
_C, _CT, _CE = ContainerPhase, ContainerTrigger, ContainerEffect

_SANDBOX_RULES = (
    SandboxRule(_S.UNKNOWN, _ST.STARTED, _S.LIVE, (_SE.JOIN,)),
    SandboxRule(_S.UNKNOWN, _ST.NAMED, _S.LIVE, (_SE.JOIN,)),
    SandboxRule(_S.UNKNOWN, _ST.LISTED, _S.LIVE, (_SE.JOIN,)),
    # A stop of an unknown sandbox: containers that wait for it wait in vain, and a later START is late.
    SandboxRule(_S.UNKNOWN, _ST.STOPPED, _S.STOPPED, (_SE.LEAVE,)),
    SandboxRule(_S.UNKNOWN, _ST.REMOVED, _S.UNKNOWN, (_SE.LEAVE,)),
    SandboxRule(_S.LIVE, _ST.STOPPED, _S.STOPPED, (_SE.LEAVE,)),
    SandboxRule(_S.LIVE, _ST.REMOVED, _S.UNKNOWN, (_SE.LEAVE,)),
    SandboxRule(_S.LIVE, _ST.UNLISTED, _S.UNKNOWN, (_SE.LEAVE,)),
    # Nothing but a new run brings a stopped sandbox back: not a late START, not a listing (runtimes list
    # stopped sandboxes too).
    SandboxRule(_S.STOPPED, _ST.STARTED, _S.LIVE, (_SE.JOIN,)),
    SandboxRule(_S.STOPPED, _ST.REMOVED, _S.UNKNOWN),
    SandboxRule(_S.STOPPED, _ST.UNLISTED, _S.UNKNOWN),
)

_GROUP_RULES = (
    GroupRule(_G.ABSENT, _GT.APPEARED, _G.CREATING, (_GE.CREATE,)),
    # First outcome: always told, the pod was never told before.
    GroupRule(_G.CREATING, _GT.CREATED, _G.EXISTS, (_GE.ANNOUNCE,)),
    GroupRule(_G.CREATING, _GT.REFUSED, _G.FAILED, (_GE.ANNOUNCE,)),
    GroupRule(_G.CREATING, _GT.GONE, _G.LEAVING),
    # Containers get into the group one after the other, and an inspection takes its turn among them: so what
    # it finds is true of groups and threads that nothing else was done to meanwhile.
    GroupRule(_G.EXISTS, _GT.WORK, _G.WORKING, (_GE.RECONCILE,)),
    GroupRule(_G.EXISTS, _GT.AUDITED, _G.WORKING, (_GE.INSPECT,)),
    GroupRule(_G.EXISTS, _GT.GONE, _G.LEAVING, (_GE.REMOVED, _GE.DELETE)),
    GroupRule(_G.WORKING, _GT.ENDED, _G.EXISTS),
    GroupRule(_G.WORKING, _GT.GONE, _G.LEAVING, (_GE.REMOVED,)),
    GroupRule(_G.EXISTS, _GT.MOVED, _G.EXISTS, (_GE.ANNOUNCE,)),
    # A group that somebody removed is made again at once: nobody refused it.
    GroupRule(_G.EXISTS, _GT.LOST, _G.RETRYING, (_GE.ANNOUNCE, _GE.CREATE)),
    # But not for ever: somebody who removes it each time outlasts any audit.
    GroupRule(_G.EXISTS, _GT.LOST_AGAIN, _G.FAILED, (_GE.ANNOUNCE,)),
    # A refused group waits for a retry, and so do its containers. A failed retry is not told.
    GroupRule(_G.FAILED, _GT.WORK, _G.FAILED, (_GE.GIVE_UP,)),
    GroupRule(_G.FAILED, _GT.RETRIED, _G.RETRYING, (_GE.CREATE,)),
    GroupRule(_G.FAILED, _GT.GONE, _G.ABSENT, (_GE.REMOVED,), left=False),
    GroupRule(_G.FAILED, _GT.GONE, _G.LEAVING, (_GE.REMOVED, _GE.DELETE), left=True),
    GroupRule(_G.RETRYING, _GT.CREATED, _G.EXISTS, (_GE.ANNOUNCE,)),
    GroupRule(_G.RETRYING, _GT.REFUSED, _G.FAILED),
    GroupRule(_G.RETRYING, _GT.GONE, _G.LEAVING, (_GE.REMOVED,)),
    # The pod is gone: whatever was in flight ends first, then its group is deleted, once.
    GroupRule(_G.LEAVING, _GT.CREATED, _G.LEAVING, (_GE.DELETE,)),
    GroupRule(_G.LEAVING, _GT.ENDED, _G.LEAVING, (_GE.DELETE,), left=True),
    GroupRule(_G.LEAVING, _GT.ENDED, _G.ABSENT, left=False),
    GroupRule(_G.LEAVING, _GT.REFUSED, _G.LEAVING, (_GE.DELETE,), left=True),
    GroupRule(_G.LEAVING, _GT.REFUSED, _G.ABSENT, left=False),
    GroupRule(_G.LEAVING, _GT.DELETED, _G.ABSENT),
    GroupRule(_G.LEAVING, _GT.KEPT, _G.ORPHAN),
    GroupRule(_G.LEAVING, _GT.APPEARED, _G.RETURNING),
    # Back before that was over: the old action cannot be trusted to leave the group as the new life needs it
    # (an old delete would take it away), so a create follows whatever it was.
    GroupRule(_G.RETURNING, _GT.CREATED, _G.CREATING, (_GE.CREATE,)),
    GroupRule(_G.RETURNING, _GT.REFUSED, _G.CREATING, (_GE.CREATE,)),
    GroupRule(_G.RETURNING, _GT.DELETED, _G.CREATING, (_GE.CREATE,)),
    GroupRule(_G.RETURNING, _GT.KEPT, _G.CREATING, (_GE.CREATE,)),
    GroupRule(_G.RETURNING, _GT.ENDED, _G.CREATING, (_GE.CREATE,)),
    GroupRule(_G.RETURNING, _GT.GONE, _G.LEAVING),
    GroupRule(_G.ORPHAN, _GT.APPEARED, _G.CREATING, (_GE.CREATE,)),
    GroupRule(_G.ORPHAN, _GT.ORPHAN_RETRIED, _G.LEAVING, (_GE.DELETE,)),
)

_CONTAINER_RULES = (
    ContainerRule(_C.UNKNOWN, _CT.ADRIFT, _C.NO_POD),
    ContainerRule(_C.UNKNOWN, _CT.SEEN_CREATED, _C.CREATED),
    ContainerRule(_C.NO_POD, _CT.SEEN_CREATED, _C.CREATED),
    # A start is told when its first attempt ends; a listing at once, together with all else that it changes.
    # What the runtime monitors is not attempted: its attempt ends at once.
    ContainerRule(_C.UNKNOWN, _CT.STARTED, _C.STARTING),
    ContainerRule(_C.NO_POD, _CT.STARTED, _C.STARTING),
    ContainerRule(_C.CREATED, _CT.STARTED, _C.STARTING),
    ContainerRule(_C.UNKNOWN, _CT.STARTED_MONITORED, _C.RUNTIME_MONITORED, (_CE.TELL,)),
    ContainerRule(_C.NO_POD, _CT.STARTED_MONITORED, _C.RUNTIME_MONITORED, (_CE.TELL,)),
    ContainerRule(_C.CREATED, _CT.STARTED_MONITORED, _C.RUNTIME_MONITORED, (_CE.TELL,)),
    ContainerRule(_C.UNKNOWN, _CT.LISTED, _C.QUEUED, (_CE.TELL,)),
    ContainerRule(_C.CREATED, _CT.LISTED, _C.QUEUED, (_CE.TELL,)),
    ContainerRule(_C.UNKNOWN, _CT.LISTED_MONITORED, _C.RUNTIME_MONITORED, (_CE.TELL,)),
    ContainerRule(_C.CREATED, _CT.LISTED_MONITORED, _C.RUNTIME_MONITORED, (_CE.TELL,)),
    ContainerRule(_C.STARTING, _CT.TAKEN, _C.ENTERING),
    ContainerRule(_C.STARTING, _CT.GIVEN_UP, _C.PARTIAL, (_CE.TELL,)),
    ContainerRule(_C.ENTERING, _CT.COMPLETE, _C.RECONCILED, (_CE.TELL,)),
    ContainerRule(_C.ENTERING, _CT.INCOMPLETE, _C.PARTIAL, (_CE.TELL,)),
    # Attempts of listed containers, of retries and of repeated STARTs are told only if they complete.
    ContainerRule(_C.QUEUED, _CT.TAKEN, _C.TRYING),
    ContainerRule(_C.QUEUED, _CT.GIVEN_UP, _C.PARTIAL),
    ContainerRule(_C.TRYING, _CT.COMPLETE, _C.RECONCILED, (_CE.TELL,)),
    ContainerRule(_C.TRYING, _CT.INCOMPLETE, _C.PARTIAL),
    ContainerRule(_C.PARTIAL, _CT.RETRIED, _C.QUEUED),
    ContainerRule(_C.PARTIAL, _CT.STARTED, _C.QUEUED, (_CE.RETRY_GROUP,)),
    # What an audit finds is news only of a container for which nothing waits and nothing is in flight.
    ContainerRule(_C.PARTIAL, _CT.FOUND_COMPLETE, _C.RECONCILED, (_CE.TELL,)),
    ContainerRule(_C.PARTIAL, _CT.FOUND_ASTRAY, _C.QUEUED),
    ContainerRule(_C.RECONCILED, _CT.FOUND_ASTRAY, _C.QUEUED, (_CE.TELL,)),
    ContainerRule(_C.RECONCILED, _CT.FOUND_ASTRAY_AGAIN, _C.PARTIAL, (_CE.TELL,)),
    ContainerRule(_C.PARTIAL, _CT.FOUND_GONE, _C.STOPPED, (_CE.TELL,)),
    ContainerRule(_C.RECONCILED, _CT.FOUND_GONE, _C.STOPPED, (_CE.TELL,)),
    # The end, whichever of STOP and REMOVE comes first.
    ContainerRule(_C.NO_POD, _CT.STOPPED, _C.STOPPED),
    ContainerRule(_C.CREATED, _CT.STOPPED, _C.STOPPED),
    *(ContainerRule(phase, _CT.STOPPED, _C.STOPPED, (_CE.TELL,)) for phase in COUNTED),
    ContainerRule(_C.NO_POD, _CT.REMOVED, _C.UNKNOWN),
    ContainerRule(_C.CREATED, _CT.REMOVED, _C.UNKNOWN),
    ContainerRule(_C.STOPPED, _CT.REMOVED, _C.UNKNOWN),
    *(ContainerRule(phase, _CT.REMOVED, _C.UNKNOWN, (_CE.TELL,)) for phase in COUNTED),
)

RULES = Rules(sandbox=_SANDBOX_RULES, group=_GROUP_RULES, container=_CONTAINER_RULES)
"""The rules of the product."""
