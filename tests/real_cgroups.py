"""Cgroups of the machine that the tests run on, and the kernel's own account of system calls.

Owns: making and removing a cgroup, tracing. Must not know: what is claimed. Where the machine does not allow
it, the test is skipped with the reason.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nri_resctrl_plugin.cgroups import CgroupPidSource
from nri_resctrl_plugin.errors import CgroupError

__all__ = ["index_of", "open_descriptors", "own_cgroup", "remove_cgroup", "traced"]


def own_cgroup(request: pytest.FixtureRequest, name: str = "ab" * 32) -> Path:
    """Make a cgroup named like a container's, in whichever hierarchy allows it; it is removed at the end."""
    try:
        hierarchies = CgroupPidSource()._mounted()
    except CgroupError as error:
        pytest.skip(f"no cgroups here: {error}")
    for hierarchy in hierarchies:
        directory = Path(hierarchy.mount_point) / f"resctrl-test-{os.getpid()}" / name
        try:
            directory.mkdir(parents=True)
        except OSError:
            continue
        request.addfinalizer(lambda: remove_cgroup(directory))  # noqa: B023 - the loop ends here
        return directory
    pytest.skip("may not make a cgroup here")


def traced(code: str) -> list[str]:
    """Run Python under strace and return its system calls, one a line."""
    if (strace := shutil.which("strace")) is None:
        pytest.skip("no strace here")
    command = [strace, "-e", "signal=none", sys.executable, "-X", "utf8", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    if "PTRACE" in done.stderr:
        pytest.skip("may not trace here")
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr.splitlines()


def open_descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def index_of(lines: list[str], marker: str) -> int:
    """Return where a path occurs first in an account."""
    return next(index for index, line in enumerate(lines) if f'"{marker}"' in line)


def remove_cgroup(directory: Path) -> None:
    """Remove a cgroup as soon as the kernel has let go of its last process, and its parent."""
    gone = threading.Event()
    for _ in range(200):
        try:
            directory.rmdir()
        except FileNotFoundError:
            break
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            gone.wait(0.01)
        else:
            break
    with contextlib.suppress(OSError):  # another cgroup of the same test stands beside it
        directory.parent.rmdir()
