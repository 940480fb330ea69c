"""The tables that are drawn from the program."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import fields

from nri_resctrl_plugin import ResctrlPluginConfig
from nri_resctrl_plugin.cli import main
from nri_resctrl_plugin.metrics import names

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"


def drawn(name: str) -> list[list[str]]:
    """Return the cells of a drawn table's rows."""
    text = "".join(path.read_text() for path in REFERENCE.glob("*.md"))
    found = re.search(rf"<!-- {name}: drawn.*?-->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert found is not None
    rows = [line.strip("| ").split(" | ") for line in found[1].splitlines() if line.startswith("| ")]
    return rows[2:]


def test_the_tables_are_up_to_date() -> None:
    """Settings, flags and metrics in the reference are those that the program has."""
    check = [sys.executable, "docs/render_reference.py", "--check"]
    run = subprocess.run(
        check, cwd=ROOT, env={"PYTHONPATH": "."}, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_every_setting_is_told_with_its_meaning() -> None:
    """None is left out, whatever its kind, and none has an empty meaning."""
    rows = drawn("settings")
    assert [row[0] for row in rows] == [f"`{each.name}`" for each in fields(ResctrlPluginConfig)]
    assert [row for row in rows if len(row[3]) < len("Where it is.")] == []


@pytest.mark.parametrize("command", ["run", "demo", "doctor", "top", "cleanup"])
def test_every_flag_is_told(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What `-h` lists stands in the table."""
    with pytest.raises(SystemExit):
        main([command, "--help"], {})
    listed = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}
    assert listed == {
        flag for row in drawn(f"flags of {command}") for flag in re.findall(r"--[a-z][a-z-]+", row[0])
    }


def test_every_counter_with_a_name_of_its_own_is_told() -> None:
    """Whoever names another counter lists it."""
    assert {row[3].strip("`") for row in drawn("counters")} == set(names._NAMES)
