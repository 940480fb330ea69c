"""The boundary to the file system: the `FsProvider` protocol, and `RealFs`, which is this machine's kernel.

Owns: every system call of the library. Must not know: what an errno means, or what a group is.

Rules:
    1. Failures are `OSError` with the true errno; nothing is translated here.
    2. One chunk is one write(2): the kernel takes a `tasks` write whole or not at all, so it is never split.
    3. Opening for write never creates a file: a `tasks` that is not there means the group is not there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["FsProvider", "Reader", "WriteError"]


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

    def can_open_for_write(self, path: Path) -> bool:
        """Open an existing file for writing and close it again."""
        ...

    def mount_resctrl(self, target: Path) -> None:
        """Call mount(2) with type resctrl, without options."""
        ...

    def write_all(self, path: Path, chunks: Iterable[bytes]) -> int:
        """Open an existing file once and give each chunk its own write(2).

        Returns:
            How many chunks were written, that is all of them.

        Raises:
            WriteError: The open or a write failed; `written` tells how far it came. Nothing was written
                after the failing chunk.
        """
        ...

    def open_reader(self, path: Path) -> Reader:
        """Open a file that will be read many times."""
        ...
