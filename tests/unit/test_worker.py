"""The worker thread: order, promotion, the way back to the loop, and its end."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, TypeVar

import pytest

from nri_resctrl_plugin import worker as worker_module
from nri_resctrl_plugin.worker import Failure, Outcome, Success, Worker

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

DEADLINE = 10.0


def run(main: Coroutine[object, object, T]) -> T:
    return asyncio.run(asyncio.wait_for(main, DEADLINE))


class Log:
    """Outcomes in the order in which the loop heard of them, and a way to wait for so many."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self._changed = asyncio.Event()

    def done(self, outcome: Outcome[object]) -> None:
        """Take an outcome."""
        self.heard.append(outcome.value if isinstance(outcome, Success) else outcome.error)
        self._changed.set()

    async def wait(self, count: int) -> None:
        """Wait for so many."""
        while len(self.heard) < count:
            self._changed.clear()
            await self._changed.wait()


async def blocked(worker: Worker, log: Log) -> threading.Event:
    """Keep the worker busy until the returned event is set."""
    entered, gate = threading.Event(), threading.Event()

    def work() -> str:
        entered.set()
        assert gate.wait(DEADLINE)
        return "gate"

    worker.submit("gate", work, log.done, urgent=True)
    await asyncio.to_thread(entered.wait, DEADLINE)
    return gate


def test_urgent_jobs_go_first_and_each_queue_keeps_its_order() -> None:
    """Urgent work overtakes background work; within a queue, first come, first served."""

    async def main() -> list[object]:
        worker, log = Worker(), Log()
        gate = await blocked(worker, log)
        for number in (1, 2):
            worker.submit(f"b{number}", lambda n=number: f"background {n}", log.done, urgent=False)  # type: ignore[misc]
            worker.submit(f"u{number}", lambda n=number: f"urgent {n}", log.done, urgent=True)  # type: ignore[misc]
        gate.set()
        await log.wait(5)
        await worker.close()
        return log.heard

    assert run(main()) == ["gate", "urgent 1", "urgent 2", "background 1", "background 2"]


def test_promotion_moves_the_jobs_of_one_key_behind_the_urgent_ones() -> None:
    """What a starting pod waits for overtakes everybody's background work, but no other START."""

    async def main() -> list[object]:
        worker, log = Worker(), Log()
        gate = await blocked(worker, log)
        for name in ("a", "x1", "b", "x2"):
            worker.submit(name[0], lambda n=name: n, log.done, urgent=False)  # type: ignore[misc]
        worker.submit("u", lambda: "urgent", log.done, urgent=True)
        worker.promote("x")
        worker.promote("nobody")
        gate.set()
        await log.wait(6)
        await worker.close()
        return log.heard

    assert run(main()) == ["gate", "urgent", "x1", "x2", "a", "b"]


def test_background_work_waits_until_an_urgent_job_was_heard_of() -> None:
    """What follows from an urgent job is submitted when it is heard of, and nothing slips in before it."""

    async def main() -> list[object]:
        worker, log = Worker(), Log()
        gate = await blocked(worker, log)

        def follow(outcome: Outcome[object]) -> None:
            log.done(outcome)
            worker.submit("u", lambda: "what follows", log.done, urgent=True)

        worker.submit("u", lambda: "urgent", follow, urgent=True)
        for _ in range(3):
            worker.submit("b", lambda: "background", log.done, urgent=False)
        gate.set()
        await log.wait(6)
        await worker.close()
        return log.heard

    assert run(main()) == ["gate", "urgent", "what follows", "background", "background", "background"]


def test_a_loop_that_hears_nothing_holds_background_work_up_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A busy event loop slows the worker down by a bounded time, never for ever."""
    monkeypatch.setattr(worker_module, "HEARING", 0.01)

    async def main() -> None:
        worker, log, ran = Worker(), Log(), threading.Event()
        gate = await blocked(worker, log)
        worker.submit("b", ran.set, log.done, urgent=False)
        gate.set()
        assert ran.wait(DEADLINE)  # this blocks the loop, so it hears nothing
        await log.wait(2)
        await worker.close()

    run(main())


def test_jobs_run_on_one_other_thread_and_outcomes_on_the_loop() -> None:
    """The loop never blocks on a job, jobs never compete, and `done` needs no lock."""

    async def main() -> None:
        worker, log = Worker(), Log()
        told: list[int] = []

        def done(outcome: Outcome[int]) -> None:
            told.append(threading.get_ident())
            log.done(outcome)

        for _ in range(3):
            worker.submit("k", threading.get_ident, done, urgent=False)
        await log.wait(3)
        await worker.close()
        assert len(set(log.heard)) == 1
        assert set(told) == {threading.get_ident()}
        assert log.heard[0] != threading.get_ident()

    run(main())


@pytest.mark.parametrize("error", [OSError(28, "full"), SystemExit(3), KeyboardInterrupt()])
def test_whatever_a_job_raises_is_an_outcome(error: BaseException) -> None:
    """A job that raises ends like any other, the thread lives on, and nobody is made to exit."""

    async def main() -> None:
        worker, log = Worker(), Log()

        def work() -> None:
            raise error

        worker.submit("k", work, log.done, urgent=False)
        worker.submit("k", lambda: "next", log.done, urgent=False)
        await log.wait(2)
        await worker.close()
        first, second = log.heard
        assert second == "next"
        assert isinstance(first, Exception)
        if isinstance(error, Exception):
            assert first is error

    run(main())


def test_close_drops_what_waits_and_lets_the_running_job_end() -> None:
    """A job is never cut off in the middle; what had not begun never happens."""

    async def main() -> list[object]:
        worker, log = Worker(), Log()
        gate = await blocked(worker, log)
        worker.submit("k", lambda: "dropped", log.done, urgent=False)
        closing = asyncio.create_task(worker.close())
        await asyncio.sleep(0)  # close has run up to its wait
        worker.submit("k", lambda: "too late", log.done, urgent=True)
        gate.set()
        assert await closing
        assert await worker.close()
        return log.heard

    assert run(main()) == ["gate"]


def test_a_job_that_hangs_is_left_behind_at_the_deadline() -> None:
    """A kernel that never answers does not keep the program from ending."""

    async def main() -> None:
        worker, log = Worker(), Log()
        gate = await blocked(worker, log)
        assert not await worker.close(timeout=0.01)
        gate.set()
        assert await worker.close()
        assert log.heard == ["gate"]

    run(main())


def test_closing_an_unused_worker_is_no_work() -> None:
    """No job, no thread."""

    async def main() -> None:
        before = threading.active_count()
        worker = Worker()
        assert await worker.close()
        assert threading.active_count() == before

    run(main())


def test_workers_of_several_loops_live_side_by_side_and_stay_apart() -> None:
    """Each loop has its own; a worker refuses a second loop instead of telling the wrong one."""
    worker = Worker()

    async def use() -> None:
        log = Log()
        worker.submit("k", lambda: 1, log.done, urgent=False)
        await log.wait(1)

    async def misuse() -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            worker.submit("k", lambda: 1, lambda _: None, urgent=False)

    async def own() -> list[object]:
        mine, log = Worker(), Log()
        mine.submit("k", lambda: 2, log.done, urgent=False)
        await log.wait(1)
        await mine.close()
        return log.heard

    run(use())
    run(misuse())
    assert run(own()) == [2]


def test_a_loop_that_closed_early_ends_the_thread() -> None:
    """A program that forgets `close` leaks no thread that works for nobody."""
    gate, entered = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def work() -> None:
        threads.append(threading.current_thread())
        entered.set()
        gate.wait(DEADLINE)

    async def main() -> None:
        worker = Worker()
        worker.submit("k", work, lambda _: None, urgent=False)
        await asyncio.to_thread(entered.wait, DEADLINE)

    run(main())
    gate.set()
    threads[0].join(DEADLINE)
    assert not threads[0].is_alive()


def test_outcomes_are_values() -> None:
    """Two outcomes with the same content are the same."""
    error = ValueError()
    assert Success(1) == Success(1)
    assert Failure(error) == Failure(error)
