"""The hardware lane in a guest: booted once a session, its results told to the host's pytest test by test.

Owns: the guest for the node lane, and what came back from it. Must not know: what a scenario claims.

Rules:
    1. In the guest runs the very script that runs on a rack. So it is tested by whatever tests the node.
    2. What has no result has failed: a test that the guest did not report is never taken for one that passed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
from attrs import field, frozen

from tests.e2e.packages import PackageStore, default_cache
from tests.hardware.results import Case, Outcome, read_cases
from tests.kernel.guest import GuestConfig
from tests.kernel.vm import GuestRun, run_guest

__all__ = ["GUEST", "LaneRun", "Replay", "run_lane"]

GUEST: Final = GuestConfig(num_rmids=64, num_closids=8, memory_mib=1024, decay_ms=300)
"""Room for the churn's pods and their predecessors in limbo; fillers use it up where it must be short. A
cache line stays for less than the limbo worker's second, so that the wait for it is that second."""
PREFIX: Final = "guest-lane_"
CHECKOUT: Final = Path(__file__).resolve().parents[2]
LIMIT: Final = 2400.0
"""Wall seconds for the guest. Idle it needs a tenth; a host that is shared may give it a fraction."""
_LAST: Final = 6000
"""Characters of the lane's output that a failure shows."""


@frozen
class LaneRun:
    """What came of the lane in the guest.

    Attributes:
        guest: The run.
        artifacts: What the lane left.
        cases: Its node scenarios.
    """

    guest: GuestRun = field(repr=False)
    artifacts: Path
    cases: Sequence[Case] = field(repr=False)

    def replay(self, node_id: str) -> Replay:
        """Return what to tell of one test."""
        path, _, name = node_id.partition("::")
        module = path.removesuffix(".py").replace("/", ".")
        found = [it for it in self.cases if (it.module, it.name) == (module, name)]
        return Replay(found[0] if len(found) == 1 else None, self.guest)


@frozen
class Replay:
    """Stands for the node on a host: a test that ran in the guest, to be told here."""

    case: Case | None
    guest: GuestRun = field(repr=False)

    def tell(self, item: pytest.Function) -> None:
        """End this test as it ended there."""
        if self.case is None:
            how = self.guest.reason or f"the lane ended with status {self.guest.status}"
            pytest.fail(
                f"the guest did not report this test: {how}\n{self.guest.text[-_LAST:]}", pytrace=False
            )
        item.user_properties += self.case.properties
        item.user_properties.append(("seconds in the guest", f"{self.case.seconds:.1f}"))
        match self.case.outcome:
            case Outcome.PASSED:
                return
            case Outcome.SKIPPED:
                # The guest can do whatever a node scenario may need.
                pytest.fail(f"skipped in the guest: {self.case.text}", pytrace=False)
            case Outcome.FAILED:
                pytest.fail(f"in the guest:\n{self.case.text}", pytrace=False)


def run_lane(job: Path, *, node_tests: Sequence[str] | None) -> LaneRun:
    """Boot a guest and run the lane in it.

    Args:
        job: A directory to share with the guest.
        node_tests: The node scenarios to run; None for the whole lane with all its steps.

    Raises:
        Unobtainable: containerd, or what goes with it, cannot be had.
        KernelLaneError: The guest cannot be booted.
    """
    with PackageStore(default_cache()) as store:
        store.tools()  # where they are fetched, if need be: the guest has no network
    _compile()
    command = [
        sys.executable,
        "-m",
        "tests.hardware.lane",
        "--artifacts=/vmjob/artifacts",
        f"--prefix={PREFIX}",
    ]
    if node_tests is not None:
        command += ["--step=node", *(f"--node-test={it}" for it in node_tests)]
    environ = {name: os.environ[name] for name in ("RESCTRL_CACHE",) if name in os.environ}

    def show(chunk: bytes) -> None:
        os.write(1, chunk)  # pytest shows it at the first failure, or at once with `-s`

    guest = run_guest(
        command, GUEST, limit=LIMIT, job=job, cwd=CHECKOUT, environ=environ, on_output=show, on_errors=show
    )
    artifacts = job / "artifacts"
    return LaneRun(guest, artifacts, read_cases(artifacts / "node.xml"))


def _compile() -> None:
    """Compile on the host what the guest will import: there it would take a minute, and each time again."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    compiled = [sys.executable, "-m", "compileall", "-q", "resctrl", "nri_resctrl_plugin", "tests"]
    subprocess.run(compiled, cwd=CHECKOUT, env=environ, check=True, timeout=300)
    rewritten = [sys.executable, "-m", "tests.kernel.probe", "--compile", "tests/node", "tests/scenarios"]
    subprocess.run(rewritten, cwd=CHECKOUT, env=environ, check=True, timeout=300)
