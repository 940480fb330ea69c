"""What the node lane's containers run: each prints first which group it is in.

Owns: the programs. Must not know: who judges them.

Every one begins with the same act: it reads /proc/self/cpu_resctrl_groups and prints it. What a process does
first it does before anything of a later assignment could reach it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from attrs import frozen

from tests.e2e.pods import python_command

__all__ = ["FORKS", "PROCESSES", "QUIET", "SHORT", "THREADS", "WORKS", "Workload"]


@frozen
class Workload:
    """A program for a container.

    Attributes:
        name: What it does, for a failure's text.
        command: The program and its arguments.
        threads: How many threads it has at least, once it runs as it will; 0 for one that ends by itself.
        mounts: Directories of the machine that it needs.
    """

    name: str
    command: tuple[str, ...]
    threads: int
    mounts: tuple[Path, ...] = ()


_FIRST: Final = 'while read -r line; do echo "$line"; done </proc/self/cpu_resctrl_groups; '


def _shell(name: str, script: str, threads: int) -> Workload:
    return Workload(name, ("/bin/sh", "-c", _FIRST + script), threads)


QUIET: Final = _shell("quiet", "exec /bin/sleep 1000000000", 1)
PROCESSES: Final = _shell("processes", "for i in 1 2 3; do /bin/sleep 1000000 & done; wait", 4)
FORKS: Final = _shell(
    # Two lines of processes, each of which makes its successor and ends. The first process lives and reaps.
    "forks",
    "next() { /bin/sleep 0.1; next & }; next & next & while :; do /bin/sleep 1; done",
    3,
)
WORKS: Final = _shell(
    # Runs often enough to stay in the cache, and leaves the processors to others.
    "works",
    "while :; do i=0; while [ $i -lt 500 ]; do i=$((i + 1)); done; /bin/sleep 0.2; done",
    1,
)
SHORT: Final = _shell("short", "exit 0", 0)

_THREADS: Final = """
print(open("/proc/self/cpu_resctrl_groups").read(), end="", flush=True)
import os, _thread, time
def rest(): time.sleep(10**6)
for _ in range(5): _thread.start_new_thread(rest, ())
if os.fork() == 0:
    for _ in range(3): _thread.start_new_thread(rest, ())
rest()
"""


def _python(name: str, script: str, threads: int) -> Workload:
    command, mounts = python_command(script)
    return Workload(name, command, threads, mounts)


THREADS: Final = _python("threads", _THREADS, 10)
