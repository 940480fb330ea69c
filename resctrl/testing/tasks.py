"""The threads of the fake's machine, and which group each is in.

Owns: birth, death, inheritance, membership. Must not know: paths, files, errnos.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import define, field

from resctrl.model import Tid
from resctrl.testing.nodes import Node

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Group", "TaskTable"]

_FIRST_TID: Final = 1000
_INIT: Final = (1, 2)


@define(eq=False)
class Group:
    """A control group, or a monitoring group below one.

    Attributes:
        node: Its directory.
        closid: Its own, or for a monitoring group its parent's.
        rmid: Its own; 0 for the default group, and -1 on a machine that cannot monitor.
        parent: The control group it stands below, or None if it is a control group itself.
        children: The monitoring groups of a control group.
        counts: What it counted, or was set to, by (node, event); the rest is computed.
    """

    node: Node
    closid: int
    rmid: int
    parent: Group | None = None
    children: list[Group] = field(factory=list)
    counts: dict[tuple[int, str], int | float | str] = field(factory=dict)

    @property
    def control(self) -> Group:
        """The control group: itself, or its parent."""
        return self.parent if self.parent is not None else self


class TaskTable:
    """Every thread is in exactly one group: a monitoring group, or directly in a control group (K40).

    Args:
        alive: Tells of threads that live outside the fake, for instance by /proc. Such a thread is in the
            default group until it is moved; its death is noticed when somebody looks.
    """

    def __init__(self, alive: Callable[[int], bool] | None) -> None:
        self._alive = alive
        self._own: dict[int, Group | None] = {}
        self._foreign: dict[int, Group] = {}
        self._next = _FIRST_TID
        for tid in _INIT if alive is None else ():
            self._own[tid] = None

    def spawn(self, parent: Tid | None, tid: Tid | None = None) -> Tid:
        """Start a thread; it inherits the group of the one that starts it (K41)."""
        if parent is not None and not self.lives(parent):
            raise LookupError(f"no live thread {parent}")
        if tid is None:
            while self.lives(self._next):
                self._next += 1
            tid = Tid(self._next)
            self._next += 1
        elif self.lives(tid):
            raise ValueError(f"thread {tid} lives already")
        self._own[tid] = self.group_of(parent) if parent is not None else None
        return tid

    def end(self, tid: Tid) -> None:
        """End a thread of the fake's own. A zombie is one that has not been ended yet (K42)."""
        if tid not in self._own:
            raise LookupError(f"no thread {tid} of this fake")
        del self._own[tid]

    def lives(self, tid: int) -> bool:
        """Tell whether there is such a thread."""
        if tid in self._own:
            return True
        if self._alive is not None and self._alive(tid):
            return True
        self._foreign.pop(tid, None)
        return False

    def group_of(self, tid: int) -> Group | None:
        """Return the group of a thread; None is the default group."""
        return self._own[tid] if tid in self._own else self._foreign.get(tid)

    def move(self, tid: int, group: Group | None) -> None:
        """Put a live thread into a group."""
        if tid in self._own:
            self._own[tid] = group
        elif group is None:
            self._foreign.pop(tid, None)
        else:
            self._foreign[tid] = group

    def members(self) -> dict[int, Group | None]:
        """Return the live threads, ascending, with their groups.

        Threads outside the fake are known only once they have been moved.
        """
        foreign = {tid: group for tid, group in list(self._foreign.items()) if self.lives(tid)}
        return dict(sorted({**foreign, **self._own}.items()))
