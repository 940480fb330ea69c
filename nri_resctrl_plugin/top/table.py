"""A view as lines of text.

Owns: columns, widths, units. Must not know: terminals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from attrs import frozen

from nri_resctrl_plugin.top.rows import GOOD, NEW, GroupKind, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nri_resctrl_plugin.top.rows import View

__all__ = ["Line", "heading", "table"]

_MIB: Final = 1024 * 1024
_MB: Final = 1_000_000
_NONE: Final = "-"
_GAP: Final = "  "
_LEAST_NAME: Final = 16
_LEAST_AROUND: Final = len("monitor*") + len("Unavailable 1/6")


@frozen
class Line:
    """A line of the table.

    Attributes:
        text: What it says.
        row: What it is about; None for the head.
    """

    text: str
    row: Row | None = None

    @property
    def is_troubled(self) -> bool:
        """Whether its group does not tell all that it should."""
        return self.row is not None and self.row.state not in {GOOD, NEW}


@frozen
class _Column:
    title: str
    cell: Callable[[Row], str]
    event: str | None = None
    spare: bool = False


def _amount(event: str, unit: int) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        total = row.total(event)
        if total.amount is None:
            return _NONE
        return f"{'' if total.complete else '>'}{total.amount / unit:.1f}"

    return cell


def _speed(event: str, unit: int) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value = row.per_second(event)
        if value is None:
            return _NONE
        return f"{'' if row.rates[event].complete else '>'}{value / unit:.1f}"

    return cell


_COLUMNS: Final = (
    _Column("LLC MiB", _amount("llc_occupancy", _MIB), "llc_occupancy"),
    _Column("TOTAL MB/s", _speed("mbm_total_bytes", _MB), "mbm_total_bytes"),
    _Column("LOCAL MB/s", _speed("mbm_local_bytes", _MB), "mbm_local_bytes", spare=True),
    _Column("WATTS", _speed("core_energy", 1), "core_energy"),
    _Column("THREADS", lambda row: str(row.threads) if row.threads is not None else _NONE, spare=True),
)


def _kind(row: Row) -> str:
    return f"{row.kind.value}*" if row.ours else row.kind.value


def heading(view: View) -> str:
    """Return a line about the whole: how many groups, how many RMIDs are left."""
    ours = sum(row.ours for row in view.rows)
    parts = [f"{len(view.rows)} groups, {ours} ours (*)"]
    if view.num_rmids is not None:
        parts.append(f"{max(0, view.num_rmids - view.in_use)} of {view.num_rmids} RMIDs free")
    if view.unheld:
        parts.append(f"{view.unheld} groups read file by file: too few descriptors (ulimit -n)")
    return ", ".join(parts)


def table(
    view: View,
    rows: Sequence[Row],
    width: int,
    shown: Callable[[str], str],
    columns_of: Callable[[str], int] = len,
) -> list[Line]:
    """Return the head and a line for each row.

    Args:
        view: Which events there are.
        rows: What to show, in order.
        width: Columns of the screen; names are cut so that the numbers fit, as long as there is any room.
        shown: Makes a name fit for showing.
        columns_of: Tells how many columns a text takes.
    """
    columns = _columns(view, rows, width)
    cells = [[each.title for each in columns], *([each.cell(row) for each in columns] for row in rows)]
    widths = [max(len(line[number]) for line in cells) for number in range(len(columns))]
    kinds = ["KIND", *(_kind(row) for row in rows)]
    states = ["STATE", *(shown(row.state) for row in rows)]
    names = ["GROUP", *(shown(row.name) for row in rows)]
    kind_width = max(len(f"{GroupKind.DEFAULT.value}*"), *map(len, kinds))
    taken = kind_width + sum(widths) + max(map(len, states)) + len(_GAP) * (len(columns) + 2)
    room = max(_LEAST_NAME, width - taken)
    name_width = min(room, max(map(columns_of, names)))
    lines = []
    for number, name in enumerate(names):
        numbers = _GAP.join(f"{cell:>{size}}" for cell, size in zip(cells[number], widths, strict=True))
        text = _GAP.join(
            (_fitted(name, name_width, columns_of), f"{kinds[number]:<{kind_width}}", numbers, states[number])
        )
        lines.append(Line(text.rstrip(), rows[number - 1] if number else None))
    return lines


def _columns(view: View, rows: Sequence[Row], width: int) -> list[_Column]:
    """Return the columns of events that there are; on a narrow screen without those that are least missed."""
    columns = [each for each in _COLUMNS if each.event is None or each.event in view.events]
    for spare in [each for each in columns if each.spare]:
        needed = sum(max(len(each.title), *(len(each.cell(row)) for row in rows), 0) for each in columns)
        if _LEAST_NAME + needed + _LEAST_AROUND + len(_GAP) * (len(columns) + 2) <= width:
            break
        columns.remove(spare)
    return columns


def _fitted(text: str, width: int, columns_of: Callable[[str], int]) -> str:
    """Return a text that takes so many columns: filled, or cut with a tilde at the end."""
    if columns_of(text) > width:
        while columns_of(text) > width - 1:
            text = text[:-1]
        text += "~"
    return text + " " * (width - columns_of(text))
