"""One run of a thing at a time: who asks while it runs shares its outcome.

Owns: the task. Must not know: what runs.

Rules:
    1. Runs do not overlap.
    2. Whoever gives up waiting does not end the run of the others.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["Joined"]

T = TypeVar("T")


class Joined(Generic[T]):
    """A coroutine that is never run twice at a time.

    Args:
        make: Makes the coroutine; what that raises, every waiter gets.
        name: What to call the task.
    """

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]], name: str) -> None:
        self._make = make
        self._name = name
        self._task: asyncio.Task[T] | None = None

    @property
    def running(self) -> bool:
        """Whether a run has not ended."""
        return self._task is not None and not self._task.done()

    async def run(self) -> T:
        """Begin a run, or join the one that runs; return its outcome."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._make(), name=self._name)
        return await asyncio.shield(self._task)

    async def ended(self) -> None:
        """Wait until the run that runs now, if one does, has ended, however it does."""
        if self._task is not None:
            await asyncio.wait({self._task})
