"""The fake's threads and `tasks` files, and last_cmd_status. Each docstring names the belief it proves."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from resctrl import WriteError
from resctrl.testing import FakeFs
from resctrl.testing.ids import StatusBuffer
from resctrl.testing.tasks_text import elements, kstrtoint
from tests.unit.fakes import MON, ROOT, answer, put, spoil_status, status

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def fs() -> FakeFs:
    """Return a machine with control groups c1, c2 and monitoring groups m1, m2, c1/n1."""
    fake = FakeFs(num_rmids=16)
    for path in ("c1", "c2", "mon_groups/m1", "mon_groups/m2", "c1/mon_groups/n1"):
        fake.create_dir(ROOT / path)
    return fake


N1 = ROOT / "c1/mon_groups/n1"


def test_a_thread_is_in_one_group(fs: FakeFs) -> None:
    """K40: writing an id moves that thread, and no other, out of its group into this one."""
    first, second = fs.spawn(), fs.spawn()
    put(fs, MON / "m1", f"{first},{second}")
    put(fs, MON / "m2", f"{first}")
    assert fs.tasks_in(MON / "m1") == {second}
    assert fs.tasks_in(MON / "m2") == {first}
    assert fs.read_text(MON / "m2/tasks") == f"{first}\n"
    assert put(fs, MON / "m2", f"{first}") == "ok"


def test_children_inherit(fs: FakeFs) -> None:
    """K41: a new thread is where the one that started it is; without a parent, in the default group."""
    parent = fs.spawn()
    put(fs, MON / "m1", f"{parent}")
    child = fs.spawn(parent)
    assert fs.tasks_in(MON / "m1") == {parent, child}
    orphan = fs.spawn()
    assert orphan not in fs.tasks_in(MON / "m1")
    with pytest.raises(LookupError):
        fs.spawn(orphan.__class__(4_000_000))
    with pytest.raises(ValueError, match="lives already"):
        fs.spawn(tid=child)


def test_a_zombie_is_a_thread(fs: FakeFs) -> None:
    """K42: a thread stays listed until it has been waited for, which is what end() stands for."""
    tid = fs.spawn()
    put(fs, MON / "m1", f"{tid}")
    assert tid in fs.tasks_in(MON / "m1")
    fs.end(tid)
    assert fs.tasks_in(MON / "m1") == set()
    with pytest.raises(LookupError):
        fs.end(tid)


def test_a_control_group_lists_its_children(fs: FakeFs) -> None:
    """K43: a control group's tasks include those of its monitoring groups."""
    inside, outside = fs.spawn(), fs.spawn()
    put(fs, ROOT / "c1", f"{inside},{outside}")
    put(fs, N1, f"{inside}")
    assert fs.read_text(ROOT / "c1/tasks") == f"{inside}\n{outside}\n"
    assert fs.tasks_in(N1) == {inside}
    put(fs, MON / "m1", f"{fs.self_tid}")
    assert fs.self_tid in fs.tasks_in(ROOT)


def test_a_control_group_takes_threads_back(fs: FakeFs) -> None:
    """K44: writing to the control group takes a thread out of its monitoring group, silently."""
    tid = fs.spawn()
    put(fs, MON / "m1", f"{tid}")
    assert put(fs, ROOT, f"{tid}") == "ok"
    assert fs.tasks_in(MON / "m1") == set()
    assert put(fs, MON / "m1", f"{tid}") == "ok"
    assert put(fs, ROOT / "c1", f"{tid}") == "ok"
    assert fs.tasks_in(MON / "m1") == set()


def test_a_thread_of_another_control_group(fs: FakeFs) -> None:
    """K45: a monitoring group does not take threads across control groups."""
    tid = fs.spawn()
    put(fs, ROOT / "c2", f"{tid}")
    for group in (MON / "m1", N1):
        assert put(fs, group, f"{tid}") == "EINVAL"
        assert status(fs) == [
            "Can't move task to different control group",
            f"Error while processing task {tid}",
        ]
    assert fs.tasks_in(ROOT / "c2") == {tid}


def test_a_list_stops_at_the_first_failure(fs: FakeFs) -> None:
    """K46: what stands before the failure is moved, what stands after it is not."""
    first, dead, last = fs.spawn(), fs.spawn(), fs.spawn()
    fs.end(dead)
    assert put(fs, MON / "m1", f"{first},{dead},{last}") == "ESRCH"
    assert fs.tasks_in(MON / "m1") == {first}


@pytest.mark.parametrize(
    ("text", "outcome", "line"),
    [
        ("{a}", "ok", "ok"),
        ("{a}\n", "ok", "ok"),
        ("  {a} , {b}\t", "ok", "ok"),
        (b"\xa0{a}", "ok", "ok"),
        ("{a} {b}", "EINVAL", "Task list parsing error pid {a} {b}"),
        ("{a}\n{b}\n", "EINVAL", "{b}"),
        ("abc", "EINVAL", "Task list parsing error pid abc"),
        ("-1", "EINVAL", "Invalid pid -1"),
        ("-2147483648", "EINVAL", "Invalid pid -2147483648"),
        ("99999999999", "EINVAL", "Task list parsing error pid 99999999999"),
    ],
)
def test_blanks_and_texts(fs: FakeFs, text: str | bytes, outcome: str, line: str) -> None:
    """K47: blanks around an element are nothing, within it they are an error; the texts are the kernel's."""
    names = {"a": fs.spawn(), "b": fs.spawn()}
    raw = text if isinstance(text, bytes) else text.encode()
    for name, tid in names.items():
        raw = raw.replace(b"{%s}" % name.encode(), b"%d" % tid)
    assert put(fs, MON / "m1", raw) == outcome
    assert status(fs)[-1] == line.format(**names)
    assert bool(fs.tasks_in(MON / "m1")) == (outcome == "ok")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"77", 77),
        (b"0x4d", 77),
        (b"0X4D", 77),
        (b"0115", 77),
        (b"+77", 77),
        (b"-77", -77),
        (b"0", 0),
        (b"-0", 0),
        (b"00", 0),
        (b"2147483647", 2147483647),
        (b"-2147483648", -2147483648),
        (b"2147483648", None),
        (b"-2147483649", None),
        (b"08", None),
        (b"0x", None),
        (b"0xg", None),
        (b"1a", None),
        (b"", None),
        (b"-", None),
        (b"+-7", None),
        (b"-+7", None),
        (b"7 7", None),
    ],
)
def test_numbers_have_base_0(text: bytes, number: int | None) -> None:
    """K48: 0 leads an octal, 0x a hexadecimal number; what is no int is nothing."""
    assert kstrtoint(text) == number


@pytest.mark.parametrize(
    ("chunk", "numbers"),
    [
        (b"", []),
        (b"\n", []),
        (b"\n1", []),
        (b"1", [1]),
        (b"1,", [1]),
        (b"1,\n", [1]),
        (b"1,\n2", [1]),
        (b"1\n,2", [1, 2]),
        (b"1, \n", [1, None]),
        (b"1,,2", [1, None, 2]),
        (b",1", [None, 1]),
        (b" ", [None]),
        (b"1\x002", [1]),
        (b"1,\x002", [1]),
    ],
)
def test_where_a_list_ends(chunk: bytes, numbers: list[int | None]) -> None:
    """K49: at a NUL, and where an element begins with a newline; an empty element is no number."""
    assert [number for _, number in elements(chunk)] == numbers


@pytest.mark.parametrize("text", ["0", "-0", "0x0", "00"])
def test_zero_is_the_writer(fs: FakeFs, text: str) -> None:
    """K51: 0 moves whoever writes."""
    assert put(fs, MON / "m1", text) == "ok"
    assert fs.tasks_in(MON / "m1") == {fs.self_tid}


def test_a_write_of_more_than_a_page(fs: FakeFs) -> None:
    """K52: 4096 bytes are taken, 4097 are not at all."""
    first, second = fs.spawn(), fs.spawn()
    before = spoil_status(fs)
    assert put(fs, MON / "m1", f"{first}".ljust(4097)) == "E2BIG"
    assert fs.tasks_in(MON / "m1") == set()
    assert status(fs) == before
    assert put(fs, MON / "m1", f"{second}".ljust(4096)) == "ok"
    assert status(fs) == ["ok"]


def test_a_dead_thread(fs: FakeFs) -> None:
    """K53: ESRCH, with two lines."""
    tid = fs.spawn()
    fs.end(tid)
    assert put(fs, MON / "m1", f"{tid}") == "ESRCH"
    assert status(fs) == [f"No task {tid}", f"Error while processing task {tid}"]


def test_monitoring_only_root_tasks() -> None:
    """K54: without allocation the root's tasks read empty, although every thread is there."""
    fs = FakeFs(allocation=False)
    tid = fs.spawn()
    fs.create_dir(MON / "m1")
    assert fs.read_text(ROOT / "tasks") == ""
    assert put(fs, MON / "m1", f"{tid}") == "ok"
    assert fs.read_text(MON / "m1/tasks") == f"{tid}\n"


def test_chunks_are_writes(fs: FakeFs) -> None:
    """K55: the chunks before the failing one stay, none comes after it, and the error counts them."""
    first, dead, last = fs.spawn(), fs.spawn(), fs.spawn()
    fs.end(dead)
    chunks = [b"%d\n" % tid for tid in (first, dead, last)]
    with pytest.raises(WriteError) as caught:
        fs.write_all(MON / "m1/tasks", chunks)
    assert caught.value.written == 1
    assert fs.tasks_in(MON / "m1") == {first}
    assert fs.write_all(MON / "m1/tasks", [chunks[0], chunks[2]]) == 2
    assert fs.tasks_in(MON / "m1") == {first, last}


def test_going_on_after_a_failed_chunk(fs: FakeFs) -> None:
    """K55: another write(2) through the same descriptor is as good as the one before it."""
    first, dead, last = fs.spawn(), fs.spawn(), fs.spawn()
    fs.end(dead)
    failures: list[tuple[int | None, int]] = []

    def go_on(failure: WriteError) -> bool:
        failures.append((failure.errno, failure.written))
        return failure.errno == errno.ESRCH

    chunks = [b"%d\n" % tid for tid in (first, dead, last)]
    assert fs.write_all(MON / "m1/tasks", chunks, go_on=go_on) == 2
    assert fs.tasks_in(MON / "m1") == {first, last}
    with pytest.raises(WriteError) as caught:
        fs.write_all(MON / "m1/tasks", [chunks[0], b"-1", chunks[2]], go_on=go_on)
    assert caught.value.written == 1
    assert failures == [(errno.ESRCH, 1), (errno.EINVAL, 1)]


def test_a_kernel_before_lists() -> None:
    """K50: a list is EINVAL and leaves the status alone, as is a negative number; who failed is not told."""
    fs = FakeFs(lists=False)
    fs.create_dir(MON / "m1")
    first, last, dead = fs.spawn(), fs.spawn(), fs.spawn()
    fs.end(dead)
    assert put(fs, MON / "m1", f"{dead}\n") == "ESRCH"
    assert status(fs) == [f"No task {dead}"]
    for text in (
        f"{first},{last}",
        f"{first},",
        "-1",
        "",
        "\n",
        "abc",
        f"{first} {last}",
        f"{first}\n{last}",
    ):
        assert put(fs, MON / "m1", text) == "EINVAL"
    assert status(fs) == [f"No task {dead}"]
    assert fs.tasks_in(MON / "m1") == set()
    assert put(fs, MON / "m1", f" {first}\n") == put(fs, MON / "m1", f"0x{last:x}\0rest") == "ok"
    assert status(fs) == ["ok"]
    assert fs.tasks_in(MON / "m1") == {first, last}
    assert put(fs, MON / "m1", " " * 4096 + "1") == "E2BIG"
    fs.create_dir(ROOT / "c1")
    put(fs, ROOT / "c1", f"{first}")
    assert put(fs, MON / "m1", f"{first}") == "EINVAL"
    assert status(fs) == ["Can't move task to different control group"]


def test_where_a_thread_is(fs: FakeFs) -> None:
    """K88: /proc/<tid>/cpu_resctrl_groups names the control group and the monitoring group."""

    def of(tid: object) -> str:
        text = fs.read_text(Path(f"/proc/{tid}/cpu_resctrl_groups"))
        assert tid == "self" or text == fs.read_text(Path(f"/proc/{tid}/task/{tid}/cpu_resctrl_groups"))
        return text

    tid = fs.spawn()
    assert of(tid) == of("self") == of(fs.self_tid) == "res:/\nmon:\n"
    put(fs, MON / "m1", f"{tid}")
    put(fs, MON / "m2", "0")
    assert (of(tid), of("self")) == ("res:/\nmon:m1\n", "res:/\nmon:m2\n")
    put(fs, ROOT / "c1", f"{tid}")
    assert of(tid) == "res:c1\nmon:\n"
    put(fs, N1, f"{tid}")
    assert of(tid) == "res:c1\nmon:n1\n"
    fs.rename(N1, ROOT / "c2/mon_groups/x")
    assert of(tid) == "res:c2\nmon:x\n"
    fs.unmount()
    assert of(tid) == of(1) == "res:\nmon:\n"


def test_where_a_dead_thread_was(fs: FakeFs) -> None:
    """K89: there is no directory for it, nor for what is no plain number; a file held open says ESRCH."""
    tid = fs.spawn()
    path = Path(f"/proc/{tid}/cpu_resctrl_groups")
    assert fs.exists(path.parent)
    assert answer(fs.write_all, path, [b"1"]) == "EACCES"
    with fs.open_reader(path) as reader:
        assert reader.read() == "res:/\nmon:\n"
        fs.end(tid)
        assert answer(reader.read) == "ESRCH"
    assert answer(fs.read_text, path) == "ENOENT"
    for name in ("0", f"0{fs.self_tid}", "1.0", "-1", "1" * 11, "\u0661"):
        assert not fs.exists(Path("/proc") / name)


def test_a_kernel_that_does_not_tell_where_a_thread_is() -> None:
    """K88: before 5.6 the directory is there, and the file is not."""
    fs = FakeFs(proc_groups=False)
    assert fs.exists(Path("/proc/1"))
    assert fs.exists(Path("/proc/self/mountinfo"))
    for name in ("1", "1/task/1", "self"):
        assert not fs.exists(Path("/proc") / name / "cpu_resctrl_groups")


def test_writing_to_a_removed_group(fs: FakeFs) -> None:
    """K56: an open descriptor says ENODEV, even when a new group has the name; a path says ENOENT."""
    first, second = fs.spawn(), fs.spawn()

    def chunks() -> Iterator[bytes]:
        yield b"%d\n" % first
        fs.remove_dir(MON / "m1")
        fs.create_dir(MON / "m1")
        yield b"%d\n" % second

    with pytest.raises(WriteError) as caught:
        fs.write_all(MON / "m1/tasks", chunks())
    assert (caught.value.strerror, caught.value.written) == ("No such device", 1)
    assert fs.tasks_in(MON / "m1") == set()
    fs.remove_dir(MON / "m1")
    assert put(fs, MON / "m1", f"{first}") == "ENOENT"


def test_who_clears_the_status(fs: FakeFs) -> None:
    """K60: tasks writes, renames and mounts clear it, whatever comes of them; mkdir and rmdir never do."""
    while answer(fs.create_dir, MON / f"fill{fs.free_rmids}") == "ok":
        pass
    assert answer(fs.create_dir, MON / "more") == "ENOSPC"
    assert status(fs) == ["Out of RMIDs"] * 2
    assert answer(fs.create_dir, MON / "m1") == "EEXIST"
    assert answer(fs.create_dir, MON / "a\nb") == "EINVAL"
    fs.remove_dir(MON / "fill1")
    fs.create_dir(MON / "fill1")
    assert status(fs) == ["Out of RMIDs"] * 2
    assert put(fs, MON / "m1", "") == "ok"
    assert status(fs) == ["ok"]
    spoil_status(fs)
    fs.rename(MON / "m1", MON / "m3")
    assert status(fs) == ["ok"]
    spoil_status(fs)
    assert answer(fs.mount_resctrl, ROOT) == "EBUSY"
    assert status(fs) == ["ok"]


def test_the_status_is_512_bytes(fs: FakeFs) -> None:
    """K61: 39 times "Out of RMIDs" fit; a formatted text is cut; nothing follows until it is cleared."""
    buffer = StatusBuffer()
    for _ in range(45):
        buffer.puts("Out of RMIDs\n")
    assert buffer.show() == "Out of RMIDs\n" * 39
    buffer.printf(b"more")
    assert buffer.show() == "Out of RMIDs\n" * 39
    buffer.clear()
    buffer.puts("short\n")
    buffer.printf(b"x" * 600)
    assert len(buffer.show()) == 511
    buffer.puts("y")
    assert buffer.show().endswith("x")
    assert put(fs, MON / "m1", "y" * 600) == "EINVAL"
    assert len(fs.read_text(ROOT / "info/last_cmd_status")) == 511


# Threads that live outside the fake


def test_threads_from_outside() -> None:
    """A thread that only an outside knows can be moved, is seen while it lives, and leaves when it dies."""
    living = {5000, 5001}
    fs = FakeFs(alive=living.__contains__)
    fs.create_dir(MON / "m1")
    assert put(fs, MON / "m1", "5000,5001") == "ok"
    assert put(fs, MON / "m1", "5002") == "ESRCH"
    assert fs.tasks_in(MON / "m1") == living
    living.remove(5001)
    assert fs.tasks_in(MON / "m1") == {5000}
    living.add(5001)  # the id is used again, by a thread that nobody moved
    assert fs.tasks_in(MON / "m1") == {5000}
    assert put(fs, ROOT, "5000") == "ok"
    assert fs.tasks_in(MON / "m1") == set()


def test_own_and_outside_threads_do_not_share_ids() -> None:
    """A thread that the fake starts itself gets an id that nobody outside has."""
    fs = FakeFs(alive={1000, 1001}.__contains__)
    fs.create_dir(MON / "m1")
    assert put(fs, MON / "m1", "1000") == "ok"
    child = fs.spawn()
    assert child == 1002
    assert put(fs, MON / "m1", f"{child}") == "ok"
    assert fs.tasks_in(MON / "m1") == {1000, 1002}


def test_the_writer_from_outside() -> None:
    """With threads from outside, 0 is the thread that really writes."""
    fs = FakeFs(alive=lambda tid: tid == threading.get_native_id())
    fs.create_dir(MON / "m1")
    assert put(fs, MON / "m1", "0") == "ok"
    assert fs.tasks_in(MON / "m1") == {threading.get_native_id()} == {fs.self_tid}
