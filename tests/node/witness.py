"""The witness: what /proc and the resctrl tree say, without a line of the code under test.

Owns: reading groups and their tasks, and each thread's own word about its group. Must not know: the plugin,
NRI, CRI.

Rules:
    1. A thread is found by a walk over /proc and asked for its cgroup and its group; the plugin goes the
       other way, from the cgroup to the threads. The groups' `tasks` files are read besides: both must agree.
    2. What forks without pause is judged with its cgroup frozen: a walk over /proc takes tens of milliseconds
       and misses what lives for less.
    3. A zombie is no thread any more: it is in /proc and in `tasks` until it is reaped, but runs nowhere.
"""

from __future__ import annotations

import contextlib
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import frozen

from tests.e2e import observer
from tests.e2e.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["CGROUPS", "Thread", "Witness", "frozen_cgroup", "monitoring_group"]

CGROUPS: Final = Path("/sys/fs/cgroup")
_NOT_GROUPS: Final = frozenset({"info", "mon_data", "mon_groups"})


@frozen
class Thread:
    """A live thread.

    Attributes:
        tid: Its id.
        cgroup: Its cgroup's path.
        group: The monitoring group that it is in, "" for the default one.
    """

    tid: int
    cgroup: str
    group: str


class Witness:
    """Looks at one machine.

    Args:
        root: Where resctrl is mounted.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def mon_groups(self) -> Path:
        """Where the default control group's monitoring groups stand."""
        return self.root / "mon_groups"

    def groups(self, directory: Path | None = None) -> set[str]:
        """Return the names of the groups in a directory, in `mon_groups` where none is given."""
        with contextlib.suppress(FileNotFoundError):
            return {it.name for it in (directory or self.mon_groups).iterdir() if it.is_dir()} - _NOT_GROUPS
        return set()

    def tasks(self, group: Path) -> set[int]:
        """Return the live threads that a group's own file lists."""
        tids = {int(it) for it in (group / "tasks").read_text().split()}
        return {tid for tid in tids if not _ended(tid)}

    def threads(self, name: str) -> list[Thread]:
        """Return the live threads with a cgroup whose path contains a name, by a walk over /proc."""
        found = []
        for tid in observer.threads_in(name):  # leaves zombies out
            with contextlib.suppress(OSError):
                word = Path(f"/proc/{tid}/cpu_resctrl_groups").read_text()
                found.append(Thread(tid, next(iter(observer.cgroups_of(tid)), ""), monitoring_group(word)))
        return found


def monitoring_group(text: str) -> str:
    """Return the monitoring group that a text of /proc/PID/cpu_resctrl_groups names, "" for the default one.

    Raises:
        ValueError: It is no such text, or resctrl is not mounted.
    """
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    if not lines.get("res") or "mon" not in lines:
        raise ValueError(f"names no group: {text!r}")
    return lines["mon"]


@asynccontextmanager
async def frozen_cgroup(path: str) -> AsyncIterator[None]:
    """Let nothing run in a cgroup, or below it, while the context lasts.

    Args:
        path: The cgroup's path, without the mount's prefix.
    """
    directory = CGROUPS / path.lstrip("/")
    freeze, events = directory / "cgroup.freeze", directory / "cgroup.events"
    freeze.write_text("1")
    try:
        await until(f"{path} is frozen", lambda: "frozen 1" in events.read_text(), 30.0)
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            freeze.write_text("0")


def _ended(tid: int) -> bool:
    """Tell whether a thread is a zombie, or gone."""
    try:
        return Path(f"/proc/{tid}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except OSError:
        return True
