"""The threads of one cgroup and of all below it, listed again and again.

Owns: the walk, what is remembered of it, the files that are held open for it. Must not know: where a
container's cgroup is, what the ids are for.

Rules:
    1. The walk begins at the cgroup that it is given and never above it, and follows no symbolic link.
    2. What vanishes while it is read (ENOENT, ENODEV) is gone and no error. A thread listed as 0 is one
       outside our pid namespace: it lives, and cannot be named, so the listing is refused with the mend
       instead of being shortened in silence.
    3. The files of a small tree stay open after the walk, as long as there is room for all of them. Listed
       again, each of its cgroups costs two calls: first all are read, then all are looked at (stat). While
       they are the same directories, with as many below each, nothing was nested anew before the last read.
    4. Whoever came first stays, as long as it is read; where there is no room, what was not read for long
       goes. So a node with more cgroups than there is room for reads the rest as ever, by a walk.
    5. The kernel removes a cgroup whether its file is open or not, and a read tells (ENODEV; kernel:
       kernfs_drain_open_files). Only its hierarchy cannot be unmounted. A walk opens anew, since another
       cgroup may stand in that place.
    6. Files of cgroup v1 do not stay open: they go on telling for up to a second what they told before
       (kernel: cgroup_pidlist_start, CGROUP_PIDLIST_DESTROY_DELAY).
"""

from __future__ import annotations

import errno
import os
import resource
import time
import weakref
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from attrs import define, field

from nri_resctrl_plugin.errors import CgroupError
from resctrl.model import Tid

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = ["GONE", "USED_UP", "OpenFiles", "Tree", "refused", "room_for_files", "stands"]

MAX_CGROUPS: Final = 10_000
"""How many cgroups below one container are walked; more is an attack or a leak, and would stall others."""

MAX_KEPT: Final = 8
"""Cgroups of the largest tree whose files stay open: no container takes the room of all others."""

MAX_OPEN: Final = 512
"""How many files stay open at most; each costs the kernel some 5 KB."""

IDLE: Final = 600.0
"""Seconds after which a file that nobody read gives way to another: its cgroup may be long gone."""

GONE: Final = frozenset({errno.ENOENT, errno.ENODEV})
"""What the kernel says of a cgroup that is not there, or not there any more."""

USED_UP: Final = frozenset({errno.EMFILE, errno.ENFILE})
"""What it says where no descriptor is left."""

_BLOCK: Final = 65536
_LONGEST_LINE: Final = 12
"""Bytes of an id in decimal, its sign and its newline, at most."""

_PAGE: Final = os.sysconf("SC_PAGESIZE")
_NO_SUBDIRECTORIES: Final = 2
"""Links of a directory without any: its name and its own dot (kernfs: subdirs + 2). Where a file system does
not count so (btrfs and overlayfs say 1), the entries are looked at."""


def room_for_files() -> int:
    """Return how many files may stay open: a quarter of what this process may open, MAX_OPEN at most."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_OPEN if soft == resource.RLIM_INFINITY else min(MAX_OPEN, soft // 4)


class OpenFiles:
    """Files that stay open, to be read again.

    Args:
        room: How many there may be.
        clock: Tells the seconds.
    """

    def __init__(self, room: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.room: int = room
        self._clock = clock
        self._open: dict[str, tuple[int, float]] = {}  # the one that was read longest ago first, and when
        self._end = weakref.finalize(self, _close_all, self._open)

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, path: str) -> bool:
        return path in self._open

    def read(self, path: str) -> bytes:
        """Return the whole text of a file that is open, as it is now.

        Raises:
            OSError: It cannot be read, and is closed now; ENODEV where it is gone.
        """
        descriptor, _ = self._open.pop(path)
        text = _read_or_close(descriptor)
        self._open[path] = descriptor, self._clock()
        return text

    def take(self, files: Mapping[str, int]) -> bool:
        """Keep descriptors by their paths if there is room for all of them; else they stay the caller's."""
        for path in files:
            self.close(path)  # another tree of the same cgroup
        now = self._clock()
        while len(self._open) + len(files) > self.room:
            oldest, (_, read) = next(iter(self._open.items()), ("", (-1, now)))
            if now - read < IDLE:
                return False
            self.close(oldest)
        self._open.update((path, (descriptor, now)) for path, descriptor in files.items())
        return True

    def close(self, path: str) -> None:
        """Close a file; nothing where it is not open."""
        known = self._open.pop(path, None)
        if known is not None:
            os.close(known[0])

    def close_all(self) -> None:
        """Close all files."""
        _close_all(self._open)


class _Cgroup(NamedTuple):
    """One cgroup of a tree as it was walked: its directory, the kernel's number for it, its links."""

    directory: str
    number: int
    links: int


def _seen(directory: str) -> _Cgroup:
    status = os.stat(directory)  # noqa: PTH116 - Path costs as much as the call
    return _Cgroup(directory, status.st_ino, status.st_nlink)


@define(eq=False)
class Tree:
    """A cgroup and all below it.

    Attributes:
        top: The directory of the cgroup.
        threads_file: The name of the file that lists the threads in each.
        files: Those that stay open.
        keeps: Whether those of this tree may.
    """

    top: str
    threads_file: str
    files: OpenFiles
    keeps: bool
    _kept: tuple[_Cgroup, ...] = field(default=(), init=False)

    def threads(self) -> list[Tid] | None:
        """List the threads that live now, each once; None where the cgroup is not there.

        Raises:
            CgroupError: The kernel refuses to list, or lists what cannot be used.
        """
        found = self._list_again() if self._kept else None
        if found is None:
            found = self._walk()
        if found and min(found) <= 0:
            raise CgroupError(
                f"{self.top!r} holds threads outside our pid namespace (as 0): "
                "run in the host's (hostPID: true)"
            )
        return None if found is None else list(found)

    def close(self) -> None:
        """Close its files; it may be listed again all the same."""
        for each in self._kept:
            self.files.close(self._file(each.directory))
        self._kept = ()

    def _list_again(self) -> Collection[Tid] | None:
        """List the tree as it was walked; None where it is not that tree any more."""
        paths = [self._file(each.directory) for each in self._kept]
        try:
            texts = [self.files.read(path) for path in paths if path in self.files]
            if len(texts) < len(paths) or any(_seen(each.directory) != each for each in self._kept):
                return None
        except OSError:
            return None  # the walk tells what that means
        found: dict[Tid, None] = {}
        for path, text in zip(paths, texts, strict=True):
            found.update(_threads_in(path, text))
        return found

    def _walk(self) -> Collection[Tid] | None:
        """List the tree as it is; None where it is not there."""
        self.close()
        found: dict[Tid, None] = {}
        seen: list[_Cgroup] = []
        opened: dict[str, int] = {}
        waiting, count, there = [self.top], 0, False
        try:
            while waiting:
                directory = waiting.pop()
                count += 1
                if count > MAX_CGROUPS:
                    raise CgroupError(f"more than {MAX_CGROUPS} cgroups below {self.top!r}")
                path = self._file(directory)
                try:
                    text, descriptor = _opened(path, keep=self.keeps and count <= MAX_KEPT)
                    if descriptor is not None:
                        opened[path] = descriptor
                    there = True
                    found.update(_threads_in(path, text))
                    seen.append(_seen(directory))
                    if seen[-1].links != _NO_SUBDIRECTORIES:
                        waiting += _below(directory, MAX_CGROUPS + 1 - count - len(waiting))
                except OSError as error:
                    if error.errno not in GONE:
                        raise refused(directory, error) from error
            whole = len(opened) == len(seen) == count
            told = all(each.links >= _NO_SUBDIRECTORIES for each in seen)
            if whole and told and self.files.take(opened):
                self._kept, opened = tuple(seen), {}
        finally:
            for descriptor in opened.values():
                os.close(descriptor)
        return found if there else None

    def _file(self, directory: str) -> str:
        return f"{directory}/{self.threads_file}"


def _below(directory: str, most: int) -> list[str]:
    with os.scandir(directory) as entries:
        return list(islice((each.path for each in entries if each.is_dir(follow_symlinks=False)), most))


def _threads_in(path: str, text: bytes) -> dict[Tid, None]:
    try:
        return {Tid(int(line)): None for line in text.split()}
    except ValueError as error:
        raise CgroupError(f"{path} lists something that is no thread id") from error


def stands(path: str) -> bool:
    """Tell whether something is there; what cannot be looked at is not gone for all we know."""
    try:
        os.stat(path)  # noqa: PTH116 - Path costs as much as the call
    except OSError as error:
        return error.errno not in GONE
    return True


def refused(path: str, error: OSError) -> CgroupError:
    """Return the error for threads that cannot be listed."""
    name = errno.errorcode.get(error.errno or 0, str(error.errno))
    return CgroupError(f"cannot list the threads at {path!r}: {name}")


def _opened(path: str, *, keep: bool) -> tuple[bytes, int | None]:
    """Return the whole text of a file, and its descriptor if that is to be kept."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    text = _read_or_close(descriptor)
    if keep:
        return text, descriptor
    os.close(descriptor)
    return text, None


def _read_or_close(descriptor: int) -> bytes:
    """Return a whole listing, without asking the kernel once more only to hear that this was all.

    The kernel fills one page per read and ends early only where the next line would not fit (seq_file, in
    fs/seq_file.c), so what leaves room for a line is the end. Where it fails the descriptor is closed.
    """
    try:
        blocks = [os.pread(descriptor, _BLOCK, 0)]
        offset = len(blocks[0])
        while len(blocks[-1]) >= _PAGE - _LONGEST_LINE:
            blocks.append(os.pread(descriptor, _BLOCK, offset))
            offset += len(blocks[-1])
    except BaseException:
        os.close(descriptor)
        raise
    return b"".join(blocks)


def _close_all(files: dict[str, tuple[int, float]]) -> None:
    while files:
        os.close(files.popitem()[1][0])
