"""S7: containers and pods go away, once, twice, in the wrong order, and at the worst moment."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from nri_resctrl_plugin.model import ContainerState
from tests.scenarios.scene import Scene
from tests.worlds import eventually

if TYPE_CHECKING:
    from tests.worlds import World


async def test_a_stopped_container_leaves_both_counters(world: World) -> None:
    """STOP of a reconciled container: total and reconciled fall, in one event."""
    async with Scene(world) as scene:
        pod = scene.pod("one")
        await scene.run(pod)
        first = await scene.start(pod, world.new_container())
        await scene.start(pod, world.new_container())
        before = len(scene.told)
        await scene.stop(pod, first)
        assert scene.told_since(before) == [pod.there(1, 1)]
        assert scene.plugin.container_state(first.id) is None


async def test_a_partial_container_leaves_the_total(world: World) -> None:
    """STOP of a container that was not reconciled takes one from the total alone."""
    async with Scene(world) as scene:
        pod = scene.pod("one")
        await scene.run(pod)
        partial = await scene.start(pod, world.new_container(0))
        await scene.start(pod, world.new_container())
        assert scene.told[-1] == pod.there(2, 1)
        await scene.stop(pod, partial)
        assert scene.told[-1] == pod.there(1, 1)


async def test_stop_and_remove_are_told_once(world: World) -> None:
    """A container leaves at STOP or REMOVE, whichever is first; the other, and any repetition, is silent."""
    async with Scene(world) as scene:
        pod = scene.pod("one")
        await scene.run(pod)
        first, second = [await scene.start(pod, world.new_container()) for _ in range(2)]
        before = len(scene.told)
        await scene.stop(pod, first)
        await scene.plugin.remove_container(pod.sandbox, first)
        await scene.stop(pod, first)
        await scene.plugin.remove_container(pod.sandbox, second)
        await scene.stop(pod, second)
        await scene.plugin.remove_container(pod.sandbox, second)
        await scene.settled()
        assert scene.told_since(before) == [pod.there(1, 1), pod.there(0, 0)]


async def test_a_stopped_pod_is_removed(world: World) -> None:
    """STOP_POD_SANDBOX: exactly one Removed, the group is gone, its threads are in the default group."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(3)
        await scene.run(pod)
        await scene.start(pod, handle)
        before = len(scene.told)
        await scene.stop_pod(pod)
        assert scene.told_since(before) == [pod.removed]
        assert scene.groups() == set()
        assert world.threads_of(handle) <= world.tasks_in(world.root)
        assert scene.plugin.snapshot() == {}
        assert scene.plugin.container_state(handle.name) is None


async def test_an_rmid_is_given_back(world: World) -> None:
    """The RMID of a stopped pod, not of one whose remains are collected later, can be used again."""
    async with Scene(world) as scene:
        old, new = scene.pod("old"), scene.pod("new")
        await scene.run(old)
        with world.use_up_rmids():
            await scene.run(new)
            assert scene.told_of(new) == [new.failed(0)]
            await scene.stop_pod(old)

            async def attempt() -> bool | None:
                return True if (await scene.plugin.retry_all_once()).groups_created else None

            await eventually(attempt, "the RMID of the stopped pod")


async def test_a_removed_pod_that_was_never_stopped(world: World) -> None:
    """REMOVE_POD_SANDBOX does it where STOP never came."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container()
        await scene.run(pod)
        await scene.start(pod, handle)
        before = len(scene.told)
        await scene.remove_pod(pod)
        assert scene.told_since(before) == [pod.removed]
        assert scene.groups() == set()


async def test_a_pod_is_removed_once(world: World) -> None:
    """STOP and REMOVE, each as often as it likes: one Removed, one rmdir."""
    async with Scene(world) as scene:
        pod = scene.pod("one")
        await scene.run(pod)
        for _ in range(2):
            await scene.stop_pod(pod)
            await scene.remove_pod(pod)
        assert scene.told == [pod.there(0, 0), pod.removed]
        assert scene.fs.count("remove_dir", pod.path) == 1


async def test_what_was_never_known_goes_silently(world: World) -> None:
    """STOP and REMOVE of unknown pods and containers tell nothing and touch nothing."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("nobody"), world.new_container()
        container = scene.container(pod, handle)
        await scene.stop(pod, container)
        await scene.plugin.remove_container(pod.sandbox, container)
        await scene.stop_pod(pod)
        await scene.remove_pod(pod)
        assert scene.told == []
        assert scene.fs.count("remove_dir") == scene.fs.count("create_dir") == 0


async def test_a_failed_pod_is_removed_without_a_deletion(world: World) -> None:
    """A pod that never had a group has none to delete; it was told, so its Removed is told."""
    async with Scene(world) as scene:
        pod = scene.pod("one")
        scene.faults.fail("create_dir", errno.ENOSPC)
        await scene.run(pod)
        await scene.stop_pod(pod)
        assert scene.told == [pod.failed(0), pod.removed]
        assert scene.fs.count("remove_dir") == 0


async def test_an_old_sandbox_goes_after_the_pod_has_a_new_one(world: World) -> None:
    """Removing the old sandbox of a pod that lives on takes neither its group nor its threads."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(2)
        await scene.run(pod)
        again = pod.another_sandbox("sandbox-again")
        await scene.run(again)
        await scene.start(again, handle)
        before = len(scene.told)
        await scene.stop_pod(pod)
        await scene.remove_pod(pod)
        assert scene.told_since(before) == []
        assert scene.tasks(pod) == world.threads_of(handle)
        await scene.stop_pod(again)
        assert scene.told_since(before) == [pod.removed]
        assert scene.groups() == set()


async def test_a_sandbox_that_is_replaced_after_it_stopped(world: World) -> None:
    """Stopped, then made again, and only then the old one removed: the new group stays."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(2)
        await scene.run(pod)
        await scene.stop_pod(pod)
        again = pod.another_sandbox("sandbox-again")
        await scene.run(again)
        await scene.start(again, handle)
        await scene.remove_pod(pod)
        assert scene.told == [pod.there(0, 0), pod.removed, pod.there(0, 0), pod.there(1, 1)]
        assert scene.tasks(pod) == world.threads_of(handle)


async def test_containers_of_a_stopped_sandbox_leave_with_it(world: World) -> None:
    """Of two sandboxes one stops: its containers leave the counters, told once."""
    async with Scene(world) as scene:
        pod = scene.pod("one")
        again = pod.another_sandbox("sandbox-again")
        await scene.run(pod)
        await scene.run(again)
        await scene.start(pod, world.new_container())
        await scene.start(again, world.new_container())
        before = len(scene.told)
        await scene.stop_pod(pod)
        assert scene.told_since(before) == [pod.there(1, 1)]


async def test_a_deletion_that_fails_is_made_up_for(world: World) -> None:
    """Removed comes all the same; the group is kept as an orphan and deleted by the next pass."""
    async with Scene(world) as scene:
        pod = scene.pod("one")
        await scene.run(pod)
        scene.faults.fail("remove_dir", errno.EBUSY)
        await scene.stop_pod(pod)
        assert scene.told == [pod.there(0, 0), pod.removed]
        assert scene.groups() == {pod.path.name}
        assert len(scene.records("group_kept")) == 1
        report = await scene.plugin.retry_all_once()
        assert report.orphans_deleted == 1
        assert scene.groups() == set()
        assert scene.told == [pod.there(0, 0), pod.removed]
        assert (await scene.plugin.retry_all_once()).orphans_deleted == 0


async def test_an_orphan_whose_pod_comes_back(world: World) -> None:
    """The group is wanted again: it is kept, and no pass deletes it any more."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container()
        await scene.run(pod)
        scene.faults.fail("remove_dir", errno.EBUSY)
        await scene.stop_pod(pod)
        again = pod.another_sandbox("sandbox-again")
        await scene.run(again)
        await scene.start(again, handle)
        assert (await scene.plugin.retry_all_once()).orphans_deleted == 0
        assert scene.tasks(pod) == world.threads_of(handle)
        assert scene.told[-1] == pod.there(1, 1)


async def test_a_group_that_somebody_else_removed(world: World) -> None:
    """A pod whose group is gone already ends like any other."""
    async with Scene(world) as scene:
        pod = scene.pod("one")
        await scene.run(pod)
        world.fs.remove_dir(pod.path)
        await scene.stop_pod(pod)
        assert scene.told == [pod.there(0, 0), pod.removed]
        assert scene.records("group_kept") == []


async def test_the_end_of_the_plugin_is_not_the_end_of_the_groups(world: World) -> None:
    """Closing leaves groups and their threads in place for the next instance."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(2)
        await scene.run(pod)
        await scene.start(pod, handle)
    assert scene.groups() == {pod.path.name}
    assert scene.tasks(pod) == world.threads_of(handle)


async def test_a_restarted_container_is_another_one(world: World) -> None:
    """The old container leaves, the new one comes, the group stays with its counters."""
    async with Scene(world) as scene:
        pod = scene.pod("one")
        await scene.run(pod)
        old = await scene.start(pod, world.new_container())
        await scene.stop(pod, old)
        await scene.start(pod, world.new_container())
        await scene.plugin.remove_container(pod.sandbox, old)
        await scene.settled()
        assert scene.told == [pod.there(0, 0), pod.there(1, 1), pod.there(0, 0), pod.there(1, 1)]
        assert scene.fs.count("create_dir") == 1
        assert scene.fs.count("remove_dir") == 0


async def test_a_late_start_of_a_stopped_container(world: World) -> None:
    """A START that arrives after the STOP brings nothing back."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container()
        await scene.run(pod)
        container = await scene.start(pod, handle)
        await scene.stop(pod, container)
        before = len(scene.told)
        await scene.start(pod, handle)
        assert scene.told_since(before) == []
        assert scene.plugin.container_state(handle.name) is not ContainerState.RECONCILED
