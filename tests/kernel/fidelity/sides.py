"""The two that are compared: the kernel, and the fake.

Owns: how each is reset, mounted, and asked where a task is. Must not know: which operations come.
"""

from __future__ import annotations

import errno
import math
import os
import threading
import time
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from attrs import asdict, frozen

from resctrl import FsProvider, RealFs, Tid
from resctrl.testing import FakeFs
from tests.kernel.fidelity.operations import ELSEWHERE, ROOT
from tests.kernel.guest import MODEL_PARAMETERS
from tests.worlds import mounts
from tests.worlds.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FakeLeader", "FakeSide", "KernelSide", "Leader", "Limbo", "Side", "Sizes"]

_SWEEP: Final = 1.15
"""Seconds in which the kernel surely looks at its resting RMIDs once (CQM_LIMBOCHECK_INTERVAL is 1 s)."""
_TAKEN: Final = FakeFs().self_tid
"""An id that no real task may have, since the fake gives it to the writer."""
_THRESHOLD: Final = ROOT / "info/L3_MON/max_threshold_occupancy"


class Limbo(Enum):
    """What comes of a freed RMID."""

    NONE = "none"
    """It is free at once: the guest has no llc_occupancy."""
    ENDLESS = "endless"
    """It never comes back."""
    REAL = "real"
    """It rests as long as the kernel thinks."""


@frozen(kw_only=True)
class Sizes:
    """What a machine is, in the words of `FakeFs`."""

    num_rmids: int = 8
    num_closids: int = 4
    monitoring: bool = True
    allocation: bool = True
    domains: tuple[int, ...] = (0,)


class Side(Protocol):
    """One of the two."""

    fs: FsProvider
    self_tid: int
    """The thread that a write of 0 moves."""

    def reset(self) -> None:
        """Begin anew: freshly mounted, all RMIDs free, all tasks in the default group."""
        ...

    def unmount(self) -> None:
        """Unmount, wherever it is mounted."""
        ...

    def remount(self, *, read_only: bool) -> None:
        """Change whether it may be written to."""
        ...

    def place_of(self, tid: int) -> str:
        """Return the groups of a task, as /proc/<tid>/cpu_resctrl_groups tells them."""
        ...


class Leader(Side, Protocol):
    """The side that starts tasks; the other one takes them over with their ids."""

    def start(self, parent: Tid | None, *, fork: bool) -> Tid:
        """Start a thread or a process; a process in the default group without a parent."""
        ...

    def end(self, tid: Tid) -> None:
        """End a task."""
        ...


class KernelSide:
    """The kernel of the guest; nobody else may use its resctrl meanwhile."""

    def __init__(self, limbo: Limbo) -> None:
        self.fs: FsProvider = RealFs()
        self.self_tid = threading.get_native_id()
        self._limbo = limbo
        self._tasks = Tasks()
        self._parameters = Path(MODEL_PARAMETERS)
        ELSEWHERE.mkdir(exist_ok=True)
        if mounts.mount_points():
            self.unmount()
        mounts.mount_resctrl(ROOT)
        self._threshold = _THRESHOLD.read_text(encoding="ascii") if _THRESHOLD.exists() else None

    @property
    def sizes(self) -> Sizes:
        """What this machine is."""
        rmids, closids = ROOT / "info/L3_MON/num_rmids", ROOT / "info/L3/num_closids"
        domains = (ROOT / "mon_data").glob("mon_L3_*")
        return Sizes(
            num_rmids=int(rmids.read_text(encoding="ascii")) if rmids.exists() else 1,
            num_closids=int(closids.read_text(encoding="ascii")) if closids.exists() else 1,
            monitoring=rmids.exists(),
            allocation=closids.exists(),
            domains=tuple(sorted(int(path.name.removeprefix("mon_L3_")) for path in domains)) or (0,),
        )

    def close(self) -> None:
        """End the tasks."""
        self._tasks.close()

    def reset(self) -> None:
        """Mount anew and wait until every RMID is free."""
        if mounts.mount_points():
            self.remount(read_only=False)
            self.unmount()
        mounts.mount_resctrl(ROOT)
        if self._threshold is not None:
            _THRESHOLD.write_text(self._threshold, encoding="ascii")
        if self._limbo is Limbo.NONE:
            return
        self._set("stuck", 0)
        time.sleep(_SWEEP + int((self._parameters / "decay_ms").read_text(encoding="ascii")) / 1000)
        self._set("stuck", int(self._limbo is Limbo.ENDLESS))

    def unmount(self) -> None:
        """Unmount."""
        points = mounts.mount_points()
        if not points:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        mounts.unmount(points[-1])

    def remount(self, *, read_only: bool) -> None:
        """Remount."""
        for point in mounts.mount_points():
            mounts.remount(point, read_only=read_only)

    def place_of(self, tid: int) -> str:
        """Read it."""
        return Path(f"/proc/{tid}/cpu_resctrl_groups").read_text(encoding="utf-8", errors="surrogateescape")

    def start(self, parent: Tid | None, *, fork: bool) -> Tid:
        """Start a real task."""
        while True:
            if parent is None:
                tid = self._tasks.process()
            else:
                tid = self._tasks.fork(parent) if fork else self._tasks.threads(parent, 1)[0]
            if tid != _TAKEN:
                return tid
            self._tasks.end(tid)

    def end(self, tid: Tid) -> None:
        """End it."""
        self._tasks.end(tid)

    def _set(self, parameter: str, value: int) -> None:
        (self._parameters / parameter).write_text(str(value), encoding="ascii")


class FakeSide:
    """The fake.

    Args:
        machine: What it is to be.
        limbo: What comes of a freed RMID.
        make: Makes a fake; for tests of the machine itself.
    """

    def __init__(self, machine: Sizes, limbo: Limbo, make: Callable[..., FakeFs] = FakeFs) -> None:
        seconds = {Limbo.NONE: 0.0, Limbo.ENDLESS: math.inf, Limbo.REAL: 2.0}[limbo]
        self._make = partial(make, **asdict(machine), limbo=seconds)
        self._fake = self._make()
        self.fs: FsProvider = self._fake
        self.self_tid = int(self._fake.self_tid)

    def reset(self) -> None:
        """Make a new one."""
        self._fake = self._make()
        self._fake.create_dir(ELSEWHERE)
        self.fs = self._fake

    def unmount(self) -> None:
        """Unmount."""
        self._fake.unmount()

    def remount(self, *, read_only: bool) -> None:
        """Remount, if it is mounted."""
        if self._fake.mount_point is not None:
            self._fake.remount(read_only=read_only)

    def place_of(self, tid: int) -> str:
        """Read it."""
        return self._fake.read_text(Path(f"/proc/{tid}/cpu_resctrl_groups"))

    def adopt(self, parent: Tid | None, tid: Tid) -> None:
        """Take over a task that the other side has started."""
        self._fake.spawn(parent, tid=tid)

    def end(self, tid: Tid) -> None:
        """End a task."""
        self._fake.end(tid)

    def end_limbo(self) -> None:
        """Let every resting RMID be free."""
        self._fake.end_limbo()


class FakeLeader(FakeSide):
    """A fake in the kernel's place; for tests of the machine itself."""

    def start(self, parent: Tid | None, *, fork: bool) -> Tid:
        """Start a task."""
        return self._fake.spawn(parent)
