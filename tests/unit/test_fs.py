"""RealFs on a real file system: the system calls, their errnos, and what must never happen."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from resctrl import FsProvider, RealFs, WriteError
from tests.real_cgroups import own_cgroup
from tests.unit.fakes import answer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def fs() -> RealFs:
    """Return the provider."""
    return RealFs()


def test_it_is_a_provider(fs: RealFs) -> None:
    """RealFs can stand wherever the library takes an FsProvider."""
    assert isinstance(fs, FsProvider)


def test_exists(fs: RealFs, tmp_path: Path) -> None:
    """What is absent, or below a file, does not exist; what cannot be looked at is an error."""
    (tmp_path / "file").touch()
    assert fs.exists(tmp_path)
    assert not fs.exists(tmp_path / "nope")
    assert not fs.exists(tmp_path / "file/x")
    assert answer(fs.exists, tmp_path / ("n" * 300)) == "ENAMETOOLONG"


def test_directories(fs: RealFs, tmp_path: Path) -> None:
    """Directories are made and removed one at a time, or it is said why not."""
    assert answer(fs.create_dir, tmp_path / "a/b") == "ENOENT"
    fs.create_dir(tmp_path / "a")
    assert answer(fs.create_dir, tmp_path / "a") == "EEXIST"
    fs.create_dir(tmp_path / "a/b")
    assert answer(fs.remove_dir, tmp_path / "a") == "ENOTEMPTY"
    fs.rename(tmp_path / "a/b", tmp_path / "c")
    fs.remove_dir(tmp_path / "a")
    assert answer(fs.remove_dir, tmp_path / "a") == "ENOENT"
    assert answer(fs.rename, tmp_path / "a", tmp_path / "b") == "ENOENT"
    assert fs.read_child_dirs(tmp_path) == ["c"]


def test_child_directories_are_only_directories(fs: RealFs, tmp_path: Path) -> None:
    """Files and links to directories are left out; the names are sorted."""
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("a")
    assert fs.read_child_dirs(tmp_path) == ["a", "b"]
    assert answer(fs.read_child_dirs, tmp_path / "nope") == "ENOENT"
    assert answer(fs.read_child_dirs, tmp_path / "file") == "ENOTDIR"


def test_child_files_are_only_files(fs: RealFs, tmp_path: Path) -> None:
    """Directories and links are left out; the names are sorted."""
    (tmp_path / "dir").mkdir()
    for name in ("b", "a"):
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("a")
    assert fs.read_child_files(tmp_path) == ["a", "b"]
    assert answer(fs.read_child_files, tmp_path / "nope") == "ENOENT"
    assert answer(fs.read_child_files, tmp_path / "a") == "ENOTDIR"


def test_directories_are_told_apart(fs: RealFs, tmp_path: Path) -> None:
    """The number is that of the inode: it stays with a directory that is renamed."""
    (tmp_path / "a").mkdir()
    (tmp_path / "c").mkdir()
    number = fs.identity(tmp_path / "a")
    assert number == (tmp_path / "a").stat().st_ino != fs.identity(tmp_path / "c")
    fs.rename(tmp_path / "a", tmp_path / "b")
    assert fs.identity(tmp_path / "b") == number
    assert answer(fs.identity, tmp_path / "a") == "ENOENT"


def test_a_page_is_one_system_call(fs: RealFs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fits into a page comes whole by one pread at offset 0; of what is longer the first page comes."""
    calls = []
    pread = os.pread

    def counted(descriptor: int, size: int, offset: int) -> bytes:
        calls.append(offset)
        return pread(descriptor, size, offset)

    file = tmp_path / "file"
    file.write_text("1234\n")
    with fs.open_reader(file) as reader:
        monkeypatch.setattr(os, "pread", counted)
        assert [reader.read_page(), reader.read_page()] == ["1234\n", "1234\n"]
        file.write_text("x" * 5000)
        assert reader.read_page() == "x" * 4096
        assert calls == [0, 0, 0]
    with pytest.raises(ValueError, match="closed"):
        reader.read_page()


def as_the_kernel_reads(monkeypatch: pytest.MonkeyPatch, text: bytes) -> list[int]:
    """Let reads fill one page with whole lines, as seq_file does; return the offsets asked for."""
    offsets: list[int] = []

    def pread(_: int, size: int, offset: int) -> bytes:
        assert size >= 4096
        offsets.append(offset)
        page = text[offset : offset + 4096]
        return page if offset + len(page) == len(text) else page[: page.rindex(b"\n") + 1]

    monkeypatch.setattr(os, "pread", pread)
    return offsets


@pytest.mark.parametrize(("lines", "reads"), [(0, 1), (1, 1), (816, 1), (817, 2), (819, 2), (5000, 7)])
def test_a_listing_of_threads_is_read_without_asking_whether_that_was_all(
    fs: RealFs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int, reads: int
) -> None:
    """What leaves room for an id in a page is the end of `tasks`; a page that is full says nothing."""
    file = tmp_path / "tasks"
    file.touch()
    text = b"".join(b"%04d\n" % (1000 + number) for number in range(lines))
    offsets = as_the_kernel_reads(monkeypatch, text)
    assert fs.read_text(file) == text.decode()
    assert len(offsets) == reads


def test_a_file_of_long_lines_is_read_to_its_end(
    fs: RealFs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount may have a line of thousands of bytes, and a read ends early before it."""
    file = tmp_path / "mountinfo"
    file.touch()
    text = b"short\n" + b"x" * 4090 + b"\n" + b"short\n"
    offsets = as_the_kernel_reads(monkeypatch, text)
    assert fs.read_text(file) == text.decode()
    assert offsets == [0, 6, 4097, 4103]


def test_a_real_listing_of_threads_is_read_whole(
    fs: RealFs, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Over a page of ids in a cgroup of this machine, by this kernel: none is missing."""
    directory, listing = own_cgroup(request), tmp_path / "tasks"
    found = next(each for name in ("tasks", "cgroup.threads") if (each := directory / name).exists())
    listing.symlink_to(found)
    code = """
import sys, threading
stop = threading.Event()
workers = [threading.Thread(target=stop.wait, daemon=True) for _ in range(1000)]
for worker in workers:
    worker.start()
print(*(worker.native_id for worker in [threading.main_thread(), *workers]), flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        (directory / "cgroup.procs").write_text(str(child.pid))
        there = sorted(map(int, child.stdout.readline().split()))
        text = fs.read_text(listing)
        child.communicate()
    assert len(text) > 4096
    assert sorted(map(int, text.split())) == there


def test_reading(fs: RealFs, tmp_path: Path) -> None:
    """A whole file is read, however long, and bytes that are no UTF-8 survive."""
    raw = b"\xff\xc3\xa9" * 50_000
    (tmp_path / "file").write_bytes(raw)
    text = fs.read_text(tmp_path / "file")
    assert os.fsencode(text) == raw
    assert answer(fs.read_text, tmp_path / "nope") == "ENOENT"
    assert answer(fs.read_text, tmp_path) == "EISDIR"


def test_reading_proc(fs: RealFs) -> None:
    """A file of /proc has no size, and is read whole all the same."""
    assert " - proc " in fs.read_text(Path("/proc/self/mountinfo"))


def test_a_reader_reads_again(fs: RealFs, tmp_path: Path) -> None:
    """An open file shows what is in it now, from its beginning."""
    file = tmp_path / "file"
    file.write_text("one")
    with fs.open_reader(file) as reader:
        assert reader.read() == "one"
        assert reader.read() == "one"
        file.write_text("two and more")
        assert reader.read() == "two and more"
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.read()
    assert answer(fs.open_reader, tmp_path / "nope") == "ENOENT"


def test_refusing_a_directory_leaves_nothing_open(fs: RealFs, tmp_path: Path) -> None:
    """A directory is EISDIR, and its descriptor is closed again."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counts descriptors
    assert answer(fs.open_reader, tmp_path) == "EISDIR"
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above


def test_opening_for_write(fs: RealFs, tmp_path: Path) -> None:
    """A file that can be written is true, one that is absent an error, and none is made or cut."""
    file = tmp_path / "file"
    file.write_text("content")
    assert fs.can_open_for_write(file)
    assert file.read_text() == "content"
    assert answer(fs.can_open_for_write, tmp_path / "nope") == "ENOENT"
    assert answer(fs.can_open_for_write, tmp_path) == "EISDIR"
    assert not (tmp_path / "nope").exists()


@pytest.mark.parametrize(("number", "outcome"), [("EACCES", "False"), ("EROFS", "False"), ("EIO", "EIO")])
def test_may_not_is_an_answer(fs: RealFs, monkeypatch: pytest.MonkeyPatch, number: str, outcome: str) -> None:
    """A refusal means False; any other failure stays a failure."""

    def refuse(*_: object) -> int:
        raise OSError(getattr(errno, number), number)

    monkeypatch.setattr(os, "open", refuse)
    got = answer(fs.can_open_for_write, Path("/x")) if outcome == "EIO" else fs.can_open_for_write(Path("/x"))
    assert str(got) == outcome


def test_each_chunk_is_one_write(fs: RealFs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks are never joined or split, through one descriptor that is closed in the end."""
    file = tmp_path / "tasks"
    file.touch()
    writes: list[tuple[int, bytes]] = []
    true_write = os.write

    def write(descriptor: int, data: bytes) -> int:
        writes.append((descriptor, data))
        return true_write(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    assert fs.write_all(file, iter([b"1\n", b"", b"22\n"])) == 3
    assert [data for _, data in writes] == [b"1\n", b"", b"22\n"]
    assert len({descriptor for descriptor, _ in writes}) == 1
    assert file.read_text() == "1\n22\n"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(writes[0][0])


def test_a_failing_write_says_how_far_it_came(
    fs: RealFs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks before the failure count; none is written after it."""
    file = tmp_path / "tasks"
    file.touch()
    seen: list[bytes] = []

    def write(_: int, data: bytes) -> int:
        seen.append(data)
        if data == b"dead":
            raise ProcessLookupError(errno.ESRCH, "No such process")
        return len(data)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(WriteError) as caught:
        fs.write_all(file, [b"1", b"2", b"dead", b"3"])
    assert (caught.value.errno, caught.value.written, caught.value.filename) == (errno.ESRCH, 2, str(file))
    assert seen == [b"1", b"2", b"dead"]


def test_a_short_write_is_an_error(fs: RealFs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of a chunk is never written on its own: half of an id is another thread's id."""
    file = tmp_path / "tasks"
    file.touch()
    monkeypatch.setattr(os, "write", lambda _descriptor, data: len(data) - 1)
    with pytest.raises(WriteError) as caught:
        fs.write_all(file, [b"12345"])
    assert (caught.value.errno, caught.value.written) == (errno.EIO, 0)


def test_going_on_after_a_failed_write(fs: RealFs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is asked may go on: with the next chunk, through the same descriptor, until it says no."""
    file = tmp_path / "tasks"
    file.touch()
    seen: list[tuple[int, bytes]] = []
    failures: list[tuple[int | None, int]] = []

    def write(descriptor: int, data: bytes) -> int:
        seen.append((descriptor, data))
        if data.startswith(b"bad"):
            raise ProcessLookupError(errno.ESRCH, "No such process")
        return len(data)

    def go_on(failure: WriteError) -> bool:
        failures.append((failure.errno, failure.written))
        return len(failures) < 3

    monkeypatch.setattr(os, "write", write)
    assert fs.write_all(file, [b"1", b"bad", b"2", b"bad"], go_on=go_on) == 2
    with pytest.raises(WriteError) as caught:
        fs.write_all(file, [b"3", b"bad again", b"4"], go_on=go_on)
    assert (caught.value.errno, caught.value.written) == (errno.ESRCH, 1)
    assert failures == [(errno.ESRCH, 1), (errno.ESRCH, 2), (errno.ESRCH, 1)]
    assert [data for _, data in seen] == [b"1", b"bad", b"2", b"bad", b"3", b"bad again"]
    assert len({descriptor for descriptor, _ in seen[:4]}) == 1


def test_nobody_is_asked_about_the_open(fs: RealFs, tmp_path: Path) -> None:
    """A file that cannot be opened takes no chunk at all."""
    with pytest.raises(WriteError) as caught:
        fs.write_all(tmp_path / "tasks", [b"1"], go_on=lambda _: pytest.fail("asked"))
    assert (caught.value.errno, caught.value.written) == (errno.ENOENT, 0)


def test_chunks_are_taken_one_by_one(fs: RealFs, tmp_path: Path) -> None:
    """A chunk is asked for when the one before it has been written, so what it is may depend on that."""
    file = tmp_path / "tasks"
    file.touch()

    def chunks() -> Iterator[bytes]:
        yield b"first"
        yield file.read_bytes()[::-1]

    assert fs.write_all(file, chunks()) == 2
    assert file.read_bytes() == b"firsttsrif"


def test_writing_makes_no_file(fs: RealFs, tmp_path: Path) -> None:
    """A tasks file that is not there means that the group is not there."""
    with pytest.raises(WriteError) as caught:
        fs.write_all(tmp_path / "tasks", [b"1"])
    assert (caught.value.errno, caught.value.written) == (errno.ENOENT, 0)
    assert list(tmp_path.iterdir()) == []


def test_an_oserror_without_a_number_counts_as_eio(
    fs: RealFs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WriteError always has an errno."""
    file = tmp_path / "tasks"
    file.touch()

    def write(*_: object) -> int:
        raise OSError("no number")

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(WriteError) as caught:
        fs.write_all(file, [b"1"])
    assert caught.value.errno == errno.EIO


def test_an_exception_of_the_chunks_passes(fs: RealFs, tmp_path: Path) -> None:
    """What the caller's own iterable raises is not dressed up as a failed write."""
    file = tmp_path / "tasks"
    file.touch()
    with pytest.raises(ZeroDivisionError):
        fs.write_all(file, (b"%d" % (1 // n) for n in (1, 0)))
    assert file.read_text() == "1"


def test_mounting_really_asks_the_kernel(fs: RealFs, tmp_path: Path) -> None:
    """mount(2) fails with a true errno on a directory that is not there."""
    assert answer(fs.mount_resctrl, tmp_path / "nope") in {"ENOENT", "EPERM"}
