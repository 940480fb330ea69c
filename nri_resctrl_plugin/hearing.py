"""What the runtime tells becomes facts: the NRI handler.

Owns: the handlers, the choice of pods, the settings that come with the connection. Must not know: when a
transition happens (`pods`), how work runs (`driver`, `worker`), bytes (`nri`).

Rules:
    1. A handler applies its fact before its first await, and never raises: an error answer breaks pods.
    2. Only START waits, for its own attempt, within its budget; what takes longer ends behind it.
    3. What is not selected becomes no fact.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import structlog
from attrs import evolve

from nri_resctrl_plugin.cgroups import CgroupPidSource
from nri_resctrl_plugin.config import ResctrlPluginConfig
from nri_resctrl_plugin.errors import ConfigError
from nri_resctrl_plugin.facts import container_told, pod_ref, synchronized
from nri_resctrl_plugin.model import ContainerId, SandboxId
from nri_resctrl_plugin.pods import (
    ContainerRemoved,
    ContainerStarted,
    ContainerStopped,
    PodRemoved,
    PodStarted,
    PodStopped,
)
from nri_resctrl_plugin.selection import Selection
from resctrl import FsProvider, Resctrl, ResctrlConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from structlog.typing import FilteringBoundLogger

    from nri_resctrl_plugin.driver import Driver
    from nri_resctrl_plugin.nri.messages import Container, PodSandbox, RuntimeInfo

__all__ = ["Hearing"]

P = TypeVar("P", bound=FsProvider)

LONGEST_START_WAIT: Final = 1.0
"""Seconds that a START waits at most for its attempt: every other pod's events queue up behind it."""

DEFAULT_REQUEST_TIMEOUT: Final = 2.0
"""Seconds that a runtime waits for an answer where it does not say."""


class Hearing(Generic[P]):
    """The handlers over one driver; `ResctrlPlugin` is one."""

    _driver: Driver[P]
    _own_source: bool
    _selection: Selection
    _start_wait: float
    _log: FilteringBoundLogger

    def _begin_to_hear(self, driver: Driver[P], *, own_source: bool) -> None:
        """Set the handlers up.

        Args:
            driver: Takes the facts.
            own_source: The source of thread ids is ours, so that settings of the runtime may change it.
        """
        self._driver = driver
        self._own_source = own_source
        self._selection = Selection(driver.config)
        self._start_wait = min(LONGEST_START_WAIT, DEFAULT_REQUEST_TIMEOUT / 2)
        self._log = structlog.get_logger("nri_resctrl_plugin")

    async def configure(self, runtime: RuntimeInfo) -> None:
        """Take the runtime's time limit, and its settings where it launched us with some."""
        limit = runtime.request_timeout if runtime.request_timeout > 0 else DEFAULT_REQUEST_TIMEOUT
        self._start_wait = min(LONGEST_START_WAIT, limit / 2)
        with self._logged("configure"):
            self._take_settings(runtime.config)

    async def synchronize(self, pods: Sequence[PodSandbox], containers: Sequence[Container]) -> None:
        """Take in everything that exists; the work that follows is done behind."""
        with self._logged("synchronize"):
            chosen, theirs = self._selection.listed(pods, containers)
            self._tell_left_alone(theirs)
            self._driver.take(synchronized(chosen, theirs))

    async def run_pod_sandbox(self, pod: PodSandbox) -> None:
        """A pod sandbox runs."""
        with self._logged("run_pod_sandbox"):
            if self._selection.runs(pod):
                self._driver.take(PodStarted(pod_ref(pod)))

    async def stop_pod_sandbox(self, pod: PodSandbox) -> None:
        """A pod sandbox stopped."""
        with self._logged("stop_pod_sandbox"):
            if self._selection.knows(pod.id):
                self._driver.take(PodStopped(SandboxId(pod.id)))

    async def remove_pod_sandbox(self, pod: PodSandbox) -> None:
        """A pod sandbox is gone."""
        with self._logged("remove_pod_sandbox"):
            if self._selection.forget(pod.id):
                self._driver.take(PodRemoved(SandboxId(pod.id)))

    async def start_container(self, pod: PodSandbox | None, container: Container) -> None:
        """A container is about to run: wait for its threads to be assigned, within the budget."""
        container_id = ContainerId(container.id)
        with self._logged("start_container"):
            if not self._selection.starts(pod, container):
                return
            self._tell_left_alone((container,))
            told = container_told(container, pod)
            self._driver.take_start(ContainerStarted(told, pod_ref(pod) if pod is not None else None))
            await self._driver.attempt_ended(container_id, self._start_wait)

    async def stop_container(self, pod: PodSandbox | None, container: Container) -> None:  # noqa: ARG002 - NriHandler
        """A container's processes are gone."""
        with self._logged("stop_container"):
            self._driver.take(ContainerStopped(ContainerId(container.id)))

    async def remove_container(self, pod: PodSandbox | None, container: Container) -> None:  # noqa: ARG002 - NriHandler
        """A container is gone."""
        with self._logged("remove_container"):
            self._driver.take(ContainerRemoved(ContainerId(container.id)))

    async def update_container(self, pod: PodSandbox | None, container: Container) -> None:
        """A container's resources change: nothing that concerns us."""

    # --- within ---

    @contextmanager
    def _logged(self, call: str) -> Iterator[None]:
        """Log what a handler raises instead of passing it on."""
        try:
            yield
        except Exception:  # noqa: BLE001 - whatever it is, the runtime must not see it: it would fail a pod
            self._log.exception("event_failed", call=call)

    def _tell_left_alone(self, containers: Sequence[Container]) -> None:
        for container in containers:
            if container.enable_monitoring:
                self._log.info("container_left_to_runtime", container_id=container.id, name=container.name)

    def _take_settings(self, text: str) -> None:
        """Overlay the settings that the runtime carries; a plugin that it launched has no others."""
        present = self._driver.config
        try:
            config = ResctrlPluginConfig.from_yaml(text, source="the runtime's configuration", base=present)
        except ConfigError as error:
            # An end here would end the runtime that launched us; a sweep could hit somebody else's groups.
            self._log.error("configuration_refused", error=str(error), consequence="nothing is swept")
            config = evolve(present, cleanup_on_start=False)
        if config == present:
            return
        if not self._driver.untouched:
            self._log.warning("configuration_ignored", reason="groups may have been made already")
            return
        given = self._driver.resctrl.config
        moved = config.resctrl_root != present.resctrl_root
        root = config.resctrl_root if moved else given.root
        self._selection = Selection(config)
        self._driver.reconfigure(
            config,
            Resctrl.with_provider(
                self._driver.resctrl.fs, ResctrlConfig(root=root, group_prefix=config.group_prefix)
            ),
            CgroupPidSource(config.cgroup_root) if self._own_source else None,
        )
