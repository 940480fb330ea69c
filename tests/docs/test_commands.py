"""The commands that the README, the quickstart and the guides tell to type are typed here, by a newcomer.

A newcomer has a fresh checkout, git and python3; the packages come from wherever pip gets them. That takes a
minute and mostly a network, so these tests run where they are asked for: `nox -s docs` sets RESCTRL_NEWCOMER.

A comment above a block says what cannot be run here and why, or which exit status is no failure:

    <!-- not run by a test: REASON -->
    <!-- exit 0 or 1: REASON -->
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

import pytest
from attrs import frozen

ROOT: Final = Path(__file__).resolve().parents[2]
GUIDES: Final = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs/guides").glob("*.md"))
PAGES: Final = ("README.md", "docs/quickstart.md", *GUIDES)

NOT_RUN: Final = {
    "README.md": ["second", "node"],
    "docs/quickstart.md": ["grep resctrl", "nri-resctrl-plugin run", "cat /sys/fs/resctrl"],
    "docs/guides/contributor.md": ["python3 -m venv"],
}
"""What nobody types here: the name of the block, or how it begins."""

PATH_OF_A_NEWCOMER: Final = ("first", "machine", "agent")
LONGEST: Final = 180.0
"""Seconds that a newcomer has at most from the first command to the agent's end."""

_BLOCK: Final = re.compile(
    r"(?P<comments>(?:^<!--[^\n]*-->\n)*)^```sh\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_KEPT: Final = re.compile(r"PATH|PIP_\w+|\w+_(proxy|PROXY)|SSL_CERT_FILE|REQUESTS_CA_BUNDLE|LANG|LC_\w+")


@frozen
class Block:
    """Commands of a page.

    Attributes:
        text: The commands.
        name: What a comment calls it, if one does.
        excuse: Why it is not run.
        statuses: With which it may end.
    """

    text: str
    name: str
    excuse: str | None
    statuses: frozenset[int]

    def is_called(self, what: str) -> bool:
        """Tell whether it has this name, or begins like this."""
        return what == self.name or (not self.name and self.text.startswith(what))


def blocks_of(page: str) -> list[Block]:
    """Return a page's blocks, in order."""
    blocks = []
    for found in _BLOCK.finditer((ROOT / page).read_text(encoding="utf-8")):
        comments = re.findall(r"<!-- (.*?) -->", found["comments"])
        excuses = [
            comment.partition(": ")[2] for comment in comments if comment.startswith("not run by a test")
        ]
        ends = [re.match(r"exit (\d+) or (\d+): \w", comment) for comment in comments]
        statuses = frozenset({0, *(int(status) for end in ends if end for status in end.groups())})
        names = [comment for comment in comments if comment.isalpha()]
        excuse = excuses[0] if excuses else None
        blocks.append(Block(found["text"], "".join(names), excuse, statuses))
    return blocks


@pytest.mark.parametrize("page", PAGES)
def test_what_is_not_run_is_listed(page: str) -> None:
    """No block slips through: one that is not run has a reason, and stands in the list above."""
    excused = [block for block in blocks_of(page) if block.excuse is not None]
    listed = NOT_RUN.get(page, [])
    assert len(excused) == len(listed)
    assert all(block.is_called(what) for block, what in zip(excused, listed, strict=True))
    assert all(block.excuse and " " in block.excuse for block in excused)


def test_every_block_says_what_it_is_written_in() -> None:
    """README and quickstart hide no command in a fence without a language."""
    for page in ("README.md", "docs/quickstart.md"):
        opening = (ROOT / page).read_text(encoding="utf-8").splitlines()
        fences = [line for line in opening if line.startswith("```")][::2]
        assert set(fences) <= {"```sh", "```python", "```json"}
        assert fences.count("```sh") == len(blocks_of(page))


def test_the_newcomers_path_is_run() -> None:
    """The README's first command, the doctor and the agent are there, in this order, and none is excused."""
    named = [block for block in blocks_of("README.md") if block.name in PATH_OF_A_NEWCOMER]
    assert [block.name for block in named] == list(PATH_OF_A_NEWCOMER)
    assert [block.excuse for block in named] == [None] * len(named)
    assert "doctor" in named[1].text
    assert "agent" in named[2].text


class Newcomer:
    """Somebody at a fresh checkout."""

    def __init__(self, directory: Path) -> None:
        self._checkout = directory / "checkout"
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        )  # fmt: skip
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (self._checkout / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self._checkout / name)
        self._environment = {
            **{name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)},
            "HOME": str(directory),
        }
        self._typed: set[str] = set()

    def types(self, block: Block) -> float:
        """Type a block, unless it was typed before; return the seconds that it took."""
        if block.text in self._typed:
            return 0.0
        began = time.monotonic()
        run = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=self._checkout, env=self._environment, timeout=600,
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        took = time.monotonic() - began
        assert run.returncode in block.statuses, f"{block.text}{run.stdout[-2000:]}{run.stderr[-4000:]}"
        self._typed.add(block.text)
        return took


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Newcomer:
    """A newcomer, where one is asked for."""
    if not os.environ.get("RESCTRL_NEWCOMER"):
        pytest.skip("installs packages: asked for by `nox -s docs`, or RESCTRL_NEWCOMER=1")
    return Newcomer(tmp_path_factory.mktemp("newcomer"))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_run(newcomer: Newcomer, page: str) -> None:
    """Each command that a page tells to type ends as the page says, in the order of the page."""
    took = {block.name: newcomer.types(block) for block in blocks_of(page) if block.excuse is None}
    if page == "README.md":
        assert sum(took[name] for name in PATH_OF_A_NEWCOMER) < LONGEST
