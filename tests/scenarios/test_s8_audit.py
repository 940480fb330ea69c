"""S8: what no event tells is found by an audit: threads astray, groups removed, pods that ended unheard."""

from __future__ import annotations

import asyncio
import errno
from functools import partial
from typing import TYPE_CHECKING

from nri_resctrl_plugin import AuditReport, ResctrlPluginConfig, RetrySubject
from nri_resctrl_plugin.model import ContainerState
from resctrl import CapacityError, ResctrlIOError, Tid
from resctrl.testing import FakePidSource
from tests.scenarios.scene import Scene

if TYPE_CHECKING:
    from nri_resctrl_plugin import PodResctrlEvent
    from tests.scenarios.scene import Pod
    from tests.worlds import ContainerHandle, World


async def running(scene: Scene, *threads: int) -> tuple[Pod, list[ContainerHandle]]:
    """Let a pod run with so many containers, each of so many threads."""
    pod, handles = scene.pod("one"), [scene.world.new_container(count) for count in threads]
    await scene.synchronize([pod], [scene.container(pod, handle) for handle in handles])
    assert scene.told[-1] == pod.there(len(threads), len(threads))
    return pod, handles


async def test_a_process_that_was_execed_into_a_container(world: World) -> None:
    """It is found and assigned; `reconciled` falls when that shows and rises when it is mended, once each."""
    async with Scene(world) as scene:
        pod, (handle,) = await running(scene, 3)
        strange = world.exec_in(handle)
        assert strange not in scene.tasks(pod)
        told = len(scene.told)
        report = await scene.plugin.audit_once()
        assert report == AuditReport(
            pods=1, containers=1, containers_astray=1, threads_astray=1, containers_reconciled=1
        )
        assert scene.told_since(told) == [pod.there(1, 0), pod.there(1, 1)]
        assert strange in scene.tasks(pod) == world.threads_of(handle)
        assert scene.plugin.container_state(handle.name) is ContainerState.RECONCILED


async def test_what_an_execed_process_forked_before_it_was_found(world: World) -> None:
    """Its children are outside as it is, and are found with it."""
    async with Scene(world) as scene:
        pod, (handle,) = await running(scene, 1)
        strange = world.exec_in(handle)
        children = {world.spawn_task(strange) for _ in range(3)}
        report = await scene.plugin.audit_once()
        assert report.threads_astray == 4
        assert {strange, *children} < scene.tasks(pod) == world.threads_of(handle)


async def test_a_child_that_comes_to_light_after_its_parent_was_assigned(world: World) -> None:
    """A fork that was under way meanwhile left it outside: what was mended is looked at again."""
    source, hidden = FakePidSource(), set[Tid]()
    async with Scene(world, source=source) as scene:
        pod, handle = scene.pod("one"), world.new_container(1)
        source.follow(handle.cgroups_path, lambda: world.threads_of(handle) - hidden)
        await scene.synchronize([pod], [scene.container(pod, handle)])
        strange = world.exec_in(handle)
        hidden.add(world.spawn_task(strange))
        told = len(scene.told)

        def reveal(event: PodResctrlEvent) -> None:
            if len(scene.told) > told and event == pod.there(1, 1):
                hidden.clear()

        scene.plugin.subscribe(reveal)
        report = await scene.plugin.audit_once()
        assert (report.containers_astray, report.threads_astray, report.containers_reconciled) == (1, 2, 1)
        assert scene.told_since(told) == [pod.there(1, 0), pod.there(1, 1)] * 2
        assert scene.tasks(pod) == world.threads_of(handle)


async def test_a_process_with_many_threads_that_was_there_before(world: World) -> None:
    """All 200 threads are in the group after one reconcile, and an audit has nothing to mend."""
    async with Scene(world) as scene:
        pod, (handle,) = await running(scene, 200)
        assert len(scene.tasks(pod)) == 200
        told = len(scene.told)
        assert await scene.plugin.audit_once() == AuditReport(pods=1, containers=1)
        assert scene.tasks(pod) == world.threads_of(handle)
        assert scene.told_since(told) == []


async def test_threads_in_nested_cgroups(world: World) -> None:
    """A container whose own cgroup is empty (systemd or docker in it) is whole, and stays so by audits."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(4, depth=2)
        await scene.synchronize([pod], [scene.container(pod, handle)])
        assert len(scene.tasks(pod)) == 4
        strange = world.exec_in(handle)
        report = await scene.plugin.audit_once()
        assert (report.threads_astray, report.containers_reconciled) == (1, 1)
        assert strange in scene.tasks(pod) == world.threads_of(handle)


async def test_threads_that_somebody_took_out_of_the_group(world: World) -> None:
    """Who writes to the default group's tasks takes threads out of ours; an audit puts them back."""
    async with Scene(world) as scene:
        pod, (robbed, spared) = await running(scene, 3, 2)
        world.put(world.root, *sorted(world.threads_of(robbed))[:2])
        told = len(scene.told)
        report = await scene.plugin.audit_once()
        assert report == AuditReport(
            pods=1, containers=2, containers_astray=1, threads_astray=2, containers_reconciled=1
        )
        assert scene.told_since(told) == [pod.there(2, 1), pod.there(2, 2)]
        assert scene.tasks(pod) == world.threads_of(robbed) | world.threads_of(spared)


async def test_a_thread_that_somebody_takes_out_each_time(world: World) -> None:
    """An audit puts it back twice; then it is told to be outside, and left there for the next one."""
    async with Scene(world) as scene:
        pod, (robbed, spared) = await running(scene, 2, 1)
        thread = min(world.threads_of(robbed))
        whole, short, told = pod.there(2, 2), pod.there(2, 1), len(scene.told)

        def rob(event: PodResctrlEvent) -> None:
            if event == whole:
                world.put(world.root, thread)

        stop = scene.plugin.subscribe(rob)  # which tells the present state: that robs it for the first time
        report = await scene.plugin.audit_once()
        assert report == AuditReport(pods=1, containers=2, containers_astray=1, threads_astray=1)
        assert scene.told_since(told) == [short, whole, short, whole, short]
        assert thread not in scene.tasks(pod)
        assert scene.plugin.container_state(robbed.name) is ContainerState.PARTIAL
        stop()
        assert (await scene.plugin.audit_once()).containers_reconciled == 1
        assert scene.told[-1] == whole
        assert scene.tasks(pod) == world.threads_of(robbed) | world.threads_of(spared)


async def test_a_group_that_somebody_removed(world: World) -> None:
    """It is made again and filled again; each step is told, and the loss first of all."""
    async with Scene(world) as scene:
        pod, handles = await running(scene, 2, 1)
        world.remove_group(pod.path)
        told = len(scene.told)
        report = await scene.plugin.audit_once()
        assert report == AuditReport(
            pods=1,
            containers=2,
            containers_astray=2,
            threads_astray=3,
            containers_reconciled=2,
            groups_recreated=1,
        )
        lost, *mended = scene.told_since(told)
        assert lost == pod.failed(2)
        assert "the group was removed by somebody else" in str(lost)
        assert mended == [pod.there(2, 0), pod.there(2, 1), pod.there(2, 2)]
        assert scene.tasks(pod) == set().union(*map(world.threads_of, handles))


async def test_a_removed_group_for_which_there_is_no_room(world: World) -> None:
    """The pod stays Failed, which the report tells; a retry mends it once there is room."""
    async with Scene(world) as scene:
        pod, (handle,) = await running(scene, 2)
        world.remove_group(pod.path)
        told = len(scene.told)
        scene.faults.fail("create_dir", errno.ENOSPC, path=pod.path)
        report = await scene.plugin.audit_once()
        (failure,) = report.failures
        assert (failure.subject, failure.id) == (RetrySubject.GROUP, pod.uid)
        assert isinstance(failure.error, CapacityError)
        assert report.groups_recreated == 0
        assert scene.told_since(told) == [pod.failed(1)]
        assert (await scene.plugin.audit_once()).pods == 0
        await scene.plugin.retry_all_once()
        assert scene.told_since(told) == [pod.failed(1), pod.there(1, 0), pod.there(1, 1)]
        assert scene.tasks(pod) == world.threads_of(handle)


async def test_a_group_without_containers_that_somebody_removed(world: World) -> None:
    """A pod without containers gets its group again too."""
    async with Scene(world) as scene:
        pod, _ = await running(scene)
        world.remove_group(pod.path)
        told = len(scene.told)
        assert await scene.plugin.audit_once() == AuditReport(pods=1, groups_recreated=1)
        assert scene.told_since(told) == [pod.failed(0), pod.there(0, 0)]
        assert scene.groups() == {pod.path.name}


async def test_a_pod_that_ended_unheard(world: World) -> None:
    """A runtime that was away tells of no end: sandbox and containers are gone, so the pod goes."""
    async with Scene(world) as scene:
        pause, handle, other = (world.new_container() for _ in range(3))
        gone, stays = scene.pod("gone", pause=pause), scene.pod("stays", pause=world.new_container())
        await scene.synchronize([gone, stays], [scene.container(gone, handle), scene.container(stays, other)])
        assert not (await scene.plugin.audit_once()).found_something
        for each in (handle, pause):
            world.end_container(each)
        told = len(scene.told)
        report = await scene.plugin.audit_once()
        assert report == AuditReport(pods=1, containers=1, pods_dropped=1, groups_deleted=1)
        assert scene.told_since(told) == [gone.removed]
        assert scene.groups() == {stays.path.name}
        assert scene.plugin.container_state(handle.name) is None
        assert scene.plugin.snapshot() == {stays.uid: stays.there(1, 1)}


async def test_pods_that_ended_unheard_before_the_first_audit(world: World) -> None:
    """Their cgroups were seen when their groups were made, so they are missed, after a listing or a START."""
    async with Scene(world) as scene:
        pause, handle, other_pause, other = (world.new_container() for _ in range(4))
        listed, started = scene.pod("listed", pause=pause), scene.pod("started", pause=other_pause)
        await scene.synchronize([listed], [scene.container(listed, handle)])
        await scene.start(started, other)
        for each in (pause, handle, other_pause, other):
            world.end_container(each)
        told = len(scene.told)
        assert await scene.plugin.audit_once() == AuditReport(pods_dropped=2, groups_deleted=2)
        assert scene.told_since(told) == [listed.removed, started.removed]
        assert scene.groups() == set()


async def test_a_sandbox_that_joined_and_ended_unheard(world: World) -> None:
    """It was seen when its container was put in: the pod lives on in its older one, and goes with that."""
    async with Scene(world) as scene:
        pause, handle, second_pause, second = (world.new_container() for _ in range(4))
        pod = scene.pod("joined", pause=pause)
        await scene.synchronize([pod], [scene.container(pod, handle)])
        await scene.start(scene.pod("joined", pause=second_pause).another_sandbox("second"), second)
        await scene.plugin.retry_all_once()  # in a pod that Failed it is met by the next try of the group
        for each in (second_pause, second):
            world.end_container(each)
        told = len(scene.told)
        assert (await scene.plugin.audit_once()).pods_dropped == 0
        assert scene.told_since(told) == [pod.there(1, 1)]
        for each in (pause, handle):
            world.end_container(each)
        assert (await scene.plugin.audit_once()).pods_dropped == 1
        assert scene.groups() == set()


async def test_a_pod_of_which_something_lives_stays(world: World) -> None:
    """A sandbox that is gone with a container that is not (or the other way round) is no pod that ended."""
    async with Scene(world) as scene:
        first, second = world.new_container(), world.new_container()
        headless, empty = scene.pod("headless", pause=first), scene.pod("empty", pause=second)
        handle = world.new_container()
        await scene.synchronize([headless, empty], [scene.container(headless, handle)])
        await scene.plugin.audit_once()
        world.end_container(first)
        told = len(scene.told)
        report = await scene.plugin.audit_once()
        assert (report.pods_dropped, report.containers_dropped) == (0, 0)
        assert scene.told_since(told) == []
        assert scene.groups() == {headless.path.name, empty.path.name}


async def test_a_pod_that_was_never_seen_is_not_missed(world: World) -> None:
    """A cgroup that nobody ever found is ignorance, not an end: only what was there can be gone."""
    async with Scene(world) as scene:
        pod, (handle,) = await running(scene, 1)
        for _ in range(2):
            assert (await scene.plugin.audit_once()).pods_dropped == 0
        assert scene.plugin.snapshot() == {pod.uid: pod.there(1, 1)}
        assert scene.tasks(pod) == world.threads_of(handle)


async def test_a_container_that_ended_unheard(world: World) -> None:
    """It counts no more, told once; the others of its pod stay."""
    async with Scene(world) as scene:
        pod, (ended, lives) = await running(scene, 2, 1)
        world.end_container(ended)
        told = len(scene.told)
        report = await scene.plugin.audit_once()
        assert (report.containers_dropped, report.pods_dropped) == (1, 0)
        assert scene.told_since(told) == [pod.there(1, 1)]
        assert scene.tasks(pod) == world.threads_of(lives)
        await scene.stop(pod, scene.container(pod, ended))
        assert scene.told_since(told) == [pod.there(1, 1)]


async def test_containers_that_ended_unheard_and_that_no_inspection_looks_at(world: World) -> None:
    """One that the runtime monitors, and one of a pod whose group Failed: neither counts any more."""
    async with Scene(world) as scene:
        watched, refused = scene.pod("watched"), scene.pod("refused")
        monitored, stays, ended, lives = (world.new_container() for _ in range(4))
        scene.faults.fail("create_dir", errno.ENOSPC, path=refused.path)
        await scene.synchronize(
            [watched, refused],
            [
                scene.container(watched, monitored, monitored=True),
                scene.container(watched, stays),
                *(scene.container(refused, handle) for handle in (ended, lives)),
            ],
        )
        assert not (await scene.plugin.audit_once()).found_something
        world.end_container(monitored)
        world.end_container(ended)
        told = len(scene.told)
        report = await scene.plugin.audit_once()
        assert report == AuditReport(pods=1, containers=1, containers_dropped=2)
        assert scene.told_since(told) == [watched.there(1, 1), refused.failed(1)]
        assert scene.plugin.container_state(ended.name) is None
        assert scene.plugin.container_state(lives.name) is ContainerState.PARTIAL
        assert not (await scene.plugin.audit_once()).found_something


async def test_a_container_without_threads_is_left_as_it_is(world: World) -> None:
    """Where the cgroup is there and empty nothing can be said, and nothing is."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(0)
        await scene.synchronize([pod], [scene.container(pod, handle)])
        told = len(scene.told)
        report = await scene.plugin.audit_once()
        assert not report.found_something
        assert scene.told_since(told) == []
        assert scene.plugin.container_state(handle.name) is ContainerState.PARTIAL


async def test_a_partial_container_that_turns_out_to_be_whole(world: World) -> None:
    """What an earlier attempt could not see is seen now: reconciled, told once, without any write."""
    source = FakePidSource()
    async with Scene(world, ResctrlPluginConfig(max_reconcile_passes=1), source=source) as scene:
        pod, handle = scene.pod("one"), world.new_container(3)
        threads = sorted(world.threads_of(handle))
        source.sequence(handle.cgroups_path, threads, [*threads, world.spawn_task()], threads)
        await scene.synchronize([pod], [scene.container(pod, handle)])
        assert scene.told[-1] == pod.there(1, 0)
        told = len(scene.told)
        scene.fs.forget()
        report = await scene.plugin.audit_once()
        assert report == AuditReport(pods=1, containers=1, containers_reconciled=1)
        assert scene.told_since(told) == [pod.there(1, 1)]
        assert scene.fs.count("write_all") == 0


async def test_a_partial_container_that_is_astray_gets_another_attempt(world: World) -> None:
    """An audit is another call that tries it: what fails no more is reconciled."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(2)
        scene.faults.fail("write_all", errno.EIO)
        await scene.synchronize([pod], [scene.container(pod, handle)])
        assert scene.told[-1] == pod.there(1, 0)
        told = len(scene.told)
        report = await scene.plugin.audit_once()
        assert (report.containers_astray, report.containers_reconciled) == (1, 1)
        assert scene.told_since(told) == [pod.there(1, 1)]
        assert scene.tasks(pod) == world.threads_of(handle)


async def test_an_audit_of_what_is_in_order(world: World) -> None:
    """It tells and writes nothing, reads each group's tasks once and never those of the default group."""
    async with Scene(world) as scene:
        pods = [scene.pod(f"pod{number}") for number in range(3)]
        containers = [scene.container(pod, world.new_container(2)) for pod in pods for _ in range(2)]
        await scene.synchronize(pods, containers)
        told = len(scene.told)
        # What is new to an audit may have been placed just now, and is looked at once more.
        for looks in (2, 1, 1):
            scene.fs.forget()
            assert await scene.plugin.audit_once() == AuditReport(pods=3, containers=6)
            reads = [call.path for call in scene.fs.calls if call.path.name == "tasks"]
            assert sorted(reads) == sorted(looks * [pod.path / "tasks" for pod in pods])
            assert not any("/proc" in str(call.path) for call in scene.fs.calls)
            assert {call.operation for call in scene.fs.calls} == {"read_text"}
        assert scene.told_since(told) == []


async def test_a_container_that_the_runtime_monitors_is_not_looked_at(world: World) -> None:
    """Its threads belong to the runtime's group; an audit leaves them there."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(2)
        await scene.synchronize([pod], [scene.container(pod, handle, monitored=True)])
        assert await scene.plugin.audit_once() == AuditReport(pods=1)
        assert scene.tasks(pod) == set()


async def test_a_pod_whose_group_failed_waits_for_a_retry(world: World) -> None:
    """Making refused groups is another call: an audit tries none and tells nothing."""
    async with Scene(world) as scene:
        pod = scene.pod("one")
        scene.faults.fail("create_dir", errno.ENOSPC)
        await scene.run(pod)
        mkdirs = scene.mkdirs()
        assert await scene.plugin.audit_once() == AuditReport()
        assert scene.mkdirs() == mkdirs
        assert scene.told == [pod.failed(0)]


async def test_one_bad_item_ends_no_audit(world: World) -> None:
    """A group that cannot be read, a container that cannot be listed: both reported; others are mended."""
    source = FakePidSource()
    async with Scene(world, source=source) as scene:
        unreadable, unlisted, good = (scene.pod(name) for name in ("unreadable", "unlisted", "good"))
        handles = {pod: world.new_container(2) for pod in (unreadable, unlisted, good)}
        for handle in handles.values():
            source.follow(handle.cgroups_path, partial(world.threads_of, handle))
        await scene.synchronize(handles, [scene.container(pod, handle) for pod, handle in handles.items()])
        strange = {pod: world.exec_in(handle) for pod, handle in handles.items()}
        source.sequence(handles[unlisted].cgroups_path, OSError(errno.EIO, "unreadable"))
        scene.faults.fail("read_text", errno.EIO, path=unreadable.path / "tasks")
        told = len(scene.told)
        report = await scene.plugin.audit_once()
        assert (report.pods, report.containers_astray, report.containers_reconciled) == (3, 1, 1)
        failures = {(failure.subject, failure.id): failure.error for failure in report.failures}
        assert set(failures) == {
            (RetrySubject.GROUP, unreadable.uid),
            (RetrySubject.CONTAINER, handles[unlisted].name),
        }
        assert isinstance(failures[RetrySubject.GROUP, unreadable.uid], ResctrlIOError)
        assert scene.told_since(told) == [good.there(1, 0), good.there(1, 1)]
        assert strange[good] in scene.tasks(good)
        source.follow(handles[unlisted].cgroups_path, partial(world.threads_of, handles[unlisted]))
        assert (await scene.plugin.audit_once()).containers_reconciled == 2
        for pod, handle in handles.items():
            assert scene.tasks(pod) == world.threads_of(handle)


async def test_audits_at_the_same_time_are_one(world: World) -> None:
    """A second call joins the audit that runs."""
    async with Scene(world) as scene:
        pod, (handle,) = await running(scene, 1)
        world.exec_in(handle)
        told = len(scene.told)
        first, second = await asyncio.gather(scene.plugin.audit_once(), scene.plugin.audit_once())
        assert first is second
        assert first.containers_reconciled == 1
        assert scene.told_since(told) == [pod.there(1, 0), pod.there(1, 1)]


async def test_an_audit_and_a_pass_of_retries_at_the_same_time(world: World) -> None:
    """Neither undoes or repeats what the other does."""
    async with Scene(world) as scene:
        pod, (handle,) = await running(scene, 2)
        waiting = scene.pod("waiting")
        scene.faults.fail("create_dir", errno.ENOSPC)
        await scene.run(waiting)
        world.exec_in(handle)
        told, mkdirs = len(scene.told), scene.mkdirs()
        await asyncio.gather(scene.plugin.audit_once(), scene.plugin.retry_all_once())
        await scene.settled()
        since = scene.told_since(told)
        assert [event for event in since if event.pod_uid == pod.uid] == [pod.there(1, 0), pod.there(1, 1)]
        assert [event for event in since if event.pod_uid == waiting.uid] == [waiting.there(0, 0)]
        assert scene.mkdirs() == mkdirs + 1
        assert scene.tasks(pod) == world.threads_of(handle)
