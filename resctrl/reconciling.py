"""Bringing a group up to a source that moves: listing, writing, listing again.

Owns: the order of these steps, and when it is enough. Must not know: what a failed write means for a thread
(`resctrl.assigning`), or what is remembered of it (`resctrl.passes`).

Rules:
    1. The source is asked once more after the last write that took a thread: what it lists then is judged.
    2. `tasks` is read once, after that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resctrl.assigning import Assigner, checked
from resctrl.errors import EmptyPidSetError, Operation, ResctrlError
from resctrl.inventory import tasks_of
from resctrl.model import ReconcileResult, Tid, TidSource

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from resctrl.passes import Passes

__all__ = ["reconcile"]


def reconcile(  # noqa: PLR0913 - what `reconcile_group` is told, and the account
    assigner: Assigner, group: Path, source: TidSource, max_passes: int, passes: Passes, *, try_all: bool
) -> ReconcileResult:
    """Do what `resctrl.Resctrl.reconcile_group` says; the account tells how far it came."""
    while True:
        live = _listed(group, source)
        new = passes.untried(live)
        if not new or passes.count == max_passes:
            break
        _write(assigner, group, passes, new, try_all=try_all)
        passes.count += 1
    again = passes.doubtful(live)
    if again:
        _write(assigner, group, passes, again, try_all=try_all)
    if not passes.assigned.isdisjoint(again):
        live = _listed(group, source)
    inside = set(tasks_of(assigner.fs, group))
    missing = passes.missing(live, inside, lambda: checked(Operation.ASSIGN_TASKS, group, source()))
    if passes.refusal is not None:
        raise passes.refusal
    return ReconcileResult(assigned=len(passes.assigned), missing=missing, passes=passes.count)


def _listed(group: Path, source: TidSource) -> list[Tid]:
    """Ask the source, which has to list something."""
    live = checked(Operation.ASSIGN_TASKS, group, source())
    if not live:
        raise EmptyPidSetError(Operation.ASSIGN_TASKS, group)
    return live


def _write(assigner: Assigner, group: Path, passes: Passes, tids: Sequence[Tid], *, try_all: bool) -> None:
    """Write threads and take the outcome into the account."""
    try:
        passes.record(assigner.assign(group, tids, try_all=try_all))
    except ResctrlError as error:
        passes.broken_off = error
        raise
