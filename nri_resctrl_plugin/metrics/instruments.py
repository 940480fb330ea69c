"""What the plugin counts of its own work.

Owns: the instruments, and where they are fixed. Must not know: HTTP, pods' counters.

Rules:
    1. Whoever is measured does not know it: handler and library are wrapped.
    2. Instruments may be touched by any thread.
"""

from __future__ import annotations

import platform
import time
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import InfoMetricFamily
from prometheus_client.registry import Collector

from nri_resctrl_plugin.events import PodResctrlAddOrUpdate
from resctrl import (
    CapacityError,
    FsProvider,
    NoPermissionError,
    NotMountedError,
    Resctrl,
    ResctrlError,
    RmidsBusyError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from prometheus_client.core import Metric

    from nri_resctrl_plugin.events import PodResctrlEvent
    from nri_resctrl_plugin.nri.handler import NriHandler
    from nri_resctrl_plugin.nri.messages import Container, PodSandbox, RuntimeInfo

__all__ = ["Instruments", "TimedHandler", "counted"]

P = TypeVar("P", bound=FsProvider)

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
"""Seconds. The last one is a runtime's default patience with a plugin."""

_REASONS: Final[tuple[tuple[type[ResctrlError], str], ...]] = (
    (RmidsBusyError, "limbo"),  # before what it is a kind of
    (CapacityError, "capacity"),
    (NoPermissionError, "permission"),
    (NotMountedError, "not_mounted"),
    (UnsupportedError, "unsupported"),
)
_OTHER: Final = "other"


class Instruments:
    """The plugin's own counters.

    Args:
        registry: Where they are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._events = Counter("nri_resctrl_events", "Events told, by kind.", ("type",), registry=registry)
        self._lost = Counter(
            "nri_resctrl_events_dropped",
            "Events told that their file, or standard output, did not get.",
            registry=registry,
        )
        self._refusals = Counter(
            "nri_resctrl_group_create_errors",
            "Groups that could not be made, retries included, by the reason.",
            ("reason",),
            registry=registry,
        )
        self._requests = Histogram(
            "nri_resctrl_request_seconds",
            "Seconds that an event of the runtime took; a runtime gives up a plugin after 2 by default.",
            ("event",),
            registry=registry,
            buckets=_BUCKETS,
        )
        self._forbidden: str | None = None
        for kind in ("add_or_update", "removed"):
            self._events.labels(kind)
        for reason in (*(name for _, name in _REASONS), _OTHER):
            self._refusals.labels(reason)
        registry.register(_BuildInfo())
        ProcessCollector(registry=registry)

    @property
    def forbidden(self) -> str | None:
        """Why no group may be made, if that was the answer to the last attempt that tells."""
        return self._forbidden

    def told(self, event: PodResctrlEvent) -> None:
        """Count an event."""
        kind = "add_or_update" if isinstance(event, PodResctrlAddOrUpdate) else "removed"
        self._events.labels(kind).inc()

    def lost(self) -> None:
        """Count an event that was told and not written."""
        self._lost.inc()

    def refused(self, error: Exception) -> None:
        """Count a group that could not be made."""
        reason = next((name for kind, name in _REASONS if isinstance(error, kind)), _OTHER)
        self._refusals.labels(reason).inc()
        if isinstance(error, NoPermissionError):
            self._forbidden = str(error)
        elif isinstance(error, CapacityError):  # the kernel looks for an RMID where it may be taken alone
            self._forbidden = None

    def made(self) -> None:
        """Take note that a group could be made."""
        self._forbidden = None

    @contextmanager
    def timed(self, event: str) -> Iterator[None]:
        """Measure how long an event of the runtime takes."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._requests.labels(event).observe(time.perf_counter() - began)


class TimedHandler:
    """An `NriHandler` that measures another one.

    Args:
        handler: The one.
        instruments: Where it is measured.
    """

    def __init__(self, handler: NriHandler, instruments: Instruments) -> None:
        self._handler = handler
        self._timed = instruments.timed

    async def configure(self, runtime: RuntimeInfo) -> None:
        """Pass it on."""
        with self._timed("Configure"):
            await self._handler.configure(runtime)

    async def synchronize(self, pods: Sequence[PodSandbox], containers: Sequence[Container]) -> None:
        """Pass it on."""
        with self._timed("Synchronize"):
            await self._handler.synchronize(pods, containers)

    async def run_pod_sandbox(self, pod: PodSandbox) -> None:
        """Pass it on."""
        with self._timed("RunPodSandbox"):
            await self._handler.run_pod_sandbox(pod)

    async def stop_pod_sandbox(self, pod: PodSandbox) -> None:
        """Pass it on."""
        with self._timed("StopPodSandbox"):
            await self._handler.stop_pod_sandbox(pod)

    async def remove_pod_sandbox(self, pod: PodSandbox) -> None:
        """Pass it on."""
        with self._timed("RemovePodSandbox"):
            await self._handler.remove_pod_sandbox(pod)

    async def start_container(self, pod: PodSandbox | None, container: Container) -> None:
        """Pass it on."""
        with self._timed("StartContainer"):
            await self._handler.start_container(pod, container)

    async def stop_container(self, pod: PodSandbox | None, container: Container) -> None:
        """Pass it on."""
        with self._timed("StopContainer"):
            await self._handler.stop_container(pod, container)

    async def remove_container(self, pod: PodSandbox | None, container: Container) -> None:
        """Pass it on."""
        with self._timed("RemoveContainer"):
            await self._handler.remove_container(pod, container)

    async def update_container(self, pod: PodSandbox | None, container: Container) -> None:
        """Pass it on."""
        with self._timed("UpdateContainer"):
            await self._handler.update_container(pod, container)


def counted(resctrl: Resctrl[P], instruments: Instruments) -> Resctrl[P]:
    """Return the same resctrl, with each group that it cannot make counted."""

    class Counted(Resctrl[P]):
        __slots__ = ()

        def create_group(self, pod_uid: str, control_group: str = "") -> Path:
            try:
                group = super().create_group(pod_uid, control_group)
            except ResctrlError as error:
                instruments.refused(error)
                raise
            instruments.made()
            return group

    return Counted.with_provider(resctrl.fs, resctrl.config)


class _BuildInfo(Collector):
    def collect(self) -> Iterator[Metric]:
        try:
            ours = version("resctrl")
        except PackageNotFoundError:  # a single file carries no metadata
            ours = "unknown"
        yield InfoMetricFamily(
            "nri_resctrl_build",
            "What runs here.",
            value={"version": ours, "python": platform.python_version(), "kernel": platform.release()},
        )
