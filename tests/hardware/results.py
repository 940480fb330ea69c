"""What pytest's report says, and the summary of a lane.

Owns: reading junit.xml, counting, the Markdown. Must not know: how anything was run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from attrs import field, frozen

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Case", "Outcome", "Step", "read_cases", "summary"]


class Outcome(Enum):
    """How a test ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@frozen(kw_only=True)
class Case:
    """One test that was run.

    Attributes:
        module: Its module, dotted.
        name: Its name with its parameters.
        outcome: How it ended; an error of its set-up or tear-down is a failure.
        text: Why it did not pass: the reason of a skip, the report of a failure.
        seconds: How long it took, set-up and tear-down included.
        properties: What it recorded of itself.
    """

    module: str
    name: str
    outcome: Outcome
    text: str = ""
    seconds: float = 0.0
    properties: tuple[tuple[str, str], ...] = ()


@frozen(kw_only=True)
class Step:
    """One step of a lane.

    Attributes:
        name: What it is.
        status: The exit status of its pytest; 0 is success.
        cases: Its tests.
    """

    name: str
    status: int
    cases: Sequence[Case] = field(repr=False)

    @property
    def passed(self) -> bool:
        """Whether it succeeded: it ran, and nothing failed."""
        return self.status == 0 and any(it.outcome is Outcome.PASSED for it in self.cases)


def read_cases(junit: Path) -> list[Case]:
    """Return the tests of a report; none where there is no report, or half of one."""
    try:
        tree = ET.parse(junit)  # noqa: S314 - written by our own pytest a moment ago
    except (OSError, ET.ParseError):
        return []
    return [_case(element) for element in tree.iter("testcase")]


def _case(element: ET.Element) -> Case:
    outcome, text = Outcome.PASSED, ""
    for child in element:
        if child.tag in {"failure", "error"}:
            outcome, text = Outcome.FAILED, f"{text}{child.text or child.get('message', '')}\n"
        elif child.tag == "skipped" and outcome is Outcome.PASSED:
            outcome, text = Outcome.SKIPPED, child.get("message", "")
    return Case(
        module=element.get("classname", ""),
        name=element.get("name", ""),
        outcome=outcome,
        text=text.strip(),
        seconds=float(element.get("time", "0")),
        properties=tuple(
            (it.get("name", ""), it.get("value", "")) for it in element.findall("properties/property")
        ),
    )


def summary(title: str, steps: Sequence[Step], remarks: Sequence[str]) -> str:
    """Return a page of Markdown: how many tests ran, what was skipped and why, what failed.

    Args:
        title: The lane and how it ended.
        steps: Its steps.
        remarks: Lines to put below the title.
    """
    lines = [f"# {title}", "", *(f"- {it}" for it in remarks), ""]
    if steps:
        lines += [
            "| step | ran | passed | failed | skipped | seconds | status |",
            "|---|--:|--:|--:|--:|--:|--:|",
        ]
    for step in steps:
        count = Counter(it.outcome for it in step.cases)
        ran = len(step.cases) - count[Outcome.SKIPPED]
        cells = [
            step.name,
            ran,
            count[Outcome.PASSED],
            count[Outcome.FAILED],
            count[Outcome.SKIPPED],
            round(sum(it.seconds for it in step.cases)),
            step.status,
        ]
        lines.append(f"| {' | '.join(str(it) for it in cells)} |")
    lines += _section("Skipped", steps, Outcome.SKIPPED)
    lines += _section("Failed", steps, Outcome.FAILED)
    recorded = [(it, pair) for step in steps for it in step.cases for pair in it.properties]
    if recorded:
        lines += [
            "",
            "## Recorded",
            "",
            *(f"- `{it.name}`: {key} = {value}" for it, (key, value) in recorded),
        ]
    return "\n".join([*lines, ""])


def _section(title: str, steps: Sequence[Step], outcome: Outcome) -> list[str]:
    found = [it for step in steps for it in step.cases if it.outcome is outcome]
    if not found:
        return []
    rows = [f"- `{it.module}::{it.name}`: {_last_line(it.text)}" for it in found]
    return ["", f"## {title}", "", *rows]


def _last_line(text: str) -> str:
    """Return what a report ends with; the whole text is in the report itself."""
    return text.rstrip().rpartition("\n")[2] or "no reason given"
