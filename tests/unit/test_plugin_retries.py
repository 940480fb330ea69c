"""The `retry_*` calls: what they try, what they join, what they raise, and what they tell."""

from __future__ import annotations

import asyncio
import errno
import math
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from attrs import define
from structlog.testing import capture_logs

from nri_resctrl_plugin import (
    CgroupError,
    ContainerNotFoundError,
    ContainerState,
    Exists,
    Failed,
    PodNotFoundError,
    PodResctrlAddOrUpdate,
    PodResctrlEvent,
    PodUid,
    ResctrlPluginConfig,
    RetryReport,
    RetrySubject,
)
from resctrl import (
    CapacityError,
    GroupNotFoundError,
    NoPermissionError,
    NotMountedError,
    ResctrlError,
    RmidsBusyError,
    TaskNotInParentError,
)
from resctrl.testing import FakeFs
from tests.plugin_support import Bench, bench, cgroup_of, container, pod, run


def add(uid: str, total: int = 0, reconciled: int = 0) -> PodResctrlAddOrUpdate:
    path = FakeFs().root / "mon_groups" / f"pod_{uid}"
    return PodResctrlAddOrUpdate(PodUid(uid), Exists(path), total, reconciled)


async def told(it: Bench) -> list[PodResctrlEvent]:
    """Return what was told since the last call, once nothing is in flight."""
    await it.plugin.settled()
    events = it.record.events[:]
    it.record.events.clear()
    return events


async def failed_pod(it: Bench, uid: str = "a", sandbox: str = "s", number: int = errno.ENOSPC) -> None:
    """Bring up a pod whose group is refused."""
    it.faults.fail("create_dir", number, path=it.path(uid))
    await it.plugin.run_pod_sandbox(pod(uid, sandbox))
    await it.plugin.settled()
    assert isinstance(it.plugin.snapshot()[PodUid(uid)].group_state, Failed)
    it.record.events.clear()
    it.fs.forget()


async def partial_container(it: Bench, name: str = "c", sandbox: str = "s", uid: str = "a") -> None:
    """Bring up a container whose first attempt fails."""
    it.faults.fail("write_all", errno.EIO, path=it.path(uid) / "tasks")
    await it.start(name, sandbox, uid)
    await it.plugin.settled()
    assert it.plugin.container_state(name) is ContainerState.PARTIAL
    it.record.events.clear()
    it.fs.forget()


# --- groups ---


def test_a_group_is_made_and_told_once() -> None:
    """Success returns the group and brings exactly one event; a second call returns it in silence."""

    async def main() -> None:
        it = bench()
        await failed_pod(it)
        assert await it.plugin.retry_group_creation("a") == Exists(it.path("a"))
        assert await told(it) == [add("a")]
        assert await it.plugin.retry_group_creation("a") == Exists(it.path("a"))
        assert await told(it) == []
        assert it.fs.count("create_dir") == 1
        await it.plugin.close()

    run(main())


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, CapacityError),
        (errno.EBUSY, RmidsBusyError),
        (errno.EACCES, NoPermissionError),
        (errno.EIO, ResctrlError),
    ],
)
def test_a_group_that_is_refused_again_raises_the_typed_error_in_silence(
    number: int, error: type[ResctrlError]
) -> None:
    """The caller learns why; the audience is told nothing, since nothing changed."""

    async def main() -> None:
        it = bench()
        await failed_pod(it)
        it.faults.fail("create_dir", number)
        with pytest.raises(error):
            await it.plugin.retry_group_creation("a")
        assert await told(it) == []
        await it.plugin.close()

    run(main())


def test_an_error_that_answers_many_retries_does_not_grow() -> None:
    """On a node where resctrl is not mounted the same error is raised for ever; it gathers no frames."""

    async def main() -> None:
        it = bench(kernel=FakeFs(mounted=False))
        await it.plugin.synchronize([pod("a", "s")], [])
        await it.plugin.settled()
        depths = set()
        for _ in range(20):
            with pytest.raises(NotMountedError) as raised:
                await it.plugin.retry_group_creation("a")
            depths.add(len(list(traceback.walk_tb(raised.value.__traceback__))))
            await it.plugin.retry_all_once()
        assert len(depths) == 1
        await it.plugin.close()

    run(main())


def test_a_pod_that_is_not_known_is_an_error() -> None:
    """Before it came, and after it went."""

    async def main() -> None:
        it = bench()
        with pytest.raises(PodNotFoundError):
            await it.plugin.retry_group_creation("a")
        await failed_pod(it)
        await it.plugin.stop_pod_sandbox(pod("a", "s"))
        with pytest.raises(PodNotFoundError):
            await it.plugin.retry_group_creation("a")
        await it.plugin.close()

    run(main())


def test_a_group_that_a_retry_made_starts_no_reconcile() -> None:
    """Containers are the other call's business; the counts stay as they are."""

    async def main() -> None:
        it = bench()
        await failed_pod(it)
        tids = await it.start("c", "s")
        assert tids
        await told(it)
        await it.plugin.retry_group_creation("a")
        assert await told(it) == [add("a", 1, 0)]
        assert it.pids.calls[cgroup_of("c")] == 0
        assert await it.plugin.retry_container_reconcile("c") is ContainerState.RECONCILED
        assert await told(it) == [add("a", 1, 1)]
        await it.plugin.close()

    run(main())


@pytest.mark.parametrize("good", [True, False])
def test_retries_join_the_creation_that_runs(good: bool) -> None:
    """The first attempt or another retry under way is shared, with its outcome: no second mkdir."""

    async def main() -> None:
        it = bench()
        gate = it.gate("create_dir")
        if not good:
            it.faults.fail("create_dir", errno.ENOSPC)
        await it.plugin.run_pod_sandbox(pod("a", "s"))
        await gate.reached()
        calls = [asyncio.create_task(it.plugin.retry_group_creation("a")) for _ in range(3)]
        await asyncio.sleep(0)
        calls[0].cancel()
        gate.open()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(outcomes[0], asyncio.CancelledError)
        if good:
            assert outcomes[1:] == [Exists(it.path("a"))] * 2
        else:
            assert [type(outcome) for outcome in outcomes[1:]] == [CapacityError] * 2
        assert it.fs.count("create_dir") == 1
        await it.plugin.close()

    run(main())


# --- containers ---


def test_a_container_is_reconciled_and_told_once() -> None:
    """Becoming RECONCILED is one event; a second call says so in silence and looks at nothing."""

    async def main() -> None:
        it = bench()
        await partial_container(it)
        assert await it.plugin.retry_container_reconcile("c") is ContainerState.RECONCILED
        assert await told(it) == [add("a", 1, 1)]
        it.fs.forget()
        assert await it.plugin.retry_container_reconcile("c") is ContainerState.RECONCILED
        assert await told(it) == []
        assert it.fs.calls == []
        await it.plugin.close()

    run(main())


def test_a_container_that_is_not_known_is_an_error() -> None:
    """Before it started, and after it stopped."""

    async def main() -> None:
        it = bench()
        with pytest.raises(ContainerNotFoundError):
            await it.plugin.retry_container_reconcile("c")
        await it.start("c", "s", "a")
        await it.plugin.stop_container(None, container("c", "s"))
        with pytest.raises(ContainerNotFoundError):
            await it.plugin.retry_container_reconcile("c")
        await it.plugin.close()

    run(main())


def test_without_a_group_or_without_threads_a_container_stays_partial() -> None:
    """Neither is an error, neither is told, and no group is made on the way."""

    async def main() -> None:
        it = bench()
        await failed_pod(it)
        await it.start("c", "s")
        await told(it)
        assert await it.plugin.retry_container_reconcile("c") is ContainerState.PARTIAL
        assert it.pids.calls[cgroup_of("c")] == 0
        await it.plugin.retry_group_creation("a")
        it.pids.forget(cgroup_of("c"))
        await told(it)
        assert await it.plugin.retry_container_reconcile("c") is ContainerState.PARTIAL
        assert await told(it) == []
        await it.plugin.close()

    run(main())


def test_a_container_that_does_not_converge_is_partial_in_silence() -> None:
    """New threads without end are no error and no news."""

    async def main() -> None:
        it = bench()
        await partial_container(it)
        it.pids.never_converge(cgroup_of("c"), it.kernel.spawn)
        assert await it.plugin.retry_container_reconcile("c") is ContainerState.PARTIAL
        assert await told(it) == []
        await it.plugin.close()

    run(main())


@pytest.mark.parametrize(
    ("operation", "number", "error"),
    [
        ("write", errno.EINVAL, TaskNotInParentError),
        ("write_all", errno.ENOENT, GroupNotFoundError),
        ("write_all", errno.EIO, ResctrlError),
    ],
)
def test_a_hard_error_is_raised_and_the_container_stays_partial(
    operation: str, number: int, error: type[ResctrlError]
) -> None:
    """The caller learns why; nobody is told, and nobody logs what is raised."""

    async def main() -> None:
        it = bench()
        await partial_container(it)
        it.faults.fail(operation, number, times=math.inf)
        with capture_logs() as logs, pytest.raises(error):
            await it.plugin.retry_container_reconcile("c")
        assert logs == []
        assert it.plugin.container_state("c") is ContainerState.PARTIAL
        assert await told(it) == []
        await it.plugin.close()

    run(main())


def test_the_source_s_error_is_raised() -> None:
    """A cgroup that cannot be listed is as hard as a kernel that refuses."""

    async def main() -> None:
        it = bench()
        await partial_container(it)
        it.pids.sequence(cgroup_of("c"), CgroupError("no hierarchy"))
        with pytest.raises(CgroupError):
            await it.plugin.retry_container_reconcile("c")
        await it.plugin.close()

    run(main())


def test_retries_join_the_attempt_that_runs() -> None:
    """The first attempt of a START is shared with its outcome, also a hard error: no second listing."""

    async def main() -> None:
        it = bench()
        gate = it.gate("write_all")
        it.faults.fail("write_all", errno.EIO)
        starting = asyncio.create_task(it.start("c", "s", "a"))
        await gate.reached()
        calls = [asyncio.create_task(it.plugin.retry_container_reconcile("c")) for _ in range(2)]
        await asyncio.sleep(0)
        gate.open()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(outcome, ResctrlError) for outcome in outcomes)
        await starting
        assert it.fs.count("write_all") == 1
        await it.plugin.close()

    run(main())


def test_a_retry_waits_for_the_group_that_is_being_made() -> None:
    """A container whose first attempt waits for its group has an attempt to join."""

    async def main() -> None:
        it = bench()
        gate = it.gate("create_dir")
        starting = asyncio.create_task(it.start("c", "s", "a"))
        await gate.reached()
        retrying = asyncio.create_task(it.plugin.retry_container_reconcile("c"))
        await asyncio.sleep(0)
        gate.open()
        assert await retrying is ContainerState.RECONCILED
        await starting
        await it.plugin.close()

    run(main())


# --- everything once ---


def test_a_pass_with_nothing_to_do_does_nothing() -> None:
    """It reports that, also before anything happened."""

    async def main() -> None:
        it = bench()
        assert await it.plugin.retry_all_once() == RetryReport()
        await it.start("c", "s", "a")
        await it.plugin.settled()
        it.fs.forget()
        assert await it.plugin.retry_all_once() == RetryReport()
        assert it.fs.calls == []
        await it.plugin.close()

    run(main())


def test_group_creation_stops_at_the_first_capacity_error_and_containers_are_all_tried() -> None:
    """Exact mkdir count: one per group up to the first that has no room; then every partial container."""

    async def main() -> None:
        it = bench()
        for number in range(4):
            await failed_pod(it, f"p{number}", f"s{number}")
        await partial_container(it, "c1", "t", "a")
        await partial_container(it, "c2", "t", "a")
        it.fs.forget()
        it.faults.fail("create_dir", errno.EACCES, path=it.path("p0"))
        it.faults.fail("create_dir", errno.ENOSPC, path=it.path("p2"))
        report = await it.plugin.retry_all_once()
        assert [call.path for call in it.fs.calls if call.operation == "create_dir"] == [
            it.path(f"p{number}") for number in range(3)
        ]
        assert report == RetryReport(
            groups_created=1,
            groups_failed=2,
            groups_untried=1,
            capacity_exhausted=True,
            containers_reconciled=2,
            failures=report.failures,
        )
        assert [(each.subject, each.id, type(each.error)) for each in report.failures] == [
            (RetrySubject.GROUP, "p0", NoPermissionError),
            (RetrySubject.GROUP, "p2", CapacityError),
        ]
        assert await told(it) == [add("p1"), add("a", 2, 1), add("a", 2, 2)]
        await it.plugin.close()

    run(main())


def test_limbo_is_capacity_too() -> None:
    """EBUSY ends the group part of a pass like ENOSPC does."""

    async def main() -> None:
        it = bench()
        for number in range(2):
            await failed_pod(it, f"p{number}", f"s{number}")
        it.faults.fail("create_dir", errno.EBUSY, times=math.inf)
        report = await it.plugin.retry_all_once()
        assert (report.capacity_exhausted, report.groups_failed, report.groups_untried) == (True, 1, 1)
        assert it.fs.count("create_dir") == 1
        await it.plugin.close()

    run(main())


def test_orphans_go_first_and_free_their_rmids() -> None:
    """A group whose pod is gone is deleted before others are made: its RMID is the one they need."""

    async def main() -> None:
        it = bench(kernel=FakeFs(num_rmids=2))
        await it.plugin.run_pod_sandbox(pod("a", "s"))
        await it.plugin.settled()
        it.faults.fail("remove_dir", errno.EBUSY)
        await it.plugin.stop_pod_sandbox(pod("a", "s"))
        await it.plugin.settled()
        assert it.groups() == ["pod_a"]
        await it.plugin.run_pod_sandbox(pod("b", "t"))
        await it.plugin.settled()
        assert await it.plugin.retry_all_once() == RetryReport(orphans_deleted=1, groups_created=1)
        assert it.groups() == ["pod_b"]
        await it.plugin.close()

    run(main())


def test_a_container_whose_group_the_pass_made_is_tried_too() -> None:
    """One call brings a pod from Failed to complete."""

    async def main() -> None:
        it = bench()
        await failed_pod(it)
        await it.start("c", "s")
        await told(it)
        report = await it.plugin.retry_all_once()
        assert report == RetryReport(groups_created=1, containers_reconciled=1)
        assert await told(it) == [add("a", 1, 0), add("a", 1, 1)]
        await it.plugin.close()

    run(main())


def test_no_bad_item_ends_the_pass() -> None:
    """An orphan, a group and containers that fail again in every way are reported, and the rest is done."""

    async def main() -> None:
        it = bench()
        await it.plugin.run_pod_sandbox(pod("o", "o"))
        it.faults.fail("remove_dir", errno.EPERM, times=math.inf)
        await it.plugin.stop_pod_sandbox(pod("o", "o"))
        await failed_pod(it, "f", "f")
        await it.start("left", "f")
        for name in ("bad", "worse", "good"):
            await partial_container(it, name)
        it.faults.fail("create_dir", errno.EIO, times=math.inf)
        it.pids.sequence(cgroup_of("bad"), ZeroDivisionError())
        it.pids.never_converge(cgroup_of("worse"), it.kernel.spawn)
        report = await it.plugin.retry_all_once()
        assert report == RetryReport(
            orphans_kept=1,
            groups_failed=1,
            containers_reconciled=1,
            containers_partial=3,
            failures=report.failures,
        )
        assert [(each.subject, each.id) for each in report.failures] == [
            (RetrySubject.ORPHAN, "o"),
            (RetrySubject.GROUP, "f"),
            (RetrySubject.CONTAINER, "bad"),
        ]
        assert it.plugin.container_state("good") is ContainerState.RECONCILED
        await it.plugin.close()

    run(main())


def test_passes_do_not_overlap() -> None:
    """A second call joins the pass that runs: no double work, one report; a cancelled caller ends nothing."""

    async def main() -> None:
        it = bench()
        await failed_pod(it)
        gate = it.gate("create_dir")
        calls = [asyncio.create_task(it.plugin.retry_all_once()) for _ in range(3)]
        await gate.reached()
        resting = asyncio.create_task(it.plugin.settled())
        calls[0].cancel()
        await asyncio.sleep(0)
        gate.open()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert outcomes[1:] == [RetryReport(groups_created=1)] * 2
        assert it.fs.count("create_dir") == 1
        await resting
        assert await it.plugin.retry_all_once() == RetryReport()
        await it.plugin.close()

    run(main())


def test_settled_waits_for_a_pass_that_has_only_begun() -> None:
    """Between two of its items nothing is in flight, but it is not over."""

    async def main() -> None:
        it = bench()
        await failed_pod(it)
        passing = asyncio.create_task(it.plugin.retry_all_once())
        await asyncio.sleep(0)  # the pass exists and has not taken its first step
        assert it.fs.count("create_dir") == 0
        await it.plugin.settled()
        assert it.groups() == ["pod_a"]
        assert await passing == RetryReport(groups_created=1)
        await it.plugin.close()

    run(main())


def test_a_call_in_the_middle_of_a_pass_begins_no_second_one() -> None:
    """What the pass has tried already is not tried again for a caller that comes later."""

    async def main() -> None:
        it = bench()
        for name in ("f1", "f2"):
            await failed_pod(it, name, name)
        it.fs.forget()
        gate = it.gate("create_dir", path=it.path("f2"))
        it.faults.fail("create_dir", errno.EACCES, times=math.inf)
        first = asyncio.create_task(it.plugin.retry_all_once())
        await gate.reached()
        second = asyncio.create_task(it.plugin.retry_all_once())
        await asyncio.sleep(0)
        gate.open()
        assert await first == await second
        assert it.fs.count("create_dir") == 2
        await it.plugin.close()

    run(main())


def test_a_pass_bears_that_everything_goes_away_meanwhile() -> None:
    """What ends during the pass is no failure; an orphan whose pod is back is none any more."""

    async def main() -> None:
        it = bench()
        for name in ("o1", "o2"):
            await it.plugin.run_pod_sandbox(pod(name, name))
            await it.plugin.settled()
            it.faults.fail("remove_dir", errno.EPERM)
            await it.plugin.stop_pod_sandbox(pod(name, name))
            await it.plugin.settled()
        await failed_pod(it, "f", "f")
        await partial_container(it)
        gate = it.gate("remove_dir")
        passing = asyncio.create_task(it.plugin.retry_all_once())
        await gate.reached()
        await it.plugin.run_pod_sandbox(pod("o2", "o2-again"))
        await it.plugin.stop_pod_sandbox(pod("f", "f"))
        await it.plugin.stop_container(None, container("c", "s"))
        gate.open()
        assert await passing == RetryReport(orphans_deleted=1)
        await it.plugin.settled()
        assert it.groups() == ["pod_a", "pod_o2"]
        await it.plugin.close()

    run(main())


# --- gone meanwhile ---


@define
class Leaves:
    """Something that goes away while a retry waits."""

    call: Callable[[Bench], Coroutine[Any, Any, object]]
    operation: str
    leave: Callable[[Bench], Coroutine[Any, Any, None]]
    error: type[Exception]


@pytest.mark.parametrize(
    "case",
    [
        Leaves(
            lambda it: it.plugin.retry_group_creation("a"),
            "create_dir",
            lambda it: it.plugin.stop_pod_sandbox(pod("a", "s")),
            PodNotFoundError,
        ),
        Leaves(
            lambda it: it.plugin.retry_container_reconcile("c"),
            "write_all",
            lambda it: it.plugin.stop_pod_sandbox(pod("a", "s")),
            PodNotFoundError,
        ),
        Leaves(
            lambda it: it.plugin.retry_container_reconcile("c"),
            "write_all",
            lambda it: it.plugin.remove_container(None, container("c", "s")),
            ContainerNotFoundError,
        ),
    ],
)
def test_what_goes_away_meanwhile_is_said_at_once(case: Leaves) -> None:
    """The caller need not wait for the kernel to learn it; a group made for nobody is deleted again."""

    async def main() -> None:
        it = bench()
        await failed_pod(it)
        if case.operation == "write_all":
            await it.plugin.retry_group_creation("a")
            await partial_container(it, uid="a")
        gate = it.gate(case.operation)
        retrying = asyncio.create_task(case.call(it))
        await gate.reached()
        await case.leave(it)
        with pytest.raises(case.error):
            await retrying
        gate.open()
        await it.plugin.settled()
        assert it.groups() == ([] if case.error is PodNotFoundError else ["pod_a"])
        await it.plugin.close()

    run(main())


def test_a_group_that_an_audit_gave_back_is_room_for_the_next_retry() -> None:
    """Within a budget the pod that was refused for an empty group gets its own."""

    async def main() -> None:
        it = bench(ResctrlPluginConfig(max_groups=2))
        gold = it.kernel.root / "gold"
        it.kernel.create_dir(gold)
        async with it.plugin as plugin:
            await it.start("plain", "sb-a", "a")
            tids = await it.start("classed", "sb-a", "a")
            it.kernel.write_all(gold / "tasks", [b"%d\n" % tid for tid in tids])
            await plugin.audit_once()
            await plugin.run_pod_sandbox(pod("b"))
            await plugin.settled()
            it.kernel.write_all(it.kernel.root / "tasks", [b"%d\n" % tid for tid in tids])
            assert (await plugin.retry_all_once()).capacity_exhausted
            assert (await plugin.audit_once()).groups_deleted == 1
            assert (await plugin.retry_all_once()).groups_created == 1
            assert it.groups() == ["pod_a", "pod_b"]
            assert it.kernel.read_child_dirs(gold / "mon_groups") == []

    run(main())
