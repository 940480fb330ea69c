"""What the plugin does with what the runtime tells: events, counters, START's wait, and never an error."""

from __future__ import annotations

import asyncio
import errno
import math
from pathlib import Path
from typing import NoReturn

import pytest
import structlog
from structlog.testing import capture_logs

from nri_resctrl_plugin import (
    CgroupError,
    ContainerState,
    Exists,
    Failed,
    PodResctrlAddOrUpdate,
    PodResctrlEvent,
    PodResctrlRemoved,
    PodUid,
    ResctrlPlugin,
    ResctrlPluginConfig,
)
from nri_resctrl_plugin.nri.messages import ContainerStatus, PodSandbox, RuntimeInfo
from resctrl import Resctrl
from resctrl.testing import FakeFs
from tests.plugin_support import Bench, ManualExecutor, bench, cgroup_of, container, pod, run


def add(uid: str, total: int = 0, reconciled: int = 0) -> PodResctrlAddOrUpdate:
    path = FakeFs().root / "mon_groups" / f"pod_{uid}"
    return PodResctrlAddOrUpdate(PodUid(uid), Exists(path), total, reconciled)


def failed(uid: str, total: int = 0) -> PodResctrlAddOrUpdate:
    return PodResctrlAddOrUpdate(PodUid(uid), Failed(), total, 0)


def gone(uid: str) -> PodResctrlRemoved:
    return PodResctrlRemoved(PodUid(uid))


async def told(it: Bench) -> list[PodResctrlEvent]:
    """Return what was told since the last call, once nothing is in flight."""
    await it.plugin.settled()
    events = it.record.events[:]
    it.record.events.clear()
    return events


# --- events and counters ---


def test_the_life_of_a_pod_event_by_event() -> None:
    """One event each: the group's outcome, a START's end, a STOP, the pod's end; none without a change."""

    async def main() -> None:
        it = bench()
        await it.plugin.run_pod_sandbox(pod("a", "s"))
        assert await told(it) == [add("a")]
        tids = await it.start("c", "s", "a", threads=3)
        assert await told(it) == [add("a", 1, 1)]
        assert it.kernel.tasks_in(it.path("a")) == set(tids)
        assert it.plugin.container_state("c") is ContainerState.RECONCILED
        await it.start("d", "s", threads=0)
        assert await told(it) == [add("a", 2, 1)]
        assert it.plugin.container_state("d") is ContainerState.PARTIAL
        for _ in range(2):
            await it.plugin.update_container(pod("a", "s"), container("c", "s"))
            await it.plugin.run_pod_sandbox(pod("a", "s"))
            assert await told(it) == []
        await it.plugin.stop_container(pod("a", "s"), container("c", "s"))
        assert await told(it) == [add("a", 1, 0)]
        await it.plugin.stop_container(None, container("c", "s"))
        await it.plugin.remove_container(None, container("c", "s"))
        assert await told(it) == []
        await it.plugin.remove_container(None, container("d", "s"))
        assert await told(it) == [add("a")]
        await it.plugin.stop_pod_sandbox(pod("a", "s"))
        assert await told(it) == [gone("a")]
        assert it.groups() == []
        for _ in range(2):
            await it.plugin.stop_pod_sandbox(pod("a", "s"))
            await it.plugin.remove_pod_sandbox(pod("a", "s"))
        assert await told(it) == []
        assert it.plugin.snapshot() == {}
        await it.plugin.close()

    run(main())


def test_a_listing_is_told_pod_by_pod_then_container_by_container() -> None:
    """Synchronize: one event per pod at its group's outcome, one per container that becomes reconciled."""

    async def main() -> None:
        it = bench()
        it.threads("c1", 2)
        it.threads("c2", 2)
        listing = [container("c1", "s"), container("c2", "s"), container("c3", "s")]
        await it.plugin.synchronize([pod("a", "s")], listing)
        assert it.record.events == []  # it answers before it works
        assert await told(it) == [add("a", 3, 0), add("a", 3, 1), add("a", 3, 2)]
        await it.plugin.close()

    run(main())


def test_a_listing_removes_what_it_does_not_list() -> None:
    """Pods and containers that ended while nobody listened are told by the next Synchronize."""

    async def main() -> None:
        it = bench()
        await it.start("c", "s", "a")
        await it.start("d", "t", "b")
        await told(it)
        await it.plugin.synchronize([pod("a", "s")], [])
        assert await told(it) == [gone("b"), add("a")]
        assert it.groups() == ["pod_a"]
        await it.plugin.close()

    run(main())


def test_stopped_sandboxes_that_are_listed_get_no_group() -> None:
    """They are listed until they are removed; they take no RMID, and a known one that stopped goes."""

    async def main() -> None:
        it = bench()
        await it.plugin.synchronize([pod("a", "s", live=False), pod("b", "t")], [])
        assert await told(it) == [add("b")]
        await it.plugin.synchronize([pod("a", "s", live=False), pod("b", "t", live=False)], [])
        assert await told(it) == [gone("b")]
        assert it.groups() == []
        await it.plugin.close()

    run(main())


def test_sandboxes_of_one_pod_share_its_group() -> None:
    """The counters sum, and Removed comes with the last: an old sandbox takes no living pod with it."""

    async def main() -> None:
        it = bench()
        await it.start("c", "s1", "a")
        await it.start("d", "s2", "a")
        assert (await told(it))[-1] == add("a", 2, 2)
        await it.plugin.stop_pod_sandbox(pod("a", "s1"))
        await it.plugin.remove_pod_sandbox(pod("a", "s1"))
        assert await told(it) == [add("a", 1, 1)]
        assert it.groups() == ["pod_a"]
        await it.plugin.remove_pod_sandbox(pod("a", "s2"))
        assert await told(it) == [gone("a")]
        await it.plugin.close()

    run(main())


def test_pods_without_a_uid_do_not_share_a_group() -> None:
    """The sandbox id takes the uid's place."""

    async def main() -> None:
        it = bench()
        for sandbox in ("s1", "s2"):
            await it.plugin.run_pod_sandbox(PodSandbox(id=sandbox, pid=1))
        await it.plugin.settled()
        assert it.groups() == ["pod_s1", "pod_s2"]
        await it.plugin.close()

    run(main())


def test_a_container_that_the_runtime_monitors_is_left_alone() -> None:
    """It counts in the total, its threads are not touched, and it is logged."""

    async def main() -> None:
        it = bench()
        tids = it.threads("c")
        with capture_logs() as logs:
            await it.plugin.start_container(pod("a", "s"), container("c", "s", monitored=True))
            assert await told(it) == [add("a", 1, 0)]
        assert it.plugin.container_state("c") is ContainerState.RUNTIME_MONITORED
        assert it.kernel.tasks_in(it.path("a")) == set()
        assert it.pids.calls[cgroup_of("c")] == 0
        assert tids
        assert [log["container_id"] for log in logs if log["event"] == "container_left_to_runtime"] == ["c"]
        await it.plugin.close()

    run(main())


def test_a_container_without_a_pod_is_kept_until_its_pod_comes() -> None:
    """It counts nowhere, then it is promoted; a retry meanwhile says so."""

    async def main() -> None:
        it = bench()
        await it.start("c", "s")
        assert it.plugin.container_state("c") is ContainerState.NO_POD
        assert await it.plugin.retry_container_reconcile("c") is ContainerState.NO_POD
        assert await told(it) == []
        await it.plugin.run_pod_sandbox(pod("a", "s"))
        assert (await told(it))[-1] == add("a", 1, 1)
        await it.plugin.close()

    run(main())


# --- attempts that do not succeed ---


def test_a_full_machine_makes_failed_groups_and_no_attempt() -> None:
    """The pod is told as Failed, its containers count, and nothing is tried by itself."""

    async def main() -> None:
        it = bench(kernel=FakeFs(num_rmids=1))
        with capture_logs() as logs:
            await it.start("c", "s", "a")
            assert await told(it) == [failed("a", 1)]
        assert it.pids.calls[cgroup_of("c")] == 0
        assert it.fs.count("create_dir") == 1
        assert [log["event"] for log in logs].count("group_refused") == 1
        await it.plugin.stop_pod_sandbox(pod("a", "s"))
        assert await told(it) == [gone("a")]
        assert it.fs.count("remove_dir") == 0
        await it.plugin.close()

    run(main())


@pytest.mark.parametrize(
    ("operation", "number"), [("write", errno.EINVAL), ("write", errno.EIO), ("write_all", errno.ENOENT)]
)
def test_a_hard_error_is_logged_and_leaves_the_container_partial(operation: str, number: int) -> None:
    """A refusing kernel, a wrong class, a group that somebody removed: nobody retries, so it is logged."""

    async def main() -> None:
        it = bench()
        it.faults.fail(operation, number, times=math.inf)
        with capture_logs() as logs:
            await it.start("c", "s", "a")
        assert await told(it) == [add("a", 1, 0)]
        assert it.plugin.container_state("c") is ContainerState.PARTIAL
        failures = [log for log in logs if log["event"] == "reconcile_failed"]
        assert [log["container_id"] for log in failures] == ["c"]
        assert errno.errorcode[number] in failures[0]["error"]
        await it.plugin.close()

    run(main())


@pytest.mark.parametrize("error", [CgroupError("no such hierarchy"), ZeroDivisionError("a bug")])
def test_a_source_that_fails_is_a_hard_error(error: Exception) -> None:
    """Even a bug in the source costs one container its attempt, and nothing else."""

    async def main() -> None:
        it = bench()
        it.pids.sequence(cgroup_of("c"), error)
        with capture_logs() as logs:
            await it.plugin.start_container(pod("a", "s"), container("c", "s"))
        assert await told(it) == [add("a", 1, 0)]
        assert [log["event"] for log in logs].count("reconcile_failed") == 1
        await it.start("d", "s")
        assert await told(it) == [add("a", 2, 1)]
        await it.plugin.close()

    run(main())


def test_no_threads_is_partial_and_no_error() -> None:
    """A container that ended at once is nobody's fault."""

    async def main() -> None:
        it = bench()
        with capture_logs() as logs:
            await it.start("c", "s", "a", threads=0)
        assert await told(it) == [add("a", 1, 0)]
        assert not [log for log in logs if log["event"] == "reconcile_failed"]
        await it.plugin.close()

    run(main())


def test_a_container_that_never_comes_to_rest_is_partial() -> None:
    """It is listed as often as the settings say, not for ever."""

    async def main() -> None:
        it = bench(ResctrlPluginConfig(max_reconcile_passes=3))
        it.pids.never_converge(cgroup_of("c"), it.kernel.spawn)
        await it.plugin.start_container(pod("a", "s"), container("c", "s"))
        assert await told(it) == [add("a", 1, 0)]
        assert it.fs.count("write_all") == 3
        await it.plugin.close()

    run(main())


def test_a_repeated_start_tries_again() -> None:
    """It is one of the two ways: it makes the group and the assignment, and tells what changed."""

    async def main() -> None:
        it = bench()
        it.faults.fail("create_dir", errno.ENOSPC)
        await it.start("c", "s", "a")
        assert (await told(it))[-1] == failed("a", 1)
        await it.plugin.start_container(pod("a", "s"), container("c", "s"))
        assert (await told(it))[-1] == add("a", 1, 1)
        await it.plugin.start_container(pod("a", "s"), container("c", "s"))
        assert await told(it) == []
        await it.plugin.close()

    run(main())


# --- START waits ---


def test_start_returns_when_its_threads_are_in_the_group() -> None:
    """The runtime executes the workload when START returns, so nothing can be missed."""

    async def main() -> None:
        it = bench()
        gate = it.gate("write_all")
        starting = asyncio.create_task(it.start("c", "s", "a", threads=5))
        await gate.reached()
        assert not starting.done()
        gate.open()
        tids = await starting
        assert it.kernel.tasks_in(it.path("a")) == set(tids)
        await it.plugin.close()

    run(main())


@pytest.mark.parametrize(("request_timeout", "budget"), [(2.0, 1.0), (0.5, 0.25), (60.0, 1.0), (0.0, 1.0)])
def test_start_waits_for_half_of_the_runtimes_limit_at_most(request_timeout: float, budget: float) -> None:
    """Never longer than a second: every other pod's events queue up behind it."""

    async def main() -> None:
        it = bench()
        await it.plugin.configure(RuntimeInfo(request_timeout=request_timeout))
        assert it.plugin._start_wait == budget

    run(main())


def test_an_attempt_that_takes_longer_ends_behind_its_start() -> None:
    """The runtime is answered, and the assignment goes on and is told when it ends."""

    async def main() -> None:
        it = bench()
        await it.plugin.configure(RuntimeInfo(request_timeout=0.02))
        gate = it.gate("write_all")
        with capture_logs() as logs:
            tids = await it.start("c", "s", "a")
        assert [log["event"] for log in logs].count("start_goes_on_behind") == 1
        await gate.reached()
        assert it.kernel.tasks_in(it.path("a")) == set()
        assert it.record.events == [add("a", 1, 0)]
        gate.open()
        assert (await told(it))[-1] == add("a", 1, 1)
        assert it.kernel.tasks_in(it.path("a")) == set(tids)
        await it.plugin.close()

    run(main())


def test_starts_that_gave_up_are_not_kept() -> None:
    """A runtime that repeats a START of a stuck container costs no memory."""

    async def main() -> None:
        it = bench()
        await it.plugin.configure(RuntimeInfo(request_timeout=0.002))
        gate = it.gate("write_all")
        await it.start("c", "s", "a")
        for _ in range(20):
            await it.plugin.start_container(pod("a", "s"), container("c", "s"))
        await gate.reached()
        kept = [len(each.answers) for each in it.plugin._driver.waiters._attempts.values()]
        assert kept == [1]
        gate.open()
        await it.plugin.settled()
        await it.plugin.close()

    run(main())


def test_a_cancelled_start_leaves_nothing_behind() -> None:
    """A runtime that gives up on us takes nobody else's answer away."""

    async def main() -> None:
        it = bench()
        gate = it.gate("write_all")
        starting = asyncio.create_task(it.start("c", "s", "a"))
        await gate.reached()
        retrying = asyncio.create_task(it.plugin.retry_container_reconcile("c"))
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        gate.open()
        assert await retrying is ContainerState.RECONCILED
        await it.plugin.close()

    run(main())


def test_a_starting_pod_overtakes_a_big_startup() -> None:
    """START does not wait behind hundreds of listed pods: its mkdir comes next, then its assignment."""

    async def main() -> None:
        it = bench(kernel=FakeFs(num_rmids=64))
        gate = it.gate("create_dir")
        listed = [pod(f"p{number}", f"s{number}") for number in range(40)]
        await it.plugin.synchronize(listed, [])
        await gate.reached()
        starting = asyncio.create_task(it.start("c", "s39", threads=2))
        await asyncio.sleep(0)
        gate.open()
        tids = await starting
        assert it.kernel.tasks_in(it.path("p39")) == set(tids)
        made = [call.path.name for call in it.fs.calls if call.operation in {"create_dir", "write_all"}]
        assert made[:3] == ["pod_p0", "pod_p39", "tasks"]
        await it.plugin.settled()
        assert len(it.groups()) == 40
        await it.plugin.close()

    run(main())


def test_work_that_a_start_waits_for_is_urgent_until_its_attempt_ends() -> None:
    """Urgent are the pod's waiting job, and what follows from it; then the pod is like any other again."""

    async def main() -> None:
        hand = ManualExecutor()
        it = bench(executor=hand)
        await it.plugin.run_pod_sandbox(pod("a", "s"))
        assert hand.step()  # startup
        assert [job.urgent for job in hand.waiting] == [False]
        starting = asyncio.create_task(it.start("c", "s"))
        await asyncio.sleep(0)
        assert [job.urgent for job in hand.waiting] == [True]
        hand.step()
        assert [job.urgent for job in hand.waiting] == [True]
        hand.step()
        await starting
        await it.plugin.stop_pod_sandbox(pod("a", "s"))
        assert [job.urgent for job in hand.waiting] == [False]
        await it.plugin.close()

    run(main())


# --- never an error ---


def test_a_handler_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error answer breaks pods, so even a bug of ours is logged and answered with success."""

    async def main() -> None:
        it = bench()

        def broken(_: object) -> object:
            raise ZeroDivisionError

        monkeypatch.setattr(it.plugin._driver.table, "apply", broken)
        sandbox, box = pod("a", "s"), container("c", "s")
        with capture_logs() as logs:
            await it.plugin.synchronize([sandbox], [box])
            await it.plugin.run_pod_sandbox(sandbox)
            await it.plugin.stop_pod_sandbox(sandbox)
            await it.plugin.remove_pod_sandbox(sandbox)
            await it.plugin.start_container(sandbox, box)
            await it.plugin.stop_container(None, box)
            await it.plugin.remove_container(None, box)
            await it.plugin.update_container(None, box)
        calls = [log["call"] for log in logs if log["event"] == "event_failed"]
        assert len(calls) == 7
        await it.plugin.close()

    run(main())


def test_facts_are_applied_before_the_first_await() -> None:
    """What a handler is told holds from the call on, not from some later turn of the loop."""

    async def main() -> None:
        it = bench()
        sandbox, box = pod("a", "s"), container("c", "s")
        for call in (
            it.plugin.run_pod_sandbox(sandbox),
            it.plugin.stop_container(sandbox, box),
            it.plugin.stop_pod_sandbox(sandbox),
            it.plugin.remove_container(sandbox, box),
            it.plugin.remove_pod_sandbox(sandbox),
            it.plugin.synchronize([sandbox], [box]),
        ):
            with pytest.raises(StopIteration):  # it ran to its end at the first step
                call.send(None)
        starting = it.plugin.start_container(sandbox, container("d", "s"))
        starting.send(None)
        assert it.plugin.container_state("d") is ContainerState.PARTIAL
        starting.close()
        await it.plugin.close()

    run(main())


# --- settings from the runtime ---


def test_a_launched_plugin_takes_its_settings_from_configure(tmp_path: Path) -> None:
    """A plugin that the runtime launches has no other way; it counts before anything was made."""

    async def main() -> None:
        plugin = ResctrlPlugin.with_resctrl(None, Resctrl.with_provider(FakeFs()))
        text = f"group_prefix: e2e_\ncgroup_root: {tmp_path}\nmax_reconcile_passes: 2"
        await plugin.configure(RuntimeInfo(config=text))
        assert plugin.config == ResctrlPluginConfig(
            group_prefix="e2e_", cgroup_root=tmp_path, max_reconcile_passes=2
        )
        await plugin.run_pod_sandbox(pod("a", "s"))
        await plugin.settled()
        fs = plugin._driver.resctrl.fs
        assert fs.read_child_dirs(fs.root / "mon_groups") == ["e2e_a"]
        await plugin.close()

    run(main())


def test_settings_that_come_too_late_change_nothing() -> None:
    """They are logged: an error answer to Configure would keep the runtime from starting."""

    async def main() -> None:
        it = bench()
        with capture_logs() as logs:
            await it.plugin.run_pod_sandbox(pod("a", "s"))
            await it.plugin.configure(RuntimeInfo(config="group_prefix: pod_"))
            await it.plugin.configure(RuntimeInfo(config="group_prefix: x_"))
            await it.plugin.configure(RuntimeInfo(config="group_prefx: x"))
            await it.plugin.settled()
        assert it.plugin.config == ResctrlPluginConfig()
        events = [log["event"] for log in logs]
        assert events.count("configuration_refused") == 1
        assert events.count("configuration_ignored") == 2
        await it.plugin.close()

    run(main())


def test_a_log_that_fails_costs_no_outcome() -> None:
    """Where nothing can be logged, what became of a group and of a container is told all the same."""

    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "the disk is full")

    async def main() -> None:
        it = bench(kernel=FakeFs(num_rmids=2))
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # it hears of the log's failures
        await it.plugin.run_pod_sandbox(pod("a", "s"))
        it.faults.fail("write_all", errno.EIO)
        await it.start("c", "s", "a")
        await it.plugin.run_pod_sandbox(pod("b", "t"))
        await it.plugin.settled()
        assert it.plugin.container_state("c") is ContainerState.PARTIAL
        assert isinstance(it.plugin.snapshot()[PodUid("b")].group_state, Failed)
        await it.plugin.close()

    structlog.configure(processors=[full])
    try:
        run(main())
    finally:
        structlog.reset_defaults()


def test_settings_that_are_refused_sweep_nothing() -> None:
    """With a typo in the runtime's text it is not known which groups are ours, so none is swept."""

    async def main() -> None:
        it = bench()
        root = it.kernel.root
        it.kernel.create_dir(root / "mon_groups" / "pod_of_somebody")
        with capture_logs() as logs:
            await it.plugin.configure(RuntimeInfo(config="group_prefx: mine_\ncleanup_on_start: false"))
            await it.plugin.synchronize([pod("a", "s")], [])
            await it.plugin.settled()
        assert it.kernel.read_child_dirs(root / "mon_groups") == ["pod_a", "pod_of_somebody"]
        (refused,) = [log for log in logs if log["event"] == "configuration_refused"]
        assert "group_prefx" in refused["error"]
        await it.plugin.close()

    run(main())


def test_another_root_from_the_runtime_is_used() -> None:
    """Only where it was named; otherwise the given Resctrl's own root stays."""

    async def main() -> None:
        root = Path("/mnt/resctrl")
        it = bench()
        await it.plugin.configure(RuntimeInfo(config=f"resctrl_root: {root}"))
        assert it.plugin._driver.resctrl.config.root == root
        await it.plugin.configure(RuntimeInfo(config="max_reconcile_passes: 2"))
        assert it.plugin._driver.resctrl.config.root == root
        await it.plugin.close()

    run(main())


def test_a_paused_container_counts() -> None:
    """Paused is not stopped."""

    async def main() -> None:
        it = bench()
        it.threads("c")
        await it.plugin.synchronize([pod("a", "s")], [container("c", "s", ContainerStatus.PAUSED)])
        assert (await told(it))[-1] == add("a", 1, 1)
        await it.plugin.close()

    run(main())
