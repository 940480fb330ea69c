"""Events and reports as JSON: one object a line, readable by anything.

Owns: the JSON form of the plugin's values, and the envelope of an event line. Must not know: where lines go.

Rules:
    1. A line is `{"schema", "seq", "ts", "type", ...}`: the event's own fields stand beside the envelope.
    2. `seq` counts emissions of one process from 1, so a reader sees a gap or a restart.
    3. `ts` is UTC in RFC 3339 with microseconds: when the line was made, not when something happened.
    4. A new field may appear under the same schema; a changed meaning raises it.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cattrs import BaseValidationError
from cattrs.preconf.json import make_converter
from cattrs.strategies import configure_tagged_union

from nri_resctrl_plugin.events import (
    Exists,
    Failed,
    PodResctrlAddOrUpdate,
    PodResctrlEvent,
    PodResctrlRemoved,
    ResctrlGroupState,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cattrs.preconf.json import JsonConverter

__all__ = ["SCHEMA", "LineError", "event_from_line", "event_lines", "payload"]

SCHEMA: Final = 1
"""Version of the line's meaning."""

_TAGS: Final = {
    PodResctrlAddOrUpdate: "AddOrUpdate",
    PodResctrlRemoved: "Removed",
    Exists: "Exists",
    Failed: "Failed",
}


class LineError(ValueError):
    """A text that is no event line."""


def _make_converter() -> JsonConverter:
    converter = make_converter()
    converter.register_unstructure_hook(Path, str)
    converter.register_structure_hook(Path, lambda value, _: Path(value))
    converter.register_unstructure_hook(Enum, lambda value: value.value)
    converter.register_unstructure_hook_func(
        lambda kind: isinstance(kind, type) and issubclass(kind, Exception),
        lambda error: {"error": type(error).__name__, "message": str(error)},
    )
    # After the hooks: a tagged union takes the hooks that its members have when it is configured.
    for union in (ResctrlGroupState, PodResctrlEvent):
        configure_tagged_union(union, converter, tag_generator=_TAGS.__getitem__, tag_name="type")
    return converter


_CONVERTER: Final = _make_converter()


def payload(value: object) -> Any:
    """Return the JSON form of one of the plugin's values: events tagged, paths and states as text."""
    match value:
        case PodResctrlAddOrUpdate() | PodResctrlRemoved():
            return _CONVERTER.unstructure(value, unstructure_as=PodResctrlEvent)
        case Exists() | Failed():
            return _CONVERTER.unstructure(value, unstructure_as=ResctrlGroupState)
        case _:
            return _CONVERTER.unstructure(value)


def event_lines(now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Callable[[PodResctrlEvent], str]:
    """Return a function that makes the next line of each event, its newline included.

    Args:
        now: The present moment, in UTC.
    """
    seq = 0

    def line(event: PodResctrlEvent) -> str:
        nonlocal seq
        seq += 1
        moment = now().isoformat(timespec="microseconds").replace("+00:00", "Z")
        fields = payload(event)
        head = {"schema": SCHEMA, "seq": seq, "ts": moment, "type": fields.pop("type")}
        return json.dumps(head | fields) + "\n"

    return line


def event_from_line(line: str) -> PodResctrlEvent:
    """Return the event of a line; the envelope is checked and left out.

    Raises:
        LineError: The line is not JSON, of another schema, or no event.
    """
    try:
        fields = json.loads(line)
        if fields["schema"] != SCHEMA:
            raise LineError(f"schema {fields['schema']!r} is not {SCHEMA}")
        event: PodResctrlEvent = _CONVERTER.structure(fields, PodResctrlEvent)  # type: ignore[arg-type]  # a union
    except (ValueError, KeyError, TypeError, BaseValidationError) as error:
        if isinstance(error, LineError):
            raise
        raise LineError(f"not an event line: {error!r}") from error
    return event
