"""What the code under test reaches a machine with, and what a scenario may do to the machine's counters.

Owns: counters that refuse, domains whose counts part, how many groups were made. Must not know: a scenario's
groups, or its claims.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, Self

from resctrl import RealFs
from tests.worlds.protocol import Capability, WorldMissing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from resctrl import Reader

__all__ = ["Counting", "GuestCounting", "HardwareCounting", "RefusingFs", "TallyFs"]

_MON_DATA: Final = Path("/sys/fs/resctrl/mon_data")
_FAULT: Final = Path("/sys/module/fakerdt/parameters/fail")
_FAULTS: Final = {"Unavailable": "1", "Error": "2"}
_CPUS: Final = Path("/sys/devices/system/cpu")


class Counting(Protocol):
    """The counters of a machine."""

    lacks: frozenset[Capability]
    fs: TallyFs
    """What the code under test reads them with."""

    def refused(self, word: str) -> AbstractContextManager[None]:
        """Let every counter say this word meanwhile."""
        ...

    def part_domains(self) -> frozenset[str]:
        """Let the counters of some domains begin anew; return the names of these domains."""
        ...


class GuestCounting:
    """The guest: its hardware can be made to refuse, and its processors be taken offline."""

    lacks: frozenset[Capability] = frozenset()

    def __init__(self) -> None:
        self.fs = TallyFs()

    @contextmanager
    def refused(self, word: str) -> Iterator[None]:
        """Turn the model's knob."""
        _FAULT.write_text(_FAULTS[word], encoding="ascii")
        try:
            yield
        finally:
            _FAULT.write_text("0", encoding="ascii")

    def part_domains(self) -> frozenset[str]:
        """Take all packages but the first one offline and back: with its last processor a cache goes."""
        before = _domains()
        others = [cpu for cpu in _CPUS.glob("cpu[1-9]*") if _package(cpu) != _package(_CPUS / "cpu0")]
        try:
            for cpu in others:
                (cpu / "online").write_text("0", encoding="ascii")
            gone = before - _domains()
            assert gone, "all processors of the guest are at one L3 cache: boot it with --sockets 2"
            return gone
        finally:
            for cpu in others:
                (cpu / "online").write_text("1", encoding="ascii")


class HardwareCounting:
    """A machine that others use too: nothing can be done to its counters.

    The words are put in at the provider, so that there the library is tried and the kernel is not.
    """

    lacks: frozenset[Capability] = frozenset({Capability.PARTING})

    def __init__(self) -> None:
        self._refusing = RefusingFs()
        self.fs: TallyFs = self._refusing

    @contextmanager
    def refused(self, word: str) -> Iterator[None]:
        """Put the word in."""
        self._refusing.word = word
        try:
            yield
        finally:
            self._refusing.word = None

    def part_domains(self) -> frozenset[str]:
        """Refuse: scenarios that want it are skipped, with this reason."""
        raise WorldMissing(Capability.PARTING.value)


class TallyFs(RealFs):
    """The file system of this machine; it counts the groups that it makes.

    Attributes:
        made: How many directories were made.
    """

    __slots__ = ("made",)

    def __init__(self) -> None:
        self.made = 0

    def create_dir(self, path: Path) -> None:
        super().create_dir(path)
        self.made += 1


class RefusingFs(TallyFs):
    """It too, but that its counters can be made to say a word.

    Attributes:
        word: What they say; None lets them count.
    """

    __slots__ = ("word",)

    def __init__(self) -> None:
        super().__init__()
        self.word: str | None = None

    def read_text(self, path: Path) -> str:
        return self.said(path) or super().read_text(path)

    def open_reader(self, path: Path) -> Reader:
        return _RefusingReader(super().open_reader(path), self, path)

    def said(self, path: Path) -> str | None:
        """Return what a file says instead of its text, or None."""
        return f"{self.word}\n" if self.word is not None and "mon_data" in path.parts else None


class _RefusingReader:
    def __init__(self, inner: Reader, fs: RefusingFs, path: Path) -> None:
        self._inner = inner
        self._fs = fs
        self._path = path

    def read(self) -> str:
        return self._fs.said(self._path) or self._inner.read()

    def read_page(self) -> str:
        return self._fs.said(self._path) or self._inner.read_page()

    def close(self) -> None:
        self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _domains() -> frozenset[str]:
    return frozenset(path.name for path in _MON_DATA.iterdir())


def _package(cpu: Path) -> str:
    return (cpu / "topology/physical_package_id").read_text(encoding="ascii")
