"""S5: stale groups of an earlier life are swept once, at the start."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from nri_resctrl_plugin import ResctrlPluginConfig
from tests.scenarios.scene import Scene
from tests.worlds import Capability

if TYPE_CHECKING:
    from pathlib import Path

    from tests.worlds import World


def counters(scene: Scene) -> dict[str, int]:
    """Return the counters of the one startup_cleanup record."""
    (record,) = scene.records("startup_cleanup")
    assert record["log_level"] == "info"
    names = ("removed", "removal_failures", "removal_race", "non_prefix_groups")
    return {name: record[name] for name in names}


def strangers(world: World, prefix: str) -> int:
    """Return how many groups there are that do not begin with a prefix."""
    names = [*world.groups_in(world.root), *world.groups_in(world.root / "mon_groups")]
    return sum(not name.startswith(prefix) for name in names)


@pytest.mark.needs(Capability.CONTROL_GROUPS)
async def test_prefixed_groups_at_both_levels_are_removed(world: World) -> None:
    """Ours at the root, control groups included, and in mon_groups go; everybody else's stay."""
    async with Scene(world) as scene:
        mon = world.root / "mon_groups"
        foreign = {world.root / f"{world.others_prefix}ctrl", mon / f"{world.others_prefix}a"}
        ours = {world.root / f"{world.prefix}ctrl", mon / f"{world.prefix}a", mon / f"{world.prefix}b"}
        for path in (*foreign, *ours):
            world.add_group(path)
        await scene.synchronize([])
        assert not any(world.fs.exists(path) for path in ours)
        assert all(world.fs.exists(path) for path in foreign)
        assert counters(scene) == {
            "removed": 3,
            "removal_failures": 0,
            "removal_race": 0,
            "non_prefix_groups": strangers(world, world.prefix),
        }


@pytest.mark.needs(Capability.CONTROL_GROUPS)
async def test_a_control_groups_own_groups_are_left_alone(world: World) -> None:
    """Without placement, what stands in a control group's mon_groups is not looked at, whatever its name."""
    async with Scene(world, ResctrlPluginConfig(class_placement=False)) as scene:
        control = world.root / f"{world.others_prefix}ctrl"
        inner = control / "mon_groups" / f"{world.prefix}inner"
        world.add_group(control)
        world.add_group(inner)
        await scene.synchronize([])
        assert world.fs.exists(inner)
        assert counters(scene)["non_prefix_groups"] == strangers(world, world.prefix) >= 1
        assert scene.fs.count("read_child_dirs", inner.parent) == 0


async def test_a_prefixed_file_is_no_group(world: World) -> None:
    """The kernel's own cpus_list begins with the prefix cpus_list, and is neither removed nor counted."""
    # As long a prefix as there can be: nobody else's group on this machine has it.
    async with Scene(world, prefix="cpus_list") as scene:
        world.add_group(world.root / "mon_groups/cpus_list_a")
        await scene.synchronize([])
        assert world.fs.exists(world.root / "cpus_list")
        assert scene.fs.count("remove_dir", world.root / "cpus_list") == 0
        assert counters(scene) == {
            "removed": 1,
            "removal_failures": 0,
            "removal_race": 0,
            "non_prefix_groups": strangers(world, "cpus_list"),
        }


async def test_an_entry_that_vanishes_is_a_race(world: World) -> None:
    """A group that somebody else removes between the look and the rmdir is no failure."""
    async with Scene(world) as scene:
        paths = [world.root / "mon_groups" / f"{world.prefix}{name}" for name in "abc"]
        for path in paths:
            world.add_group(path)

        def faster(path: Path) -> None:
            world.fs.remove_dir(path)

        scene.faults.before("remove_dir", faster, path=paths[1])
        await scene.synchronize([])
        assert scene.groups() == set()
        assert counters(scene) == {
            "removed": 2,
            "removal_failures": 0,
            "removal_race": 1,
            "non_prefix_groups": strangers(world, world.prefix),
        }


async def test_a_failure_stops_neither_the_sweep_nor_the_start(world: World) -> None:
    """What cannot be removed is counted; the rest is, and pods get their groups."""
    async with Scene(world) as scene:
        paths = [world.root / "mon_groups" / f"{world.prefix}{name}" for name in "ab"]
        for path in paths:
            world.add_group(path)
        scene.faults.fail("remove_dir", errno.EBUSY, path=paths[0])
        pod = scene.pod("one")
        await scene.synchronize([pod])
        assert counters(scene)["removal_failures"] == 1
        assert scene.groups() == {paths[0].name, pod.path.name}
        assert scene.told == [pod.there(0, 0)]


async def test_a_sweep_tells_nothing(world: World) -> None:
    """No pod event comes of it, and exactly one log record."""
    async with Scene(world) as scene:
        for name in "abc":
            world.add_group(world.root / "mon_groups" / f"{world.prefix}{name}")
        await scene.synchronize([])
        assert scene.told == []
        assert scene.plugin.snapshot() == {}
        assert counters(scene)["removed"] == 3


async def test_it_comes_after_the_mount_and_before_any_group(world: World) -> None:
    """The mount is looked at first, then the sweep, then the pods' groups."""
    async with Scene(world) as scene:
        stale, pod = world.root / "mon_groups" / f"{world.prefix}stale", scene.pod("one")
        world.add_group(stale)
        await scene.synchronize([pod])
        order = [(call.operation, call.path.name) for call in scene.fs.calls]
        looked = order.index(("read_text", "mountinfo"))
        swept = order.index(("remove_dir", stale.name))
        made = order.index(("create_dir", pod.path.name))
        assert looked < swept < made


async def test_a_pods_own_stale_group_is_made_anew(world: World) -> None:
    """The group of an earlier life goes, with whatever was in it, and the pod's threads are all moved."""
    async with Scene(world) as scene:
        pod, handle, stranger = scene.pod("one"), world.new_container(3), world.spawn_task()
        world.add_group(pod.path)
        world.put(pod.path, stranger)
        await scene.synchronize([pod], [scene.container(pod, handle)])
        assert scene.tasks(pod) == world.threads_of(handle)
        assert scene.told == [pod.there(1, 0), pod.there(1, 1)]
        assert stranger in world.tasks_in(world.root)


async def test_it_comes_once_in_a_plugins_life(world: World) -> None:
    """A second Synchronize, as after a reconnect, sweeps nothing: living pods keep their groups."""
    async with Scene(world) as scene:
        pod, handle = scene.pod("one"), world.new_container(2)
        await scene.synchronize([pod], [scene.container(pod, handle)])
        stale = world.root / "mon_groups" / f"{world.prefix}stale"
        world.add_group(stale)
        await scene.synchronize([pod], [scene.container(pod, handle)])
        assert len(scene.records("startup_cleanup")) == 1
        assert scene.groups() == {pod.path.name, stale.name}
        assert scene.tasks(pod) == world.threads_of(handle)
        assert scene.fs.count("remove_dir", pod.path) == 0


async def test_without_a_synchronize_there_is_no_sweep(world: World) -> None:
    """A first event that is no Synchronize looks at the mount alone; a later Synchronize sweeps nothing."""
    async with Scene(world) as scene:
        stale, pod = world.root / "mon_groups" / f"{world.prefix}stale", scene.pod("one")
        world.add_group(stale)
        await scene.run(pod)
        await scene.synchronize([pod])
        assert world.fs.exists(stale)
        assert scene.records("startup_cleanup") == []
        assert scene.told == [pod.there(0, 0)]


async def test_it_can_be_turned_off(world: World) -> None:
    """With cleanup_on_start false nothing is removed and nothing is logged."""
    async with Scene(world, ResctrlPluginConfig(cleanup_on_start=False)) as scene:
        stale = world.root / "mon_groups" / f"{world.prefix}stale"
        world.add_group(stale)
        await scene.synchronize([])
        assert world.fs.exists(stale)
        assert scene.records("startup_cleanup") == []
        assert scene.fs.count("remove_dir") == 0


async def test_a_sweep_that_fails_whole_stops_nothing(world: World) -> None:
    """A mon_groups that cannot be listed is logged, and pods get their groups."""
    async with Scene(world) as scene:
        scene.faults.fail("read_child_dirs", errno.EIO)
        pod = scene.pod("one")
        await scene.synchronize([pod])
        assert scene.told == [pod.there(0, 0)]
        assert len(scene.records("startup_cleanup_failed")) == 1
        assert scene.records("startup_cleanup") == []
