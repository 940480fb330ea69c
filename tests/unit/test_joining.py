"""One run at a time, shared by all who ask for it."""

from __future__ import annotations

import asyncio

import pytest

from nri_resctrl_plugin.joining import Joined
from tests.plugin_support import run


def test_who_asks_while_it_runs_shares_its_outcome() -> None:
    """After it has ended, the next one who asks begins another run."""

    async def main() -> None:
        go, count = asyncio.Event(), 0

        async def make() -> int:
            nonlocal count
            count += 1
            await go.wait()
            return count

        joined = Joined(make, "a run")
        running = [joined.running]
        await joined.ended()
        tasks = [asyncio.create_task(joined.run()) for _ in range(3)]
        await asyncio.sleep(0)
        running.append(joined.running)
        tasks[0].cancel()
        go.set()
        assert await asyncio.gather(*tasks[1:]) == [1, 1]
        assert [*running, joined.running] == [False, True, False]
        assert await joined.run() == 2
        await joined.ended()

    run(main())


def test_an_error_reaches_everybody_and_ends_the_run() -> None:
    """Whoever waits for the end alone does not get it."""

    async def main() -> None:
        async def make() -> None:
            await asyncio.sleep(0)
            raise ZeroDivisionError

        joined = Joined(make, "a run")
        tasks = [asyncio.create_task(joined.run()) for _ in range(2)]
        await asyncio.sleep(0)
        await joined.ended()
        assert not joined.running
        for task in tasks:
            with pytest.raises(ZeroDivisionError):
                await task

    run(main())
