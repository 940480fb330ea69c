"""The lifecycle machine bites: classic bugs, put back on purpose, make it fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from attrs import evolve
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from nri_resctrl_plugin import driver as driver_module
from nri_resctrl_plugin import hearing as hearing_module
from nri_resctrl_plugin import jobs as jobs_module
from nri_resctrl_plugin import plugin as plugin_module
from nri_resctrl_plugin.driver import Driver
from nri_resctrl_plugin.facts import container_told, pod_ref
from nri_resctrl_plugin.gate import Gate
from nri_resctrl_plugin.inspection import Inspection
from nri_resctrl_plugin.jobs import Deletion, Jobs
from nri_resctrl_plugin.placement import _Search
from nri_resctrl_plugin.pods import GroupDeleted, Synchronized, TasksReconciled
from nri_resctrl_plugin.waiting import Waiters
from nri_resctrl_plugin.worker import Success
from tests.plugin_support import Provider
from tests.stateful.test_lifecycle_machine import LifecycleMachine

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from nri_resctrl_plugin.model import ContainerCgroup, ContainerId, PodUid, SandboxId
    from nri_resctrl_plugin.nri import messages
    from nri_resctrl_plugin.placement import Placed
    from nri_resctrl_plugin.pods import Action, DeleteGroup, Inspect, LiveSandbox, Reconcile, Work
    from nri_resctrl_plugin.worker import Outcome
    from resctrl.testing import FakePidSource

pytestmark = pytest.mark.timeout(400)  # a bug that shows late is looked for in hundreds of runs


class SweepsOnEachSynchronize(Gate[Provider]):
    """Cleanup at every Synchronize: it deletes the groups of living pods."""

    def synchronized(self, listed: Collection[PodUid], jobs: Jobs[Provider]) -> None:
        """Sweep."""
        self._begin(listed, jobs)


class SweepsAfterAnEvent(Gate[Provider]):
    """A first Synchronize that sweeps although groups were made before it."""

    def synchronized(self, listed: Collection[PodUid], jobs: Jobs[Provider]) -> None:
        """Sweep at the first."""
        if not self._swept_or_skipped:
            self._begin(listed, jobs)
        self._swept_or_skipped = True


class WorksDuringTheSweep(Gate[Provider]):
    """Groups are made while the sweep runs, which then deletes them."""

    def lets_through(self, work: Work, jobs: Jobs[Provider]) -> bool:
        """Hold nothing."""
        if self.untouched:
            self._begin(None, jobs)
        return True


class TellsAfterWork(Driver[Provider]):
    """Removed is told only when something else happens to the pod's group."""

    def _carry_out(self, actions: list[Action]) -> None:
        super()._carry_out([each for each in actions if "Removed" not in repr(each)])


class HearsOfAnotherContainer(Driver[Provider]):
    """Every attempt that ends is taken for a success."""

    def _reconciled(self, asked: Reconcile, outcome: Outcome[Placed]) -> None:
        groups = outcome.value.groups if isinstance(outcome, Success) else None
        self.take(TasksReconciled(asked.pod_uid, asked.container_id, complete=True, groups=groups))


class ForgetsOrphans(Driver[Provider]):
    """A delete that failed is taken for a success."""

    def _deleted(self, pod_uid: PodUid, outcome: object) -> None:
        self.waiters.deletion_ended(pod_uid, Deletion())
        self.take(GroupDeleted(pod_uid))


class StartDoesNotWait(Driver[Provider]):
    """START returns before its threads are assigned."""

    async def attempt_ended(self, container_id: ContainerId, seconds: float) -> None:
        """Do not wait."""


class ForgetsLosses(Driver[Provider]):
    """A group that somebody removed is believed to be there for ever."""

    def _inspected(self, pod_uid: PodUid, outcome: Outcome[Inspection]) -> None:
        if isinstance(outcome, Success):
            outcome = Success(evolve(outcome.value, lost=False))
        super()._inspected(pod_uid, outcome)


class LooksAtNothing(Jobs[Provider]):
    """An audit that takes everything for complete."""

    def inspect(self, asked: Inspect) -> Inspection:
        """See nothing."""
        return Inspection(others=asked.groups[1:])


class LeavesFurtherGroups(Jobs[Provider]):
    """Only the main group of a pod that ended is deleted."""

    def delete(self, asked: DeleteGroup) -> Deletion:
        """Delete one."""
        return super().delete(evolve(asked, others=()))


class ForgetsMoves(Jobs[Provider]):
    """The pod's groups are told as they were before the attempt."""

    def reconcile(self, asked: Reconcile, sandbox: LiveSandbox | None = None) -> Placed:
        """Place, and keep quiet about the groups."""
        return evolve(super().reconcile(asked, sandbox), groups=(asked.path, *asked.others))


def drops_without_asking_for_containers(
    source: FakePidSource, sandboxes: Iterable[LiveSandbox], unseen: Collection[ContainerCgroup]
) -> list[SandboxId]:
    """A sandbox is taken for gone with its pause process."""
    return [each.sandbox_id for each in sandboxes if each.cgroup is not None and source.is_gone(each.cgroup)]


def takes_threads_along(search: _Search[Provider], control_group: str) -> Path | None:
    """A group is renamed without a look at who is in it."""
    for group in search.groups:
        if group in search.asked.movable:
            moved = search.resctrl.move_group(group, control_group)
            search.groups = tuple(moved if each == group else each for each in search.groups)
            return moved
    return None


class WaitersOfGoneContainers(Waiters):
    """Whoever waits for something that goes away waits for ever."""

    def answer(self) -> None:
        """Answer only for what is still there."""
        kept = {
            name: waiting
            for name, waiting in self._attempts.items()
            if self._table.container_state(name) is None
        }
        for name in kept:
            del self._attempts[name]
        super().answer()
        self._attempts.update(kept)


def counts_stopped_sandboxes(
    pods: Sequence[messages.PodSandbox], containers: Sequence[messages.Container]
) -> Synchronized:
    """Sandboxes that were stopped and are still listed are taken for pods."""
    by_id = {pod.id: pod for pod in pods}
    told = [container_told(each, by_id.get(each.pod_sandbox_id)) for each in containers]
    return Synchronized(tuple(pod_ref(pod) for pod in pods), tuple(told))


@pytest.mark.parametrize(
    "bug",
    [
        TellsAfterWork,
        HearsOfAnotherContainer,
        ForgetsOrphans,
        StartDoesNotWait,
        ForgetsLosses,
    ],
)
def test_a_bug_of_the_driver_is_found(bug: type[Driver[Provider]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these shells makes the machine fail."""
    monkeypatch.setattr(plugin_module, "Driver", bug)
    _must_fail()


@pytest.mark.parametrize("bug", [SweepsOnEachSynchronize, SweepsAfterAnEvent, WorksDuringTheSweep])
def test_a_bug_of_the_startup_is_found(bug: type[Gate[Provider]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these gates makes the machine fail."""
    monkeypatch.setattr(driver_module, "Gate", bug)
    _must_fail()


def test_a_waiter_that_is_forgotten_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A START or a retry that waits for what is gone makes the machine fail."""
    monkeypatch.setattr(driver_module, "Waiters", WaitersOfGoneContainers)
    _must_fail()


@pytest.mark.parametrize("bug", [LooksAtNothing, LeavesFurtherGroups, ForgetsMoves])
def test_a_bug_of_the_work_is_found(bug: type[Jobs[Provider]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these workers makes the machine fail."""
    monkeypatch.setattr(driver_module, "Jobs", bug)
    _must_fail()


def test_a_pod_that_is_dropped_too_early_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A census that takes a pod for gone whose containers run makes the machine fail."""
    monkeypatch.setattr(jobs_module, "ended_sandboxes", drops_without_asking_for_containers)
    _must_fail()


def test_a_group_that_takes_threads_along_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename that changes the class of a thread makes the machine fail."""
    monkeypatch.setattr(_Search, "_moved_to", takes_threads_along)
    _must_fail()


def test_a_listing_that_is_taken_at_its_word_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups for stopped sandboxes make the machine fail."""
    monkeypatch.setattr(hearing_module, "synchronized", counts_stopped_sandboxes)
    _must_fail()


def _must_fail() -> None:
    """Run the machine, without shrinking, and expect a failed check."""
    bite = settings(
        max_examples=600,
        stateful_step_count=40,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(LifecycleMachine, settings=bite)
