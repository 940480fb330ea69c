"""The interleaving machine: facts in any order, actions ending in any order and with any outcome."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest
from attrs import evolve
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from nri_resctrl_plugin.model import ContainerId, PodUid, SandboxId
from nri_resctrl_plugin.pods import (
    Action,
    ContainerRemoved,
    ContainerRetried,
    ContainerStarted,
    ContainerStopped,
    Fact,
    Finding,
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
    Synchronized,
    TasksReconciled,
)
from nri_resctrl_plugin.pods_phases import GroupEffect, GroupPhase, GroupTrigger
from nri_resctrl_plugin.pods_rules import RULES, GroupRule
from tests.stateful.pods_ground import CLASSES
from tests.stateful.pods_model import PodsWorld
from tests.stateful.pods_walk import CONTAINERS, PODS, SANDBOXES, VARIANTS, container, sandbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from nri_resctrl_plugin.pods import Container

_pods = st.sampled_from(PODS)
_sandboxes = st.sampled_from(list(SANDBOXES))
_containers = st.sampled_from(list(CONTAINERS))
_pids = st.integers(1, 3)


@st.composite
def _words(draw: st.DrawFn, *, started: st.SearchStrategy[bool]) -> Container:
    """What a runtime tells of a container: nearly always in its own sandbox."""
    container_id = draw(_containers)
    sandbox_id = draw(st.sampled_from([CONTAINERS[container_id]] * 9 + list(SANDBOXES)))
    monitored = draw(st.sampled_from([False, False, False, True]))
    return container(container_id, sandbox_id, pid=draw(_pids), started=draw(started), monitored=monitored)


_refs = st.builds(lambda sandbox_id, pid: sandbox(sandbox_id, pid=pid), _sandboxes, st.integers(0, 3))
_paths = st.sampled_from([Path("/groups/found"), Path("/groups/gold/found"), Path("/groups/lead/found")])
_groups = st.lists(_paths, max_size=3).map(tuple)
_findings = st.lists(st.tuples(_containers, st.sampled_from(Finding)), max_size=4).map(tuple)
_completions = st.one_of(
    st.builds(GroupCreated, _pods, _paths, _groups),
    st.builds(GroupRefused, _pods, st.just("stray")),
    st.builds(GroupDeleted, _pods),
    st.builds(GroupKept, _pods),
    st.builds(TasksReconciled, _pods, _containers, st.booleans(), st.none() | _groups, st.frozensets(_paths)),
    st.builds(PodInspected, _pods, _findings, st.booleans(), st.none() | _groups),
)


class PodsMachine(RuleBasedStateMachine):
    """Lets things happen to one table; `PodsWorld` judges after each."""

    new_table: ClassVar[Callable[[], PodTable]] = PodTable

    def __init__(self) -> None:
        super().__init__()
        self.world = PodsWorld(type(self).new_table())

    @rule(pod=_refs)
    def run_pod_sandbox(self, pod: PodRef) -> None:
        """RUN_POD_SANDBOX, the first or again."""
        self.world.feed(PodStarted(pod))

    @rule(sandbox_id=_sandboxes)
    def stop_pod_sandbox(self, sandbox_id: SandboxId) -> None:
        """STOP_POD_SANDBOX, of a known sandbox or not."""
        self.world.feed(PodStopped(sandbox_id))

    @rule(sandbox_id=_sandboxes)
    def remove_pod_sandbox(self, sandbox_id: SandboxId) -> None:
        """REMOVE_POD_SANDBOX, after a stop or without one."""
        self.world.feed(PodRemoved(sandbox_id))

    @rule(word=_words(started=st.booleans()), with_pod=st.booleans(), pid=st.integers(0, 3))
    def start_container(self, word: Container, pid: int, *, with_pod: bool) -> None:
        """START_CONTAINER, the first or again, with its pod or without."""
        pod = sandbox(word.sandbox_id, pid=pid)
        self.world.feed(ContainerStarted(word, pod if with_pod else None))

    @rule(container_id=_containers)
    def stop_container(self, container_id: ContainerId) -> None:
        """STOP_CONTAINER."""
        self.world.feed(ContainerStopped(container_id))

    @rule(container_id=_containers)
    def remove_container(self, container_id: ContainerId) -> None:
        """REMOVE_CONTAINER."""
        self.world.feed(ContainerRemoved(container_id))

    @rule(
        pods=st.lists(_refs, max_size=4),
        words=st.lists(_words(started=st.booleans()), max_size=4),
    )
    def synchronize(self, pods: list[PodRef], words: list[Container]) -> None:
        """Synchronize, listing anything."""
        self.world.feed(Synchronized(tuple(pods), tuple(words)))

    @rule(pod_uid=_pods)
    def retry_group(self, pod_uid: PodUid) -> None:
        """The agent retries a group."""
        self.world.feed(GroupRetried(pod_uid))

    @rule(container_id=_containers)
    def retry_container(self, container_id: ContainerId) -> None:
        """The agent retries a container."""
        self.world.feed(ContainerRetried(container_id))

    @rule(pod_uid=_pods)
    def retry_orphan(self, pod_uid: PodUid) -> None:
        """The agent retries an orphan."""
        self.world.feed(OrphanRetried(pod_uid))

    @rule(pod_uid=_pods)
    def audit_pod(self, pod_uid: PodUid) -> None:
        """The agent audits a pod."""
        self.world.feed(PodAudited(pod_uid))

    @rule()
    def take_census(self) -> None:
        """The agent looks for sandboxes that ended without a word."""
        self.world.take_census()

    @rule(sandbox_id=_sandboxes)
    def vanish(self, sandbox_id: SandboxId) -> None:
        """A sandbox ends without a word."""
        self.world.vanish(sandbox_id)

    @rule(pod_uid=_pods, which=st.integers(0, 2))
    def lose_group(self, pod_uid: PodUid, which: int) -> None:
        """Somebody removes a group."""
        self.world.lose_group(pod_uid, which)

    @rule(container_id=_containers, group_class=st.sampled_from([None, *CLASSES]), ends=st.booleans())
    def meddle(self, container_id: ContainerId, group_class: str | None, *, ends: bool) -> None:
        """Somebody takes threads out of their group or class; perhaps they end without a word."""
        self.world.meddle(container_id, group_class, ends=ends)

    @precondition(lambda self: self.world.pending)
    @rule(pick=st.integers(0, len(PODS) - 1), good=st.booleans(), variant=st.integers(0, VARIANTS - 1))
    def end_an_action(self, pick: int, variant: int, *, good: bool) -> None:
        """One of the actions in flight ends."""
        pending = sorted(self.world.pending)
        self.world.finish(pending[pick % len(pending)], good=good, variant=variant)

    @rule(completion=_completions)
    def hear_of_an_end(self, completion: Fact) -> None:
        """Mostly a completion that nobody asked for: late, twice, or of another kind."""
        self.world.feed(completion)

    def teardown(self) -> None:
        """Everything in flight ends well, and the rest is judged; then an audit must reach the truth."""
        self.world.drain()
        self.world.reach_truth()


@pytest.mark.timeout(600)  # the profile `full` runs 2,000 examples
def test_machine() -> None:
    """Whatever happens in whatever order, the table asks, tells and answers what `PodsWorld` holds true."""
    run_state_machine_as_test(PodsMachine)


# --- the machine bites ---


class _KeyedByUid(PodTable):
    """Keeps pods by uid alone, so that the removal of an old sandbox removes the pod (upstream's bug)."""

    def apply(self, fact: Fact) -> list[Action]:
        def uid(sandbox_id: SandboxId) -> SandboxId:
            return SandboxId(SANDBOXES[sandbox_id])

        def pod(ref: PodRef) -> PodRef:
            return PodRef(uid(ref.sandbox_id), ref.pod_uid)

        def word(told: Container) -> Container:
            return evolve(told, sandbox_id=uid(told.sandbox_id))

        match fact:
            case PodStarted(ref):
                fact = PodStarted(pod(ref))
            case PodStopped(sandbox_id):
                fact = PodStopped(uid(sandbox_id))
            case PodRemoved(sandbox_id):
                fact = PodRemoved(uid(sandbox_id))
            case ContainerStarted(told, ref):
                fact = ContainerStarted(word(told), ref and pod(ref))
            case Synchronized(refs, words):
                fact = Synchronized(tuple(map(pod, refs)), tuple(map(word, words)))
        return super().apply(fact)


class _CountsTwice(PodTable):
    """Takes a container's second START for a second container."""

    def apply(self, fact: Fact) -> list[Action]:
        match fact:
            case ContainerStarted(told, pod) if self.container_state(told.container_id) is not None:
                twin = evolve(told, container_id=ContainerId(f"{told.container_id} again"))
                fact = ContainerStarted(twin, pod)
        return super().apply(fact)


class _DeletesAndCreatesAtOnce(PodTable):
    """Creates on add and deletes on remove, whatever is in flight: the first obvious table."""

    def __init__(self) -> None:
        at_once = GroupRule(
            GroupPhase.LEAVING, GroupTrigger.APPEARED, GroupPhase.CREATING, (GroupEffect.CREATE,)
        )
        rows = [row for row in RULES.group if (row.phase, row.trigger) != (at_once.phase, at_once.trigger)]
        super().__init__(rules=evolve(RULES, group=(*rows, at_once)))


@pytest.mark.parametrize("broken", [_KeyedByUid, _CountsTwice, _DeletesAndCreatesAtOnce])
def test_machine_catches_classic_bugs(broken: type[PodTable]) -> None:
    """The machine fails on each of the bugs that tables of this kind are known for."""

    class Broken(PodsMachine):
        new_table = broken

    quick = settings(
        max_examples=200, derandomize=True, database=None, phases=[Phase.generate], print_blob=False
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Broken, settings=settings(quick, deadline=None))
