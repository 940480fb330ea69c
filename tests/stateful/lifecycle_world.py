"""A node in a test's hand: a runtime that tells or does not, a kernel that fails, and the plugin in between.

Owns: what is true (the runtime's pods, containers and threads), what the plugin was told of it, and the
checks. Must not know: hypothesis.

Rules:
    1. Nothing happens by itself: jobs run, and their outcomes are heard of, when the test says so, in any
       order. No thread, no waiting, no clock of the machine.
    2. The runtime is honest but lossy and repetitive: while disconnected it tells nothing; it may tell the
       same twice, or a START after its STOP.
    3. The kernel is the independent observer: counters are compared with where threads really are.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

from attrs import define, field, frozen
from structlog.testing import capture_logs

from nri_resctrl_plugin import (
    ContainerId,
    ContainerNotFoundError,
    ContainerState,
    Exists,
    PodNotFoundError,
    PodResctrlAddOrUpdate,
    PodResctrlRemoved,
    PodUid,
    ResctrlPluginConfig,
    RetryReport,
)
from nri_resctrl_plugin.nri.messages import Container, ContainerStatus, PodSandbox
from resctrl import ResctrlError, Tid
from resctrl.testing import FakeFs
from tests.plugin_support import Bench, ManualExecutor, bench, cgroup_of, container, pod

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from nri_resctrl_plugin import PodResctrlEvent

__all__ = ["LifecycleWorld", "Phase"]

_FOREVER: Final = 1e9
_ALLOWED: Final = (ResctrlError, PodNotFoundError, ContainerNotFoundError)


class Phase(Enum):
    """Where a sandbox or a container is in its life."""

    CREATED = auto()
    RUNNING = auto()
    STOPPED = auto()


@define(eq=False)
class Sandbox:
    """A sandbox of the runtime."""

    id: str
    uid: str
    phase: Phase = Phase.RUNNING
    late: bool = False
    """It stopped, the plugin heard of it, and no Synchronize was since: a late START must be ignored."""

    @property
    def pod_uid(self) -> PodUid:
        """The uid that the plugin knows it by."""
        return PodUid(self.uid or self.id)

    def told(self) -> PodSandbox:
        """What the runtime tells of it."""
        return pod(self.uid, self.id, live=self.phase is Phase.RUNNING)


@define(eq=False)
class Box:
    """A container of the runtime."""

    id: str
    sandbox: Sandbox
    monitored: bool = False
    phase: Phase = Phase.CREATED
    late: bool = False
    tids: list[Tid] = field(factory=list)

    def told(self) -> Container:
        """What the runtime tells of it."""
        state = {
            Phase.CREATED: ContainerStatus.CREATED,
            Phase.RUNNING: ContainerStatus.RUNNING,
            Phase.STOPPED: ContainerStatus.STOPPED,
        }[self.phase]
        return container(self.id, self.sandbox.id, state, monitored=self.monitored)


@define
class Belief:
    """What the plugin has been told and must therefore hold for true."""

    sandboxes: dict[str, PodUid] = field(factory=dict)
    boxes: dict[str, Box] = field(factory=dict)

    def pods(self) -> set[PodUid]:
        """The pods that live."""
        return set(self.sandboxes.values())

    def totals(self) -> Counter[PodUid]:
        """How many containers each pod has running."""
        return Counter(
            self.sandboxes[box.sandbox.id] for box in self.boxes.values() if box.sandbox.id in self.sandboxes
        )


class Consumer:
    """Replays events and fails where they make no sense."""

    def __init__(self) -> None:
        self.world: dict[PodUid, PodResctrlAddOrUpdate] = {}

    def __call__(self, event: PodResctrlEvent) -> None:
        """Take one event."""
        if isinstance(event, PodResctrlRemoved):
            assert event.pod_uid in self.world, f"{event} of a pod that was never told"
            del self.world[event.pod_uid]
        else:
            assert self.world.get(event.pod_uid) != event, f"{event} twice in a row"
            self.world[event.pod_uid] = event


@frozen
class Start:
    """A START that the runtime waits for."""

    box: Box
    task: asyncio.Task[None]


class LifecycleWorld:
    """One run.

    Args:
        num_rmids: RMIDs of the machine; the default group and the class take one each.
        limbo: Seconds that a freed one rests.
    """

    def __init__(self, *, num_rmids: int = 5, limbo: float = 0.0) -> None:
        self.now = 0.0
        self.loop = asyncio.new_event_loop()
        self.hand = ManualExecutor()
        self.kernel = FakeFs(num_rmids=num_rmids, limbo=limbo, clock=lambda: self.now)
        self.kernel.create_dir(self.kernel.root / "class")
        self.stale = self.kernel.root / "mon_groups" / "pod_stale"
        self.kernel.create_dir(self.stale)
        self.it: Bench = bench(
            ResctrlPluginConfig(max_reconcile_passes=3), kernel=self.kernel, executor=self.hand
        )
        self.plugin = self.it.plugin
        self.plugin._start_wait = _FOREVER
        self.sandboxes: dict[str, Sandbox] = {}
        self.boxes: dict[str, Box] = {}
        self.belief = Belief()
        self.connected = True
        self.swept: bool | None = None
        self.starts: list[Start] = []
        self.calls: list[asyncio.Task[object]] = []
        self._names = 0
        self._tap = Consumer()
        self._seen = 0
        self._called = Consumer()
        self.plugin.subscribe(self._called)
        self._reader = Consumer()
        self._stream = self.plugin.events()
        self._logs = capture_logs()
        self.logs = self._logs.__enter__()

    # --- the runtime ---

    def run_pod(self, uid: str) -> None:
        """A new sandbox runs."""
        sandbox = Sandbox(self._name("s"), uid)
        self.sandboxes[sandbox.id] = sandbox
        self.tell_run(sandbox)

    def create(self, sandbox: Sandbox, *, monitored: bool) -> Box:
        """A new container exists; the runtime does not tell."""
        box = Box(self._name("c"), sandbox, monitored)
        self.boxes[box.id] = box
        self.it.pids.follow(cgroup_of(box.id), lambda: list(box.tids))
        return box

    def start(self, box: Box, *, threads: int, classed: bool, carried: bool) -> None:
        """A container starts; its threads are there before the runtime tells."""
        box.phase = Phase.RUNNING
        for _ in range(threads):
            box.tids.append(self.kernel.spawn())
        if classed and box.tids:
            self.kernel.write_all(self.kernel.root / "class" / "tasks", [b"%d\n" % box.tids[-1]])
        self.tell_start(box, carried=carried)

    def stop_box(self, box: Box) -> None:
        """A container's processes end."""
        self._end(box)
        self.tell_stop_box(box)

    def remove_box(self, box: Box) -> None:
        """A container goes."""
        self._end(box)
        del self.boxes[box.id]
        self.tell_remove_box(box)

    def stop_pod(self, sandbox: Sandbox) -> None:
        """A sandbox and all in it end; the containers' stops may come after or never."""
        sandbox.phase = Phase.STOPPED
        for box in self._boxes_of(sandbox):
            self._end(box)
        self.tell_stop_pod(sandbox)

    def remove_pod(self, sandbox: Sandbox) -> None:
        """A sandbox goes, whether or not it was stopped."""
        sandbox.phase = Phase.STOPPED
        for box in self._boxes_of(sandbox):
            self._end(box)
            del self.boxes[box.id]
        del self.sandboxes[sandbox.id]
        self.tell_remove_pod(sandbox)

    # --- what it tells; twice if a rule says so ---

    def tell_run(self, sandbox: Sandbox) -> None:
        """RUN_POD_SANDBOX."""
        if self.connected:
            self.belief.sandboxes[sandbox.id] = sandbox.pod_uid
            self._tell(self.plugin.run_pod_sandbox(sandbox.told()))

    def tell_start(self, box: Box, *, carried: bool) -> None:
        """START_CONTAINER, of a container that runs, or late, of one that has stopped."""
        if not self.connected:
            return
        sandbox = box.sandbox
        if not (box.late or sandbox.late):
            self.belief.boxes[box.id] = box
            if carried:
                self.belief.sandboxes[sandbox.id] = sandbox.pod_uid
        told = sandbox.told() if carried else None
        self.starts.append(Start(box, self.loop.create_task(self._wait_for_start(told, box))))
        self.spin()

    def tell_stop_box(self, box: Box) -> None:
        """STOP_CONTAINER."""
        if self.connected:
            box.late = self.belief.boxes.pop(box.id, None) is not None or box.late
            self._tell(self.plugin.stop_container(None, box.told()))

    def tell_remove_box(self, box: Box) -> None:
        """REMOVE_CONTAINER."""
        if self.connected:
            self.belief.boxes.pop(box.id, None)
            self._tell(self.plugin.remove_container(None, box.told()))

    def tell_stop_pod(self, sandbox: Sandbox) -> None:
        """STOP_POD_SANDBOX."""
        if self.connected:
            self._forget(sandbox)
            sandbox.late = True
            self._tell(self.plugin.stop_pod_sandbox(sandbox.told()))

    def tell_remove_pod(self, sandbox: Sandbox) -> None:
        """REMOVE_POD_SANDBOX."""
        if self.connected:
            self._forget(sandbox)
            sandbox.late = False
            self._tell(self.plugin.remove_pod_sandbox(sandbox.told()))

    def synchronize(self) -> None:
        """Everything that exists, in the runtime's words; also how a connection begins again."""
        self.connected = True
        if self.swept is None:
            self.swept = not self._began()
        running = {box.id: box for box in self.boxes.values() if box.phase is Phase.RUNNING}
        self.belief = Belief(
            {each.id: each.pod_uid for each in self.sandboxes.values() if each.phase is Phase.RUNNING},
            running,
        )
        for sandbox in self.sandboxes.values():
            sandbox.late = False
        for box in self.boxes.values():
            box.late = False
        pods = [each.told() for each in self.sandboxes.values()]
        listed = [box.told() for box in self.boxes.values() if box.phase is not Phase.STOPPED]
        self._tell(self.plugin.synchronize(pods, listed))

    # --- threads ---

    def fork(self, box: Box) -> None:
        """A thread of a container starts another one, which inherits its group."""
        if box.tids:
            box.tids.append(self.kernel.spawn(box.tids[0]))

    def enter(self, box: Box) -> None:
        """A process enters a container from outside (exec). Only an audit would find it later."""
        complete = self.plugin.container_state(box.id) is ContainerState.RECONCILED
        if box.phase is Phase.RUNNING and not complete and not self.hand.ended:
            box.tids.append(self.kernel.spawn())

    def die(self, box: Box) -> None:
        """A thread ends."""
        if box.tids:
            self.kernel.end(box.tids.pop())

    # --- the agent ---

    def call(self, call: Coroutine[object, object, object]) -> None:
        """Begin a retry."""
        self.calls.append(self.loop.create_task(call))
        self.spin()

    def read(self) -> None:
        """The slow consumer reads one event."""
        event = self._stream._coalescer.pop()
        if event is not None:
            self._reader(event)

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

    def spin(self) -> None:
        """Let the event loop do what it has to do now."""
        self.loop.run_until_complete(_turns())

    # --- checks ---

    def check(self) -> None:
        """What holds at every moment."""
        events = self.it.record.events
        for event in events[self._seen :]:
            self._tap(event)
        self._seen = len(events)
        snapshot = self.plugin.snapshot()
        assert self._tap.world == snapshot == self._called.world
        for uid, told in snapshot.items():
            if isinstance(told.group_state, Exists):
                assert self.kernel.exists(told.group_state.path), f"the group of living pod {uid!r} is gone"
        keys = Counter(job.key for job in (*self.hand.waiting, *self.hand.ended))
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
        snapshot = self.plugin.snapshot()
        assert set(snapshot) == self.belief.pods()
        totals = self.belief.totals()
        complete: Counter[PodUid] = Counter()
        for box in self.belief.boxes.values():
            uid = self.belief.sandboxes.get(box.sandbox.id)
            state = self.plugin.container_state(box.id)
            if uid is None:
                assert state is ContainerState.NO_POD
            elif box.monitored:
                assert state is ContainerState.RUNTIME_MONITORED
            elif state is ContainerState.RECONCILED:
                complete[uid] += 1
                group = snapshot[uid].group_state
                assert isinstance(group, Exists)
                outside = set(box.tids) - self.kernel.tasks_in(group.path)
                assert not outside, f"{box.id} is reconciled, but {outside} are not in its group"
            else:
                assert state is ContainerState.PARTIAL
        for uid, told in snapshot.items():
            assert (told.total_containers, told.reconciled_containers) == (totals[uid], complete[uid])
        self._check_groups(snapshot)
        while len(self._stream._coalescer):
            self.read()
        assert self._reader.world == snapshot

    def check_end(self) -> None:
        """Heal the machine and see that all gets well; end all pods and see that nothing is left."""
        self.settle()
        self.check_at_rest()
        self.it.faults.heal()
        self.kernel.end_limbo()
        self.synchronize()
        self.settle()
        self.retry_all()
        self.check_at_rest()
        for uid, told in self.plugin.snapshot().items():
            exists = isinstance(told.group_state, Exists)
            assert exists or self.kernel.free_rmids == 0, f"{uid!r} has no group though there is room"
            for box in self.belief.boxes.values():
                if self.belief.sandboxes[box.sandbox.id] == uid and exists and self._well(box):
                    assert self.plugin.container_state(box.id) is ContainerState.RECONCILED
        for sandbox in list(self.sandboxes.values()):
            self.remove_pod(sandbox)
        self.settle()
        self.retry_all()
        self.check_at_rest()
        assert self.plugin.snapshot() == {}
        assert set(self.it.groups()) <= self._stale()
        state = self.plugin._driver.table._state
        assert (state.pods, state.sandboxes, state.containers) == ({}, {}, {})
        waiters = self.plugin._driver.waiters
        assert (waiters._attempts, waiters._creations, waiters._deletions) == ({}, {}, {})
        assert self._stream._coalescer.remembered == 0

    def retry_all(self) -> None:
        """Make a pass, with its work."""
        self.call(self.plugin.retry_all_once())
        self.settle()

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

    async def _wait_for_start(self, told: PodSandbox | None, box: Box) -> None:
        """Wait as the runtime does, and see that it was not let go too early."""
        await self.plugin.start_container(told, box.told())
        let_go = self.plugin._driver.closed
        assert let_go or not self._pending(box), f"the START of {box.id} returned before its attempt ended"

    def _pending(self, box: Box) -> bool:
        return self.plugin._driver.table.attempt_pending(ContainerId(box.id))

    def _check_calls(self) -> None:
        for task in self.calls:
            assert task.done(), "a retry waits for nothing"
            error = task.exception()
            assert error is None or isinstance(error, _ALLOWED), repr(error)
            if error is None:
                assert isinstance(task.result(), (Exists, ContainerState, RetryReport))
        self.calls.clear()

    def _check_groups(self, snapshot: dict[PodUid, PodResctrlAddOrUpdate]) -> None:
        """Every group belongs to a living pod, or is an orphan that the next pass will try."""
        there = set(self.it.groups())
        needed = {
            told.group_state.path.name for told in snapshot.values() if isinstance(told.group_state, Exists)
        }
        assert needed <= there
        allowed = {self.it.path(uid).name for uid in (*snapshot, *self.plugin._driver.table.orphans())}
        assert there <= allowed | self._stale(), "a group was leaked, or a stale one survived the sweep"

    def _stale(self) -> set[str]:
        """The group of an earlier life, where no sweep was due, or the kernel did not let it go."""
        failed = any(log.get("removal_failures") for log in self.logs)
        return {self.stale.name} if failed or not self.swept else set()

    def _well(self, box: Box) -> bool:
        """Whether nothing keeps a container from being complete."""
        classed = self.kernel.tasks_in(self.kernel.root / "class")
        return bool(box.tids) and not classed.intersection(box.tids) and not box.monitored

    def _began(self) -> bool:
        return not self.plugin._driver.untouched

    def _boxes_of(self, sandbox: Sandbox) -> list[Box]:
        return [box for box in self.boxes.values() if box.sandbox is sandbox]

    def _end(self, box: Box) -> None:
        box.phase = Phase.STOPPED
        while box.tids:
            self.die(box)

    def _forget(self, sandbox: Sandbox) -> None:
        self.belief.sandboxes.pop(sandbox.id, None)
        for name in [each.id for each in self.belief.boxes.values() if each.sandbox is sandbox]:
            del self.belief.boxes[name]

    def _name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}{self._names}"

    def _tell(self, handler: Coroutine[object, object, None]) -> None:
        """Deliver an event; only START may take longer than a turn of the loop."""
        self.loop.run_until_complete(handler)
        self.spin()


async def _turns() -> None:
    """Let everything run that is due; a chain of awaits takes a turn a link."""
    for _ in range(8):
        await asyncio.sleep(0)


async def _ended(tasks: list[asyncio.Task[Any]]) -> None:
    """Wait for tasks, and take note of what they raise."""
    await asyncio.gather(*tasks, return_exceptions=True)
