"""The end of everything that bears a lane's name, and the proof that it ended.

Owns: finding and ending leftovers. Must not know: how any of it came to be.

Rules:
    1. It trusts no bookkeeping: it looks for the name among processes, mounts, cgroups and files. So it also
       ends what a failed test left, and what an earlier run left that was killed.
    2. Only what bears the name is ended. The machine's own containerd, if there is one, never notices.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tests.e2e import observer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["PREFIX", "directory_of", "leftovers", "sweep", "sweep_abandoned"]

PREFIX = "nri_e2e_"
"""What every lane's name begins with. No dash in it: systemd's slices read dashes as levels."""

SHIM_SOCKETS = Path("/run/containerd/s")
"""Where every shim of the machine listens; containerd has no setting for it."""

SECONDS = 15.0
"""How long one kind of thing may take to end."""

Thing = TypeVar("Thing")


def directory_of(name: str) -> Path:
    """Return the directory of a lane."""
    assert name.startswith(PREFIX), name  # what follows deletes
    return Path(tempfile.gettempdir()) / name


def leftovers(name: str) -> list[str]:
    """List all that still bears a lane's name; each item in words."""
    directory = directory_of(name)
    found = [f"process {pid} ({observer.comm(pid)})" for pid in sorted(_processes(name))]
    found += [f"mount {it}" for it in observer.mounts_below(directory)]
    found += [f"cgroup {it}" for it in _cgroups(name)]
    found += [f"directory {directory}"] if directory.exists() else []
    return found


def sweep(name: str) -> list[str]:
    """End all that bears a lane's name, and return what could not be ended."""
    directory = directory_of(name)
    sockets = _shim_sockets(directory)
    _end_all(lambda: _processes(name), _kill)
    _end_all(lambda: observer.mounts_below(directory), _unmount)
    _end_all(lambda: _cgroups(name), _remove_cgroup)
    if not observer.mounts_below(directory):  # a file below a mount is not ours to delete
        shutil.rmtree(directory, ignore_errors=True)
    for socket in sockets:
        socket.unlink(missing_ok=True)
    for shared in (SHIM_SOCKETS, SHIM_SOCKETS.parent):
        with contextlib.suppress(OSError):
            shared.rmdir()  # only where nobody else has anything in it
    return leftovers(name)


def sweep_abandoned() -> None:
    """End what earlier runs left that were killed before they could sweep; their owner is dead.

    Anybody may make a directory of that name where temporary files are: another user's is not believed.
    """
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, ValueError):
            if directory.lstat().st_uid == os.geteuid() and not observer.exists(
                int((directory / "owner").read_text())
            ):
                sweep(directory.name)


def _processes(name: str) -> set[int]:
    return (observer.processes_naming(str(directory_of(name))) | observer.processes_in(f"/{name}")) - {
        os.getpid()
    }


def _cgroups(name: str) -> list[Path]:
    """Return the lane's top directories in every hierarchy: `name`, `name.slice`, `name-...:prefix:id`.

    runc takes a path that does not begin with `/` as relative to its own cgroup, which is this process's too.
    """
    bases = {Path("/"), *(Path(it) for it in observer.cgroups_of(os.getpid()))}
    tops = {mount / base.relative_to("/") for mount in observer.cgroup_mounts() for base in bases}
    return sorted({it for top in tops for it in top.glob(f"{name}*") if it.is_dir()})


def _shim_sockets(directory: Path) -> list[Path]:
    """Return the sockets of shims that still have a bundle; a shim that ends by itself unlinks its own."""
    texts = [it.read_text() for it in directory.glob("state/io.containerd.runtime.v2.task/*/*/address")]
    return [Path(it.removeprefix("unix://")) for it in texts if it.startswith(f"unix://{SHIM_SOCKETS}/")]


def _remove_cgroup(top: Path) -> None:
    for directory, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            Path(directory).rmdir()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _unmount(point: Path) -> None:
    subprocess.run(["umount", "-l", point], capture_output=True, check=False, timeout=10)


def _end_all(find: Callable[[], Collection[Thing]], end: Callable[[Thing], None]) -> None:
    """End what is found, until nothing is or the time is up."""
    deadline = time.monotonic() + SECONDS
    while (found := find()) and time.monotonic() < deadline:
        for it in found:
            end(it)
        time.sleep(0.02)  # the kernel ends things in its own time
