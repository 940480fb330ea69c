"""A plugin on a world, and the runtime's words to it: what every scenario begins with.

Owns: the set-up, and short names for what was told and what is there. Must not know: what a scenario claims,
or which world it is.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self

from attrs import evolve, field, frozen
from structlog.testing import capture_logs

from nri_resctrl_plugin import ResctrlPlugin, ResctrlPluginConfig
from nri_resctrl_plugin.events import (
    Exists,
    Failed,
    PodResctrlAddOrUpdate,
    PodResctrlEvent,
    PodResctrlRemoved,
    ResctrlGroupState,
)
from nri_resctrl_plugin.model import PodUid
from nri_resctrl_plugin.nri.messages import Container, ContainerStatus, PodSandbox
from resctrl import FsProvider, Resctrl, ResctrlConfig
from resctrl.testing import FaultyFs, RecordingFs
from tests.worlds import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager

    from structlog.typing import EventDict

    from nri_resctrl_plugin.cgroups import PidSource
    from nri_resctrl_plugin.worker import Executor
    from resctrl import Tid
    from tests.worlds import ContainerHandle, World

__all__ = ["FAILED", "Held", "Pod", "Scene"]

FAILED: Final = Failed()
"""Equal to every failed group: the reason does not count."""


@frozen
class Pod:
    """A pod of a scenario.

    Attributes:
        uid: Its uid.
        sandbox: Its sandbox, as the runtime tells it.
        path: Where its group stands, if there is one.
        others: Where its further groups stand.
    """

    uid: PodUid
    sandbox: PodSandbox
    path: Path = field(repr=False)
    others: tuple[Path, ...] = ()

    @property
    def exists(self) -> Exists:
        """The state of its group when it is there."""
        return Exists(self.path, self.others)

    def told(self, state: ResctrlGroupState, total: int, reconciled: int) -> PodResctrlAddOrUpdate:
        """Return the event that tells of it."""
        return PodResctrlAddOrUpdate(self.uid, state, total, reconciled)

    def there(self, total: int, reconciled: int) -> PodResctrlAddOrUpdate:
        """Return the event that tells of it while its group exists."""
        return self.told(self.exists, total, reconciled)

    def failed(self, total: int) -> PodResctrlAddOrUpdate:
        """Return the event that tells of it while it has no group."""
        return self.told(FAILED, total, 0)

    @property
    def removed(self) -> PodResctrlRemoved:
        """The event that tells of its end."""
        return PodResctrlRemoved(self.uid)

    def below(self, control: Path) -> Pod:
        """Return the same pod with its main group below a control group."""
        return evolve(self, path=control / "mon_groups" / self.path.name)

    def and_below(self, *controls: Path) -> Pod:
        """Return the same pod with further groups below control groups."""
        return evolve(self, others=tuple(control / "mon_groups" / self.path.name for control in controls))

    def another_sandbox(self, sandbox: str) -> Pod:
        """Return the same pod in another sandbox."""
        return evolve(self, sandbox=evolve(self.sandbox, id=sandbox))


class Held:
    """Stops the plugin's worker at an operation, until it is let go."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._go = threading.Event()

    def __call__(self, _: Path) -> None:
        """Be the operation's action."""
        self._reached.set()
        assert self._go.wait(DEADLINE), "nobody let it go"

    @property
    def reached(self) -> bool:
        """Whether the worker is there."""
        return self._reached.is_set()

    def let_go(self) -> None:
        """Let the worker go on."""
        self._go.set()


class Scene:
    """A plugin on a world, between a recorder and a fault injector.

    Args:
        world: The machine.
        config: The plugin's settings; prefix and root are the world's unless `prefix` is given.
        prefix: Another group prefix.
        source: Another source of thread ids than the world's.
        executor: Another place for the plugin's work than a worker thread.

    Attributes:
        fs: Counts what the plugin does to the files.
        faults: Lets it fail.
        record: Every event since the scene was made.
        logs: Every log record since it was entered.
    """

    def __init__(
        self,
        world: World,
        config: ResctrlPluginConfig | None = None,
        *,
        prefix: str | None = None,
        source: PidSource | None = None,
        executor: Executor | None = None,
    ) -> None:
        self.world = world
        self._prefix = prefix if prefix is not None else world.prefix
        settings = config if config is not None else ResctrlPluginConfig()
        self.config = evolve(settings, group_prefix=self._prefix, resctrl_root=world.root)
        self.faults: FaultyFs[FsProvider] = FaultyFs(world.fs)
        self.fs: RecordingFs[FaultyFs[FsProvider]] = RecordingFs(self.faults)
        self.resctrl = Resctrl.with_provider(
            self.fs, ResctrlConfig(root=world.root, group_prefix=self._prefix)
        )
        self._capture: AbstractContextManager[list[EventDict]] = capture_logs()
        self.logs: list[EventDict] = self._capture.__enter__()
        self.plugin = ResctrlPlugin.with_pid_source(
            self.config,
            self.resctrl,
            source if source is not None else world.pid_source,
            executor=executor,
        )
        self.record = self.plugin.record_events()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        try:
            await self.plugin.close()
        finally:
            self._capture.__exit__(None, None, None)

    # What the runtime says

    def pod(
        self,
        uid: str,
        *,
        pause: ContainerHandle | None = None,
        namespace: str = "scenarios",
        labels: Mapping[str, str] = MappingProxyType({}),
    ) -> Pod:
        """Return a pod of one sandbox.

        Args:
            uid: Its uid.
            pause: What is the sandbox's own container; None: one that nobody will look for.
            namespace: Its namespace.
            labels: Its labels.
        """
        sandbox = PodSandbox(
            id=f"sandbox-{uid}",
            uid=uid,
            name=uid,
            namespace=namespace,
            labels=labels,
            pid=pause.pid if pause is not None else 1,
            cgroup_parent=pause.cgroup_parent if pause is not None else "/kubepods",
            cgroups_path=pause.cgroups_path if pause is not None else f"/kubepods/{uid}",
        )
        return Pod(PodUid(uid), sandbox, self.resctrl.group_path(uid))

    def container(
        self,
        pod: Pod,
        handle: ContainerHandle,
        state: ContainerStatus = ContainerStatus.RUNNING,
        *,
        monitored: bool = False,
    ) -> Container:
        """Return a container as the runtime tells it."""
        return Container(
            id=handle.name,
            pod_sandbox_id=pod.sandbox.id,
            name=handle.name,
            state=state,
            pid=handle.pid,
            cgroups_path=handle.cgroups_path,
            enable_monitoring=monitored,
        )

    async def synchronize(self, pods: Iterable[Pod], containers: Iterable[Container] = ()) -> None:
        """Tell everything that there is, and wait until what follows is done."""
        await self.plugin.synchronize([pod.sandbox for pod in pods], list(containers))
        await self.settled()

    async def run(self, pod: Pod) -> None:
        """Start a pod, and wait until what follows is done."""
        await self.plugin.run_pod_sandbox(pod.sandbox)
        await self.settled()

    async def start(self, pod: Pod, handle: ContainerHandle) -> Container:
        """Start a container of a pod, and wait until what follows is done."""
        container = self.container(pod, handle, ContainerStatus.CREATED)
        await self.plugin.start_container(pod.sandbox, container)
        await self.settled()
        return container

    async def stop(self, pod: Pod, container: Container) -> None:
        """Stop a container, and wait until what follows is done."""
        await self.plugin.stop_container(pod.sandbox, container)
        await self.settled()

    async def stop_pod(self, pod: Pod) -> None:
        """Stop a pod's sandbox, and wait until what follows is done."""
        await self.plugin.stop_pod_sandbox(pod.sandbox)
        await self.settled()

    async def remove_pod(self, pod: Pod) -> None:
        """Remove a pod's sandbox, and wait until what follows is done."""
        await self.plugin.remove_pod_sandbox(pod.sandbox)
        await self.settled()

    async def settled(self) -> None:
        """Wait until nothing is in flight."""
        await self.plugin.settled()

    # What was told, and what is there

    @property
    def told(self) -> list[PodResctrlEvent]:
        """Every event so far."""
        return self.record.events

    def told_since(self, count: int) -> list[PodResctrlEvent]:
        """Return the events after so many."""
        return self.record.events[count:]

    def told_of(self, pod: Pod) -> list[PodResctrlEvent]:
        """Return the events of one pod."""
        return [event for event in self.record.events if event.pod_uid == pod.uid]

    def tasks(self, pod: Pod) -> set[Tid]:
        """Return the threads in a pod's group."""
        return self.world.tasks_in(pod.path)

    def groups(self) -> set[str]:
        """Return the groups of ours in the root's mon_groups."""
        names = self.world.groups_in(self.mon_groups)
        return {name for name in names if name.startswith(self._prefix)}

    @property
    def mon_groups(self) -> Path:
        """Where groups stand below the default group."""
        return self.world.root / "mon_groups"

    def mkdirs(self) -> int:
        """Return how many groups the plugin has tried to make."""
        return self.fs.count("create_dir")

    def records(self, event: str) -> list[EventDict]:
        """Return the log records of one kind."""
        return [record for record in self.logs if record["event"] == event]
