"""What every benchmark says at its end: the same figures, the same table, the same plot.

Owns: quantiles, the machine's facts, the page in docs/benchmarks and its plot. Must not know: what is
measured.

Rules:
    1. A page is written whole by its command; nobody edits it.
    2. Times are told with what else the machine did: how many processors, how many runnable tasks.
    3. A plot is an SVG of plain shapes. It has a background of its own, so it can be read on any page.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import Factory, define, frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Bar", "Curve", "Page", "Spread", "bars", "curves", "options", "require", "table"]

PAGES: Final = Path(__file__).resolve().parents[1] / "docs" / "benchmarks"
_COLOURS: Final = ("#0b6e99", "#c2571a", "#4a7c2c", "#7a4fa3", "#8a6d00")
_WIDTH: Final = 720
_LEFT: Final = 230
_FONT: Final = 'font-family="sans-serif" font-size="13"'


def require(condition: object, what: str) -> None:
    """End the benchmark where something other than time is wrong.

    Raises:
        SystemExit: The condition is false.
    """
    if not condition:
        raise SystemExit(f"not so: {what}")


def options(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser that has what every benchmark has."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=PAGES, help="where the page and its plot go (docs/benchmarks)"
    )
    return parser


@frozen
class Spread:
    """Where a number of measurements lies.

    Attributes:
        count: How many there are.
        least: The smallest.
        low: The first quartile.
        median: The median.
        high: The third quartile.
        most: The largest.
    """

    count: int
    least: float
    low: float
    median: float
    high: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Sum up at least one measurement."""
        ordered = sorted(values)
        low, median, high = (
            statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else ordered * 3
        )
        return cls(len(ordered), ordered[0], low, median, high, ordered[-1])

    def __format__(self, spec: str) -> str:
        """Write `median (least to most)`, each as the specification says."""
        return f"{self.median:{spec}} ({self.least:{spec}} to {self.most:{spec}})"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown; the first column is words, the others are figures."""
    lines: list[Sequence[object]] = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


@define
class Page:
    """What a benchmark found.

    Attributes:
        name: Of the page and of the plot, without an ending.
        title: The page's heading.
        what: What is measured and how, a paragraph.
        command: What makes the page anew.
        facts: Further lines about the run: sizes, repetitions.
        parts: Tables and paragraphs, in order.
        plot: The plot, and what it shows in words.
    """

    name: str
    title: str
    what: str
    command: str
    facts: Mapping[str, object] = Factory(dict)
    parts: Sequence[str] = ()
    plot: tuple[str, str] | None = None
    _load: tuple[float, ...] = Factory(os.getloadavg)

    def text(self) -> str:
        """Return the page."""
        facts = {
            "machine": f"{os.cpu_count()} processors, Linux {platform.release()}, {platform.machine()}",
            "interpreter": f"Python {platform.python_version()}",
            "load": f"{self._load[0]:.1f} runnable tasks on average in the minute before, "
            f"{os.getloadavg()[0]:.1f} in the last one, this benchmark included",
            **self.facts,
        }
        shown = "" if self.plot is None else f"![{self.plot[1]}]({self.name}.svg)\n\n"
        return (
            f"# {self.title}\n\nMade by `{self.command}`; do not edit. "
            "The method is in [the benchmarks' README](../../benchmarks/README.md).\n\n"
            f"{self.what.strip()}\n\n{shown}"
            + "\n".join(part.rstrip("\n") + "\n" for part in self.parts)
            + "\n"
            + table(["this run", ""], facts.items()).replace("---:", "---")
        )

    def write(self, folder: Path) -> None:
        """Write the page and the plot, and print the page."""
        folder.mkdir(parents=True, exist_ok=True)
        text = self.text()
        (folder / f"{self.name}.md").write_text(text, encoding="utf-8")
        if self.plot is not None:
            (folder / f"{self.name}.svg").write_text(self.plot[0], encoding="utf-8")
        print(text, flush=True)


@frozen
class Bar:
    """One bar of a plot.

    Attributes:
        label: What it is.
        value: How long it is.
        limit: What it must stay under, or None.
        said: The value as text.
        colour: Number of its colour.
    """

    label: str
    value: float
    said: str
    limit: float | None = None
    colour: int = 0


def bars(title: str, rows: Sequence[Bar]) -> str:
    """Return a plot of horizontal bars; a limit is a thin line across its bar."""
    longest = max([*(row.value for row in rows), *(row.limit or 0.0 for row in rows)]) or 1.0
    scale = (_WIDTH - _LEFT - 110) / longest
    shapes = []
    for index, row in enumerate(rows):
        top = 44 + 30 * index
        colour = _COLOURS[row.colour % len(_COLOURS)]
        end = _LEFT + max(row.value * scale, 1.0)
        shapes += [
            f'<text x="{_LEFT - 10}" y="{top + 14}" text-anchor="end">{escape(row.label)}</text>',
            f'<rect x="{_LEFT}" y="{top}" width="{end - _LEFT:.1f}" height="20" fill="{colour}"/>',
        ]
        if row.limit is not None:
            at = _LEFT + row.limit * scale
            shapes.append(
                f'<line x1="{at:.1f}" y1="{top - 3}" x2="{at:.1f}" y2="{top + 23}" stroke="#b00020" '
                'stroke-width="2"/>'
            )
            end = max(end, at)
        shapes.append(f'<text x="{end + 6:.1f}" y="{top + 14}">{escape(row.said)}</text>')
    return _drawing(title, 54 + 30 * len(rows), shapes)


@frozen
class Curve:
    """One line of a plot.

    Attributes:
        label: What it is.
        points: (x, y), all above 0, x rising.
    """

    label: str
    points: Sequence[tuple[float, float]]


def curves(title: str, x_label: str, y_label: str, lines: Sequence[Curve]) -> str:
    """Return a plot of lines with logarithmic axes."""
    left, top, right, bottom = 80, 44, _WIDTH - 150, 380
    across = _Axis([x for line in lines for x, _ in line.points], left, right)
    upward = _Axis([y for line in lines for _, y in line.points], bottom, top)
    shapes = []
    for value in across.ticks():
        at = across.place(value)
        shapes += [
            f'<line x1="{at:.1f}" y1="{top}" x2="{at:.1f}" y2="{bottom}" stroke="#dddddd"/>',
            f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{value:g}</text>',
        ]
    for value in upward.ticks():
        at = upward.place(value)
        shapes += [
            f'<line x1="{left}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}" stroke="#dddddd"/>',
            f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>',
        ]
    for index, line in enumerate(lines):
        colour = _COLOURS[index % len(_COLOURS)]
        places = [(across.place(x), upward.place(y)) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        shapes.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        shapes += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places]
        x, y = places[-1]
        shapes.append(f'<text x="{x + 8:.1f}" y="{y + 4:.1f}" fill="{colour}">{escape(line.label)}</text>')
    shapes += [
        f'<text x="{(left + right) / 2:.0f}" y="{bottom + 40}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text x="{left}" y="{top - 8}">{escape(y_label)}</text>',
    ]
    return _drawing(title, bottom + 54, shapes)


class _Axis:
    """A logarithmic axis of whole decades."""

    def __init__(self, values: Sequence[float], begin: float, end: float) -> None:
        self._low = math.floor(math.log10(min(values)))
        self._high = max(math.ceil(math.log10(max(values))), self._low + 1)
        self._begin, self._end = begin, end

    def place(self, value: float) -> float:
        part = (math.log10(value) - self._low) / (self._high - self._low)
        return self._begin + part * (self._end - self._begin)

    def ticks(self) -> list[float]:
        return [10.0**power for power in range(self._low, self._high + 1)]


def _drawing(title: str, height: int, shapes: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" {_FONT} '
        f'fill="#222222">\n<title>{escape(title)}</title>\n'
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>\n'
        f'<text x="14" y="22" font-size="15" font-weight="bold">{escape(title)}</text>\n'
        + "\n".join(shapes)
        + "\n</svg>\n"
    )
