"""Draws `docs/explanation/transitions.md` from the rows of `nri_resctrl_plugin.pods_rules`.

    python docs/render_transitions.py            writes the page
    python docs/render_transitions.py --check    exits with 1 if the page is not what the rows say

A test runs the check, so the picture cannot drift from the code.
"""  # noqa: INP001 - a script beside the pages it draws

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from nri_resctrl_plugin.pods_phases import (
    COUNTED,
    ContainerEffect,
    ContainerPhase,
    ContainerTrigger,
    GroupEffect,
    GroupPhase,
    GroupTrigger,
    SandboxEffect,
    SandboxPhase,
    SandboxTrigger,
)
from nri_resctrl_plugin.pods_rules import RULES, ContainerRule, GroupRule, SandboxRule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from enum import Enum

Row: TypeAlias = SandboxRule | GroupRule | ContainerRule

ENDS = (ContainerTrigger.STOPPED, ContainerTrigger.REMOVED)
PAGE = Path(__file__).resolve().parent / "explanation" / "transitions.md"

HEAD = """\
<!-- Drawn from nri_resctrl_plugin/pods_rules.py by docs/render_transitions.py: run it, do not edit. -->

# Transitions of the pod table

These rows are all that `PodTable` can do: it looks a row up by phase and trigger, takes the phase on and
carries the effects out. Where no row stands, nothing happens; that is how unknown, duplicate and late facts
are borne. [Architecture](architecture.md#why-a-table) tells why it is built so. A test deletes and alters
every row in turn and demands that what the interleaving machine holds true is broken.

One fact can fire several triggers: a sandbox that stops takes its containers along and, if it was the last
one, its pod. After that, attempts that wait get their turn, and at last each pod that changed is told, once.
"""

SANDBOXES = """\
A pod lives by its sandboxes. Two sandboxes of one uid share one group.
"""

GROUPS = """\
One pod, by its uid, and its group. At most one action is in flight: in the phases CREATING, WORKING,
RETRYING, LEAVING and RETURNING.
"""

CONTAINERS = """\
The dark phases are counted: they make up `total_containers`, and RECONCILED alone `reconciled_containers`.
The diagram leaves out the triggers STOPPED and REMOVED, which end every phase alike; the table has them.
"""


def page() -> str:
    """The whole page."""
    return "\n".join(
        [
            HEAD,
            *_section("Sandboxes", SANDBOXES, RULES.sandbox, (SandboxPhase, SandboxTrigger, SandboxEffect)),
            *_section("Groups", GROUPS, RULES.group, (GroupPhase, GroupTrigger, GroupEffect)),
            *_section(
                "Containers",
                CONTAINERS,
                RULES.container,
                (ContainerPhase, ContainerTrigger, ContainerEffect),
            ),
        ]
    )


def _section(title: str, text: str, rows: Sequence[Row], words: tuple[type[Enum], ...]) -> Iterator[str]:
    yield f"## {title}\n"
    yield text
    yield from _diagram(rows)
    yield from _table(("Phase", "Trigger", "Becomes", "Effects"), map(_cells, rows))
    for name, enum in zip(("Phase", "Trigger", "Effect"), words, strict=True):
        yield from _table((name, "Meaning"), ((word.name, str(word.value)) for word in enum))


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for line in lines:
        yield f"| {' | '.join(line)} |"
    yield ""


def _cells(row: Row) -> tuple[str, ...]:
    return row.phase.name, _trigger(row), row.target.name, ", ".join(effect.name for effect in row.effects)


def _trigger(row: Row) -> str:
    if isinstance(row, GroupRule) and row.left is not None:
        return f"{row.trigger.name} ({'a' if row.left else 'no'} group left on disk)"
    return row.trigger.name


def _diagram(rows: Sequence[Row]) -> Iterator[str]:
    """A state diagram: one arrow from phase to phase, labelled with all that leads there."""
    arrows: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in rows:
        if row.trigger not in ENDS:
            label = " + ".join(effect.name for effect in row.effects)
            between = arrows.setdefault((row.phase.name, row.target.name), {})
            between.setdefault(label, []).append(_trigger(row))
    yield "```mermaid"
    yield "stateDiagram-v2"
    yield f"    [*] --> {rows[0].phase.name}"
    for (phase, target), labels in arrows.items():
        parts = [
            f"{', '.join(of)} / {effects}" if effects else ", ".join(of) for effects, of in labels.items()
        ]
        yield f"    {phase} --> {target} : {' or '.join(parts)}"
    counted = [phase.name for phase in COUNTED if any(row.phase is phase for row in rows)]
    if counted:
        yield "    classDef counted fill:#345,color:#fff"
        yield f"    class {','.join(counted)} counted"
    yield "```"
    yield ""


def main(arguments: Sequence[str]) -> int:
    """Write the page, or check it.

    Args:
        arguments: What stands after the script's name.

    Returns:
        The exit code.
    """
    if "--check" not in arguments:
        PAGE.write_text(page())
        return 0
    if PAGE.exists() and PAGE.read_text() == page():
        return 0
    sys.stderr.write(f"{PAGE.name} is not what the rows say: run python docs/render_transitions.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
