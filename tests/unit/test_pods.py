"""The pod table, one claim at a time. What no single claim shows is the machine's: `tests/stateful`."""

from __future__ import annotations

from pathlib import Path

import pytest

from nri_resctrl_plugin import pods, pods_actions, pods_facts
from nri_resctrl_plugin.events import (
    Exists,
    Failed,
    PodResctrlRemoved,
)
from nri_resctrl_plugin.model import ContainerCgroup, ContainerState, PodUid, SandboxId
from nri_resctrl_plugin.pods import (
    ContainerRemoved,
    ContainerRetried,
    ContainerStarted,
    ContainerStopped,
    CreateGroup,
    DeleteGroup,
    Emit,
    Fact,
    GroupCreated,
    GroupDeleted,
    GroupKept,
    GroupRefused,
    GroupRetried,
    OrphanRetried,
    PodAudited,
    PodInspected,
    PodRef,
    PodRemoved,
    PodStarted,
    PodStopped,
    PodTable,
    Reconcile,
    Synchronized,
    TasksReconciled,
)
from tests.pods_support import (
    A1,
    A2,
    B1,
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

# --- a pod appears ---


def test_pod_appears() -> None:
    """A new pod brings one create and nothing told, until its outcome."""
    table = PodTable()
    assert table.apply(PodStarted(A1)) == [CreateGroup(A)]
    assert table.knows_pod(A)
    assert table.creation_pending(A)
    assert table.group_state(A) is None
    assert table.snapshot() == {}
    assert not table.idle


def test_first_outcome_is_told() -> None:
    """The group's outcome is told with what was counted meanwhile, and then containers get in."""
    table = table_after(PodStarted(A1), start())
    assert table.apply(GroupCreated(A, PATH)) == [
        Emit(exists(1, 0)),
        reconcile(X),
    ]
    assert table.group_state(A) == Exists(PATH)
    assert not table.creation_pending(A)


def test_refusal_is_told() -> None:
    """A refused group is told once as Failed with its reason; nothing is tried again."""
    table = table_after(PodStarted(A1))
    actions = table.apply(GroupRefused(A, "no RMID"))
    assert actions == [Emit(failed(0))]
    state = table.group_state(A)
    assert isinstance(state, Failed)
    assert state.reason == "no RMID"
    assert table.failed_pods() == (A,)
    assert table.idle


def test_pod_of_start() -> None:
    """A START that carries its pod makes the pod known."""
    table = PodTable()
    assert table.apply(ContainerStarted(word(), A1)) == [CreateGroup(A)]
    assert table.container_pod(X) == A


@pytest.mark.parametrize("again", [PodStarted(A1), PodStarted(A2), PodStarted(PodRef(A1.sandbox_id, B))])
def test_pod_started_again(again: PodStarted) -> None:
    """A known sandbox, or another one of a live pod, asks for no second group."""
    assert running().apply(again) == []


# --- sandboxes ---


def test_two_sandboxes_share() -> None:
    """Two sandboxes of one uid share a group and a sum; Removed comes with the last."""
    table = running(PodStarted(A2), start(X, A1), TasksReconciled(A, X, complete=True))
    table.apply(start(Y, A2))
    assert events(table.apply(TasksReconciled(A, Y, complete=True))) == [exists(2, 2)]
    assert table.apply(PodStopped(A1.sandbox_id)) == [Emit(exists(1, 1))]
    assert table.knows_pod(A)
    assert table.apply(PodStopped(A2.sandbox_id)) == [Emit(PodResctrlRemoved(A)), DeleteGroup(A, PATH)]
    assert not table.knows_pod(A)


def test_old_sandbox_removed_late() -> None:
    """Removing the old sandbox after a re-creation leaves the group of the new one alone."""
    table = running(PodStopped(A1.sandbox_id), PodStarted(A2), GroupDeleted(A), GroupCreated(A, PATH))
    assert table.apply(PodRemoved(A1.sandbox_id)) == []
    assert table.group_state(A) == Exists(PATH)


@pytest.mark.parametrize("end", [PodStopped(A1.sandbox_id), PodRemoved(A1.sandbox_id)])
def test_end_is_idempotent(end: Fact) -> None:
    """Stop and remove each end a pod once, and are silent for what is gone or was never known."""
    table = running()
    assert events(table.apply(end)) == [PodResctrlRemoved(A)]
    assert table.apply(end) == []
    assert PodTable().apply(end) == []


def test_late_start_of_stopped_sandbox() -> None:
    """A START that names a stopped sandbox resurrects nothing and is not remembered."""
    table = running(PodStopped(A1.sandbox_id), GroupDeleted(A))
    assert table.apply(ContainerStarted(word(), A1)) == []
    assert not table.knows_pod(A)
    assert table.container_state(X) is None


def test_listing_of_stopped_sandbox() -> None:
    """Synchronize lists stopped sandboxes too: that resurrects nothing, and does not drop their memory."""
    table = running(PodStopped(A1.sandbox_id), GroupDeleted(A))
    assert table.apply(Synchronized((A1,), (word(),))) == []
    assert table.apply(ContainerStarted(word(), A1)) == []


def test_stopped_sandbox_runs_again() -> None:
    """RUN_POD_SANDBOX brings a stopped sandbox back."""
    table = running(PodStopped(A1.sandbox_id), GroupDeleted(A))
    assert table.apply(PodStarted(A1)) == [CreateGroup(A)]


@pytest.mark.parametrize("forget", [PodRemoved(A1.sandbox_id), Synchronized((), ())])
def test_stopped_sandbox_is_forgotten(forget: Fact) -> None:
    """A stopped sandbox is remembered until its REMOVE, or until Synchronize does not list it."""
    table = running(PodStopped(A1.sandbox_id), GroupDeleted(A), forget)
    assert table.apply(ContainerStarted(word(), A1)) == [CreateGroup(A)]


def test_stop_of_unknown_sandbox() -> None:
    """A sandbox that stops before it is known takes its waiting containers along; a later START is late."""
    table = table_after(start(), PodStopped(A1.sandbox_id))
    assert table.container_state(X) is None
    assert table.apply(ContainerStarted(word(), A1)) == []


# --- one action in flight ---


def test_gone_while_creating() -> None:
    """A pod that goes while its create is in flight was never told, and its group is deleted after it."""
    table = table_after(PodStarted(A1))
    assert table.apply(PodStopped(A1.sandbox_id)) == []
    assert table.apply(GroupCreated(A, PATH)) == [DeleteGroup(A, PATH)]
    assert table.apply(GroupDeleted(A)) == []
    assert table.idle


def test_gone_while_creating_in_vain() -> None:
    """A refused create of a pod that is gone leaves nothing to do."""
    table = table_after(PodStarted(A1), PodStopped(A1.sandbox_id))
    assert table.apply(GroupRefused(A)) == []
    assert table.orphans() == ()


def test_gone_while_reconciling() -> None:
    """Removed is told at the fact; the delete waits for the reconcile in flight."""
    table = running(start())
    assert table.apply(PodStopped(A1.sandbox_id)) == [Emit(PodResctrlRemoved(A))]
    assert table.apply(TasksReconciled(A, X, complete=True)) == [DeleteGroup(A, PATH)]


@pytest.mark.parametrize("end", [GroupDeleted(A), GroupKept(A)])
def test_back_while_deleting(end: Fact) -> None:
    """A pod that is back while its old delete is in flight gets a create after it, whatever came of it."""
    table = running(PodStopped(A1.sandbox_id))
    assert table.apply(PodStarted(A2)) == []
    assert table.creation_pending(A)
    assert table.apply(end) == [CreateGroup(A)]
    assert table.orphans() == ()


@pytest.mark.parametrize("end", [GroupCreated(A, PATH), GroupRefused(A)])
def test_back_while_creating(end: Fact) -> None:
    """Gone and back while a create is in flight: its outcome is not the new life's, that gets its own."""
    table = table_after(PodStarted(A1), PodStopped(A1.sandbox_id), PodStarted(A2))
    assert table.apply(end) == [CreateGroup(A)]


def test_back_while_reconciling() -> None:
    """Gone and back while a reconcile is in flight: the group is asked for again, not deleted."""
    table = running(start(), PodStopped(A1.sandbox_id), PodStarted(A2))
    assert table.apply(TasksReconciled(A, X, complete=True)) == [CreateGroup(A)]
    assert table.container_state(X) is None


def test_back_and_gone_again() -> None:
    """A pod that is back and gone again before the old delete ended gets no create."""
    table = running(PodStopped(A1.sandbox_id), PodStarted(A2), PodStopped(A2.sandbox_id))
    assert table.apply(GroupDeleted(A)) == []
    assert table.idle


@pytest.mark.parametrize(
    "stray",
    [
        GroupCreated(A, PATH),
        GroupRefused(A),
        GroupDeleted(A),
        GroupKept(A),
        TasksReconciled(A, Y, complete=True),
        GroupDeleted(B),
    ],
)
def test_stray_completion(stray: Fact) -> None:
    """A completion that answers nothing in flight changes nothing."""
    table = running(start())
    assert table.apply(stray) == []
    assert not table.idle
    assert table.apply(TasksReconciled(A, X, complete=True)) == [Emit(exists(1, 1))]


# --- deletes that fail ---


def test_orphan() -> None:
    """A group that could not be deleted is an orphan; only OrphanRetried tries again."""
    table = running(PodStopped(A1.sandbox_id))
    assert table.apply(GroupKept(A)) == []
    assert table.orphans() == (A,)
    assert table.idle
    assert table.apply(GroupRetried(A)) == []
    assert table.apply(OrphanRetried(A)) == [DeleteGroup(A, PATH)]
    assert table.orphans() == ()
    assert table.apply(GroupDeleted(A)) == []


def test_orphan_reappears() -> None:
    """The pod of an orphan that is back takes the group over by a create."""
    table = running(PodStopped(A1.sandbox_id), GroupKept(A))
    assert table.apply(PodStarted(A2)) == [CreateGroup(A)]
    assert table.orphans() == ()


def test_refused_over_an_orphan() -> None:
    """A pod that was refused while an older group of it is on disk leaves that group to be deleted."""
    table = running(PodStopped(A1.sandbox_id), GroupKept(A), PodStarted(A2), GroupRefused(A))
    assert table.apply(PodStopped(A2.sandbox_id)) == [Emit(PodResctrlRemoved(A)), DeleteGroup(A, PATH)]


def test_refused_over_an_orphan_when_gone() -> None:
    """The same, when the pod went before the refusal came."""
    table = running(PodStopped(A1.sandbox_id), GroupKept(A), PodStarted(A2), PodStopped(A2.sandbox_id))
    assert table.apply(GroupRefused(A)) == [DeleteGroup(A, PATH)]


# --- containers ---


def test_start_is_told_when_its_attempt_ends() -> None:
    """A START brings one reconcile and, at its end, one event."""
    table = running()
    assert works(table.apply(start())) == [reconcile(X)]
    assert table.snapshot() == {A: exists(0, 0)}
    assert table.attempt_pending(X)
    assert table.apply(TasksReconciled(A, X, complete=True)) == [Emit(exists(1, 1))]
    assert table.container_state(X) is ContainerState.RECONCILED
    assert not table.attempt_pending(X)


def test_incomplete_start_is_told() -> None:
    """The first attempt of a START is told even if it is incomplete; then the container waits for a retry."""
    table = running(start())
    assert table.apply(TasksReconciled(A, X, complete=False)) == [Emit(exists(1, 0))]
    assert table.container_state(X) is ContainerState.PARTIAL
    assert table.partial_containers() == (X,)
    assert table.idle


def test_starts_come_before_listed_ones() -> None:
    """A START's attempt goes before those of listed containers; starts keep their order."""
    table = PodTable()
    table.apply(Synchronized((A1,), (word(X), word(Y))))
    table.apply(start(Z))
    order = []
    actions = table.apply(GroupCreated(A, PATH))
    for _ in range(3):
        (work,) = works(actions)
        assert isinstance(work, Reconcile)
        order.append(work.container_id)
        actions = table.apply(TasksReconciled(A, work.container_id, complete=True))
    assert order == [Z, X, Y]


def test_start_of_failed_pod() -> None:
    """While the group is Failed, a START's attempt ends at once: told now, nothing tried."""
    table = table_after(PodStarted(A1), GroupRefused(A))
    assert table.apply(start()) == [Emit(failed(1))]
    assert not table.attempt_pending(X)
    assert table.container_state(X) is ContainerState.PARTIAL


def test_refusal_ends_waiting_attempts() -> None:
    """A refused group ends the attempts that waited for it; one event tells all."""
    table = table_after(PodStarted(A1), start(X), start(Y))
    assert table.apply(GroupRefused(A)) == [Emit(failed(2))]
    assert not table.attempt_pending(X)
    assert not table.attempt_pending(Y)


@pytest.mark.parametrize("state", ["waiting", "in flight", "reconciled"])
def test_duplicate_start(state: str) -> None:
    """A START that repeats while an attempt is pending, or after it was complete, changes nothing."""
    table = table_after(PodStarted(A1), start())
    if state != "waiting":
        table.apply(GroupCreated(A, PATH))
    if state == "reconciled":
        table.apply(TasksReconciled(A, X, complete=True))
    told = table.snapshot()
    assert table.apply(start()) == []
    assert table.snapshot() == told


def test_repeated_start_of_partial() -> None:
    """A repeated START of a PARTIAL container is another attempt, told only if it changes something."""
    table = running(start(), TasksReconciled(A, X, complete=False))
    assert len(works(table.apply(start()))) == 1
    assert table.apply(TasksReconciled(A, X, complete=False)) == []
    table.apply(start())
    assert table.apply(TasksReconciled(A, X, complete=True)) == [Emit(exists(1, 1))]


def test_repeated_start_of_failed_pod() -> None:
    """With the group Failed, a repeated START is one create and then the reconcile."""
    table = table_after(PodStarted(A1), start(), GroupRefused(A))
    assert table.apply(start()) == [CreateGroup(A)]
    assert table.apply(GroupRefused(A)) == []
    assert table.apply(start()) == [CreateGroup(A)]
    assert table.apply(GroupCreated(A, PATH)) == [
        Emit(exists(1, 0)),
        reconcile(X),
    ]


@pytest.mark.parametrize("end", [ContainerStopped(X), ContainerRemoved(X)])
@pytest.mark.parametrize("complete", [True, False])
def test_container_ends(end: Fact, *, complete: bool) -> None:
    """A counted container that stops or is removed leaves both counters, told once."""
    table = running(start(), TasksReconciled(A, X, complete=complete))
    assert table.apply(end) == [Emit(exists(0, 0))]
    assert table.container_state(X) is None
    assert table.container_pod(X) is None
    assert table.apply(ContainerStopped(X)) == []
    assert table.apply(ContainerRemoved(X)) == []


def test_container_ends_while_reconciling() -> None:
    """A container that goes during its attempt counts nowhere, and the attempt's end tells nothing."""
    table = running(start(X), start(Y))
    assert table.apply(ContainerRemoved(X)) == [Emit(exists(1, 0))]
    assert table.apply(TasksReconciled(A, X, complete=True)) == [
        reconcile(Y),
    ]


def test_container_moves_during_its_attempt() -> None:
    """The end of an attempt in a pod that the container left is not taken for that of its new pod."""
    table = running(PodStarted(B1), GroupCreated(B, Path("/groups/pod_B")), start(X), ContainerRemoved(X))
    table.apply(start(X, B1))
    assert table.apply(TasksReconciled(A, X, complete=True)) == []
    assert table.container_state(X) is ContainerState.PARTIAL


def test_late_start_after_stop() -> None:
    """A START after the container's STOP is late: it is ignored until the container was removed."""
    table = running(start(), TasksReconciled(A, X, complete=True), ContainerStopped(X))
    assert table.apply(start()) == []
    assert table.container_state(X) is None
    table.apply(ContainerRemoved(X))
    assert len(works(table.apply(start()))) == 1


def test_container_without_pod() -> None:
    """A container whose pod is not known counts nowhere; nothing can be retried for it."""
    table = PodTable()
    assert table.apply(start()) == []
    assert table.container_state(X) is ContainerState.NO_POD
    assert table.container_pod(X) is None
    assert table.apply(ContainerRetried(X)) == []


def test_promotion() -> None:
    """A container whose pod becomes known is one of its containers, as if it started then."""
    table = running(start(X, A2))
    assert table.apply(PodStarted(A2)) == [reconcile(X)]
    assert table.apply(TasksReconciled(A, X, complete=True)) == [Emit(exists(1, 1))]


def test_promotion_of_created() -> None:
    """A created container whose pod becomes known still counts from its START only."""
    table = table_after(Synchronized((), (word(started=False),)), PodStarted(A1))
    assert table.container_state(X) is ContainerState.CREATED
    assert table.apply(GroupCreated(A, PATH)) == [Emit(exists(0, 0))]


def test_runtime_monitored() -> None:
    """What the runtime monitors is counted and told, and never attempted."""
    table = running()
    assert table.apply(ContainerStarted(word(monitored=True))) == [Emit(exists(1, 0))]
    assert table.container_state(X) is ContainerState.RUNTIME_MONITORED
    assert table.apply(ContainerStarted(word(monitored=True))) == []
    assert table.apply(ContainerRetried(X)) == []
    assert table.apply(ContainerStopped(X)) == [Emit(exists(0, 0))]


def test_newest_word_wins() -> None:
    """The threads are looked for where the newest word says, without losing what only an older one said."""
    first = ContainerCgroup(cgroups_path="/old", cgroup_parent="/pods", pid=0)
    then = ContainerCgroup(cgroups_path="/new", cgroup_parent="", pid=7)
    table = running(Synchronized((A1,), (word(started=False, cgroup=first),)))
    assert works(table.apply(ContainerStarted(word(started=False, cgroup=then)))) == [
        reconcile(X, ContainerCgroup(cgroups_path="/new", cgroup_parent="/pods", pid=7)),
    ]
    table = running(Synchronized((A1,), (word(started=False, cgroup=then),)))
    (work,) = works(table.apply(ContainerStarted(word(cgroup=ContainerCgroup(cgroups_path="")))))
    assert isinstance(work, Reconcile)
    assert work.cgroup == then


# --- synchronize ---


def test_synchronize_at_start() -> None:
    """Pods are told at their outcome with all that counts, then each container as it completes."""
    table = PodTable()
    listing = Synchronized((A1, B1), (word(X), word(Y, started=False), word(Z, monitored=True)))
    assert table.apply(listing) == [CreateGroup(A), CreateGroup(B)]
    actions = table.apply(GroupCreated(A, PATH))
    assert events(actions) == [exists(2, 0)]
    assert table.apply(TasksReconciled(A, X, complete=True)) == [Emit(exists(2, 1))]
    assert table.container_state(Y) is ContainerState.CREATED
    assert table.container_state(Z) is ContainerState.RUNTIME_MONITORED


def test_listed_attempt_fails_silently() -> None:
    """A listed container was told with its pod: its attempt is told only if it completes."""
    table = table_after(Synchronized((A1,), (word(),)), GroupCreated(A, PATH))
    assert table.apply(TasksReconciled(A, X, complete=False)) == []


def test_synchronize_again_changes_nothing() -> None:
    """The same listing again is silent and asks for nothing, whatever became of the containers."""
    table = running(
        start(X), TasksReconciled(A, X, complete=True), start(Y), TasksReconciled(A, Y, complete=False)
    )
    assert table.apply(Synchronized((A1,), (word(X), word(Y)))) == []


def test_synchronize_diff() -> None:
    """What vanished while disconnected goes, what is new comes, in one event per pod; deletes come first."""
    table = running(start(X), TasksReconciled(A, X, complete=True), PodStarted(B1))
    table.apply(GroupCreated(B, Path("/groups/pod_B")))
    new = PodRef(SandboxId("c1"), PodUid("C"))
    actions = table.apply(Synchronized((new, A1), (word(Y), word(Z))))
    assert events(actions) == [PodResctrlRemoved(B), exists(2, 0)]
    assert works(actions) == [
        DeleteGroup(B, Path("/groups/pod_B")),
        CreateGroup(new.pod_uid),
        reconcile(Y),
    ]


def test_synchronize_of_recreated_sandbox() -> None:
    """A pod whose sandbox was re-created while disconnected lives on with its group."""
    table = running(start(X), TasksReconciled(A, X, complete=True))
    actions = table.apply(Synchronized((A2,), (word(Y, A2),)))
    assert events(actions) == [exists(1, 0)]
    assert works(actions) == [reconcile(Y)]


def test_missed_start() -> None:
    """A container that was created before and is listed as started now counts, told with the listing."""
    table = running(Synchronized((A1,), (word(started=False),)))
    assert events(table.apply(Synchronized((A1,), (word(),)))) == [exists(1, 0)]


def test_listing_without_its_pod() -> None:
    """A listed container whose sandbox is not listed waits for its pod."""
    table = table_after(Synchronized((), (word(),)))
    assert table.container_state(X) is ContainerState.NO_POD


def test_container_unlisted() -> None:
    """A container that waited for its pod and is not listed any more is forgotten."""
    table = table_after(start(), Synchronized((), ()))
    assert table.container_state(X) is None


# --- retries ---


def test_group_retry() -> None:
    """A failed retry is silent and keeps Failed; a successful one is one event and starts no reconcile."""
    table = table_after(PodStarted(A1), start(), GroupRefused(A))
    assert table.apply(GroupRetried(A)) == [CreateGroup(A)]
    assert table.group_state(A) == Failed()
    assert table.creation_pending(A)
    assert table.failed_pods() == (A,)
    assert table.apply(GroupRefused(A, "still full")) == []
    assert table.apply(GroupRetried(A)) == [CreateGroup(A)]
    assert table.apply(GroupCreated(A, PATH)) == [Emit(exists(1, 0))]
    assert table.failed_pods() == ()
    assert table.partial_containers() == (X,)


@pytest.mark.parametrize("uid", [A, B])
def test_group_retry_of_nothing(uid: PodUid) -> None:
    """A retry of a group that exists, or of an unknown pod, does nothing."""
    assert running().apply(GroupRetried(uid)) == []
    assert running().apply(OrphanRetried(uid)) == []


def test_group_retry_joins() -> None:
    """A retry while a create is in flight asks for no second one."""
    table = table_after(PodStarted(A1))
    assert table.apply(GroupRetried(A)) == []
    table.apply(GroupRefused(A))
    table.apply(GroupRetried(A))
    assert table.apply(GroupRetried(A)) == []


def test_start_during_group_retry() -> None:
    """A container that starts while a retried create is in flight waits for it and gets its attempt."""
    table = table_after(PodStarted(A1), GroupRefused(A), GroupRetried(A))
    assert table.apply(start()) == []
    assert table.attempt_pending(X)
    assert table.apply(GroupCreated(A, PATH)) == [
        Emit(exists(1, 0)),
        reconcile(X),
    ]


def test_container_retry() -> None:
    """A retry of a PARTIAL container is silent unless it completes, and then one event."""
    table = running(start(), TasksReconciled(A, X, complete=False))
    assert len(works(table.apply(ContainerRetried(X)))) == 1
    assert table.apply(ContainerRetried(X)) == []
    assert table.apply(TasksReconciled(A, X, complete=False)) == []
    table.apply(ContainerRetried(X))
    assert table.apply(TasksReconciled(A, X, complete=True)) == [Emit(exists(1, 1))]
    assert table.apply(ContainerRetried(X)) == []


def test_container_retry_of_failed_pod() -> None:
    """A retry of a container whose group is Failed ends at once and tells nothing."""
    table = table_after(PodStarted(A1), start(), GroupRefused(A))
    assert table.apply(ContainerRetried(X)) == []
    assert not table.attempt_pending(X)


def test_failed_retry_keeps_others_untold() -> None:
    """A retry that fails does not tell, ahead of time, of a START whose attempt has not ended."""
    table = running(start(X), TasksReconciled(A, X, complete=False), ContainerRetried(X), start(Y))
    assert events(table.apply(TasksReconciled(A, X, complete=False))) == []


@pytest.mark.parametrize("end", [PodStopped(A1.sandbox_id), PodRemoved(A1.sandbox_id)])
def test_gone_while_failed(end: Fact) -> None:
    """A Failed pod that goes is told Removed, and there is nothing to delete."""
    table = table_after(PodStarted(A1), GroupRefused(A))
    assert table.apply(end) == [Emit(PodResctrlRemoved(A))]
    assert table.snapshot() == {}


def test_gone_while_retrying() -> None:
    """A pod that goes during a retry is told Removed; a group that is made nevertheless is deleted."""
    table = table_after(PodStarted(A1), GroupRefused(A), GroupRetried(A))
    assert table.apply(PodStopped(A1.sandbox_id)) == [Emit(PodResctrlRemoved(A))]
    assert table.apply(GroupCreated(A, PATH)) == [DeleteGroup(A, PATH)]


# --- the table itself ---


@pytest.mark.parametrize(
    "fact",
    [
        PodStopped(SandboxId("?")),
        PodRemoved(SandboxId("?")),
        ContainerStopped(Z),
        ContainerRemoved(Z),
        GroupRetried(PodUid("?")),
        ContainerRetried(Z),
        OrphanRetried(PodUid("?")),
        PodAudited(PodUid("?")),
        PodInspected(PodUid("?"), ()),
        GroupCreated(PodUid("?"), PATH),
        Synchronized((), ()),
    ],
)
def test_unknown(fact: Fact) -> None:
    """Facts about what is not known are legal and bring nothing."""
    assert PodTable().apply(fact) == []


def test_questions_about_nothing() -> None:
    """Every question has an answer for what is not known."""
    table = PodTable()
    assert table.idle
    assert not table.knows_pod(A)
    assert table.group_state(A) is None
    assert not table.creation_pending(A)
    assert table.container_state(X) is None
    assert table.container_pod(X) is None
    assert not table.attempt_pending(X)
    assert (table.failed_pods(), table.partial_containers(), table.orphans()) == ((), (), ())
    assert (table.sandboxes(), table.sandboxes_of(A), table.sandbox_of(X)) == ((), (), None)
    assert not table.busy(A)
    assert table.snapshot() == {}


def test_nothing_is_kept() -> None:
    """Whoever has gone and been removed leaves no record: memory is bounded by what the runtime knows."""
    table = table_after(start(Y, B1), ContainerRemoved(Y), PodStarted(A1), start(X), GroupCreated(A, PATH))
    for fact in (
        ContainerStopped(X),
        TasksReconciled(A, X, complete=False),
        PodStopped(A1.sandbox_id),
        GroupDeleted(A),
        PodRemoved(A1.sandbox_id),
    ):
        table.apply(fact)
    state = table._state
    assert (state.sandboxes, state.pods, state.containers, state.in_flight) == ({}, {}, {}, {})


def test_facts_and_actions_come_with_the_table() -> None:
    """`pods` re-exports the words of facts and actions, so that a shell imports one module."""
    words = {name: getattr(module, name) for module in (pods_facts, pods_actions) for name in module.__all__}
    assert {*words, "PodTable"} == set(pods.__all__)
    assert all(getattr(pods, name) is word for name, word in words.items())
