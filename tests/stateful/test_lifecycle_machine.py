"""The whole plugin on the fake kernel: anything may happen in any order, and at rest all is true."""

from __future__ import annotations

import errno
import math
from functools import partial
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.stateful.lifecycle_node import CLASSES
from tests.stateful.lifecycle_parts import Box, Sandbox
from tests.stateful.lifecycle_parts import Phase as Life
from tests.stateful.lifecycle_world import LifecycleWorld

if TYPE_CHECKING:
    from collections.abc import Callable

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
        ("rename", errno.EPERM),
        ("rename", errno.ENOENT),
        ("rename", errno.EIO),
        ("read_text", errno.EIO),
        ("read_text", errno.ENODEV),
        ("read_child_dirs", errno.EIO),
        ("exists", errno.EACCES),
        ("write_all", errno.ENOENT),
        ("write_all", errno.EIO),
        ("write", errno.ESRCH),
        ("write", errno.EINVAL),
        ("write", errno.EPERM),
        ("write", errno.EIO),
    ]
)
CONTAINERS = st.sampled_from(["start", "start", "start created", "create", "stop", "remove"])
WORK = st.sampled_from(["run", "run", "hear", "hear", "some", "rest", "audit"])
OTHERS = st.sampled_from(
    ["enter", "reclass", "reclass", "steal", "group", "class", "pod", "pause", "pause", "box"]
)
KINDS = ("pods", "containers", "repeat", "connection", "threads", "agent", "worker", "kernel", "others")
BUSY = (*KINDS, "worker", "worker", "containers")
MOODS = [BUSY, *((*BUSY, kind, kind, kind, kind) for kind in KINDS)]
"""What a run is mostly about."""


class LifecycleMachine(RuleBasedStateMachine):
    """Rules choose among what is possible; `LifecycleWorld` knows what is true."""

    world: LifecycleWorld
    mood: tuple[str, ...]

    @initialize(
        num_rmids=st.integers(6, 11),
        max_groups=st.sampled_from([0, 0, 0, 3]),
        adopt=st.sampled_from([False, False, False, True]),
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
        max_groups: int,
        adopt: bool,
        limbo: float,
        begin: str,
        uids: list[str],
        threads: int,
        mood: tuple[str, ...],
    ) -> None:
        """Pods are there; the plugin is told one by one, or by its first Synchronize, or not yet."""
        self.mood = mood
        self.world = LifecycleWorld(num_rmids=num_rmids, limbo=limbo, max_groups=max_groups, adopt=adopt)
        self.world.connected = begin == "told"
        for uid in uids:
            self.world.run_pod(uid)
        for sandbox in self.world.sandboxes.values():
            box = self.world.create(sandbox, monitored=False)
            self.world.start(box, threads=threads, control_group="", carried=False)
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
                self.threads(data.draw(st.sampled_from(["fork", "fork", "die"])), pick, soon=flag)
            case "others":
                self.others(data.draw(OTHERS), pick, all_of_it=flag)
            case "agent":
                self.agent(data.draw(st.sampled_from(["group", "container", "all", "audit", "read"])), pick)
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
            self.world.start(ready[pick % len(ready)], threads=threads, control_group="", carried=carried)
        elif kind == "stop" and running:
            self.world.stop_box(running[pick % len(running)])
        elif kind == "remove" and boxes:
            self.world.remove_box(boxes[pick % len(boxes)])
        elif live:
            box = self.world.create(live[pick % len(live)], monitored=pick % 10 == 9)
            if kind != "create":
                self.world.start(
                    box, threads=threads, control_group=CLASSES[max(0, pick % 7 - 4)], carried=carried
                )

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
        happen = {"fork": self.world.fork, "die": self.world.die}[kind]
        if soon:
            self.world.it.faults.before("write", lambda _: happen(box))
        else:
            happen(box)

    def others(self, kind: str, pick: int, *, all_of_it: bool) -> None:
        """Something happens behind the plugin's back, that only an audit can find."""
        running, live = self.boxes(Life.RUNNING), self.sandboxes(Life.RUNNING)
        control_group = CLASSES[pick % len(CLASSES)]
        if kind == "group":
            self.world.remove_group(pick)
        elif kind == "class" and control_group:
            self.world.remove_class(control_group)
        elif kind in {"pod", "pause"} and live:
            happen = self.world.vanish if kind == "pod" else self.world.lose_pause
            happen(live[pick % len(live)])
        elif kind == "box" and running:
            self.world.vanish_box(running[pick % len(running)])
        elif running:
            box = running[pick % len(running)]
            if kind == "enter":
                self.world.enter(box)
            elif kind == "reclass":
                self.world.reclass(box, control_group, all_of_it=all_of_it)
            elif kind == "steal":
                self.world.steal(box)

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
        elif kind == "audit":
            self.world.call(plugin.audit_once())
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
        elif kind == "audit":
            self.world.audit()
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
