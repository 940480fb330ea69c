"""S3: there are no RMIDs left; the agent decides when to try again."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

import pytest

from nri_resctrl_plugin.errors import ContainerNotFoundError, PodNotFoundError
from nri_resctrl_plugin.model import ContainerState
from resctrl import CapacityError, NoPermissionError, RmidsBusyError
from tests.scenarios.scene import FAILED, Scene
from tests.worlds import Capability, eventually

if TYPE_CHECKING:
    from nri_resctrl_plugin.events import Exists
    from tests.scenarios.scene import Pod
    from tests.worlds import World


async def group_at_last(scene: Scene, pod: Pod) -> Exists:
    """Try again until the limbo is over; nothing but busy RMIDs may stand in the way, and nothing is told."""

    async def attempt() -> Exists | None:
        told = len(scene.told)
        try:
            return await scene.plugin.retry_group_creation(pod.uid)
        except RmidsBusyError:
            assert len(scene.told) == told
            return None

    return await eventually(attempt, "an RMID to leave limbo")


async def test_a_full_machine_refuses_the_group(world: World) -> None:
    """RUN_POD_SANDBOX without an RMID: one event, Failed, nothing counted; its reason tells why."""
    async with Scene(world) as scene:
        pod = scene.pod("one")
        with world.use_up_rmids():
            await scene.run(pod)
            assert scene.told == [pod.failed(0)]
            assert scene.groups() == set()
            (event,) = scene.told
            assert "ENOSPC" in repr(event)
            assert "Out of RMIDs" in repr(event)


async def test_a_start_in_a_failed_pod_is_counted(world: World) -> None:
    """The total rises although there is no group; the container is PARTIAL, no second mkdir is tried."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(2)
        with world.use_up_rmids():
            await scene.run(pod)
            mkdirs = scene.mkdirs()
            await scene.start(pod, handle)
            assert scene.told == [pod.failed(0), pod.failed(1)]
            assert scene.mkdirs() == mkdirs
            assert scene.plugin.container_state(handle.name) is ContainerState.PARTIAL


async def test_a_retry_while_full_is_silent(world: World) -> None:
    """It raises CapacityError, tries mkdir once each time, and tells nothing."""
    async with Scene(world) as scene:
        pod = scene.pod("one")
        with world.use_up_rmids():
            await scene.run(pod)
            for number in range(1, 4):
                mkdirs = scene.mkdirs()
                with pytest.raises(CapacityError) as caught:
                    await scene.plugin.retry_group_creation(pod.uid)
                assert type(caught.value) is CapacityError, number
                assert scene.mkdirs() == mkdirs + 1
            await scene.settled()
            assert scene.told == [pod.failed(0)]


async def test_one_freed_then_the_group_then_its_containers(world: World) -> None:
    """With an RMID free a retry makes the group, told once; containers follow only when they are retried."""
    async with Scene(world) as scene:
        pod, first, second = scene.pod("one"), world.new_container(2), world.new_container(3)
        with world.use_up_rmids():
            await scene.run(pod)
            await scene.start(pod, first)
            await scene.start(pod, second)
            assert scene.told[-1] == pod.failed(2)
            world.free_one_rmid()
            before = len(scene.told)
            assert await group_at_last(scene, pod) == pod.exists
            await scene.settled()
            assert scene.told_since(before) == [pod.there(2, 0)]
            assert scene.tasks(pod) == set()
            for number, handle in enumerate([first, second], start=1):
                before = len(scene.told)
                state = await scene.plugin.retry_container_reconcile(handle.name)
                assert state is ContainerState.RECONCILED
                assert scene.told_since(before) == [pod.there(2, number)]
            assert scene.tasks(pod) == world.threads_of(first) | world.threads_of(second)


async def test_one_pass_makes_the_group_and_its_containers(world: World) -> None:
    """retry_all_once does both: the group, then the containers of the group that it made."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(2)
        with world.use_up_rmids():
            await scene.run(pod)
            await scene.start(pod, handle)
            world.free_one_rmid()
            before = len(scene.told)

            async def attempt() -> bool | None:
                return True if (await scene.plugin.retry_all_once()).groups_created else None

            await eventually(attempt, "a pass that makes the group")
            assert scene.told_since(before) == [pod.there(1, 0), pod.there(1, 1)]
            assert scene.tasks(pod) == world.threads_of(handle)


@pytest.mark.needs(Capability.LIMBO)
async def test_limbo_is_its_own_state(world: World) -> None:
    """Right after a deletion on a full machine mkdir is EBUSY: Failed as well, and over by itself."""
    async with Scene(world) as scene:
        old, new = scene.pod("old"), scene.pod("new")
        await scene.run(old)
        with world.use_up_rmids():
            await scene.stop_pod(old)
            await scene.run(new)
            assert scene.told_of(new) == [new.failed(0)]
            assert "EBUSY" in repr(scene.told_of(new))
            assert await group_at_last(scene, new) == new.exists
            assert scene.told_of(new) == [new.failed(0), new.there(0, 0)]


async def test_a_group_that_exists_is_not_made_again(world: World) -> None:
    """A retry returns it; no mkdir, no event."""
    async with Scene(world) as scene:
        pod = scene.pod("one")
        await scene.run(pod)
        mkdirs, told = scene.mkdirs(), len(scene.told)
        assert await scene.plugin.retry_group_creation(pod.uid) == pod.exists
        assert (scene.mkdirs(), len(scene.told)) == (mkdirs, told)


async def test_unknown_pods_and_containers(world: World) -> None:
    """What is not known cannot be retried."""
    async with Scene(world) as scene:
        with pytest.raises(PodNotFoundError):
            await scene.plugin.retry_group_creation("nobody")
        with pytest.raises(ContainerNotFoundError):
            await scene.plugin.retry_container_reconcile("nothing")
        assert scene.told == []


async def test_a_container_cannot_be_retried_without_a_group(world: World) -> None:
    """While the group is Failed its containers stay as they are, without an error and without a write."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container()
        with world.use_up_rmids():
            await scene.run(pod)
            await scene.start(pod, handle)
            mkdirs, told = scene.mkdirs(), len(scene.told)
            assert await scene.plugin.retry_container_reconcile(handle.name) is ContainerState.PARTIAL
            assert (scene.mkdirs(), len(scene.told)) == (mkdirs, told)
            assert scene.fs.count("write_all") == 0


async def test_a_repeated_start_tries_the_group_again(world: World) -> None:
    """A START of the same container in a Failed pod is one creation and then its reconcile."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(2)
        scene.faults.fail("create_dir", errno.ENOSPC, path=pod.path, times=2)
        await scene.run(pod)
        await scene.start(pod, handle)
        assert scene.told == [pod.failed(0), pod.failed(1)]
        await scene.start(pod, handle)
        assert scene.told == [pod.failed(0), pod.failed(1)]
        await scene.start(pod, handle)
        assert scene.told[-1] == pod.there(1, 1)
        assert scene.mkdirs() == 3
        assert scene.tasks(pod) == world.threads_of(handle)


async def test_every_other_failure_is_failed_as_well(world: World) -> None:
    """A refused permission is Failed, its retry raises the typed error and is silent; later it works."""
    async with Scene(world) as scene:
        pod = scene.pod("one")
        scene.faults.fail("create_dir", errno.EACCES, times=2)
        await scene.run(pod)
        assert scene.told == [pod.failed(0)]
        with pytest.raises(NoPermissionError):
            await scene.plugin.retry_group_creation(pod.uid)
        assert scene.told == [pod.failed(0)]
        assert await scene.plugin.retry_group_creation(pod.uid) == pod.exists
        assert scene.told == [pod.failed(0), pod.there(0, 0)]


async def test_retries_at_the_same_time_share_one_mkdir(world: World) -> None:
    """The second caller joins the first, and both get the outcome."""
    async with Scene(world) as scene:
        pod = scene.pod("one")
        scene.faults.fail("create_dir", errno.ENOSPC, path=pod.path)
        await scene.run(pod)
        mkdirs = scene.mkdirs()
        outcomes = await asyncio.gather(*(scene.plugin.retry_group_creation(pod.uid) for _ in range(3)))
        assert outcomes == [pod.exists] * 3
        assert scene.mkdirs() == mkdirs + 1
        assert scene.told == [pod.failed(0), pod.there(0, 0)]


async def test_nothing_is_tried_by_itself(world: World) -> None:
    """A Failed group waits for a retry, whatever else happens meanwhile."""
    async with Scene(world) as scene:
        pod, other, handle = scene.pod("one"), scene.pod("other"), world.new_container()
        scene.faults.fail("create_dir", errno.ENOSPC, path=pod.path)
        await scene.run(pod)
        mkdirs = scene.fs.count("create_dir", pod.path)
        await scene.run(other)
        await scene.start(other, handle)
        await scene.start(pod, world.new_container())
        await scene.stop_pod(other)
        await scene.synchronize([pod])
        assert scene.fs.count("create_dir", pod.path) == mkdirs == 1
        assert scene.plugin.snapshot()[pod.uid].group_state == FAILED


async def test_others_groups_survive(world: World) -> None:
    """Groups with another prefix are neither swept nor counted as ours, however scarce RMIDs are."""
    async with Scene(world) as scene:
        pod = scene.pod("one")
        mon_groups = world.root / "mon_groups"
        with world.use_up_rmids():
            others = world.groups_in(mon_groups)
            assert others
            await scene.synchronize([pod])
            await scene.plugin.retry_all_once()
            assert world.groups_in(mon_groups) == others
            assert scene.told == [pod.failed(0)]
