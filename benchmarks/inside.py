"""The program as it is deployed, in a process that watches it: `python -m benchmarks.inside SPEC run ...`.

Owns: what is put in the place of the kernel, the watch over the event loop, the counts of system calls that
the library asked for. Must not know: what is done with them, and anything that would cost memory by itself.

Rules:
    1. The program is started by its own entry point, with its own flags; nothing of it is left out.
    2. The watch is a task of the program's own loop that wakes every millisecond. By how much it is late is
       how long nothing else could run either. How long of that its thread was ready and had no processor is
       the kernel's own account; blocking, computing and waiting for the worker are the program's doing.
    3. Where nobody watches, nothing is loaded here that the program would not load itself, or would load
       otherwise.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

import resctrl
from benchmarks.files import FilesFs

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from types import ModuleType

    from resctrl.fs import Reader, WriteError

T = TypeVar("T")

BEAT: Final = 0.001


class Counts:
    """What happened since the last report.

    Attributes:
        calls: How often each call of the provider was made; for writes also how many chunks there were.
        stall: The longest time by which the loop was late, seconds.
        own: The longest such time, that left out for which the loop's thread waited for a processor, seconds.
    """

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.stall = 0.0
        self.own = 0.0

    def count(self, name: str, number: int = 1) -> None:
        """Count calls."""
        self.calls[name] = self.calls.get(name, 0) + number

    async def watch(self, asyncio: ModuleType) -> None:
        """Measure by how much the loop is late, for ever."""
        with _account() as account:
            last, waited = time.perf_counter(), _waited(account)
            while True:
                await asyncio.sleep(BEAT)
                now, by_now = time.perf_counter(), _waited(account)
                self.woken(now - last - BEAT, by_now - waited)
                last, waited = now, by_now

    def woken(self, late: float, waited: float) -> None:
        """Take by how much the watch woke late, and for how long of it there was no processor for it."""
        self.stall = max(self.stall, late)
        self.own = max(self.own, late - waited)

    def report(self, path: Path) -> None:
        """Leave a report, and begin anew."""
        new = path.with_suffix(".new")
        new.write_text(
            json.dumps({"calls": self.calls, "stall": self.stall, "own": self.own}), encoding="ascii"
        )
        new.rename(path)
        self.calls, self.stall, self.own = {}, 0.0, 0.0


def _account() -> BinaryIO:
    """Open what the kernel keeps of this thread."""
    return Path("/proc/thread-self/schedstat").open("rb", buffering=0)


def _waited(account: BinaryIO) -> float:
    """Return for how many seconds the thread was ready and not run, ever (proc(5), /proc/pid/schedstat)."""
    return int(os.pread(account.fileno(), 64, 0).split()[1]) / 1e9


class CountingFs(FilesFs):
    """A provider that counts its calls."""

    __slots__ = ("_counts",)

    def __init__(self, root: Path, counts: Counts) -> None:
        super().__init__(root)
        self._counts = counts

    def exists(self, path: Path) -> bool:
        """Count and pass on."""
        self._counts.count("stat")
        return super().exists(path)

    def create_dir(self, path: Path) -> None:
        """Count and pass on."""
        self._counts.count("mkdir")
        super().create_dir(path)

    def remove_dir(self, path: Path) -> None:
        """Count and pass on."""
        self._counts.count("rmdir")
        super().remove_dir(path)

    def rename(self, source: Path, target: Path) -> None:
        """Count and pass on."""
        self._counts.count("rename")
        super().rename(source, target)

    def read_text(self, path: Path) -> str:
        """Count and pass on; reading `tasks` is counted by itself."""
        self._counts.count("read tasks" if path.name == "tasks" else "read others")
        return super().read_text(path)

    def read_child_dirs(self, path: Path) -> list[str]:
        """Count and pass on."""
        self._counts.count("list")
        return super().read_child_dirs(path)

    def can_open_for_write(self, path: Path) -> bool:
        """Count and pass on."""
        self._counts.count("try to open")
        return super().can_open_for_write(path)

    def write_all(
        self, path: Path, chunks: Iterable[bytes], *, go_on: Callable[[WriteError], bool] | None = None
    ) -> int:
        """Count and pass on."""
        self._counts.count("open to write")
        written = super().write_all(path, chunks, go_on=go_on)
        self._counts.count("write", written)
        return written

    def open_reader(self, path: Path) -> Reader:
        """Count and pass on."""
        self._counts.count("open reader")
        return super().open_reader(path)


def stand_in(root: Path, proc: Path, counts: Counts) -> None:
    """Let whatever uses the real resctrl and the real procfs in this process use these instead."""
    from nri_resctrl_plugin import cgroups  # noqa: PLC0415 - rule 3

    class Placed(CountingFs):
        __slots__ = ()

        def __init__(self) -> None:
            super().__init__(root, counts)

    resctrl.RealFs = Placed  # type: ignore[misc]
    source = cgroups.CgroupPidSource.__init__
    source.__defaults__ = (*(source.__defaults__ or ())[:1], proc)


def watched(counts: Counts, report: Path) -> None:
    """Put the watch into the next event loop; each SIGUSR1 asks for a report."""
    import asyncio  # noqa: PLC0415 - rule 3

    run = asyncio.run

    async def together(main: Coroutine[Any, Any, T]) -> T:
        watch = asyncio.create_task(counts.watch(asyncio))
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, counts.report, report)
        try:
            return await main
        finally:
            watch.cancel()

    def watched_run(main: Coroutine[Any, Any, T]) -> T:
        return run(together(main))

    asyncio.run = watched_run  # type: ignore[assignment]


def ahead_of_others() -> None:
    """Keep what else this machine does from being measured, where we may.

    The nice value counts within a session only, where the kernel groups processes by session; then the
    group's own counts among the groups.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)
        Path("/proc/self/autogroup").write_text("-15", encoding="ascii")


def main() -> int:
    """Run the program."""
    ahead_of_others()
    spec = json.loads(sys.argv.pop(1))
    counts = Counts()
    stand_in(Path(spec["resctrl"]), Path(spec["proc"]), counts)
    if spec["report"]:
        watched(counts, Path(spec["report"]))
    from nri_resctrl_plugin.cli import main as program  # noqa: PLC0415 - rule 3

    return program()


if __name__ == "__main__":
    sys.exit(main())
