"""S2: containers start, are updated, and have threads that come to rest, or never do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from nri_resctrl_plugin import ResctrlPluginConfig
from nri_resctrl_plugin.model import ContainerState
from resctrl import Tid
from resctrl.testing import FakePidSource
from tests.scenarios.scene import Held, Scene

if TYPE_CHECKING:
    from tests.worlds import World


async def test_a_start_is_told_once_when_its_attempt_ends(world: World) -> None:
    """Exactly one event, with the container counted and reconciled."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(3)
        await scene.run(pod)
        await scene.start(pod, handle)
        assert scene.told == [pod.there(0, 0), pod.there(1, 1)]
        assert scene.tasks(pod) == world.threads_of(handle)
        assert scene.plugin.container_state(handle.name) is ContainerState.RECONCILED


async def test_when_the_start_is_answered_its_threads_are_assigned(world: World) -> None:
    """The runtime goes on only after the answer, so nothing that the container does can be missed."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(3)
        await scene.run(pod)
        await scene.plugin.start_container(pod.sandbox, scene.container(pod, handle))
        assert scene.tasks(pod) == world.threads_of(handle)


async def test_a_start_brings_its_pod(world: World) -> None:
    """A pod that was never told of is made known by the container that carries it."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container()
        await scene.start(pod, handle)
        assert scene.plugin.snapshot() == {pod.uid: pod.there(1, 1)}
        assert scene.told[-1] == pod.there(1, 1)
        assert scene.tasks(pod) == world.threads_of(handle)


async def test_a_start_without_a_pod_waits_for_it(world: World) -> None:
    """It counts nowhere until the pod comes, and is promoted then."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container()
        await scene.plugin.start_container(None, scene.container(pod, handle))
        await scene.settled()
        assert scene.told == []
        assert scene.plugin.container_state(handle.name) is ContainerState.NO_POD
        assert await scene.plugin.retry_container_reconcile(handle.name) is ContainerState.NO_POD
        await scene.run(pod)
        assert scene.plugin.snapshot() == {pod.uid: pod.there(1, 1)}


async def test_threads_that_come_to_rest(world: World) -> None:
    """A container that is still starting up is listed again until nothing new is there."""
    source = FakePidSource()
    async with Scene(world, source=source) as scene:
        pod, handle = scene.pod("one"), world.new_container(5)
        source.converge(handle.cgroups_path, sorted(world.threads_of(handle)))
        await scene.run(pod)
        await scene.start(pod, handle)
        assert scene.told == [pod.there(0, 0), pod.there(1, 1)]
        assert scene.tasks(pod) == world.threads_of(handle)


async def test_threads_that_never_come_to_rest(world: World) -> None:
    """The attempt ends after the configured passes, PARTIAL and told once; trying again tells nothing."""
    source = FakePidSource()
    async with Scene(world, ResctrlPluginConfig(max_reconcile_passes=4), source=source) as scene:
        pod, handle = scene.pod("one"), world.new_container()
        source.never_converge(handle.cgroups_path, world.spawn_task)
        await scene.run(pod)
        await scene.start(pod, handle)
        assert scene.told == [pod.there(0, 0), pod.there(1, 0)]
        assert scene.fs.count("write_all", pod.path / "tasks") == 4
        for _ in range(3):
            assert await scene.plugin.retry_container_reconcile(handle.name) is ContainerState.PARTIAL
        report = await scene.plugin.retry_all_once()
        assert (report.containers_partial, report.failures) == (1, ())
        assert len(scene.told) == 2


async def test_rest_at_last(world: World) -> None:
    """When the threads come to rest after all, a retry tells exactly one event."""
    source = FakePidSource()
    async with Scene(world, source=source) as scene:
        pod, handle = scene.pod("one"), world.new_container(2)
        source.never_converge(handle.cgroups_path, world.spawn_task)
        await scene.run(pod)
        await scene.start(pod, handle)
        source.set(handle.cgroups_path, world.threads_of(handle))
        before = len(scene.told)
        assert await scene.plugin.retry_container_reconcile(handle.name) is ContainerState.RECONCILED
        await scene.settled()
        assert scene.told_since(before) == [pod.there(1, 1)]
        assert world.threads_of(handle) <= scene.tasks(pod)


async def test_threads_that_change_between_attempts(world: World) -> None:
    """Each attempt assigns what is there then; what left in between is nobody's loss."""
    source = FakePidSource()
    async with Scene(world, source=source) as scene:
        pod, handle = scene.pod("one"), world.new_container(4)
        threads = sorted(world.threads_of(handle))
        source.sequence(handle.cgroups_path, threads[:1], threads[1:3], threads[2:])
        await scene.run(pod)
        await scene.start(pod, handle)
        assert scene.told[-1] == pod.there(1, 1)
        assert scene.tasks(pod) == set(threads)


async def test_threads_that_vanish(world: World) -> None:
    """A container whose last thread ends during the attempt is PARTIAL: there is nothing to be complete."""
    source = FakePidSource()
    async with Scene(world, source=source) as scene:
        pod, handle = scene.pod("one"), world.new_container(1)
        source.vanish(handle.cgroups_path, world.threads_of(handle))
        await scene.run(pod)
        await scene.start(pod, handle)
        assert scene.told == [pod.there(0, 0), pod.there(1, 0)]
        assert scene.plugin.container_state(handle.name) is ContainerState.PARTIAL


async def test_a_duplicate_start_changes_nothing(world: World) -> None:
    """The same container is never counted twice, and nothing is told or written again."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(2)
        await scene.run(pod)
        await scene.start(pod, handle)
        writes = scene.fs.count("write_all")
        await scene.start(pod, handle)
        await scene.start(pod, handle)
        assert scene.told == [pod.there(0, 0), pod.there(1, 1)]
        assert scene.fs.count("write_all") == writes


async def test_a_start_of_what_synchronize_listed(world: World) -> None:
    """A START that crosses with the Synchronize that lists the same container counts once."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(2)
        await scene.plugin.synchronize([pod.sandbox], [scene.container(pod, handle)])
        await scene.start(pod, handle)
        assert scene.plugin.snapshot() == {pod.uid: pod.there(1, 1)}
        assert scene.told[-1] == pod.there(1, 1)


async def test_a_repeated_start_of_a_partial_container_is_another_attempt(world: World) -> None:
    """A runtime that starts it again gives it another chance, and a better outcome is told."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(0)
        await scene.run(pod)
        await scene.start(pod, handle)
        assert scene.told[-1] == pod.there(1, 0)
        before = len(scene.told)
        await scene.start(pod, handle)
        assert scene.told_since(before) == []
        assert scene.plugin.container_state(handle.name) is ContainerState.PARTIAL


async def test_an_update_is_nothing(world: World) -> None:
    """UpdateContainer changes no state, writes nothing and tells nothing."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(2)
        await scene.run(pod)
        container = await scene.start(pod, handle)
        told, calls = len(scene.told), len(scene.fs.calls)
        for _ in range(3):
            await scene.plugin.update_container(pod.sandbox, container)
        await scene.settled()
        assert len(scene.told) == told
        assert len(scene.fs.calls) == calls
        assert scene.plugin.snapshot() == {pod.uid: pod.there(1, 1)}


async def test_children_are_in_the_group_by_birth(world: World) -> None:
    """A thread that a container starts later is in the group without anybody's doing."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(1)
        await scene.run(pod)
        await scene.start(pod, handle)
        writes = scene.fs.count("write_all")
        child = world.spawn_task(min(world.threads_of(handle)))
        grandchild = world.spawn_task(child)
        assert {child, grandchild} <= scene.tasks(pod) == world.threads_of(handle)
        assert scene.fs.count("write_all") == writes


async def test_a_retry_of_a_reconciled_container_does_nothing(world: World) -> None:
    """What is done is done: its state is returned, nothing is told or written."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container()
        await scene.run(pod)
        await scene.start(pod, handle)
        told, writes = len(scene.told), scene.fs.count("write_all")
        assert await scene.plugin.retry_container_reconcile(handle.name) is ContainerState.RECONCILED
        assert (len(scene.told), scene.fs.count("write_all")) == (told, writes)


async def test_every_container_counts(world: World) -> None:
    """The total rises with each START and the reconciled with each that is complete."""
    async with Scene(world) as scene:
        pod = scene.pod("one")
        await scene.run(pod)
        for number in range(3):
            await scene.start(pod, world.new_container(number))
        assert scene.told == [pod.there(0, 0), pod.there(1, 0), pod.there(2, 1), pod.there(3, 2)]


async def test_one_write_for_all_threads_and_one_look_at_the_group(world: World) -> None:
    """A START of some threads costs one write and one read of tasks."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(20)
        await scene.run(pod)
        scene.fs.forget()
        await scene.start(pod, handle)
        tasks = pod.path / "tasks"
        assert len(scene.fs.written(tasks)) == 1
        assert scene.fs.count("write_all", tasks) == 1
        assert scene.fs.count("read_text", tasks) == 1


async def test_an_id_of_nobody_we_can_see_moves_nobody(world: World) -> None:
    """A listing with a 0 (a task of another pid namespace) must not move the plugin's own thread."""
    source = FakePidSource()
    async with Scene(world, source=source) as scene:
        pod, handle = scene.pod("one"), world.new_container(2)
        source.set(handle.cgroups_path, [Tid(0), *world.threads_of(handle)])
        await scene.run(pod)
        await scene.start(pod, handle)
        assert scene.told == [pod.there(0, 0), pod.there(1, 0)]
        assert scene.resctrl.list_group_tasks(pod.path) == []
        (record,) = scene.records("reconcile_failed")
        assert "hostPID" in record["error"]


async def test_a_start_is_answered_although_the_kernel_hangs(world: World) -> None:
    """The runtime's time limit is kept; the assignment ends behind the answer and is told then."""
    async with Scene(world) as scene:
        pod, handle, held = scene.pod("one"), world.new_container(2), Held()
        await scene.run(pod)
        scene.faults.before("write_all", held)
        begin = time.monotonic()
        try:
            await scene.plugin.start_container(pod.sandbox, scene.container(pod, handle))
            assert time.monotonic() - begin < 2.0
            assert held.reached
            assert scene.told == [pod.there(0, 0)]
        finally:
            held.let_go()
        await scene.settled()
        assert scene.told == [pod.there(0, 0), pod.there(1, 1)]
        assert scene.tasks(pod) == world.threads_of(handle)
