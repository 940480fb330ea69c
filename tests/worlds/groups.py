"""What every world does with resctrl groups in the same way, past the code under test.

Owns: groups of others: making them, filling the machine with them, taking everything away again. Must not
know: how a file is reached (`RawFiles`).
"""

from __future__ import annotations

import errno
import itertools
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from tests.worlds.protocol import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from resctrl import FsProvider, Tid

__all__ = ["OsFiles", "ProviderFiles", "RawFiles", "RawGroups"]


class RawFiles(Protocol):
    """The few system calls that an observer needs."""

    def mkdir(self, path: Path) -> None:
        """Make a directory."""
        ...

    def rmdir(self, path: Path) -> None:
        """Remove a directory."""
        ...

    def child_dirs(self, path: Path) -> Iterable[str]:
        """Return the names of the directories in one."""
        ...

    def write(self, path: Path, data: bytes) -> None:
        """Write once to a file that exists."""
        ...


class OsFiles:
    """System calls without anything of ours between.

    Attributes:
        made: How many directories were made.
    """

    def __init__(self) -> None:
        self.made = 0

    def mkdir(self, path: Path) -> None:
        os.mkdir(path)  # noqa: PTH102 - the bare call
        self.made += 1

    def rmdir(self, path: Path) -> None:
        os.rmdir(path)  # noqa: PTH106 - the bare call

    def child_dirs(self, path: Path) -> Iterable[str]:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]

    def write(self, path: Path, data: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)


class ProviderFiles:
    """Another way to the same files where there is no system call: a provider that no scenario wraps."""

    def __init__(self, fs: FsProvider) -> None:
        self._fs = fs

    def mkdir(self, path: Path) -> None:
        self._fs.create_dir(path)

    def rmdir(self, path: Path) -> None:
        self._fs.remove_dir(path)

    def child_dirs(self, path: Path) -> Iterable[str]:
        return self._fs.read_child_dirs(path)

    def write(self, path: Path, data: bytes) -> None:
        self._fs.write_all(path, [data])


class RawGroups:
    """Groups of others, and of ours where they are left over.

    Args:
        raw: The way to the files.
        root: Where resctrl is mounted.
        prefix: Of our groups.
        others_prefix: Of theirs.
    """

    def __init__(self, raw: RawFiles, root: Path, prefix: str, others_prefix: str) -> None:
        self._raw = raw
        self.root = root
        self.prefix = prefix
        self.others_prefix = others_prefix
        self._made: list[Path] = []

    def add_group(self, path: Path) -> None:
        """Make a group; where RMIDs are in limbo, wait for one."""
        self._patiently(path)
        self._made.append(path)

    def remove_group(self, path: Path) -> None:
        """Remove a group."""
        self._raw.rmdir(path)

    def is_ours(self, group: Path) -> bool:
        """Tell whether a group is one of ours: nobody else's thread may be in it."""
        return group.name.startswith(self.prefix)

    def control_group(self, name: str) -> Path:
        """Make a control group."""
        path = self.root / f"{self.others_prefix}{name}"
        self.add_group(path)
        return path

    def put(self, group: Path, *tids: Tid) -> None:
        """Move threads."""
        for tid in tids:
            self._raw.write(group / "tasks", b"%d\n" % tid)

    def groups_in(self, directory: Path) -> set[str]:
        """Return the names of the groups in a directory."""
        try:
            return set(self._raw.child_dirs(directory)) - {"info", "mon_data", "mon_groups"}
        except FileNotFoundError:
            return set()

    @contextmanager
    def use_up_rmids(self) -> Iterator[None]:
        """Make groups until none fits; limbo is waited for, so that what is left is ENOSPC."""
        try:
            self._fill()
            yield
        finally:
            self._remove(self._mon_groups, self._filler)

    def free_one_rmid(self) -> None:
        """Remove one filler."""
        name = min(name for name in self.groups_in(self._mon_groups) if name.startswith(self._filler))
        self._raw.rmdir(self._mon_groups / name)

    def remove_groups(self) -> None:
        """Remove what has one of our prefixes, at both levels, and what `add_group` made."""
        for directory in (self._mon_groups, self.root):
            for prefix in (self.prefix, self.others_prefix):
                self._remove(directory, prefix)
        for path in reversed(self._made):
            with suppress(FileNotFoundError):  # a scenario, or its group's parent, took it along
                self._raw.rmdir(path)

    @property
    def _mon_groups(self) -> Path:
        return self.root / "mon_groups"

    @property
    def _filler(self) -> str:
        return f"{self.others_prefix}filler_"

    def _remove(self, directory: Path, prefix: str) -> None:
        for name in self.groups_in(directory):
            if name.startswith(prefix):
                self._raw.rmdir(directory / name)

    def _fill(self) -> None:
        for number in itertools.count():
            try:
                self._patiently(self._mon_groups / f"{self._filler}{number:04d}")
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                return

    def _patiently(self, path: Path) -> None:
        """Make a group; wait while RMIDs are in limbo."""
        end = time.monotonic() + DEADLINE
        while True:
            try:
                self._raw.mkdir(path)
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > end:
                    raise
                time.sleep(0.01)
            else:
                return
