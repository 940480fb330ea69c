"""A view as JSON.

Owns: the shape of the object. Must not know: where it is written.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from resctrl import ReadError, Reset, Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nri_resctrl_plugin.top.rows import Row, View
    from resctrl import DomainRate, Rate, Reading

__all__ = ["record"]

SCHEMA: Final = 1


def record(view: View, rows: Sequence[Row], seq: int, now: float) -> dict[str, object]:
    """Return a view in types that `json` knows.

    Args:
        view: The view.
        rows: Its rows, in the order wanted.
        seq: Number of the record, from 1 on.
        now: Seconds since the epoch.
    """
    when = datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds")
    return {
        "schema": SCHEMA,
        "seq": seq,
        "ts": when.replace("+00:00", "Z"),
        "num_rmids": view.num_rmids,
        "rmids_in_use": view.in_use,
        "groups": [_group(row) for row in rows],
    }


def _group(row: Row) -> dict[str, object]:
    found: dict[str, object] = {
        "path": str(row.path),
        "name": row.name,
        "kind": row.kind.value,
        "ours": row.ours,
        "threads": row.threads,
        "state": row.state,
    }
    if row.reading is None:
        return found
    totals = {event: row.reading.total(event) for event in row.reading.events}
    return {
        **found,
        "generation": row.reading.generation,
        "totals": {
            event: {"amount": total.amount, "complete": total.complete} for event, total in totals.items()
        },
        "rates": {event: _rate(each) for event, each in row.rates.items()},
        "domains": [
            {
                "domain": domain.name,
                "parent": domain.parent,
                "event": event,
                **_reading(reading),
                **_domain_rate(row.rates[event].domains[domain] if event in row.rates else None),
            }
            for (domain, event), reading in row.reading.values.items()
        ],
    }


def _rate(rate: Rate) -> dict[str, object]:
    total = rate.total
    return {
        "per_second": None if isinstance(total, Reset) else total,
        "reset": total.reason.name.lower() if isinstance(total, Reset) else None,
        "complete": rate.complete,
        "seconds": rate.seconds,
    }


def _reading(reading: Reading) -> dict[str, object]:
    if isinstance(reading, Value):
        return {"state": "Value", "amount": reading.amount}
    state: dict[str, object] = {"state": type(reading).__name__}
    return {**state, "text": reading.text} if isinstance(reading, ReadError) else state


def _domain_rate(rate: DomainRate | None) -> dict[str, object]:
    if isinstance(rate, float):
        return {"per_second": rate}
    return {"reset": rate.reason.name.lower()} if isinstance(rate, Reset) else {}
