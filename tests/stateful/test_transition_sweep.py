"""Mutation of the transition tables: no row, target or effect could be otherwise without being seen."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from attrs import evolve, frozen

from nri_resctrl_plugin.pods import PodTable
from nri_resctrl_plugin.pods_phases import (
    ContainerEffect,
    ContainerPhase,
    GroupEffect,
    GroupPhase,
    SandboxEffect,
    SandboxPhase,
)
from nri_resctrl_plugin.pods_rules import RULES, ContainerRule, GroupRule, Rules, SandboxRule
from tests.stateful.pods_walk import walk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from enum import Enum

pytestmark = pytest.mark.xdist_group("transition sweep")  # which walks there are is found out once

Row: TypeAlias = SandboxRule | GroupRule | ContainerRule

WALKS = 3000
"""How many walks there are to choose from; a mutant is walked only where the row it alters is used."""

TABLES: dict[str, tuple[type[Enum], type[Enum]]] = {
    "sandbox": (SandboxPhase, SandboxEffect),
    "group": (GroupPhase, GroupEffect),
    "container": (ContainerPhase, ContainerEffect),
}


@frozen
class Mutant:
    """One table that is wrong in one place."""

    row: Row
    kind: str
    change: str
    rules: Rules

    def __str__(self) -> str:
        return f"{name_of(self.row)}: {self.kind} {self.change}"


def name_of(row: Row) -> str:
    """The row by its phase and trigger."""
    guard = f" left={row.left}" if isinstance(row, GroupRule) and row.left is not None else ""
    return f"{type(row).__name__} {row.phase.name}+{row.trigger.name}{guard}"


def _rules(table: str, i: int, *new: Row) -> Rules:
    """The rules with something else in the place of one row."""
    rows = getattr(RULES, table)
    change: dict[str, Any] = {table: (*rows[:i], *new, *rows[i + 1 :])}
    return evolve(RULES, **change)


def _but(row: Any, **change: Any) -> Row:
    """The row, otherwise."""
    other: Row = evolve(row, **change)
    return other


def altered(table: str) -> Iterator[Mutant]:
    """Each row deleted; each target and each effect replaced by each other one; each effect dropped."""
    phases, kinds = TABLES[table]
    rows: tuple[Row, ...] = getattr(RULES, table)
    for i, row in enumerate(rows):

        def mutant(kind: str, change: str, *new: Row, row: Row = row, i: int = i) -> Mutant:
            return Mutant(row, kind, change, _rules(table, i, *new))

        yield mutant("deleted", "")
        for phase in phases:
            if phase is not row.target:
                yield mutant("target", phase.name, _but(row, target=phase))
        if isinstance(row, GroupRule) and row.left is not None:
            yield mutant("guard", str(not row.left), _but(row, left=not row.left))
        for effect in row.effects:
            kept = tuple(other for other in row.effects if other is not effect)
            yield mutant("dropped", effect.name, _but(row, effects=kept))
            for other in set(kinds) - set(row.effects):
                swapped = tuple(other if one is effect else one for one in row.effects)
                yield mutant("replaced", f"{effect.name} by {other.name}", _but(row, effects=swapped))


def extended(table: str) -> Iterator[Mutant]:
    """Each row with one more effect."""
    rows: tuple[Row, ...] = getattr(RULES, table)
    for i, row in enumerate(rows):
        for effect in TABLES[table][1]:
            if effect not in row.effects:
                more = _but(row, effects=(*row.effects, effect))
                yield Mutant(row, "added", effect.name, _rules(table, i, more))


@pytest.fixture(scope="module")
def used() -> dict[Row, list[int]]:
    """For each row the walks that use it, found by watching the right table on every walk."""

    class Watched(dict[object, Row]):
        def get(self, key: object, default: object = None) -> Row | None:  # type: ignore[override]
            row = super().get(key)
            if row is not None:
                seen.add(row)
            return row

    found: dict[Row, list[int]] = defaultdict(list)
    for seed in range(WALKS):
        seen: set[Row] = set()
        table = PodTable()
        for rules in ("_sandbox_rules", "_group_rules", "_container_rules"):
            setattr(table._state, rules, Watched(getattr(table._state, rules)))
        walk(table, seed)
        for row in seen:
            found[row].append(seed)
    return found


def survives(mutant: Mutant, seeds: list[int]) -> bool:
    """Whether no walk tells the mutant from the right table."""
    for seed in seeds:
        try:
            walk(PodTable(rules=mutant.rules), seed)
        except Exception:  # noqa: BLE001 - a crash is as good a sign as a wrong answer
            return False
    return True


def test_every_row_is_used(used: dict[Row, list[int]]) -> None:
    """No row is dead: the walks use each of them."""
    assert [name_of(row) for table in TABLES for row in getattr(RULES, table) if not used[row]] == []


@pytest.mark.parametrize("table", TABLES)
def test_no_row_can_be_otherwise(table: str, used: dict[Row, list[int]]) -> None:
    """Every row deleted and every row altered is caught by what `PodsWorld` holds true: 0 survivors."""
    mutants = list(altered(table))
    survivors = [str(mutant) for mutant in mutants if survives(mutant, used[mutant.row])]
    kinds = Counter(mutant.kind for mutant in mutants)
    print(f"{table}: {len(mutants)} mutants {dict(kinds)}, {len(survivors)} survive")  # noqa: T201 - the tally
    assert kinds["deleted"] == len(getattr(RULES, table))
    assert survivors == []


# --- one effect more ---

GROUP_NOT_FAILED = (
    ContainerPhase.STARTING,
    ContainerPhase.ENTERING,
    ContainerPhase.QUEUED,
    ContainerPhase.TRYING,
    ContainerPhase.RECONCILED,
)
"""With an attempt waiting, running or complete the group is not Failed, until that attempt is given up."""


def makes_no_difference(mutant: Mutant) -> bool:
    """Whether the added effect has nothing to work on, in any world.

    No simpler table is hidden here: the effect is not in the row, and adding it changes no answer.
    """
    match mutant.row.phase, mutant.row.trigger.name, mutant.change:
        case SandboxPhase.STOPPED, "REMOVED" | "UNLISTED", "LEAVE":
            return True  # a stopped sandbox has left, and its containers are gone
        case ContainerPhase.QUEUED, "TAKEN" | "GIVEN_UP", "TELL":
            return True  # its turn comes last: all that changed is told by then
        case phase, trigger, "RETRY_GROUP" if phase in GROUP_NOT_FAILED:
            return trigger != "GIVEN_UP"
        case ContainerPhase.PARTIAL, "FOUND_COMPLETE" | "FOUND_ASTRAY" | "FOUND_GONE", "RETRY_GROUP":
            return True  # it is found while the group Exists, and lost only after that
        case _:
            return False


@pytest.mark.parametrize("table", TABLES)
def test_no_row_could_do_more(table: str, used: dict[Row, list[int]]) -> None:
    """Every effect added to a row is caught, but for those that have nothing to work on."""
    mutants = list(extended(table))
    idle = [mutant for mutant in mutants if makes_no_difference(mutant)]
    survivors = [str(m) for m in mutants if m not in idle and survives(m, used[m.row])]
    tally = f"{table}: {len(mutants)} mutants, {len(idle)} without a difference, {len(survivors)} survive"
    print(tally)  # noqa: T201 - the tally
    assert survivors == []
    assert [str(mutant) for mutant in idle if not survives(mutant, used[mutant.row][:10])] == []
