"""The whole plugin on the fake kernel: anything may happen in any order, and at rest all is true."""

from __future__ import annotations

import errno
import math
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from nri_resctrl_plugin import driver as driver_module
from nri_resctrl_plugin import plugin as plugin_module
from nri_resctrl_plugin.driver import Driver
from nri_resctrl_plugin.facts import container_told, pod_ref
from nri_resctrl_plugin.pods import GroupDeleted, Synchronized, TasksReconciled
from nri_resctrl_plugin.waiting import Waiters
from tests.plugin_support import Provider
from tests.stateful.lifecycle_world import Box, LifecycleWorld, Sandbox
from tests.stateful.lifecycle_world import Phase as Life

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nri_resctrl_plugin.model import ContainerId, PodUid
    from nri_resctrl_plugin.nri import messages
    from nri_resctrl_plugin.pods import Action, Work
    from nri_resctrl_plugin.worker import Outcome
    from resctrl import ReconcileResult

MOST_PODS = 5
PICK = st.integers(0, 1_000)
UIDS = st.sampled_from(["a", "b", "c", ""])
FAULTS = st.sampled_from(
    [
        ("create_dir", errno.ENOSPC),
        ("create_dir", errno.EBUSY),
        ("create_dir", errno.EACCES),
        ("create_dir", errno.EIO),
        ("remove_dir", errno.EPERM),
        ("remove_dir", errno.EPERM),
        ("remove_dir", errno.EBUSY),
        ("remove_dir", errno.EBUSY),
        ("write_all", errno.ENOENT),
        ("write_all", errno.EIO),
        ("write", errno.ESRCH),
        ("write", errno.EINVAL),
        ("write", errno.EPERM),
        ("write", errno.EIO),
    ]
)
CONTAINERS = st.sampled_from(["start", "start", "start created", "create", "stop", "remove"])
WORK = st.sampled_from(["run", "run", "hear", "hear", "some", "rest"])
KINDS = ("pods", "containers", "repeat", "connection", "threads", "agent", "worker", "kernel")
BUSY = (*KINDS, "worker", "worker", "containers")
MOODS = [BUSY, *((*BUSY, kind, kind, kind, kind) for kind in KINDS)]
"""What a run is mostly about."""


class LifecycleMachine(RuleBasedStateMachine):
    """Rules choose among what is possible; `LifecycleWorld` knows what is true."""

    world: LifecycleWorld
    mood: tuple[str, ...]

    @initialize(
        num_rmids=st.integers(4, 7),
        limbo=st.sampled_from([0.0, 0.0, 1.0, math.inf]),
        begin=st.sampled_from(["listed", "listed", "unheard", "told"]),
        uids=st.lists(UIDS, min_size=1, max_size=3),
        threads=st.integers(0, 2),
        mood=st.sampled_from(MOODS),
    )
    def begin(
        self,
        *,
        num_rmids: int,
        limbo: float,
        begin: str,
        uids: list[str],
        threads: int,
        mood: tuple[str, ...],
    ) -> None:
        """Pods are there; the plugin is told one by one, or by its first Synchronize, or not yet."""
        self.mood = mood
        self.world = LifecycleWorld(num_rmids=num_rmids, limbo=limbo)
        self.world.connected = begin == "told"
        for uid in uids:
            self.world.run_pod(uid)
        for sandbox in self.world.sandboxes.values():
            box = self.world.create(sandbox, monitored=False)
            self.world.start(box, threads=threads, classed=False, carried=False)
        if begin == "listed":
            self.world.synchronize()

    def teardown(self) -> None:
        """However the run went: heal the node, end everything, and see that nothing is left."""
        if not hasattr(self, "world"):
            return
        try:
            self.world.check_end()
        finally:
            self.world.close()

    # --- choosing ---

    def sandboxes(self, *phases: Life) -> list[Sandbox]:
        """Sandboxes in these phases."""
        return [each for each in self.world.sandboxes.values() if each.phase in phases]

    def boxes(self, *phases: Life) -> list[Box]:
        """Containers in these phases."""
        return [each for each in self.world.boxes.values() if each.phase in phases]

    def ready(self) -> list[Box]:
        """Created containers that can start."""
        return [box for box in self.boxes(Life.CREATED) if box.sandbox.phase is Life.RUNNING]

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        """Something happens.

        One rule for everything: hypothesis leaves out some rules in each run, and a run in which no job ever
        runs, or no pod ever comes, shows nothing. The mood of the run weighs the kinds instead.
        """
        kind = data.draw(st.sampled_from(self.mood), label="kind")
        pick, flag = data.draw(PICK, label="pick"), data.draw(st.booleans(), label="flag")
        match kind:
            case "pods":
                self.pods(data.draw(st.sampled_from(["run", "run", "stop", "remove"])), data.draw(UIDS), pick)
            case "containers":
                self.containers(data.draw(CONTAINERS), pick, data.draw(st.integers(0, 3)), carried=flag)
            case "repeat":
                self.repeat(pick, carried=flag)
            case "connection":
                self.connection(lost=pick % 3 == 0)
            case "threads":
                self.threads(data.draw(st.sampled_from(["fork", "enter", "die"])), pick, soon=flag)
            case "agent":
                self.agent(data.draw(st.sampled_from(["group", "container", "all", "read"])), pick)
            case "worker":
                self.worker(data.draw(WORK), pick)
            case _:
                self.kernel(data.draw(st.sampled_from(["fault", "fault", "heal", "time"])), data.draw(FAULTS))

    def pods(self, kind: str, uid: str, pick: int) -> None:
        """A pod runs (again under the same uid, beside its old sandbox), stops, or is collected."""
        known = list(self.world.sandboxes.values())
        live = self.sandboxes(Life.RUNNING)
        if kind == "stop" and live:
            self.world.stop_pod(live[pick % len(live)])
        elif kind == "remove" and known:
            self.world.remove_pod(known[pick % len(known)])
        elif len(known) < MOST_PODS:
            self.world.run_pod(uid)

    def containers(self, kind: str, pick: int, threads: int, *, carried: bool) -> None:
        """A container is created, starts (some in another class, few left to the runtime), ends, or goes."""
        live, boxes, ready = self.sandboxes(Life.RUNNING), list(self.world.boxes.values()), self.ready()
        running = self.boxes(Life.RUNNING, Life.CREATED)
        if kind == "start created" and ready:
            self.world.start(ready[pick % len(ready)], threads=threads, classed=False, carried=carried)
        elif kind == "stop" and running:
            self.world.stop_box(running[pick % len(running)])
        elif kind == "remove" and boxes:
            self.world.remove_box(boxes[pick % len(boxes)])
        elif live:
            box = self.world.create(live[pick % len(live)], monitored=pick % 10 == 9)
            if kind != "create":
                self.world.start(box, threads=threads, classed=pick % 7 == 6, carried=carried)

    def repeat(self, pick: int, *, carried: bool) -> None:
        """The runtime repeats what it said, or says a START after its STOP."""
        tellers: list[Callable[[], None]] = []
        for sandbox in self.world.sandboxes.values():
            if sandbox.phase is Life.RUNNING:
                tellers.append(partial(self.world.tell_run, sandbox))
            else:
                tellers.append(partial(self.world.tell_stop_pod, sandbox))
        for box in self.world.boxes.values():
            if box.phase is Life.RUNNING or box.late or box.sandbox.late:
                tellers.append(partial(self.world.tell_start, box, carried=carried))
            if box.phase is Life.STOPPED:
                tellers.append(partial(self.world.tell_stop_box, box))
        if tellers:
            tellers[pick % len(tellers)]()

    def connection(self, *, lost: bool) -> None:
        """The runtime tells everything, at a reconnect or for the first time; or nothing from now on."""
        if lost:
            self.world.connected = False
        else:
            self.world.synchronize()

    def threads(self, kind: str, pick: int, *, soon: bool) -> None:
        """A thread is born or dies, now or in the middle of an assignment."""
        running = self.boxes(Life.RUNNING)
        if not running:
            return
        box = running[pick % len(running)]
        happen = {"fork": self.world.fork, "enter": self.world.enter, "die": self.world.die}[kind]
        if soon and kind != "enter":
            self.world.it.faults.before("write", lambda _: happen(box))
        else:
            happen(box)

    def agent(self, kind: str, pick: int) -> None:
        """The agent retries something, known or not, under way or not; or reads an event."""
        plugin = self.world.plugin
        if kind == "group":
            uids = sorted({each.pod_uid for each in self.world.sandboxes.values()} | {"nobody"})
            self.world.call(plugin.retry_group_creation(uids[pick % len(uids)]))
        elif kind == "container":
            names = [*self.world.boxes, "nobody"]
            self.world.call(plugin.retry_container_reconcile(names[pick % len(names)]))
        elif kind == "all":
            self.world.call(plugin.retry_all_once())
        else:
            self.world.read()

    def worker(self, kind: str, pick: int) -> None:
        """Any job runs, any that ran is heard of; or some go their usual way, or all do."""
        if kind == "run":
            self.world.run_job(pick)
        elif kind == "hear":
            self.world.hear(pick)
        elif kind == "some":
            for _ in range(1 + pick % 6):
                self.world.step()
        else:
            self.world.settle()
            self.world.check_at_rest()

    def kernel(self, kind: str, fault: tuple[str, int]) -> None:
        """The kernel will refuse something, or nothing more by itself; time passes for RMIDs in limbo."""
        if kind == "fault":
            self.world.it.faults.fail(*fault)
        elif kind == "heal":
            self.world.it.faults.heal()
        else:
            self.world.now += 0.7

    @precondition(lambda self: hasattr(self, "world"))
    @invariant()
    def always(self) -> None:
        """What holds at every moment."""
        self.world.check()


TestLifecycle = LifecycleMachine.TestCase


# --- the machine bites: classic bugs, put back on purpose ---


class SweepsOnEachSynchronize(Driver[Provider]):
    """Cleanup at every Synchronize: it deletes the groups of living pods."""

    def _begin_with_sweep(self) -> None:
        self._begin(sweep=True)


class SweepsAfterAnEvent(Driver[Provider]):
    """A first Synchronize that sweeps although groups were made before it."""

    def _begin_with_sweep(self) -> None:
        if not self._swept_or_skipped:
            self._begin(sweep=True)
        self._swept_or_skipped = True


class WorksDuringTheSweep(Driver[Provider]):
    """Groups are made while the sweep runs, which then deletes them."""

    def _enqueue(self, work: Work) -> None:
        if self._startup is driver_module._Startup.NOT_BEGUN:
            self._begin(sweep=False)
        self._submit(work)


class TellsAfterWork(Driver[Provider]):
    """Removed is told only when something else happens to the pod's group."""

    def _carry_out(self, actions: list[Action]) -> None:
        super()._carry_out([each for each in actions if "Removed" not in repr(each)])


class HearsOfAnotherContainer(Driver[Provider]):
    """Every attempt that ends is taken for a success."""

    def _reconciled(
        self,
        pod_uid: PodUid,
        container_id: ContainerId,
        outcome: Outcome[ReconcileResult],
    ) -> None:
        self.take(TasksReconciled(pod_uid, container_id, complete=True))


class ForgetsOrphans(Driver[Provider]):
    """A delete that failed is taken for a success."""

    def _deleted(self, pod_uid: PodUid, path: object, outcome: object) -> None:
        self.take(GroupDeleted(pod_uid))
        self.waiters.deletion_ended(pod_uid, None)


class StartDoesNotWait(Driver[Provider]):
    """START returns before its threads are assigned."""

    async def attempt_ended(self, container_id: ContainerId, seconds: float) -> None:
        """Do not wait."""


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
        SweepsOnEachSynchronize,
        SweepsAfterAnEvent,
        WorksDuringTheSweep,
        TellsAfterWork,
        HearsOfAnotherContainer,
        ForgetsOrphans,
        StartDoesNotWait,
    ],
)
def test_a_bug_of_the_driver_is_found(bug: type[Driver[Provider]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these shells makes the machine fail."""
    monkeypatch.setattr(plugin_module, "Driver", bug)
    _must_fail()


def test_a_waiter_that_is_forgotten_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A START or a retry that waits for what is gone makes the machine fail."""
    monkeypatch.setattr(driver_module, "Waiters", WaitersOfGoneContainers)
    _must_fail()


def test_a_listing_that_is_taken_at_its_word_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups for stopped sandboxes make the machine fail."""
    monkeypatch.setattr(plugin_module, "synchronized", counts_stopped_sandboxes)
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
