"""Machines of files, for the doctor: /proc and /sys below a directory, resctrl from the fake.

Owns: what a healthy node looks like, and how to change one thing of it. Must not know: what the doctor says.
"""

from __future__ import annotations

import gzip
import os
import shutil
from typing import TYPE_CHECKING, Any

from attrs import evolve

from nri_resctrl_plugin.doctor import Host, diagnose
from nri_resctrl_plugin.doctor.access import INITIAL_PID, INITIAL_USER
from resctrl import FsProvider, Resctrl, ResctrlConfig
from resctrl.testing import FakeFs

if TYPE_CHECKING:
    from pathlib import Path

    from nri_resctrl_plugin.doctor import Diagnosis, Finding, Level

MONITORING_FLAGS = "cqm cqm_llc cqm_occup_llc cqm_mbm_total cqm_mbm_local"
ALLOCATION_FLAGS = "rdt_a cat_l3 mba"
ALL_CAPABILITIES = "000001ffffffffff"
HOST_MNT = "mnt:[4026531841]"
CGROUP2 = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
CGROUP1 = (
    "31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)
HYBRID = CGROUP1 + "33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"

INTEL = {
    "vendor_id": "GenuineIntel", "cpu family": "6", "model": "143", "stepping": "8",
    "model name": "Intel(R) Xeon(R) Platinum 8488C",
}  # fmt: skip
SKYLAKE = {**INTEL, "model": "85", "stepping": "4", "model name": "Intel(R) Xeon(R) Platinum 8175M"}
AMD = {
    "vendor_id": "AuthenticAMD", "cpu family": "25", "model": "17", "stepping": "1",
    "model name": "AMD EPYC 9R14 96-Core Processor",
}  # fmt: skip


class Machine:
    """A bare-metal Intel node with everything in place, until something is changed.

    Args:
        root: An empty directory, where its file system begins.
        fs: Its resctrl; a fake one with all features if None.
    """

    def __init__(self, root: Path, fs: FsProvider | None = None) -> None:
        self.root = root
        self.answers: dict[str, str | Exception] = {}
        resctrl: Resctrl[FsProvider] = Resctrl.with_provider(
            fs if fs is not None else FakeFs(num_rmids=64, limbo=1.0)
        )
        self.host = Host(
            resctrl=resctrl, root=root, system="Linux", release="6.12.9", machine="x86_64",
            connect=lambda _: None, call=self._told,
        )  # fmt: skip
        self.cpu(INTEL, f"fpu vme {MONITORING_FLAGS} {ALLOCATION_FLAGS}")
        self.config("CONFIG_X86_CPU_RESCTRL=y")
        self.write("proc/cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro quiet\n")
        self.write("proc/self/uid_map", "         0          0 4294967295\n")
        self.status()
        self.namespaces(user=INITIAL_USER, pid=INITIAL_PID, mnt=HOST_MNT)
        self.write("proc/self/mountinfo", CGROUP2)
        self.process(812, "containerd", "containerd github.com/containerd/containerd/v2 v2.0.5 abc\n")

    def write(self, path: str, text: str) -> None:
        """Write a file."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def remove(self, path: str) -> None:
        """Remove a file or a directory."""
        target = self.root / path
        shutil.rmtree(target) if target.is_dir() and not target.is_symlink() else target.unlink()

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link, as those below /proc/<pid>/ns."""
        link = self.root / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)

    def cpu(self, identity: dict[str, str], flags: str) -> None:
        """Give it processors."""
        lines = [
            f"{name}\t: {value}\n" for name, value in {"processor": "0", **identity, "flags": flags}.items()
        ]
        self.write("proc/cpuinfo", "".join(lines) + "\n" + "processor\t: 1\nflags\t: none\n")

    def config(self, text: str | None) -> None:
        """Give it a kernel's configuration, or none that can be read."""
        file = self.root / "proc/config.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress(text.encode())) if text is not None else file.unlink(missing_ok=True)

    def status(self, *, uid: int = 0, capabilities: str = ALL_CAPABILITIES) -> None:
        """Say who asks."""
        self.write(
            "proc/self/status", f"Name:\tpython3\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nCapEff:\t{capabilities}\n"
        )

    def namespaces(self, process: str = "self", **kinds: str) -> None:
        """Say in which namespaces a process is."""
        for kind, name in kinds.items():
            self.link(f"proc/{process}/ns/{kind}", name)

    def process(
        self, pid: int, name: str, answer: str | Exception = "", *, uid: int = 0, mnt: str = HOST_MNT
    ) -> None:
        """Start a process that answers to `--version`."""
        self.write(f"proc/{pid}/comm", f"{name}\n")
        self.write(f"proc/{pid}/status", f"Name:\t{name}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
        self.namespaces(str(pid), mnt=mnt)
        self.answers[str(self.root / f"proc/{pid}/exe")] = answer

    def without_runtime(self) -> None:
        """End the runtime."""
        self.remove("proc/812")
        self.refuse(FileNotFoundError(2, os.strerror(2)))

    def refuse(self, error: OSError) -> None:
        """Let connections to the NRI socket fail."""

        def connect(_: Path) -> None:
            raise error

        self.set(connect=connect)

    def set(self, **changes: Any) -> None:
        """Change a property of the host."""
        self.host = evolve(self.host, **changes)

    def resctrl(self, fs: FsProvider, **config: Any) -> None:
        """Give it another resctrl."""
        resctrl: Resctrl[FsProvider] = Resctrl.with_provider(fs, ResctrlConfig(**config))
        self.set(resctrl=resctrl)

    def diagnosis(self, **how: bool) -> Diagnosis:
        """Return what the doctor says."""
        return diagnose(self.host, **how)

    def finding(self, rung: str, **how: bool) -> Finding:
        """Return what the doctor says of a rung."""
        (found,) = [each for each in self.diagnosis(**how).findings if each.rung == rung]
        return found

    def levels(self, **how: bool) -> dict[str, Level]:
        """Return the level of each rung."""
        return {each.rung: each.level for each in self.diagnosis(**how).findings}

    def _told(self, program: Path) -> str:
        answer = self.answers[str(program)]
        if isinstance(answer, Exception):
            raise answer
        return answer
