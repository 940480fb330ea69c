"""The plugin's own life: closing in the middle of things, several at a time, and the wire in front of it."""

from __future__ import annotations

import asyncio
import errno
import gc
import threading

import pytest
from structlog.testing import capture_logs

from nri_resctrl_plugin import (
    ContainerState,
    Exists,
    PluginClosedError,
    PodResctrlAddOrUpdate,
    PodResctrlEvent,
    PodUid,
    ResctrlPlugin,
    RetryReport,
)
from nri_resctrl_plugin.cgroups import CgroupPidSource
from resctrl import Resctrl
from resctrl.testing import FakeFs, FaultyFs
from tests.plugin_support import Gate, bench, container, pod, run


def add(uid: str, total: int = 0, reconciled: int = 0) -> PodResctrlAddOrUpdate:
    path = FakeFs().root / "mon_groups" / f"pod_{uid}"
    return PodResctrlAddOrUpdate(PodUid(uid), Exists(path), total, reconciled)


def test_closing_answers_everybody_and_leaves_groups_in_place() -> None:
    """Waiters of every kind end cleanly, iterators end, the running job is let end, nothing is deleted."""

    async def main() -> None:
        it = bench()
        it.faults.fail("create_dir", errno.ENOSPC, path=it.path("f"))
        await it.plugin.run_pod_sandbox(pod("f", "f"))
        await it.plugin.run_pod_sandbox(pod("a", "s"))
        await it.plugin.settled()
        gate = it.gate("write_all")
        stream = it.plugin.events()
        starting = asyncio.create_task(it.start("c", "s"))
        await gate.reached()
        waiting = [
            asyncio.create_task(it.plugin.retry_container_reconcile("c")),
            asyncio.create_task(it.plugin.retry_group_creation("f")),
        ]
        passing = asyncio.create_task(it.plugin.retry_all_once())
        resting = asyncio.create_task(it.plugin.settled())
        await asyncio.sleep(0)
        closing = asyncio.create_task(it.plugin.close())
        await starting
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [PluginClosedError] * 2
        assert isinstance(await passing, RetryReport)
        await resting
        gate.open()
        await closing
        assert {event.pod_uid async for event in stream} == {"a", "f"}
        assert it.groups() == ["pod_a"]
        assert it.kernel.tasks_in(it.path("a"))  # what the job did stands

    run(main())


def test_a_closed_plugin_answers_and_does_nothing() -> None:
    """Handlers are still answered with success; retries say that it is closed; a pass reports nothing."""

    async def main() -> None:
        it = bench()
        await it.start("c", "s", "a")
        await it.plugin.settled()
        await it.plugin.close()
        await it.plugin.close()
        it.fs.forget()
        await it.plugin.stop_pod_sandbox(pod("a", "s"))
        await it.plugin.start_container(pod("b", "t"), container("d", "t"))
        await it.plugin.synchronize([], [])
        await it.plugin.settled()
        with pytest.raises(PluginClosedError):
            await it.plugin.retry_group_creation("a")
        with pytest.raises(PluginClosedError):
            await it.plugin.retry_container_reconcile("c")
        assert await it.plugin.retry_all_once() == RetryReport()
        assert it.fs.calls == []
        assert it.plugin.snapshot() == {PodUid("a"): add("a", 1, 1)}
        assert [event async for event in it.plugin.events()] == [add("a", 1, 1)]

    run(main())


def test_a_pass_that_is_cut_off_reports_what_it_did() -> None:
    """It raises nothing, even when the plugin is closed under it."""

    async def main() -> None:
        it = bench()
        for name in ("f1", "f2"):
            it.faults.fail("create_dir", errno.ENOSPC, path=it.path(name))
            await it.plugin.run_pod_sandbox(pod(name, name))
        await it.plugin.settled()
        gate = it.gate("create_dir", nth=2)
        passing = asyncio.create_task(it.plugin.retry_all_once())
        await gate.reached()
        closing = asyncio.create_task(it.plugin.close())
        assert await passing == RetryReport(groups_created=1, groups_untried=1)
        gate.open()
        await closing

    run(main())


def test_a_kernel_that_hangs_does_not_keep_close_from_returning() -> None:
    """The worker is left behind at the deadline, with a record."""

    async def main() -> None:
        it = bench()
        gate = it.gate("create_dir")
        await it.plugin.run_pod_sandbox(pod("a", "s"))
        await gate.reached()
        with capture_logs() as logs:
            await it.plugin.close(timeout=0.01)
        assert [log["event"] for log in logs] == ["worker_left_behind"]
        gate.open()
        await it.plugin.close()

    run(main())


class ListingSource(CgroupPidSource):
    """A source of threads that tells when it is closed."""

    closed = 0

    def close(self) -> None:
        """Count, and close."""
        self.closed += 1
        super().close()


@pytest.mark.parametrize("hangs", [False, True])
def test_what_is_held_open_is_closed_after_the_last_job(hangs: bool) -> None:
    """No job must find its descriptors closed under it, or given to somebody else."""

    async def main() -> None:
        source, faults, gate = ListingSource(), FaultyFs(FakeFs()), Gate()
        faults.before("create_dir", gate)
        plugin = ResctrlPlugin.with_pid_source(None, Resctrl.with_provider(faults), source)
        await plugin.run_pod_sandbox(pod("a", "s"))
        await gate.reached()
        if not hangs:
            gate.open()
        with capture_logs():
            await plugin.close(timeout=0.01 if hangs else 5.0)
        assert source.closed == (0 if hangs else 1)
        gate.open()
        await plugin.close()
        assert source.closed >= 1

    run(main())


def test_leaving_the_context_closes_and_ends_the_thread() -> None:
    """`async with` is enough: no thread is left."""

    async def main() -> None:
        before = threading.active_count()
        it = bench()
        async with it.plugin as plugin:
            await plugin.run_pod_sandbox(pod("a", "s"))
            await plugin.settled()
            assert threading.active_count() == before + 1
        assert threading.active_count() == before

    run(main())


def test_plugins_of_several_loops_live_side_by_side() -> None:
    """Each has its own loop, thread, machine and events; nothing is shared in the process."""

    def live(uid: str, out: list[list[PodResctrlEvent]]) -> None:
        async def main() -> None:
            it = bench()
            for number in range(5):
                await it.start(f"c{number}", "s", uid)
            await it.plugin.settled()
            assert it.groups() == [f"pod_{uid}"]
            out.append(it.record.events)
            await it.plugin.close()

        run(main())

    told: list[list[PodResctrlEvent]] = []
    threads = [threading.Thread(target=live, args=(uid, told)) for uid in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(events[-1].pod_uid for events in told) == ["a", "b"]
    assert all(events[-1] == add(events[-1].pod_uid, 5, 5) for events in told)


def test_two_plugins_on_one_loop_do_not_meet() -> None:
    """Instances share nothing but what the test gives them both."""

    async def main() -> None:
        one, two = bench(), bench()
        await asyncio.gather(one.start("c", "s", "a"), two.start("c", "s", "b"))
        assert one.groups() == ["pod_a"]
        assert two.groups() == ["pod_b"]
        await one.plugin.close()
        assert two.plugin.container_state("c") is ContainerState.RECONCILED
        await two.plugin.close()

    run(main())


def test_a_plugin_on_a_second_loop_is_not_confused() -> None:
    """It belongs to its first loop: handlers log that and answer, nothing is told on the wrong loop."""
    it = bench()

    async def first() -> None:
        await it.plugin.run_pod_sandbox(pod("a", "s"))
        await it.plugin.settled()

    async def second() -> None:
        with capture_logs() as logs:
            await it.plugin.run_pod_sandbox(pod("b", "t"))
            await it.plugin.start_container(pod("b", "t"), container("c", "t"))
        assert [log["event"] for log in logs] == ["event_failed"] * 2
        assert it.plugin.snapshot() == {PodUid("a"): add("a")}
        assert it.plugin.container_state("c") is None
        await it.plugin.close()

    before = threading.active_count()
    run(first())
    run(second())
    assert it.groups() == ["pod_a"]
    assert threading.active_count() == before


def test_subscribers_follow_the_plugin() -> None:
    """A callback, a stream and the tap tell the same story as the snapshot."""

    async def main() -> None:
        it = bench()
        await it.plugin.run_pod_sandbox(pod("a", "s"))
        await it.plugin.settled()
        got: list[PodResctrlEvent] = []
        unsubscribe = it.plugin.subscribe(got.append)
        stream = it.plugin.events()
        await it.start("c", "s")
        assert got == [add("a"), add("a", 1, 1)]
        assert await anext(stream) == add("a", 1, 1)
        assert it.plugin.snapshot() == {PodUid("a"): add("a", 1, 1)}
        unsubscribe()
        await it.plugin.stop_container(None, container("c", "s"))
        assert len(got) == 2
        assert await anext(stream) == add("a")
        await it.plugin.close()

    run(main())


def test_nothing_complains_about_answers_that_nobody_took() -> None:
    """A retry that is abandoned leaves no future whose exception was never retrieved."""

    async def main() -> None:
        complaints: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        it = bench()
        gate = it.gate("create_dir")
        it.faults.fail("create_dir", errno.ENOSPC)
        await it.plugin.run_pod_sandbox(pod("a", "s"))
        await gate.reached()
        calls = [asyncio.create_task(it.plugin.retry_group_creation("a")) for _ in range(2)]
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        gate.open()
        await it.plugin.settled()
        await asyncio.wait(calls)
        await it.plugin.close()
        del calls
        gc.collect()
        await asyncio.sleep(0)
        assert complaints == []

    run(main())
