"""One worker thread with two queues: the only place where this plugin blocks on the kernel.

Owns: a thread, the order of jobs, and the way back to the event loop. Must not know: what a job does.

Rules:
    1. One job at a time. A resctrl call takes a mutex of the kernel that can be held for long, so jobs never
       run on the event loop; one thread keeps their order and never competes with itself.
    2. Urgent jobs first, each queue in the order of arrival. A job is never interrupted, so it must be small.
       After an urgent job, background work waits until the event loop has heard of it (HEARING seconds at
       most): what follows from it is urgent too, and a mkdir of somebody else would slip in between.
    3. `promote(key)` makes the waiting jobs of one key urgent, after the urgent ones already there.
    4. `done` runs on the event loop, in the order in which jobs ended, for each job that ran; never for one
       that was dropped by `close`. A job that raises anything still reaches `done`.
    5. A worker belongs to the event loop of its first `submit`; several workers live side by side.
    6. The thread is a daemon: a kernel that never answers must not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

from attrs import frozen

__all__ = ["Executor", "Failure", "Outcome", "Success", "Worker", "attempt"]

HEARING: Final = 0.5
"""Seconds that background work waits at most for the event loop to hear of an urgent job."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@frozen
class Success(Generic[T_co]):
    """A job returned.

    Attributes:
        value: What it returned.
    """

    value: T_co


@frozen
class Failure:
    """A job raised.

    Attributes:
        error: What it raised.
    """

    error: Exception


Outcome: TypeAlias = Success[T] | Failure


def attempt(work: Callable[[], T]) -> Outcome[T]:
    """Run a job to its end and return how it ended; nothing escapes."""
    try:
        return Success(work())
    except Exception as error:  # noqa: BLE001 - a job that ends without an outcome would be waited for forever
        return Failure(error)
    except BaseException as error:  # noqa: BLE001 - as above; but whoever waits must not be made to exit
        return Failure(RuntimeError(f"the job ended with {error!r}"))


class Executor(Protocol):
    """Runs jobs somewhere and tells their outcome on the event loop."""

    def submit(
        self, key: str, work: Callable[[], T], done: Callable[[Outcome[T]], None], *, urgent: bool
    ) -> None:
        """Queue a job.

        Args:
            key: What the job belongs to, for `promote`.
            work: The job; it may block.
            done: Called on the event loop with the outcome.
            urgent: Whether it goes before all jobs that are not.
        """
        ...

    def promote(self, key: str) -> None:
        """Make the waiting jobs of this key urgent."""
        ...

    async def close(self, timeout: float) -> bool:  # noqa: ASYNC109 - the deadline is the point of this call
        """Drop what waits, let the running job end.

        Args:
            timeout: Seconds to wait for the running job.

        Returns:
            Whether it ended in time.
        """
        ...


@frozen
class _Job:
    key: str
    run: Callable[[], Callable[[], None]]
    """Does the work and returns what the event loop is to do with its outcome."""


class Worker:
    """The executor that the plugin uses: one thread, started by the first job."""

    def __init__(self, name: str = "resctrl-worker") -> None:
        self._name = name
        self._lock = threading.Condition()
        self._urgent: deque[_Job] = deque()
        self._background: deque[_Job] = deque()
        self._closed = False
        self._hear_until = 0.0  # monotonic seconds; 0 when nothing urgent is unheard of
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Future[None] | None = None

    def submit(
        self, key: str, work: Callable[[], T], done: Callable[[Outcome[T]], None], *, urgent: bool
    ) -> None:
        """Queue a job; call it on the event loop. After `close` it does nothing.

        Args:
            key: What the job belongs to, for `promote`.
            work: The job; it may block.
            done: Called on the event loop with the outcome.
            urgent: Whether it goes before all jobs that are not.

        Raises:
            RuntimeError: No event loop runs here, or it is not the one of the first call.
        """
        self._bind()

        def run() -> Callable[[], None]:
            outcome = attempt(work)
            return lambda: done(outcome)

        with self._lock:
            if self._closed:
                return
            (self._urgent if urgent else self._background).append(_Job(key, run))
            self._lock.notify()

    def promote(self, key: str) -> None:
        """Make the waiting jobs of this key urgent; their order stays. Unknown keys are no error."""
        with self._lock:
            chosen = [job for job in self._background if job.key == key]
            if chosen:
                self._background = deque(job for job in self._background if job.key != key)
                self._urgent.extend(chosen)

    async def close(self, timeout: float = 5.0) -> bool:  # noqa: ASYNC109 - the deadline is the point of this call
        """Drop the waiting jobs and wait for the running one. Closing twice, or on another loop, is no error.

        Args:
            timeout: Seconds to wait; a job that hangs in the kernel is left behind.

        Returns:
            Whether the thread has ended.
        """
        with self._lock:
            self._closed = True
            self._urgent.clear()
            self._background.clear()
            self._lock.notify()
        if self._thread is None or self._ended is None:
            return True
        if self._loop is asyncio.get_running_loop():
            await asyncio.wait({self._ended}, timeout=timeout)
            if self._ended.done():
                self._thread.join()
        else:
            await asyncio.to_thread(self._thread.join, timeout)
        return not self._thread.is_alive()

    def _bind(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._ended = loop.create_future()
            self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._thread.start()
        elif self._loop is not loop:
            raise RuntimeError(f"{self._name} belongs to another event loop: use one plugin per loop")

    def _next(self) -> tuple[_Job, bool] | None:
        """Wait for a job; return it and whether it is urgent. None means the end."""
        with self._lock:
            while not self._closed:
                if self._urgent:
                    return self._urgent.popleft(), True
                hearing = self._hear_until - time.monotonic()
                if self._background and hearing <= 0:
                    return self._background.popleft(), False
                self._lock.wait(hearing if self._background else None)
            return None

    def _serve(self) -> None:
        while (taken := self._next()) is not None:
            job, urgent = taken
            told = job.run()
            if urgent:
                with self._lock:
                    self._hear_until = time.monotonic() + HEARING
            if not self._tell(self._heard(told) if urgent else told):
                return
            del taken, job, told  # what they refer to may go before the next one comes
        self._tell(self._end)

    def _heard(self, told: Callable[[], None]) -> Callable[[], None]:
        def hear() -> None:
            try:
                told()
            finally:
                with self._lock:
                    self._hear_until = 0.0
                    self._lock.notify()

        return hear

    def _end(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _tell(self, callback: Callable[[], None]) -> bool:
        """Hand a callback to the event loop; False when that is closed and nobody listens any more."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(callback)
                return True
        return False
