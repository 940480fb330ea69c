"""Audits, lost groups, several groups of one pod, and the census: the pod table, one claim at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from nri_resctrl_plugin.events import (
    Exists,
    Failed,
    PodResctrlAddOrUpdate,
    PodResctrlRemoved,
)
from nri_resctrl_plugin.model import ContainerCgroup, ContainerId, ContainerState
from nri_resctrl_plugin.pods import (
    ContainerRemoved,
    ContainerRetried,
    ContainerStarted,
    ContainerStopped,
    CreateGroup,
    DeleteGroup,
    Emit,
    Fact,
    Finding,
    GroupCreated,
    GroupKept,
    GroupRefused,
    GroupRetried,
    Inspect,
    InspectedContainer,
    LiveSandbox,
    OrphanRetried,
    PodAudited,
    PodInspected,
    PodRef,
    PodStarted,
    PodStopped,
    Synchronized,
    TasksReconciled,
)
from tests.pods_support import (
    A1,
    A2,
    B1,
    GOLD,
    LEAD,
    PATH,
    A,
    B,
    X,
    Y,
    Z,
    events,
    exists,
    failed,
    reconcile,
    running,
    start,
    table_after,
    word,
    works,
)

# --- audits ---


def ended(container_id: ContainerId = X, *, complete: bool = True) -> tuple[Fact, Fact]:
    """A container that started and had its first attempt."""
    return start(container_id), TasksReconciled(A, container_id, complete)


def found(*findings: Finding, lost: bool = False, others: tuple[Path, ...] | None = None) -> PodInspected:
    """What an inspection of pod A says of X, and then of Y."""
    return PodInspected(A, tuple(zip((X, Y), findings, strict=False)), lost, others)


def test_audit_asks_for_an_inspection() -> None:
    """An audit is about the pod's groups and each container whose attempt ended, whatever came of it."""
    table = running(*ended(X), *ended(Y, complete=False), ContainerStarted(word(Z, monitored=True)))
    table.apply(Synchronized((A1,), (word(X), word(Y), word(Z), word(ContainerId("c"), started=False))))
    seen = tuple(InspectedContainer(each, ContainerCgroup(cgroups_path=f"/{each}")) for each in (X, Y))
    assert table.apply(PodAudited(A)) == [Inspect(A, (PATH,), seen)]
    assert table.busy(A)
    assert table.group_state(A) == Exists(PATH)


@pytest.mark.parametrize(
    "before",
    [
        (),
        (PodStarted(A1),),
        (PodStarted(A1), GroupRefused(A)),
        (PodStarted(A1), GroupCreated(A, PATH), start()),
        (PodStarted(A1), GroupCreated(A, PATH), PodAudited(A)),
        (PodStarted(A1), GroupCreated(A, PATH), PodStopped(A1.sandbox_id)),
    ],
)
def test_audit_of_what_cannot_be_inspected(before: tuple[Fact, ...]) -> None:
    """An audit counts only while the group Exists and nothing is in flight."""
    table = table_after(*before)
    assert table.apply(PodAudited(A)) == []


@pytest.mark.parametrize("finding", [Finding.COMPLETE, Finding.UNKNOWN])
def test_nothing_found_of_reconciled(finding: Finding) -> None:
    """What is as it is believed to be, or cannot be told, changes nothing."""
    table = running(*ended(), PodAudited(A))
    assert table.apply(found(finding)) == []
    assert table.container_state(X) is ContainerState.RECONCILED
    assert table.idle


def test_astray() -> None:
    """A reconciled container with a thread astray falls, is told, gets one attempt, and rises again, told."""
    table = running(*ended(), PodAudited(A))
    assert table.apply(found(Finding.ASTRAY)) == [Emit(exists(1, 0)), reconcile()]
    assert table.container_state(X) is ContainerState.PARTIAL
    assert table.apply(TasksReconciled(A, X, complete=True)) == [Emit(exists(1, 1))]


def test_astray_again() -> None:
    """A container that is left astray falls, is told, and waits for a retry; one that is partial stays so."""
    table = running(*ended(), PodAudited(A))
    assert table.apply(found(Finding.ASTRAY_AGAIN)) == [Emit(exists(1, 0))]
    assert table.container_state(X) is ContainerState.PARTIAL
    assert table.idle
    table.apply(PodAudited(A))
    assert table.apply(found(Finding.ASTRAY_AGAIN)) == []
    assert table.apply(ContainerRetried(X)) == [reconcile()]


def test_astray_and_partial() -> None:
    """A partial container with a thread astray gets an attempt, told only if it completes."""
    table = running(*ended(complete=False), PodAudited(A))
    assert table.apply(found(Finding.ASTRAY)) == [reconcile()]
    assert table.apply(TasksReconciled(A, X, complete=False)) == []
    table.apply(PodAudited(A))
    assert table.apply(found(Finding.UNKNOWN)) == []


def test_found_complete() -> None:
    """A partial container whose threads are all found in place is reconciled, told, without an attempt."""
    table = running(*ended(complete=False), PodAudited(A))
    assert table.apply(found(Finding.COMPLETE)) == [Emit(exists(1, 1))]
    assert table.idle


@pytest.mark.parametrize("complete", [True, False])
def test_found_gone(*, complete: bool) -> None:
    """A container whose cgroup is gone counts no more, as if it had stopped: a late START is ignored."""
    table = running(*ended(complete=complete), PodAudited(A))
    assert table.apply(found(Finding.GONE)) == [Emit(exists(0, 0))]
    assert table.container_state(X) is None
    assert table.apply(start()) == []


def test_one_event_for_all_findings() -> None:
    """All that an inspection changes is told in one event."""
    table = running(*ended(X), *ended(Y), PodAudited(A))
    assert events(table.apply(found(Finding.GONE, Finding.ASTRAY))) == [exists(1, 0)]


@pytest.mark.parametrize("finding", list(Finding))
def test_finding_is_stale(finding: Finding) -> None:
    """A finding says nothing of a container that went and came, or that was retried meanwhile."""
    table = running(*ended(X, complete=False), *ended(Y), PodAudited(A), ContainerRetried(X))
    table.apply(ContainerRemoved(Y))
    table.apply(start(Y))
    assert works(table.apply(found(finding, finding))) == [reconcile(Y)]
    assert table.attempt_pending(X)
    assert table.attempt_pending(Y)


def test_finding_of_another_pod() -> None:
    """A finding about a container that is in another pod by now is not taken for one."""
    table = running(*ended(), PodStarted(B1), GroupCreated(B, Path("/groups/pod_B")), PodAudited(A))
    for fact in (ContainerRemoved(X), start(X, B1), TasksReconciled(B, X, complete=True)):
        table.apply(fact)
    assert table.apply(found(Finding.ASTRAY)) == []
    assert table.container_state(X) is ContainerState.RECONCILED


def test_work_waits_for_an_inspection() -> None:
    """A START during an inspection is attempted after it, before what the inspection brought up."""
    table = running(*ended(X), PodAudited(A))
    assert table.apply(start(Y)) == []
    assert table.apply(found(Finding.ASTRAY)) == [Emit(exists(2, 0)), reconcile(Y)]


@pytest.mark.parametrize(
    "stray", [PodInspected(A, (), lost=True), PodInspected(B, ()), GroupCreated(A, PATH)]
)
def test_late_inspection(stray: Fact) -> None:
    """An inspection that nobody asked for says nothing, and one that was asked for ends by its own answer."""
    table = running(*ended())
    assert table.apply(PodInspected(A, ((X, Finding.ASTRAY),), lost=True)) == []
    table.apply(start(Y))
    assert table.apply(stray) == []
    assert table.busy(A)


def test_gone_while_inspecting() -> None:
    """The delete of a pod that goes during its inspection waits for it."""
    table = running(*ended(), PodAudited(A))
    assert table.apply(PodStopped(A1.sandbox_id)) == [Emit(PodResctrlRemoved(A))]
    assert table.busy(A)
    assert table.apply(found(Finding.ASTRAY)) == [DeleteGroup(A, PATH)]


def test_gone_and_lost() -> None:
    """A pod that went, and whose only group an inspection misses, leaves nothing to delete."""
    table = running(PodAudited(A), PodStopped(A1.sandbox_id))
    assert table.apply(found(lost=True)) == []
    assert (table.idle, table.orphans()) == (True, ())


def test_back_while_inspecting() -> None:
    """A pod that went and is back gets a create after the inspection, which says nothing of the new life."""
    table = running(*ended(), PodAudited(A), PodStopped(A1.sandbox_id), PodStarted(A2))
    assert table.apply(found(Finding.ASTRAY, lost=True)) == [CreateGroup(A)]


# --- a group that somebody removed ---


def test_lost() -> None:
    """A lost group is told Failed with the reason, made again, and every container is put in again."""
    table = running(*ended(X), *ended(Y, complete=False), PodAudited(A))
    actions = table.apply(found(Finding.ASTRAY, Finding.UNKNOWN, lost=True))
    assert actions == [Emit(failed(2)), CreateGroup(A)]
    state = table.group_state(A)
    assert isinstance(state, Failed)
    assert state.reason == "the group was removed by somebody else"
    assert table.creation_pending(A)
    assert table.apply(GroupCreated(A, GOLD)) == [
        Emit(PodResctrlAddOrUpdate(A, Exists(GOLD), 2, 0)),
        reconcile(X, None, GOLD, movable=[GOLD]),
    ]
    assert events(table.apply(TasksReconciled(A, X, complete=True))) == [
        PodResctrlAddOrUpdate(A, Exists(GOLD), 2, 1)
    ]
    assert events(table.apply(TasksReconciled(A, Y, complete=True))) == [
        PodResctrlAddOrUpdate(A, Exists(GOLD), 2, 2)
    ]


def test_lost_and_refused() -> None:
    """Where a lost group cannot be made again, the pod stays Failed, silently, until a retry."""
    table = running(*ended(), PodAudited(A), found(lost=True))
    assert table.apply(GroupRefused(A, "full")) == []
    assert table.failed_pods() == (A,)
    assert table.partial_containers() == (X,)
    assert not table.attempt_pending(X)
    assert table.apply(PodStopped(A1.sandbox_id)) == [Emit(PodResctrlRemoved(A))]


def test_lost_again() -> None:
    """A lost group that is given up is told Failed, once, and waits for a retry with all containers."""
    table = running(*ended(X), *ended(Y, complete=False), PodAudited(A))
    given_up = evolve(found(Finding.COMPLETE, Finding.ASTRAY, lost=True), given_up=True)
    assert table.apply(given_up) == [Emit(failed(2))]
    state = table.group_state(A)
    assert isinstance(state, Failed)
    assert state.reason == "the group is removed by somebody else each time it is made"
    assert (table.failed_pods(), table.partial_containers()) == ((A,), (X, Y))
    assert table.idle
    assert not any(map(table.attempt_pending, (X, Y)))
    assert table.apply(GroupRetried(A)) == [CreateGroup(A)]
    assert table.apply(GroupCreated(A, PATH)) == [Emit(exists(2, 0))]
    assert table.apply(ContainerRetried(X)) == [reconcile()]


def test_what_is_not_lost_is_not_given_up() -> None:
    """A word about a group that is there changes nothing."""
    table = running(*ended(), PodAudited(A))
    assert table.apply(evolve(found(Finding.COMPLETE), given_up=True)) == []
    assert table.group_state(A) == Exists(PATH)


def test_lost_with_another_left() -> None:
    """A pod that lost its main group alone still has the others: they are deleted when it goes."""
    table = running(*ended(), *moved(PATH, GOLD), PodAudited(A), found(lost=True), GroupRefused(A))
    assert table.apply(PodStopped(A1.sandbox_id)) == [Emit(PodResctrlRemoved(A)), DeleteGroup(A, GOLD)]


# --- several groups of one pod ---


def moved(*groups: Path, container_id: ContainerId = Y, complete: bool = True) -> tuple[Fact, Fact]:
    """A container starts, and its attempt changes which groups the pod has."""
    homes = frozenset(groups[-1:])
    return start(container_id), TasksReconciled(A, container_id, complete, groups, homes)


def test_further_group() -> None:
    """A group that an attempt made is told with the attempt's event and asked about from then on."""
    table = running(*ended(X), start(Y))
    actions = table.apply(TasksReconciled(A, Y, complete=True, groups=(PATH, GOLD), homes=frozenset({GOLD})))
    assert actions == [Emit(PodResctrlAddOrUpdate(A, Exists(PATH, (GOLD,)), 2, 2))]
    assert works(table.apply(start(Z))) == [reconcile(Z, None, PATH, GOLD, movable=[PATH])]
    table.apply(TasksReconciled(A, Z, complete=True))
    (inspect,) = works(table.apply(PodAudited(A)))
    assert isinstance(inspect, Inspect)
    assert inspect.groups == (PATH, GOLD)
    table.apply(PodStopped(A1.sandbox_id))
    assert table.apply(PodInspected(A, ())) == [DeleteGroup(A, PATH, (GOLD,))]


def test_renamed_group() -> None:
    """A group that an attempt renamed is told where it is now."""
    table = running(start(X))
    actions = table.apply(TasksReconciled(A, X, complete=True, groups=(GOLD,)))
    assert actions == [Emit(PodResctrlAddOrUpdate(A, Exists(GOLD), 1, 1))]


def test_moved_though_incomplete() -> None:
    """A group that moved in an attempt of which else nothing is told is told by an event of its own, once."""
    table = running(*ended(complete=False), ContainerRetried(X))
    incomplete = TasksReconciled(A, X, complete=False, groups=(PATH, GOLD))
    assert table.apply(incomplete) == [Emit(PodResctrlAddOrUpdate(A, Exists(PATH, (GOLD,)), 1, 0))]
    table.apply(ContainerRetried(X))
    assert table.apply(incomplete) == []


def test_moved_for_a_container_that_went() -> None:
    """A group that moved for a container that went meanwhile has moved all the same."""
    table = running(start(), ContainerRemoved(X))
    actions = table.apply(TasksReconciled(A, X, complete=True, groups=(GOLD,)))
    assert actions == [Emit(PodResctrlAddOrUpdate(A, Exists(GOLD), 0, 0))]


def test_moved_when_gone() -> None:
    """What an attempt made for a pod that went meanwhile is deleted with the rest."""
    table = running(start(), PodStopped(A1.sandbox_id))
    fact = TasksReconciled(A, X, complete=True, groups=(LEAD, PATH, GOLD))
    assert table.apply(fact) == [DeleteGroup(A, LEAD, (GOLD, PATH))]


@pytest.mark.parametrize("same", [None, (), (PATH, LEAD, GOLD), (PATH, GOLD, LEAD, PATH)])
def test_no_other_groups(same: tuple[Path, ...] | None) -> None:
    """The order of further groups is no news, nor are none at all."""
    table = running(*moved(PATH, GOLD, LEAD), start(X), TasksReconciled(A, X, complete=False))
    table.apply(ContainerRetried(X))
    assert table.apply(TasksReconciled(A, X, complete=False, groups=same)) == []


def test_further_group_removed() -> None:
    """A further group that an inspection does not find any more is told to be gone."""
    table = running(*moved(PATH, GOLD), PodAudited(A))
    assert table.apply(found(others=(GOLD,))) == []
    table.apply(PodAudited(A))
    assert table.apply(found(others=())) == [Emit(exists(1, 1))]


def test_further_group_found() -> None:
    """One that an inspection finds, and that was not known, is the pod's; the main one is no further one."""
    table = running(*moved(PATH, GOLD), PodAudited(A))
    actions = table.apply(found(others=(LEAD, PATH)))
    assert actions == [Emit(PodResctrlAddOrUpdate(A, Exists(PATH, (LEAD,)), 1, 1))]
    table.apply(PodAudited(A))
    assert table.apply(found(lost=True, others=(LEAD, PATH)))[1] == CreateGroup(A)
    told, _ = table.apply(GroupCreated(A, GOLD))
    assert told == Emit(PodResctrlAddOrUpdate(A, Exists(GOLD, (LEAD,)), 1, 0))


def test_adopted() -> None:
    """Groups that were found with the main one are the pod's."""
    table = table_after(PodStarted(A1))
    assert table.apply(GroupCreated(A, PATH, (GOLD,))) == [
        Emit(PodResctrlAddOrUpdate(A, Exists(PATH, (GOLD,)), 0, 0))
    ]


def test_older_groups_stay_known() -> None:
    """A create that comes upon another main group forgets none that was there before it."""
    table = running(*moved(GOLD, LEAD), PodStopped(A1.sandbox_id), GroupKept(A), PodStarted(A2))
    assert events(table.apply(GroupCreated(A, PATH))) == [
        PodResctrlAddOrUpdate(A, Exists(PATH, (GOLD, LEAD)), 0, 0)
    ]


@pytest.mark.parametrize(
    ("left", "groups"),
    [
        ((GOLD,), (PATH, GOLD)),
        ((LEAD, GOLD), (PATH, GOLD, LEAD)),
        (None, (PATH, GOLD, LEAD)),
        ((), (PATH, GOLD, LEAD)),
    ],
)
def test_kept_in_part(left: tuple[Path, ...] | None, groups: tuple[Path, ...]) -> None:
    """Of the groups of a pod that went and is back, those that were removed meanwhile are not told again."""
    table = running(*moved(GOLD, LEAD), PodStopped(A1.sandbox_id), GroupKept(A, left), PodStarted(A2))
    assert events(table.apply(GroupCreated(A, PATH))) == [
        PodResctrlAddOrUpdate(A, Exists(PATH, groups[1:]), 0, 0)
    ]


def test_kept_main_group_stays_first() -> None:
    """What is tried again are the groups that are left, in the order in which they were known."""
    table = running(*moved(LEAD, GOLD, PATH), PodStopped(A1.sandbox_id), GroupKept(A, (PATH, LEAD)))
    assert table.apply(OrphanRetried(A)) == [DeleteGroup(A, LEAD, (PATH,))]
    table.apply(GroupKept(A, (PATH,)))
    assert table.apply(OrphanRetried(A)) == [DeleteGroup(A, PATH)]


def test_movable() -> None:
    """A group may move for a container unless it is the home of another one that counts."""
    table = running(start(X), TasksReconciled(A, X, complete=True, homes=frozenset({PATH})))
    assert works(table.apply(start(Y))) == [reconcile(Y, movable=[])]
    table.apply(TasksReconciled(A, Y, complete=False, homes=frozenset({PATH})))
    table.apply(ContainerStopped(X))
    assert works(table.apply(ContainerRetried(Y))) == [reconcile(Y)]


def test_home_is_believed_in() -> None:
    """An attempt that failed may not have seen all threads: it takes no home away, a complete one does."""
    table = running(*moved(PATH, GOLD, container_id=X), start(Y))
    table.apply(TasksReconciled(A, Y, complete=True, homes=frozenset({PATH})))
    table.apply(PodAudited(A))
    table.apply(found(Finding.ASTRAY))
    table.apply(TasksReconciled(A, X, complete=False, homes=frozenset({PATH})))
    assert works(table.apply(start(Z))) == [reconcile(Z, None, PATH, GOLD, movable=[])]
    table.apply(TasksReconciled(A, Z, complete=True))
    table.apply(ContainerRetried(X))
    table.apply(TasksReconciled(A, X, complete=True, homes=frozenset({PATH})))
    assert works(table.apply(start(ContainerId("v")))) == [
        reconcile(ContainerId("v"), None, PATH, GOLD, movable=[GOLD])
    ]


def test_home_is_lost_with_its_group() -> None:
    """A group that was made again at the same place is nobody's home: who was in the old one is not in it."""
    table = running(start(X), TasksReconciled(A, X, complete=True, homes=frozenset({PATH})), PodAudited(A))
    for fact in (found(lost=True), GroupRefused(A), GroupRetried(A), GroupCreated(A, PATH)):
        table.apply(fact)
    assert works(table.apply(start(Y))) == [reconcile(Y)]


# --- a census ---


def test_sandboxes() -> None:
    """A census sees the live sandboxes with what was told of them and of containers that have not ended."""
    cgroup = ContainerCgroup(cgroups_path="/a1", cgroup_parent="/pods")
    table = running(PodStarted(B1), start(X), start(Y), start(Z), ContainerStopped(Y))
    assert {each.cgroup for each in table.sandboxes()} == {None}
    table.apply(ContainerStarted(word(X), PodRef(A1.sandbox_id, A, cgroup)))
    for parent in ("/slice", ""):
        newer = ContainerCgroup(cgroups_path="", cgroup_parent=parent, pid=7)
        table.apply(PodStarted(PodRef(A1.sandbox_id, A, newer)))
    table.apply(PodStarted(A1))
    table.apply(PodStopped(B1.sandbox_id))
    told = ContainerCgroup(cgroups_path="/a1", cgroup_parent="/slice", pid=7)
    seen = (ContainerCgroup(cgroups_path="/x"), ContainerCgroup(cgroups_path="/z"))
    assert table.sandboxes() == table.sandboxes_of(A) == (LiveSandbox(A1.sandbox_id, A, told, seen),)


def test_unwatched() -> None:
    """What counts and no inspection looks at: those that the runtime monitors, and all of a Failed pod."""
    table = running(start(X), ContainerStarted(word(Z, monitored=True)))
    seen = {each: ContainerCgroup(cgroups_path=f"/{each}") for each in (X, Y, Z)}
    assert table.unwatched(A) == {Z: seen[Z]}
    table.apply(ContainerStopped(Z))
    assert table.unwatched(A) == table.unwatched(B) == {}
    table = table_after(PodStarted(A1), GroupRefused(A), start(X), start(Y), start(Z), ContainerStopped(Y))
    assert table.unwatched(A) == {X: seen[X], Z: seen[Z]}
    table.apply(GroupRetried(A))
    assert table.unwatched(A) == {X: seen[X], Z: seen[Z]}
    table.apply(GroupCreated(A, PATH))
    assert table.unwatched(A) == {}


def test_sandboxes_of_one_pod() -> None:
    """Its own, with the one that it was re-created in; not those of others."""
    table = running(PodStarted(A2), PodStarted(B1))
    assert [each.sandbox_id for each in table.sandboxes_of(A)] == [A1.sandbox_id, A2.sandbox_id]
    table.apply(PodStopped(A1.sandbox_id))
    assert [each.sandbox_id for each in table.sandboxes_of(A)] == [A2.sandbox_id]
    assert [each.sandbox_id for each in table.sandboxes()] == [A2.sandbox_id, B1.sandbox_id]


def test_the_sandbox_of_a_container() -> None:
    """Its own, not that of the pod beside it; none once it stopped, as it may while its work is held."""
    table = running(PodStarted(A2), start(X))
    (own, _) = table.sandboxes_of(A)
    assert table.sandbox_of(X) == own
    table.apply(ContainerStopped(X))
    assert table.sandbox_of(X) is None


def test_words_about_a_sandbox_are_equal() -> None:
    """What is told of its cgroup does not make another sandbox of it."""
    assert PodRef(A1.sandbox_id, A, ContainerCgroup(cgroups_path="/a1")) == A1
