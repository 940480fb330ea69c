"""What a reconcile remembers from pass to pass.

Owns: which threads were tried, taken, gone or refused. Must not know: files or errnos.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

from resctrl.errors import ResctrlError
from resctrl.model import AssignmentResult, Tid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from resctrl.assigning import Assignment

__all__ = ["Passes"]


@define
class Passes:
    """The running account of one reconcile.

    Attributes:
        count: How many passes there were; what is written again after the last one is none.
        assigned: Threads that the kernel took.
        refused: Threads that it would not take, now or later in this call.
        gone: Threads that were no more when they were written last.
        total_gone: How many answers of that kind there were in all.
        refusal: The first refusal of a thread.
        broken_off: The error of a pass that did not come to its end; it tells what the pass did.
    """

    count: int = 0
    assigned: set[Tid] = field(factory=set)
    refused: list[Tid] = field(factory=list)
    gone: set[Tid] = field(factory=set)
    total_gone: int = 0
    refusal: ResctrlError | None = None
    broken_off: ResctrlError | None = None

    def untried(self, live: Iterable[Tid]) -> list[Tid]:
        """Return those that have to be written; one that was gone and is listed again is tried again."""
        tried = self.assigned.union(self.refused)
        return [tid for tid in live if tid not in tried]

    def doubtful(self, live: Iterable[Tid]) -> list[Tid]:
        """Return those that were gone in the last pass and are listed after it: dead, or used again."""
        return [tid for tid in live if tid in self.gone]

    def record(self, outcome: Assignment) -> None:
        """Take the outcome of one pass, or of writing again after the last, into the account."""
        self.assigned |= outcome.assigned
        self.refused += outcome.refused
        self.gone = outcome.missing
        self.total_gone += len(outcome.missing)
        self.refusal = self.refusal if self.refusal is not None else outcome.refusal

    def explain(self, error: ResctrlError) -> None:
        """Let an error tell the sum of all passes, and of the one that broke off."""
        last = self.broken_off
        more = last.partial if last is not None and last.partial is not None else AssignmentResult(0, 0)
        error.refused = (*self.refused, *(last.refused if last is not None else ()))
        error.partial = AssignmentResult(
            assigned=len(self.assigned) + more.assigned, missing=self.total_gone + more.missing
        )

    def missing(self, live: Iterable[Tid], inside: set[Tid], relist: Callable[[], Iterable[Tid]]) -> int:
        """Count the live threads that are not in the group.

        Args:
            live: The listing that was taken after the last write that took a thread.
            inside: The threads in the group, read after that.
            relist: Lists the threads once more. It is asked only if a thread that was taken is not in the
                group any more: either it has died meanwhile, or somebody moved it away.
        """
        absent = set(live) - inside - self.gone
        lost = absent & self.assigned
        if lost:
            lost &= set(relist())
        return len(absent - self.assigned) + len(lost)
