"""FaultyFs: faults come when they were scripted, and at no other time."""

from __future__ import annotations

import errno
import math
from typing import TYPE_CHECKING

import pytest

from resctrl import FsProvider, WriteError
from resctrl.testing import FakeFs, FaultyFs
from tests.unit.fakes import MON, ROOT, answer

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def fs() -> FaultyFs[FakeFs]:
    """Return a fake with a group, behind an empty script."""
    fake = FakeFs()
    fake.create_dir(MON / "a")
    return FaultyFs(fake)


OPERATIONS: dict[str, Callable[[FsProvider], object]] = {
    "exists": lambda fs: fs.exists(MON / "a"),
    "create_dir": lambda fs: fs.create_dir(MON / "b"),
    "remove_dir": lambda fs: fs.remove_dir(MON / "a"),
    "rename": lambda fs: fs.rename(MON / "a", MON / "b"),
    "read_text": lambda fs: fs.read_text(MON / "a/tasks"),
    "read_child_dirs": lambda fs: fs.read_child_dirs(MON),
    "read_child_files": lambda fs: fs.read_child_files(MON / "a"),
    "identity": lambda fs: fs.identity(MON / "a"),
    "read_page": lambda fs: fs.open_reader(MON / "a/tasks").read_page(),
    "can_open_for_write": lambda fs: fs.can_open_for_write(MON / "a/tasks"),
    "mount_resctrl": lambda fs: fs.mount_resctrl(ROOT),
    "write_all": lambda fs: fs.write_all(MON / "a/tasks", []),
    "write": lambda fs: fs.write_all(MON / "a/tasks", [b""]),
    "open_reader": lambda fs: fs.open_reader(MON / "a/tasks"),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_can_fail(fs: FaultyFs[FakeFs], operation: str) -> None:
    """A scripted operation fails with the errno and its path, and the inner provider is not asked."""
    assert isinstance(fs, FsProvider)
    without = answer(OPERATIONS[operation], FaultyFs(_copy()))
    fs.fail(operation, errno.EIO)
    assert answer(OPERATIONS[operation], fs) == "EIO"
    assert fs.inner.read_child_dirs(MON) == ["a"]
    assert answer(OPERATIONS[operation], fs) == without
    assert fs.unused() == 0


def _copy() -> FakeFs:
    fake = FakeFs()
    fake.create_dir(MON / "a")
    return fake


def test_an_unknown_operation_is_refused(fs: FaultyFs[FakeFs]) -> None:
    """A script with a slip of the pen does not silently do nothing."""
    with pytest.raises(ValueError, match="no operation 'mkdir'"):
        fs.fail("mkdir", errno.EIO)


def test_the_nth_call(fs: FaultyFs[FakeFs]) -> None:
    """Calls are counted from the scripting on, and only matching ones."""
    fs.exists(ROOT)
    fs.fail("exists", errno.EIO, nth=2, times=2)
    fs.read_child_dirs(ROOT)
    assert [answer(fs.exists, ROOT) for _ in range(4)] == ["ok", "EIO", "EIO", "ok"]


def test_for_ever_and_healed(fs: FaultyFs[FakeFs]) -> None:
    """A fault can last, until it is healed."""
    fs.fail("exists", errno.EIO, times=math.inf)
    assert {answer(fs.exists, ROOT) for _ in range(5)} == {"EIO"}
    fs.heal()
    assert answer(fs.exists, ROOT) == "ok"


def test_only_some_paths(fs: FaultyFs[FakeFs]) -> None:
    """A fault can concern one path, or those of which something is true."""
    fs.fail("create_dir", errno.ENOSPC, path=MON / "x", times=math.inf)
    fs.fail("create_dir", errno.EBUSY, path=lambda path: path.name.startswith("y"), times=math.inf)
    assert answer(fs.create_dir, MON / "b") == "ok"
    assert answer(fs.create_dir, MON / "x") == "ENOSPC"
    assert answer(fs.create_dir, MON / "yy") == "EBUSY"


def test_the_nth_chunk(fs: FaultyFs[FakeFs]) -> None:
    """The chunks before the faulty one are really written, those after it are not."""
    tids = [fs.inner.spawn() for _ in range(3)]
    fs.fail("write", errno.EPERM, nth=2)
    with pytest.raises(WriteError) as caught:
        fs.write_all(MON / "a/tasks", [b"%d" % tid for tid in tids])
    assert (caught.value.errno, caught.value.written) == (errno.EPERM, 1)
    assert fs.inner.tasks_in(MON / "a") == {tids[0]}


def test_going_on_after_a_fault(fs: FaultyFs[FakeFs]) -> None:
    """A scripted fault and a true one are both asked about, each with the number of chunks taken so far."""
    tids = [fs.inner.spawn() for _ in range(3)]
    chunks = [b"%d" % tids[0], b"%d" % tids[1], b"-1", b"%d" % tids[2]]
    fs.fail("write", errno.EPERM, nth=2)
    failures: list[tuple[int | None, int]] = []

    def go_on(failure: WriteError) -> bool:
        failures.append((failure.errno, failure.written))
        return True

    assert fs.write_all(MON / "a/tasks", chunks, go_on=go_on) == 2
    assert failures == [(errno.EPERM, 1), (errno.EINVAL, 1)]
    assert fs.inner.tasks_in(MON / "a") == {tids[0], tids[2]}


@pytest.mark.parametrize("nth", [1, 3])
def test_not_going_on_after_a_fault(fs: FaultyFs[FakeFs], nth: int) -> None:
    """Who is asked and says no has the fault raised, wherever it came from."""
    tids = [fs.inner.spawn() for _ in range(4)]
    fs.fail("write", errno.EPERM, nth=nth)
    asked: list[int | None] = []

    def go_on(failure: WriteError) -> bool:
        asked.append(failure.errno)
        return failure.errno != errno.EPERM

    with pytest.raises(WriteError) as caught:
        fs.write_all(
            MON / "a/tasks", [b"%d" % tids[0], b"-1", *(b"%d" % tid for tid in tids[1:])], go_on=go_on
        )
    assert (caught.value.errno, caught.value.written) == (errno.EPERM, int(nth > 1))
    assert isinstance(caught.value.__cause__, OSError)
    assert asked == [errno.EPERM] if nth == 1 else [errno.EINVAL, errno.EPERM]
    fs.heal()
    assert fs.write_all(MON / "a/tasks", [b"-1"], go_on=lambda _: True) == 0


def test_a_true_failure_of_the_inner_one(fs: FaultyFs[FakeFs]) -> None:
    """What the inner provider refuses comes through unchanged."""
    tid = fs.inner.spawn()
    with pytest.raises(WriteError) as caught:
        fs.write_all(MON / "a/tasks", [b"%d" % tid, b"-1"])
    assert (caught.value.errno, caught.value.written) == (errno.EINVAL, 1)


def test_something_happens_just_before(fs: FaultyFs[FakeFs]) -> None:
    """An action runs once, right before the call that it makes a lost race."""
    fs.before("remove_dir", fs.inner.remove_dir)
    assert answer(fs.remove_dir, MON / "a") == "ENOENT"
    fs.inner.create_dir(MON / "a")
    assert answer(fs.remove_dir, MON / "a") == "ok"


def test_an_action_without_an_errno(fs: FaultyFs[FakeFs]) -> None:
    """An OSError of an action without a number counts as EIO where a WriteError needs one."""

    def act(_: object) -> None:
        raise OSError("no number")

    fs.before("write", act)
    with pytest.raises(WriteError) as caught:
        fs.write_all(MON / "a/tasks", [b""])
    assert caught.value.errno == errno.EIO


def test_unused_rules_are_told(fs: FaultyFs[FakeFs]) -> None:
    """A test can make sure that its faults came to pass."""
    fs.fail("exists", errno.EIO)
    fs.fail("exists", errno.EIO, nth=2)
    assert fs.unused() == 2
    answer(fs.exists, ROOT)
    assert fs.unused() == 1
