"""The library alone: groups below control groups, moving them, and what there is on the machine."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from resctrl import (
    CapacityError,
    GroupExistsError,
    GroupNotFoundError,
    NotMountedError,
    ResctrlGroup,
    TaskGroups,
    TaskNotInParentError,
    UnsupportedError,
)
from tests.scenarios.test_library import dead_thread, resctrl_of
from tests.worlds import Capability, Machine

if TYPE_CHECKING:
    from pathlib import Path

    from tests.worlds import World

needs_classes = pytest.mark.needs(Capability.CONTROL_GROUPS)


def make_class(world: World, name: str) -> Path:
    """Make a control group as somebody else would."""
    control = world.root / f"{world.others_prefix}{name}"
    world.add_group(control)
    return control


def groups_seen(world: World) -> set[Path]:
    """Return every group but the default one, past the code under test."""
    controls = [world.root / name for name in world.groups_in(world.root)]
    found = set(controls)
    for control in (world.root, *controls):
        found |= {control / "mon_groups" / name for name in world.groups_in(control / "mon_groups")}
    return found


@needs_classes
def test_threads_of_a_class_go_below_it(world: World) -> None:
    """A group below their control group takes them, and they stay in their class; one elsewhere does not."""
    resctrl, container, control = resctrl_of(world), world.new_container(3), make_class(world, "gold")
    threads = world.threads_of(container)
    for tid in threads:
        world.put(control, tid)
    with pytest.raises(TaskNotInParentError) as caught:
        resctrl.reconcile_group(resctrl.create_group("one"), lambda: world.threads_of(container))
    assert set(caught.value.refused) == threads
    group = resctrl.create_group("one", control.name)
    assert group == resctrl.create_group("one", control.name) == control / "mon_groups" / group.name
    assert resctrl.reconcile_group(group, lambda: world.threads_of(container)).complete
    assert world.tasks_in(group) == world.tasks_in(control) == threads
    assert {resctrl.task_groups(tid) for tid in threads} == {TaskGroups(control.name, group.name)}
    resctrl.delete_group(group)
    assert world.tasks_in(control) == threads


@needs_classes
def test_a_class_that_is_gone(world: World) -> None:
    """Neither a new group nor one that is moved finds a place below it; the one that is moved stays."""
    resctrl, gone = resctrl_of(world), world.root / f"{world.others_prefix}gone"
    with pytest.raises(GroupNotFoundError) as caught:
        resctrl.create_group("one", gone.name)
    assert (caught.value.path, caught.value.errno) == (gone, errno.ENOENT)
    group = resctrl.create_group("one")
    with pytest.raises(GroupNotFoundError) as caught:
        resctrl.move_group(group, gone.name)
    assert (caught.value.path, caught.value.errno) == (gone, errno.ENOENT)
    assert group in groups_seen(world)
    resctrl.delete_group(group)
    with pytest.raises(GroupNotFoundError) as caught:
        resctrl.move_group(group, "")
    assert caught.value.path == group


@needs_classes
def test_a_group_that_is_moved_keeps_what_it_counted(world: World) -> None:
    """RMID, counters and open files go with it, and its threads change their class; back again as well."""
    resctrl, container, control = resctrl_of(world), world.new_container(2), make_class(world, "gold")
    group = resctrl.create_group("one")
    assert resctrl.reconcile_group(group, lambda: world.threads_of(container)).complete
    world.work(container)
    before = world.traffic(group)
    assert all(value > 0 for value in before.values())
    capacity, made = resctrl.capacity(), world.fs.identity(group)
    with world.fs.open_reader(group / "tasks") as reader:
        for target in (control.name, ""):
            group = resctrl.move_group(group, target)
            assert group == resctrl.group_path("one", target)
            assert world.tasks_in(group) == world.threads_of(container)
            assert {int(line) for line in reader.read().split()} == world.threads_of(container)
            after = world.traffic(group)
            assert all(after[event] >= value for event, value in before.items())
            world.work(container)
            before = world.traffic(group)
            assert all(before[event] > value for event, value in after.items())
            assert world.fs.identity(group) == made
            assert {resctrl.task_groups(tid) for tid in world.threads_of(container)} == {
                TaskGroups(target, group.name)
            }
    assert resctrl.capacity() == capacity


@needs_classes
def test_a_group_in_the_way(world: World) -> None:
    """Two groups of one name stay apart; a group that stands there already has nowhere to go."""
    resctrl, control = resctrl_of(world), make_class(world, "gold")
    here, there = resctrl.create_group("one"), resctrl.create_group("one", control.name)
    with pytest.raises(GroupExistsError) as caught:
        resctrl.move_group(here, control.name)
    assert (caught.value.path, caught.value.errno) == (there, errno.EEXIST)
    assert resctrl.move_group(there, control.name) == there
    assert {here, there} <= groups_seen(world)


@needs_classes
def test_where_a_thread_is(world: World) -> None:
    """Its class and its group, each by name, and nothing once it is gone."""
    resctrl, tid, control = resctrl_of(world), world.spawn_task(), make_class(world, "gold")
    assert resctrl.task_groups(tid) == TaskGroups("", "")
    group = resctrl.create_group("one")
    resctrl.assign_tasks(group, [tid])
    assert resctrl.task_groups(tid) == TaskGroups("", group.name)
    world.put(control, tid)
    assert resctrl.task_groups(tid) == TaskGroups(control.name, "")
    resctrl.assign_tasks(resctrl.create_group("one", control.name), [tid])
    assert resctrl.task_groups(tid) == TaskGroups(control.name, group.name)
    assert resctrl.task_groups(dead_thread(world)) is None


@needs_classes
def test_every_group_is_listed(world: World) -> None:
    """What an observer sees, each as what it is, and as ours or not."""
    resctrl, control = resctrl_of(world), make_class(world, "gold")
    ours = {resctrl.create_group("one"), resctrl.create_group("two", control.name)}
    stranger = control / "mon_groups" / f"{world.others_prefix}x"
    world.add_group(stranger)
    listed = resctrl.list_groups()
    assert {group.path for group in listed} == groups_seen(world) >= {*ours, stranger, control}
    assert {group.path for group in listed if group.ours} == ours
    assert ResctrlGroup(stranger, control.name, stranger.name, ours=False) in listed
    assert ResctrlGroup(control, control.name, "", ours=False) in listed


@needs_classes
def test_the_capacity_is_what_can_be_made(world: World) -> None:
    """Every group of every kind takes one; when none is free none can be made."""
    resctrl, control = resctrl_of(world), make_class(world, "gold")
    resctrl.create_group("one")
    resctrl.create_group("two", control.name)
    capacity = resctrl.capacity()
    assert (capacity.in_use, capacity.ours) == (1 + len(groups_seen(world)), 2)
    with world.use_up_rmids():
        full = resctrl.capacity()
        assert (full.free, full.in_use, full.ours) == (0, full.num_rmids, 2)
        assert full.num_rmids == capacity.num_rmids
        with pytest.raises(CapacityError):
            resctrl.create_group("three")
        world.free_one_rmid()
        assert resctrl.capacity().free == 1


def test_what_is_not_mounted_has_no_groups(world: World) -> None:
    """That is said, rather than that there are none."""
    resctrl = resctrl_of(world)
    group = resctrl.create_group("one")
    world.mount_state(mounted=False)
    for ask in (
        resctrl.list_groups,
        resctrl.capacity,
        lambda: resctrl.move_group(group, ""),
        lambda: resctrl.create_group("one", "gold"),
    ):
        with pytest.raises(NotMountedError):
            ask()


@pytest.mark.machine(Machine.WITHOUT_MONITORING)
def test_a_machine_without_monitoring(world: World) -> None:
    """It has classes, and neither RMIDs nor a place for our groups."""
    resctrl, control, tid = resctrl_of(world), make_class(world, "gold"), world.spawn_task()
    assert [group.path for group in resctrl.list_groups()] == [control]
    with pytest.raises(UnsupportedError):
        resctrl.capacity()
    with pytest.raises(UnsupportedError):
        resctrl.create_group("one", control.name)
    world.put(control, tid)
    assert resctrl.task_groups(tid) == TaskGroups(control.name, "")


@needs_classes
def test_a_sweep_below_classes_keeps_what_lives(world: World) -> None:
    """Ours go at both levels but for those that are wanted; others' groups and classes stay."""
    resctrl, control = resctrl_of(world), make_class(world, "gold")
    kept = {resctrl.create_group("one"), resctrl.create_group("one", control.name)}
    stale = {resctrl.create_group("two"), resctrl.create_group("three", control.name)}
    stranger = control / "mon_groups" / f"{world.others_prefix}x"
    world.add_group(stranger)
    report = resctrl.cleanup_all(below_control_groups=True, keep={resctrl.group_path("one").name})
    assert (report.removed, report.kept, report.removal_failures) == (2, 2, 0)
    seen = groups_seen(world)
    assert {*kept, stranger, control} <= seen
    assert seen.isdisjoint(stale)
    assert resctrl.cleanup_all().removed == 1
    assert resctrl.group_path("one", control.name) in groups_seen(world)
