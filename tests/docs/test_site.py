"""The site's pages, as far as they can be judged without building it; `nox -s docs` builds it."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


@pytest.mark.parametrize(
    ("package", "page"),
    [
        ("resctrl", "resctrl"),
        ("resctrl.testing", "resctrl-testing"),
        ("nri_resctrl_plugin", "nri-resctrl-plugin"),
    ],
)
def test_every_public_name_is_in_the_reference(package: str, page: str) -> None:
    """Each name of `__all__` stands there once, and nothing that is no public name."""
    text = (DOCS / "reference" / f"{page}.md").read_text(encoding="utf-8")
    named = re.findall(r"^\.\. auto\w+:: ([\w.]+)$", text, re.MULTILINE)
    assert sorted(name.rpartition(".")[2] for name in named) == sorted(import_module(package).__all__)
    assert all(name.startswith(package) for name in named)


def test_the_index_leads_to_every_page() -> None:
    """The lists of the index and of the benchmarks are the navigation: a page in none is found by nobody."""
    listed = {
        (page.parent / link).resolve()
        for page in (DOCS / "index.md", DOCS / "benchmarks" / "README.md")
        for link in re.findall(r"^- \[.*?\]\((.*?\.md)\)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert set(DOCS.rglob("*.md")) - listed == {DOCS / "index.md"}
