"""The installed program in a fresh process, on a node of plain files.

Owns: its start and end, and what can be learned of it from outside. Must not know: what is measured.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from benchmarks.report import require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.node import Listener, Machine, Size

__all__ = ["PATIENCE", "Program"]

PATIENCE: Final = 120.0
"""Seconds after which something that was waited for will not come any more."""


class Program:
    """The program.

    Args:
        listener: Where its runtime listens.
        machine: Its cgroups and its resctrl.
        size: How big its node is.
        watched: Whether its event loop is watched.

    Attributes:
        events: How many events it told.
        last: When it told the last of them, in seconds of the system's clock.
    """

    def __init__(self, listener: Listener, machine: Machine, size: Size, *, watched: bool = False) -> None:
        self._size = size
        self._folder = tempfile.TemporaryDirectory(prefix="bench-program-")
        folder = Path(self._folder.name)
        self._report = folder / "report.json"
        self._control = folder / "control"
        config = folder / "config.yaml"
        config.write_text(f"cgroup_root: {machine.cgroups}\n", encoding="utf-8")
        told = folder / "events"
        told.touch()
        self._lines = told.open(encoding="utf-8")
        self.events = 0
        self.last = 0.0
        self._complete: set[str] = set()
        spec = {
            "resctrl": str(machine.resctrl),
            "proc": str(machine.proc),
            "report": str(self._report) if watched else "",
        }
        arguments = ["run", f"--resctrl-root={machine.resctrl}", f"--config={config}", "--retry-interval=0"]
        arguments += [f"--socket-path={listener.path}", f"--events={told}", f"--control={self._control}"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.inside", json.dumps(spec), *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._lines.close()
        self._folder.cleanup()

    def reconciled(self) -> None:
        """Wait until each pod was told complete."""
        deadline = time.monotonic() + PATIENCE
        while len(self._complete) < self._size.pods:
            require(time.monotonic() < deadline, f"everything is reconciled within {PATIENCE:g} s")
            require(self._process.poll() is None, "the program lives")
            time.sleep(0.02)
            self._read_events()

    def _read_events(self) -> None:
        while line := self._lines.readline():
            if not line.endswith("\n"):  # half a line: the rest comes
                self._lines.seek(self._lines.tell() - len(line))
                return
            event = json.loads(line)
            self.events += 1
            self.last = datetime.fromisoformat(event["ts"]).timestamp()
            if event.get("reconciled_containers") == self._size.each:
                self._complete.add(event["pod_uid"])

    def audit(self) -> None:
        """Have it make one audit, which must look at everything and find all well."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
            control.settimeout(PATIENCE)
            control.connect(str(self._control))
            control.sendall(b'{"call": "audit"}\n')
            with control.makefile("rb") as answers:
                report = json.loads(answers.readline())["result"]
        seen = {name: count for name, count in report.items() if count}
        wanted = {"pods": self._size.pods, "containers": self._size.containers}
        require(seen == wanted, f"the audit finds all well: {seen}")

    def at_rest(self) -> None:
        """Wait until the process has done nothing for a second, the watch over its loop left aside."""
        spent, since = self._processor(), time.monotonic()
        while time.monotonic() - since < 1.0:
            time.sleep(0.1)
            now = self._processor()
            if now != spent:
                spent, since = now, time.monotonic()
        self._read_events()

    def report(self) -> Mapping[str, object]:
        """Return what the watch saw since the last report; see `benchmarks.inside.Counts`."""
        self._report.unlink(missing_ok=True)
        self._process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + PATIENCE
        while not self._report.exists():
            require(time.monotonic() < deadline, "the program reports")
            time.sleep(0.01)
        seen: Mapping[str, object] = json.loads(self._report.read_text(encoding="ascii"))
        return seen

    @property
    def resident(self) -> float:
        """What is resident now, in MB of 1,000,000 bytes."""
        return self._megabytes("VmRSS")

    @property
    def peak(self) -> float:
        """The most that was ever resident, in MB of 1,000,000 bytes."""
        return self._megabytes("VmHWM")

    def _processor(self) -> int:
        """Return the processor time that was used, in clock ticks."""
        text = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii")
        fields = text.rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def _megabytes(self, name: str) -> float:
        text = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        return int(text.split(f"{name}:")[1].split()[0]) * 1024 / 1e6
