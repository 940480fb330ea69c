"""The library alone, without a plugin: what the machine answers becomes the right value or error."""

from __future__ import annotations

import errno
import math
from itertools import count
from typing import TYPE_CHECKING

import pytest

from resctrl import (
    AssignmentResult,
    CapacityError,
    EmptyPidSetError,
    GroupNotFoundError,
    NotMountedError,
    Resctrl,
    ResctrlConfig,
    RmidsBusyError,
    TaskNotInParentError,
    WriteError,
)
from resctrl.testing import RecordingFs
from tests.worlds import Capability, eventually

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from resctrl import FsProvider, Tid
    from tests.worlds import World


def resctrl_of(world: World) -> Resctrl[FsProvider]:
    """Return the library over a world."""
    return resctrl_over(world.fs, world)


def resctrl_over(fs: FsProvider, world: World) -> Resctrl[FsProvider]:
    """Return the library over a world, by way of some wrapper."""
    return Resctrl.with_provider(fs, ResctrlConfig(root=world.root, group_prefix=world.prefix))


def dead_thread(world: World) -> Tid:
    """Return a thread that was."""
    tid = world.spawn_task()
    world.end_task(tid)
    return tid


def write(world: World, group: Path, data: bytes) -> int:
    """Write once to a group's tasks; return 0 or the errno."""
    try:
        world.fs.write_all(group / "tasks", [data])
    except WriteError as error:
        return error.errno or 0
    return 0


def test_what_the_machine_offers(world: World) -> None:
    """Mounted, writable, and able to monitor."""
    support = resctrl_of(world).detect_support()
    assert (support.kernel_support, support.mounted, support.writable, support.monitoring) == (True,) * 4
    assert support.mount_point == world.root


def test_a_machine_that_is_not_mounted(world: World) -> None:
    """What is not mounted is told as that by every call, not as a missing group."""
    resctrl = resctrl_of(world)
    world.mount_state(mounted=False)
    assert not resctrl.detect_support().mounted
    with pytest.raises(NotMountedError):
        resctrl.create_group("one")
    with pytest.raises(NotMountedError):
        resctrl.cleanup_all()
    with pytest.raises(NotMountedError):
        resctrl.ensure_mounted(auto_mount=False)


def test_a_group_is_made_once_and_deleted_once(world: World) -> None:
    """Both are idempotent; what is deleted gives its threads back to the default group."""
    resctrl, tid = resctrl_of(world), world.spawn_task()
    group = resctrl.create_group("one")
    assert resctrl.create_group("one") == group
    assert group.name in world.groups_in(world.root / "mon_groups")
    assert resctrl.assign_tasks(group, [tid]) == AssignmentResult(assigned=1, missing=0)
    resctrl.delete_group(group)
    resctrl.delete_group(group)
    assert group.name not in world.groups_in(world.root / "mon_groups")
    assert tid in world.tasks_in(world.root)
    assert world.tasks_in(resctrl.create_group("one")) == set()


def test_no_rmid_is_left(world: World) -> None:
    """ENOSPC is CapacityError itself, worth a retry, with the kernel's own sentence."""
    resctrl = resctrl_of(world)
    with world.use_up_rmids():
        with pytest.raises(CapacityError) as caught:
            resctrl.create_group("one")
        assert type(caught.value) is CapacityError
        assert (caught.value.errno, caught.value.kernel_status) == (errno.ENOSPC, "Out of RMIDs")
        assert caught.value.retryable


@pytest.mark.needs(Capability.LIMBO)
async def test_an_rmid_in_limbo(world: World) -> None:
    """EBUSY is RmidsBusyError, and ends by itself."""
    resctrl = resctrl_of(world)
    with world.use_up_rmids():
        world.free_one_rmid()
        with pytest.raises(RmidsBusyError) as caught:
            resctrl.create_group("one")
        assert (caught.value.errno, caught.value.kernel_status) == (errno.EBUSY, "Out of RMIDs")

        async def made() -> Path | None:
            try:
                return resctrl.create_group("one")
            except RmidsBusyError:
                return None

        await eventually(made, "the RMID")


def test_a_dead_thread_is_missing(world: World) -> None:
    """ESRCH costs the others nothing: those before and after it are assigned."""
    resctrl, first, last = resctrl_of(world), world.spawn_task(), world.spawn_task()
    group = resctrl.create_group("one")
    result = resctrl.assign_tasks(group, [first, dead_thread(world), last])
    assert result == AssignmentResult(assigned=2, missing=1)
    assert world.tasks_in(group) == {first, last}


def lists(tids: Sequence[Tid]) -> int:
    """Return how many writes of a page so many ids need at least."""
    return math.ceil(sum(len(f"{tid},") for tid in tids) / 4096)


def test_a_thousand_threads(world: World) -> None:
    """They take a handful of operations: few writes through one descriptor, and one look at the group."""
    fs = RecordingFs(world.fs)
    resctrl, container = resctrl_over(fs, world), world.new_container(1000)
    group = resctrl.create_group("one")
    fs.forget()
    assert resctrl.reconcile_group(group, lambda: world.threads_of(container)).complete
    assert world.tasks_in(group) == world.threads_of(container)
    assert len(world.tasks_in(group)) == 1000
    assert fs.count("write_all") == fs.count("read_text") == 1
    assert fs.count("write") <= lists(sorted(world.threads_of(container))) + 1
    assert len(fs.calls) <= 5


@pytest.mark.parametrize("position", [0, 100, 199, 200])
def test_a_dead_thread_among_many(world: World, position: int) -> None:
    """Wherever it stands it costs three writes more at most, and nobody else anything."""
    fs = RecordingFs(world.fs)
    resctrl, container = resctrl_over(fs, world), world.new_container(200)
    group = resctrl.create_group("one")
    tids = sorted(world.threads_of(container))
    tids.insert(position, dead_thread(world))
    fs.forget()
    assert resctrl.assign_tasks(group, tids) == AssignmentResult(assigned=200, missing=1)
    assert world.tasks_in(group) == world.threads_of(container)
    assert fs.count("write") <= lists(tids) + 3
    assert fs.count("write_all") == 1


@pytest.mark.needs(Capability.CONTROL_GROUPS)
def test_a_refused_thread_among_many_dead_ones(world: World) -> None:
    """Each is told from the others: refused, dead, assigned; and each costs a few writes."""
    fs = RecordingFs(world.fs)
    resctrl, container = resctrl_over(fs, world), world.new_container(20)
    control = world.root / f"{world.others_prefix}class"
    world.add_group(control)
    theirs = world.spawn_task()
    world.put(control, theirs)
    live, dead = sorted(world.threads_of(container)), [dead_thread(world) for _ in range(10)]
    tids = [*dead[:3], *live[:7], *dead[3:6], theirs, *live[7:], *dead[6:]]
    group = resctrl.create_group("one")
    fs.forget()
    with pytest.raises(TaskNotInParentError) as caught:
        resctrl.assign_tasks(group, tids)
    assert caught.value.refused == (theirs,)
    assert caught.value.partial == AssignmentResult(assigned=20, missing=10)
    assert "different control group" in str(caught.value.kernel_status)
    assert world.tasks_in(group) == set(live)
    assert fs.count("write") <= lists(tids) + 3 * 11


def test_each_thread_is_moved_by_itself(world: World) -> None:
    """The first thread of a process takes none of the others along."""
    resctrl, container = resctrl_of(world), world.new_container(4)
    group = resctrl.create_group("one")
    first = min(world.threads_of(container))
    resctrl.assign_tasks(group, [first])
    assert world.tasks_in(group) == {first}
    assert resctrl.list_group_tasks(group) == [first]


@pytest.mark.needs(Capability.CONTROL_GROUPS)
def test_a_thread_of_another_control_group(world: World) -> None:
    """EINVAL is TaskNotInParentError, not worth a retry, and tells who; the others are assigned."""
    resctrl, ours, theirs, last = resctrl_of(world), *(world.spawn_task() for _ in range(3))
    control = world.root / f"{world.others_prefix}class"
    world.add_group(control)
    world.put(control, theirs)
    group = resctrl.create_group("one")
    with pytest.raises(TaskNotInParentError) as caught:
        resctrl.assign_tasks(group, [ours, theirs, last])
    assert not caught.value.retryable
    assert caught.value.partial == AssignmentResult(assigned=2, missing=0)
    assert caught.value.refused == (theirs,)
    assert "different control group" in str(caught.value.kernel_status)
    assert world.tasks_in(group) == {ours, last}
    assert world.tasks_in(control) == {theirs}


@pytest.mark.needs(Capability.CONTROL_GROUPS)
def test_a_control_group_takes_threads_back(world: World) -> None:
    """Who writes a thread to a control group's tasks takes it out of its monitoring group."""
    resctrl, tid = resctrl_of(world), world.spawn_task()
    group = resctrl.create_group("one")
    resctrl.assign_tasks(group, [tid])
    world.put(world.root, tid)
    assert world.tasks_in(group) == set()
    control = world.root / f"{world.others_prefix}class"
    world.add_group(control)
    resctrl.assign_tasks(group, [tid])
    world.put(control, tid)
    assert resctrl.list_group_tasks(group) == []


def test_a_write_of_a_page_and_of_one_byte_more(world: World) -> None:
    """4096 bytes are taken whole; of 4097 nothing is moved, E2BIG, and nothing is said."""
    group, tid, other = resctrl_of(world).create_group("one"), world.spawn_task(), world.spawn_task()
    assert write(world, group, (b"%d" % tid).rjust(4096)) == 0
    assert world.tasks_in(group) == {tid}
    assert write(world, group, (b"%d" % other).rjust(4097)) == errno.E2BIG
    assert world.tasks_in(group) == {tid}
    assert world.fs.read_text(world.root / "info/last_cmd_status") == "ok\n"


def test_a_comma_list_stops_at_the_first_failure(world: World) -> None:
    """What stands before the dead thread is moved, what stands behind is not, and who it was is told."""
    group, first, last = resctrl_of(world).create_group("one"), world.spawn_task(), world.spawn_task()
    dead = dead_thread(world)
    assert write(world, group, b"%d,%d,%d" % (first, dead, last)) == errno.ESRCH
    assert world.tasks_in(group) == {first}
    said = world.fs.read_text(world.root / "info/last_cmd_status").splitlines()
    assert said == [f"No task {dead}", f"Error while processing task {dead}"]


def test_numbers_have_base_0(world: World) -> None:
    """A leading 0 is octal and 0x hexadecimal: ids are written in plain decimals."""
    group, first, last = resctrl_of(world).create_group("one"), world.spawn_task(), world.spawn_task()
    assert write(world, group, b"0%o" % first) == write(world, group, b"0x%x" % last) == 0
    assert world.tasks_in(group) == {first, last}


def test_a_group_that_is_gone(world: World) -> None:
    """By path it is GroupNotFoundError; a file of it that is held open is ENODEV."""
    resctrl, tid = resctrl_of(world), world.spawn_task()
    group = resctrl.create_group("one")
    with world.fs.open_reader(group / "tasks") as reader:
        assert reader.read() == ""
        resctrl.assign_tasks(group, [tid])
        assert reader.read() == f"{tid}\n"
        resctrl.delete_group(group)
        with pytest.raises(OSError, match="No such device"):
            reader.read()
    with pytest.raises(GroupNotFoundError):
        resctrl.assign_tasks(group, [tid])
    with pytest.raises(GroupNotFoundError):
        resctrl.list_group_tasks(group)


def test_a_container_that_grows_while_it_is_reconciled(world: World) -> None:
    """Threads that are born meanwhile are found, by inheritance or by the next pass."""
    resctrl, container = resctrl_of(world), world.new_container(5)
    group = resctrl.create_group("one")

    def growing() -> Collection[Tid]:
        listed = world.threads_of(container)
        if len(listed) < 9:
            world.spawn_task(max(listed))
        return listed

    result = resctrl.reconcile_group(group, growing)
    assert result.complete
    assert world.tasks_in(group) == world.threads_of(container)
    assert len(world.tasks_in(group)) == 9


def test_a_container_that_ended(world: World) -> None:
    """Where no thread is there is nothing to be complete."""
    resctrl, container = resctrl_of(world), world.new_container(0)
    group = resctrl.create_group("one")
    with pytest.raises(EmptyPidSetError):
        resctrl.reconcile_group(group, lambda: world.threads_of(container))


def test_a_group_that_changes_its_class_keeps_its_threads(world: World) -> None:
    """Renamed within mon_groups, group and threads stay together."""
    resctrl, tid = resctrl_of(world), world.spawn_task()
    group = resctrl.create_group("one")
    resctrl.assign_tasks(group, [tid])
    other = resctrl.group_path("two")
    world.fs.rename(group, other)
    assert world.tasks_in(other) == {tid}
    assert group.name not in world.groups_in(world.root / "mon_groups")


def test_names_of_all_kinds_are_swept(world: World) -> None:
    """The sweep takes whatever begins with the prefix, however odd, and nothing else."""
    resctrl = resctrl_of(world)
    names = ("a b", "a,b", ".a", "%s", "\u00e4", "x" * 300, "...")
    number = count()
    for name in names:
        world.add_group(world.root / "mon_groups" / f"{world.prefix}{name}{next(number)}")
    stranger = world.root / "mon_groups" / f"{world.others_prefix}a"
    world.add_group(stranger)
    report = resctrl.cleanup_all()
    assert (report.removed, report.removal_failures, report.removal_race) == (len(names), 0, 0)
    assert stranger.name in world.groups_in(world.root / "mon_groups")
