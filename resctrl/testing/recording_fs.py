"""`RecordingFs`: a provider that remembers what was asked of another one.

Owns: the record. Must not know: what the operations mean.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import frozen

from resctrl.fs import FsProvider
from resctrl.testing.reader import WatchedReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from resctrl.fs import Reader, WriteError

__all__ = ["Call", "RecordingFs"]

P = TypeVar("P", bound=FsProvider)


@frozen
class Call:
    """One operation, recorded when it was begun.

    Attributes:
        operation: Name of the `FsProvider` method; `write` for each chunk of a `write_all`, `read_page` for
            each of an open reader.
        path: What it was about; for `rename` the source.
        chunk: What was written, for `write`.
    """

    operation: str
    path: Path
    chunk: bytes = b""


class RecordingFs(Generic[P]):
    """Counts operations by name and path, and passes them on; any number of threads may call it.

    Attributes:
        inner: The provider that does the work.
    """

    def __init__(self, inner: P) -> None:
        self.inner = inner
        self._lock = threading.Lock()
        self._calls: list[Call] = []

    @property
    def calls(self) -> list[Call]:
        """Everything so far, in the order in which it was begun (a copy)."""
        with self._lock:
            return list(self._calls)

    def count(self, operation: str, path: Path | None = None) -> int:
        """Return how often an operation was called, on one path or on any."""
        return sum(call.operation == operation and (path is None or call.path == path) for call in self.calls)

    def written(self, path: Path) -> list[bytes]:
        """Return the chunks that were given to a file, also those that were refused."""
        return [call.chunk for call in self.calls if call.operation == "write" and call.path == path]

    def forget(self) -> None:
        """Begin a new record."""
        with self._lock:
            self._calls.clear()

    def _note(self, operation: str, path: Path, chunk: bytes = b"") -> None:
        with self._lock:
            self._calls.append(Call(operation, path, chunk))

    def exists(self, path: Path) -> bool:
        """Record and pass on."""
        self._note("exists", path)
        return self.inner.exists(path)

    def create_dir(self, path: Path) -> None:
        """Record and pass on."""
        self._note("create_dir", path)
        self.inner.create_dir(path)

    def remove_dir(self, path: Path) -> None:
        """Record and pass on."""
        self._note("remove_dir", path)
        self.inner.remove_dir(path)

    def rename(self, source: Path, target: Path) -> None:
        """Record and pass on."""
        self._note("rename", source)
        self.inner.rename(source, target)

    def read_text(self, path: Path) -> str:
        """Record and pass on."""
        self._note("read_text", path)
        return self.inner.read_text(path)

    def read_child_dirs(self, path: Path) -> list[str]:
        """Record and pass on."""
        self._note("read_child_dirs", path)
        return self.inner.read_child_dirs(path)

    def read_child_files(self, path: Path) -> list[str]:
        """Record and pass on."""
        self._note("read_child_files", path)
        return self.inner.read_child_files(path)

    def identity(self, path: Path) -> int:
        """Record and pass on."""
        self._note("identity", path)
        return self.inner.identity(path)

    def can_open_for_write(self, path: Path) -> bool:
        """Record and pass on."""
        self._note("can_open_for_write", path)
        return self.inner.can_open_for_write(path)

    def mount_resctrl(self, target: Path) -> None:
        """Record and pass on."""
        self._note("mount_resctrl", target)
        self.inner.mount_resctrl(target)

    def write_all(
        self,
        path: Path,
        chunks: Iterable[bytes],
        *,
        go_on: Callable[[WriteError], bool] | None = None,
    ) -> int:
        """Record, and each chunk as it is taken, and pass on."""

        def noted() -> Iterator[bytes]:
            for chunk in chunks:
                self._note("write", path, chunk)
                yield chunk

        self._note("write_all", path)
        return self.inner.write_all(path, noted(), go_on=go_on)

    def open_reader(self, path: Path) -> Reader:
        """Record and pass on; of the reader, `read_page` is recorded and the rest is not."""
        self._note("open_reader", path)
        return WatchedReader(self.inner.open_reader(path), lambda: self._note("read_page", path))
