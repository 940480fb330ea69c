"""How much memory the installed program keeps, on a node of 110 pods and on one of 500.

    python benchmarks/bench_memory.py [--runs 3]

Each run starts the program in a fresh process, as `nri-resctrl-plugin run` does, lets it register, tells it
everything that exists (4 KB a pod, 10 KB a container), waits until every container is reconciled, and has it
make an audit. Then it is told everything anew over a new connection, several times, as after restarts of the
runtime.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a package of the checkout only

from attrs import frozen

from benchmarks.node import LARGE, SMALL, Listener, Machine, Node
from benchmarks.program import Program
from benchmarks.report import Bar, Page, Spread, bars, options, table

if TYPE_CHECKING:
    from collections.abc import Sequence

RECONNECTS: Final = 4


@frozen
class Bars:
    """What must hold, in MB.

    Attributes:
        settled: When everything is reconciled and was audited.
        peak: At any time; None where nothing is asked.
    """

    settled: float
    peak: float | None = None


BARS: Final = {SMALL: Bars(40.0), LARGE: Bars(60.0, 110.0)}


@frozen
class Reading:
    """One process, in MB of 1,000,000 bytes.

    Attributes:
        started: Resident after it registered.
        settled: Resident when everything was reconciled and audited.
        peak: The most that was ever resident until then, as the kernel kept count.
        again: Resident after the last repeated listing.
        again_peak: The most that was ever resident in the whole run.
    """

    started: float
    settled: float
    peak: float
    again: float
    again_peak: float


def one_run(node: Node, parts: Sequence[bytes], reconnects: int = RECONNECTS) -> Reading:
    """Run one process through it all."""
    with Machine(node) as machine, Listener() as listener, Program(listener, machine, node.size) as program:
        with listener.accept() as runtime:
            program.at_rest()
            started = program.resident
            runtime.synchronize(parts)
            program.reconciled()
            program.audit()
            program.at_rest()
            settled, peak = program.resident, program.peak
        for _ in range(reconnects):
            with listener.accept() as runtime:
                runtime.synchronize(parts)
                program.at_rest()
        return Reading(started, settled, peak, program.resident, program.peak)


def main() -> int:
    """Run the benchmark."""
    parser = options(__doc__)
    parser.add_argument("--runs", type=int, default=3, help="fresh processes for each size (default: 3)")
    arguments = parser.parse_args()
    page = Page(
        "memory",
        "Memory",
        "Resident memory of the program as the kernel counts it: interpreter and packages "
        "included. A list of 500 pods alone is 27 MB on the wire.",
        "python benchmarks/bench_memory.py",
    )
    rows, shown, missed = [], [], []
    for size, limits in BARS.items():
        node = Node(size)
        parts = node.parts()
        readings = [one_run(node, parts) for _ in range(arguments.runs)]
        settled = Spread.of([each.settled for each in readings])
        peak = Spread.of([each.peak for each in readings])
        again = Spread.of([each.again for each in readings])
        again_peak = Spread.of([each.again_peak for each in readings])
        rows += [
            (f"{size}: started", f"{Spread.of([each.started for each in readings]):.1f}", ""),
            (f"{size}: settled", f"{settled:.1f}", f"{limits.settled:g}"),
            (f"{size}: peak", f"{peak:.1f}", "" if limits.peak is None else f"{limits.peak:g}"),
            (f"{size}: after {RECONNECTS} more lists", f"{again:.1f}", ""),
            (f"{size}: peak of all that", f"{again_peak:.1f}", ""),
        ]
        name = f"{size.pods} pods"
        shown += [
            Bar(f"{name}, settled", settled.median, f"{settled.median:.1f}", limits.settled),
            Bar(f"{name}, peak", peak.median, f"{peak.median:.1f}", limits.peak, 1),
            Bar(f"{name}, settled, {RECONNECTS} lists later", again.median, f"{again.median:.1f}", None, 2),
        ]
        if settled.most > limits.settled:
            missed.append(f"{size}: settled")
        if limits.peak is not None and peak.most > limits.peak:
            missed.append(f"{size}: peak")
    page.facts = {"runs": f"{arguments.runs} fresh processes for each size; median (least to most)"}
    page.parts = [table(["MB", "resident", "bar"], rows), f"Bars: {', '.join(missed) or 'none'} missed."]
    page.plot = bars("Resident memory, MB (lines: the bars)", shown), "resident memory by size of the node"
    page.write(arguments.out)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
