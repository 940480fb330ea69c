"""What the tests of the wire share: recorded conversations, a handler that remembers, a loop for a test."""

from __future__ import annotations

import asyncio
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from nri_resctrl_plugin.nri.messages import Container, PodSandbox, RuntimeInfo

P = ParamSpec("P")

GOLDEN_FILE = Path(__file__).parent / "data" / "nri_golden.json"


def golden() -> dict[str, bytes]:
    """Return the recorded frames by name, trunk header included."""
    return {name: bytes.fromhex(entry["hex"]) for name, entry in json.loads(GOLDEN_FILE.read_text()).items()}


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a coroutine test in a loop of its own, for 30 s at most."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(30):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    return run


async def until(condition: Callable[[], object], what: str, seconds: float = 5.0) -> None:
    """Wait until a condition holds, looking at it each time that the loop turns."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        if loop.time() > deadline:
            raise AssertionError(f"after {seconds} s still not: {what}")
        await asyncio.sleep(0.002)


class RecordingHandler:
    """A handler that remembers what it was told, and does what a test hooks in.

    Attributes:
        told: (name, arguments) of each call, when it began.
        finished: Names of the calls that have returned.
        hooks: What to await in a call, by its name.
    """

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[Any, ...]]] = []
        self.finished: list[str] = []
        self.hooks: dict[str, Callable[..., Awaitable[None]]] = {}
        self.running = 0

    @property
    def names(self) -> list[str]:
        """The names of the calls in order."""
        return [name for name, _ in self.told]

    def args(self, name: str) -> tuple[Any, ...]:
        """Return the arguments of the last call of that name."""
        return next(args for told, args in reversed(self.told) if told == name)

    async def _take(self, name: str, *args: Any) -> None:
        assert self.running == 0, "handlers run one at a time"
        self.running += 1
        try:
            self.told.append((name, args))
            if name in self.hooks:
                await self.hooks[name](*args)
            self.finished.append(name)
        finally:
            self.running -= 1

    async def configure(self, runtime: RuntimeInfo) -> None:
        await self._take("configure", runtime)

    async def synchronize(self, pods: Sequence[PodSandbox], containers: Sequence[Container]) -> None:
        await self._take("synchronize", pods, containers)

    async def run_pod_sandbox(self, pod: PodSandbox) -> None:
        await self._take("run_pod_sandbox", pod)

    async def stop_pod_sandbox(self, pod: PodSandbox) -> None:
        await self._take("stop_pod_sandbox", pod)

    async def remove_pod_sandbox(self, pod: PodSandbox) -> None:
        await self._take("remove_pod_sandbox", pod)

    async def start_container(self, pod: PodSandbox | None, container: Container) -> None:
        await self._take("start_container", pod, container)

    async def stop_container(self, pod: PodSandbox | None, container: Container) -> None:
        await self._take("stop_container", pod, container)

    async def remove_container(self, pod: PodSandbox | None, container: Container) -> None:
        await self._take("remove_container", pod, container)

    async def update_container(self, pod: PodSandbox | None, container: Container) -> None:
        await self._take("update_container", pod, container)
