"""What is shown of a group at one moment.

Owns: the values, their state in one word, and their order. Must not know: where they
come from, how they look.

Rules:
    1. No number is invented: what was not told is None, and the state says why.
    2. What does not tell a number comes last, whichever way the rows are sorted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from resctrl import (
    EventKind,
    GroupReading,
    Rate,
    ReadError,
    Reset,
    Total,
    Unassigned,
    Unavailable,
    Value,
    event_kind,
    rate,
)
from resctrl.monitoring import leaves

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resctrl import Reading, ResctrlError

__all__ = ["GroupKind", "Row", "View", "row_of", "sort_rows"]

NEW: Final = "new"
GOOD: Final = "ok"
_EVENT_OF_KEY: Final = {"occupancy": "llc_occupancy", "total": "mbm_total_bytes", "local": "mbm_local_bytes"}


class GroupKind(Enum):
    """What kind of group it is. A control group's counters include those of its monitoring groups."""

    DEFAULT = "default"
    CONTROL = "control"
    MONITOR = "monitor"


@frozen
class Row:
    """A group.

    Attributes:
        path: Its directory.
        name: How it is called: relative to the root, without `mon_groups`.
        kind: What it is.
        ours: It bears our prefix.
        threads: How many threads are in it, as last counted; None if never.
        state: One word, or word and number: "ok", "new" (no earlier reading), "reset", or what some of its
            counters told instead of a number, such as "Unavailable 1/6".
        reading: What was read; None where that failed.
        rates: Units a second since the reading before, by event; empty for a new group.
    """

    path: Path
    name: str
    kind: GroupKind
    ours: bool
    threads: int | None
    state: str
    reading: GroupReading | None = None
    rates: Mapping[str, Rate] = field(factory=dict, hash=False)

    def total(self, event: str) -> Total:
        """Return an event's sum over the domains."""
        return self.reading.total(event) if self.reading is not None else Total(None, complete=False)

    def per_second(self, event: str) -> float | None:
        """Return how fast an event grows over all domains that tell; None if none does."""
        found = self.rates.get(event)
        return found.total if found is not None and isinstance(found.total, float) else None

    def sort_value(self, key: str) -> float | None:
        """Return the number by which the row is sorted; None if there is none."""
        if key == "threads":
            return self.threads
        event = _EVENT_OF_KEY[key]
        return self.total(event).amount if key == "occupancy" else self.per_second(event)


@frozen
class View:
    """All groups at one moment.

    Attributes:
        rows: In the order of their directories.
        num_rmids: RMIDs of the machine; None if it does not tell.
        in_use: RMIDs that groups have, the default group's among them.
        unheld: How many groups were read file by file, since no more files could be held open.
    """

    rows: tuple[Row, ...]
    num_rmids: int | None
    in_use: int
    unheld: int = 0

    @property
    def events(self) -> tuple[str, ...]:
        """The events that any group has, sorted."""
        found = {event for row in self.rows if row.reading is not None for event in row.reading.events}
        return tuple(sorted(found))


def row_of(  # noqa: PLR0913 - the parts of a row
    path: Path,
    name: str,
    kind: GroupKind,
    *,
    ours: bool,
    threads: int | None,
    later: GroupReading | ResctrlError,
    earlier: GroupReading | None,
) -> Row:
    """Return the row of a group.

    Args:
        path: Its directory.
        name: How it is called.
        kind: What it is.
        ours: It bears our prefix.
        threads: How many there are.
        later: What was read now, or why nothing was.
        earlier: What was read before.
    """
    if isinstance(later, Exception):
        return Row(path, name, kind, ours, threads, type(later).__name__.removesuffix("Error"))
    rates = {}
    if earlier is not None and later.taken_ns > earlier.taken_ns:
        events = [event for event in later.events if event_kind(event) is EventKind.COUNTER]
        rates = {event: rate(earlier, later, event) for event in events}
    return Row(path, name, kind, ours, threads, _state(later, rates), later, rates)


def _state(reading: GroupReading, rates: Mapping[str, Rate]) -> str:
    """Say in a word how much of a reading can be believed."""
    told = [each for event in reading.events for each in _leaf_readings(reading, event)]
    words = Counter(_word(each) for each in told if not isinstance(each, Value))
    if words:
        word, _ = words.most_common(1)[0]
        missing = words.total()
        return word if missing == len(told) else f"{word} {missing}/{len(told)}"
    if not told:
        return "empty"
    if not rates and any(event_kind(event) is EventKind.COUNTER for event in reading.events):
        return NEW
    if any(isinstance(each, Reset) for one in rates.values() for each in one.domains.values()):
        return "reset"
    return GOOD


def _leaf_readings(reading: GroupReading, event: str) -> list[Reading]:
    told = reading.of(event)
    return [told[domain] for domain in leaves(told)]


def _word(reading: Reading) -> str:
    match reading:
        case Unavailable():
            return "Unavailable"
        case Unassigned():
            return "Unassigned"
        case ReadError(text):
            return text or "Error"
        case Value():
            return GOOD


def sort_rows(rows: Iterable[Row], key: str, *, reverse: bool = False) -> list[Row]:
    """Return rows in order: by name from a on, by a number from the largest on.

    Args:
        rows: The rows.
        key: "name", "occupancy", "total", "local" or "threads".
        reverse: The other way round; rows without the number stay last.
    """
    by_name = sorted(rows, key=lambda row: (row.kind is not GroupKind.DEFAULT, row.name), reverse=reverse)
    if key == "name":
        return by_name
    valued = [(value, row) for row in by_name if (value := row.sort_value(key)) is not None]
    valued.sort(key=lambda pair: pair[0], reverse=not reverse)
    without = [row for row in by_name if row.sort_value(key) is None]
    return [*(row for _, row in valued), *without]
