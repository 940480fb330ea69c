"""The hardware lane's script itself, by what it left: it ran in the guest as it would on a rack."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING

from tests.hardware.results import Outcome, read_cases
from tests.lanes import expected, expected_scenarios
from tests.node.in_guest import PREFIX
from tests.node.test_churn import LIFECYCLES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.node.in_guest import LaneRun


def test_it_passed(lane: LaneRun) -> None:
    """The script's status is the lane's: 0 after every step ran and nothing failed."""
    assert lane.guest.status == 0, lane.guest.reason or lane.guest.text[-4000:]


def test_every_scenario_ran_in_the_hardware_world(lane: LaneRun) -> None:
    """The bodies of S1 to S7 passed, as many of each file as the table says; each skip has its reason."""
    cases = read_cases(lane.artifacts / "scenarios.xml")
    passed = Counter(f"{it.module.rpartition('.')[2]}.py" for it in cases if it.outcome is Outcome.PASSED)
    assert passed == expected_scenarios("hardware")
    assert all(it.text for it in cases if it.outcome is Outcome.SKIPPED)
    assert {it.outcome for it in cases} == {Outcome.PASSED, Outcome.SKIPPED}


def test_every_node_scenario_ran(lane: LaneRun) -> None:
    """As many passed as the table says, and what they measured shows that they met what they are about."""
    assert [it.outcome for it in lane.cases] == [Outcome.PASSED] * expected()["node"]
    recorded = Counter[str]()
    for case in lane.cases:
        for name, value in case.properties:
            recorded[name] += int(value)
    assert recorded["pod lifecycles"] == LIFECYCLES
    # In the guest every freed RMID rests for a second, so that somebody must have been refused for it.
    assert recorded["refusals while in limbo"] > 0


def test_the_summary_tells_what_ran_and_what_did_not(lane: LaneRun) -> None:
    """A row for each step, the reason of each skip, and each number that was measured."""
    page = (lane.artifacts / "summary.md").read_text()
    assert page.startswith("# Hardware lane: passed\n")
    rows = dict(re.findall(r"^\| (\w+) \| (\d+) \|", page, re.MULTILINE))
    assert {name: int(ran) for name, ran in rows.items()} == {
        "scenarios": expected()["hardware"],
        "node": expected()["node"],
    }
    skipped = [it for it in read_cases(lane.artifacts / "scenarios.xml") if it.outcome is Outcome.SKIPPED]
    assert all(f"::{it.name}`: {it.text}" in page for it in skipped)
    assert f"pod lifecycles = {LIFECYCLES}" in page


def test_it_leaves_everything_to_look_at(lane: LaneRun) -> None:
    """The tree with its groups, the kernel's last words, dmesg, and each life's log and events."""
    before = (lane.artifacts / "before-removal-resctrl.txt").read_text()
    assert "info/L3_MON/num_rmids:\n    64\n" in before
    assert "mon_data/mon_L3_00/llc_occupancy\n" in before
    assert (lane.artifacts / "before-removal-last_cmd_status.txt").read_text().strip()
    assert "fakerdt" in (lane.artifacts / "dmesg.txt").read_text()
    lives = {it.name.split(".")[0] for it in lane.artifacts.glob("*.jsonl")}
    assert len(lives) == 9, "one a start of the program"
    for life in lives:
        assert _lines(lane.artifacts / f"{life}.events.jsonl"), f"{life} told nothing"
        log = _lines(lane.artifacts / f"{life}.log.jsonl")
        assert any(it["event"] == "startup_cleanup" for it in log), f"{life} did not sweep"


def test_it_leaves_the_machine_as_it_found_it(lane: LaneRun) -> None:
    """No group of the run is left, the last scenario's among them, and its mount is gone."""
    page = (lane.artifacts / "summary.md").read_text()
    assert PREFIX not in (lane.artifacts / "after-removal-resctrl.txt").read_text()
    assert "0 groups of this run were left to the teardown" in page
    assert "the lane unmounted it again" in page


def _lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]
