"""Programs in a terminal of their own: typed to, resized, read as a user would see it.

Owns: the pseudo-terminal. Must not know: the programs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PATIENCE = 30.0
"""Seconds after which what a test waits for does not come any more."""

_SHELL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
for number in (signal.SIGTTOU, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    for number in (signal.SIGTTOU, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.execv(sys.argv[2], sys.argv[2:])
with open(sys.argv[1], "w") as file:
    print(child, file=file)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""What a shell does: the program is a job in the foreground of a session that has the terminal, so that keys
become signals, and can be stopped. A session's first process never is: nobody could let it go on."""

_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A program on a terminal.

    Args:
        command: The program.
        environment: All of its environment, but for what Python itself needs.
        size: Lines and columns.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], size: tuple[int, int] = (24, 80)
    ) -> None:
        self.primary, secondary = pty.openpty()
        self.resize(*size)
        self.modes = termios.tcgetattr(secondary)
        self.text = ""
        self._directory = tempfile.TemporaryDirectory()
        self._told = Path(self._directory.name) / "pid"
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SHELL, str(self._told), *command],
            stdin=secondary, stdout=secondary, stderr=secondary, env={**kept, **environment},
            start_new_session=True,
        )  # fmt: skip
        self._secondary = secondary  # kept open, so that its modes can be seen after the end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.process.wait(timeout=PATIENCE)
        self._directory.cleanup()
        for descriptor in (self.primary, self._secondary):
            if descriptor >= 0:
                os.close(descriptor)

    @property
    def pid(self) -> int:
        """The program's process id."""
        deadline = time.monotonic() + PATIENCE
        while not (self._told.exists() and self._told.read_text().endswith("\n")):
            assert time.monotonic() < deadline, "it did not start"
            time.sleep(0.01)
        return int(self._told.read_text())

    def resize(self, lines: int, columns: int) -> None:
        """Change the size; the program gets SIGWINCH from the kernel."""
        fcntl.ioctl(self.primary, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.primary, keys.encode())

    def read_until(self, pattern: str) -> str:
        """Read until what came since the last call matches; return that."""
        deadline = time.monotonic() + PATIENCE
        begin = len(self.text)
        while re.search(pattern, self.text[begin:], re.DOTALL) is None:
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.text[begin:]!r}"
            self._read(0.2)
        return self.text[begin:]

    def wait(self) -> int:
        """Read to the end; return the status."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end; {self.text[-2000:]!r}"
            self._read(0.2)
        while self._read(0.0):
            pass
        return self.process.returncode

    def hang_up(self) -> None:
        """Close the terminal under the program."""
        for name in ("_secondary", "primary"):
            os.close(getattr(self, name))
            setattr(self, name, -1)

    @property
    def current_modes(self) -> list[object]:
        """The terminal's modes now."""
        return list(termios.tcgetattr(self._secondary))

    def stopped(self) -> None:
        """Wait until the program has stopped itself."""
        deadline = time.monotonic() + PATIENCE
        while "\nState:\tT" not in Path(f"/proc/{self.pid}/status").read_text():
            assert time.monotonic() < deadline, "it does not stop"
            self._read(0.05)

    def go_on(self) -> None:
        """Let it continue, as the shell's `fg` does."""
        os.kill(self.pid, signal.SIGCONT)

    def _read(self, seconds: float) -> bool:
        if not select.select([self.primary], [], [], seconds)[0]:
            return False
        try:
            chunk = os.read(self.primary, 65536)
        except OSError:
            return False
        self.text += chunk.decode(errors="replace")
        return bool(chunk)


def in_terminal(
    command: Sequence[str], environment: Mapping[str, str], size: tuple[int, int] = (24, 80)
) -> tuple[int, str]:
    """Run a program in a terminal to its end; return the status and what it wrote."""
    with Terminal(command, environment, size) as terminal:
        status = terminal.wait()
        return status, terminal.text


def without_sequences(text: str) -> str:
    """Return what is to be read of a text with escape sequences."""
    return _SEQUENCE.sub("", text)
