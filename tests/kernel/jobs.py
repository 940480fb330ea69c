"""What the lane does in guests: which machine, which command, and what comes back.

Owns: the jobs, and reading what they leave. Must not know: how a guest is booted.

Rules:
    1. One boot for each machine: starting Python and pytest costs an emulated one more than many tests.
    2. A job is judged by its report, not by its exit status alone: what did not run is not in it.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final
from xml.etree import ElementTree as ET

from attrs import define, field, frozen

from tests.kernel.guest import GuestConfig
from tests.kernel.vm import GuestRun
from tests.worlds import Machine

__all__ = [
    "FIDELITY",
    "JOBS",
    "SCENARIOS",
    "Fidelity",
    "Job",
    "Outcome",
    "Scenarios",
    "operations",
    "patience",
]

_LIMIT: Final = 800.0
_MACHINES: Final = {
    # Few RMIDs, since scenarios use them up; limbo is short, but real. Two L3 caches, so that domains can be
    # told apart.
    Machine.FULL: GuestConfig(num_rmids=64, num_closids=6, decay_ms=200, sockets=2),
    Machine.WITHOUT_RESCTRL: GuestConfig.without_rdt(),
    Machine.WITHOUT_MONITORING: GuestConfig.allocation_only(),
}
_APART: Final = ("tests/scenarios/test_s8_forks.py", "tests/scenarios/test_s10_readings.py")
"""Files with a guest of their own, in this order. The forks take as long as a third of all others. Readings
take processors offline, and Linux 6.12 may go on with a domain that it has freed: `cancel_delayed_work` does
not end a limbo or overflow worker that was waiting just then. So nothing comes after them."""
_WITHOUT_PLUGINS: Final = ("-p", "no:hypothesispytest", "-p", "no:pytest_cov")


@frozen
class Job:
    """One boot.

    Attributes:
        guest: The machine.
        command: What it runs.
        limit: Wall seconds for everything.
    """

    guest: GuestConfig
    command: tuple[str, ...]
    limit: float = _LIMIT


@frozen
class Outcome:
    """What came of a job.

    Attributes:
        run: The boot.
        directory: What was /vmjob.
    """

    run: GuestRun
    directory: Path

    @property
    def story(self) -> str:
        """Everything that was said, for a failure."""
        run, errors = self.run, self.run.errors.decode(errors="replace")
        return f"status {run.status} {run.reason}\n{run.text}\n{errors}\n{run.console}"


def _factor() -> float:
    return float(os.environ.get("RESCTRL_FIDELITY", "1"))


def operations(count: int) -> int:
    """Return how many operations a fidelity job compares; RESCTRL_FIDELITY multiplies, for a long night."""
    return int(count * _factor())


def patience(seconds: float) -> float:
    """Return how long a fidelity job may take, from how long it may as it is written."""
    return seconds * max(1.0, _factor())


def _scenarios(machine: Machine, *which: str) -> Job:
    """Return the job that runs scenarios about a machine: the files named, or all but those apart."""
    which = which or ("tests/scenarios", *(f"--ignore={file}" for file in _APART))
    command = ("python", "-m", "tests.kernel.probe", *which, "-q", "--world=kernel")
    return Job(_MACHINES[machine], (*command, f"--machine={machine.value}", *_WITHOUT_PLUGINS))


def _about(machine: Machine) -> tuple[str, ...]:
    """Return the files with scenarios about a machine that is not a full one; others would be imported."""
    return tuple(
        f"tests/scenarios/{path.name}"
        for path in sorted((Path(__file__).parents[1] / "scenarios").glob("test_*.py"))
        if f"Machine.{machine.name}" in path.read_text(encoding="utf-8")
    )


def _fidelity(guest: GuestConfig, limbo: str, count: int, length: int = 400) -> Job:
    command: tuple[str, ...] = ("python", "-m", "tests.kernel.fidelity", "--limbo", limbo)
    command = (*command, "--operations", str(operations(count)), "--length", str(length))
    return Job(guest, command, patience(_LIMIT))


SCENARIOS: Final[Mapping[str, Machine]] = MappingProxyType(
    {**{f"scenarios-{machine.value}": machine for machine in Machine}, "scenarios-apart": Machine.FULL}
)
"""The jobs that run scenarios, and on which machine."""

FIDELITY: Final[Mapping[str, int]] = MappingProxyType(
    {"fidelity-none": 10_000, "fidelity-endless": 10_000, "fidelity-real": 1_000}
)
"""The jobs that compare fake and kernel, by what limbo is, and how many operations each compares."""

JOBS: Final[Mapping[str, Job]] = MappingProxyType(
    {
        "scenarios-full": _scenarios(Machine.FULL),
        "fidelity-none": _fidelity(GuestConfig(num_rmids=10, llc_occupancy=False), "none", 10_000),
        "fidelity-endless": _fidelity(
            GuestConfig(num_rmids=20, endless_limbo=True, decay_ms=1), "endless", 10_000
        ),
        "scenarios-apart": _scenarios(Machine.FULL, *_APART),
        "scenarios-without-resctrl": _scenarios(Machine.WITHOUT_RESCTRL, *_about(Machine.WITHOUT_RESCTRL)),
        "scenarios-without-monitoring": _scenarios(
            Machine.WITHOUT_MONITORING, *_about(Machine.WITHOUT_MONITORING)
        ),
        # Long sequences, since limbo must end within them.
        "fidelity-real": _fidelity(GuestConfig(num_rmids=10), "real", 1_000, length=1_000),
    }
)
"""All of them, the longest first."""


@define
class Scenarios:
    """What a report of pytest says.

    Attributes:
        passed: How many tests passed, by file.
        others: What did not pass, with pytest's words.
    """

    passed: Counter[str] = field(factory=Counter)
    others: list[str] = field(factory=list)

    @classmethod
    def of(cls, outcome: Outcome) -> Scenarios:
        """Read the report of a job; without one nothing has passed."""
        report = cls()
        path = outcome.directory / "junit.xml"
        if not path.exists():
            return report
        for case in ET.parse(path).getroot().iter("testcase"):  # noqa: S314 - our own report
            file = case.get("classname", "").rpartition(".")[2] + ".py"
            what = next((child for child in case if child.tag in {"failure", "error", "skipped"}), None)
            if what is None:
                report.passed[file] += 1
            else:
                report.others.append(
                    f"{file}::{case.get('name')}: {what.tag}: {what.get('message')}\n{what.text}"
                )
        return report


@frozen
class Fidelity:
    """What a comparison found.

    Attributes:
        operations: How many were compared.
        differences: What differed, each as the shortest sequence that shows it.
        answers: How often each kind of operation was answered how.
        waited: The longest that limbo differed, seconds.
        seconds: How long it took.
    """

    operations: int
    differences: list[str]
    answers: Mapping[tuple[str, str], int]
    waited: float
    seconds: float

    @classmethod
    def of(cls, outcome: Outcome) -> Fidelity | None:
        """Read the report of a job; None where it left none."""
        try:
            report = json.loads((outcome.directory / "fidelity.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        answers = {(kind, answer): count for kind, answer, count in report.pop("answers")}
        return cls(answers=answers, **report)
