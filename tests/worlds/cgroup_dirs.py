"""Cgroups of version 2 as a runtime makes, fills, freezes and removes them.

Owns: the directories and what is read from them. Must not know: who asked for a cgroup, or what lives in it.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from resctrl import Tid
from tests.worlds.protocol import WorldMissing
from tests.worlds.tasks import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["cgroup_mount", "enter", "frozen", "ids", "kill", "remove_tree", "threads_below"]


def cgroup_mount() -> Path:
    """Return where the hierarchy is mounted.

    Raises:
        WorldMissing: It is not mounted, or only a part of it.
    """
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] == "cgroup2" and before.split()[3] == "/":
            return Path(before.split()[4])
    raise WorldMissing("no cgroup v2 hierarchy is mounted whole")


def enter(cgroup: Path, process: Tid) -> None:
    """Move a process; its resctrl group stays what it was."""
    (cgroup / "cgroup.procs").write_text(f"{process}\n", encoding="ascii")


def ids(path: Path) -> set[Tid]:
    """Read a file of one id a line."""
    return {Tid(int(line)) for line in path.read_text(encoding="ascii").split()}


def threads_below(cgroup: Path) -> set[Tid]:
    """Return the threads in a cgroup and in those nested in it; none if it is gone."""
    return {tid for directory, _, _ in os.walk(cgroup) for tid in ids(Path(directory, "cgroup.threads"))}


@contextmanager
def frozen(cgroup: Path) -> Iterator[None]:
    """Let nothing in a cgroup run meanwhile: nobody forks, nobody ends."""
    freeze, events = cgroup / "cgroup.freeze", cgroup / "cgroup.events"
    freeze.write_text("1", encoding="ascii")
    try:
        wait_until(lambda: "frozen 1" in events.read_text(encoding="ascii"), f"{cgroup} to freeze")
        yield
    finally:
        freeze.write_text("0", encoding="ascii")


def kill(cgroup: Path) -> None:
    """Kill every process in a cgroup and below, again and again until none is left."""
    events = cgroup / "cgroup.events"

    def is_empty() -> bool:
        with suppress(FileNotFoundError):  # before Linux 5.14: the first process takes them along in the end
            (cgroup / "cgroup.kill").write_text("1", encoding="ascii")
        return "populated 0" in events.read_text(encoding="ascii")

    wait_until(is_empty, f"the processes in {cgroup}")


def remove_tree(cgroup: Path) -> None:
    """Remove a cgroup and those below it; the kernel may need a moment after the last process."""
    for directory, _, _ in os.walk(cgroup, topdown=False):
        wait_until(partial(_is_removed, Path(directory)), f"the removal of {directory}")


def _is_removed(cgroup: Path) -> bool:
    try:
        cgroup.rmdir()
    except OSError:
        return False
    return True
