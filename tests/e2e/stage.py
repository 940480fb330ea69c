"""The plugin under test, in this process, over one fake resctrl that outlives it.

Owns: the plugin's life in a test, and the comparison with what the observer sees. Must not know: CRI.

The fake's threads are the machine's own: whether one lives is asked of /proc. It cannot see a real fork, so a
thread that a workload starts later is in no group here, while the real kernel would let it inherit; whatever
lives when the plugin lists a container's threads must be in the group.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from nri_resctrl_plugin.config import ResctrlPluginConfig
from nri_resctrl_plugin.events import Exists, PodResctrlAddOrUpdate
from nri_resctrl_plugin.model import PodUid
from nri_resctrl_plugin.plugin import ResctrlPlugin
from resctrl import Resctrl, ResctrlConfig
from resctrl.testing import FakeFs
from tests.e2e import observer
from tests.e2e.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from nri_resctrl_plugin.nri.messages import Container, PodSandbox
    from resctrl import WriteError
    from tests.e2e.containerd import Containerd
    from tests.e2e.pods import Pod

__all__ = ["MachineFs", "Stage", "StagedPlugin"]


class MachineFs(FakeFs):
    """The fake resctrl over this machine's threads.

    Attributes:
        on_write: Called with the group's `tasks` and the chunk before each write; a witness, not an actor.
        groups_made: How many directories were made.
    """

    def __init__(self, num_rmids: int = 256) -> None:
        super().__init__(num_rmids=num_rmids, alive=observer.exists)
        self.on_write: Callable[[Path, bytes], object] | None = None
        self.groups_made = 0

    def create_dir(self, path: Path) -> None:
        """Call mkdir(2)."""
        super().create_dir(path)
        self.groups_made += 1

    def write_all(
        self,
        path: Path,
        chunks: Iterable[bytes],
        *,
        go_on: Callable[[WriteError], bool] | None = None,
    ) -> int:
        """Write, and let the witness look right before each chunk."""
        return super().write_all(path, self._witnessed(path, chunks), go_on=go_on)

    def _witnessed(self, path: Path, chunks: Iterable[bytes]) -> Iterable[bytes]:
        for chunk in chunks:
            if self.on_write is not None:
                self.on_write(path, chunk)
            yield chunk


class StagedPlugin(ResctrlPlugin[MachineFs]):
    """The plugin, with its calls from the runtime counted.

    Attributes:
        calls: How often the runtime called, by handler.
        on_reply: Called when the reply to a START is about to leave.
    """

    calls: Counter[str]
    on_reply: Callable[[PodSandbox | None, Container], None] | None

    async def synchronize(self, pods: Sequence[PodSandbox], containers: Sequence[Container]) -> None:
        """Take everything that exists."""
        await super().synchronize(pods, containers)
        self.calls["synchronize"] += 1

    async def start_container(self, pod: PodSandbox | None, container: Container) -> None:
        """Take a START, and look once it is done."""
        await super().start_container(pod, container)
        self.calls["start_container"] += 1
        if self.on_reply is not None:
            self.on_reply(pod, container)

    async def stop_container(self, pod: PodSandbox | None, container: Container) -> None:
        """Take a STOP."""
        await super().stop_container(pod, container)
        self.calls["stop_container"] += 1

    async def update_container(self, pod: PodSandbox | None, container: Container) -> None:
        """Take an update."""
        await super().update_container(pod, container)
        self.calls["update_container"] += 1


class Stage:
    """One fake resctrl, and one plugin after the other over it.

    Attributes:
        fs: The resctrl.
    """

    def __init__(self, containerd: Containerd, num_rmids: int = 256) -> None:
        self.fs = MachineFs(num_rmids)
        self._containerd = containerd

    @asynccontextmanager
    async def plugin(
        self,
        *,
        cleanup_on_start: bool = True,
        prepare: Callable[[StagedPlugin], None] | None = None,
    ) -> AsyncIterator[StagedPlugin]:
        """Run a plugin until the context is left; entered once it has taken in everything that exists.

        Args:
            cleanup_on_start: As in the plugin's configuration.
            prepare: Called with the plugin before it connects, so that it can be watched from the start.
        """
        config = ResctrlPluginConfig(
            cgroup_root=self._containerd.cgroup_root, cleanup_on_start=cleanup_on_start
        )
        resctrl = Resctrl.with_provider(self.fs, ResctrlConfig(group_prefix=config.group_prefix))
        plugin = StagedPlugin.with_resctrl(config, resctrl)
        assert isinstance(plugin, StagedPlugin)
        plugin.calls, plugin.on_reply = Counter(), None
        if prepare is not None:
            prepare(plugin)
        async with plugin:
            serving = asyncio.create_task(plugin.run(socket_path=self._containerd.nri_socket))
            try:
                await self.synchronized(plugin, 1)
                yield plugin
            finally:
                serving.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await serving

    async def synchronized(self, plugin: StagedPlugin, times: int) -> None:
        """Wait until the runtime has told the plugin everything so many times, and the work is done."""
        await until(
            f"the plugin was synchronized {times} times", lambda: plugin.calls["synchronize"] >= times
        )
        await plugin.settled()

    async def counts(self, plugin: StagedPlugin, pod: Pod, total: int, reconciled: int) -> None:
        """Wait until a pod is told with these counts, and check that its group exists."""

        def told() -> bool:
            event = plugin.snapshot().get(PodUid(pod.uid))
            return event is not None and (event.total_containers, event.reconciled_containers) == (
                total,
                reconciled,
            )

        await until(f"pod {pod.uid} has {reconciled} of {total} containers reconciled", told)
        await plugin.settled()
        assert isinstance(plugin.snapshot()[PodUid(pod.uid)].group_state, Exists)

    async def gone(self, plugin: StagedPlugin, pod: Pod) -> None:
        """Wait until a pod is told removed."""
        await until(f"pod {pod.uid} is gone", lambda: PodUid(pod.uid) not in plugin.snapshot())
        await plugin.settled()

    def group(self, pod: Pod) -> Path:
        """Return where a pod's group must stand."""
        return self.fs.root / "mon_groups" / f"pod_{pod.uid}"

    def groups(self) -> set[str]:
        """Return the names of all monitoring groups."""
        return set(self.fs.read_child_dirs(self.fs.root / "mon_groups"))

    def assert_truth(self, plugin: StagedPlugin, pods: Mapping[Pod, Sequence[str]]) -> None:
        """Compare all that the plugin tells and did with the machine, pod by pod and thread by thread.

        Args:
            plugin: The plugin, settled.
            pods: Every pod there is, with its running containers.
        """
        assert plugin.snapshot() == {
            PodUid(pod.uid): PodResctrlAddOrUpdate(
                PodUid(pod.uid), Exists(self.group(pod)), len(containers), len(containers)
            )
            for pod, containers in pods.items()
        }
        assert self.groups() == {self.group(pod).name for pod in pods}
        for pod, containers in pods.items():
            threads = {tid for container in containers for tid in observer.threads_in(container)}
            assert {int(it) for it in self.fs.tasks_in(self.group(pod))} == threads
            pause = observer.threads_in(pod.sandbox_id)
            assert pause, "the pause process is seen, so that the next line can fail"
            assert pause.isdisjoint(threads), "the pause process was assigned"
