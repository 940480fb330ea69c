"""The documents keep their promises: links lead somewhere, commands are the ones that CI runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")


def _anchor(heading: str) -> str:
    """Return the anchor that a Markdown heading gets."""
    text = re.sub(r"[`*]", "", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def _anchors(document: Path) -> set[str]:
    return {_anchor(line.lstrip("#")) for line in document.read_text().splitlines() if line.startswith("#")}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link names a file of this project, and every anchor a heading of it."""
    broken = []
    for target in LINK.findall(document.read_text()):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        if not path.is_relative_to(ROOT) or not path.exists() or (anchor and anchor not in _anchors(path)):
            broken.append(target)
    assert not broken


def test_every_page_is_reachable_from_the_readme() -> None:
    """A page that no other page links to is a page nobody reads."""
    linked = {
        (document.parent / target.partition("#")[0]).resolve()
        for document in DOCUMENTS
        for target in LINK.findall(document.read_text())
        if "://" not in target
    }
    pages = {page for page in DOCUMENTS if page.is_relative_to(ROOT / "docs")}
    assert not {str(page.relative_to(ROOT)) for page in pages - linked}


def _block(marker: str) -> str:
    found = re.search(rf"<!-- {marker} -->\n```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found is not None
    return found.group(1)


def test_the_readme_opens_with_two_commands_of_one_line() -> None:
    """A newcomer pastes one line to see the main job and one line to run the checks."""
    assert _block("first").count("\n") == 1
    assert _block("first").rstrip().endswith("nri-resctrl-plugin demo")
    assert _block("second").count("\n") == 1
    assert _block("second").rstrip().endswith("nox")


def test_a_real_node_takes_five_lines() -> None:
    """The README gets a real node going in five lines."""
    assert _block("node").count("\n") == 5


def test_ci_runs_the_commands_of_the_readme() -> None:
    """CI takes both commands out of the README instead of repeating them."""
    script = (ROOT / ".ci" / "run").read_text()
    assert "readme first" in script
    assert "readme second" in script


def test_every_third_party_action_is_pinned() -> None:
    """A workflow uses a foreign action only at a full commit id, with its version as a comment."""
    uses = [
        line.strip()
        for workflow in (ROOT / ".github" / "workflows").glob("*.yml")
        for line in workflow.read_text().splitlines()
        if "uses:" in line
    ]
    assert uses
    assert not [line for line in uses if not re.search(r"uses: (\./|[\w./-]+@[0-9a-f]{40} # v\d)", line)]
