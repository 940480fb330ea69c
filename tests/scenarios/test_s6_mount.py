"""S6: resctrl is mounted or not, may be mounted or not, and what comes of each combination."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from nri_resctrl_plugin import ResctrlPluginConfig
from resctrl import NotMountedError, TaskGroups, UnsupportedError
from tests.scenarios.scene import Scene
from tests.scenarios.test_library import resctrl_of
from tests.worlds import Capability, Machine

if TYPE_CHECKING:
    from tests.worlds import World

BOTH = pytest.mark.parametrize("auto_mount", [False, True])


@BOTH
async def test_mounted(world: World, auto_mount: bool) -> None:
    """What is mounted is used as it is; nothing is mounted again."""
    async with Scene(world, ResctrlPluginConfig(auto_mount=auto_mount)) as scene:
        pod = scene.pod("one")
        await scene.synchronize([pod])
        assert scene.told == [pod.there(0, 0)]
        assert scene.fs.count("mount_resctrl") == 0


async def test_unmounted_and_left_so(world: World) -> None:
    """Without leave to mount every group is Failed, the log says how to mount, and nothing was tried."""
    async with Scene(world) as scene:
        world.mount_state(mounted=False)
        pod, handle = scene.pod("one"), world.new_container()
        await scene.synchronize([pod], [scene.container(pod, handle)])
        assert scene.told == [pod.failed(1)]
        assert "mount -t resctrl" in repr(scene.told)
        assert scene.fs.count("mount_resctrl") == 0
        assert not world.is_mounted()
        (record,) = scene.records("startup_mount_failed")
        assert "mount -t resctrl" in record["error"]
        assert scene.records("startup_cleanup") == []


async def test_auto_mount_is_off_unless_asked_for(world: World) -> None:
    """A mount concerns the whole machine: the default leaves it alone."""
    assert ResctrlPluginConfig().auto_mount is False
    async with Scene(world) as scene:
        world.mount_state(mounted=False)
        await scene.run(scene.pod("one"))
        assert not world.is_mounted()


@pytest.mark.needs(Capability.MOUNTING)
async def test_unmounted_and_mounted_by_us(world: World) -> None:
    """With leave it is mounted, once, before the sweep and the groups."""
    async with Scene(world, ResctrlPluginConfig(auto_mount=True)) as scene:
        world.mount_state(mounted=False)
        pod, handle = scene.pod("one"), world.new_container(2)
        library, thread = resctrl_of(world), min(world.threads_of(handle))
        with pytest.raises(NotMountedError):  # the kernel's own word: there is nothing that it could be in
            library.task_groups(thread)
        await scene.synchronize([pod], [scene.container(pod, handle)])
        assert world.is_mounted()
        assert library.task_groups(thread) == TaskGroups("", pod.path.name)
        assert scene.fs.count("mount_resctrl") == 1
        assert scene.told == [pod.there(1, 0), pod.there(1, 1)]
        assert scene.tasks(pod) == world.threads_of(handle)
        order = [call.operation for call in scene.fs.calls]
        assert order.index("mount_resctrl") < order.index("read_child_dirs") < order.index("create_dir")
    # Where no Synchronize comes the first event does the mount, and no sweep.
    async with Scene(world, ResctrlPluginConfig(auto_mount=True)) as scene:
        world.mount_state(mounted=False)
        pod = scene.pod("two")
        await scene.run(pod)
        assert scene.told == [pod.there(0, 0)]
        assert scene.fs.count("mount_resctrl") == 1
        assert scene.records("startup_cleanup") == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.ENODEV, errno.EINVAL, errno.ENOSYS])
async def test_a_mount_that_is_refused(world: World, number: int) -> None:
    """Groups are Failed with the reason of the mount, which is tried once; nothing is swept."""
    async with Scene(world, ResctrlPluginConfig(auto_mount=True)) as scene:
        world.mount_state(mounted=False)
        scene.faults.fail("mount_resctrl", number)
        pods = [scene.pod("one"), scene.pod("two")]
        await scene.synchronize(pods)
        assert scene.told == [pod.failed(0) for pod in pods]
        assert errno.errorcode[number] in repr(scene.told)
        assert scene.fs.count("mount_resctrl") == 1
        assert len(scene.records("startup_mount_failed")) == 1
        assert scene.records("startup_cleanup") == []


async def test_somebody_mounts_at_the_same_time(world: World) -> None:
    """EBUSY because it has just been mounted is as good as having mounted it."""
    async with Scene(world, ResctrlPluginConfig(auto_mount=True)) as scene:
        world.mount_state(mounted=False)
        scene.faults.before("mount_resctrl", lambda _: world.mount_state(mounted=True))
        pod = scene.pod("one")
        await scene.synchronize([pod])
        assert scene.told == [pod.there(0, 0)]


async def test_mounted_where_we_cannot_see_it(world: World) -> None:
    """EBUSY and still not mounted: Failed, and the reason says where it must be."""
    async with Scene(world, ResctrlPluginConfig(auto_mount=True)) as scene:
        world.mount_state(mounted=False)
        scene.faults.fail("mount_resctrl", errno.EBUSY)
        pod = scene.pod("one")
        await scene.synchronize([pod])
        assert scene.told == [pod.failed(0)]
        assert "another mount namespace" in repr(scene.told)


async def test_mounted_later_by_somebody_else(world: World) -> None:
    """A retry finds the mount that came meanwhile, and one pass mends everything."""
    async with Scene(world) as scene:
        world.mount_state(mounted=False)
        pod, handle = scene.pod("one"), world.new_container(2)
        await scene.synchronize([pod], [scene.container(pod, handle)])
        with pytest.raises(NotMountedError):
            await scene.plugin.retry_group_creation(pod.uid)
        world.mount_state(mounted=True)
        report = await scene.plugin.retry_all_once()
        assert (report.groups_created, report.containers_reconciled) == (1, 1)
        assert scene.told == [pod.failed(1), pod.there(1, 0), pod.there(1, 1)]
        assert scene.tasks(pod) == world.threads_of(handle)


async def test_unmounted_under_way(world: World) -> None:
    """When somebody unmounts it, new pods are Failed and old ones can go: nothing breaks."""
    async with Scene(world) as scene:
        old, new = scene.pod("old"), scene.pod("new")
        await scene.synchronize([old])
        world.mount_state(mounted=False)
        await scene.run(new)
        assert scene.told_of(new) == [new.failed(0)]
        await scene.stop_pod(old)
        assert scene.told_of(old)[-1] == old.removed
        assert (await scene.plugin.retry_all_once()).orphans_kept == 0


@pytest.mark.machine(Machine.WITHOUT_RESCTRL)
async def test_a_machine_without_resctrl(world: World) -> None:
    """Groups are Failed, and neither mkdir nor mount is tried for the mount, whether or not we may mount."""
    for auto_mount in (False, True):
        async with Scene(world, ResctrlPluginConfig(auto_mount=auto_mount)) as scene:
            pod = scene.pod("one")
            await scene.synchronize([pod])
            assert scene.told == [pod.failed(0)]
            assert scene.fs.count("mount_resctrl") == 0
            assert scene.fs.count("create_dir", world.root) == 0
            assert "no resctrl" in repr(scene.told) or "/proc/filesystems" in repr(scene.told)


@pytest.mark.machine(Machine.WITHOUT_MONITORING)
async def test_a_machine_that_cannot_monitor(world: World) -> None:
    """It is mounted and has no mon_groups: Failed, and a retry says that the feature is missing."""
    async with Scene(world) as scene:
        pod = scene.pod("one")
        await scene.synchronize([pod])
        assert scene.told == [pod.failed(0)]
        with pytest.raises(UnsupportedError):
            await scene.plugin.retry_group_creation(pod.uid)
        assert len(scene.records("startup_cleanup")) == 1
