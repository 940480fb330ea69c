"""The boundary to the file system: the `FsProvider` protocol, and `RealFs`, the one with system calls.

Owns: every system call of the library. Must not know: what an errno means, or what a group is.

Rules:
    1. Failures are `OSError` with the true errno; nothing is translated here.
    2. One chunk is one write(2): the kernel takes a `tasks` write whole or not at all, so it is never split.
    3. Opening for write never creates a file: a `tasks` that is not there means the group is not there.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from typing import TYPE_CHECKING, Final, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = ["FsProvider", "Reader", "RealFs", "WriteError"]


class WriteError(OSError):
    """A write that failed on the way.

    Attributes:
        written: How many chunks the kernel took before the one that failed (0 when the open failed).
    """

    written: int

    def __init__(self, number: int, text: str, path: str, written: int) -> None:
        super().__init__(number, text, path)
        self.written = written


class Reader(Protocol):
    """A file held open and read again from its beginning at each call."""

    def read(self) -> str:
        """Return the whole text as it is now. Raises OSError (ENODEV once the group is gone)."""
        ...

    def read_page(self) -> str:
        """Return the first page of the text as it is now, by one pread(2): a file of one line comes whole.

        Raises OSError, as `read` does.
        """
        ...

    def close(self) -> None:
        """Close the descriptor. Closing twice is no error."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


@runtime_checkable
class FsProvider(Protocol):
    """What the library needs of a file system. All paths are absolute; /proc and info/ go through it too."""

    def exists(self, path: Path) -> bool:
        """Tell whether something is there."""
        ...

    def create_dir(self, path: Path) -> None:
        """Call mkdir(2), one level."""
        ...

    def remove_dir(self, path: Path) -> None:
        """Call rmdir(2): resctrl removes a group although it "contains" files."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Move a directory; a monitoring group keeps its RMID and counters when it changes its parent."""
        ...

    def read_text(self, path: Path) -> str:
        """Return the whole text of a file (open, read, close)."""
        ...

    def read_child_dirs(self, path: Path) -> list[str]:
        """Return the names of the child *directories*, sorted; files are left out."""
        ...

    def read_child_files(self, path: Path) -> list[str]:
        """Return the names of the *files* in a directory, sorted; directories are left out."""
        ...

    def identity(self, path: Path) -> int:
        """Return the number by which the kernel tells this directory from all others (stat(2), st_ino).

        A directory keeps it under another name. One that is made anew has another: in one mount resctrl never
        gives a number twice (kernel: kernfs_new_node, where the number counts how often it was used).
        """
        ...

    def can_open_for_write(self, path: Path) -> bool:
        """Open an existing file for writing and close it again.

        Returns:
            False where the answer is "you may not" (EACCES, EPERM, EROFS); any other failure is raised.
        """
        ...

    def mount_resctrl(self, target: Path) -> None:
        """Call mount(2) with type resctrl, without options."""
        ...

    def write_all(
        self,
        path: Path,
        chunks: Iterable[bytes],
        *,
        go_on: Callable[[WriteError], bool] | None = None,
    ) -> int:
        """Open an existing file once and give each chunk its own write(2).

        Args:
            path: The file.
            chunks: Taken one by one, each only when the one before it has been written or refused.
            go_on: Asked about each write that failed (not about the open): True goes on with the next chunk,
                through the same descriptor. Without it, and where it says False, the failure is raised.

        Returns:
            How many chunks the kernel took.

        Raises:
            WriteError: The open or a write failed; `written` tells how far it came. Nothing was written
                after the failing chunk.
        """
        ...

    def open_reader(self, path: Path) -> Reader:
        """Open a file that will be read many times."""
        ...


_REFUSALS: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR})
_BLOCK: Final = 65536
_PAGE: Final = 4096
"""Bytes of a page at least."""

_LISTING: Final = "tasks"
_LONGEST_LINE: Final = 12
"""Bytes of an id in decimal, its sign and its newline, at most."""


def _read_from_start(descriptor: int, *, listing: bool = False) -> str:
    """Read a file from offset 0 to its end, whatever the descriptor's own offset is.

    A read that comes back short is not the end: the kernel fills a page at least, but ends early where the
    next record does not fit (fs/seq_file.c, seq_read_iter), and a mount's record may be of any length. In a
    listing of threads a record is a line, or all of it (rdtgroup_tasks_show): what leaves room for a line
    is the end, and the kernel need not be asked once more only to hear that.
    """
    blocks: list[bytes] = []
    offset = 0
    while block := os.pread(descriptor, _BLOCK, offset):
        blocks.append(block)
        offset += len(block)
        if listing and len(block) < _PAGE - _LONGEST_LINE:
            break
    # Mount points and group names are bytes to the kernel: what is no UTF-8 survives a round trip.
    return b"".join(blocks).decode("utf-8", "surrogateescape")


class _DescriptorReader:
    """A `Reader` over one descriptor. Not for two threads at once."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self) -> str:
        """Return the whole text as it is now."""
        if self._descriptor < 0:
            raise ValueError("the reader is closed")
        return _read_from_start(self._descriptor)

    def read_page(self) -> str:
        """Return the first page of the text as it is now."""
        if self._descriptor < 0:
            raise ValueError("the reader is closed")
        return os.pread(self._descriptor, _PAGE, 0).decode("utf-8", "surrogateescape")

    def close(self) -> None:
        """Close the descriptor; the second time does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class RealFs:
    """The file system of this machine. Stateless: one instance serves any number of threads."""

    __slots__ = ()

    def exists(self, path: Path) -> bool:
        """Tell whether something is there. Raises OSError where that cannot be known (EACCES)."""
        try:
            path.stat()
        except OSError as error:
            if error.errno in _ABSENT:
                return False
            raise
        return True

    def create_dir(self, path: Path) -> None:
        """Call mkdir(2), one level."""
        path.mkdir()

    def remove_dir(self, path: Path) -> None:
        """Call rmdir(2)."""
        path.rmdir()

    def rename(self, source: Path, target: Path) -> None:
        """Give a directory another name or parent."""
        source.rename(target)

    def read_text(self, path: Path) -> str:
        """Return the whole text of a file (open, read, close)."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _read_from_start(descriptor, listing=path.name == _LISTING)
        finally:
            os.close(descriptor)

    def read_child_dirs(self, path: Path) -> list[str]:
        """Return the names of the child directories, sorted; an entry that vanishes meanwhile is left out."""
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))

    def read_child_files(self, path: Path) -> list[str]:
        """Return the names of the regular files in a directory, sorted."""
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))

    def identity(self, path: Path) -> int:
        """Return the inode number."""
        return path.stat().st_ino

    def can_open_for_write(self, path: Path) -> bool:
        """Open an existing file for writing and close it again."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _REFUSALS:
                return False
            raise
        os.close(descriptor)
        return True

    def mount_resctrl(self, target: Path) -> None:
        """Call mount(2): source "resctrl", type "resctrl", no flags, no options."""
        # The standard library has no mount(2); libc is already loaded into every CPython on Linux.
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"resctrl", os.fsencode(target), b"resctrl", ctypes.c_ulong(0), None) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(target))

    def write_all(
        self,
        path: Path,
        chunks: Iterable[bytes],
        *,
        go_on: Callable[[WriteError], bool] | None = None,
    ) -> int:
        """Open an existing file once and give each chunk its own write(2)."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _write_error(error, path, 0) from error
        written = 0
        try:
            for chunk in chunks:
                try:
                    taken = os.write(descriptor, chunk)
                except OSError as error:
                    failure = _write_error(error, path, written)
                    if go_on is None or not go_on(failure):
                        raise failure from error
                    continue
                if taken != len(chunk):
                    # kernfs never does this; a rest written on its own could be another thread's id.
                    raise WriteError(errno.EIO, "short write", str(path), written)
                written += 1
        finally:
            os.close(descriptor)
        return written

    def open_reader(self, path: Path) -> Reader:
        """Open a file that will be read many times; EISDIR for a directory, as a read would say."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        return _DescriptorReader(descriptor)


def _write_error(error: OSError, path: Path, written: int) -> WriteError:
    number = error.errno if error.errno is not None else errno.EIO
    return WriteError(number, os.strerror(number), str(path), written)
