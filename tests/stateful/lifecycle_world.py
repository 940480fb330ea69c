"""The node, the agent's calls, the worker in the test's hand, and what must be true.

Owns: the checks. Must not know: hypothesis.

Rules:
    1. The kernel is the independent observer: counters are compared with where threads really are.
    2. What others did behind the plugin's back may be believed wrongly until an audit has run through; after
       that nothing may. What the plugin drops without being told must really be gone.
    3. An audit after which nothing changed reads each group once, lists each container once, and changes and
       tells nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from structlog.testing import capture_logs

from nri_resctrl_plugin import (
    AuditReport,
    ContainerNotFoundError,
    ContainerState,
    Exists,
    PodNotFoundError,
    ResctrlPluginConfig,
    RetryReport,
)
from nri_resctrl_plugin.driver import LOOK_KEY
from resctrl import ResctrlError
from tests.stateful.lifecycle_node import Node
from tests.stateful.lifecycle_parts import Box, Consumer, Phase

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from nri_resctrl_plugin import PodResctrlAddOrUpdate, PodUid

__all__ = ["LifecycleWorld"]

_ALLOWED: Final = (ResctrlError, PodNotFoundError, ContainerNotFoundError)
_RESULTS: Final = (Exists, ContainerState, RetryReport, AuditReport)

_UNSWEPT: Final = frozenset({"startup_mount_failed", "startup_cleanup_failed"})
"""Log records of a startup that did not come to its sweep, or to its end."""


class LifecycleWorld(Node):
    """One run.

    Args:
        num_rmids: RMIDs of the machine.
        limbo: Seconds that a freed one rests.
        max_groups: The plugin's budget.
        adopt: It keeps the groups of listed pods.
    """

    def __init__(
        self, *, num_rmids: int = 8, limbo: float = 0.0, max_groups: int = 0, adopt: bool = False
    ) -> None:
        super().__init__(
            num_rmids=num_rmids,
            limbo=limbo,
            config=ResctrlPluginConfig(
                max_reconcile_passes=3,
                max_groups=max_groups,
                startup_policy="adopt" if adopt else "clean",
            ),
        )
        self.calls: list[asyncio.Task[object]] = []
        self._tap = Consumer()
        self._seen = 0
        self._called = Consumer()
        self.plugin.subscribe(self._called)
        self._reader = Consumer()
        self._stream = self.plugin.events()
        self._logs = capture_logs()
        self.logs = self._logs.__enter__()

    # --- the agent ---

    def call(self, call: Coroutine[object, object, object]) -> None:
        """Begin a retry or an audit."""
        self.calls.append(self.loop.create_task(call))
        self.spin()

    def read(self) -> None:
        """The slow consumer reads one event."""
        event = self._stream._coalescer.pop()
        if event is not None:
            self._reader(event)

    def retry_all(self) -> None:
        """Make a pass, with its work."""
        self.call(self.plugin.retry_all_once())
        self.settle()

    def audit(self) -> None:
        """Make an audit alone, with its work: after it nothing is wrong any more, if the kernel answered."""
        self.settle()
        self.it.faults.heal()
        self.call(self.plugin.audit_once())
        report = self._settled_report()
        self._follow_drops()
        if report.failures:
            return
        self.astray.clear()
        self.taken = {path for path in self.taken if not self.kernel.exists(path)}
        self._check_drops()
        self.check_at_rest()
        self._audit_again()

    def _audit_again(self) -> None:
        """Audit once more where all was well: each thing is read once, and nothing is done or told."""
        snapshot = self.plugin.snapshot()
        for box in self.belief.boxes.values():
            uid = self.belief.pod_of(box)
            inspected = uid is not None and isinstance(snapshot[uid].group_state, Exists)
            if inspected and box.tids and not box.monitored and not self._complete(box):
                return  # it is tried again, as long as there is no room for it
        told = len(self.it.record.events)
        self.it.fs.forget()
        self.it.pids.calls.clear()
        self.call(self.plugin.audit_once())
        report = self._settled_report()
        assert not report.found_something, report
        assert len(self.it.record.events) == told
        groups = {path for each in snapshot.values() for path in _paths(each)}
        reads = Counter(call.path for call in self.it.fs.calls if call.operation == "read_text")
        assert set(reads) <= {path / "tasks" for path in groups}, "something else was read than the groups"
        assert all(count == 1 for count in reads.values())
        assert all(count == 1 for count in self.it.pids.calls.values())
        assert {call.operation for call in self.it.fs.calls} <= {"read_text", "exists"}

    def _settled_report(self) -> AuditReport:
        self.settle()
        report = self.calls[-1].result()
        assert isinstance(report, AuditReport)
        return report

    # --- the worker ---

    def run_job(self, index: int) -> None:
        """A job runs; the plugin does not hear of it yet."""
        if self.hand.waiting:
            self.hand.run(index % len(self.hand.waiting))

    def hear(self, index: int) -> None:
        """The plugin hears of a job that ran."""
        if self.hand.ended:
            self.loop.call_soon(self.hand.deliver, index % len(self.hand.ended))
            self.spin()

    def step(self) -> bool:
        """The next job runs and is heard of, as by a worker; False when there is none."""
        if not (self.hand.waiting or self.hand.ended):
            return False
        self.loop.call_soon(self.hand.step)
        self.spin()
        return True

    def settle(self) -> None:
        """Let everything end."""
        for _ in range(10_000):
            if not self.step():
                return
        raise AssertionError("work without end")

    # --- checks ---

    def check(self) -> None:
        """What holds at every moment."""
        events = self.it.record.events
        for event in events[self._seen :]:
            self._tap(event)
        self._seen = len(events)
        snapshot = self.plugin.snapshot()
        assert self._tap.world == snapshot == self._called.world
        unheard = {job.key for job in self.hand.ended}
        self.taken = {path for path in self.taken if not self.kernel.exists(path)}
        for uid, told in snapshot.items():
            for path in _paths(told):
                there = self.kernel.exists(path) or path in self.taken or uid in unheard
                assert there, f"the group {path} of living pod {uid!r} is gone"
        for tid, control_group in self.classes.items():
            groups = self.eye.task_groups(tid)
            assert groups is not None
            assert groups.control_group == control_group, f"the class of thread {tid} was changed"
        limit = self.plugin.config.max_groups
        assert not limit or len(self.ours()) <= max(limit, 1), "more groups than the budget allows"
        jobs = (*self.hand.waiting, *self.hand.ended)
        keys = Counter(job.key for job in jobs if job.key != LOOK_KEY)
        assert not [key for key, count in keys.items() if count > 1], "two actions of one pod in flight"
        for start in self.starts:
            if start.task.done():
                start.task.result()
            else:
                assert self._pending(start.box), f"the START of {start.box.id} waits for nothing"
        self.starts = [start for start in self.starts if not start.task.done()]

    def check_at_rest(self) -> None:
        """What holds once nothing is in flight."""
        self.check()
        self.loop.run_until_complete(asyncio.wait_for(self.plugin.settled(), 1))
        assert not self.starts
        self._check_calls()
        self._follow_drops()
        snapshot = self.plugin.snapshot()
        assert set(snapshot) == self.belief.pods()
        totals = self.belief.totals()
        complete: Counter[PodUid] = Counter()
        for box in self.belief.boxes.values():
            uid = self.belief.pod_of(box)
            state = self.plugin.container_state(box.id)
            if uid is None:
                assert state is ContainerState.NO_POD
            elif box.monitored:
                assert state is ContainerState.RUNTIME_MONITORED
            elif state is ContainerState.RECONCILED:
                complete[uid] += 1
                self._check_complete(box, snapshot[uid])
            else:
                assert state is ContainerState.PARTIAL
        for uid, told in snapshot.items():
            assert (told.total_containers, told.reconciled_containers) == (totals[uid], complete[uid])
        self._check_groups(snapshot)
        while len(self._stream._coalescer):
            self.read()
        assert self._reader.world == snapshot

    def _check_complete(self, box: Box, told: PodResctrlAddOrUpdate) -> None:
        assert isinstance(told.group_state, Exists)
        if box.id in self.astray:
            return
        inside = {
            tid for path in _paths(told) if self.kernel.exists(path) for tid in self.kernel.tasks_in(path)
        }
        outside = set(box.tids) - inside
        assert not outside, f"{box.id} is reconciled, but {outside} are in no group of its pod"

    def check_end(self) -> None:
        """Heal the machine and see that all gets well; end all pods and see that nothing is left."""
        self.settle()
        self.check_at_rest()
        self.it.faults.heal()
        self.kernel.end_limbo()
        self.synchronize()
        self.settle()
        self.retry_all()
        self.audit()
        self.retry_all()  # what the audit dropped made room
        self.check_at_rest()
        for uid, told in self.plugin.snapshot().items():
            exists = isinstance(told.group_state, Exists)
            assert exists or self._full(), f"{uid!r} has no group though there is room"
            for box in self.belief.boxes.values():
                if self.belief.pod_of(box) == uid and exists and self._well(box, told):
                    assert self._complete(box), f"{box.id} is not complete though nothing keeps it from it"
        for sandbox in list(self.sandboxes.values()):
            self.remove_pod(sandbox)
        self.settle()
        self.retry_all()
        self.check_at_rest()
        assert self.plugin.snapshot() == {}
        assert set(self.ours()) <= self._stale()
        state = self.plugin._driver.table._state
        assert (state.pods, state.sandboxes, state.containers) == ({}, {}, {})
        waiters = self.plugin._driver.waiters
        kinds = (
            waiters._attempts,
            waiters._creations,
            waiters._deletions,
            waiters._inspections,
            waiters._rests,
        )
        assert not any(kinds)
        assert not waiters._looks
        assert self._stream._coalescer.remembered == 0

    def close(self) -> None:
        """End the plugin and the loop; whoever waits is let go, nothing is left to the collector."""
        self.loop.run_until_complete(self.plugin.close())
        self.spin()
        pending = [task for task in asyncio.all_tasks(self.loop) if not task.done()]
        tasks = [*pending, *self.calls, *(start.task for start in self.starts)]
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(_ended(tasks))
        self.loop.close()
        self._logs.__exit__(None, None, None)
        assert not pending, f"closing left {pending}"
        assert not [log for log in self.logs if log["event"] in {"event_failed", "subscriber_failed"}]

    # --- within ---

    def _follow_drops(self) -> None:
        """Believe what the plugin dropped by itself, of what really vanished and only of that."""
        known = self.plugin._driver.table._state
        for sandbox in [each for each in self.belief.sandboxes.values() if each.id not in known.sandboxes]:
            running = [box.id for box in self.belief.boxes.values() if box.sandbox is sandbox and box.tids]
            assert not running, f"the sandbox {sandbox.id} was dropped, but {running} live"
            self.belief.forget(sandbox)
        for box in self.boxes.values():
            # What is forgotten altogether is heard of anew: a late START is then as good as a first one.
            sandbox = box.sandbox
            sandbox.late = sandbox.late and sandbox.id in known.sandboxes
            box.late = box.late and (box.id in known.containers or sandbox.late)
        for box in list(self.belief.boxes.values()):
            if box.phase is Phase.STOPPED and self.plugin.container_state(box.id) is None:
                del self.belief.boxes[box.id]

    def _check_drops(self) -> None:
        """After an audit nobody is believed to live of whom everything was seen and is gone."""
        gone = {path for path in self.it.pids._removed if path in self.it.pids._seen}
        for sandbox in self.plugin._driver.table.sandboxes():
            assert sandbox.cgroup is not None
            cgroups = {each.cgroups_path for each in (sandbox.cgroup, *sandbox.containers)}
            assert not cgroups <= gone, f"{sandbox.sandbox_id} is gone and was not dropped"

    def _check_calls(self) -> None:
        for task in self.calls:
            assert task.done(), "a call waits for nothing"
            error = task.exception()
            assert error is None or isinstance(error, _ALLOWED), repr(error)
            if error is None:
                assert isinstance(task.result(), _RESULTS)
        self.calls.clear()

    def _check_groups(self, snapshot: dict[PodUid, PodResctrlAddOrUpdate]) -> None:
        """Every group belongs to a living pod, or is an orphan that the next pass will try."""
        there = set(self.ours())
        needed = {path for told in snapshot.values() for path in _paths(told)}
        assert needed <= there | self.taken
        allowed = {self.it.path(uid).name for uid in (*snapshot, *self.plugin._driver.table.orphans())}
        leaked = {path for path in there if path.name not in allowed} - self._stale()
        assert not leaked, "a group was leaked, or a stale one survived the sweep"
        for told in snapshot.values():
            if isinstance(told.group_state, Exists):
                name = told.group_state.path.name
                assert {path for path in there if path.name == name} <= {*_paths(told)}, (
                    "a group is not told of"
                )

    def _stale(self) -> set[Path]:
        """The groups of an earlier life, where no sweep was due, or the kernel did not let them go."""
        failed = any(log.get("removal_failures") or log["event"] in _UNSWEPT for log in self.logs)
        return self.stale if failed or not self.swept else set()

    def _full(self) -> bool:
        limit = self.plugin.config.max_groups
        return self.kernel.free_rmids == 0 or (limit > 0 and len(self.ours()) >= limit)

    def _well(self, box: Box, told: PodResctrlAddOrUpdate) -> bool:
        """Whether nothing keeps a container from being complete."""
        if not box.tids or box.monitored:
            return False
        needed = {self.eye.group_path(told.pod_uid, self.classes[tid]) for tid in box.tids}
        return needed <= {*_paths(told)} or not self._full()


def _paths(told: PodResctrlAddOrUpdate) -> tuple[Path, ...]:
    """Return the groups that an event tells of, the main one first."""
    state = told.group_state
    return (state.path, *state.others) if isinstance(state, Exists) else ()


async def _ended(tasks: list[asyncio.Task[Any]]) -> None:
    """Wait for tasks, and take note of what they raise."""
    await asyncio.gather(*tasks, return_exceptions=True)
