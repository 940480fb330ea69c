"""The site: `nox -s docs`, or `sphinx-build -n -W --keep-going -c docs . build/site`.

Owns: which files are pages, how they hang together, what may be left unlinked. Must not know: what they say.

Rules:
    1. The pages are the Markdown files that GitHub shows, with the same relative links: so the root of the
       repository is the root of the pages. Nothing is written twice for the site.
    2. The lists of links in `docs/index.md` are the navigation.
    3. The build needs no network, and no package that a page does not need.
"""  # noqa: INP001 - what Sphinx reads is no package

from __future__ import annotations

import html
import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import nri_resctrl_plugin  # noqa: E402 - found by the line above
import resctrl  # noqa: E402 - as above
import resctrl.testing  # noqa: E402 - as above

project = "resctrl"
author = "The resctrl authors"
copyright = author  # noqa: A001 - Sphinx' name
release = version = version_of("resctrl")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["*.md", "benchmarks/README.md", "docs/**.md"]
exclude_patterns = [".*", "build", "dist", "tests", "resctrl", "nri_resctrl_plugin", "tools"]
language = "en"
highlight_language = "none"
smartquotes = False  # a quoted value is to be typed as it stands
default_role = "code"  # docstrings write code in single backticks

myst_heading_anchors = 4  # as GitHub makes them

html_theme = "furo"
html_title = "resctrl"
html_extra_path = ["site"]
html_copy_source = False
html_show_copyright = False

add_module_names = False
python_use_unqualified_type_names = True
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

ALIASES: Final = {
    "ContainerId": "nri_resctrl_plugin.model",
    "DomainRate": "resctrl.rates",
    "PodResctrlEvent": "nri_resctrl_plugin.events",
    "PodUid": "nri_resctrl_plugin.model",
    "Reading": "resctrl.monitoring",
    "ResctrlGroupState": "nri_resctrl_plugin.events",
    "SandboxId": "nri_resctrl_plugin.model",
    "Tid": "resctrl.model",
    "TidSource": "resctrl.model",
}
"""Public names that are documented at home: what is written below an assignment is found nowhere else."""

nitpick_ignore_regex = [
    # The standard library's names: their pages are elsewhere, and its index is not fetched (rule 3).
    ("py:class", r"(pathlib\.)?Path"),
    ("py:class", r"collections\.abc\.\w+"),
    # The type variable that stands for a provider: it has no meaning of its own to look up.
    ("py:(class|obj)", r"([\w.]+\.)?P"),
    # Where blocking work runs: only this project's own tests hand another one over.
    ("py:class", r"Executor"),
    # Whatever has a `cgroups_path`: ContainerCgroup is what it is for.
    ("py:class", r"([\w.]+\.)?HasCgroupsPath"),
]

PUBLIC: Final = {
    name: f"{ALIASES.get(name, package.__name__)}.{name}"
    for package in (resctrl, resctrl.testing, nri_resctrl_plugin)
    for name in package.__all__
}
"""Where each public name is documented: under what it is imported from, whatever its home."""

MERMAID: Final = (
    '<script defer crossorigin="anonymous" src="https://cdn.jsdelivr.net/npm/mermaid@11.17.2/dist/mermaid.min.js"'
    ' integrity="sha384-EOXBFmc3gx5mb+vn0vPvvGqACToJD24hhacX5Yx+8NUUQrHIle/Qi5Bg9o3zKwW2"></script>'
)
"""Draws diagrams in the reader's browser, on the pages that have one; without it their text is shown."""

_DIAGRAM: Final = re.compile(r"^```mermaid\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_HEADING: Final = re.compile(r"^## (.*)\n", re.MULTILINE)
_LISTED: Final = re.compile(r"^- \[.*?\]\((.*?)\.md\)", re.MULTILINE)


def with_navigation(page: str) -> str:
    """Make each section's list of links a part of the navigation (rule 2)."""
    _, *rest = _HEADING.split(f"## All\n{page}" if "\n## " not in page else page)
    sections = zip(rest[::2], rest[1::2], strict=True)
    trees = [
        f"```{{toctree}}\n:hidden:\n:caption: {title}\n\n" + "\n".join(listed) + "\n```\n"
        for title, text in sections
        if (listed := _LISTED.findall(text))
    ]
    return "\n".join([page, *trees])


def with_diagrams(page: str) -> str:
    """Turn diagrams in Mermaid's language, which GitHub draws by itself, into what its script draws."""

    def raw(found: re.Match[str]) -> str:
        return f'```{{raw}} html\n<pre class="mermaid">\n{html.escape(found[1])}</pre>\n```'

    drawn, count = _DIAGRAM.subn(raw, page)
    return f"{drawn}\n```{{raw}} html\n{MERMAID}\n```\n" if count else page


def read_page(_app: object, docname: str, source: list[str]) -> None:
    """Change a page's text before it is parsed."""
    if docname in {root_doc, "docs/benchmarks/README"}:
        source[0] = with_navigation(source[0])
    source[0] = with_diagrams(source[0])


def find_public(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Find what an annotation calls by its home, or by its name alone, where it is documented."""
    name = node.get("reftarget", "").rpartition(".")[2]
    if node.get("refdomain") != "py" or name not in PUBLIC:
        return None
    target = PUBLIC[name]
    if target == node["reftarget"]:
        return None
    return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, contnode)


def setup(app: Any) -> None:
    """Connect the above."""
    kept: list[str] = []

    def keep(_app: object, what: str, _name: str, _of: object, _options: object, lines: list[str]) -> None:
        """Napoleon takes words before an attribute's first colon for its type; types are annotations here."""
        kept[:] = lines if what in {"attribute", "data", "property"} else []

    def give_back(*arguments: Any) -> None:
        arguments[-1][:] = kept or arguments[-1]

    app.connect("source-read", read_page)
    app.connect("missing-reference", find_public)
    app.connect("autodoc-process-docstring", keep, priority=100)
    app.connect("autodoc-process-docstring", give_back, priority=900)
