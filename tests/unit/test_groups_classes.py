"""class Resctrl: groups below control groups, moving them, and where a thread is."""

from __future__ import annotations

import errno
import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from resctrl import (
    CapacityError,
    GroupExistsError,
    GroupNotFoundError,
    InvalidGroupError,
    InvalidTidError,
    NoPermissionError,
    NotMountedError,
    Operation,
    Resctrl,
    ResctrlError,
    ResctrlIOError,
    TaskGroups,
    TaskNotInParentError,
    Tid,
    UnexpectedContentError,
    UnsupportedError,
)
from resctrl.testing import FakeFs, FaultyFs, Privilege, RecordingFs
from tests.unit.fakes import MON, ROOT, put, spoil_status

if TYPE_CHECKING:
    from collections.abc import Callable

GOLD = ROOT / "gold/mon_groups"


class Classes:
    """A machine with the control groups gold and iron, behind a recorder and a fault injector."""

    def __init__(self, fake: FakeFs | None = None) -> None:
        self.fake = fake if fake is not None else FakeFs(num_rmids=16)
        self.faulty = FaultyFs(self.fake)
        self.fs = RecordingFs(self.faulty)
        self.resctrl = Resctrl.with_provider(self.fs)
        for name in ("gold", "iron"):
            self.fake.create_dir(ROOT / name)

    def thread_in(self, name: str) -> Tid:
        """Start a thread in a control group."""
        tid = self.fake.spawn()
        put(self.fake, ROOT / name, f"{tid}")
        return tid


@pytest.fixture
def machine() -> Classes:
    """Return a machine with control groups."""
    return Classes()


# Names


def test_a_group_below_a_control_group() -> None:
    """It has the same name there; "" is the default group."""
    resctrl = Resctrl.with_provider(FakeFs())
    assert resctrl.group_path("a", "gold") == GOLD / "pod_a"
    assert resctrl.group_path("a", "") == resctrl.group_path("a") == MON / "pod_a"
    assert resctrl.group_path("a.b", "gold").name == resctrl.group_path("a.b").name


@pytest.mark.parametrize(
    "name", ["a b", "...", ".a", "A,b", "h-x", "pod_a", "\N{SNOWMAN}", "x" * 300, "tasks"]
)
def test_other_names_of_control_groups(name: str) -> None:
    """Whatever a control group can be called is taken as it is."""
    assert Resctrl.with_provider(FakeFs()).group_path("a", name) == ROOT / name / "mon_groups/pod_a"


@pytest.mark.parametrize(
    "name", [".", "..", "a/b", "/", "/etc", "../x", "info", "mon_data", "mon_groups", "a\0"]
)
def test_what_is_no_control_group(name: str, machine: Classes) -> None:
    """No path leaves the root by the name of a control group; the file system is not even asked."""
    group = machine.resctrl.create_group("a")
    machine.fs.forget()
    with pytest.raises(InvalidGroupError, match="no name of a control group"):
        machine.resctrl.group_path("a", name)
    with pytest.raises(InvalidGroupError):
        machine.resctrl.create_group("a", name)
    with pytest.raises(InvalidGroupError) as caught:
        machine.resctrl.move_group(group, name)
    assert caught.value.operation is Operation.MOVE_GROUP
    assert machine.fs.calls == []


# create_group


def test_creating_below_a_control_group(machine: Classes) -> None:
    """One mkdir; what stands below another control group is another group. Twice is once."""
    group = machine.resctrl.create_group("a", "gold")
    assert [(call.operation, call.path) for call in machine.fs.calls] == [("create_dir", GOLD / "pod_a")]
    assert group == machine.resctrl.create_group("a", "gold") == GOLD / "pod_a"
    other = machine.resctrl.create_group("a", "iron")
    assert machine.fake.exists(group)
    assert machine.fake.exists(other)
    assert not machine.fake.exists(MON / "pod_a")


def test_threads_of_a_class_go_where_their_class_is(machine: Classes) -> None:
    """The threads of a control group can be assigned below it, and nowhere else."""
    tid = machine.thread_in("gold")
    with pytest.raises(TaskNotInParentError) as caught:
        machine.resctrl.assign_tasks(machine.resctrl.create_group("a"), [tid])
    assert caught.value.refused == (tid,)
    gold = machine.resctrl.create_group("a", "gold")
    assert machine.resctrl.assign_tasks(gold, [tid]).assigned == 1
    assert machine.fake.tasks_in(gold) == {tid}
    assert tid in machine.fake.tasks_in(ROOT / "gold")
    assert machine.fs.written(ROOT / "gold/tasks") == []


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV])
def test_creating_below_a_control_group_that_is_gone(machine: Classes, number: int) -> None:
    """That is a group that is not there, and the error tells which."""
    machine.fake.remove_dir(ROOT / "gold")
    if number == errno.ENODEV:
        machine.faulty.fail("create_dir", number)
    with pytest.raises(GroupNotFoundError, match="no such control group") as caught:
        machine.resctrl.create_group("a", "gold")
    assert (caught.value.path, caught.value.errno) == (ROOT / "gold", number)
    assert caught.value.operation is Operation.CREATE_GROUP
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(
    ("fake", "privilege", "kind"),
    [
        (FakeFs(mounted=False), Privilege.ROOT, NotMountedError),
        (FakeFs(monitoring=False), Privilege.ROOT, UnsupportedError),
        (FakeFs(), Privilege.USER, NoPermissionError),
    ],
)
def test_why_there_can_be_no_group_there(
    fake: FakeFs, privilege: Privilege, kind: type[ResctrlError]
) -> None:
    """A machine without monitoring, unmounted, or not ours to change: said as for any other group."""
    if fake.mount_point is not None:
        fake.create_dir(ROOT / "gold")
    fake.privilege = privilege
    with pytest.raises(kind):
        Resctrl.with_provider(fake).create_group("a", "gold")


def test_full_below_a_control_group() -> None:
    """RMIDs are those of the whole machine."""
    machine = Classes(FakeFs(num_rmids=3))
    with pytest.raises(CapacityError) as caught:
        machine.resctrl.create_group("a", "gold")
    assert caught.value.kernel_status == "Out of RMIDs"


def test_root_without_dac_override_may_work_below_control_groups(machine: Classes) -> None:
    """The root's directories are closed to it, a control group's are not."""
    machine.fake.privilege = Privilege.NO_DAC_OVERRIDE
    assert machine.resctrl.create_group("a", "gold") == GOLD / "pod_a"
    with pytest.raises(NoPermissionError):
        machine.resctrl.create_group("a")


# move_group


@pytest.mark.parametrize(("source", "target"), [("", "gold"), ("gold", ""), ("gold", "iron")])
def test_a_group_follows_its_class(machine: Classes, source: str, target: str) -> None:
    """One rename; threads and counters stay with it, and no RMID is used or freed."""
    group = machine.resctrl.create_group("a", source)
    tid = machine.thread_in(source) if source else machine.fake.spawn()
    machine.resctrl.assign_tasks(group, [tid])
    machine.fake.set_reading(group, "mbm_total_bytes", 4711)
    free = machine.fake.free_rmids
    machine.fs.forget()
    moved = machine.resctrl.move_group(group, target)
    assert [(call.operation, call.path) for call in machine.fs.calls] == [("rename", group)]
    assert moved == machine.resctrl.group_path("a", target)
    assert not machine.fake.exists(group)
    assert machine.fake.tasks_in(moved) == {tid}
    assert machine.fake.read_text(moved / "mon_data/mon_L3_00/mbm_total_bytes") == "4711\n"
    assert machine.fake.free_rmids == free
    assert machine.resctrl.task_groups(tid) == TaskGroups(target, "pod_a")


def test_moving_a_group_to_where_it_is(machine: Classes) -> None:
    """Nothing changes, and it is no error."""
    group = machine.resctrl.create_group("a", "gold")
    assert machine.resctrl.move_group(group, "gold") == group
    assert machine.fake.exists(group)


def test_moving_onto_another(machine: Classes) -> None:
    """A group of that name that is there already is an error of its own, about the target; both stay."""
    here, there = machine.resctrl.create_group("a"), machine.resctrl.create_group("a", "gold")
    with pytest.raises(GroupExistsError) as caught:
        machine.resctrl.move_group(here, "gold")
    assert (caught.value.path, caught.value.errno) == (there, errno.EEXIST)
    assert machine.fake.exists(here)
    assert machine.fake.exists(there)


def test_moving_a_group_that_is_gone(machine: Classes) -> None:
    """The source is what is missing, also where it would have stayed where it is."""
    group = machine.resctrl.create_group("a")
    machine.fake.remove_dir(group)
    for target in ("gold", ""):
        with pytest.raises(GroupNotFoundError) as caught:
            machine.resctrl.move_group(group, target)
        assert (caught.value.path, caught.value.errno) == (group, errno.ENOENT)


def test_moving_below_a_control_group_that_is_gone(machine: Classes) -> None:
    """The target is what is missing; the group stays where it is."""
    group = machine.resctrl.create_group("a")
    machine.fake.remove_dir(ROOT / "gold")
    with pytest.raises(GroupNotFoundError, match="no such control group") as caught:
        machine.resctrl.move_group(group, "gold")
    assert (caught.value.path, caught.value.operation) == (ROOT / "gold", Operation.MOVE_GROUP)
    assert machine.fake.exists(group)


def test_moving_where_nothing_is_mounted(machine: Classes) -> None:
    """That is said, and not that the group is missing."""
    group = machine.resctrl.create_group("a")
    machine.fake.unmount()
    with pytest.raises(NotMountedError):
        machine.resctrl.move_group(group, "gold")


def test_what_is_missing_when_nobody_can_look(machine: Classes) -> None:
    """Where it cannot be known what is missing it is what was asked for."""
    group = machine.resctrl.create_group("a")
    machine.fake.remove_dir(group)
    machine.faulty.fail("exists", errno.EIO, path=GOLD)
    with pytest.raises(GroupNotFoundError) as caught:
        machine.resctrl.move_group(group, "gold")
    assert caught.value.path == group
    assert machine.faulty.unused() == 0


def test_a_refused_move_keeps_the_kernels_sentence(machine: Classes) -> None:
    """EPERM has reasons of its own: what the kernel says about it is told."""
    group = machine.resctrl.create_group("a")

    def monitors_cpus(_: object) -> None:
        machine.fake._kernel.status.clear()
        machine.fake._kernel.status.puts("Cannot move a MON group that monitors CPUs\n")
        raise PermissionError(errno.EPERM, "refused")

    machine.faulty.before("rename", monitors_cpus)
    with pytest.raises(NoPermissionError, match=r"monitors CPUs.*before Linux 6\.5") as caught:
        machine.resctrl.move_group(group, "gold")
    assert caught.value.kernel_status == "Cannot move a MON group that monitors CPUs"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.EROFS])
def test_a_move_that_the_vfs_refuses_has_no_sentence(machine: Classes, number: int) -> None:
    """A kernel before 6.5 refuses without a word: what stands there is of something older."""
    group = machine.resctrl.create_group("a")
    spoil_status(machine.fake)
    machine.faulty.fail("rename", number)
    with pytest.raises(ResctrlError) as caught:
        machine.resctrl.move_group(group, "gold")
    assert caught.value.kernel_status is None
    assert caught.value.errno == number
    assert machine.fake.exists(group)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOMEM, errno.EBUSY, errno.EXDEV, errno.EINVAL])
def test_any_other_refusal_of_a_move_keeps_its_errno(machine: Classes, number: int) -> None:
    """What nobody expects is passed on with its errno."""
    group = machine.resctrl.create_group("a")
    machine.faulty.fail("rename", number, times=2)
    machine.fs.forget()
    with pytest.raises(ResctrlIOError) as caught:
        machine.resctrl.move_group(group, "gold")
    assert (caught.value.errno, caught.value.path) == (number, group)
    assert [call.operation for call in machine.fs.calls] == ["rename"]
    machine.fake.remove_dir(ROOT / "gold")
    with pytest.raises(ResctrlIOError):
        machine.resctrl.move_group(group, "gold")


@pytest.mark.parametrize(
    "group", [MON / "other", ROOT / "gold", GOLD / "other", MON, Path("/etc/mon_groups/pod_a")]
)
def test_only_our_groups_are_moved(machine: Classes, group: Path) -> None:
    """Any other path is refused before the file system is asked."""
    with pytest.raises(InvalidGroupError):
        machine.resctrl.move_group(group, "gold")
    assert machine.fs.calls == []


# task_groups


def test_where_a_thread_is(machine: Classes) -> None:
    """The control group and the monitoring group, each "" where it is the default one or none."""
    classed, plain = machine.thread_in("gold"), machine.fake.spawn()
    resctrl = machine.resctrl
    assert resctrl.task_groups(plain) == TaskGroups("", "")
    assert resctrl.task_groups(classed) == TaskGroups("gold", "")
    resctrl.assign_tasks(resctrl.create_group("a"), [plain])
    resctrl.assign_tasks(resctrl.create_group("a", "gold"), [classed])
    assert resctrl.task_groups(plain) == TaskGroups("", "pod_a")
    assert resctrl.task_groups(classed) == TaskGroups("gold", "pod_a")


def test_asking_for_a_thread_is_one_read(machine: Classes) -> None:
    """Nothing else is asked when all is well."""
    tid = machine.fake.spawn()
    machine.resctrl.task_groups(tid)
    assert [(call.operation, str(call.path)) for call in machine.fs.calls] == [
        ("read_text", f"/proc/{tid}/cpu_resctrl_groups")
    ]


def test_a_thread_that_is_gone(machine: Classes) -> None:
    """Dead before it was asked for, or (ESRCH) while it was read."""
    tid = machine.fake.spawn()
    machine.faulty.fail("read_text", errno.ESRCH)
    assert machine.resctrl.task_groups(tid) is None
    machine.fake.end(tid)
    assert machine.resctrl.task_groups(tid) is None


def test_a_kernel_that_does_not_tell() -> None:
    """A thread that lives and has no such file: this kernel has none. A dead one is gone all the same."""
    machine = Classes(FakeFs(proc_groups=False))
    tid = machine.fake.spawn()
    with pytest.raises(UnsupportedError, match=r"Linux 5\.6"):
        machine.resctrl.task_groups(tid)
    machine.fake.end(tid)
    assert machine.resctrl.task_groups(tid) is None


def test_a_thread_that_is_gone_when_its_death_is_looked_into(machine: Classes) -> None:
    """An id that is used again by then does not make the kernel an old one."""
    tid = machine.fake.spawn()
    machine.fake.end(tid)
    machine.faulty.before("exists", lambda _: machine.fake.spawn(tid=tid))
    assert machine.resctrl.task_groups(tid) is None


def test_where_a_thread_is_while_nothing_is_mounted(machine: Classes) -> None:
    """It is in no group at all, not in the default one."""
    tid = machine.fake.spawn()
    machine.fake.unmount()
    with pytest.raises(NotMountedError):
        machine.resctrl.task_groups(tid)


@pytest.mark.parametrize("wrong", [0, -1, 2**31])
def test_an_impossible_id_is_not_asked_for(machine: Classes, wrong: int) -> None:
    """0 is nobody that could be seen."""
    with pytest.raises(InvalidTidError) as caught:
        machine.resctrl.task_groups(Tid(wrong))
    assert caught.value.operation is Operation.READ_TASK
    assert machine.fs.calls == []


class Tells(FakeFs):
    """Tells one thing of every thread."""

    text = ""

    def read_text(self, path: Path) -> str:
        return self.text if path.name == "cpu_resctrl_groups" else super().read_text(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("res:/\nmon:\n", TaskGroups("", "")),
        ("res:a b\nmon:mon:x\n", TaskGroups("a b", "mon:x")),
        ("res:g\nmon:two\nlines\n", TaskGroups("g", "two\nlines")),  # a rename takes a newline in a name
    ],
)
def test_odd_names_are_read_as_they_are(text: str, expected: TaskGroups) -> None:
    """Names may hold colons, blanks and, after a rename, newlines."""
    fake = Tells()
    fake.text = text
    assert Resctrl.with_provider(fake).task_groups(fake.self_tid) == expected


@pytest.mark.parametrize(
    "text", ["", "res:/\n", "mon:\nres:/\n", "res:/\nmon:", "\nres:/\nmon:\n", "nonsense\n"]
)
def test_nonsense_is_not_guessed_at(text: str) -> None:
    """What does not read as it should is an error that shows it."""
    fake = Tells()
    fake.text = text
    with pytest.raises(UnexpectedContentError) as caught:
        Resctrl.with_provider(fake).task_groups(fake.self_tid)
    assert caught.value.text == text


FAILURES: list[Callable[[Resctrl[FaultyFs[FakeFs]], Tid], object]] = [
    lambda resctrl, tid: resctrl.task_groups(tid),
    lambda resctrl, _: resctrl.list_groups(),
    lambda resctrl, _: resctrl.capacity(),
    lambda resctrl, _: resctrl.cleanup_all(below_control_groups=True),
    lambda resctrl, _: resctrl.move_group(MON / "pod_a", "gold"),
    lambda resctrl, _: resctrl.create_group("b", "gold"),
]


@pytest.mark.parametrize("operation", ["read_text", "exists", "read_child_dirs", "rename", "create_dir"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ENODEV, errno.ENOENT, errno.EROFS])
@pytest.mark.parametrize("which", range(len(FAILURES)))
def test_every_failure_is_typed(operation: str, number: int, which: int) -> None:
    """No OSError leaves the library, whatever fails for good."""
    fake = FakeFs()
    for path in (MON / "pod_a", ROOT / "gold", GOLD / "pod_a"):
        fake.create_dir(path)
    fs = FaultyFs(fake)
    fs.fail(operation, number, times=math.inf)
    try:
        FAILURES[which](Resctrl.with_provider(fs), fake.self_tid)
    except ResctrlError as error:
        assert isinstance(error.__cause__, OSError) or error.errno is None  # noqa: PT017 - either outcome is one
