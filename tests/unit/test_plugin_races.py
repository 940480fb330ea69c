"""Facts that arrive while the worker is in the middle of something about the same pod."""

from __future__ import annotations

import asyncio
import errno
import threading
from typing import TYPE_CHECKING

from nri_resctrl_plugin import (
    Exists,
    PodResctrlAddOrUpdate,
    PodResctrlRemoved,
    PodUid,
)
from nri_resctrl_plugin.nri.messages import ContainerStatus
from resctrl.testing import FakeFs
from tests.plugin_support import DEADLINE, bench, container, pod, run

if TYPE_CHECKING:
    from resctrl.testing.pid_source import HasCgroupsPath


def add(uid: str, total: int = 0, reconciled: int = 0) -> PodResctrlAddOrUpdate:
    path = FakeFs().root / "mon_groups" / f"pod_{uid}"
    return PodResctrlAddOrUpdate(PodUid(uid), Exists(path), total, reconciled)


GONE = PodResctrlRemoved(PodUid("a"))


def test_a_container_that_stops_during_its_reconcile_is_no_ghost() -> None:
    """The late success of the attempt neither counts nor revives it."""

    async def main() -> None:
        it = bench()
        await it.plugin.run_pod_sandbox(pod("a", "s"))
        await it.plugin.settled()
        gate = it.gate("write_all")
        starting = asyncio.create_task(it.start("c", "s"))
        await gate.reached()
        await it.plugin.stop_container(None, container("c", "s"))
        await starting  # its attempt is over for the runtime at this very fact
        gate.open()
        await it.plugin.settled()
        assert it.record.events == [add("a")]
        assert it.plugin.container_state("c") is None
        await it.plugin.close()

    run(main())


def test_a_container_that_returns_during_its_old_reconcile_gets_its_own() -> None:
    """The old attempt's end is not taken for the new container's."""

    async def main() -> None:
        it = bench()
        await it.plugin.run_pod_sandbox(pod("a", "s"))
        gate = it.gate("write_all")
        first = asyncio.create_task(it.start("c", "s"))
        await gate.reached()
        await it.plugin.remove_container(None, container("c", "s"))
        second = asyncio.create_task(it.start("c", "s", threads=2))
        await first
        gate.open()
        tids = await second
        await it.plugin.settled()
        assert it.kernel.tasks_in(it.path("a")) >= set(tids)
        assert it.record.events[-1] == add("a", 1, 1)
        await it.plugin.close()

    run(main())


def test_a_pod_that_goes_while_its_group_is_made_leaves_none() -> None:
    """It was never told, so no Removed; the group that comes too late is deleted."""

    async def main() -> None:
        it = bench()
        gate = it.gate("create_dir")
        await it.plugin.run_pod_sandbox(pod("a", "s"))
        await gate.reached()
        await it.plugin.stop_pod_sandbox(pod("a", "s"))
        gate.open()
        await it.plugin.settled()
        assert it.record.events == []
        assert it.groups() == []
        await it.plugin.close()

    run(main())


def test_a_pod_that_goes_during_a_reconcile_is_told_at_once_and_deleted_after() -> None:
    """Removed does not wait for the worker; the delete does."""

    async def main() -> None:
        it = bench()
        gate = it.gate("write_all")
        starting = asyncio.create_task(it.start("c", "s", "a"))
        await gate.reached()
        await it.plugin.stop_pod_sandbox(pod("a", "s"))
        assert it.record.events[-1] == GONE
        assert it.groups() == ["pod_a"]
        await starting
        gate.open()
        await it.plugin.settled()
        assert it.groups() == []
        await it.plugin.close()

    run(main())


def test_a_pod_that_returns_during_its_delete_keeps_a_group() -> None:
    """The old delete must not kill the new group: it is made again after it."""

    async def main() -> None:
        it = bench()
        await it.start("old", "s1", "a")
        await it.plugin.settled()
        gate = it.gate("remove_dir")
        await it.plugin.stop_pod_sandbox(pod("a", "s1"))
        await gate.reached()
        starting = asyncio.create_task(it.start("new", "s2", "a"))
        retrying = asyncio.create_task(it.plugin.retry_group_creation("a"))
        await asyncio.sleep(0)
        gate.open()
        tids = await starting
        assert await retrying == Exists(it.path("a"))
        await it.plugin.settled()
        assert it.groups() == ["pod_a"]
        assert it.kernel.tasks_in(it.path("a")) == set(tids)
        assert it.record.events[-3:] == [GONE, add("a", 1, 0), add("a", 1, 1)]
        await it.plugin.close()

    run(main())


def test_a_delete_that_fails_under_a_returning_pod_is_swallowed() -> None:
    """The group is wanted again, so it is no orphan."""

    async def main() -> None:
        it = bench()
        await it.plugin.run_pod_sandbox(pod("a", "s1"))
        await it.plugin.settled()
        gate = it.gate("remove_dir")
        it.faults.fail("remove_dir", errno.EPERM)
        await it.plugin.stop_pod_sandbox(pod("a", "s1"))
        await gate.reached()
        await it.plugin.run_pod_sandbox(pod("a", "s2"))
        gate.open()
        await it.plugin.settled()
        assert it.groups() == ["pod_a"]
        assert it.plugin._driver.table.orphans() == ()
        assert it.record.events == [add("a"), GONE, add("a")]
        await it.plugin.close()

    run(main())


def test_a_listing_during_a_start_neither_doubles_nor_loses_it() -> None:
    """The same container told twice at once counts once, and is assigned."""

    async def main() -> None:
        it = bench()
        await it.plugin.run_pod_sandbox(pod("a", "s"))
        await it.plugin.settled()
        gate = it.gate("write_all")
        starting = asyncio.create_task(it.start("c", "s", threads=3))
        await gate.reached()
        await it.plugin.synchronize([pod("a", "s")], [container("c", "s", ContainerStatus.CREATED)])
        again = asyncio.create_task(it.plugin.start_container(pod("a", "s"), container("c", "s")))
        await asyncio.sleep(0)
        gate.open()
        tids = await starting
        await again
        await it.plugin.settled()
        assert it.record.events == [add("a"), add("a", 1, 1)]
        assert it.kernel.tasks_in(it.path("a")) == set(tids)
        await it.plugin.close()

    run(main())


def test_a_synchronize_that_drops_a_pod_in_the_middle_of_its_work() -> None:
    """A runtime that comes back without the pod: told, and no group is left."""

    async def main() -> None:
        it = bench()
        gate = it.gate("write_all")
        starting = asyncio.create_task(it.start("c", "s", "a"))
        await gate.reached()
        await it.plugin.synchronize([], [])
        await starting
        gate.open()
        await it.plugin.settled()
        assert it.record.events[-1] == GONE
        assert it.groups() == []
        assert it.plugin.container_state("c") is None
        await it.plugin.close()

    run(main())


def test_pods_do_not_wait_for_each_other_s_facts() -> None:
    """While the worker is busy with one pod, another one's facts are taken in and told."""

    async def main() -> None:
        it = bench()
        await it.start("d", "t", "b")
        gate = it.gate("create_dir")
        await it.plugin.run_pod_sandbox(pod("a", "s"))
        await gate.reached()
        await it.plugin.stop_container(None, container("d", "t"))
        assert it.record.events[-1] == add("b")
        gate.open()
        await it.plugin.settled()
        await it.plugin.close()

    run(main())


def test_a_container_that_starts_during_the_census_keeps_its_pod() -> None:
    """Where there is no pause process, the next container may start just after the cgroup was seen gone."""

    async def main() -> None:
        it = bench()
        sandbox = pod("a", "s")
        await it.plugin.run_pod_sandbox(sandbox)
        await it.start("first", "s")
        await it.plugin.audit_once()
        await it.plugin.stop_container(None, container("first", "s"))
        it.pids.remove(sandbox.cgroups_path)
        await it.plugin.settled()
        looked, told = threading.Event(), threading.Event()
        seen = it.pids.is_gone

        def is_gone(cgroup: HasCgroupsPath) -> bool:
            gone = seen(cgroup)
            looked.set()
            assert told.wait(DEADLINE), "nobody told of the container"
            return gone

        it.pids.is_gone = is_gone  # type: ignore[method-assign] # holds the worker after its look
        audit = asyncio.create_task(it.plugin.audit_once())
        assert await asyncio.to_thread(looked.wait, DEADLINE), "the audit never looked"
        starting = asyncio.create_task(it.start("second", "s"))
        await asyncio.sleep(0)
        assert it.plugin.container_state("second") is not None
        told.set()
        report = await audit
        await starting
        assert (report.pods_dropped, report.groups_deleted) == (0, 0)
        assert it.record.events[-1] == add("a", 1, 1)
        assert it.groups() == ["pod_a"]
        await it.plugin.close()

    run(main())


def test_a_pod_that_is_back_is_not_told_to_have_what_was_deleted() -> None:
    """Of its two groups one could not be deleted: when the pod returns, only that one is told beside it."""

    async def main() -> None:
        it = bench()
        gold = it.kernel.root / "gold"
        it.kernel.create_dir(gold)
        await it.plugin.run_pod_sandbox(pod("a", "s"))
        await it.start("default", "s")
        (tid,) = it.threads("classed")
        it.kernel.write_all(gold / "tasks", [b"%d\n" % tid])
        await it.plugin.start_container(None, container("classed", "s"))
        await it.plugin.settled()
        assert it.kernel.read_child_dirs(gold / "mon_groups") == ["pod_a"]
        it.faults.fail("remove_dir", errno.EBUSY, path=it.path("a"))
        await it.plugin.stop_pod_sandbox(pod("a", "s"))
        await it.plugin.settled()
        assert (it.groups(), it.kernel.read_child_dirs(gold / "mon_groups")) == (["pod_a"], [])
        await it.plugin.run_pod_sandbox(pod("a", "s2"))
        await it.plugin.settled()
        assert it.record.events[-2:] == [GONE, add("a")]
        await it.plugin.close()

    run(main())
