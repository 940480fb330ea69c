"""The interleaving machine: facts in any order, actions ending in any order and with any outcome."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest
from attrs import evolve
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

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
    Reconcile,
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
_ends = st.one_of(
    st.builds(PodStopped, _sandboxes),
    st.builds(PodRemoved, _sandboxes),
    st.builds(ContainerStopped, _containers),
    st.builds(ContainerRemoved, _containers),
)
_retries = st.one_of(
    st.builds(GroupRetried, _pods),
    st.builds(ContainerRetried, _containers),
    st.builds(OrphanRetried, _pods),
)
_picks, _variants = st.integers(0, len(PODS) - 1), st.integers(0, VARIANTS - 1)
_completions = st.one_of(
    st.builds(GroupCreated, _pods, _paths, _groups),
    st.builds(GroupRefused, _pods, st.just("stray")),
    st.builds(GroupDeleted, _pods),
    st.builds(GroupKept, _pods),
    st.builds(TasksReconciled, _pods, _containers, st.booleans(), st.none() | _groups, st.frozensets(_paths)),
    st.builds(PodInspected, _pods, _findings, st.booleans(), st.none() | _groups, st.booleans()),
)


class PodsMachine(RuleBasedStateMachine):
    """Lets things happen to one table; `PodsWorld` judges after each."""

    new_table: ClassVar[Callable[[], PodTable]] = PodTable

    def __init__(self) -> None:
        super().__init__()
        self.world = PodsWorld(table=type(self).new_table())

    @initialize(amid=st.booleans(), words=st.lists(_words(started=st.just(True)), min_size=1, max_size=4))
    def begin(self, words: list[Container], *, amid: bool) -> None:
        """Nothing has happened yet, or all is well with pods that run."""
        if amid:
            self.world.feed(Synchronized(tuple(map(sandbox, SANDBOXES)), tuple(words)))
            self.world.drain()

    @rule(pod=_refs)
    def run_pod_sandbox(self, pod: PodRef) -> None:
        """RUN_POD_SANDBOX, the first or again."""
        self.world.feed(PodStarted(pod))

    @rule(word=_words(started=st.booleans()), with_pod=st.booleans(), pid=st.integers(0, 3))
    def start_container(self, word: Container, pid: int, *, with_pod: bool) -> None:
        """START_CONTAINER, the first or again, with its pod or without."""
        pod = sandbox(word.sandbox_id, pid=pid)
        self.world.feed(ContainerStarted(word, pod if with_pod else None))

    @rule(end=_ends)
    def end(self, end: Fact) -> None:
        """STOP or REMOVE, of a sandbox or a container, known or not, in any order."""
        self.world.feed(end)

    @rule(
        pods=st.lists(_refs, max_size=4),
        words=st.lists(_words(started=st.booleans()), max_size=4),
    )
    def synchronize(self, pods: list[PodRef], words: list[Container]) -> None:
        """Synchronize, listing anything."""
        self.world.feed(Synchronized(tuple(pods), tuple(words)))

    @rule(retry=_retries)
    def retry(self, retry: Fact) -> None:
        """The agent retries a group, a container or an orphan."""
        self.world.feed(retry)

    @rule(pod_uid=_pods)
    def audit_pod(self, pod_uid: PodUid) -> None:
        """The agent audits a pod."""
        self.world.feed(PodAudited(pod_uid))

    @rule(sandbox_id=_sandboxes, census=st.booleans())
    def vanish(self, sandbox_id: SandboxId, *, census: bool) -> None:
        """A sandbox ends without a word, and the agent takes a census, now or some time."""
        self.world.vanish(sandbox_id)
        if census:
            self.world.take_census()

    @rule(pod_uid=_pods, which=st.integers(0, 1), audited=st.booleans())
    def lose_group(self, pod_uid: PodUid, which: int, *, audited: bool) -> None:
        """Somebody removes a group, and the agent audits the pod, now or some time."""
        self.world.lose_group(pod_uid, which)
        if audited:
            self.world.feed(PodAudited(pod_uid))

    @rule(
        container_id=_containers,
        group_class=st.sampled_from([None, *CLASSES]),
        ends=st.sampled_from([False, False, True]),
        audited=st.booleans(),
    )
    def meddle(
        self, container_id: ContainerId, group_class: str | None, *, ends: bool, audited: bool
    ) -> None:
        """Somebody takes threads out of their group or class, or ends them; the pod is audited some time."""
        self.world.meddle(container_id, group_class, ends=ends)
        if audited:
            self.world.feed(PodAudited(SANDBOXES[CONTAINERS[container_id]]))

    @precondition(lambda self: self.world.pending)
    @rule(pick=_picks, variant=_variants)
    def end_an_action_well(self, pick: int, variant: int) -> None:
        """One of the actions in flight ends well."""
        self._end_an_action(pick, variant, good=True)

    @precondition(lambda self: self.world.pending)
    @rule(pick=_picks, variant=_variants)
    def end_an_action_badly(self, pick: int, variant: int) -> None:
        """One of the actions in flight ends badly."""
        self._end_an_action(pick, variant, good=False)

    @precondition(lambda self: self.world.pending)
    @rule()
    def end_all_actions(self) -> None:
        """All that is in flight ends well, and all that follows."""
        self.world.drain()

    def _end_an_action(self, pick: int, variant: int, *, good: bool) -> None:
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


@pytest.mark.timeout(600)  # `ci` runs 200 examples
def test_machine() -> None:
    """Whatever happens in whatever order, the table asks, tells and answers what `PodsWorld` holds true."""
    run_state_machine_as_test(PodsMachine)


# --- the machine bites ---


class _KeyedByUid(PodTable):
    """Keeps pods by uid alone, so that the removal of an old sandbox removes the pod (upstream's bug)."""

    def apply(self, fact: Fact) -> list[Action]:
        if not isinstance(fact, PodStopped | PodRemoved):
            return super().apply(fact)
        all_of_it = [each for each, uid in SANDBOXES.items() if uid == SANDBOXES[fact.sandbox_id]]
        apply = super().apply
        return [action for each in all_of_it for action in apply(evolve(fact, sandbox_id=each))]


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


class _KeepsOneGroup(PodTable):
    """Knows one group per pod, whatever attempts make: a further one leaks."""

    def apply(self, fact: Fact) -> list[Action]:
        if isinstance(fact, TasksReconciled) and fact.groups:
            fact = evolve(fact, groups=fact.groups[:1])
        return super().apply(fact)


class _TrustsItsBooks(PodTable):
    """Takes no notice of what an audit finds: once reconciled, always reconciled."""

    def apply(self, fact: Fact) -> list[Action]:
        return super().apply(evolve(fact, findings=()) if isinstance(fact, PodInspected) else fact)


class _MovesAnything(PodTable):
    """Lets every group move for every container: the threads of others come along into its class."""

    def apply(self, fact: Fact) -> list[Action]:
        return [
            evolve(action, movable=frozenset({action.path, *action.others}))
            if isinstance(action, Reconcile)
            else action
            for action in super().apply(fact)
        ]


@pytest.mark.parametrize(
    "broken",
    [
        _KeyedByUid,
        _CountsTwice,
        _DeletesAndCreatesAtOnce,
        _KeepsOneGroup,
        _TrustsItsBooks,
        _MovesAnything,
    ],
)
def test_machine_catches_classic_bugs(broken: type[PodTable]) -> None:
    """The machine fails on each of the bugs that tables of this kind are known for."""

    class Broken(PodsMachine):
        new_table = broken

    quick = settings(
        max_examples=200, derandomize=True, database=None, phases=[Phase.generate], print_blob=False
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Broken, settings=settings(quick, deadline=None))
