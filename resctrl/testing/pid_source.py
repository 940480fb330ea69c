"""`FakePidSource`: lists the threads of containers, and says which cgroups are gone, as a test scripts it.

Owns: the script. Must not know: cgroups, resctrl.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from resctrl.model import Tid

__all__ = ["FakePidSource", "HasCgroupsPath"]


class HasCgroupsPath(Protocol):
    """Whatever tells which container is meant, such as the plugin's `ContainerCgroup`."""

    @property
    def cgroups_path(self) -> str:
        """The cgroup path as the runtime names it."""
        ...


class FakePidSource:
    """A source of thread ids per container, keyed by its cgroup path; a path that was never set lists none.

    It also witnesses which cgroups are gone: every path is there until `remove`. Any number of threads may
    call it.

    Attributes:
        calls: How often each path was asked for its threads.
        looks: How often each path was asked for being gone.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.looks: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._scripts: dict[str, Iterator[Iterable[Tid] | Exception]] = {}
        self._seen: set[str] = set()
        self._removed: set[str] = set()

    def thread_ids(self, container: HasCgroupsPath) -> list[Tid]:
        """Return what is next in the container's script; an exception in the script is raised."""
        path = container.cgroups_path
        with self._lock:
            self.calls[path] += 1
            self._see(path)
            script = self._scripts.get(path)
            listing = next(script) if script is not None else ()
        if isinstance(listing, Exception):
            raise listing
        return list(listing)

    def is_gone(self, cgroup: HasCgroupsPath) -> bool:
        """Tell whether a cgroup was asked for before it was removed, and was not set since."""
        path = cgroup.cgroups_path
        with self._lock:
            self.looks[path] += 1
            self._see(path)
            return path in self._removed and path in self._seen

    def follow(self, cgroups_path: str, listings: Callable[[], Iterable[Tid]]) -> None:
        """Ask a function at each call, for instance for the threads that live in a fake's container."""

        def script() -> Iterator[Iterable[Tid] | Exception]:
            while True:
                yield listings()

        self._set(cgroups_path, script())

    def set(self, cgroups_path: str, tids: Iterable[Tid]) -> None:
        """List the same threads at each call: they were there before."""
        self.sequence(cgroups_path, tids)

    def sequence(self, cgroups_path: str, *listings: Iterable[Tid] | Exception) -> None:
        """List one after the other, then the last one for ever: threads that change, and come to rest.

        Raises:
            ValueError: There is no listing.
        """
        if not listings:
            raise ValueError("a sequence needs a listing")
        fixed = [listing if isinstance(listing, Exception) else tuple(listing) for listing in listings]

        def script() -> Iterator[Iterable[Tid] | Exception]:
            yield from fixed
            while True:
                yield fixed[-1]

        self._set(cgroups_path, script())

    def converge(self, cgroups_path: str, tids: Iterable[Tid]) -> None:
        """List one thread, then one more at each call until all are there: the container is starting up."""
        fixed = tuple(tids)
        self.sequence(cgroups_path, *(fixed[: count + 1] for count in range(len(fixed))))

    def vanish(self, cgroups_path: str, tids: Iterable[Tid]) -> None:
        """List the threads, then one fewer at each call until none is left: the container is ending."""
        fixed = tuple(tids)
        self.sequence(cgroups_path, *(fixed[count:] for count in range(len(fixed) + 1)))

    def never_converge(self, cgroups_path: str, fresh: Callable[[], Tid]) -> None:
        """List another thread at each call, for ever: the container forks faster than anybody can look."""
        self.follow(cgroups_path, lambda: (fresh(),))

    def forget(self, cgroups_path: str) -> None:
        """Let the container have no threads."""
        with self._lock:
            self._scripts.pop(cgroups_path, None)

    def remove(self, cgroups_path: str) -> None:
        """Let the cgroup itself be gone, with whatever threads it had."""
        with self._lock:
            self._scripts.pop(cgroups_path, None)
            self._removed.add(cgroups_path)

    def _see(self, path: str) -> None:
        if path not in self._removed:
            self._seen.add(path)

    def _set(self, cgroups_path: str, script: Iterator[Iterable[Tid] | Exception]) -> None:
        with self._lock:
            self._scripts[cgroups_path] = script
            self._removed.discard(cgroups_path)
