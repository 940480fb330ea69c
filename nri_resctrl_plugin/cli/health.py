"""The program's health and metrics address (`--health-addr`).

Owns: which parts of the program are measured, and what being ready means. Must not know: names of metrics.

Rules:
    1. prometheus-client is imported only where the flag is given.
    2. Ready means: a runtime has told what exists, and groups can be made.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Protocol

from nri_resctrl_plugin.cli.exits import Exit, Stop
from nri_resctrl_plugin.events import Failed
from resctrl import FsProvider, ResctrlError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nri_resctrl_plugin.metrics import HealthServer, Instruments, PodView
    from nri_resctrl_plugin.nri.handler import NriHandler
    from nri_resctrl_plugin.plugin import ResctrlPlugin
    from resctrl import Resctrl

__all__ = ["Health", "LinkNews"]

_LOOP_LIMIT: Final = 2.0
"""Seconds that a scrape waits for the event loop's word about the pods."""


class LinkNews(Protocol):
    """What is known of the connection to the runtime."""

    @property
    def obstacle(self) -> str | None:
        """Why no events come, or None where they do."""
        ...


class Health:
    """What `--health-addr` adds to the program; without it, nothing.

    Args:
        address: `HOST:PORT`, or None.
        names: By whose names the pods' counters are told, a value of `MetricNames`.

    Raises:
        Stop: The address is none, or prometheus-client is not installed.
    """

    def __init__(self, address: str | None, names: str = "resctrl") -> None:
        self._names = names
        self._instruments: Instruments | None = None
        if address is None:
            return
        try:
            from prometheus_client import CollectorRegistry  # noqa: PLC0415 - rule 1

            from nri_resctrl_plugin.metrics import HealthAddress, Instruments  # noqa: PLC0415 - rule 1
        except ModuleNotFoundError as error:
            if error.name != "prometheus_client":
                raise
            raise Stop(
                Exit.UNSUPPORTED,
                "prometheus_client is not installed: --health-addr needs the extra: "
                "pip install 'resctrl[nri,metrics]'",
            ) from error
        try:
            self._address = HealthAddress.parse(address)
        except ValueError as error:
            raise Stop(Exit.USAGE, f"--health-addr: {error}") from error
        self._registry = CollectorRegistry()
        self._instruments = Instruments(self._registry)

    def counted(self, resctrl: Resctrl[FsProvider]) -> Resctrl[FsProvider]:
        """Return the same resctrl, its refusals counted if they are to be."""
        if self._instruments is None:
            return resctrl
        from nri_resctrl_plugin.metrics import counted  # noqa: PLC0415 - rule 1

        return counted(resctrl, self._instruments)

    def timed(self, handler: NriHandler) -> NriHandler:
        """Return the same handler, its times measured if they are to be."""
        if self._instruments is None:
            return handler
        from nri_resctrl_plugin.metrics import TimedHandler  # noqa: PLC0415 - rule 1

        return TimedHandler(handler, self._instruments)

    def lost(self) -> None:
        """Count an event that its reader does not get, if it is to be counted. Any thread may call it."""
        if self._instruments is not None:
            self._instruments.lost()

    @contextlib.asynccontextmanager
    async def served(
        self, plugin: ResctrlPlugin[FsProvider], link: LinkNews
    ) -> AsyncIterator[HealthServer | None]:
        """Serve it, if it is to be served.

        Raises:
            Stop: The address cannot be used.
        """
        if self._instruments is None:
            yield None
            return
        from nri_resctrl_plugin.metrics import (  # noqa: PLC0415 - rule 1
            HealthServer,
            HealthServerError,
            MetricNames,
            PodCollector,
        )

        watch = _Watch(plugin, link, self._instruments)
        self._registry.register(PodCollector(watch.view, MetricNames(self._names)))
        plugin.subscribe(self._instruments.told)
        try:
            async with HealthServer(self._address, self._registry, watch) as server:
                yield server
        except HealthServerError as error:
            raise Stop(Exit.CONFIG, f"--health-addr: {error}") from error


class _Watch:
    """Looks at the program on behalf of scrapes and probes."""

    def __init__(self, plugin: ResctrlPlugin[FsProvider], link: LinkNews, instruments: Instruments) -> None:
        self._plugin = plugin
        self._link = link
        self._instruments = instruments
        self._loop = asyncio.get_running_loop()

    def view(self) -> PodView:
        """Tell of the pods. Called in a thread.

        Raises:
            TimeoutError: The event loop does not answer.
        """
        from nri_resctrl_plugin.metrics import PodView  # noqa: PLC0415 - rule 1

        async def snapshot() -> PodView:
            return PodView(self._plugin.snapshot(), self._plugin.resctrl)

        return asyncio.run_coroutine_threadsafe(snapshot(), self._loop).result(_LOOP_LIMIT)

    def of_plugin(self) -> list[str]:
        """Tell whether events come, and whether a group that is wanted now is forbidden.

        That a directory may be made shows only when one is (CAP_DAC_OVERRIDE, security modules). What was
        forbidden to a pod that is gone says nothing: nobody tries again for it.
        """
        pods = self._plugin.snapshot().values()
        wanted = any(isinstance(pod.group_state, Failed) for pod in pods)
        obstacles = (self._link.obstacle, self._instruments.forbidden if wanted else None)
        return [obstacle for obstacle in obstacles if obstacle is not None]

    def of_machine(self) -> list[str]:
        """Tell whether groups can be made."""
        try:
            support = self._plugin.resctrl.detect_support()
        except ResctrlError as error:
            return [str(error)]
        root = self._plugin.resctrl.config.root
        if not support.mounted:
            return [f"resctrl is not mounted at {root}"]
        if not support.writable:
            return [f"{root}/tasks cannot be written"]
        if not support.monitoring:
            return ["this machine cannot monitor"]
        return []
