"""The one line in which everything waits that the runtime has told: handlers run one at a time, in order.

Owns: order, and what becomes of a handler that fails. Must not know: the wire, or which handlers there are.

Rules:
    1. One handler at a time, in the order of `put`, across connections: what an old connection told comes
       before what a new one tells.
    2. What a handler raises is logged and returned to whoever put it in; the line goes on.
    3. A handler that is cancelled from inside (something it awaited was) has failed like any other; only
       cancelling `run` ends the line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import structlog
from attrs import frozen

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

__all__ = ["Delivery"]


@frozen
class _Waiting:
    name: str
    call: Callable[[], Awaitable[None]]
    done: asyncio.Future[BaseException | None]


class Delivery:
    """A queue of handler calls, and the loop that makes them."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._log: FilteringBoundLogger = structlog.get_logger("nri_resctrl_plugin.nri.delivery")

    def put(self, name: str, call: Callable[[], Awaitable[None]]) -> asyncio.Future[BaseException | None]:
        """Queue a call.

        Args:
            name: What it is, for the log.
            call: Called without arguments when its turn comes.

        Returns:
            A future that ends when the call has ended, with what it raised, or None.
        """
        done: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Waiting(name, call, done))
        return done

    async def drained(self) -> None:
        """Wait until everything that was put in has been handled."""
        await self._queue.join()

    async def run(self) -> None:
        """Make the calls, for ever."""
        while True:
            waiting = await self._queue.get()
            try:
                error = await self._handle(waiting)
                if not waiting.done.done():
                    waiting.done.set_result(error)
            finally:
                self._queue.task_done()

    async def _handle(self, waiting: _Waiting) -> BaseException | None:
        task = asyncio.current_task()
        try:
            await waiting.call()
        except asyncio.CancelledError as error:
            if task is not None and task.cancelling():
                raise
            self._log.warning("handler_cancelled", event_name=waiting.name)
            return error
        except Exception as error:  # noqa: BLE001 - whatever a handler raises must not stop the line
            self._log.exception("handler_failed", event_name=waiting.name)
            return error
        return None
