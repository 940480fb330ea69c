"""A cgroup and all below it, listed again and again: what is walked, what is remembered, what stays open."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nri_resctrl_plugin import cgroup_walk
from nri_resctrl_plugin.cgroup_walk import OpenFiles, Tree, room_for_files
from nri_resctrl_plugin.cgroups import CgroupPidSource
from nri_resctrl_plugin.errors import CgroupError
from nri_resctrl_plugin.model import ContainerCgroup
from tests.real_cgroups import index_of, open_descriptors, own_cgroup, remove_cgroup, traced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILE = "cgroup.threads"


def put(directory: Path, *tids: int) -> Path:
    """Make a cgroup, or change who is in it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / FILE).write_text("".join(f"{tid}\n" for tid in tids))
    return directory


@pytest.fixture
def files() -> Iterator[OpenFiles]:
    """Room for many."""
    it = OpenFiles(100)
    yield it
    it.close_all()


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A cgroup with one thread."""
    return put(tmp_path / "top", 7)


@pytest.fixture
def tree(top: Path, files: OpenFiles) -> Tree:
    """Not walked yet."""
    return Tree(str(top), FILE, files, keeps=True)


def held(files: OpenFiles) -> list[str]:
    """Return which files are open, by the names of their cgroups, the one that was read longest ago first."""
    return [Path(path).parent.name for path in files._open]


def after_listing(patch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Let something change each time that the entries of a directory have been listed."""
    real = os.scandir

    def scandir(path: str) -> object:
        with real(path) as entries:
            listed = list(entries)
        change()
        return nullcontext(listed)

    patch.setattr(os, "scandir", scandir)


# --- what is walked ---


def test_a_long_listing_is_read_to_its_end(top: Path, tree: Tree) -> None:
    """A listing of any length comes whole, also where a read ends a line short of a page."""
    for count in (1, 511, 512, 513, 1022, 1023, 1024, 20_000):
        tids = list(range(1_000_000, 1_000_000 + count))
        put(top, *tids)
        assert tree.threads() == tids


def test_a_page_that_is_nearly_full_is_not_taken_for_the_end(
    top: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel ends a read before the line that does not fit: only one that leaves room is the end."""
    text = "".join(f"{1_000_000 + number}\n" for number in range(1500)).encode()
    (top / FILE).write_bytes(text)
    page, calls = 4096, []

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        assert size >= page
        block = text[offset : text.rfind(b"\n", offset, offset + page - 1) + 1]
        calls.append((offset, len(block)))
        return block

    monkeypatch.setattr(cgroup_walk, "_PAGE", page)
    monkeypatch.setattr(os, "pread", pread)
    assert tree.threads() == [int(line) for line in text.split()]
    assert calls == [(0, 4088), (4088, 4088), (8176, 3824)]


@pytest.mark.parametrize("links", [1, 3, 17])
def test_a_directory_whose_links_tell_nothing_is_looked_into(
    top: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch, links: int
) -> None:
    """Only two links mean that nothing is nested; file systems that do not count say 1, each time."""
    real = os.stat

    def stat_(path: str, **how: bool) -> object:
        result = real(path, **how)
        return os.stat_result([*result[:3], links, *result[4:]])

    monkeypatch.setattr(os, "stat", stat_)
    put(top / "nested", 8)
    assert sorted(tree.threads() or ()) == [7, 8]
    if links == 1:
        put(top / "another", 9)
        assert sorted(tree.threads() or ()) == [7, 8, 9]


def test_a_forest_of_cgroups_is_refused(top: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container with a delegated tree cannot stall the worker with it, nor fill its memory."""
    monkeypatch.setattr(cgroup_walk, "MAX_CGROUPS", 5)
    for number in range(5):
        put(top / str(number), number + 1)
    assert len(cgroup_walk._below(str(top), 3)) == 3
    with pytest.raises(CgroupError, match="more than 5 cgroups"):
        tree.threads()
    shutil.rmtree(top / "0")
    assert sorted(tree.threads() or ()) == [2, 3, 4, 5, 7]


# --- what is remembered ---


def test_a_tree_that_is_what_it_was_is_not_looked_into(
    top: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads come and go in it; while nothing is nested anew, no entries are listed."""
    put(top / "a", 8)
    put(top / "a" / "b")
    assert sorted(tree.threads() or ()) == [7, 8]
    monkeypatch.setattr(os, "scandir", None)
    put(top)
    put(top / "a" / "b", 9, 10)
    assert sorted(tree.threads() or ()) == [8, 9, 10]


def test_what_is_nested_anew_is_found(top: Path, tree: Tree, files: OpenFiles) -> None:
    """On each level, whether something else went at the same time or not; of that nothing stays open."""
    put(top / "a", 8)
    assert sorted(tree.threads() or ()) == [7, 8]
    put(top / "a" / "deep", 9)
    assert sorted(tree.threads() or ()) == [7, 8, 9]
    shutil.rmtree(top / "a")
    put(top / "c", 10)
    assert sorted(tree.threads() or ()) == [7, 10]
    assert held(files) == ["top", "c"]


def test_a_directory_of_the_same_name_is_another_cgroup(top: Path, tree: Tree, files: OpenFiles) -> None:
    """The kernel never gives its number again; what was open of the former one is not read any more."""
    put(top / "a", 8)
    tree.threads()
    (top / "a").rename(top.parent / "elsewhere")
    put(top / "a", 9)
    assert sorted(tree.threads() or ()) == [7, 9]
    assert held(files) == ["top", "a"]
    top.rename(top.parent / "elsewhere" / "top")
    put(top, 10)
    assert Tree(str(top), FILE, files, keeps=True).threads() == [10]


def test_a_thread_that_moves_into_a_new_cgroup_during_the_listing_is_found(
    top: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the cgroup that is looked at last: everything is read before anything is looked at."""
    put(top / "a", 8)
    tree.threads()
    real = os.stat

    def stat_(path: str, **how: bool) -> object:
        status = real(path, **how)
        monkeypatch.setattr(os, "stat", real)
        put(top / "a")
        put(top / "new", 8)
        return status

    monkeypatch.setattr(os, "stat", stat_)
    assert sorted(tree.threads() or ()) == [7, 8]


def test_what_is_nested_while_it_is_listed_is_found(
    top: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread moves into a cgroup that was made just now, before its own is read."""
    assert tree.threads() == [7]
    real = os.pread

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        monkeypatch.setattr(os, "pread", real)
        put(top)
        put(top / "new", 7)
        return real(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    assert tree.threads() == [7]


def test_a_tree_that_changed_during_the_walk_is_walked_anew(
    top: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One cgroup went, unread, and another came: there are as many as before."""
    put(top / "a", 8)

    def change() -> None:
        if (top / "a").exists():
            (top / "a").rename(top / "b")

    with monkeypatch.context() as changing:
        after_listing(changing, change)
        tree.threads()
    assert sorted(tree.threads() or ()) == [7, 8]


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV])
def test_a_tree_that_lost_a_cgroup_is_walked_anew(
    top: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The rest is listed."""
    put(top / "a", 8)
    tree.threads()
    real = os.pread

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        if Path(f"/proc/self/fd/{descriptor}").readlink().parent.name == "a":
            monkeypatch.setattr(os, "pread", real)
            shutil.rmtree(top / "a")
            raise OSError(number, os.strerror(number))
        return real(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    assert tree.threads() == [7]


def test_a_failure_is_told_and_nothing_is_taken_for_granted_after_it(
    top: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that does not mean gone is no empty container, the second time neither."""
    before = open_descriptors()
    tree.threads()

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(os, "pread", pread)
        for _ in range(2):
            with pytest.raises(CgroupError, match=r"cannot list the threads at .*EIO"):
                tree.threads()
    assert open_descriptors() == before
    assert tree.threads() == [7]
    (top / FILE).write_text("7\nseven\n")
    with pytest.raises(CgroupError, match="no thread id"):
        tree.threads()
    put(top, 7, 0)
    with pytest.raises(CgroupError, match="hostPID"):
        tree.threads()


def test_a_cgroup_that_is_gone_is_not_there_until_it_is_made_again(top: Path, tree: Tree) -> None:
    """None is gone, an empty list is not."""
    tree.threads()
    shutil.rmtree(top)
    assert tree.threads() is None
    put(top)
    assert tree.threads() == []


def test_the_files_of_a_large_tree_do_not_stay_open(top: Path, tree: Tree, files: OpenFiles) -> None:
    """A container that nests cgroups in number takes no room of others, and is walked each time."""
    before = open_descriptors()
    for number in range(1, cgroup_walk.MAX_KEPT):
        put(top / str(number), 100 + number)
    tree.threads()
    assert len(files) == cgroup_walk.MAX_KEPT
    put(top / "one more", 1000)
    assert len(tree.threads() or ()) == cgroup_walk.MAX_KEPT + 1
    assert len(files) == 0
    assert open_descriptors() == before
    assert len(tree.threads() or ()) == cgroup_walk.MAX_KEPT + 1


def test_what_is_made_after_the_entries_were_listed_is_found_the_next_time(
    top: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The links are counted before the entries are listed: one that is missed was not counted either."""
    put(top / "a", 8)
    with monkeypatch.context() as changing:
        after_listing(changing, lambda: put(top / "new", 9))
        assert sorted(tree.threads() or ()) == [7, 8]
    assert sorted(tree.threads() or ()) == [7, 8, 9]


def test_a_link_is_not_followed(top: Path, tree: Tree, tmp_path: Path) -> None:
    """No cgroup is one."""
    put(tmp_path / "outside", 666)
    (top / "link").symlink_to(tmp_path / "outside")
    put(top / "a", 8)
    assert [sorted(tree.threads() or ()) for _ in range(2)] == [[7, 8]] * 2


def test_what_goes_while_it_is_looked_at_was_there(
    top: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is empty, not gone: that is said once it is looked for again. Nothing of it stays open."""

    def stat_(path: str, **how: bool) -> object:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    before = open_descriptors()
    put(top)
    with monkeypatch.context() as changing:
        changing.setattr(os, "stat", stat_)
        assert tree.threads() == []
    assert open_descriptors() == before
    shutil.rmtree(top)
    assert tree.threads() is None


# --- what stays open ---


def trees(base: Path, files: OpenFiles, names: str) -> dict[str, Tree]:
    """Make cgroups of one thread each, and list them."""
    found = {name: Tree(str(put(base / name, 1)), FILE, files, keeps=True) for name in names}
    for tree in found.values():
        assert tree.threads() == [1]
    return found


def test_whoever_came_first_stays(tmp_path: Path) -> None:
    """Beyond the room, those who have none are read by a walk, as often as they are listed."""
    files, before = OpenFiles(2), open_descriptors()
    found = trees(tmp_path, files, "abcd")
    for _ in range(3):
        for name, tree in found.items():
            put(tmp_path / name, 1, 2)
            assert tree.threads() == [1, 2]
        assert held(files) == ["a", "b"]
        assert open_descriptors() == before + 2
    files.close_all()
    files.close_all()
    assert open_descriptors() == before


def test_what_nobody_reads_makes_room_in_the_end(tmp_path: Path) -> None:
    """For whoever wants it, of a tree all or nothing; nothing else tells that it is nobody's any more."""
    now = [0.0]
    files = OpenFiles(3, lambda: now[0])
    found = trees(tmp_path, files, "abcd")
    for name in "ab":
        shutil.rmtree(tmp_path / name)
    now[0] += cgroup_walk.IDLE - 1
    for name in "cd":
        found[name].threads()
    assert held(files) == ["a", "b", "c"]
    now[0] += 1
    found["c"].threads()
    found["d"].threads()
    assert held(files) == ["b", "c", "d"]
    put(tmp_path / "e", 1)
    put(tmp_path / "e" / "f", 2)
    large = Tree(str(tmp_path / "e"), FILE, files, keeps=True)
    assert sorted(large.threads() or ()) == [1, 2]
    assert held(files) == ["c", "d"]
    now[0] += cgroup_walk.IDLE
    found["d"].threads()
    assert sorted(large.threads() or ()) == [1, 2]
    assert held(files) == ["d", "e", "f"]
    files.close_all()


def test_a_file_that_was_closed_for_another_is_opened_anew(tmp_path: Path, files: OpenFiles) -> None:
    """A tree does not know what became of its files."""
    tree = trees(tmp_path, files, "a")["a"]
    put(tmp_path / "a" / "b", 2)
    assert sorted(tree.threads() or ()) == [1, 2]
    files.close(str(tmp_path / "a" / FILE))
    put(tmp_path / "a", 3)
    assert sorted(tree.threads() or ()) == [2, 3]
    assert held(files) == ["a", "b"]
    tree.close()
    assert held(files) == []
    assert sorted(tree.threads() or ()) == [2, 3]


def test_two_trees_of_one_cgroup_have_one_file(tmp_path: Path, files: OpenFiles) -> None:
    """A container that is empty is searched for again and again, and found in the same place."""
    before = open_descriptors()
    first, second = (trees(tmp_path, files, "a")["a"] for _ in range(2))
    for _ in range(2):
        put(tmp_path / "a", 2)
        assert [first.threads(), second.threads()] == [[2], [2]]
        first._walk()
    assert open_descriptors() == before + 1


def test_what_may_not_stay_open_does_not(top: Path, files: OpenFiles) -> None:
    """So are the files of cgroup v1 read, which tell what they told before."""
    before = open_descriptors()
    tree = Tree(str(top), FILE, files, keeps=False)
    assert [tree.threads() for _ in range(3)] == [[7]] * 3
    assert open_descriptors() == before


def test_whoever_lets_go_of_it_closes_it(tmp_path: Path) -> None:
    """A source that nobody closed leaves nothing behind."""
    before = open_descriptors()
    files = OpenFiles(1)
    trees(tmp_path, files, "a")
    assert open_descriptors() == before + 1
    del files
    assert open_descriptors() == before


@pytest.mark.parametrize("again", [False, True])
def test_whatever_ends_a_reading_leaves_nothing_open(
    top: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Not only what the kernel says."""
    before = open_descriptors()
    if again:
        tree.threads()

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        raise MemoryError

    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(MemoryError):
        tree.threads()
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("soft", "room"), [(resource.RLIM_INFINITY, 512), (1_000_000, 512), (1024, 256), (4, 1)]
)
def test_a_process_keeps_most_of_its_descriptors(
    monkeypatch: pytest.MonkeyPatch, soft: int, room: int
) -> None:
    """An agent that embeds the plugin opens files of its own."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    assert room_for_files() == room


# --- by the kernel's own account ---


@pytest.mark.parametrize("nested", [0, 1])
def test_a_known_container_costs_two_system_calls_for_each_cgroup(
    request: pytest.FixtureRequest, nested: int
) -> None:
    """A read and a stat, on a real cgroup of this machine; a look whether it is there is one stat."""
    directory = own_cgroup(request)
    calls = ["pread64"] * (1 + nested) + ["newfstatat"] * (1 + nested)
    if not (directory / "cgroup.threads").exists():
        pytest.skip("no cgroup v2 that may be written here")
    for _ in range(nested):
        (directory / "container").mkdir()
        request.addfinalizer(lambda: remove_cgroup(directory / "container"))
    mine = f"/{'/'.join(directory.parts[-2:])}"
    code = f"""
import os
from nri_resctrl_plugin.cgroups import CgroupPidSource
from nri_resctrl_plugin.model import ContainerCgroup
open({str(directory / ("container" if nested else "") / "cgroup.procs")!r}, "w").write(str(os.getpid()))
source, told = CgroupPidSource(), ContainerCgroup(cgroups_path={mine!r}, pid=os.getpid())
for _ in range(3): assert list(source.thread_ids(told)) == [os.getpid()]
os.path.lexists("/begin")
source.thread_ids(told)
os.path.lexists("/next")
source.is_gone(told)
os.path.lexists("/end")
"""
    lines = traced(code)
    begin, middle, end = (index_of(lines, marker) for marker in ("/begin", "/next", "/end"))
    assert [line.split("(")[0] for line in lines[begin + 1 : middle]] == calls
    assert [line.split("(")[0] for line in lines[middle + 1 : end]] == ["newfstatat"]


def test_a_real_cgroup_that_is_held_open_can_be_removed_and_made_again(
    request: pytest.FixtureRequest,
) -> None:
    """What is held hinders nobody: it reads as gone, and the new cgroup in its place is another."""
    directory = own_cgroup(request)
    source, told = CgroupPidSource(), ContainerCgroup(cgroups_path=f"/{'/'.join(directory.parts[-2:])}")
    for _ in range(2):
        directory.mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(["sleep", "60"])
        try:
            (directory / "cgroup.procs").write_text(str(process.pid))
            assert [list(source.thread_ids(told)) for _ in range(3)] == [[process.pid]] * 3
        except OSError as error:
            pytest.skip(f"may not move a process here: {error}")
        finally:
            process.kill()
            process.wait()
        remove_cgroup(directory)
        assert list(source.thread_ids(told)) == []
        assert source.is_gone(told)
    source.close()
