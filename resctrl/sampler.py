"""`Sampler`: many groups, read again and again, with one system call for each value.

Owns: the files that stay open. Must not know: what readings mean, or when it is time for the next ones.

Rules:
    1. While nothing changes, a sample is one pread(2) for each value and nothing else.
    2. A group is never mixed with another that took its name: what is held open belongs to one generation.
    3. Trouble with a group is told of that group; the others are read.
    4. Where no more files can be held open, a group is read file by file, and the sample says so.
"""

from __future__ import annotations

import errno
import math
import resource
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, Self, TypeVar

from attrs import define, field, frozen

from resctrl.counters import GONE, domain_dirs, errno_name, group_number, never_the_same, read_group, survey
from resctrl.errors import Operation, ResctrlError
from resctrl.fs import FsProvider, Reader
from resctrl.monitoring import Domain, GroupReading, ReadError, Reading, parse_reading
from resctrl.names import require_group

if TYPE_CHECKING:
    from collections.abc import Callable

    from resctrl.groups import Resctrl

__all__ = ["Sample", "Sampler"]

P = TypeVar("P", bound=FsProvider)

_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})
_LEFT_TO_OTHERS: Final = 128
"""How many of the process's descriptors (RLIMIT_NOFILE) a sampler leaves alone, unless it is told else."""
_ROOM: Final = 8
"""How many it gives back when there are none left, so that a group can be read file by file."""
_TRIES: Final = 3
_NS: Final = 1_000_000_000


@frozen(eq=False)
class Sample(Mapping[Path, GroupReading]):
    """What one pass over the groups gave: the readings, by group, as a mapping.

    Attributes:
        readings: The same as a plain mapping.
        failed: Groups without a reading, each with the reason; `GroupNotFoundError` for one that is gone. It
            stays with the sampler, and is read again as soon as it is there.
        unheld: Groups that were read file by file, since no more files could be held open.
    """

    readings: Mapping[Path, GroupReading]
    failed: Mapping[Path, ResctrlError]
    unheld: frozenset[Path]

    def __getitem__(self, group: Path) -> GroupReading:
        return self.readings[group]

    def __iter__(self) -> Iterator[Path]:
        return iter(self.readings)

    def __len__(self) -> int:
        return len(self.readings)


@define
class _Held:
    """A group whose files are open.

    Attributes:
        generation: Which group it is.
        readers: Its counters.
        lost: What is to be told of the counters that could not be opened.
        stale: To be looked up anew before the next sample.
    """

    generation: int
    readers: list[tuple[tuple[Domain, str], Reader]] = field(factory=list)
    lost: dict[tuple[Domain, str], Reading] = field(factory=dict)
    stale: bool = False

    def close(self) -> None:
        """Close the files."""
        for _, reader in self.readers:
            reader.close()


class Sampler(Generic[P]):
    """Reads the counters of many groups again and again.

        with Sampler(resctrl) as sampler:
            sampler.add(group)
            for group, reading in sampler.sample().items(): ...

    Files are opened at the first sample after `add`, and stay open. What comes and goes is noticed:

    - A group that is gone, or made anew, at once. One that was renamed is read on under the name that it was
      added with: discard that and add the other.
    - A domain that goes: its counters are `ReadError("ENODEV")` in that sample. One that comes, for all
      groups alike: within `recheck_seconds`, at the cost of a few system calls each time.

    Open files keep resctrl from being unmounted (EBUSY). Not for two threads at once.

    Args:
        resctrl: The library, over any provider.
        max_open: How many files to hold open at most. None: the process's own limit (RLIMIT_NOFILE), less 128
            for the rest of the program.
        recheck_seconds: How often, at most, to look for new domains; `math.inf` for never.
        clock: Nanoseconds of the monotonic clock, for `taken_ns`.
    """

    def __init__(
        self,
        resctrl: Resctrl[P],
        *,
        max_open: int | None = None,
        recheck_seconds: float = 10.0,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._fs: P = resctrl.fs
        self._config = resctrl.config
        self._clock = clock
        self._max_open = max_open
        self._recheck_ns = recheck_seconds * _NS
        self._groups: dict[Path, _Held | None] = {}
        self._closed = False
        self._checked_ns: float = -math.inf
        self._domains: tuple[Domain, ...] = ()
        self._limit: float = 0
        self._full = False
        self._open_files = 0

    @property
    def groups(self) -> tuple[Path, ...]:
        """The groups that it reads, in the order in which they were added."""
        return tuple(self._groups)

    @property
    def open_files(self) -> int:
        """How many files it holds open."""
        return self._open_files

    def add(self, group: Path) -> None:
        """Read a group from the next sample on; nothing if it is read already. The group need not exist.

        Raises:
            InvalidGroupError: No group can have that path.
            ValueError: The sampler is closed.
        """
        self._require_open()
        require_group(self._config.root, Operation.READ_GROUP, group)
        self._groups.setdefault(group, None)

    def discard(self, group: Path) -> None:
        """Read a group no more, and close its files; nothing if it is not read."""
        if self._let_go(group):
            self._full = False
        self._groups.pop(group, None)

    def sample(self) -> Sample:
        """Read every group once.

        Raises:
            ValueError: The sampler is closed.
        """
        self._require_open()
        others = self._recheck()
        readings: dict[Path, GroupReading] = {}
        failed: dict[Path, ResctrlError] = {}
        unheld = set()
        for group in self._groups:
            try:
                readings[group] = self._read(group)
            except ResctrlError as error:
                failed[group] = error
            if group in readings and self._groups[group] is None:
                unheld.add(group)
        if others:  # only now: what is held open still had to show which domains went
            for held in self._groups.values():
                if held is not None:
                    held.stale = True
        return Sample(readings, failed, frozenset(unheld))

    def close(self) -> None:
        """Close all files, for good; the second time does nothing."""
        self._closed = True
        for group in list(self._groups):
            self.discard(group)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Within

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError("the sampler is closed")

    def _read(self, group: Path) -> GroupReading:
        """Read one group, from open files if there can be any."""
        for _ in range(_TRIES):
            held = self._hold(group)
            if held is None:
                return read_group(self._fs, self._config, group, self._clock)
            reading = self._read_held(group, held)
            if not held.stale or self._is_same(group, held):
                return reading
        raise never_the_same(group)

    def _read_held(self, group: Path, held: _Held) -> GroupReading:
        taken_ns = self._clock()
        values: dict[tuple[Domain, str], Reading] = {}
        for key, reader in held.readers:
            try:
                values[key] = parse_reading(reader.read_page())
            except OSError as error:
                values[key] = ReadError(errno_name(error.errno))
                held.stale |= error.errno in GONE
        return GroupReading(group, taken_ns, held.generation, {**values, **held.lost})

    def _is_same(self, group: Path, held: _Held) -> bool:
        """Tell whether the group is still the one that is held; let it go if not."""
        same = False
        try:
            same = group_number(self._fs, self._config, group) == held.generation
        finally:
            if not same:
                self._let_go(group)
        return same

    def _hold(self, group: Path) -> _Held | None:
        """Return the open files of a group, opened now if they are not; None where there is no room."""
        held = self._groups[group]
        if held is not None and not held.stale:
            return held
        self._let_go(group)
        for _ in range(_TRIES):
            held = self._open(group)
            if held is None:
                return None
            self._groups[group] = held
            self._open_files += len(held.readers)
            if self._is_same(group, held):
                return held
        raise never_the_same(group)

    def _open(self, group: Path) -> _Held | None:
        """Open the files of a group; None where there is no room."""
        if self._full:
            return None
        try:
            found = survey(self._fs, self._config, group)
        except ResctrlError as error:
            if error.errno not in _NO_DESCRIPTORS:
                raise
            self._make_room()
            return None
        if not _NO_DESCRIPTORS.isdisjoint(found.unlisted.values()):
            self._make_room()
            return None
        if self._open_files + len(found.counters) > self._limit:
            self._full = True
            return None
        held = _Held(found.generation, lost=found.lost(), stale=bool(found.unlisted))
        for counter in found.counters:
            try:
                held.readers.append((counter.key, self._fs.open_reader(counter.path)))
            except OSError as error:
                if error.errno in _NO_DESCRIPTORS:
                    held.close()
                    self._make_room()
                    return None
                held.lost[counter.key] = ReadError(errno_name(error.errno))
                held.stale = True
        return held

    def _let_go(self, group: Path) -> int:
        """Close the files of a group; return how many there were."""
        held = self._groups.get(group)
        if held is None:
            return 0
        held.close()
        self._groups[group] = None
        self._open_files -= len(held.readers)
        return len(held.readers)

    def _make_room(self) -> None:
        """Give descriptors back, those of the groups that came last first, and open no more for now."""
        self._full = True
        given_back = 0
        for group in reversed(self._groups):
            if given_back >= _ROOM:
                return
            given_back += self._let_go(group)

    def _recheck(self) -> bool:
        """Look for other domains and for room, if it is time to; tell whether there are other domains."""
        now = self._clock()
        if now - self._checked_ns < self._recheck_ns:
            return False
        self._checked_ns = now
        self._limit = _allowance() if self._max_open is None else self._max_open
        self._full = False
        try:
            found = tuple(domain for domain, _, _ in domain_dirs(self._fs, self._config.root))
        except OSError:  # whoever reads a group is told
            return False
        before, self._domains = self._domains, found
        return before != found and any(self._groups.values())  # what is not held is looked up anyway


def _allowance() -> float:
    """Return how many files may be held open in this process."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if limit == resource.RLIM_INFINITY else limit - _LEFT_TO_OTHERS
