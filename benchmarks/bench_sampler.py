"""What it costs to read the counters of 200 groups again and again, with files held open and without.

    python benchmarks/bench_sampler.py [--samples 200] [--root /sys/fs/resctrl]

200 groups of 2 domains with 3 files each. Without `--root` they are plain files in memory, so that the
figures are those of the calls and of Python; with it they are groups of a mounted resctrl, made for this and
removed afterwards. Each round reads everything once in each of these ways, in turn: with a `Sampler`; with
`Resctrl.read_group`, which finds the files and opens, reads and closes each; by bare system calls on open
files; and by bare open, read and close. Where strace is installed it counts the system calls of one sample in
a process of its own. Bar: exactly one for each value, and no other.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a package of the checkout only

from benchmarks.report import Bar, Page, Spread, bars, options, require, table
from resctrl import Resctrl, ResctrlConfig, Sampler, Value

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from resctrl import RealFs

GROUPS: Final = 200
DOMAINS: Final = ("mon_L3_00", "mon_L3_01")
EVENTS: Final = ("llc_occupancy", "mbm_local_bytes", "mbm_total_bytes")
VALUES: Final = GROUPS * len(DOMAINS) * len(EVENTS)
BEGIN, END = "/bench-sampler-begin", "/bench-sampler-end"
_ENOUGH: Final = 4096


def main() -> int:
    """Run the benchmark, or the process of it that is watched."""
    parser = options(__doc__)
    parser.add_argument("--samples", type=int, default=200, help="rounds that are counted (200)")
    parser.add_argument("--root", type=Path, help="a mounted resctrl with two L3 caches and 200 free RMIDs")
    parser.add_argument("--watched", type=Path, help="for the benchmark itself")
    arguments = parser.parse_args()
    if arguments.watched is not None:
        watched(arguments.watched)
        return 0
    with ExitStack() as stack:
        enter = stack.enter_context
        root = enter(files_in_memory()) if arguments.root is None else enter(groups_of(arguments.root))
        calls = counted_by_strace(root)
        times = measured(root, arguments.samples)
    page(arguments, calls, times).write(arguments.out)
    return 0


# Where the counters are


@contextmanager
def files_in_memory() -> Iterator[Path]:
    """Write what groups look like; the directory is gone afterwards."""
    memory = Path("/dev/shm")  # noqa: S108 - a file system in memory, so that no disk is measured
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        root = Path(name)
        for group in groups_below(root):
            for domain in DOMAINS:
                directory = group / "mon_data" / domain
                directory.mkdir(parents=True)
                for event in EVENTS:
                    (directory / event).write_text("1234567890\n", encoding="ascii")
        yield root


@contextmanager
def groups_of(root: Path) -> Iterator[Path]:
    """Make groups; they are removed afterwards, also after a failure."""
    made = groups_below(root)
    try:
        for group in made:
            group.mkdir()
        found = {f"{file.parent.name}/{file.name}" for file in (made[0] / "mon_data").glob("*/*")}
        require(
            found == {f"{domain}/{event}" for domain in DOMAINS for event in EVENTS},
            f"two L3 caches with three events each, not {sorted(found)}",
        )
        yield root
    finally:
        for group in made:
            with suppress(FileNotFoundError):
                group.rmdir()


def groups_below(root: Path) -> list[Path]:
    """Return where the groups are."""
    return [root / "mon_groups" / f"bench_sampler_{number:03d}" for number in range(GROUPS)]


# How often the kernel is asked


def resctrl_at(root: Path) -> Resctrl[RealFs]:
    """Return the library over a directory."""
    return Resctrl(ResctrlConfig(root=root))


def watched(root: Path) -> None:
    """Sample once between two marks that nobody else makes."""
    with opened(root) as sampler:
        sampler.sample()
        Path(BEGIN).exists()
        sample = sampler.sample()
        Path(END).exists()
    require(sum(len(reading.values) for reading in sample.values()) == VALUES, "every value was read")


def counted_by_strace(root: Path) -> list[str] | None:
    """Return the names of the system calls of one sample; None where there is no strace."""
    strace = shutil.which("strace")
    if strace is None:
        return None
    with tempfile.NamedTemporaryFile(mode="r", encoding="utf-8") as trace:
        program = [sys.executable, __file__, "--watched", str(root)]
        subprocess.run([strace, "-f", "-qq", "-e", "signal=none", "-o", trace.name, *program], check=True)
        lines = [line.split(maxsplit=1)[-1] for line in trace.read().splitlines()]
    begin = next(number for number, line in enumerate(lines) if BEGIN in line)
    end = next(number for number, line in enumerate(lines) if END in line)
    names = [line.partition("(")[0] for line in lines[begin + 1 : end]]
    require(
        names == ["pread64"] * VALUES, f"one pread for each value, not {sorted(set(names))}, {len(names)}"
    )
    return names


# How long it takes


@contextmanager
def opened(root: Path) -> Iterator[Sampler[RealFs]]:
    """Hold all files open."""
    with Sampler(resctrl_at(root), max_open=VALUES, recheck_seconds=1e9) as sampler:
        for group in groups_below(root):
            sampler.add(group)
        require(not sampler.sample().unheld, "enough descriptors: raise the limit (ulimit -n)")
        yield sampler


def measured(root: Path, samples: int) -> dict[str, list[float]]:
    """Return how long each way took, in milliseconds, round by round."""
    resctrl, groups = resctrl_at(root), groups_below(root)
    paths = [
        str(group / "mon_data" / domain / event) for group in groups for domain in DOMAINS for event in EVENTS
    ]
    with opened(root) as sampler, ExitStack() as stack:
        descriptors = [os.open(path, os.O_RDONLY) for path in paths]
        for descriptor in descriptors:
            stack.callback(os.close, descriptor)
        ways: dict[str, Callable[[], object]] = {
            "sampler": sampler.sample,
            "read_group": lambda: [resctrl.read_group(group) for group in groups],
            "pread alone": lambda: [os.pread(descriptor, _ENOUGH, 0) for descriptor in descriptors],
            "open, read, close alone": lambda: [read_once(path) for path in paths],
        }
        require(
            all(
                isinstance(one, Value)
                for reading in sampler.sample().values()
                for one in reading.values.values()
            ),
            "every counter has a number",
        )
        times: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(samples + 3):
            for way, read in ways.items():
                begin = time.perf_counter()
                read()
                took = (time.perf_counter() - begin) * 1000
                if number >= 3:  # noqa: PLR2004 - the first rounds warm up
                    times[way].append(took)
    return times


def read_once(path: str) -> bytes:
    """Open, read, close, and nothing else."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, _ENOUGH)
    finally:
        os.close(descriptor)


# What is said of it


def page(arguments: argparse.Namespace, calls: Sequence[str] | None, times: dict[str, list[float]]) -> Page:
    """Return the page."""
    spreads = {way: Spread.of(found) for way, found in times.items()}
    base = spreads["sampler"].median
    bare = spreads["open, read, close alone"].median / spreads["pread alone"].median
    counted = "not counted: there is no strace" if calls is None else f"{len(calls)}, each a pread64 (strace)"
    where = "files in memory" if arguments.root is None else f"the kernel's resctrl at {arguments.root}"
    rows = [
        [way, f"{one:.2f}", f"{one.median * 1000 / VALUES:.2f}", f"{one.median / base:.2f}"]
        for way, one in spreads.items()
    ]
    return Page(
        name="sampler",
        title="Reading counters again and again",
        what=(__doc__ or "").partition("\n\n")[2].partition("\n\n")[2],
        command="python benchmarks/bench_sampler.py",
        facts={
            "where": where,
            "values": f"{VALUES}: {GROUPS} groups, {len(DOMAINS)} domains, {len(EVENTS)} files",
            "system calls of one sample": counted,
            "rounds": arguments.samples,
        },
        parts=[
            table(["", "ms for all", "us for each value", "of the sampler"], rows),
            f"Of the system calls alone, open, read and close take {bare:.1f} times as long as one pread.",
        ],
        plot=(
            bars(
                f"Milliseconds for {VALUES} values (median)",
                [
                    Bar(way, one.median, f"{one.median:.1f}", colour=number)
                    for number, (way, one) in enumerate(spreads.items())
                ],
            ),
            "Bars: how long each way takes",
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
