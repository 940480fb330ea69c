"""The machine as the doctor sees it: its files, its processes, a socket, a program's word.

Owns: every access of the doctor to the machine. Must not know: what anything means.

Rules:
    1. What is looked at stands below `root`, so that a test can build a machine of files.
    2. What cannot be read is None: the rungs say what they do not know.
    3. Nothing is changed. One connection is made to the NRI socket, and closed at once.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
import stat
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from resctrl import FsProvider, Resctrl

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Host", "Process", "call", "connect"]

_PATIENCE: Final = 15.0
"""Seconds for a program to tell its version: some are large, and some disks slow."""
_CONNECT_PATIENCE: Final = 3.0


def connect(path: Path) -> None:
    """Connect to a unix socket, and close the connection.

    Raises:
        OSError: Nobody takes it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_PATIENCE)
        probe.connect(os.fspath(path))


def call(program: Path) -> str:
    """Return what a program says when it is asked for its version.

    Raises:
        OSError: It cannot be started.
        subprocess.SubprocessError: It does not end, or not well.
    """
    done = subprocess.run(  # noqa: S603 - `Process.trusted` judged it
        [os.fspath(program), "--version"],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_PATIENCE,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
    )
    return done.stdout.decode(errors="replace")


@frozen
class Process:
    """A process of the machine.

    Attributes:
        pid: Its id.
        name: Its command's name, at most 15 characters (kernel: TASK_COMM_LEN).
        directory: Where /proc tells of it.
        trusted: It is root's and in the mount namespace of this process or of process 1. Any program can give
            itself any name, so another one's executable is never run.
    """

    pid: int
    name: str
    directory: Path
    trusted: bool


@frozen(kw_only=True)
class Host:
    """A machine.

    Attributes:
        resctrl: Its resctrl; all that concerns groups goes through it.
        root: Where its file system begins.
        system: Name of the operating system, as uname(2) tells it.
        release: Its version.
        machine: The architecture.
        nri_socket: Where the runtime listens for plugins.
        cgroup_root: Where cgroups are mounted.
        connect: Connects to a socket; OSError if nobody takes it.
        call: Returns what an executable says to `--version`.
    """

    resctrl: Resctrl[FsProvider]
    root: Path = Path("/")
    system: str = field(factory=lambda: os.uname().sysname)
    release: str = field(factory=lambda: os.uname().release)
    machine: str = field(factory=lambda: os.uname().machine)
    nri_socket: Path = Path("/var/run/nri/nri.sock")
    cgroup_root: Path = Path("/sys/fs/cgroup")
    connect: Callable[[Path], None] = connect
    call: Callable[[Path], str] = call

    def at(self, path: str | Path) -> Path:
        """Return where a path of the machine is found."""
        return self.root / str(path).lstrip("/")

    def text(self, path: str | Path) -> str | None:
        """Return the text of a file; None if it cannot be read."""
        try:
            return self.at(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

    def unzipped(self, path: str | Path) -> str | None:
        """Return the text of a file that is compressed; None if it cannot be read."""
        try:
            return gzip.decompress(self.at(path).read_bytes()).decode(errors="replace") or None
        except (OSError, EOFError, zlib.error):
            return None

    def there(self, path: str | Path) -> bool:
        """Tell whether something is there, as far as can be seen."""
        with contextlib.suppress(OSError):
            return self.at(path).exists()
        return False

    def is_socket(self, path: str | Path) -> bool:
        """Tell whether a socket is there."""
        with contextlib.suppress(OSError):
            return stat.S_ISSOCK(self.at(path).stat().st_mode)
        return False

    def namespace(self, kind: str, process: str = "self") -> str | None:
        """Return which namespace of a kind a process is in, such as `pid:[4026531836]`; None if unknown."""
        return _link(self.at(f"/proc/{process}/ns/{kind}"))

    def status(self, key: str, process: str = "self") -> str | None:
        """Return what /proc/<pid>/status says under a key."""
        for line in (self.text(f"/proc/{process}/status") or "").splitlines():
            name, _, value = line.partition(":")
            if name == key:
                return value.strip()
        return None

    @property
    def cpu(self) -> dict[str, str]:
        """What /proc/cpuinfo says of the first processor."""
        first, _, _ = (self.text("/proc/cpuinfo") or "").partition("\n\n")
        pairs = (line.partition(":") for line in first.splitlines())
        return {name.strip(): value.strip() for name, _, value in pairs}

    @property
    def cpu_flags(self) -> frozenset[str]:
        """What the first processor can do, in the kernel's words (x86)."""
        return frozenset(self.cpu.get("flags", "").split())

    @property
    def is_x86(self) -> bool:
        """Whether it is an x86 machine."""
        return self.machine == "x86_64" or (self.machine[:1] == "i" and self.machine[2:] == "86")

    @property
    def is_arm(self) -> bool:
        """Whether it is a 64-bit Arm machine."""
        return self.machine in {"aarch64", "arm64"}

    def processes(self, *names: str) -> Iterator[Process]:
        """Yield the processes whose command has one of these names, this one left out."""
        namespaces = {self.namespace("mnt"), self.namespace("mnt", "1")} - {None}
        try:
            pids = sorted(int(each.name) for each in self.at("/proc").iterdir() if each.name.isdecimal())
        except OSError:
            return
        for pid in pids:
            name = (self.text(f"/proc/{pid}/comm") or "").removesuffix("\n")
            if name not in names or pid == os.getpid():
                continue
            users = (self.status("Uid", str(pid)) or "").split()
            trusted = users[:2] == ["0", "0"] and self.namespace("mnt", str(pid)) in namespaces
            yield Process(pid, name, self.at(f"/proc/{pid}"), trusted)


def _link(path: Path) -> str | None:
    try:
        return str(path.readlink())
    except OSError:
        return None
