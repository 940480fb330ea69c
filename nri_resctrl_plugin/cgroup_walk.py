"""The threads of one cgroup and of all below it, listed again and again.

Owns: the walk, what is remembered of it, the files that are held open for it. Must not know: where a
container's cgroup is, what the ids are for.

Rules:
    1. The walk begins at the cgroup that it is given and never above it, and follows no symbolic link.
    2. What vanishes while it is read (ENOENT, ENODEV) is gone and no error. A thread listed as 0 is one
       outside our pid namespace: it lives, and cannot be named, so the listing is refused with the mend
       instead of being shortened in silence.
    3. A tree that was walked is remembered, and each of its cgroups costs two calls when it is listed again:
       a read and then a stat. While all are the same directories, with as many below each, nothing was
       nested anew. In this order: a thread that moves into a cgroup made meanwhile was read before, or the
       stat tells.
    4. Files stay open between the listings, at most so many: the one that was read longest ago is closed for
       another, and whatever was not read for long is closed. They hinder nobody: the kernel removes a cgroup
       all the same, and a read tells (ENODEV; kernel: kernfs_drain_open_files). A walk opens anew, since
       another cgroup may stand in that place. Where descriptors run out, all are given back.
    5. A file of cgroup v1 is opened anew each time: held open, it goes on telling for up to a second what it
       told before (kernel: cgroup_pidlist_start, CGROUP_PIDLIST_DESTROY_DELAY).
"""

from __future__ import annotations

import errno
import os
import resource
import time
import weakref
from itertools import islice
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen

from nri_resctrl_plugin.errors import CgroupError
from resctrl.model import Tid

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["GONE", "OpenFiles", "Tree", "refused", "room_for_files"]

MAX_CGROUPS: Final = 10_000
"""How many cgroups below one container are walked; more is an attack or a leak, and would stall others."""

MAX_REMEMBERED: Final = 64
"""The largest tree that is remembered, in cgroups."""

MAX_OPEN: Final = 512
"""How many files stay open at most; each costs the kernel some 5 KB."""

IDLE: Final = 600.0
"""Seconds after which a file that nobody reads is closed: its cgroup may be long gone."""

GONE: Final = frozenset({errno.ENOENT, errno.ENODEV})
"""What the kernel says of a cgroup that is not there, or not there any more."""

_USED_UP: Final = frozenset({errno.EMFILE, errno.ENFILE})
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
    """Files that are read again and again, and stay open in between.

    Args:
        room: How many may stay open; with 0 each is closed once it is read.
        clock: Tells the seconds.
    """

    def __init__(self, room: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._room = room
        self._clock = clock
        self._open: dict[str, tuple[int, float]] = {}  # the one that was read longest ago first
        self._end = weakref.finalize(self, _close_all, self._open)

    def read(self, path: str) -> bytes:
        """Return the whole text of a file as it is now.

        Raises:
            OSError: It cannot be read; ENODEV where it was open and is gone, even if another has its place.
        """
        known = self._open.pop(path, None)
        descriptor = known[0] if known is not None else self._opened(path)
        try:
            text = _read(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        now = self._clock()
        self._open[path] = descriptor, now
        for oldest, (_, read) in list(islice(self._open.items(), 2)):
            if len(self._open) > self._room or read < now - IDLE:
                self.close(oldest)
        return text

    def close(self, path: str) -> None:
        """Close one file, so that it will be opened anew; nothing where it is not open."""
        known = self._open.pop(path, None)
        if known is not None:
            os.close(known[0])

    def close_all(self) -> None:
        """Close whatever is open; it may be read again all the same."""
        _close_all(self._open)

    def _opened(self, path: str) -> int:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in _USED_UP or not self._open:
                raise
        self.close_all()
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


@frozen
class _Cgroup:
    """One cgroup of a tree as it was walked: its directory, the kernel's number for it, its links."""

    directory: str
    number: int
    links: int

    @classmethod
    def seen(cls, directory: str) -> _Cgroup:
        status = os.stat(directory)  # noqa: PTH116 - Path costs as much as the call
        return cls(directory, status.st_ino, status.st_nlink)


@define(eq=False)
class Tree:
    """A cgroup and all below it.

    Attributes:
        top: The directory of the cgroup.
        threads_file: The name of the file that lists the threads in each.
        files: What they are read by.
    """

    top: str
    threads_file: str
    files: OpenFiles
    _cgroups: tuple[_Cgroup, ...] = field(default=(), init=False)

    def threads(self) -> list[Tid] | None:
        """List the threads that live now, each once; None where the cgroup is not there.

        Raises:
            CgroupError: The kernel refuses to list, or lists what cannot be used.
        """
        found = self._list_again() if self._cgroups else None
        if found is None:
            found = self._walk()
        if found and min(found) <= 0:
            raise CgroupError(
                f"{self.top!r} holds threads outside our pid namespace (as 0): "
                "run in the host's (hostPID: true)"
            )
        return None if found is None else list(found)

    def _list_again(self) -> Collection[Tid] | None:
        """List the tree as it was walked; None where it is not that tree any more."""
        found: dict[Tid, None] = {}
        for each in self._cgroups:
            try:
                self._add_threads(found, each.directory)
                if _Cgroup.seen(each.directory) != each:
                    return None
            except OSError:
                return None  # the walk tells what that means
        return found

    def _walk(self) -> Collection[Tid] | None:
        """List the tree as it is; None where it is not there."""
        for each in self._cgroups:
            self.files.close(self._file(each.directory))
        self._cgroups = ()
        found: dict[Tid, None] = {}
        seen: list[_Cgroup] = []
        waiting, count, there = [self.top], 0, False
        while waiting:
            directory = waiting.pop()
            count += 1
            if count > MAX_CGROUPS:
                raise CgroupError(f"more than {MAX_CGROUPS} cgroups below {self.top!r}")
            self.files.close(self._file(directory))
            try:
                self._add_threads(found, directory)
                there = True
                seen.append(_Cgroup.seen(directory))
                if seen[-1].links != _NO_SUBDIRECTORIES:
                    with os.scandir(directory) as entries:
                        waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
            except OSError as error:
                if error.errno not in GONE:
                    raise refused(directory, error) from error
        if len(seen) == count <= MAX_REMEMBERED and all(each.links >= _NO_SUBDIRECTORIES for each in seen):
            self._cgroups = tuple(seen)
        return found if there else None

    def _add_threads(self, found: dict[Tid, None], directory: str) -> None:
        path = self._file(directory)
        try:
            found.update((Tid(int(line)), None) for line in self.files.read(path).split())
        except ValueError as error:
            raise CgroupError(f"{path} lists something that is no thread id") from error

    def _file(self, directory: str) -> str:
        return f"{directory}/{self.threads_file}"


def refused(path: str, error: OSError) -> CgroupError:
    """Return the error for threads that cannot be listed."""
    name = errno.errorcode.get(error.errno or 0, str(error.errno))
    return CgroupError(f"cannot list the threads at {path!r}: {name}")


def _read(descriptor: int) -> bytes:
    """Return a whole listing, without asking the kernel once more only to hear that this was all.

    The kernel fills one page per read and ends early only where the next line would not fit (seq_file, in
    fs/seq_file.c), so what leaves room for a line is the end.
    """
    blocks = [os.pread(descriptor, _BLOCK, 0)]
    offset = len(blocks[0])
    while len(blocks[-1]) >= _PAGE - _LONGEST_LINE:
        blocks.append(os.pread(descriptor, _BLOCK, offset))
        offset += len(blocks[-1])
    return b"".join(blocks)


def _close_all(files: dict[str, tuple[int, float]]) -> None:
    while files:
        os.close(files.popitem()[1][0])
