"""A process whose threads do what they are told: start a thread, fork, end. Standard library only.

Owns: the life of a task. Must not know: cgroups, resctrl, tests.

`python -I -S task_process.py NAME ASKER` is the first process. Each task, the first included, has a datagram
socket at the abstract address `NAME-<tid>`, from which it takes orders:

    thread N   start N threads
    fork       fork a process
    breed N S  fork N lineages: each process of one waits S seconds, forks its successor and ends
    work       use the processor and memory for a moment
    end        end; the first thread of a process ends it whole

Each new task tells who asked for it `born <tid>` when it can take orders. ASKER is told of the first. The
lineages take no orders; that all have begun is told as `bred <tid>`, that the work is done as `worked <tid>`.

It is one process that forks, because a new interpreter takes an emulated machine most of a second. When its
standard input ends, which it does with the test session, it takes all its descendants along.
"""

from __future__ import annotations

import _thread
import os
import signal
import socket
import sys
import threading
import time

_STACK = 256 * 1024
_ORDER = 64
_WORK = 4 * 1024 * 1024
_ROUNDS = 4


def serve(name: str, asker: bytes) -> None:
    """Live as one task, until told to end."""
    tid = threading.get_native_id()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as orders:
        orders.bind(f"\0{name}-{tid}")
        orders.sendto(b"born %d" % tid, asker)
        while True:
            data, sender = orders.recvfrom(_ORDER)
            word, *numbers = data.split()
            if word == b"end":
                return
            if word == b"fork" and os.fork() == 0:
                # The sockets of the other threads, which do not exist here, must not outlive them.
                os.closerange(0, 1 << 20)
                live(name, sender)
            elif word == b"thread":
                for _ in range(int(numbers[0])):
                    _thread.start_new_thread(serve, (name, sender))
            elif word == b"breed":
                found(int(numbers[0]), float(numbers[1]))
                orders.sendto(b"bred %d" % tid, sender)
            elif word == b"work":
                work()
                orders.sendto(b"worked %d" % tid, sender)


def found(lineages: int, generation: float) -> None:
    """Fork the first process of each lineage, which forks its successor and ends, and so on."""
    for _ in range(lineages):
        if os.fork() == 0:
            os.closerange(0, 1 << 20)
            while True:
                if generation:
                    time.sleep(generation)
                if os.fork():
                    os._exit(0)


def work() -> None:
    """Use the processor and the memory for a moment."""
    for _ in range(_ROUNDS):
        bytearray(_WORK).reverse()


def live(name: str, asker: bytes) -> None:
    """Live as the first task of a process, and end the process."""
    status = 1
    try:
        serve(name, asker)
        status = 0
    finally:
        os._exit(status)


def watch() -> None:
    """Wait for the end of standard input, and kill everything."""
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Be the first process."""
    name, asker = sys.argv[1:]
    # Nobody waits for the children: they shall not stay as zombies, which resctrl still lists.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _thread.stack_size(_STACK)
    _thread.start_new_thread(watch, ())
    live(name, f"\0{asker}".encode())


if __name__ == "__main__":
    main()
