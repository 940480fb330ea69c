"""Lanes: the kinds of machine that tests need, and how many tests each has.

    python -m tests.lanes            checks the table in docs/runbooks/lanes.md
    python -m tests.lanes --write    draws it anew

Owns: which test belongs to which lane, the table and its numbers. Must not know: how a lane is run.

Rules:
    1. The table is drawn by collection, never by hand; a test of the default session keeps it fresh.
    2. A required lane is green only when as many of its tests passed as the table says: no more, no less.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from attrs import define, field, frozen

from tests.worlds import LISTED_SKIPS, WORLDS, Capability, Machine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["LANES", "Tally", "expected", "lane_of", "machine_of", "main", "reason_of", "skips_of", "world_of"]

LANES: Final = (*WORLDS, "containerd", "node")
"""What `--require` may name."""

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "runbooks" / "lanes.md"
_BEGIN: Final = "<!-- The tables are drawn by `python -m tests.lanes --write`: run it, do not edit. -->\n"
_END: Final = "<!-- End of the tables. -->\n"
_DIRECTORIES: Final = {"e2e": "containerd", "kernel": "kernel", "node": "node"}
_SUM: Final = "all"


def world_of(item: pytest.Item) -> str | None:
    """Return the world in which a scenario runs; None for every other test."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("world") if callspec is not None else None


def machine_of(item: pytest.Item) -> Machine:
    """Return the machine that a scenario is about."""
    mark = item.get_closest_marker("machine")
    return mark.args[0] if mark is not None else Machine.FULL


def needs_of(item: pytest.Item) -> set[Capability]:
    """Return what a scenario needs of its world."""
    return {capability for mark in item.iter_markers("needs") for capability in mark.args}


def skips_of(item: pytest.Item) -> list[Capability | Machine]:
    """Return what a scenario needs and its world never has; nothing for all but a few."""
    world = world_of(item)
    if world is None:
        return []
    return sorted(LISTED_SKIPS[world] & {machine_of(item), *needs_of(item)}, key=str)


def reason_of(world: str, lacking: Capability | Machine) -> str:
    """Return why a world skips a scenario."""
    if isinstance(lacking, Capability):
        return f"the world {world!r} cannot do this: {lacking.value}"
    return f"the world {world!r} is never a machine {lacking.value.replace('-', ' ')}"


def lane_of(item: pytest.Item) -> str | None:
    """Return the lane to which a test belongs; None for a test that runs everywhere."""
    if (world := world_of(item)) is not None:
        return world
    parts = item.path.relative_to(item.config.rootpath).parts
    lane = next((_DIRECTORIES[part] for part in parts if part in _DIRECTORIES), None)
    # Below tests/kernel only what boots a guest is the lane; the builder's own tests run everywhere. Below
    # tests/node only what runs on the node is; the other tests judge the lane itself, from outside.
    wanted = {"kernel": "image", "node": "node"}.get(lane or "")
    if wanted is not None and wanted not in getattr(item, "fixturenames", ()):
        return None
    return lane


@frozen
class Skip:
    """A scenario that one world leaves out."""

    name: str
    world: str
    reason: str


@define
class Tally:
    """Counts what a session collects; a plugin of pytest.

    Attributes:
        scenarios: Tests to pass, by file and world.
        lanes: Tests to pass, by lane, without those in worlds.
        skips: The scenarios to be skipped.
    """

    scenarios: Counter[tuple[str, str]] = field(factory=Counter)
    lanes: Counter[str] = field(factory=Counter)
    skips: list[Skip] = field(factory=list)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Count."""
        for item in session.items:
            lane = lane_of(item)
            world = world_of(item)
            if world is not None:
                lacking = skips_of(item)
                self.scenarios[item.path.name, world] += not lacking
                self.skips += [Skip(item.name, world, reason_of(world, each)) for each in lacking]
            elif lane is not None:
                self.lanes[lane] += 1

    def rows(self) -> list[list[str]]:
        """Return the scenario x world table without its head."""
        files = sorted({file for file, _ in self.scenarios})
        rows = [[f"`{file}`", *(str(self.scenarios[file, world]) for world in WORLDS)] for file in files]
        sums = [str(sum(self.scenarios[file, world] for file in files)) for world in WORLDS]
        return [*rows, [_SUM, *sums]]

    def text(self) -> str:
        """Return the tables."""
        lanes = [[f"`{lane}`", str(self.lanes[lane])] for lane in LANES if self.lanes[lane]]
        skips = [[f"`{skip.name}`", skip.reason] for skip in self.skips]
        return "\n".join(
            [
                _table(["scenarios that must pass", *WORLDS], self.rows()),
                _table(["skipped scenario", "why"], skips),
                _table(["lane", "tests of its own that must pass"], lanes),
            ]
        )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def collected(paths: Sequence[str] = ("tests",)) -> Tally:
    """Collect all tests of all lanes, in this process, and count them.

    Raises:
        RuntimeError: The collection failed; its output is in the message.
    """
    tally, output = Tally(), io.StringIO()
    lanes = ",".join(lane for lane in LANES if lane not in WORLDS or lane == "kernel")
    arguments = ["--collect-only", "-qq", "-p", "no:cacheprovider", "--machine=any", f"--require={lanes}"]
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        status = pytest.main([*arguments, f"--world={','.join(WORLDS)}", *paths], plugins=[tally])
    if status != pytest.ExitCode.OK:
        raise RuntimeError(output.getvalue()[-4000:])
    return tally


def drawn(page: str, tables: str) -> str:
    """Return the page with these tables."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"the page lacks the lines {_BEGIN!r} and {_END!r}")
    return f"{before}{begin}\n{tables}\n{end}{after}"


def expected(page: str | None = None) -> Mapping[str, int]:
    """Return how many tests must pass in each lane, as the page says; lanes without a test are left out."""
    numbers: dict[str, int] = {}
    for cells in _cells(page):
        if cells[0] == _SUM:
            numbers.update(zip(WORLDS, map(int, cells[1:]), strict=True))
    own = {cells[0].strip("`"): int(cells[1]) for cells in _cells(page) if cells[0].strip("`") in LANES}
    return {**numbers, **own}


def expected_scenarios(world: str, page: str | None = None) -> Mapping[str, int]:
    """Return how many tests of each file must pass in a world, as the page says."""
    column = 1 + list(WORLDS).index(world)
    rows = (cells for cells in _cells(page) if cells[0].endswith(".py`"))
    return {cells[0].strip("`"): int(cells[column]) for cells in rows}


def _cells(page: str | None) -> list[list[str]]:
    text = page if page is not None else PAGE.read_text(encoding="utf-8")
    lines = text.partition(_BEGIN)[2].partition(_END)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def main(arguments: Sequence[str]) -> int:
    """Check the page, or write it. Return 1 where it is stale."""
    old = PAGE.read_text(encoding="utf-8")
    new = drawn(old, collected().text())
    if new == old:
        return 0
    if "--write" in arguments:
        PAGE.write_text(new, encoding="utf-8")
        return 0
    sys.stderr.write(f"{PAGE} is stale: run python -m tests.lanes --write\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
