"""What a start costs on a node where everything runs already: 110 pods, and 500.

    python benchmarks/bench_startup.py [--runs 5]

Each run starts the program in a fresh process and tells it everything that exists, as a runtime does at the
start of a plugin; then it has it make one audit. Reply: from the moment at which a message's last byte was
handed to the kernel until its answer was read, all messages together. Reconciled: from the first byte until
the event that tells the last container complete. Stall: the longest time for which the event loop could not
run anything else, from the first byte until a second after the end, and during the audit. By its own doing:
that left out for which the loop's thread was ready and the kernel gave it no processor; on a shared machine
others take it. What the program computes, what blocks it and what its other thread withholds remain.
The bar is for every run: the longest of all by the program's own doing. How many runs stalled longer by
anybody's doing is told beside it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a package of the checkout only

from attrs import frozen

from benchmarks.inside import ahead_of_others
from benchmarks.node import SIZES, Listener, Machine, Node, Size
from benchmarks.program import Program
from benchmarks.report import Bar, Page, Spread, bars, options, require, table

if TYPE_CHECKING:
    from collections.abc import Sequence

STALL_BAR_MS: Final = 50.0
REPLY_BAR_MS: Final = 200.0
RULE: Final = (
    f"The bar of {STALL_BAR_MS:g} ms is missed where in any run the loop stands still for longer by the "
    "program's own doing: that left out for which its thread was ready and the kernel gave it no "
    f"processor. The bar of {REPLY_BAR_MS:g} ms is for the median."
)


@frozen
class Stretch:
    """A part of a run.

    Attributes:
        took: How long it was, milliseconds.
        stall: The longest stall of the loop, milliseconds.
        own: The longest that the program held it up by itself, milliseconds.
        calls: How often each call of the file system was made.
    """

    took: float
    stall: float
    own: float
    calls: Mapping[str, int]

    @classmethod
    def of(cls, took: float, seen: Mapping[str, object]) -> Stretch:
        """Take what the watch saw, and how many seconds it was."""
        stall, own = cast("float", seen["stall"]), cast("float", seen["own"])
        return cls(took * 1000, stall * 1000, own * 1000, cast("Mapping[str, int]", seen["calls"]))


@frozen
class Start:
    """One start.

    Attributes:
        reply: All messages together, milliseconds.
        events: How many events were told.
        startup: Until everything was told complete.
        audit: The audit after it.
    """

    reply: float
    events: int
    startup: Stretch
    audit: Stretch

    @property
    def stretches(self) -> Mapping[str, Stretch]:
        """Its parts, by name."""
        return {"startup": self.startup, "audit": self.audit}


def start(node: Node, parts: Sequence[bytes]) -> Start:
    """Start once."""
    with (
        Machine(node) as machine,
        Listener() as listener,
        Program(listener, machine, node.size, watched=True) as program,
        listener.accept() as runtime,
    ):
        program.report()  # from here on
        began = time.time()
        reply = sum(runtime.synchronize(parts))
        program.reconciled()
        time.sleep(1.0)  # what it does afterwards counts too
        startup = Stretch.of(program.last - began, program.report())
        check(node, machine)
        began = time.time()
        program.audit()
        audit = Stretch.of(time.time() - began, program.report())
        return Start(reply * 1000, program.events, startup, audit)


def check(node: Node, machine: Machine) -> None:
    """Make sure that each thread is in its pod's group and in no other."""
    size, groups = node.size, machine.groups()
    require(len(groups) == size.pods, "each pod has its group")
    for pod in range(size.pods):
        threads = {tid for number in range(pod, size.containers, size.pods) for tid in node.tids(number)}
        require(set(groups[f"pod_{node.uid(pod)}"]) == threads, f"pod {pod}'s threads are in its group")


def main() -> int:
    """Run the benchmark."""
    parser = options(__doc__)
    parser.add_argument("--runs", type=int, default=5, help="fresh processes for each size (default: 5)")
    arguments = parser.parse_args()
    ahead_of_others()
    page = Page(
        "startup",
        "Startup",
        "The program is told everything that exists, and audits it. The cgroups and the resctrl are plain "
        "files, so each system call is real but the kernel's own work on groups is not in it.",
        "python benchmarks/bench_startup.py",
    )
    rows: list[tuple[object, ...]] = []
    shown, counted, bars_missed = [], [], []
    for size in SIZES:
        node = Node(size)
        parts = node.parts()
        runs = [start(node, parts) for _ in range(arguments.runs)]
        rows += rows_of(size, runs)
        reply = Spread.of([run.reply for run in runs]).median
        name = f"{size.pods} pods"
        for part in runs[0].stretches:
            own = max(run.stretches[part].own for run in runs)
            shown.append(Bar(f"{name}, {part}: longest stall", own, f"{own:.1f} ms", STALL_BAR_MS))
        shown.append(Bar(f"{name}, reply", reply, f"{reply:.0f} ms", REPLY_BAR_MS, 1))
        counted.append(exact(size, runs[0], parts))
        require(all(exact(size, run, parts) == counted[-1] for run in runs), "each run makes the same calls")
        bars_missed += missed(size, runs)
    names = list(dict.fromkeys(name for counts in counted for name in counts))
    page.facts = {
        "runs": f"{arguments.runs} fresh processes for each size; median (least to most)",
        "priority": f"nice {os.nice(0)}, the program and its runtime",
    }
    page.parts = [
        table(["milliseconds", "took", "bar", f"runs over {STALL_BAR_MS:g} ms"], rows),
        f"Bars: {', '.join(bars_missed) or 'none'} missed. {RULE}",
        "The same in each run:",
        table(
            ["exact counts", *(f"{size.pods} pods" for size in SIZES)],
            [(name, *(f"{counts.get(name, 0):,}" for counts in counted)) for name in names],
        ),
    ]
    page.plot = (
        bars("Start on a busy node (lines: the bars)", shown),
        "the longest stall and the reply by size",
    )
    page.write(arguments.out)
    return 1 if bars_missed else 0


def rows_of(size: Size, runs: Sequence[Start]) -> list[tuple[object, ...]]:
    """Return a size's lines: what, how long, its bar, and how many of the runs stalled for longer."""
    reply = Spread.of([run.reply for run in runs])
    rows: list[tuple[object, ...]] = [(f"{size}: reply", f"{reply:.0f}", f"{REPLY_BAR_MS:g}", "")]
    for part in runs[0].stretches:
        stretches = [run.stretches[part] for run in runs]
        stalls, owns = [each.stall for each in stretches], [each.own for each in stretches]
        rows += [
            (f"{size}: {part}", f"{Spread.of([each.took for each in stretches]):.0f}", "", ""),
            (f"{size}: {part}: longest stall", f"{Spread.of(stalls):.1f}", "", _over(stalls)),
            (f"{size}: {part}: by its own doing", f"{Spread.of(owns):.1f}", f"{STALL_BAR_MS:g}", _over(owns)),
        ]
    return rows


def _over(stalls: Sequence[float]) -> str:
    return f"{sum(stall > STALL_BAR_MS for stall in stalls)} of {len(stalls)}"


def missed(size: Size, runs: Sequence[Start]) -> list[str]:
    """Return the bars that were missed, by the rule that the page states."""
    found = [f"{size}: reply"] * (Spread.of([run.reply for run in runs]).median > REPLY_BAR_MS)
    for part in runs[0].stretches:
        found += [f"{size}: {part}: stall"] * any(run.stretches[part].own > STALL_BAR_MS for run in runs)
    return found


def exact(size: Size, run: Start, parts: Sequence[bytes]) -> Mapping[str, int]:
    """Return what must be the same in each run."""
    return {
        "containers": size.containers,
        "threads": size.containers * size.threads,
        "messages": len(parts),
        "bytes of messages": sum(map(len, parts)),
        "events": run.events,
        **{
            f"calls of the {part}: {name}": count
            for part, stretch in run.stretches.items()
            for name, count in sorted(stretch.calls.items())
        },
    }


if __name__ == "__main__":
    sys.exit(main())
