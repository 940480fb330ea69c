"""Waiting for a named condition, with a deadline. Nothing in the lane sleeps for luck."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["until"]


async def until(
    what: str, condition: Callable[[], object], seconds: float = 10.0, *, every: float = 0.01
) -> None:
    """Return as soon as a condition holds.

    Args:
        what: The condition in words, for the failure.
        condition: Asked at once and then again and again; may be a coroutine function.
        seconds: How long it may take.
        every: Seconds from one time to the next.

    Raises:
        TimeoutError: It never held.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if await answer if inspect.isawaitable(answer) else answer:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s in vain until {what}")
        await asyncio.sleep(every)
