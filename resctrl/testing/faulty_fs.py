"""`FaultyFs`: a provider that fails on request, or lets something happen just before an operation.

Owns: the script of faults. Must not know: what the operations mean.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar

from attrs import define

from resctrl.fs import FsProvider, WriteError
from resctrl.testing.reader import WatchedReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from resctrl.fs import Reader

__all__ = ["FaultyFs", "PathFilter"]

P = TypeVar("P", bound=FsProvider)

_OPERATIONS: Final = frozenset(
    {
        "can_open_for_write",
        "create_dir",
        "exists",
        "identity",
        "mount_resctrl",
        "open_reader",
        "read_child_dirs",
        "read_child_files",
        "read_page",
        "read_text",
        "remove_dir",
        "rename",
        "write",
        "write_all",
    }
)

PathFilter: TypeAlias = Path | Callable[[Path], bool] | None
"""Which paths are meant: one, those of which something is true, or all."""


@define(eq=False)
class _Rule:
    operation: str
    action: Callable[[Path], object]
    path: PathFilter
    first: int
    last: float
    seen: int = 0

    def applies(self, operation: str, path: Path) -> bool:
        """Count a matching call, and tell whether it is one of those meant."""
        if operation != self.operation:
            return False
        if not (self.path is None or (self.path(path) if callable(self.path) else self.path == path)):
            return False
        self.seen += 1
        return self.first <= self.seen <= self.last


class _ChunkFault(Exception):  # noqa: N818 - carries a failure out of the inner provider's loop
    def __init__(self, failure: WriteError) -> None:
        self.failure = failure
        super().__init__(failure)


class FaultyFs(Generic[P]):
    """Passes everything on to another provider, but for what was scripted.

    Operations are named by the `FsProvider` method; `write` is one chunk of a `write_all`, `write_all` its
    open. Any number of threads may call it.

    Attributes:
        inner: The provider that does the work.
    """

    def __init__(self, inner: P) -> None:
        self.inner = inner
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []

    def fail(
        self, operation: str, number: int, *, nth: int = 1, times: float = 1, path: PathFilter = None
    ) -> None:
        """Let calls fail with an errno instead of being passed on.

        Args:
            operation: Which calls.
            number: The errno.
            nth: The first call to fail, counted from now, from 1, among those that match.
            times: How many fail from there on; `math.inf` for all.
            path: Only calls on this path, or on paths of which this is true; for `rename` the source counts.

        Raises:
            ValueError: There is no such operation.
        """

        def raise_it(where: Path) -> None:
            raise OSError(number, os.strerror(number), str(where))

        self.before(operation, raise_it, nth=nth, times=times, path=path)

    def before(
        self,
        operation: str,
        action: Callable[[Path], object],
        *,
        nth: int = 1,
        times: float = 1,
        path: PathFilter = None,
    ) -> None:
        """Let something happen just before calls are passed on, for instance what makes them a lost race.

        Args:
            operation: Which calls.
            action: Is given the path; what it returns does not matter. It may use the provider, and an
                `OSError` that it raises is the outcome.
            nth: As for `fail`.
            times: As for `fail`.
            path: As for `fail`.

        Raises:
            ValueError: There is no such operation.
        """
        if operation not in _OPERATIONS:
            raise ValueError(f"no operation {operation!r}; there are {sorted(_OPERATIONS)}")
        with self._lock:
            self._rules.append(_Rule(operation, action, path, nth, nth - 1 + times))

    def heal(self) -> None:
        """Forget the whole script."""
        with self._lock:
            self._rules.clear()

    def unused(self) -> int:
        """Return how many scripted rules have never come to pass; a test that expects them asserts 0."""
        with self._lock:
            return sum(rule.seen < rule.first for rule in self._rules)

    def _meet(self, operation: str, path: Path) -> None:
        with self._lock:
            due = [rule for rule in self._rules if rule.applies(operation, path)]
        for rule in due:
            rule.action(path)

    def exists(self, path: Path) -> bool:
        """Pass on, unless scripted."""
        self._meet("exists", path)
        return self.inner.exists(path)

    def create_dir(self, path: Path) -> None:
        """Pass on, unless scripted."""
        self._meet("create_dir", path)
        self.inner.create_dir(path)

    def remove_dir(self, path: Path) -> None:
        """Pass on, unless scripted."""
        self._meet("remove_dir", path)
        self.inner.remove_dir(path)

    def rename(self, source: Path, target: Path) -> None:
        """Pass on, unless scripted."""
        self._meet("rename", source)
        self.inner.rename(source, target)

    def read_text(self, path: Path) -> str:
        """Pass on, unless scripted."""
        self._meet("read_text", path)
        return self.inner.read_text(path)

    def read_child_dirs(self, path: Path) -> list[str]:
        """Pass on, unless scripted."""
        self._meet("read_child_dirs", path)
        return self.inner.read_child_dirs(path)

    def read_child_files(self, path: Path) -> list[str]:
        """Pass on, unless scripted."""
        self._meet("read_child_files", path)
        return self.inner.read_child_files(path)

    def identity(self, path: Path) -> int:
        """Pass on, unless scripted."""
        self._meet("identity", path)
        return self.inner.identity(path)

    def can_open_for_write(self, path: Path) -> bool:
        """Pass on, unless scripted."""
        self._meet("can_open_for_write", path)
        return self.inner.can_open_for_write(path)

    def mount_resctrl(self, target: Path) -> None:
        """Pass on, unless scripted."""
        self._meet("mount_resctrl", target)
        self.inner.mount_resctrl(target)

    def write_all(
        self,
        path: Path,
        chunks: Iterable[bytes],
        *,
        go_on: Callable[[WriteError], bool] | None = None,
    ) -> int:
        """Pass on, unless scripted; the chunks around a scripted one are really written."""
        refused = 0

        def met() -> Iterator[bytes]:
            for number, chunk in enumerate(chunks):
                try:
                    self._meet("write", path)
                except OSError as error:
                    failure = _write_error(error, path, number - refused)
                    if not tolerated(failure):
                        raise _ChunkFault(failure) from error
                else:
                    yield chunk

        def tolerated(failure: WriteError) -> bool:
            nonlocal refused
            refused += 1
            return go_on is not None and go_on(failure)

        try:
            self._meet("write_all", path)
            return self.inner.write_all(path, met(), go_on=tolerated)
        except _ChunkFault as fault:
            raise fault.failure from fault.__cause__
        except WriteError:
            raise
        except OSError as error:
            raise _write_error(error, path, 0) from error

    def open_reader(self, path: Path) -> Reader:
        """Pass on, unless scripted; so is what the reader's `read_page` does."""
        self._meet("open_reader", path)
        return WatchedReader(self.inner.open_reader(path), lambda: self._meet("read_page", path))


def _write_error(error: OSError, path: Path, written: int) -> WriteError:
    number = error.errno if error.errno is not None else errno.EIO
    return WriteError(number, os.strerror(number), str(path), written)
