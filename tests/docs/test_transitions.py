"""The page that is drawn from the rules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from nri_resctrl_plugin.pods_rules import RULES

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "transitions.md"


def test_page_is_up_to_date() -> None:
    """The transition tables in the docs are the rows that the table executes."""
    check = [sys.executable, "docs/render_transitions.py", "--check"]
    run = subprocess.run(
        check, cwd=ROOT, env={"PYTHONPATH": "."}, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_page_has_every_row() -> None:
    """No row is left out, and none stands twice: the tables of rows are those with four columns."""
    lines = [line for line in PAGE.read_text().splitlines() if line.count("|") == 5]
    heads = 2 * len(("sandbox", "group", "container"))
    assert len(lines) - heads == len({*RULES.sandbox, *RULES.group, *RULES.container})
