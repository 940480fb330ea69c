"""ResctrlPlugin: what the runtime tells becomes facts, and what the agent asks becomes retries and audits.

Owns: the public face: the calls of the agent, events, start and end. Must not know: what a handler does
(`hearing`), when a transition happens (`pods`), how work runs (`driver`, `worker`), bytes (`nri`).

Rules:
    1. A plugin belongs to the event loop that it is first used on. Several live side by side.
    2. Nothing happens by a timer. Closing leaves groups in place.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from nri_resctrl_plugin.audit import Audits
from nri_resctrl_plugin.cgroups import CgroupPidSource
from nri_resctrl_plugin.config import ResctrlPluginConfig
from nri_resctrl_plugin.driver import Driver
from nri_resctrl_plugin.errors import ConfigError
from nri_resctrl_plugin.hearing import Hearing
from nri_resctrl_plugin.hub import EventHub
from nri_resctrl_plugin.model import ContainerId, PodUid
from nri_resctrl_plugin.nri.stub import NriStub
from nri_resctrl_plugin.retries import Retries
from nri_resctrl_plugin.worker import Worker
from resctrl import FsProvider, RealFs, Resctrl, ResctrlConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from nri_resctrl_plugin.cgroups import PidSource
    from nri_resctrl_plugin.events import Exists, PodResctrlAddOrUpdate, PodResctrlEvent
    from nri_resctrl_plugin.hub import EventRecord, EventStream
    from nri_resctrl_plugin.model import ContainerState
    from nri_resctrl_plugin.reports import AuditReport, RetryReport
    from nri_resctrl_plugin.worker import Executor

__all__ = ["ResctrlPlugin"]

P = TypeVar("P", bound=FsProvider)


class ResctrlPlugin(Hearing[P]):
    """Keeps one monitoring group per pod and tells how complete it is.

    Args:
        config: The settings; the defaults if None. The real file system and the real cgroups are used.
    """

    def __init__(self: ResctrlPlugin[RealFs], config: ResctrlPluginConfig | None = None) -> None:
        settings = config if config is not None else ResctrlPluginConfig()
        self._set_up(settings, Resctrl(_resctrl_config(settings)), None, None)

    @classmethod
    def with_resctrl(cls, config: ResctrlPluginConfig | None, resctrl: Resctrl[P]) -> ResctrlPlugin[P]:
        """Return a plugin over a given `Resctrl`, with the real cgroups.

        Args:
            config: The settings; `resctrl_root` counts only where the plugin makes its own `Resctrl`.
            resctrl: Where groups are made. Its group prefix must be the one of `config`.

        Raises:
            ConfigError: The prefixes differ, so that the sweep and the groups would not mean the same.
        """
        return cls._made(config, resctrl, None, None)

    @classmethod
    def with_pid_source(
        cls,
        config: ResctrlPluginConfig | None,
        resctrl: Resctrl[P],
        pid_source: PidSource,
        *,
        executor: Executor | None = None,
    ) -> ResctrlPlugin[P]:
        """Return a plugin over a given `Resctrl` and a given source of thread ids.

        Args:
            config: As for `with_resctrl`.
            resctrl: As for `with_resctrl`.
            pid_source: Lists the threads of a container.
            executor: Where blocking work runs; one worker thread if None.

        Raises:
            ConfigError: As for `with_resctrl`.
        """
        return cls._made(config, resctrl, pid_source, executor)

    @classmethod
    def _made(
        cls,
        config: ResctrlPluginConfig | None,
        resctrl: Resctrl[P],
        pid_source: PidSource | None,
        executor: Executor | None,
    ) -> ResctrlPlugin[P]:
        settings = (
            config if config is not None else ResctrlPluginConfig(group_prefix=resctrl.config.group_prefix)
        )
        if settings.group_prefix != resctrl.config.group_prefix:
            raise ConfigError(
                f"group_prefix is {settings.group_prefix!r} but the given Resctrl names its groups "
                f"{resctrl.config.group_prefix!r}...: give both the same"
            )
        plugin: ResctrlPlugin[P] = cls.__new__(cls)
        plugin._set_up(settings, resctrl, pid_source, executor)
        return plugin

    def _set_up(
        self,
        config: ResctrlPluginConfig,
        resctrl: Resctrl[P],
        pid_source: PidSource | None,
        executor: Executor | None,
    ) -> None:
        source = pid_source if pid_source is not None else CgroupPidSource(config.cgroup_root)
        self._hub = EventHub()
        driver = Driver(config, resctrl, source, executor if executor is not None else Worker(), self._hub)
        self._begin_to_hear(driver, own_source=pid_source is None)
        self._retries: Retries[P] = Retries(driver)
        self._audits: Audits[P] = Audits(driver)

    # --- life ---

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - the deadline of the worker
        """End: whoever waits gets PluginClosedError, iterators end, groups stay in place.

        Args:
            timeout: Seconds to wait for the running job; one that hangs in the kernel is left behind.
        """
        await self._driver.close(timeout)
        await self._retries.passes.ended()
        await self._audits.passes.ended()
        self._hub.close()

    async def run(
        self,
        *,
        socket_path: Path = Path("/var/run/nri/nri.sock"),
        name: str = "resctrl",
        idx: str = "10",
        fd: int | None = None,
    ) -> None:
        """Register with the runtime and serve, connecting again for ever.

        Args:
            socket_path: Where the runtime listens.
            name: The plugin's name, `[A-Za-z0-9_.+-]+`.
            idx: Two digits: the order in which the runtime calls its plugins.
            fd: A connected socket inherited from the runtime; then this returns when it closes.
        """
        stub = NriStub(self, name=name, idx=idx, socket_path=socket_path, fd=fd)
        try:
            await stub.run()
        finally:
            await stub.close()

    async def settled(self) -> None:
        """Wait until nothing is in flight: no startup, no work of a pod, no pass of retries, no audit."""
        await self._driver.settled()
        while self._retries.passes.running or self._audits.passes.running:
            await self._retries.passes.ended()
            await self._audits.passes.ended()
            await self._driver.settled()

    # --- what the agent asks ---

    async def retry_group_creation(self, pod_uid: str) -> Exists:
        """Try to make a pod's group once more.

        A creation that is under way is joined. A group that exists is returned; nothing is told. Success is
        told by one event, a failure by none.

        Returns:
            The group.

        Raises:
            PodNotFoundError: The pod is not known, or went away meanwhile; then a new group is deleted.
            resctrl.ResctrlError: It failed again; CapacityError where no RMID is free.
            PluginClosedError: The plugin is closed.
        """
        return await self._retries.group(PodUid(pod_uid))

    async def retry_container_reconcile(self, container_id: str) -> ContainerState:
        """Try once more to put a container's threads into its pod's group.

        Returns:
            Its state then. PARTIAL where there is no group, no thread, or no end of new threads.

        Raises:
            ContainerNotFoundError: It is not known, or stopped meanwhile.
            PodNotFoundError: Its pod went away meanwhile.
            resctrl.ResctrlError: The kernel refused; the container stays PARTIAL.
            CgroupError: Its threads cannot be listed; it stays PARTIAL.
            PluginClosedError: The plugin is closed.
        """
        return await self._retries.container(ContainerId(container_id))

    async def retry_all_once(self) -> RetryReport:
        """Try everything once more that was refused or is incomplete; raises nothing.

        Orphaned groups come first, since they free RMIDs; then Failed groups until the first CapacityError;
        then every PARTIAL container. A call during a pass joins it.

        Returns:
            What became of it.
        """
        return await self._retries.all_once()

    async def audit_once(self) -> AuditReport:
        """See whether all is as it is believed to be, and mend what is not; raises nothing.

        Pods whose cgroups are all gone though no event came are dropped. Of every pod whose group Exists, the
        group and the threads of its containers are looked at: threads astray (an exec'd process, one that
        another agent moved) make the container PARTIAL and are assigned; a group that somebody removed is
        made again. Each real change is told by an event. A call during an audit joins it.

        Returns:
            What it saw and did.
        """
        return await self._audits.once()

    # --- what the agent is told ---

    def events(self) -> EventStream:
        """Begin to listen: an asynchronous iterator that tells each pod's latest state; see `hub`."""
        return self._hub.events()

    def snapshot(self) -> dict[PodUid, PodResctrlAddOrUpdate]:
        """Return the state of every live pod as last told."""
        return self._driver.table.snapshot()

    def subscribe(self, callback: Callable[[PodResctrlEvent], None]) -> Callable[[], None]:
        """Call back for each live pod, now, and for each event as it happens, on the event loop.

        Returns:
            Ends the subscription.
        """
        return self._hub.subscribe(callback)

    def record_events(self) -> EventRecord:
        """Begin to record every event in the order of emission; close the record, or use it in a `with`."""
        return self._hub.record()

    def container_state(self, container_id: str) -> ContainerState | None:
        """Return how far a container is, or None where it is not known, or stopped."""
        return self._driver.table.container_state(ContainerId(container_id))

    @property
    def config(self) -> ResctrlPluginConfig:
        """The settings in force."""
        return self._driver.config

    @property
    def resctrl(self) -> Resctrl[P]:
        """Where groups are made, as the settings in force have it."""
        return self._driver.resctrl


def _resctrl_config(config: ResctrlPluginConfig) -> ResctrlConfig:
    return ResctrlConfig(root=config.resctrl_root, group_prefix=config.group_prefix)
