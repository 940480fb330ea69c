"""What a start costs on a node where everything runs already: 110 pods, and 500.

    python benchmarks/bench_startup.py [--runs 5]

Each run starts the program in a fresh process and tells it everything that exists, as a runtime does at the
start of a plugin. Reply: from the moment at which a message's last byte was handed to the kernel until its
answer was read, all messages together. Reconciled: from the first byte until the event that tells the last
container complete. Stall: the longest time for which the event loop could not run anything else, from the
first byte until a second after the end. By its own work: what the process itself spent on a processor of
that; on a shared machine others take the rest. The bar is for the longest of all runs by its own work, and
for the median of what anybody caused.
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


@frozen
class Start:
    """One start.

    Attributes:
        reply: All messages together, milliseconds.
        reconciled: Until everything was told complete, milliseconds.
        stall: The longest stall of the loop, milliseconds.
        own: The longest that the process held it up by itself, milliseconds.
        events: How many events were told.
        calls: How often each call of the file system was made.
    """

    reply: float
    reconciled: float
    stall: float
    own: float
    events: int
    calls: Mapping[str, int]


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
        seen = program.report()
        check(node, machine)
        return Start(
            reply * 1000,
            (program.last - began) * 1000,
            cast("float", seen["stall"]) * 1000,
            cast("float", seen["own"]) * 1000,
            program.events,
            cast("Mapping[str, int]", seen["calls"]),
        )


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
        "The program is told everything that exists. The cgroups and the resctrl are plain files, so each "
        "system call is real but the kernel's own work on groups is not in it.",
        "python benchmarks/bench_startup.py",
    )
    rows: list[tuple[object, ...]] = []
    shown, counted, missed = [], [], []
    for size in SIZES:
        node = Node(size)
        parts = node.parts()
        runs = [start(node, parts) for _ in range(arguments.runs)]
        reply, reconciled = (
            Spread.of([run.reply for run in runs]),
            Spread.of([run.reconciled for run in runs]),
        )
        stall, own = Spread.of([run.stall for run in runs]), Spread.of([run.own for run in runs])
        rows += [
            (f"{size}: reply", f"{reply:.0f}", f"{REPLY_BAR_MS:g}"),
            (f"{size}: reconciled", f"{reconciled:.0f}", ""),
            (f"{size}: longest stall", f"{stall:.1f}", ""),
            (f"{size}: longest stall by its own work", f"{own:.1f}", f"{STALL_BAR_MS:g}"),
        ]
        name = f"{size.pods} pods"
        shown += [
            Bar(f"{name}, longest stall", own.median, f"{own.median:.1f} ms", STALL_BAR_MS),
            Bar(f"{name}, reply", reply.median, f"{reply.median:.0f} ms", REPLY_BAR_MS, 1),
        ]
        require(all(run.calls == runs[0].calls for run in runs), "each run makes the same calls")
        counted.append(exact(size, runs[0], parts))
        missed += [f"{size}: stall"] * (max(own.most, stall.median) > STALL_BAR_MS)
        missed += [f"{size}: reply"] * (reply.median > REPLY_BAR_MS)
    names = list(dict.fromkeys(name for counts in counted for name in counts))
    page.facts = {
        "runs": f"{arguments.runs} fresh processes for each size; median (least to most)",
        "priority": f"nice {os.nice(0)}, the program and its runtime",
    }
    page.parts = [
        table(["milliseconds", "took", "bar"], rows),
        f"Bars: {', '.join(missed) or 'none'} missed.",
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
    return 1 if missed else 0


def exact(size: Size, run: Start, parts: Sequence[bytes]) -> Mapping[str, int]:
    """Return what must be the same in each run."""
    return {
        "containers": size.containers,
        "threads": size.containers * size.threads,
        "messages": len(parts),
        "bytes of messages": sum(map(len, parts)),
        "events": run.events,
        **{f"calls: {name}": count for name, count in sorted(run.calls.items())},
    }


if __name__ == "__main__":
    sys.exit(main())
