"""What it takes to put the threads of a container into its group: ours, and the classic loop beside it.

    python benchmarks/bench_assign.py [--runs 5] [--here]

It runs on the kernel's own resctrl, in a guest; with `--here` on this machine's, where one is mounted (root).
A process with 10 to 10,000 sleeping threads is moved from one group to another and back, by turns with
`Resctrl.assign_tasks` and with what other agents do: open, write and close `tasks` for each thread. Both get
the same list of ids, so enumerating is in neither. Beside them stands a whole `reconcile_group` with the
cgroup as its source: enumerate, assign, enumerate again, read `tasks` once. System calls are counted with
strace, in a run of its own, between two marks; times never with strace.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a package of the checkout only

from attrs import frozen

from benchmarks.report import Curve, Page, Spread, curves, options, require, table
from nri_resctrl_plugin.cgroups import CgroupPidSource
from nri_resctrl_plugin.model import ContainerCgroup
from resctrl import FsProvider, RealFs, Resctrl, ResctrlConfig, Tid
from resctrl.testing import RecordingFs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

COUNTS: Final = (10, 100, 1_000, 10_000)
TRACED: Final = 1_000
LEAST_TIMES_FASTER: Final = 5.0
LEAST_TIMES_FEWER: Final = 20.0
MOST_CALLS_PER_THREAD: Final = 0.02
CLASSIC, OURS, RECONCILE = "classic loop", "assign_tasks", "reconcile_group"
CGROUP: Final = Path("/sys/fs/cgroup")
MARK: Final = "/bench-assign-mark/"

_SLEEPERS: Final = """
import sys, threading
threading.stack_size(32768)
count = int(sys.argv[1])
ready, never = threading.Semaphore(0), threading.Lock()
never.acquire()
def sleep():
    ready.release()
    never.acquire()
for _ in range(count - 1):
    threading.Thread(target=sleep, daemon=True).start()
for _ in range(count - 1):
    ready.acquire()
print(flush=True)
sys.stdin.read()
"""


class Workload:
    """A process with so many threads, in a cgroup of its own.

    Attributes:
        container: It, as a runtime would tell it.
        tids: Its threads.
    """

    def __init__(self, count: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _SLEEPERS, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        pid = self._process.pid
        require(self._process.stdout is not None and self._process.stdout.readline(), "the threads run")
        self.tids = sorted(Tid(int(name)) for name in os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208
        require(len(self.tids) == count, f"{count} threads live")
        self._cgroup = CGROUP / f"bench-assign-{pid}"
        self._cgroup.mkdir()
        (self._cgroup / "cgroup.procs").write_text(f"{pid}\n", encoding="ascii")
        self.container = ContainerCgroup(cgroups_path=f"/{self._cgroup.name}", pid=pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._cgroup.rmdir()


class Site:
    """Two groups, and the ways to fill them."""

    def __init__(self, fs: FsProvider | None = None) -> None:
        config = ResctrlConfig(group_prefix="bench_")
        self._resctrl = Resctrl.with_provider(fs if fs is not None else RealFs(), config)
        self._resctrl.ensure_mounted(auto_mount=True)
        self._groups = [self._resctrl.create_group(name) for name in ("one", "other")]
        self._source = CgroupPidSource(CGROUP)
        self._turn = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for group in self._groups:
            self._resctrl.delete_group(group)

    def other_group(self) -> Path:
        """Return the group in which the threads are not."""
        self._turn += 1
        return self._groups[self._turn % 2]

    def ways(self, workload: Workload) -> Mapping[str, Callable[[Path], None]]:
        """Return what is compared, by name."""
        tids = workload.tids

        def classic(group: Path) -> None:
            tasks = f"{group}/tasks"
            for tid in tids:
                descriptor = os.open(tasks, os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(descriptor, b"%d\n" % tid)
                finally:
                    os.close(descriptor)

        def ours(group: Path) -> None:
            self._resctrl.assign_tasks(group, tids)

        def reconcile(group: Path) -> None:
            source, container = self._source, workload.container
            result = self._resctrl.reconcile_group(group, lambda: source.thread_ids(container))
            require(result.complete, "the reconcile is complete")

        return {CLASSIC: classic, OURS: ours, RECONCILE: reconcile}

    def check(self, group: Path, workload: Workload) -> None:
        """Make sure that each thread is in the group, as the kernel lists it."""
        listed = {int(line) for line in (group / "tasks").read_text(encoding="ascii").split()}
        require(set(workload.tids) <= listed, f"all threads are in {group.name}")


def measured(counts: Iterable[int], runs: int) -> dict[str, dict[str, list[float]]]:
    """Return the milliseconds of each run, by number of threads and by way."""
    found: dict[str, dict[str, list[float]]] = {}
    with Site() as site:
        for count in counts:
            with Workload(count) as workload:
                times: dict[str, list[float]] = {}
                for run in range(runs + 1):
                    for name, way in site.ways(workload).items():
                        group = site.other_group()
                        began = time.perf_counter()
                        way(group)
                        took = time.perf_counter() - began
                        site.check(group, workload)
                        if run > 0:  # the first one warms up
                            times.setdefault(name, []).append(took * 1000)
                found[str(count)] = times
    return found


def traced(count: int) -> None:
    """Do everything once, each between two marks that strace can see; what learns, once before."""
    with Site() as site, Workload(count) as workload:
        for name, way in site.ways(workload).items():
            for warm_up in (True, False) if name != CLASSIC else (False,):
                group = site.other_group()
                os.access(f"{MARK}{'' if warm_up else name}", os.F_OK)
                way(group)
                os.access(MARK, os.F_OK)
                site.check(group, workload)


def asked(count: int) -> dict[str, int]:
    """Return how often ours asks the file system for what; this needs no strace."""
    fs = RecordingFs(RealFs())
    with Site(fs) as site, Workload(count) as workload:
        group = site.other_group()
        fs.forget()
        site.ways(workload)[OURS](group)
        site.check(group, workload)
        return dict(Counter(call.operation for call in fs.calls))


def calls_between_marks(trace: Iterable[str]) -> dict[str, dict[str, int]]:
    """Return how often each system call was made, by what the marks say; see `traced`.

    Args:
        trace: Lines of strace: a process id where it follows children, then the call.
    """
    found: dict[str, Counter[str]] = {}
    where = ""
    for line in trace:
        called = re.match(r"(?:\d+\s+)?(\w+)\(", line)
        if called is None:
            continue
        mark = re.search(rf'"{MARK}([^"]*)"', line)
        if mark is not None:
            where = mark[1]
        elif where:
            found.setdefault(where, Counter())[called[1]] += 1
    return {name: dict(counts) for name, counts in found.items()}


def counted(count: int) -> dict[str, dict[str, int]]:
    """Return how many system calls each way makes, or nothing where there is no strace."""
    if shutil.which("strace") is None:
        return {}
    with tempfile.TemporaryDirectory(prefix="bench-assign-") as folder:
        trace = Path(folder) / "trace"
        program = [sys.executable, __file__, "--traced", str(count)]
        subprocess.run(["strace", "-o", str(trace), *program], check=True)
        with trace.open(encoding="utf-8", errors="replace") as lines:
            return calls_between_marks(lines)


def inside(counts: Sequence[int], runs: int) -> dict[str, object]:
    """Measure on the resctrl of this machine."""
    return {
        "times": measured(counts, runs),
        "asked": asked(TRACED),
        "calls": counted(TRACED),
        "kernel": os.uname().release,
    }


def in_guest(runs: int) -> dict[str, object]:
    """Measure in a guest."""
    from tests.kernel.guest import GuestConfig  # noqa: PLC0415 - a guest is not needed with --here
    from tests.kernel.vm import run_guest  # noqa: PLC0415 - as above

    checkout = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory(prefix="bench-assign-job-") as folder:
        run = run_guest(
            [sys.executable, __file__, "--inside", "/vmjob/found.json", "--runs", str(runs)],
            GuestConfig(memory_mib=2048),
            limit=1200.0,
            job=Path(folder),
            cwd=checkout,
        )
        said = f"{run.status} {run.reason}\n{run.text}\n{run.errors.decode(errors='replace')}"
        require(run.status == 0, f"the guest's job ends well: {said}")
        found: dict[str, object] = json.loads((Path(folder) / "found.json").read_text(encoding="ascii"))
        return found


@frozen
class Found:
    """What came out.

    Attributes:
        times: Milliseconds, by number of threads and by way.
        asked: What ours asked of the file system for `TRACED` threads, by operation.
        calls: System calls for `TRACED` threads, by way and by name; empty without strace.
        kernel: The release of the kernel.
    """

    times: Mapping[str, Mapping[str, Sequence[float]]]
    asked: Mapping[str, int]
    calls: Mapping[str, Mapping[str, int]]
    kernel: str

    def median(self, count: int, way: str) -> float:
        """Return the median of the times."""
        return Spread.of(self.times[str(count)][way]).median

    def faster(self, count: int) -> float:
        """Return how many times less time ours takes."""
        return self.median(count, CLASSIC) / self.median(count, OURS)

    def total(self, way: str) -> int:
        """Return all system calls of a way."""
        return sum(self.calls[way].values())

    def missed(self) -> list[str]:
        """Return the bars that were missed; those that nobody could count are among them."""
        missed = [f"{LEAST_TIMES_FASTER:g} times less time"] * (self.faster(TRACED) < LEAST_TIMES_FASTER)
        if not self.calls:
            return [*missed, "calls (not counted: strace is not installed)"]
        ours, classic = self.total(OURS), self.total(CLASSIC)
        missed += [f"{LEAST_TIMES_FEWER:g} times fewer calls"] * (classic / ours < LEAST_TIMES_FEWER)
        missed += [f"{MOST_CALLS_PER_THREAD:g} calls a thread"] * (ours / TRACED > MOST_CALLS_PER_THREAD)
        return missed


def page_of(found: Found, place: str, runs: int) -> Page:
    """Return what is to be told."""
    counts = [int(count) for count in found.times]
    page = Page(
        "assign",
        "Assigning threads",
        "Threads that sleep are moved from one monitoring group to another. The classic loop opens, writes "
        "and closes `tasks` for each of them.",
        "python benchmarks/bench_assign.py",
    )
    page.facts = {
        "kernel": f"Linux {found.kernel}, {place}",
        "runs": f"{runs} of each by turns, after one that is not counted; median (least to most)",
    }
    bars = (
        f"Bars for {TRACED:,} threads: {LEAST_TIMES_FASTER:g} times less time and {LEAST_TIMES_FEWER:g} "
        f"times fewer calls than the loop, {MOST_CALLS_PER_THREAD:g} calls a thread. "
        f"Missed: {', '.join(found.missed()) or 'none'}."
    )
    page.parts = [
        table(
            ["threads, milliseconds", CLASSIC, OURS, RECONCILE, "times less than the loop"],
            [
                (
                    f"{count:,}",
                    *(f"{Spread.of(found.times[str(count)][way]):.2f}" for way in (CLASSIC, OURS, RECONCILE)),
                    f"{found.faster(count):.1f}",
                )
                for count in counts
            ],
        ),
        *_calls(found),
        bars,
    ]
    lines = [
        Curve(way, [(count, found.median(count, way)) for count in counts])
        for way in (CLASSIC, OURS, RECONCILE)
    ]
    page.plot = curves("Moving threads into a group", "threads", "milliseconds", lines), "times by threads"
    return page


def _calls(found: Found) -> list[str]:
    if not found.calls:
        return []
    names = sorted({name for calls in found.calls.values() for name in calls})
    ways = (CLASSIC, OURS, RECONCILE)
    rows = [(name, *(f"{found.calls[way].get(name, 0):,}" for way in ways)) for name in names]
    rows.append(("all", *(f"{found.total(way):,}" for way in ways)))
    rows.append(("all, a thread", *(f"{found.total(way) / TRACED:.4f}" for way in ways)))
    return [table([f"system calls for {TRACED:,} threads", *ways], rows)]


def main() -> int:
    """Run the benchmark, or one of its parts."""
    parser = options(__doc__)
    parser.add_argument("--runs", type=int, default=5, help="repetitions (default: 5)")
    parser.add_argument("--here", action="store_true", help="on this machine's own resctrl, as root")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--counts", type=int, nargs="*", default=COUNTS, help=argparse.SUPPRESS)
    parser.add_argument("--traced", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.traced is not None:
        traced(arguments.traced)
        return 0
    if arguments.inside is not None:
        arguments.inside.write_text(json.dumps(inside(arguments.counts, arguments.runs)), encoding="ascii")
        return 0
    raw = inside(arguments.counts, arguments.runs) if arguments.here else in_guest(arguments.runs)
    found = Found(**raw)  # type: ignore[arg-type]  # it is JSON of our own
    page_of(found, "this machine" if arguments.here else "in a guest under emulation", arguments.runs).write(
        arguments.out
    )
    return 1 if found.missed() else 0


if __name__ == "__main__":
    sys.exit(main())
