"""S1: the plugin starts on a machine where pods and containers run already."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from nri_resctrl_plugin import ResctrlPluginConfig
from nri_resctrl_plugin.model import ContainerState
from nri_resctrl_plugin.nri.messages import ContainerStatus
from resctrl.testing import FakePidSource
from tests.scenarios.scene import FAILED, Scene
from tests.worlds import Capability

if TYPE_CHECKING:
    from tests.worlds import World


async def test_every_thread_of_every_container_is_in_its_pods_group(world: World) -> None:
    """The tasks of each group are exactly the threads of its pod's containers, of each thread of them."""
    async with Scene(world) as scene:
        one, other = scene.pod("one"), scene.pod("other")
        first, second, third = (world.new_container(threads) for threads in (1, 7, 3))
        await scene.synchronize(
            [one, other],
            [scene.container(one, first), scene.container(one, second), scene.container(other, third)],
        )
        assert scene.tasks(one) == world.threads_of(first) | world.threads_of(second)
        assert scene.tasks(other) == world.threads_of(third)
        assert scene.plugin.snapshot() == {one.uid: one.there(2, 2), other.uid: other.there(1, 1)}


async def test_a_pod_is_told_at_its_group_and_then_at_each_container(world: World) -> None:
    """One event when the outcome of the group is known, one for each container that becomes reconciled."""
    async with Scene(world) as scene:
        pod = scene.pod("one")
        handles = [world.new_container(2) for _ in range(2)]
        await scene.synchronize([pod], [scene.container(pod, handle) for handle in handles])
        assert scene.told == [pod.there(2, 0), pod.there(2, 1), pod.there(2, 2)]


async def test_a_process_with_many_threads(world: World) -> None:
    """A runtime of 200 threads that runs since long is moved whole, not only its leader."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("jvm"), world.new_container(200)
        await scene.synchronize([pod], [scene.container(pod, handle)])
        assert len(scene.tasks(pod)) == 200
        assert scene.tasks(pod) == world.threads_of(handle)


async def test_a_pod_without_containers(world: World) -> None:
    """Its group is made, and told once."""
    async with Scene(world) as scene:
        pod = scene.pod("empty")
        await scene.synchronize([pod])
        assert scene.told == [pod.there(0, 0)]
        assert scene.groups() == {pod.path.name}


async def test_threads_of_no_container_stay_where_they_are(world: World) -> None:
    """The pause process, and everybody else, is never assigned."""
    async with Scene(world) as scene:
        pod, handle, outsider = scene.pod("one"), world.new_container(), world.spawn_task()
        await scene.synchronize([pod], [scene.container(pod, handle)])
        assert outsider in world.tasks_in(world.root)
        assert scene.tasks(pod) == world.threads_of(handle)


async def test_a_full_machine(world: World) -> None:
    """Without an RMID the group is Failed, the counts are true, and one event says both."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(2)
        with world.use_up_rmids():
            await scene.synchronize([pod], [scene.container(pod, handle)])
            assert scene.told == [pod.failed(1)]
            assert scene.groups() == set()
        assert world.threads_of(handle) <= world.tasks_in(world.root)
        assert scene.plugin.container_state(handle.name) is ContainerState.PARTIAL


async def test_room_for_some(world: World) -> None:
    """A pod whose group is refused does not take the others' away."""
    async with Scene(world) as scene:
        lucky, unlucky = scene.pod("lucky"), scene.pod("unlucky")
        handles = {lucky: world.new_container(), unlucky: world.new_container()}
        scene.faults.fail("create_dir", errno.ENOSPC, path=unlucky.path)
        await scene.synchronize(handles, [scene.container(pod, handle) for pod, handle in handles.items()])
        assert scene.told_of(lucky) == [lucky.there(1, 0), lucky.there(1, 1)]
        assert scene.told_of(unlucky) == [unlucky.failed(1)]
        assert scene.groups() == {lucky.path.name}


async def test_a_created_container_counts_from_its_start(world: World) -> None:
    """Listed as created it counts nowhere; its START is its first attempt."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container()
        await scene.synchronize([pod], [scene.container(pod, handle, ContainerStatus.CREATED)])
        assert scene.told == [pod.there(0, 0)]
        assert scene.plugin.container_state(handle.name) is ContainerState.CREATED
        await scene.start(pod, handle)
        assert scene.told_since(1) == [pod.there(1, 1)]
        assert scene.tasks(pod) == world.threads_of(handle)


async def test_a_stopped_container_counts_nowhere(world: World) -> None:
    """A container that is listed as stopped is not one of the pod's."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(0)
        await scene.synchronize([pod], [scene.container(pod, handle, ContainerStatus.STOPPED)])
        assert scene.told == [pod.there(0, 0)]


async def test_a_container_without_threads_is_partial(world: World) -> None:
    """It counts, it is not reconciled, and nothing more is told of it."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(0)
        await scene.synchronize([pod], [scene.container(pod, handle)])
        assert scene.told == [pod.there(1, 0)]
        assert scene.plugin.container_state(handle.name) is ContainerState.PARTIAL


async def test_a_container_of_an_unknown_pod_waits_for_it(world: World) -> None:
    """It counts nowhere until its pod is known; then it is counted and reconciled."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("late"), world.new_container(2)
        await scene.synchronize([], [scene.container(pod, handle)])
        assert scene.told == []
        assert scene.plugin.container_state(handle.name) is ContainerState.NO_POD
        await scene.run(pod)
        assert scene.told[-1] == pod.there(1, 1)
        assert scene.tasks(pod) == world.threads_of(handle)


async def test_two_sandboxes_of_one_pod_share_its_group(world: World) -> None:
    """The counters of both add up in one group."""
    async with Scene(world) as scene:
        pod = scene.pod("one")
        again = pod.another_sandbox("sandbox-again")
        first, second = world.new_container(), world.new_container()
        await scene.synchronize([pod, again], [scene.container(pod, first), scene.container(again, second)])
        assert scene.plugin.snapshot() == {pod.uid: pod.there(2, 2)}
        assert scene.groups() == {pod.path.name}
        assert scene.tasks(pod) == world.threads_of(first) | world.threads_of(second)


async def test_pods_without_a_uid_do_not_share_a_group(world: World) -> None:
    """A sandbox that the runtime gives no uid goes by its own id."""
    async with Scene(world) as scene:
        one, other = scene.pod("").another_sandbox("sb-1"), scene.pod("").another_sandbox("sb-2")
        first, second = world.new_container(), world.new_container()
        await scene.synchronize([one, other], [scene.container(one, first), scene.container(other, second)])
        assert set(scene.plugin.snapshot()) == {"sb-1", "sb-2"}
        assert len(scene.groups()) == 2


async def test_a_hostile_uid(world: World) -> None:
    """A pod may call itself what it likes: its group stands in mon_groups, and no other pod's is it."""
    async with Scene(world) as scene:
        pods = [scene.pod(uid) for uid in ("../../../etc", "a/../b", "x" * 300, "h-1", "\n")]
        await scene.synchronize(pods)
        assert scene.groups() == {pod.path.name for pod in pods}
        assert len(scene.groups()) == len(pods)


async def test_a_container_that_the_runtime_monitors_is_left_alone(world: World) -> None:
    """It counts in the total, its threads are not touched, and a log record says so."""
    async with Scene(world) as scene:
        pod, ours, theirs = scene.pod("one"), world.new_container(), world.new_container()
        await scene.synchronize(
            [pod], [scene.container(pod, ours), scene.container(pod, theirs, monitored=True)]
        )
        assert scene.plugin.snapshot() == {pod.uid: pod.there(2, 1)}
        assert scene.tasks(pod) == world.threads_of(ours)
        assert scene.plugin.container_state(theirs.name) is ContainerState.RUNTIME_MONITORED
        assert len(scene.records("container_left_to_runtime")) == 1


async def test_threads_that_are_born_while_they_are_moved(world: World) -> None:
    """The container is asked again until it has nothing new."""
    source = FakePidSource()
    async with Scene(world, source=source) as scene:
        pod, handle = scene.pod("one"), world.new_container(4)
        source.converge(handle.cgroups_path, sorted(world.threads_of(handle)))
        await scene.synchronize([pod], [scene.container(pod, handle)])
        assert scene.told[-1] == pod.there(1, 1)
        assert scene.tasks(pod) == world.threads_of(handle)


async def test_a_thread_that_dies_while_it_is_moved_is_not_missing(world: World) -> None:
    """What is dead cannot be outside: the container is reconciled."""
    source = FakePidSource()
    async with Scene(world, source=source) as scene:
        pod, handle = scene.pod("one"), world.new_container(2)
        doomed = world.spawn_task(min(world.threads_of(handle)))
        listed = sorted(world.threads_of(handle))
        scene.faults.before("write_all", lambda _: world.end_task(doomed))
        source.sequence(handle.cgroups_path, listed, [tid for tid in listed if tid != doomed])
        await scene.synchronize([pod], [scene.container(pod, handle)])
        assert scene.told[-1] == pod.there(1, 1)
        assert scene.tasks(pod) == world.threads_of(handle)


@pytest.mark.needs(Capability.CONTROL_GROUPS)
async def test_a_container_in_another_control_group_is_partial(world: World) -> None:
    """Without placement its threads cannot be monitored; that harms no other container."""
    async with Scene(world, ResctrlPluginConfig(class_placement=False)) as scene:
        pod, classed, plain = scene.pod("one"), world.new_container(2), world.new_container(2)
        gold = world.root / f"{world.others_prefix}gold"
        world.add_group(gold)
        for tid in world.threads_of(classed):
            world.put(gold, tid)
        await scene.synchronize([pod], [scene.container(pod, classed), scene.container(pod, plain)])
        assert scene.plugin.snapshot() == {pod.uid: pod.there(2, 1)}
        assert scene.tasks(pod) == world.threads_of(plain)
        assert world.tasks_in(gold) == world.threads_of(classed)
        (record,) = scene.records("reconcile_failed")
        assert "different control group" in record["error"]


async def test_a_later_synchronize_tells_only_what_changed(world: World) -> None:
    """After a reconnect living pods keep their group and threads; vanished ones get their Removed."""
    async with Scene(world) as scene:
        stays, goes = scene.pod("stays"), scene.pod("goes")
        handle = world.new_container(2)
        listed = [scene.container(stays, handle)]
        await scene.synchronize([stays, goes], listed)
        before, removals = len(scene.told), scene.fs.count("remove_dir")
        await scene.synchronize([stays], listed)
        assert scene.told_since(before) == [goes.removed]
        assert scene.fs.count("remove_dir", goes.path) == 1
        assert scene.fs.count("remove_dir") == removals + 1
        assert scene.tasks(stays) == world.threads_of(handle)
        before = len(scene.told)
        await scene.synchronize([stays], listed)
        assert scene.told_since(before) == []


async def test_what_came_while_nobody_listened_is_found(world: World) -> None:
    """A later Synchronize brings new pods and new containers."""
    async with Scene(world) as scene:
        old, new = scene.pod("old"), scene.pod("new")
        first, second, third = (world.new_container() for _ in range(3))
        await scene.synchronize([old], [scene.container(old, first)])
        listed = [scene.container(old, first), scene.container(old, second), scene.container(new, third)]
        await scene.synchronize([old, new], listed)
        assert scene.plugin.snapshot() == {old.uid: old.there(2, 2), new.uid: new.there(1, 1)}
        assert scene.tasks(old) == world.threads_of(first) | world.threads_of(second)


async def test_a_restarted_plugin_finds_its_groups_again(world: World) -> None:
    """Without the sweep a new instance takes the groups over, threads and all."""
    config = ResctrlPluginConfig(cleanup_on_start=False)
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(2)
        await scene.synchronize([pod], [scene.container(pod, handle)])
    async with Scene(world, config) as scene:
        assert scene.tasks(pod) == world.threads_of(handle)
        await scene.synchronize([pod], [scene.container(pod, handle)])
        assert scene.told == [pod.there(1, 0), pod.there(1, 1)]
        assert scene.fs.count("remove_dir") == 0
        assert scene.tasks(pod) == world.threads_of(handle)


async def test_listeners_begin_with_the_present(world: World) -> None:
    """Who comes late is told each live pod once, by iterator and by callback."""
    async with Scene(world) as scene:
        pods = [scene.pod("one"), scene.pod("two")]
        await scene.synchronize(pods)
        heard: list[object] = []
        scene.plugin.subscribe(heard.append)
        stream = scene.plugin.events()
        assert heard == [pod.there(0, 0) for pod in pods]
        assert [await anext(stream), await anext(stream)] == heard
        assert FAILED not in heard
