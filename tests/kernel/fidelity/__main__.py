"""Compares fake and kernel in the guest: `python -m tests.kernel.fidelity --limbo none --operations 1000`.

Owns: the command. The report goes to /vmjob/fidelity.json for who started the guest, the differences to
standard output as well. Exit status 1 if there are any.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from tests.kernel.fidelity.machine import Report, Stage, compare
from tests.kernel.fidelity.sides import FakeSide, KernelSide, Limbo
from tests.kernel.probe import CANNOT_RUN, obstacle

if TYPE_CHECKING:
    from collections.abc import Sequence

REPORT = Path("/vmjob/fidelity.json")


def as_json(report: Report, seconds: float) -> str:
    """Return a report as text."""
    return json.dumps(
        {
            "operations": report.operations,
            "seconds": round(seconds, 1),
            "waited": round(report.waited, 2),
            "answers": [[*key, count] for key, count in sorted(report.answers.items())],
            "differences": [str(difference) for difference in report.differences],
        },
        indent=1,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare. Return 1 if something differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernel.fidelity", description=main.__doc__)
    parser.add_argument("--limbo", type=Limbo, required=True, help="none, endless or real: as the guest is")
    parser.add_argument("--operations", type=int, required=True)
    parser.add_argument("--length", type=int, default=400, help="operations of a sequence (default: 400)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    why = obstacle()
    if why is not None:
        sys.stderr.write(f"fidelity: {why}\n")
        return CANNOT_RUN
    began = monotonic()
    kernel = KernelSide(options.limbo)
    try:
        fake = FakeSide(kernel.sizes, options.limbo)
        stage = Stage(kernel, fake, ordinary_limbo=options.limbo is Limbo.REAL)
        report = compare(stage, seed=options.seed, operations=options.operations, length=options.length)
    finally:
        kernel.close()
    REPORT.write_text(as_json(report, monotonic() - began), encoding="utf-8")
    for difference in report.differences:
        sys.stdout.write(f"{difference}\n")
    sys.stdout.write(f"{report.operations} operations, {len(report.differences)} differences\n")
    return int(bool(report.differences))


if __name__ == "__main__":
    sys.exit(main())
