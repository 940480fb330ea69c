"""A node in a test's hand: a runtime that tells or does not, a kernel with classes, and other agents.

Owns: what is true (pods, containers, threads, classes), what the plugin was told of it, and which truths it
cannot know before it looks. Must not know: hypothesis, what is checked.

Rules:
    1. Nothing happens by itself: jobs run, and their outcomes are heard of, when the test says so, in any
       order. No thread, no waiting, no clock of the machine.
    2. The runtime is honest but lossy and repetitive: while disconnected it tells nothing; it may tell the
       same twice, or a START after its STOP; a pod may vanish without a word.
    3. Other agents move threads between classes and groups, and remove groups, ours too. Which containers
       that may have put astray is remembered until an audit has had its chance.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from nri_resctrl_plugin import ContainerId, ContainerState, ResctrlPluginConfig
from resctrl import Resctrl
from resctrl.testing import FakeFs
from tests.plugin_support import Bench, ManualExecutor, bench
from tests.stateful.lifecycle_parts import Belief, Box, Phase, Sandbox, Start

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from nri_resctrl_plugin.nri.messages import PodSandbox
    from resctrl import Tid

__all__ = ["CLASSES", "Node"]

CLASSES: Final = ("", "class", "gold")
"""Names of the control groups; "" is the default group."""

_FOREVER: Final = 1e9


class Node:
    """One machine with one plugin.

    Args:
        num_rmids: RMIDs of the machine; the default group, the two classes and the thief take one each.
        limbo: Seconds that a freed one rests.
        config: The plugin's settings.
    """

    def __init__(self, *, num_rmids: int, limbo: float, config: ResctrlPluginConfig) -> None:
        self.now = 0.0
        self.loop = asyncio.new_event_loop()
        self.hand = ManualExecutor()
        self.kernel = FakeFs(num_rmids=num_rmids, limbo=limbo, clock=lambda: self.now)
        for name in CLASSES[1:]:
            self.kernel.create_dir(self.kernel.root / name)
        self.thief = self.kernel.root / "mon_groups" / "thief"
        self.kernel.create_dir(self.thief)
        self.it: Bench = bench(config, kernel=self.kernel, executor=self.hand)
        self.eye = Resctrl.with_provider(self.kernel)
        self.stale = {self.eye.create_group("stale")}
        self.plugin = self.it.plugin
        self.plugin._start_wait = _FOREVER
        self.plugin._audits.moment = 0.0
        self.sandboxes: dict[str, Sandbox] = {}
        self.boxes: dict[str, Box] = {}
        self.belief = Belief()
        self.connected = True
        self.swept: bool | None = None
        self.starts: list[Start] = []
        self.astray: set[str] = set()
        """Containers that the plugin may wrongly hold for complete, until an audit."""
        self.taken: set[Path] = set()
        """Groups that somebody else removed, and that were not made again."""
        self.classes: dict[Tid, str] = {}
        """The control group of each thread of a container, as whoever owns the classes wants it."""
        self._names = 0

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
        self.it.pids.follow(box.cgroup, lambda: list(box.tids))
        return box

    def start(self, box: Box, *, threads: int, control_group: str, carried: bool) -> None:
        """A container starts; its threads are there before the runtime tells, the last one in a class."""
        box.phase = Phase.RUNNING
        for _ in range(threads):
            self._spawn(box, None)
        if control_group and box.tids:
            self._classify(control_group, box.tids[-1:])
        self.tell_start(box, carried=carried)

    def stop_box(self, box: Box) -> None:
        """A container's processes end."""
        self.vanish_box(box)
        self.tell_stop_box(box)

    def remove_box(self, box: Box) -> None:
        """A container goes."""
        self.vanish_box(box)
        del self.boxes[box.id]
        self.tell_remove_box(box)

    def stop_pod(self, sandbox: Sandbox) -> None:
        """A sandbox and all in it end; the containers' stops may come after or never."""
        self.vanish(sandbox)
        self.tell_stop_pod(sandbox)

    def remove_pod(self, sandbox: Sandbox) -> None:
        """A sandbox goes, whether or not it was stopped."""
        self.vanish(sandbox)
        for box in self._boxes_of(sandbox):
            del self.boxes[box.id]
        del self.sandboxes[sandbox.id]
        self.tell_remove_pod(sandbox)

    def vanish(self, sandbox: Sandbox) -> None:
        """A sandbox and all in it end, and their cgroups go; nobody tells."""
        sandbox.phase = Phase.STOPPED
        self.it.pids.remove(sandbox.cgroup)
        for box in self._boxes_of(sandbox):
            self.vanish_box(box)

    def lose_pause(self, sandbox: Sandbox) -> None:
        """The pause process ends and its cgroup goes, while the containers run on."""
        self.it.pids.remove(sandbox.cgroup)

    def vanish_box(self, box: Box) -> None:
        """A container ends, and its cgroup goes; nobody tells."""
        box.phase = Phase.STOPPED
        while box.tids:
            self.die(box)
        self.it.pids.remove(box.cgroup)

    # --- what it tells; twice if a rule says so ---

    def tell_run(self, sandbox: Sandbox) -> None:
        """RUN_POD_SANDBOX."""
        if self.connected:
            self.belief.sandboxes[sandbox.id] = sandbox
            self._tell(self.plugin.run_pod_sandbox(sandbox.told()))

    def tell_start(self, box: Box, *, carried: bool) -> None:
        """START_CONTAINER, of a container that runs, or late, of one that has stopped."""
        if not self.connected:
            return
        sandbox = box.sandbox
        if not (box.late or sandbox.late):
            self.belief.boxes[box.id] = box
            if carried:
                self.belief.sandboxes[sandbox.id] = sandbox
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
            self.belief.forget(sandbox)
            sandbox.late = True
            self._tell(self.plugin.stop_pod_sandbox(sandbox.told()))

    def tell_remove_pod(self, sandbox: Sandbox) -> None:
        """REMOVE_POD_SANDBOX."""
        if self.connected:
            self.belief.forget(sandbox)
            sandbox.late = False
            self._tell(self.plugin.remove_pod_sandbox(sandbox.told()))

    def synchronize(self) -> None:
        """Everything that exists, in the runtime's words; also how a connection begins again."""
        self.connected = True
        if self.swept is None:
            self.swept = self.plugin._driver.untouched
        running = {box.id: box for box in self.boxes.values() if box.phase is Phase.RUNNING}
        self.belief = Belief(
            {each.id: each for each in self.sandboxes.values() if each.phase is Phase.RUNNING},
            running,
        )
        for sandbox in self.sandboxes.values():
            sandbox.late = False
        for box in self.boxes.values():
            box.late = False
        pods = [each.told() for each in self.sandboxes.values()]
        listed = [box.told() for box in self.boxes.values() if box.phase is not Phase.STOPPED]
        self._tell(self.plugin.synchronize(pods, listed))

    # --- threads, and what others do to them ---

    def fork(self, box: Box) -> None:
        """A thread of a container starts another one, which inherits its group."""
        if box.tids:
            self._spawn(box, box.tids[0])

    def enter(self, box: Box) -> None:
        """A process enters a container from outside (exec), before or after it was complete."""
        if box.phase is Phase.RUNNING:
            self._spawn(box, None)
            self.astray.add(box.id)

    def die(self, box: Box) -> None:
        """A thread ends."""
        if box.tids:
            tid = box.tids.pop()
            self.kernel.end(tid)
            del self.classes[tid]

    def reclass(self, box: Box, control_group: str, *, all_of_it: bool) -> None:
        """The agent that owns the classes gives a container, or one of its threads, another one."""
        if box.tids:
            self._classify(control_group, box.tids if all_of_it else box.tids[:1])
            self.astray.add(box.id)

    def steal(self, box: Box) -> None:
        """Another agent takes a thread into its own group, where the kernel lets it."""
        if box.tids and not self.classes[box.tids[0]]:
            self.kernel.write_all(self.thief / "tasks", [b"%d\n" % box.tids[0]])
            self.astray.add(box.id)

    def remove_group(self, index: int) -> None:
        """Another agent removes one of our groups; its threads fall back to the control group."""
        ours = self.ours()
        if ours:
            self._lose([ours[index % len(ours)]])

    def remove_class(self, name: str) -> None:
        """A class goes, with all groups below it, and comes back empty."""
        control = self.kernel.root / name
        if not self.kernel.exists(control):
            return
        self._lose([group for group in self.ours() if control in group.parents])
        self.kernel.remove_dir(control)
        self.classes = {tid: "" if each == name else each for tid, each in self.classes.items()}
        try:
            self.kernel.create_dir(control)
        except OSError:  # the RMID is in limbo, or gone to somebody else
            return

    def ours(self) -> list[Path]:
        """Return every group of ours on disk, wherever it stands."""
        return [group.path for group in self.eye.list_groups() if group.ours]

    def _lose(self, groups: list[Path]) -> None:
        for group in groups:
            self.kernel.remove_dir(group)
            self.taken.add(group)
            self.stale.discard(group)
        if groups:
            self.astray.update(self.boxes)

    def _spawn(self, box: Box, parent: Tid | None) -> None:
        tid = self.kernel.spawn(parent)
        self.classes[tid] = "" if parent is None else self.classes[parent]
        box.tids.append(tid)

    def _classify(self, control_group: str, tids: list[Tid]) -> None:
        target = self.kernel.root / control_group
        if self.kernel.exists(target):
            for tid in tids:
                self.classes[tid] = control_group
                self.kernel.write_all(target / "tasks", [b"%d\n" % tid])

    # --- the loop ---

    def spin(self) -> None:
        """Let the event loop do what it has to do now."""
        self.loop.run_until_complete(_turns())

    # --- within ---

    async def _wait_for_start(self, told: PodSandbox | None, box: Box) -> None:
        """Wait as the runtime does, and see that it was not let go too early."""
        await self.plugin.start_container(told, box.told())
        let_go = self.plugin._driver.closed
        assert let_go or not self._pending(box), f"the START of {box.id} returned before its attempt ended"

    def _pending(self, box: Box) -> bool:
        return self.plugin._driver.table.attempt_pending(ContainerId(box.id))

    def _complete(self, box: Box) -> bool:
        return self.plugin.container_state(box.id) is ContainerState.RECONCILED

    def _boxes_of(self, sandbox: Sandbox) -> list[Box]:
        return [box for box in self.boxes.values() if box.sandbox is sandbox]

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
