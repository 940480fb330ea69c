"""What the plugin's own tests share: NRI values, an executor in the test's hand, and a bench with everything.

Owns: the parts. Must not know: what a test claims.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Final, TypeVar

from attrs import define, field

from nri_resctrl_plugin import EventRecord, ResctrlPlugin, ResctrlPluginConfig
from nri_resctrl_plugin.nri.messages import Container, ContainerStatus, PodSandbox
from nri_resctrl_plugin.worker import Outcome, attempt
from resctrl import Resctrl, ResctrlConfig, Tid
from resctrl.testing import FakeFs, FakePidSource, FaultyFs, RecordingFs

__all__ = [
    "DEADLINE",
    "Bench",
    "Gate",
    "ManualExecutor",
    "Provider",
    "bench",
    "cgroup_of",
    "container",
    "pod",
    "run",
]

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")
Provider = RecordingFs[FaultyFs[FakeFs]]

DEADLINE: Final = 10.0
"""Seconds after which a test that waits has failed."""


def run(main: Coroutine[object, object, T]) -> T:
    """Run a test's coroutine on a loop of its own, within the deadline."""
    return asyncio.run(asyncio.wait_for(main, DEADLINE))


def pod(uid: str, sandbox: str = "", *, live: bool = True) -> PodSandbox:
    """Return a pod sandbox as containerd tells it; one that is not live was stopped and is still listed."""
    sandbox = sandbox or f"sb-{uid}"
    path = f"/kubepods/pod{uid}/{sandbox}" if live else ""
    return PodSandbox(
        id=sandbox, uid=uid, cgroup_parent=f"/kubepods/pod{uid}", cgroups_path=path, pid=1 if live else 0
    )


def container(
    name: str,
    sandbox: str,
    state: ContainerStatus = ContainerStatus.RUNNING,
    *,
    monitored: bool = False,
) -> Container:
    """Return a container as containerd tells it."""
    return Container(
        id=name,
        pod_sandbox_id=sandbox,
        name=name,
        state=state,
        pid=4000,
        cgroups_path=cgroup_of(name),
        enable_monitoring=monitored,
    )


def cgroup_of(name: str) -> str:
    """Return the cgroup path of a container that `container` made."""
    return f"/kubepods/{name}"


class Gate:
    """Holds the worker inside an operation until it is opened."""

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._open = threading.Event()

    def __call__(self, _: Path) -> None:
        """Say that the operation is reached, and wait."""
        self._entered.set()
        assert self._open.wait(DEADLINE), "nobody opened the gate"

    async def reached(self) -> None:
        """Wait until the worker stands at the gate."""
        assert await asyncio.to_thread(self._entered.wait, DEADLINE), "the worker never came to the gate"

    def open(self) -> None:
        """Let the worker go on, now and later."""
        self._open.set()


@define(eq=False)
class Job:
    """One piece of work in the hands of the test."""

    key: str
    urgent: bool
    do: Callable[[], Callable[[], None]]
    tell: Callable[[], None] | None = None


@define
class ManualExecutor:
    """An executor that does nothing by itself: the test says which job runs, and when it is heard of.

    Attributes:
        waiting: Jobs that did not run yet.
        ended: Jobs that ran and whose outcome was not told yet.
    """

    waiting: list[Job] = field(factory=list)
    ended: list[Job] = field(factory=list)
    closed: bool = False

    def submit(
        self, key: str, work: Callable[[], T], done: Callable[[Outcome[T]], None], *, urgent: bool
    ) -> None:
        """Take a job."""

        def do() -> Callable[[], None]:
            outcome = attempt(work)
            return lambda: done(outcome)

        self.waiting.append(Job(key, urgent, do))

    def promote(self, key: str) -> None:
        """Mark the jobs of a key."""
        for job in self.waiting:
            job.urgent = job.urgent or job.key == key

    def run(self, index: int = 0) -> None:
        """Let a waiting job run; nobody hears of it yet."""
        job = self.waiting.pop(index)
        job.tell = job.do()
        self.ended.append(job)

    def deliver(self, index: int = 0) -> None:
        """Tell the outcome of a job that ran."""
        tell = self.ended.pop(index).tell
        assert tell is not None
        tell()

    def step(self) -> bool:
        """Run and tell one job, if there is one."""
        if self.waiting and not self.ended:
            self.run()
        if self.ended:
            self.deliver()
            return True
        return False

    async def close(self, timeout: float) -> bool:  # noqa: ASYNC109 - the signature of Executor
        """Drop everything."""
        self.closed = True
        self.waiting.clear()
        self.ended.clear()
        return timeout >= 0


@define(eq=False)
class Bench:
    """A plugin over a fake machine, with everything in between in the test's hands.

    Attributes:
        kernel: The fake; its `tasks_in` is the independent observer.
        faults: Lets operations fail or stop at a gate.
        fs: Counts operations.
        pids: Which threads a container has.
        record: Every event since the bench was made.
    """

    plugin: ResctrlPlugin[Provider]
    kernel: FakeFs
    faults: FaultyFs[FakeFs]
    fs: Provider
    pids: FakePidSource
    record: EventRecord

    def path(self, uid: str) -> Path:
        """Return where a pod's group is made."""
        return self.kernel.root / "mon_groups" / f"pod_{uid}"

    def groups(self) -> list[str]:
        """Return the monitoring groups that are there."""
        return self.kernel.read_child_dirs(self.kernel.root / "mon_groups")

    def threads(self, name: str, count: int = 1) -> list[Tid]:
        """Start threads and let a container have them."""
        tids = [self.kernel.spawn() for _ in range(count)]
        self.pids.set(cgroup_of(name), tids)
        return tids

    async def start(self, name: str, sandbox: str, uid: str | None = None, *, threads: int = 1) -> list[Tid]:
        """Start a container with threads; the event carries the pod if a uid is given."""
        tids = self.threads(name, threads) if threads else []
        carried = pod(uid, sandbox) if uid is not None else None
        await self.plugin.start_container(carried, container(name, sandbox, ContainerStatus.CREATED))
        return tids

    def gate(self, operation: str, *, path: Path | None = None, nth: int = 1) -> Gate:
        """Hold the worker just before an operation."""
        gate = Gate()
        self.faults.before(operation, gate, path=path, nth=nth)
        return gate


def bench(
    config: ResctrlPluginConfig | None = None,
    *,
    kernel: FakeFs | None = None,
    executor: ManualExecutor | None = None,
) -> Bench:
    """Make a bench."""
    settings = config if config is not None else ResctrlPluginConfig()
    machine = kernel if kernel is not None else FakeFs()
    faults = FaultyFs(machine)
    fs = RecordingFs(faults)
    pids = FakePidSource()
    resctrl = Resctrl.with_provider(fs, ResctrlConfig(group_prefix=settings.group_prefix))
    plugin = ResctrlPlugin.with_pid_source(settings, resctrl, pids, executor=executor)
    return Bench(plugin, machine, faults, fs, pids, plugin.record_events())
