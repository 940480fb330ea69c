"""class Resctrl: creating, deleting, listing and assigning."""

from __future__ import annotations

import errno
import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resctrl import (
    AssignmentResult,
    CapacityError,
    GroupNotFoundError,
    InvalidGroupError,
    InvalidTidError,
    NoPermissionError,
    NotMountedError,
    RealFs,
    Resctrl,
    ResctrlConfig,
    ResctrlError,
    ResctrlIOError,
    RmidsBusyError,
    TaskNotInParentError,
    Tid,
    UnexpectedContentError,
    UnsupportedError,
)
from resctrl.testing import FakeFs, FaultyFs, Privilege, RecordingFs
from tests.unit.fakes import MON, ROOT, Machine, put, spoil_status, status

if TYPE_CHECKING:
    from typing import assert_type

TASKS = MON / "pod_a/tasks"


def test_a_resctrl_of_this_machine() -> None:
    """Without arguments it is the real one, with the defaults."""
    resctrl = Resctrl()
    assert isinstance(resctrl.fs, RealFs)
    assert resctrl.config == ResctrlConfig()
    if TYPE_CHECKING:
        assert_type(resctrl, Resctrl[RealFs])


def test_a_resctrl_over_another_provider() -> None:
    """The provider is kept, with its type."""
    fs = FakeFs()
    resctrl = Resctrl.with_provider(fs, ResctrlConfig(group_prefix="x-"))
    assert resctrl.fs is fs
    assert resctrl.config.group_prefix == "x-"
    if TYPE_CHECKING:
        assert_type(resctrl, Resctrl[FakeFs])


# Names


@pytest.mark.parametrize(
    "uid", ["a", "6f1c1a5e-8d1b-4c2e-9f5e-3d6d5a1b0c2d", "A_b-9", "x" * 63, "h", "H-x", "-"]
)
def test_a_plain_uid_is_the_name(uid: str) -> None:
    """Up to 63 letters, digits, _ and - stand as they are."""
    assert Resctrl.with_provider(FakeFs()).group_path(uid) == MON / f"pod_{uid}"


@pytest.mark.parametrize(
    "uid",
    [
        "",
        "x" * 64,
        "a/b",
        "..",
        ".",
        "a b",
        "a\n",
        "\n",
        "a\0b",
        "h-",
        "h-abc",
        "\N{SNOWMAN}",
        "\ud800",
        "a.b",
    ],
)
def test_any_other_uid_is_hashed(uid: str) -> None:
    """The name is then h- and the first 32 hex digits of the SHA-256."""
    digest = hashlib.sha256(uid.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    assert Resctrl.with_provider(FakeFs()).group_path(uid) == MON / f"pod_h-{digest}"


@given(first=st.text(max_size=70), second=st.text(max_size=70))
@example(first="", second="unknown")
@example(first="a.b", second="ab")
def test_two_uids_never_share_a_group(first: str, second: str) -> None:
    """Characters are not dropped and ends not cut off, and a uid cannot imitate the hash of another."""
    resctrl = Resctrl.with_provider(FakeFs())
    third = resctrl.group_path(second).name.removeprefix("pod_")
    paths = {uid: resctrl.group_path(uid) for uid in (first, second, third)}
    assert len(set(paths.values())) == len(paths)
    for path in paths.values():
        assert path.parent == MON
        assert path.name.isascii()


def test_a_name_that_the_kernel_reserves_is_avoided() -> None:
    """Prefix and uid may not add up to mon_groups, which the kernel would refuse for ever."""
    resctrl = Resctrl.with_provider(FakeFs(), ResctrlConfig(group_prefix="mon_"))
    assert resctrl.group_path("groups").name.startswith("mon_h-")
    assert resctrl.create_group("groups").name.startswith("mon_h-")


@pytest.mark.parametrize("uid", ["../../../etc", "a/../b", "\n", "a\0b"])
def test_a_hostile_uid_makes_a_harmless_group(uid: str) -> None:
    """Whatever a pod calls itself, its group stands in mon_groups."""
    fs = FakeFs()
    path = Resctrl.with_provider(fs).create_group(uid)
    assert fs.read_child_dirs(MON) == [path.name]


# create_group


def test_creating_is_idempotent() -> None:
    """The second time finds what the first time made, and its threads stay in it."""
    fs = FakeFs()
    resctrl = Resctrl.with_provider(fs)
    group = resctrl.create_group("a")
    tid = fs.spawn()
    resctrl.assign_tasks(group, [tid])
    assert resctrl.create_group("a") == group == MON / "pod_a"
    assert fs.tasks_in(group) == {tid}


def test_creating_is_one_mkdir() -> None:
    """Nothing else is asked when all is well."""
    fs = RecordingFs(FakeFs())
    Resctrl.with_provider(fs).create_group("a")
    assert [call.operation for call in fs.calls] == ["create_dir"]


def test_full() -> None:
    """ENOSPC is capacity that lasts; the kernel's sentence is told."""
    resctrl = Resctrl.with_provider(FakeFs(num_rmids=2))
    resctrl.create_group("a")
    with pytest.raises(CapacityError) as caught:
        resctrl.create_group("b")
    assert type(caught.value) is CapacityError
    assert (caught.value.errno, caught.value.kernel_status) == (errno.ENOSPC, "Out of RMIDs")
    assert resctrl.create_group("a") == MON / "pod_a"


def test_busy() -> None:
    """EBUSY is capacity that comes back: an error of its own, below capacity."""
    fs = FakeFs(num_rmids=2, limbo=math.inf)
    resctrl = Resctrl.with_provider(fs)
    resctrl.delete_group(resctrl.create_group("a"))
    with pytest.raises(RmidsBusyError) as caught:
        resctrl.create_group("b")
    assert (caught.value.errno, caught.value.kernel_status) == (errno.EBUSY, "Out of RMIDs")
    fs.end_limbo()
    resctrl.create_group("b")


@pytest.mark.parametrize(
    ("fs", "kind", "words"),
    [
        (FakeFs(mounted=False), NotMountedError, "mount -t resctrl"),
        (FakeFs(supported=False), NotMountedError, "no resctrl at all"),
        (FakeFs(root=Path("/mnt/r")), NotMountedError, "mounted at '/mnt/r'"),
        (FakeFs(monitoring=False), UnsupportedError, "cannot monitor"),
        (FakeFs(privilege=Privilege.USER), NoPermissionError, "CAP_DAC_OVERRIDE"),
        (FakeFs(privilege=Privilege.NO_DAC_OVERRIDE), NoPermissionError, "CAP_DAC_OVERRIDE"),
    ],
)
def test_why_there_can_be_no_group(fs: FakeFs, kind: type[ResctrlError], words: str) -> None:
    """Unmounted, unable to monitor and not allowed to are three errors, each with what would help."""
    with pytest.raises(kind, match=words) as caught:
        Resctrl.with_provider(fs).create_group("a")
    assert type(caught.value) is kind
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_an_old_sentence_is_not_quoted(number: int) -> None:
    """Where the VFS refuses, last_cmd_status tells of something else, and is left out."""
    inner = FakeFs()
    spoil_status(inner)
    fs = FaultyFs(inner)
    fs.fail("create_dir", number)
    with pytest.raises(NoPermissionError) as caught:
        Resctrl.with_provider(fs).create_group("a")
    assert caught.value.kernel_status is None


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EROFS, errno.EINVAL, errno.ENODEV, errno.EIO])
def test_only_capacity_has_a_sentence(number: int) -> None:
    """A mkdir does not clear last_cmd_status: what it says after any other errno is of an earlier failure."""
    inner = FakeFs(num_rmids=2)
    fs = FaultyFs(inner)
    resctrl = Resctrl.with_provider(fs)
    resctrl.create_group("a")
    with pytest.raises(CapacityError, match="Out of RMIDs"):
        resctrl.create_group("b")
    assert status(inner)[-1] == "Out of RMIDs"
    fs.fail("create_dir", number)
    with pytest.raises(ResctrlIOError) as caught:
        resctrl.create_group("b")
    assert caught.value.kernel_status is None


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EROFS, errno.EIO, errno.ENODEV])
def test_any_other_refusal_keeps_its_errno(number: int) -> None:
    """What nobody expects is passed on with its errno."""
    fs = FaultyFs(FakeFs())
    fs.fail("create_dir", number)
    with pytest.raises(ResctrlIOError) as caught:
        Resctrl.with_provider(fs).create_group("a")
    assert caught.value.errno == number


def test_without_proc_the_errno_has_to_do() -> None:
    """A /proc that cannot be read does not hide the failure."""
    fs = FaultyFs(FakeFs(mounted=False))
    fs.fail("read_text", errno.EACCES, times=math.inf)
    with pytest.raises(ResctrlIOError) as caught:
        Resctrl.with_provider(fs).create_group("a")
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("text", ["", "ok\n", "\n"])
def test_a_kernel_that_says_nothing(text: str) -> None:
    """Nothing, and "ok", are no sentence."""

    class Silent(FakeFs):
        def read_text(self, path: Path) -> str:
            return text if path.name == "last_cmd_status" else super().read_text(path)

    resctrl = Resctrl.with_provider(Silent(num_rmids=1))
    with pytest.raises(CapacityError) as caught:
        resctrl.create_group("a")
    assert caught.value.kernel_status is None


def test_an_unreadable_status_is_no_second_failure() -> None:
    """The sentence is a courtesy."""
    fs = FaultyFs(FakeFs(num_rmids=1))
    fs.fail("read_text", errno.EIO)
    with pytest.raises(CapacityError) as caught:
        Resctrl.with_provider(fs).create_group("a")
    assert caught.value.kernel_status is None


# delete_group


def test_deleting_is_idempotent() -> None:
    """What is gone is gone, also when somebody else was faster; threads fall to the parent."""
    fs = FakeFs()
    resctrl = Resctrl.with_provider(fs)
    group = resctrl.create_group("a")
    tid = fs.spawn()
    resctrl.assign_tasks(group, [tid])
    resctrl.delete_group(group)
    resctrl.delete_group(group)
    assert not fs.exists(group)
    assert tid in fs.tasks_in(ROOT)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV])
def test_gone_while_deleting(number: int) -> None:
    """Both errnos of a vanished group are success."""
    fs = FaultyFs(FakeFs())
    fs.fail("remove_dir", number)
    Resctrl.with_provider(fs).delete_group(MON / "pod_a")


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV])
def test_what_is_there_was_not_deleted(number: int) -> None:
    """A directory that is still there after such an answer is told, so that somebody tries again."""
    fs = FaultyFs(FakeFs())
    resctrl = Resctrl.with_provider(fs)
    group = resctrl.create_group("a")
    fs.fail("remove_dir", number)
    with pytest.raises(GroupNotFoundError):
        resctrl.delete_group(group)
    resctrl.delete_group(group)
    assert not fs.exists(group)


def test_deleting_below_a_control_group() -> None:
    """A prefixed group in a control group's own mon_groups is one of ours."""
    fs = FakeFs()
    fs.create_dir(ROOT / "c1")
    group = ROOT / "c1/mon_groups/pod_a"
    fs.create_dir(group)
    Resctrl.with_provider(fs).delete_group(group)
    assert not fs.exists(group)


FOREIGN = [
    MON / "other",
    MON,
    ROOT / "pod_a",
    ROOT,
    ROOT / "info/pod_a",
    ROOT / "c1/pod_a",
    ROOT / "c1/c2/mon_groups/pod_a",
    MON / "pod_a/tasks",
    MON / "pod_a/mon_data/pod_x",
    Path("/etc/mon_groups/pod_a"),
    Path("/etc/passwd"),
    Path("mon_groups/pod_a"),
    ROOT / "../mon_groups/pod_a",
    ROOT / "mon_groups/../mon_groups/pod_a",
    ROOT / "../../../mon_groups/pod_a",
]


@pytest.mark.parametrize("group", FOREIGN, ids=str)
def test_only_our_groups_are_deleted_or_filled(group: Path) -> None:
    """Any other path is refused before the file system is asked."""
    fs = RecordingFs(FakeFs())
    resctrl = Resctrl.with_provider(fs)
    with pytest.raises(InvalidGroupError):
        resctrl.delete_group(group)
    with pytest.raises(InvalidGroupError):
        resctrl.assign_tasks(group, [Tid(1)])
    with pytest.raises(InvalidGroupError):
        resctrl.reconcile_group(group, lambda: [Tid(1)])
    assert fs.calls == []


def test_a_refused_deletion() -> None:
    """What the kernel refuses is an error."""
    fs = FaultyFs(FakeFs())
    resctrl = Resctrl.with_provider(fs)
    group = resctrl.create_group("a")
    fs.fail("remove_dir", errno.EBUSY)
    with pytest.raises(ResctrlIOError):
        resctrl.delete_group(group)
    assert fs.inner.exists(group)


# list_group_tasks


def test_listing() -> None:
    """The threads of any group can be listed."""
    fs = FakeFs()
    resctrl = Resctrl.with_provider(fs)
    group = resctrl.create_group("a")
    assert resctrl.list_group_tasks(group) == []
    tids = [fs.spawn(), fs.spawn()]
    resctrl.assign_tasks(group, tids)
    assert resctrl.list_group_tasks(group) == tids
    assert set(tids) <= set(resctrl.list_group_tasks(ROOT))


def test_listing_what_is_not_there() -> None:
    """A missing group is a typed error."""
    with pytest.raises(GroupNotFoundError):
        Resctrl.with_provider(FakeFs()).list_group_tasks(MON / "pod_a")


def test_listing_nonsense() -> None:
    """What is no number is not guessed at."""

    class Nonsense(FakeFs):
        def read_text(self, path: Path) -> str:
            return "12\nmany\n"

    with pytest.raises(UnexpectedContentError, match="many"):
        Resctrl.with_provider(Nonsense()).list_group_tasks(MON / "pod_a")


# assign_tasks


@pytest.fixture
def machine() -> Machine:
    """Return a machine."""
    return Machine()


def test_threads_share_a_write(machine: Machine) -> None:
    """One descriptor, one write(2) for as many ids as fit, in plain decimals."""
    tids = machine.threads(200)
    result = machine.resctrl.assign_tasks(machine.group, tids)
    assert result == AssignmentResult(assigned=200, missing=0)
    assert machine.fake.tasks_in(machine.group) == set(tids)
    assert machine.fs.count("write_all") == 1
    assert machine.fs.written(TASKS) == [b",".join(b"%d" % tid for tid in tids) + b"\n"]


def test_nothing_to_assign(machine: Machine) -> None:
    """No ids, no write."""
    assert machine.resctrl.assign_tasks(machine.group, []) == AssignmentResult(0, 0)
    assert machine.fs.calls == []


def test_an_id_twice_counts_once(machine: Machine) -> None:
    """A repeated id is written and counted once."""
    (tid,) = machine.threads(1)
    assert machine.resctrl.assign_tasks(machine.group, iter([tid, tid])) == AssignmentResult(1, 0)
    assert machine.resctrl.assign_tasks(machine.group, [tid]) == AssignmentResult(1, 0)


def test_the_dead_are_missing(machine: Machine) -> None:
    """A thread that died does not stop the others, wherever it stands."""
    first, last = machine.threads(2)
    dead = [machine.dead() for _ in range(3)]
    result = machine.resctrl.assign_tasks(machine.group, [dead[0], first, dead[1], dead[2], last])
    assert result == AssignmentResult(assigned=2, missing=3)
    assert machine.fake.tasks_in(machine.group) == {first, last}


@pytest.mark.parametrize("wrong", [0, -1, -(2**40), 2**31, 2**40])
def test_an_impossible_id_is_refused_before_anything_is_written(machine: Machine, wrong: int) -> None:
    """0 would move ourselves; nobody is moved when one id is wrong."""
    (tid,) = machine.threads(1)
    with pytest.raises(InvalidTidError, match=f"{wrong} is no thread id"):
        machine.resctrl.assign_tasks(machine.group, [tid, Tid(wrong)])
    assert machine.fs.calls == []
    assert machine.fake.tasks_in(machine.group) == set()
    assert machine.fake.self_tid not in machine.fake.tasks_in(machine.group)


@pytest.mark.parametrize("tid", [1, 2**31 - 1])
def test_every_possible_id_is_written(machine: Machine, tid: int) -> None:
    """The first and the last id that the kernel can read are no mistakes, whether or not they are in use."""
    machine.resctrl.assign_tasks(machine.group, [Tid(tid)])
    assert machine.fs.written(TASKS) == [b"%d\n" % tid]


def test_a_thread_of_another_control_group(machine: Machine) -> None:
    """It is refused, the others are assigned; the error tells both, and cannot be retried."""
    first, last = machine.threads(2)
    classed, dead = machine.classed(), machine.dead()
    with pytest.raises(TaskNotInParentError) as caught:
        machine.resctrl.assign_tasks(machine.group, [first, classed, dead, last])
    error = caught.value
    assert error.partial == AssignmentResult(assigned=2, missing=1)
    assert error.refused == (classed,)
    assert error.kernel_status == "Can't move task to different control group"
    assert error.errno == errno.EINVAL
    assert isinstance(error.__cause__, OSError)
    assert machine.fake.tasks_in(machine.group) == {first, last}
    assert machine.fake.tasks_in(ROOT / "c1") == {classed}


def test_the_first_refusal_is_told(machine: Machine) -> None:
    """With several refusals the first one is raised, with its sentence, and who all were refused."""
    tids = [*machine.threads(1), machine.classed()]
    machine.faulty.fail("write", errno.EPERM, times=2)  # the list, which nobody explains, and the first alone
    with pytest.raises(NoPermissionError) as caught:
        machine.resctrl.assign_tasks(machine.group, tids)
    assert caught.value.partial == AssignmentResult(assigned=0, missing=0)
    assert caught.value.refused == tuple(tids)
    assert caught.value.kernel_status is None


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, GroupNotFoundError),
        (errno.ENODEV, GroupNotFoundError),
        (errno.EACCES, NoPermissionError),
        (errno.EIO, ResctrlIOError),
        (errno.E2BIG, ResctrlIOError),
    ],
)
def test_what_concerns_the_group_ends_the_call(
    machine: Machine, number: int, kind: type[ResctrlError]
) -> None:
    """Nothing is written after it, and what was done stays with the error."""
    first, second, last = machine.threads(3)
    dead, classed = machine.dead(), machine.classed()
    # the list, the dead one alone, those before it; the rest, the refused one alone, those before it
    machine.faulty.fail("write", number, nth=7)
    with pytest.raises(kind) as caught:
        machine.resctrl.assign_tasks(machine.group, [first, dead, second, classed, last])
    assert caught.value.partial == AssignmentResult(assigned=2, missing=1)
    assert caught.value.refused == (classed,)
    assert machine.fake.tasks_in(machine.group) == {first, second}
    assert machine.faulty.unused() == 0


def test_a_group_that_is_not_there(machine: Machine) -> None:
    """An open that fails has moved nobody."""
    machine.fake.remove_dir(machine.group)
    with pytest.raises(GroupNotFoundError) as caught:
        machine.resctrl.assign_tasks(machine.group, machine.threads(2))
    assert caught.value.partial == AssignmentResult(assigned=0, missing=0)


def test_a_group_that_goes_away_meanwhile(machine: Machine) -> None:
    """A group that is removed between two writes is noticed, and no file is made in its place."""
    tids = machine.threads(1000)
    machine.faulty.before("write", lambda _: machine.fake.remove_dir(machine.group), nth=2)
    with pytest.raises(GroupNotFoundError) as caught:
        machine.resctrl.assign_tasks(machine.group, tids)
    assert caught.value.errno == errno.ENODEV
    assert caught.value.partial == AssignmentResult(assigned=819, missing=0)
    assert not machine.fake.exists(machine.group)


def test_a_threads_own_sentence_is_found(machine: Machine) -> None:
    """The kernel's last line only repeats the id; the line that says why is quoted."""
    machine.faulty.before("write", lambda _: put(machine.fake, ROOT, "-5"))
    machine.faulty.fail("write", errno.EPERM)
    with pytest.raises(NoPermissionError) as caught:
        machine.resctrl.assign_tasks(machine.group, machine.threads(1))
    assert caught.value.kernel_status == "Invalid pid -5"


@given(
    plan=st.lists(st.sampled_from(["live", "dead", "classed"]), max_size=12),
)
def test_any_mixture_is_accounted_for(plan: list[str]) -> None:
    """Live threads are in the group and counted, dead ones counted, refused ones left where they were."""
    machine = Machine()
    makers = {"live": lambda: machine.threads(1)[0], "dead": machine.dead, "classed": machine.classed}
    tids = [makers[kind]() for kind in plan]
    live = {tid for tid, kind in zip(tids, plan, strict=True) if kind == "live"}
    expected = AssignmentResult(assigned=len(live), missing=plan.count("dead"))
    if "classed" in plan:
        with pytest.raises(TaskNotInParentError) as caught:
            machine.resctrl.assign_tasks(machine.group, tids)
        assert caught.value.partial == expected
    else:
        assert machine.resctrl.assign_tasks(machine.group, tids) == expected
    assert machine.fake.tasks_in(machine.group) == live
