"""Real threads and processes that do what a test tells them.

Owns: the first process (`task_process.py`), the orders to its descendants. Must not know: cgroups, resctrl.

Rules:
    1. An order is done when the call returns: who was born can take orders, who ended is gone from /proc.
    2. Any thread of the test may give orders; one is carried out at a time.
    3. The first process ends with this one, however that comes, and takes all the others along.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from resctrl import Tid
from tests.worlds import task_process
from tests.worlds.protocol import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Tasks", "wait_until"]

_ANSWER: Final = 64


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that comes soon."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"waited {DEADLINE} s in vain for {what}"
        time.sleep(0.001)


class Tasks:
    """The first process and its descendants."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._name = f"resctrl-tasks-{os.getpid()}-{id(self):x}"
        self._asker = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._asker.bind(f"\0{self._name}-asker")
        self._asker.settimeout(DEADLINE)
        # Python 3.12 warns of each fork beside threads, which is what this program is for.
        options = ["-I", "-S", "-W", "ignore"]
        program = [sys.executable, *options, task_process.__file__, self._name, f"{self._name}-asker"]
        self._process = subprocess.Popen(program, stdin=subprocess.PIPE, start_new_session=True)
        try:
            (self._first,) = self._born(1)
        except BaseException:
            self.close()
            raise

    def process(self) -> Tid:
        """Start a process with one thread, in the group and cgroup of the first process."""
        return self.fork(self._first)

    def fork(self, parent: Tid) -> Tid:
        """Let a task fork."""
        with self._lock:
            self._order(parent, b"fork")
            return self._born(1)[0]

    def threads(self, parent: Tid, count: int) -> list[Tid]:
        """Let a task start threads."""
        if not count:
            return []
        with self._lock:
            self._order(parent, b"thread %d" % count)
            return self._born(count)

    def end(self, tid: Tid) -> None:
        """Let a task end, and wait until the kernel knows it no more."""
        with self._lock:
            self._order(tid, b"end")
        wait_until(lambda: not Path(f"/proc/{tid}").exists(), f"the end of task {tid}")

    def breed(self, parent: Tid, lineages: int, generation: float) -> None:
        """Let a process fork so many children, of which each forks its successor and ends, for ever.

        Args:
            parent: The process.
            lineages: How many live at a time.
            generation: Seconds that each of them waits before it forks.
        """
        with self._lock:
            self._order(parent, b"breed %d %f" % (lineages, generation))
            self._done(b"bred")

    def work(self, tid: Tid) -> None:
        """Let a task use its processor and its memory, and return when it has."""
        with self._lock:
            self._order(tid, b"work")
            self._done(b"worked")

    def close(self) -> None:
        """Kill them all."""
        with self._lock:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(DEADLINE)
            self._asker.close()

    def _order(self, tid: Tid, order: bytes) -> None:
        self._asker.sendto(order, f"\0{self._name}-{tid}")

    def _born(self, count: int) -> list[Tid]:
        return [self._done(b"born") for _ in range(count)]

    def _done(self, expected: bytes) -> Tid:
        word, number = self._asker.recv(_ANSWER).split()
        assert word == expected
        return Tid(int(number))
