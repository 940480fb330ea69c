"""Tells whether this machine can run the hardware lane: `python3 -m tests.hardware.probe`.

Owns: the question, and one line for each answer. Must not know: what the lane does. Standard library only: it
runs before anything is installed.

Rules:
    1. It looks and changes nothing; in particular it mounts nothing.
    2. A capable machine gets no word and status 0. Any other gets one reason, in one line, and status 1.
    3. Only the machine is judged: a missing program that the lane can fetch is no reason.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CANNOT_MONITOR", "main", "obstacle", "resctrl_mount"]

OLDEST_PYTHON: Final = (3, 11)
MONITORING_FLAGS: Final = frozenset({"cqm_occup_llc", "cqm_mbm_total", "cqm_mbm_local"})
"""Each is one event that a processor counts per group; Linux, arch/x86/include/asm/cpufeatures.h."""
FEWEST_RMIDS: Final = 8
"""The lane wants some pods at a time, each with a group; one RMID is the default group's."""
CANNOT_MONITOR: Final = "the processor has resctrl but counts nothing per group: no monitoring, no RMIDs"


def resctrl_mount(root: Path = Path("/")) -> Path | None:
    """Return where resctrl is mounted, or None.

    Args:
        root: Where the file system begins; for tests.
    """
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[:1] == ["resctrl"]:
            return Path(before.split()[4].replace("\\040", " "))
    return None


def obstacle(root: Path = Path("/"), *, uid: int | None = None) -> str | None:
    """Return why the lane cannot run on this machine, in one sentence without a line break, or None.

    Args:
        root: Where the file system begins; for tests.
        uid: The user who asks; this process's effective one if None.
    """
    return next(_obstacles(root, os.geteuid() if uid is None else uid), None)


def _obstacles(root: Path, uid: int) -> Iterator[str]:
    if sys.platform != "linux":
        yield f"resctrl is a part of Linux; this is {sys.platform}"
    if sys.version_info < OLDEST_PYTHON:
        yield f"Python is {sys.version.split()[0]}, the project needs 3.11"
    if "\tresctrl\n" not in _text(root / "proc/filesystems"):
        yield (
            "no resctrl in /proc/filesystems: the processor has no RDT, QoS or MPAM, a hypervisor hides it, "
            "or the kernel was built without it"
        )
    if (monitoring := _monitoring_obstacle(root)) is not None:
        yield monitoring
    if uid != 0:
        yield "only root can make groups, and start a container runtime"
    if not (root / "sys/fs/cgroup/cgroup.controllers").is_file():
        yield "cgroup v2 is not mounted at /sys/fs/cgroup: containers are judged with their cgroup frozen"


def _monitoring_obstacle(root: Path) -> str | None:
    """Judge by the mounted tree where there is one, otherwise by what the processor says of itself."""
    mount = resctrl_mount(root)
    if mount is None:
        flags = {word for line in _text(root / "proc/cpuinfo").splitlines() for word in _flags(line)}
        return None if flags & MONITORING_FLAGS else CANNOT_MONITOR
    number = _text(root / mount.relative_to("/") / "info/L3_MON/num_rmids").strip()
    if not number.isdecimal():
        return CANNOT_MONITOR
    if int(number) < FEWEST_RMIDS:
        return f"{number} RMIDs are too few: the lane needs {FEWEST_RMIDS}"
    return None


def _flags(line: str) -> list[str]:
    name, _, words = line.partition(":")
    return words.split() if name.strip() == "flags" else []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def main() -> int:
    """Print the reason, if there is one. Return the exit status."""
    reason = obstacle()
    if reason is None:
        return 0
    sys.stdout.write(f"{reason}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
