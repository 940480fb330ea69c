"""S9: containers in other control groups than the default one, and those that change theirs."""

from __future__ import annotations

import errno
import math
from typing import TYPE_CHECKING

import pytest

from nri_resctrl_plugin import ResctrlPluginConfig, RetryReport, RetrySubject
from nri_resctrl_plugin.model import ContainerState
from resctrl import CapacityError, TaskNotInParentError, Tid
from tests.scenarios.scene import Scene
from tests.worlds import Capability

if TYPE_CHECKING:
    from pathlib import Path

    from tests.worlds import ContainerHandle, World

pytestmark = pytest.mark.needs(Capability.CONTROL_GROUPS)


def put_in(world: World, control: Path, *handles: ContainerHandle) -> None:
    """Let somebody give containers another class."""
    for handle in handles:
        world.put(control, *sorted(world.threads_of(handle)))


def classes_of(world: World, tids: set[Tid], *controls: Path) -> set[Path]:
    """Return in which of the control groups the threads are."""
    return {control for control in controls if not tids.isdisjoint(world.tasks_in(control))}


async def test_a_container_that_was_in_a_control_group_before(world: World) -> None:
    """Its threads are in its pod's group below that one, and in the class where they were."""
    async with Scene(world) as scene:
        gold, handle = world.control_group("gold"), world.new_container(3)
        put_in(world, gold, handle)
        pod = scene.pod("one")
        await scene.synchronize([pod], [scene.container(pod, handle)])
        there = pod.below(gold)
        assert scene.told == [pod.there(1, 0), there.there(1, 1)]
        assert scene.tasks(there) == world.threads_of(handle) == world.tasks_in(gold)
        assert scene.groups() == set(), "the empty group was moved and no second RMID was used"
        assert scene.mkdirs() == 1


async def test_a_process_with_many_threads_in_a_control_group(world: World) -> None:
    """Of 200 threads that the kernel refuses in the first group each is in the right one afterwards."""
    async with Scene(world) as scene:
        gold, handle = world.control_group("gold"), world.new_container(200)
        put_in(world, gold, handle)
        pod = scene.pod("one")
        await scene.synchronize([pod], [scene.container(pod, handle)])
        assert len(scene.tasks(pod.below(gold))) == 200
        assert scene.fs.count("read_text") < 40, "one thread is asked for its class, not each"
        told = len(scene.told)
        assert not (await scene.plugin.audit_once()).found_something
        assert scene.told_since(told) == []
        assert scene.tasks(pod.below(gold)) == world.threads_of(handle)


async def test_the_writes_of_a_process_with_many_threads_in_a_control_group(world: World) -> None:
    """They are two more than in the default class, however many threads the first group refuses."""
    async with Scene(world) as scene:
        gold, pod = world.control_group("gold"), scene.pod("one")
        plain, classed = world.new_container(200), world.new_container(200)
        put_in(world, gold, classed)
        await scene.run(pod)
        scene.fs.forget()
        await scene.start(pod, plain)
        writes = scene.fs.count("write")
        scene.fs.forget()
        await scene.start(pod, classed)
        assert scene.fs.count("write") <= writes + 2
        assert looked_up(scene) == 1
        assert scene.told[-1] == pod.and_below(gold).there(2, 2)


async def test_many_threads_and_no_room_in_their_control_group(world: World) -> None:
    """Each attempt costs two writes and two questions: at the START, in a retry, in an audit."""
    async with Scene(world) as scene:
        gold, pod = world.control_group("gold"), scene.pod("one")
        plain, classed = world.new_container(1), world.new_container(200)
        put_in(world, gold, classed)
        await scene.run(pod)
        await scene.start(pod, plain)
        await scene.plugin.audit_once()  # what is new to an audit is looked at twice
        scene.faults.fail("create_dir", errno.ENOSPC, path=pod.below(gold).path, times=math.inf)
        container = scene.container(pod, classed)
        for attempt in (
            lambda: scene.plugin.start_container(pod.sandbox, container),
            scene.plugin.retry_all_once,
            scene.plugin.audit_once,
        ):
            scene.fs.forget()
            await attempt()
            await scene.settled()
            assert (scene.fs.count("write"), looked_up(scene), scene.mkdirs()) == (2, 2, 1)
        assert scene.told[-1] == pod.there(2, 1)


async def test_a_start_in_a_control_group(world: World) -> None:
    """A runtime gives the class before START: when it is answered all threads are in the right group."""
    async with Scene(world) as scene:
        gold, handle, pod = world.control_group("gold"), world.new_container(2), scene.pod("one")
        await scene.run(pod)
        put_in(world, gold, handle)
        await scene.plugin.start_container(pod.sandbox, scene.container(pod, handle))
        assert scene.tasks(pod.below(gold)) == world.threads_of(handle)
        await scene.settled()
        assert scene.told == [pod.there(0, 0), pod.below(gold).there(1, 1)]


async def test_a_pod_in_two_classes(world: World) -> None:
    """It has a group in each; the event tells the main one and the other, once it is there."""
    async with Scene(world) as scene:
        gold, plain, classed = world.control_group("gold"), world.new_container(2), world.new_container(3)
        put_in(world, gold, classed)
        pod = scene.pod("one")
        await scene.synchronize([pod], [scene.container(pod, plain), scene.container(pod, classed)])
        both = pod.and_below(gold)
        assert scene.told == [pod.there(2, 0), pod.there(2, 1), both.there(2, 2)]
        assert scene.tasks(pod) == world.threads_of(plain)
        assert world.tasks_in(both.others[0]) == world.threads_of(classed)
        assert scene.plugin.snapshot() == {pod.uid: both.there(2, 2)}
        await scene.stop_pod(pod)
        assert scene.told[-1] == pod.removed
        assert scene.groups() == world.groups_in(gold / "mon_groups") == set()


async def test_a_container_in_two_classes(world: World) -> None:
    """Each of its threads is in the group below its own control group."""
    async with Scene(world) as scene:
        gold, silver = world.control_group("gold"), world.control_group("silver")
        handle = world.new_container(5)
        first, second, third, *_ = sorted(world.threads_of(handle))
        world.put(gold, first, second)
        world.put(silver, third)
        pod = scene.pod("one")
        await scene.synchronize([pod], [scene.container(pod, handle)])
        assert world.tasks_in(pod.below(gold).path) == {first, second}
        assert world.tasks_in(pod.below(silver).path) == {third}
        assert scene.tasks(pod) == world.threads_of(handle) - {first, second, third}
        assert scene.told[-1] == pod.and_below(gold, silver).there(1, 1)
        assert not (await scene.plugin.audit_once()).found_something


async def test_a_change_of_class_is_followed_by_the_group(world: World) -> None:
    """It is renamed: no new RMID, the counters go on, and the change is told with its fall and rise."""
    async with Scene(world) as scene:
        gold, handle, pod = world.control_group("gold"), world.new_container(2), scene.pod("one")
        await scene.synchronize([pod], [scene.container(pod, handle)])
        world.work(handle)
        before, mkdirs, told = world.traffic(pod.path), scene.mkdirs(), len(scene.told)
        assert min(before.values()) > 0
        put_in(world, gold, handle)
        report = await scene.plugin.audit_once()
        there = pod.below(gold)
        assert (report.threads_astray, report.containers_reconciled) == (2, 1)
        assert scene.told_since(told) == [pod.there(1, 0), there.there(1, 1)]
        after = world.traffic(there.path)
        assert all(after[key] >= before[key] for key in before)
        assert scene.mkdirs() == mkdirs
        assert scene.tasks(there) == world.threads_of(handle) == world.tasks_in(gold)
        assert scene.groups() == set()


async def test_a_change_of_class_there_and_back(world: World) -> None:
    """Whatever the class, one audit later the threads are counted in it, by the same group."""
    async with Scene(world) as scene:
        gold, silver = world.control_group("gold"), world.control_group("silver")
        handle, pod = world.new_container(3), scene.pod("one")
        await scene.synchronize([pod], [scene.container(pod, handle)])
        for control in (gold, silver, world.root, gold, world.root):
            put_in(world, control, handle)
            await scene.plugin.audit_once()
            where = pod.below(control)
            assert scene.told[-1] == where.there(1, 1)
            assert scene.tasks(where) == world.threads_of(handle)
            assert classes_of(world, world.threads_of(handle), gold, silver, world.root) == {control}
        assert scene.mkdirs() == 1


async def test_a_change_of_class_of_one_container_of_two(world: World) -> None:
    """The group that another container lives in stays; the changed one gets a group of its own."""
    async with Scene(world) as scene:
        gold, pod = world.control_group("gold"), scene.pod("one")
        stays, changes = world.new_container(2), world.new_container(2)
        await scene.synchronize([pod], [scene.container(pod, handle) for handle in (stays, changes)])
        told = len(scene.told)
        put_in(world, gold, changes)
        await scene.plugin.audit_once()
        both = pod.and_below(gold)
        assert scene.told_since(told) == [pod.there(2, 1), both.there(2, 2)]
        assert scene.tasks(pod) == world.threads_of(stays)
        assert world.tasks_in(both.others[0]) == world.threads_of(changes)


async def test_a_control_group_that_is_removed_takes_the_group_along(world: World) -> None:
    """Its threads fall back to the default class, and the pod's group is made again there."""
    async with Scene(world) as scene:
        gold, handle, pod = world.control_group("gold"), world.new_container(2), scene.pod("one")
        put_in(world, gold, handle)
        await scene.synchronize([pod], [scene.container(pod, handle)])
        world.remove_group(gold)
        told = len(scene.told)
        report = await scene.plugin.audit_once()
        assert (report.groups_recreated, report.containers_reconciled) == (1, 1)
        assert scene.told_since(told) == [pod.failed(1), pod.there(1, 0), pod.there(1, 1)]
        assert scene.tasks(pod) == world.threads_of(handle)


async def test_a_further_group_that_is_removed(world: World) -> None:
    """A control group that goes takes only what is below it: the main group stays, the rest is mended."""
    async with Scene(world) as scene:
        gold, pod = world.control_group("gold"), scene.pod("one")
        plain, classed = world.new_container(2), world.new_container(2)
        put_in(world, gold, classed)
        await scene.synchronize([pod], [scene.container(pod, handle) for handle in (plain, classed)])
        world.remove_group(gold)
        told = len(scene.told)
        await scene.plugin.audit_once()
        assert scene.told_since(told) == [pod.there(2, 1), pod.there(2, 2)]
        assert scene.tasks(pod) == world.threads_of(plain) | world.threads_of(classed)


async def test_a_further_group_that_nobody_is_in_any_more_is_given_back(world: World) -> None:
    """A container comes back from a class: the audit that follows it frees the RMID, told like any change."""
    async with Scene(world) as scene:
        gold, pod = world.control_group("gold"), scene.pod("one")
        stays, changes = world.new_container(2), world.new_container(2)
        await scene.synchronize([pod], [scene.container(pod, handle) for handle in (stays, changes)])
        put_in(world, gold, changes)
        await scene.plugin.audit_once()
        both = pod.and_below(gold)
        assert scene.told[-1] == both.there(2, 2)
        told = len(scene.told)
        put_in(world, world.root, changes)
        report = await scene.plugin.audit_once()
        assert (report.containers_reconciled, report.groups_deleted, report.failures) == (1, 1, ())
        assert scene.told_since(told) == [both.there(2, 1), both.there(2, 2), pod.there(2, 2)]
        assert world.groups_in(gold / "mon_groups") == set()
        assert scene.tasks(pod) == world.threads_of(stays) | world.threads_of(changes)
        assert not (await scene.plugin.audit_once()).found_something


async def test_a_further_group_whose_container_stopped_is_given_back(world: World) -> None:
    """Though no other container changed; the main group stays, even where nobody is in it."""
    async with Scene(world) as scene:
        gold, pod = world.control_group("gold"), scene.pod("one")
        plain, classed, late = (world.new_container(2) for _ in range(3))
        put_in(world, gold, classed)
        await scene.run(pod)
        first = await scene.start(pod, plain)
        second = await scene.start(pod, classed)
        world.end_container(plain)
        await scene.stop(pod, first)
        assert (await scene.plugin.audit_once()).groups_deleted == 0
        assert scene.told[-1] == pod.and_below(gold).there(1, 1), "the main group is the pod's path"
        await scene.start(pod, late)
        world.end_container(classed)
        await scene.stop(pod, second)
        assert (await scene.plugin.audit_once()).groups_deleted == 1
        assert scene.told[-1] == pod.there(1, 1)
        assert world.groups_in(gold / "mon_groups") == set()


async def test_a_further_group_that_cannot_be_given_back(world: World) -> None:
    """It is told as the pod's as long as it is there, and the next audit tries again."""
    async with Scene(world) as scene:
        gold, pod = world.control_group("gold"), scene.pod("one")
        plain, classed = world.new_container(2), world.new_container(2)
        put_in(world, gold, classed)
        await scene.synchronize([pod], [scene.container(pod, handle) for handle in (plain, classed)])
        await scene.plugin.audit_once()  # what is new to an audit is looked at twice
        world.end_container(classed)
        await scene.stop(pod, scene.container(pod, classed))
        scene.faults.fail("remove_dir", errno.EBUSY)
        report = await scene.plugin.audit_once()
        assert (report.groups_deleted, [each.subject for each in report.failures]) == (
            0,
            [RetrySubject.GROUP],
        )
        assert scene.told[-1] == pod.and_below(gold).there(1, 1)
        assert (await scene.plugin.audit_once()).groups_deleted == 1
        assert scene.told[-1] == pod.there(1, 1)


async def test_the_tasks_of_a_control_group_are_never_written(world: World) -> None:
    """Nobody's class is changed by us, whatever others do in between."""
    async with Scene(world) as scene:
        gold, silver = world.control_group("gold"), world.control_group("silver")
        pod, handles = scene.pod("one"), [world.new_container(3) for _ in range(3)]
        put_in(world, gold, handles[0])
        await scene.synchronize([pod], [scene.container(pod, handle) for handle in handles])
        for turn, control in enumerate((silver, gold, world.root, silver, silver)):
            handle = handles[turn % 3]
            put_in(world, control, handle)
            world.put(gold, world.exec_in(handle))
            await scene.plugin.audit_once()
            assert world.threads_of(handle) <= world.tasks_in(control) | world.tasks_in(gold)
        written = {call.path.parent for call in scene.fs.calls if call.operation == "write_all"}
        assert written, "threads were assigned"
        assert all(group.parent.name == "mon_groups" for group in written)
        groups = [pod.below(control).path for control in (world.root, gold, silver)]
        inside = set[Tid]().union(*(world.tasks_in(group) for group in groups if group in written))
        assert inside == set[Tid]().union(*map(world.threads_of, handles))


async def test_no_room_for_a_second_group(world: World) -> None:
    """The container stays PARTIAL and is told so; a retry places it once there is an RMID."""
    async with Scene(world) as scene:
        gold, pod = world.control_group("gold"), scene.pod("one")
        plain, classed = world.new_container(2), world.new_container(2)
        put_in(world, gold, classed)
        await scene.run(pod)
        await scene.start(pod, plain)
        second = pod.below(gold).path
        scene.faults.fail("create_dir", errno.ENOSPC, path=second, times=2)
        await scene.start(pod, classed)
        assert scene.told[-1] == pod.there(2, 1)
        told = len(scene.told)
        report = await scene.plugin.retry_all_once()
        assert (report.containers_partial, report.containers_reconciled) == (1, 0)
        (failure,) = report.failures
        assert (failure.subject, failure.id) == (RetrySubject.CONTAINER, classed.name)
        assert isinstance(failure.error, CapacityError)
        assert scene.told_since(told) == []
        assert world.threads_of(classed) <= world.tasks_in(gold)
        assert await scene.plugin.retry_all_once() == RetryReport(containers_reconciled=1)
        assert scene.told_since(told) == [pod.and_below(gold).there(2, 2)]
        assert world.tasks_in(second) == world.threads_of(classed)


async def test_a_group_that_cannot_be_renamed(world: World) -> None:
    """A kernel before 6.5 refuses (EPERM): another group is made, and the threads are counted."""
    async with Scene(world) as scene:
        gold, handle, pod = world.control_group("gold"), world.new_container(2), scene.pod("one")
        put_in(world, gold, handle)
        scene.faults.fail("rename", errno.EPERM)
        await scene.synchronize([pod], [scene.container(pod, handle)])
        assert scene.told[-1] == pod.and_below(gold).there(1, 1)
        assert world.tasks_in(pod.below(gold).path) == world.threads_of(handle)
        await scene.stop_pod(pod)
        assert scene.groups() == world.groups_in(gold / "mon_groups") == set()


async def test_a_class_that_cannot_be_known(world: World) -> None:
    """Where /proc does not tell a thread's class: PARTIAL, with the kernel's own refusal."""
    async with Scene(world) as scene:
        gold, handle, pod = world.control_group("gold"), world.new_container(2), scene.pod("one")
        put_in(world, gold, handle)
        scene.faults.fail("read_text", errno.EACCES, times=math.inf, path=_is_of_a_thread)
        await scene.run(pod)
        await scene.start(pod, handle)
        assert scene.told[-1] == pod.there(1, 0)
        with pytest.raises(TaskNotInParentError):
            await scene.plugin.retry_container_reconcile(handle.name)
        assert world.threads_of(handle) <= world.tasks_in(gold)


async def test_without_placement_a_refusal_is_no_endless_matter(world: World) -> None:
    """TaskNotInParentError is told once per attempt; nothing is moved, and an audit is one attempt."""
    async with Scene(world, ResctrlPluginConfig(class_placement=False)) as scene:
        gold, handle, pod = world.control_group("gold"), world.new_container(2), scene.pod("one")
        put_in(world, gold, handle)
        await scene.run(pod)
        await scene.start(pod, handle)
        assert len(scene.records("reconcile_failed")) == 1
        report = await scene.plugin.audit_once()
        (failure,) = report.failures
        assert isinstance(failure.error, TaskNotInParentError)
        assert scene.fs.count("rename") == 0
        assert world.groups_in(gold / "mon_groups") == set()
        assert scene.plugin.container_state(handle.name) is ContainerState.PARTIAL


async def test_stale_groups_below_control_groups_are_swept(world: World) -> None:
    """Where placement makes groups there, the sweep takes stale ones; control groups of others stay."""
    gold = world.control_group("gold")
    for name in (f"{world.prefix}stale", f"{world.others_prefix}theirs"):
        world.add_group(gold / "mon_groups" / name)
    async with Scene(world) as scene:
        await scene.synchronize([])
        assert world.groups_in(gold / "mon_groups") == {f"{world.others_prefix}theirs"}
        assert gold.name in world.groups_in(world.root)
        (record,) = scene.records("startup_cleanup")
        assert record["removed"] == 1


async def test_an_execed_process_of_another_class(world: World) -> None:
    """It is counted too, in its own class, while the container's other threads stay in theirs."""
    async with Scene(world) as scene:
        gold, handle, pod = world.control_group("gold"), world.new_container(2), scene.pod("one")
        await scene.synchronize([pod], [scene.container(pod, handle)])
        inside = world.threads_of(handle)
        strange = world.exec_in(handle)
        world.put(gold, strange)
        await scene.plugin.audit_once()
        both = pod.and_below(gold)
        assert scene.told[-1] == both.there(1, 1)
        assert scene.tasks(pod) == inside
        assert world.tasks_in(both.others[0]) == {strange}


def looked_up(scene: Scene) -> int:
    """Return how often a thread was asked for its control group."""
    return sum(_is_of_a_thread(call.path) for call in scene.fs.calls)


def _is_of_a_thread(path: Path) -> bool:
    return path.name == "cpu_resctrl_groups"
