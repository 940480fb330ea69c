"""Startup: once per plugin, the mount and then the sweep, before any group; never a second time."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Collection, MutableMapping
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from nri_resctrl_plugin import (
    ConfigError,
    Exists,
    Failed,
    PodResctrlAddOrUpdate,
    PodUid,
    ResctrlPlugin,
    ResctrlPluginConfig,
    RetryReport,
)
from nri_resctrl_plugin import driver as driver_module
from nri_resctrl_plugin.gate import Gate
from nri_resctrl_plugin.nri.messages import ContainerStatus
from resctrl import NoPermissionError, NotMountedError, Resctrl, ResctrlConfig, UnsupportedError
from resctrl.testing import FakeFs
from tests.plugin_support import Bench, Provider, bench, container, pod, run

if TYPE_CHECKING:
    from nri_resctrl_plugin.jobs import Jobs

Records = list[MutableMapping[str, Any]]


def stale(kernel: FakeFs, *names: str) -> None:
    """Leave monitoring groups of an earlier life."""
    for name in names:
        kernel.create_dir(kernel.root / "mon_groups" / name)


def records(logs: Records, event: str) -> Records:
    return [record for record in logs if record["event"] == event]


def add(uid: str, total: int = 0, reconciled: int = 0) -> PodResctrlAddOrUpdate:
    path = FakeFs().root / "mon_groups" / f"pod_{uid}"
    return PodResctrlAddOrUpdate(PodUid(uid), Exists(path), total, reconciled)


def test_the_first_synchronize_sweeps_before_any_group_is_made() -> None:
    """Mount, sweep, groups, in this order; one record with the four counters; events of pods alone."""

    async def main() -> None:
        it = bench()
        stale(it.kernel, "pod_old", "pod_a", "other")
        it.kernel.create_dir(it.kernel.root / "pod_class")
        it.kernel.create_dir(it.kernel.root / "class")
        it.faults.before("remove_dir", it.kernel.remove_dir, path=it.path("old"))
        it.faults.fail("remove_dir", errno.EPERM, path=it.kernel.root / "pod_class")
        with it.plugin.record_events() as record, capture_logs() as logs:
            await it.plugin.synchronize([pod("a", "s")], [])
            await it.plugin.settled()
        assert records(logs, "startup_cleanup") == [
            {
                "event": "startup_cleanup",
                "log_level": "info",
                "removed": 1,
                "removal_failures": 1,
                "removal_race": 1,
                "non_prefix_groups": 2,
                "kept": 0,
            }
        ]
        order = [call.operation for call in it.fs.calls]
        mounted = next(n for n, call in enumerate(it.fs.calls) if call.path.name == "mountinfo")
        first_made = order.index("create_dir")
        last_swept = max(n for n, name in enumerate(order) if name == "remove_dir")
        assert mounted < order.index("remove_dir") <= last_swept < first_made
        assert record.events == [add("a")]
        assert it.groups() == ["other", "pod_a"]
        await it.plugin.close()

    run(main())


async def reconnect(it: Bench) -> None:
    """What happens around a reconnect; fails if a later Synchronize sweeps."""
    tids = it.threads("c", 3)
    await it.plugin.synchronize([pod("a", "s")], [container("c", "s")])
    await it.plugin.settled()
    made = it.fs.count("create_dir")
    stale(it.kernel, "pod_foreign")
    with it.plugin.record_events() as record:
        await it.plugin.synchronize([pod("a", "s")], [container("c", "s")])
        await it.plugin.settled()
    assert record.events == []
    assert it.groups() == ["pod_a", "pod_foreign"]
    assert it.kernel.tasks_in(it.path("a")) == set(tids)
    assert it.fs.count("create_dir") == made


def test_later_synchronizes_only_diff() -> None:
    """A reconnect neither sweeps nor makes anything anew: groups and threads of living pods stay."""

    async def main() -> None:
        it = bench()
        with capture_logs() as logs:
            await reconnect(it)
        assert len(records(logs, "startup_cleanup")) == 1
        await it.plugin.close()

    run(main())


class SweepsEachTime(Gate[Provider]):
    """The classic bug: cleanup on each Synchronize."""

    def synchronized(self, listed: Collection[PodUid], jobs: Jobs[Provider]) -> None:
        """Sweep."""
        self._begin(listed, jobs)


def test_a_sweep_on_each_synchronize_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above fails on the classic bug: it deletes the groups of living pods at a reconnect."""
    monkeypatch.setattr(driver_module, "Gate", SweepsEachTime)

    async def main() -> None:
        it = bench()
        with pytest.raises(AssertionError):
            await reconnect(it)
        await it.plugin.close()

    run(main())


def test_an_event_before_any_synchronize_ensures_the_mount_only() -> None:
    """A plugin without a Synchronize works; one that comes later must not sweep the groups made by then."""

    async def main() -> None:
        it = bench()
        stale(it.kernel, "pod_old")
        with capture_logs() as logs:
            await it.plugin.run_pod_sandbox(pod("a", "s"))
            await it.plugin.settled()
            assert any(call.path.name == "mountinfo" for call in it.fs.calls)
            for _ in range(2):
                await it.plugin.synchronize([pod("a", "s"), pod("b", "t")], [])
                await it.plugin.settled()
        assert it.groups() == ["pod_a", "pod_b", "pod_old"]
        assert it.fs.count("remove_dir") == 0
        assert not records(logs, "startup_cleanup")
        assert len(records(logs, "startup_cleanup_skipped")) == 1
        await it.plugin.close()

    run(main())


def test_an_event_that_means_nothing_does_not_cost_the_sweep() -> None:
    """Where no group was made, the first Synchronize may still sweep."""

    async def main() -> None:
        it = bench()
        stale(it.kernel, "pod_old")
        await it.plugin.stop_pod_sandbox(pod("x", "x"))
        await it.plugin.remove_container(None, container("y", "x"))
        await it.plugin.settled()
        assert it.fs.calls == []
        await it.plugin.synchronize([pod("a", "s")], [])
        await it.plugin.settled()
        assert it.groups() == ["pod_a"]
        await it.plugin.close()

    run(main())


def test_work_waits_for_the_sweep() -> None:
    """A START during a long sweep makes no group that the sweep could delete, and waits for its threads."""

    async def main() -> None:
        it = bench()
        stale(it.kernel, "pod_old")
        gate = it.gate("remove_dir")
        await it.plugin.synchronize([], [])
        await gate.reached()
        starting = asyncio.create_task(it.start("c", "s", "a"))
        resting = asyncio.create_task(it.plugin.settled())
        await asyncio.sleep(0)
        assert it.fs.count("create_dir") == 0
        assert not resting.done()
        gate.open()
        tids = await starting
        assert it.kernel.tasks_in(it.path("a")) == set(tids)
        await resting
        await it.plugin.close()

    run(main())


def test_without_cleanup_on_start_nothing_is_swept() -> None:
    """The setting is obeyed: no record, no removal."""

    async def main() -> None:
        it = bench(ResctrlPluginConfig(cleanup_on_start=False))
        stale(it.kernel, "pod_old")
        with capture_logs() as logs:
            await it.plugin.synchronize([pod("a", "s")], [])
            await it.plugin.settled()
        assert it.groups() == ["pod_a", "pod_old"]
        assert not [record for record in logs if record["event"].startswith("startup")]
        await it.plugin.close()

    run(main())


def test_a_log_that_fails_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reader may be gone; the work that waits for the startup goes on all the same."""

    async def main() -> None:
        it = bench()
        stale(it.kernel, "pod_old")
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
        await it.plugin.synchronize([pod("a", "s")], [])
        await it.plugin.settled()
        assert it.groups() == ["pod_a"]
        await it.plugin.close()

    def broken(*_: object) -> None:
        raise BrokenPipeError

    failed: list[object] = []
    monkeypatch.setattr("nri_resctrl_plugin.gate.log_startup", broken)
    run(main())
    assert len(failed) == 1


def test_without_a_mount_groups_are_failed_and_a_retry_finds_a_later_mount() -> None:
    """The failure is logged and is each pod's reason; once somebody mounts, a retry makes the group."""

    async def main() -> None:
        it = bench(kernel=FakeFs(mounted=False))
        with capture_logs() as logs:
            await it.plugin.synchronize([pod("a", "s")], [])
            await it.plugin.settled()
        assert len(records(logs, "startup_mount_failed")) == 1
        assert not records(logs, "startup_cleanup")
        state = it.plugin.snapshot()[PodUid("a")].group_state
        assert isinstance(state, Failed)
        assert "not mounted" in state.reason or "mount" in state.reason
        with pytest.raises(NotMountedError):
            await it.plugin.retry_group_creation("a")
        it.kernel.mount()
        assert await it.plugin.retry_group_creation("a") == Exists(it.path("a"))
        await it.plugin.close()

    run(main())


def test_a_mount_that_cannot_be_made_is_the_reason_of_every_pod() -> None:
    """On a machine without resctrl, auto_mount fails once, and each group says that, not what followed."""

    async def main() -> None:
        it = bench(ResctrlPluginConfig(auto_mount=True), kernel=FakeFs(supported=False))
        with capture_logs() as logs:
            await it.plugin.synchronize([pod("a", "s"), pod("b", "t")], [])
            await it.plugin.settled()
        failure = records(logs, "startup_mount_failed")[0]["error"]
        reasons = [event.group_state for event in it.plugin.snapshot().values()]
        assert [state.reason for state in reasons if isinstance(state, Failed)] == [failure] * 2
        with pytest.raises(UnsupportedError):
            await it.plugin.retry_group_creation("a")
        await it.plugin.close()

    run(main())


def test_the_reason_of_the_startup_is_forgotten_once_a_group_was_made() -> None:
    """A mount that is lost later is told as what it is, not as what failed at the start."""

    async def main() -> None:
        it = bench(ResctrlPluginConfig(auto_mount=True), kernel=FakeFs(mounted=False))
        it.faults.fail("mount_resctrl", errno.EPERM)
        await it.plugin.synchronize([pod("a", "s")], [])
        await it.plugin.settled()
        with pytest.raises(NoPermissionError):
            await it.plugin.retry_group_creation("a")
        it.kernel.mount()
        await it.plugin.retry_group_creation("a")
        it.kernel.unmount()
        await it.plugin.run_pod_sandbox(pod("b", "t"))
        await it.plugin.settled()
        with pytest.raises(NotMountedError):
            await it.plugin.retry_group_creation("b")
        await it.plugin.close()

    run(main())


def test_auto_mount_mounts() -> None:
    """With the setting, an unmounted machine works from the start."""

    async def main() -> None:
        it = bench(ResctrlPluginConfig(auto_mount=True), kernel=FakeFs(mounted=False))
        await it.plugin.synchronize([pod("a", "s")], [])
        await it.plugin.settled()
        assert it.groups() == ["pod_a"]
        await it.plugin.close()

    run(main())


def test_a_sweep_that_fails_stops_nothing() -> None:
    """Stale groups stay, it is logged, and pods get their groups."""

    async def main() -> None:
        it = bench()
        stale(it.kernel, "pod_old")
        it.faults.fail("read_child_dirs", errno.EIO)
        with capture_logs() as logs:
            await it.plugin.synchronize([pod("a", "s")], [])
            await it.plugin.settled()
        assert len(records(logs, "startup_cleanup_failed")) == 1
        assert not records(logs, "startup_cleanup")
        assert it.groups() == ["pod_a", "pod_old"]
        await it.plugin.close()

    run(main())


def test_what_is_owed_hits_no_group_that_is_made_meanwhile() -> None:
    """A pod that starts between the retry and the worker's turn for it has its group made after the sweep."""

    async def main() -> None:
        it = bench()
        stale(it.kernel, "pod_old")
        it.faults.fail("read_child_dirs", errno.EIO)
        await it.plugin.synchronize([], [])
        await it.plugin.settled()
        gate = it.gate("create_dir")
        await it.plugin.run_pod_sandbox(pod("first", "first"))
        await gate.reached()
        retry = asyncio.create_task(it.plugin.retry_all_once())
        await asyncio.sleep(0)
        starting = asyncio.create_task(it.start("c", "s", "late"))
        await asyncio.sleep(0)
        gate.open()
        assert (await retry).orphans_deleted == 1
        tids = await starting
        await it.plugin.settled()
        assert it.groups() == ["pod_first", "pod_late"]
        assert it.kernel.tasks_in(it.path("late")) == set(tids)
        assert it.record.events == [add("first"), add("late", 1), add("late", 1, 1)]
        await it.plugin.close()

    run(main())


def test_an_orphan_has_one_turn_in_a_pass() -> None:
    """What was just tried in vain is left out of the sweep that is made up for, and counts once."""

    async def main() -> None:
        it = bench()
        it.faults.fail("read_child_dirs", errno.EIO)
        await it.plugin.synchronize([pod("a", "s")], [])
        await it.plugin.settled()
        it.faults.fail("remove_dir", errno.EBUSY, times=2)
        await it.plugin.stop_pod_sandbox(pod("a", "s"))
        await it.plugin.settled()
        report = await it.plugin.retry_all_once()
        assert (report.orphans_deleted, report.orphans_kept, len(report.failures)) == (0, 1, 1)
        assert it.fs.count("remove_dir") == 2
        assert (await it.plugin.retry_all_once()).orphans_deleted == 1
        await it.plugin.close()

    run(main())


def test_what_is_owed_waits_for_a_mount_in_silence() -> None:
    """Unmounted there is nothing to sweep, and nothing that failed; once it is mounted it is made up for."""

    async def main() -> None:
        it = bench(kernel=FakeFs(mounted=False))
        await it.plugin.synchronize([], [])
        await it.plugin.settled()
        assert await it.plugin.retry_all_once() == RetryReport()
        it.kernel.mount()
        stale(it.kernel, "pod_old")
        assert await it.plugin.retry_all_once() == RetryReport(orphans_deleted=1)
        await it.plugin.close()

    run(main())


def test_what_is_owed_ends_with_the_plugin() -> None:
    """A pass that waits for it when the plugin is closed ends, and one after that begins nothing."""

    async def main() -> None:
        it = bench()
        it.faults.fail("read_child_dirs", errno.EIO)
        await it.plugin.synchronize([], [])
        await it.plugin.settled()
        gate = it.gate("read_child_dirs")
        retry = asyncio.create_task(it.plugin.retry_all_once())
        await gate.reached()
        closing = asyncio.create_task(it.plugin.close())
        await asyncio.sleep(0)
        gate.open()
        assert await retry == RetryReport()
        await closing
        assert await it.plugin.retry_all_once() == RetryReport()

    run(main())


def test_nothing_is_owed_that_was_not_due() -> None:
    """Without a listing, or without sweep and adoption, a failed start leaves no sweep for later."""

    async def main() -> None:
        for first in ("run", "listing"):
            it = bench(ResctrlPluginConfig(cleanup_on_start=first == "run"))
            stale(it.kernel, "pod_old")
            it.faults.fail("read_text", errno.EIO)
            if first == "run":
                await it.plugin.run_pod_sandbox(pod("a", "s"))
            else:
                await it.plugin.synchronize([pod("a", "s")], [])
            await it.plugin.settled()
            assert await it.plugin.retry_all_once() == RetryReport()
            assert it.groups() == ["pod_a", "pod_old"]
            await it.plugin.close()

    run(main())


@pytest.mark.parametrize(("mine", "theirs"), [("a_", "b_"), ("pod_", "")])
def test_a_prefix_that_differs_from_the_groups_is_refused(mine: str, theirs: str) -> None:
    """The sweep and the groups must mean the same prefix, so a mismatch is an error at the door."""
    resctrl = Resctrl.with_provider(FakeFs(), ResctrlConfig(group_prefix=theirs))
    with pytest.raises(ConfigError, match="give both the same"):
        ResctrlPlugin.with_resctrl(ResctrlPluginConfig(group_prefix=mine), resctrl)


def test_without_settings_the_prefix_is_the_groups() -> None:
    """Whoever gives only a Resctrl gets a plugin that agrees with it; an empty prefix cannot be swept."""
    ours = Resctrl.with_provider(FakeFs(), ResctrlConfig(group_prefix="x_"))
    assert ResctrlPlugin.with_resctrl(None, ours).config.group_prefix == "x_"
    everybodys = Resctrl.with_provider(FakeFs(), ResctrlConfig(group_prefix=""))
    with pytest.raises(ConfigError, match="an empty prefix"):
        ResctrlPlugin.with_resctrl(None, everybodys)


def test_a_plugin_of_its_own_uses_the_settings() -> None:
    """The plain constructor makes its Resctrl of the settings, or of the defaults."""
    config = ResctrlPluginConfig(group_prefix="x_")
    assert ResctrlPlugin(config)._driver.resctrl.config == ResctrlConfig(group_prefix="x_")
    assert ResctrlPlugin().config == ResctrlPluginConfig()


def test_created_containers_count_from_their_start() -> None:
    """Synchronize lists containers that do not run yet; they are no part of the counts, and no work."""

    async def main() -> None:
        it = bench()
        it.threads("c")
        with it.plugin.record_events() as record:
            await it.plugin.synchronize([pod("a", "s")], [container("c", "s", ContainerStatus.CREATED)])
            await it.plugin.settled()
            await it.start("c", "s", "a")
        assert record.events == [add("a"), add("a", 1, 1)]
        await it.plugin.close()

    run(main())
