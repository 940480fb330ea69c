"""The page of beliefs and the tests that prove them stay together."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs/explanation/kernel-semantics.md"
KIT = HERE.parents[1] / "resctrl/testing"
ROW = re.compile(r"^\| (K\d\d) \| (.+) \| (.+) \| `(test_\w+)` \|$", re.MULTILINE)
NUMBER = re.compile(r"\bK\d\d\b")


def rows() -> list[tuple[str, str, str, str]]:
    """Return number, belief, source and test of each row."""
    return [match.groups() for match in ROW.finditer(PAGE.read_text("utf-8"))]  # type: ignore[misc]


def proofs() -> set[tuple[str, str]]:
    """Return (number, test) as the docstrings of the fake's tests tell it."""
    found: set[tuple[str, str]] = set()
    for file in sorted(HERE.glob("test_fake_*.py")):
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found |= {(number, node.name) for number in NUMBER.findall(ast.get_docstring(node) or "")}
    return found


def test_every_belief_is_proven() -> None:
    """Each row names a test whose docstring names the row, and no docstring names a row that is not there."""
    table = {(number, test) for number, _, _, test in rows()}
    assert len(table) == len(rows()) > 60
    assert table <= proofs()
    assert {number for number, _ in proofs()} == {number for number, _ in table}


def test_every_belief_has_a_number_and_a_source() -> None:
    """No number is used twice, every source is a kernel function or a run, and no row is misshapen."""
    numbers = [number for number, _, _, _ in rows()]
    assert numbers == sorted(set(numbers))
    assert all(re.match(r"run|`\w+`", source) for _, _, source, _ in rows())
    assert len(numbers) == sum(line.startswith("| K") for line in PAGE.read_text("utf-8").splitlines())


def test_the_code_refers_to_rows_that_exist() -> None:
    """A number in the fake's comments is one of the table."""
    used = {number for file in KIT.glob("*.py") for number in NUMBER.findall(file.read_text("utf-8"))}
    assert used
    assert used <= {number for number, _, _, _ in rows()}
