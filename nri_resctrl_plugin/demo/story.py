"""The story that `nri-resctrl-plugin demo` tells: a node in short chapters.

Owns: the script and its words. Must not know: how anything is done: it only does what a kubelet, a kernel and
a monitoring agent would do, and prints what the real plugin makes of it.

Rules:
    1. Nothing is staged. The runtime's side speaks the real wire, plugin and worker are the real ones, and
       the fake kernel answers as the real one would; each chapter checks what it says.
    2. A line says who acts; an indented line says why that matters.
    3. The times are the machine's own. The fake kernel's clock is the story's, so that a slow machine cannot
       let a limbo end before its chapter; where the story puts it forward, it says so.
"""

from __future__ import annotations

import asyncio
import tempfile
from errno import errorcode
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nri_resctrl_plugin.demo.runtime import RuntimeSide
from nri_resctrl_plugin.events import (
    Exists,
    PodResctrlAddOrUpdate,
    PodResctrlEvent,
    PodResctrlRemoved,
)
from nri_resctrl_plugin.model import PodUid
from nri_resctrl_plugin.nri.backoff import Backoff
from nri_resctrl_plugin.nri.messages import Container, ContainerStatus, PodSandbox
from nri_resctrl_plugin.nri.stub import NriStub
from nri_resctrl_plugin.plugin import ResctrlPlugin
from resctrl import CapacityError, Resctrl, RmidsBusyError
from resctrl.testing import FakeFs, FakePidSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from resctrl import Tid

__all__ = ["tell"]

RMIDS: Final = 4
LIMBO: Final = 1.2
"""Seconds: what a kernel takes to find that a freed RMID's cache lines are gone."""

DEADLINE: Final = 60.0
"""Seconds for the whole story, and for each of its parts: a machine that is only slow tells it too."""

REQUEST_TIMEOUT: Final = 2.0
"""Seconds that the plugin is told it has for an answer, as containerd would tell it."""


class _StoryError(AssertionError):
    """What happened is not what the story says."""


class _Node:
    """A node with few RMIDs, and whoever acts on it."""

    def __init__(self, say: Callable[[str], None], socket_path: Path, pause: float) -> None:
        self.say = say
        self._pause = pause
        self._began = asyncio.get_running_loop().time()
        self._kernel_time = 0.0
        self.kernel = FakeFs(num_rmids=RMIDS, limbo=LIMBO, clock=lambda: self._kernel_time)
        self.threads = FakePidSource()
        resctrl = Resctrl.with_provider(self.kernel)
        self.plugin = ResctrlPlugin.with_pid_source(None, resctrl, self.threads)
        self.runtime = RuntimeSide(
            socket_path,
            request_timeout=DEADLINE,
            told_timeout=REQUEST_TIMEOUT,
            registration_timeout=DEADLINE,
        )
        self.stub = NriStub(
            self.plugin, name="resctrl", idx="10", socket_path=socket_path, backoff=Backoff(first=0.1)
        )
        self.events = 0
        self._told = asyncio.Event()
        self.plugin.subscribe(self._event)

    def line(self, who: str, text: str) -> None:
        """Say that somebody does something."""
        seconds = asyncio.get_running_loop().time() - self._began
        self.say(f"{seconds:5.2f} s  {who:<8} {text}")

    def why(self, *texts: str) -> None:
        """Explain the lines before."""
        for text in texts:
            self.say(f"         {'':<8}   {text}")

    async def chapter(self, title: str) -> None:
        """Begin a chapter."""
        await asyncio.sleep(self._pause)
        self.say("")
        self.say(f"== {title}")

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until an event has made something true; the story's deadline ends a wait in vain."""
        while not holds():
            self._told.clear()
            await self._told.wait()
        await self.plugin.settled()

    def _event(self, event: PodResctrlEvent) -> None:
        self.events += 1
        self._told.set()
        match event:
            case PodResctrlRemoved(uid):
                self.line("EVENT", f"{uid:<6} Removed")
            case PodResctrlAddOrUpdate(uid, group, total, reconciled):
                state = f"Exists {group.path.name}" if isinstance(group, Exists) else "Failed"
                self.line("EVENT", f"{uid:<6} {reconciled} of {total} containers reconciled; group {state}")

    def container(self, pod: str, name: str, threads: int) -> Container:
        """Start processes that nobody has put into a group yet."""
        path = f"/kubepods/pod{pod}/{name}"
        tids: list[Tid] = [self.kernel.spawn() for _ in range(threads)]
        self.threads.set(path, tids)
        return Container(
            id=f"{pod}-{name}", pod_sandbox_id=f"sandbox-{pod}", name=name, cgroups_path=path,
            pid=tids[0], state=ContainerStatus.RUNNING,
        )  # fmt: skip

    async def run_pod(self, name: str) -> None:
        """Run a pod sandbox."""
        self.line("runtime", f"runs the pod sandbox of {name!r}")
        await self.runtime.run_pod(sandbox(name))
        await self.plugin.settled()

    async def start(self, pod: str, name: str, threads: int) -> None:
        """Start a container."""
        self.line(
            "runtime", f"starts container {name!r} of {pod!r} ({threads} threads) and waits for our answer"
        )
        await self.runtime.start_container(self.container(pod, name, threads))
        self.line("runtime", "has the answer: the workload may run")
        await self.plugin.settled()

    async def retry(self, pod: str, *, expects: type[CapacityError] | None) -> None:
        """Retry a group as an agent would, say what came of it, and see that it is what should."""
        self.line("agent", f"retry_group_creation({pod!r})")
        before = self.events
        found: type[CapacityError] | None = None
        try:
            await self.plugin.retry_group_creation(pod)
        except CapacityError as error:
            found = type(error)
            name = errorcode[error.errno] if error.errno is not None else "?"
            self.line("agent", f"gets {found.__name__}: {name}, the kernel says {error.kernel_status!r}")
            self.why(f"hint: {error.hint}")
            _require(self.events == before, "a failed retry is silent")
        expected = expects.__name__ if expects is not None else "the group"
        _require(found is expects, f"the retry for {pod!r} gets {expected}")

    def cool_down(self) -> None:
        """Let the limbo of every freed RMID pass."""
        self._kernel_time += LIMBO
        self.line("kernel", f"finds the cache cold (its clock was put forward by {LIMBO:g} s)")

    def told(self, pod: str) -> PodResctrlAddOrUpdate | None:
        """Return what was last told of a pod, or None if it is not there."""
        return self.plugin.snapshot().get(PodUid(pod))

    def threads_in_group_of(self, pod: str) -> int:
        """Count the threads in a pod's group, past the plugin; -1 where there is no group."""
        told = self.told(pod)
        group = told.group_state if told is not None else None
        return len(self.kernel.tasks_in(group.path)) if isinstance(group, Exists) else -1


def sandbox(name: str) -> PodSandbox:
    """Return the sandbox of a pod; its uid is its name, for the reader's sake."""
    return PodSandbox(
        id=f"sandbox-{name}", uid=name, name=name, namespace="demo", pid=1,
        cgroup_parent=f"/kubepods/pod{name}", cgroups_path=f"/kubepods/pod{name}/pause",
    )  # fmt: skip


async def tell(say: Callable[[str], None], *, pause: float = 0.25) -> None:
    """Tell the story; it takes some seconds.

    Args:
        say: Takes each line.
        pause: Seconds between chapters.

    Raises:
        AssertionError: Something did not go as the story says.
    """
    with tempfile.TemporaryDirectory(prefix="nri-demo-") as directory:
        node = _Node(say, Path(directory) / "nri.sock", pause)
        async with asyncio.timeout(DEADLINE + 40 * pause):
            async with node.plugin, node.runtime:
                await _before(node)
                await node.chapter("The plugin connects")
                serving = asyncio.create_task(node.stub.run())
                try:
                    await _startup(node)
                    await _capacity(node)
                    await _limbo(node)
                    await _end(node)
                finally:
                    await node.stub.close()
                    await serving


async def _before(node: _Node) -> None:
    node.say("A node of its own: a container runtime's side of NRI on a unix socket, a fake resctrl kernel,")
    node.say("and between them the real plugin. No root, no RDT, no containers.")

    await node.chapter("A pod is older than the plugin")
    node.line(
        "kernel", f"has {RMIDS} RMIDs; the default group keeps one, so {RMIDS - 1} pods can be monitored"
    )
    web = node.container("web", "nginx", threads=5)
    node.runtime.pods["sandbox-web"] = sandbox("web")
    node.runtime.containers[web.id] = web
    node.line("runtime", "runs pod 'web' with container 'nginx' (5 threads)")


async def _startup(node: _Node) -> None:
    await node.until(lambda: node.threads_in_group_of("web") == 5)  # noqa: PLR2004 - as said above
    node.why(
        "The runtime listed what it runs (Synchronize). The plugin answered at once, made a group for the",
        "pod, and moved all 5 threads: resctrl moves one thread at a time, not a process.",
    )

    await node.chapter("A pod starts while the plugin runs")
    await node.run_pod("db")
    await node.start("db", "postgres", threads=3)
    node.why("The runtime holds the container back until the plugin has answered: nothing runs unmonitored.")


async def _capacity(node: _Node) -> None:
    await node.chapter("The RMIDs run out")
    await node.run_pod("cache")
    await node.run_pod("batch")
    _require(node.threads_in_group_of("batch") < 0, "no group is left for 'batch'")
    node.why(
        "ENOSPC: no RMID is left. The pod runs all the same; the agent is told that it is not monitored."
    )
    await node.start("batch", "job", threads=2)
    node.why("It counts, and it is not reconciled: no counter claims what is not so.")

    await node.chapter("The agent retries, and nothing has changed")
    await node.retry("batch", expects=CapacityError)
    node.why("The caller gets the typed error. No event: nothing about the pod is different.")


async def _limbo(node: _Node) -> None:
    await node.chapter("A pod ends, and its RMID rests")
    node.line("runtime", "stops and removes pod 'cache'")
    await node.runtime.stop_pod("sandbox-cache")
    await node.runtime.remove_pod("sandbox-cache")
    await node.plugin.settled()
    await node.retry("batch", expects=RmidsBusyError)
    node.why(
        "EBUSY, not ENOSPC: the RMID is free, but its cache lines still count. That passes within seconds,",
        "so it is an error of its own; trying again is right, giving up is not.",
    )

    await node.chapter("The agent retries when the cache has cooled down")
    node.cool_down()
    _require(not node.kernel.rmids_in_limbo, "no RMID rests any more")
    await node.retry("batch", expects=None)
    _require(node.threads_in_group_of("batch") == 0, "'batch' has its group, still empty")
    node.line("agent", "retry_container_reconcile('batch-job')")
    await node.plugin.retry_container_reconcile("batch-job")
    _require(node.threads_in_group_of("batch") == 2, "its threads are in")  # noqa: PLR2004 - as said above
    node.why("The group is there, and now the 2 threads that ran without one are in it.")


async def _end(node: _Node) -> None:
    await node.chapter("The runtime restarts")
    node.line("runtime", "goes away; meanwhile pod 'db' is deleted, and nobody is told")
    await node.runtime.stop()
    del node.runtime.pods["sandbox-db"], node.runtime.containers["db-postgres"]
    await node.runtime.gone()
    node.line("runtime", "is back")
    await node.runtime.start()
    await node.until(lambda: node.told("db") is None)
    _require(node.threads_in_group_of("web") == 5, "the group of 'web' stayed")  # noqa: PLR2004 - as said above
    node.why(
        "The plugin connected again by itself and compared lists: 'db' is gone, its group deleted. The",
        "groups of living pods stayed as they were, and so did their counters.",
    )

    await node.chapter("Everything ends")
    for name in ("web", "batch"):
        node.line("runtime", f"stops and removes pod {name!r}")
        await node.runtime.stop_pod(f"sandbox-{name}")
        await node.runtime.remove_pod(f"sandbox-{name}")
        await node.plugin.settled()
    left = node.kernel.read_child_dirs(node.kernel.root / "mon_groups")
    _require(not left, "no group is left")
    _require(node.runtime.dropped == ["the runtime stops"], "the plugin was never dropped for being late")
    node.say("")
    node.say(f"{node.events} events told, {len(left)} groups left, 0 errors answered to the runtime.")
    node.say("On a real node the same program is: nri-resctrl-plugin run")


def _require(holds: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise _StoryError(f"this did not happen: {what}")
