"""S4: one call tries everything again; no bad item keeps the others from their turn."""

from __future__ import annotations

import asyncio
import errno
import math
from typing import TYPE_CHECKING

import pytest

from nri_resctrl_plugin import ResctrlPluginConfig, RetryReport, RetrySubject
from nri_resctrl_plugin.model import ContainerState
from resctrl import CapacityError, ResctrlIOError, RmidsBusyError, TaskNotInParentError
from resctrl.testing import FakePidSource
from tests.scenarios.scene import Scene
from tests.worlds import Capability, eventually

if TYPE_CHECKING:
    from tests.scenarios.scene import Pod
    from tests.worlds import World


async def failed_pods(scene: Scene, count: int) -> list[Pod]:
    """Run pods that get no group."""
    pods = [scene.pod(f"failed{number}") for number in range(count)]
    scene.faults.fail("create_dir", errno.ENOSPC, times=count)
    for pod in pods:
        await scene.run(pod)
    assert scene.told == [pod.failed(0) for pod in pods]
    return pods


async def test_group_creation_ends_at_the_first_capacity_error(world: World) -> None:
    """With no RMID one mkdir tells all: the other pods are left for a later pass, silently."""
    async with Scene(world) as scene:
        pods = await failed_pods(scene, 4)
        with world.use_up_rmids():
            mkdirs, told = scene.mkdirs(), len(scene.told)
            report = await scene.plugin.retry_all_once()
            assert scene.mkdirs() == mkdirs + 1
            assert len(scene.told) == told
            assert report.capacity_exhausted
            assert (report.groups_created, report.groups_failed, report.groups_untried) == (0, 1, 3)
            (failure,) = report.failures
            assert (failure.subject, failure.id) == (RetrySubject.GROUP, pods[0].uid)
            assert isinstance(failure.error, CapacityError)


async def test_a_full_machine_does_not_keep_containers_from_their_turn(world: World) -> None:
    """One pod has no group and another a partial container: the container is reconciled all the same."""
    source = FakePidSource()
    async with Scene(world, source=source) as scene:
        (failed,) = await failed_pods(scene, 1)
        pod, handle = scene.pod("one"), world.new_container(2)
        await scene.run(pod)
        await scene.start(pod, handle)
        assert scene.told[-1] == pod.there(1, 0)
        source.set(handle.cgroups_path, world.threads_of(handle))
        with world.use_up_rmids():
            mkdirs, told = scene.mkdirs(), len(scene.told)
            report = await scene.plugin.retry_all_once()
            assert scene.mkdirs() == mkdirs + 1
            assert scene.told_since(told) == [pod.there(1, 1)]
            assert report.containers_reconciled == 1
            assert scene.plugin.snapshot()[failed.uid] == failed.failed(0)
            assert scene.tasks(pod) == world.threads_of(handle)


async def test_as_many_groups_as_there_is_room(world: World) -> None:
    """Groups are made in turn until capacity ends it."""
    async with Scene(world) as scene:
        pods = await failed_pods(scene, 3)
        scene.faults.fail("create_dir", errno.ENOSPC, path=pods[2].path)
        report = await scene.plugin.retry_all_once()
        assert (report.groups_created, report.groups_failed, report.groups_untried) == (2, 1, 0)
        assert scene.told_since(3) == [pods[0].there(0, 0), pods[1].there(0, 0)]
        assert await scene.plugin.retry_all_once() == RetryReport(groups_created=1)
        assert scene.told_since(5) == [pods[2].there(0, 0)]


async def test_busy_rmids_end_it_as_well(world: World) -> None:
    """EBUSY is a capacity error: one mkdir, and every partial container has its turn."""
    source = FakePidSource()
    async with Scene(world, source=source) as scene:
        await failed_pods(scene, 3)
        pod, handle = scene.pod("one"), world.new_container(2)
        await scene.run(pod)
        await scene.start(pod, handle)
        source.set(handle.cgroups_path, world.threads_of(handle))
        scene.faults.fail("create_dir", errno.EBUSY, times=math.inf)
        mkdirs = scene.mkdirs()
        report = await scene.plugin.retry_all_once()
        assert scene.mkdirs() == mkdirs + 1
        assert report.capacity_exhausted
        assert isinstance(report.failures[0].error, RmidsBusyError)
        assert report.containers_reconciled == 1


async def test_a_group_that_fails_otherwise_ends_nothing(world: World) -> None:
    """An input error of one group is reported, and the next group is made."""
    async with Scene(world) as scene:
        bad, good = await failed_pods(scene, 2)
        scene.faults.fail("create_dir", errno.EIO, path=bad.path)
        report = await scene.plugin.retry_all_once()
        assert (report.groups_created, report.groups_failed) == (1, 1)
        assert not report.capacity_exhausted
        assert isinstance(report.failures[0].error, ResctrlIOError)
        assert scene.plugin.snapshot() == {bad.uid: bad.failed(0), good.uid: good.there(0, 0)}


@pytest.mark.needs(Capability.CONTROL_GROUPS)
async def test_a_container_that_can_never_be_assigned_ends_nothing(world: World) -> None:
    """One in another control group, without placement, stays PARTIAL and is reported; the others are not."""
    source = FakePidSource()
    async with Scene(world, ResctrlPluginConfig(class_placement=False), source=source) as scene:
        pod = scene.pod("one")
        await scene.run(pod)
        first, classed, last = (world.new_container(2) for _ in range(3))
        for handle in (first, classed, last):
            await scene.start(pod, handle)
        gold = world.root / f"{world.others_prefix}gold"
        world.add_group(gold)
        for tid in world.threads_of(classed):
            world.put(gold, tid)
        for handle in (first, classed, last):
            source.set(handle.cgroups_path, world.threads_of(handle))
        told = len(scene.told)
        report = await scene.plugin.retry_all_once()
        assert (report.containers_reconciled, report.containers_partial) == (2, 1)
        (failure,) = report.failures
        assert (failure.subject, failure.id) == (RetrySubject.CONTAINER, classed.name)
        assert isinstance(failure.error, TaskNotInParentError)
        assert scene.told_since(told) == [pod.there(3, 1), pod.there(3, 2)]


async def test_a_container_whose_cgroup_is_gone_ends_nothing(world: World) -> None:
    """A source that fails for one container is reported; the next one is reconciled."""
    source = FakePidSource()
    async with Scene(world, source=source) as scene:
        pod, gone, good = scene.pod("one"), world.new_container(1), world.new_container(2)
        await scene.run(pod)
        for handle in (gone, good):
            await scene.start(pod, handle)
        source.sequence(gone.cgroups_path, OSError(errno.EIO, "unreadable"))
        source.set(good.cgroups_path, world.threads_of(good))
        report = await scene.plugin.retry_all_once()
        assert (report.containers_reconciled, report.containers_partial) == (1, 1)
        assert [failure.id for failure in report.failures] == [gone.name]


async def test_containers_of_groups_that_this_pass_made(world: World) -> None:
    """Groups come before containers, so that one pass mends a pod whole."""
    async with Scene(world) as scene:
        pod, handles = scene.pod("one"), [world.new_container(2) for _ in range(2)]
        scene.faults.fail("create_dir", errno.ENOSPC)
        await scene.run(pod)
        for handle in handles:
            await scene.start(pod, handle)
        told = len(scene.told)
        report = await scene.plugin.retry_all_once()
        assert report == RetryReport(groups_created=1, containers_reconciled=2)
        assert scene.told_since(told) == [pod.there(2, 0), pod.there(2, 1), pod.there(2, 2)]


async def test_orphans_come_first_because_they_free_rmids(world: World) -> None:
    """On a full machine the group of a gone pod makes room for one that waits."""
    async with Scene(world) as scene:
        gone, waiting = scene.pod("gone"), scene.pod("waiting")
        await scene.run(gone)
        scene.faults.fail("remove_dir", errno.EBUSY, path=gone.path)
        with world.use_up_rmids():
            await scene.run(waiting)
            await scene.stop_pod(gone)
            assert scene.groups() == {gone.path.name}
            scene.fs.forget()
            report = await scene.plugin.retry_all_once()
            assert report.orphans_deleted == 1
            order = [call.operation for call in scene.fs.calls if call.operation.endswith("_dir")]
            assert order[:2] == ["remove_dir", "create_dir"]

            async def attempt() -> bool | None:
                await scene.plugin.retry_all_once()
                return True if scene.groups() == {waiting.path.name} else None

            await eventually(attempt, "the orphan's RMID to leave limbo")


async def test_an_orphan_that_stays_ends_nothing(world: World) -> None:
    """It is reported, kept for the next pass, and the groups have their turn."""
    async with Scene(world) as scene:
        (failed,) = await failed_pods(scene, 1)
        gone = scene.pod("gone")
        await scene.run(gone)
        scene.faults.fail("remove_dir", errno.EIO, path=gone.path, times=2)
        await scene.stop_pod(gone)
        report = await scene.plugin.retry_all_once()
        assert (report.orphans_kept, report.orphans_deleted, report.groups_created) == (1, 0, 1)
        assert report.failures[0].subject is RetrySubject.ORPHAN
        assert scene.groups() == {gone.path.name, failed.path.name}
        assert (await scene.plugin.retry_all_once()).orphans_deleted == 1
        assert scene.groups() == {failed.path.name}


async def test_nothing_to_do(world: World) -> None:
    """A pass over a machine in order touches no file and tells nothing."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container()
        await scene.run(pod)
        await scene.start(pod, handle)
        told, calls = len(scene.told), len(scene.fs.calls)
        assert await scene.plugin.retry_all_once() == RetryReport()
        assert (len(scene.told), len(scene.fs.calls)) == (told, calls)


async def test_passes_at_the_same_time_are_one(world: World) -> None:
    """A second call joins the pass that runs."""
    async with Scene(world) as scene:
        (pod,) = await failed_pods(scene, 1)
        mkdirs = scene.mkdirs()
        first, second = await asyncio.gather(scene.plugin.retry_all_once(), scene.plugin.retry_all_once())
        assert first == second == RetryReport(groups_created=1)
        assert scene.mkdirs() == mkdirs + 1
        assert scene.told == [pod.failed(0), pod.there(0, 0)]


async def test_what_does_not_converge_is_silent(world: World) -> None:
    """A pass over a container that never comes to rest tells nothing and reports no failure."""
    source = FakePidSource()
    async with Scene(world, source=source) as scene:
        pod, handle = scene.pod("one"), world.new_container()
        source.never_converge(handle.cgroups_path, world.spawn_task)
        await scene.run(pod)
        await scene.start(pod, handle)
        told = len(scene.told)
        for _ in range(3):
            assert await scene.plugin.retry_all_once() == RetryReport(containers_partial=1)
        assert len(scene.told) == told
        assert scene.plugin.container_state(handle.name) is ContainerState.PARTIAL
