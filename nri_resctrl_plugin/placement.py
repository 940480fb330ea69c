"""Where a container's threads go: into their pod's group below the control group that each thread is in.

Owns: the choice of the group, and which group is moved or made for it. Must not know: the pod table, who
lists the threads, when an attempt is due. It blocks: it is work for the worker.

Rules:
    1. The kernel is asked first: as long as it takes every thread in the container's group, nothing is read
       of /proc. Only a thread that it refuses (EINVAL) is asked for its control group, and what it says is
       tried for all the others. So the cost grows with how often the control group changes in the list of
       threads, and not with how many they are.
    2. No thread is ever given another class. A control group's `tasks` is never written, and a group is
       renamed only while it holds no thread, since its threads would come along.
    3. A group that is nobody's home, and will not be that of a thread still to be placed, is renamed rather
       than another one made: RMID and counters stay with the pod, and no second RMID is used. Where it cannot
       be renamed, one is made.
    4. Complete is what was looked at: all threads listed after the last write are in groups of the pod, as
       their `tasks` say.
    5. A control group whose group cannot be had, or does not take its own threads, is given up for the rest
       of the attempt; the first such error is the attempt's. Who is in it, its own `tasks` tell at once; of
       the default group, whose `tasks` list the whole machine, the others' tell who is not.
    6. Whatever fails, the answer tells which groups the pod has: one may have been moved or made before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Generic, TypeVar

from attrs import define, field, frozen

from nri_resctrl_plugin.pods import Reconcile
from nri_resctrl_plugin.presence import may_be_there
from resctrl import (
    FsProvider,
    GroupExistsError,
    GroupNotFoundError,
    NoPermissionError,
    Resctrl,
    ResctrlError,
    ResctrlIOError,
    TaskNotInParentError,
    Tid,
    TidSource,
)

__all__ = ["Placed", "place"]

P = TypeVar("P", bound=FsProvider)

_CANNOT_MOVE: Final = (GroupExistsError, GroupNotFoundError, NoPermissionError, ResctrlIOError)
"""Why a group is not renamed: a new one may do all the same."""

_MOST_REJECTIONS: Final = 2
"""How often a group may refuse the very thread whose control group it stands below: that one may just have
changed its class. Once more, and something else keeps the threads out."""


@frozen
class Placed:
    """How one attempt ended.

    Attributes:
        complete: All live threads are in groups of the pod.
        groups: The pod's groups as they are now, the main one first.
        homes: Those that hold threads of the container, as far as this attempt could see.
        error: What was refused, where that kept it from being complete.
    """

    complete: bool
    groups: tuple[Path, ...]
    homes: frozenset[Path] = frozenset()
    error: Exception | None = None


def place(
    resctrl: Resctrl[P],
    asked: Reconcile,
    source: TidSource,
    max_passes: int,
    make: Callable[[str], Path] | None,
) -> Placed:
    """Put a container's threads into groups of its pod; see the rules.

    Args:
        resctrl: Where the groups are.
        asked: The pod's groups, and which of them may be renamed for this container.
        source: Lists the container's live threads, afresh at each call.
        max_passes: How often to list and write at most, in the container's group and again elsewhere.
        make: Makes, or finds, the pod's group below a control group; None: threads of another control group
            than that of the main group stay where they are.

    Returns:
        How it ended; a `ResctrlError` is in it, not raised.

    Raises:
        Exception: What the source raises.
    """
    groups = (asked.path, *(group for group in asked.others if may_be_there(resctrl, group)))
    listed = _Listed(source)
    home = asked.path
    if make is not None and len(groups) > 1:
        home = _home_of_first(resctrl, groups, listed) or home
    try:
        result = resctrl.reconcile_group(home, listed, max_passes, try_all=make is None)
    except ResctrlError as error:
        homes = frozenset({home} if _assigned(error) else ())
        if make is None or not _is_refusal(error):
            return Placed(complete=False, groups=groups, homes=homes, error=error)
        search = _Search(resctrl, asked, groups, listed, make, error)
        search.placed = listed.seen.difference(error.refused)
        search.homes = set(homes)
        return search.run(error.refused, max_passes)
    return Placed(complete=result.complete, groups=groups, homes=frozenset({home}))


def _is_refusal(error: ResctrlError) -> bool:
    """Tell whether threads were refused, and nothing worse: a failure of the group tells of them too."""
    return bool(error.refused) and isinstance(error, TaskNotInParentError | NoPermissionError)


def _assigned(error: ResctrlError) -> int:
    return error.partial.assigned if error.partial is not None else 0


def _control_group(resctrl: Resctrl[P], group: Path) -> str:
    """Return the name of the control group that a monitoring group stands below."""
    above = group.parent.parent
    return "" if above == resctrl.config.root else above.name


def _home_of_first(resctrl: Resctrl[P], groups: Sequence[Path], listed: _Listed) -> Path | None:
    """Return the group below the control group of one of the container's threads, if there is one."""
    for tid in listed.first():
        try:
            where = resctrl.task_groups(tid)
        except ResctrlError:
            return None
        if where is not None:
            fitting = (each for each in groups if _control_group(resctrl, each) == where.control_group)
            return next(fitting, None)
    return None


@define
class _Listed:
    """A source that remembers what it listed.

    Attributes:
        source: The source.
        seen: Every thread that was listed.
    """

    source: TidSource
    seen: set[Tid] = field(factory=set)
    _kept: list[Tid] | None = None

    def first(self) -> Sequence[Tid]:
        """List now, and let the next call return the same: looking at it changes nothing."""
        self._kept = list(self())
        return self._kept

    def __call__(self) -> Iterable[Tid]:
        """List."""
        kept, self._kept = self._kept, None
        tids = list(self.source()) if kept is None else kept
        self.seen.update(tids)
        return tids


@define
class _Search(Generic[P]):
    """Places threads that the container's group did not take.

    Attributes:
        resctrl: Where the groups are.
        asked: What is wanted.
        groups: The pod's groups, the main one first.
        listed: Lists the container's threads.
        make: Makes a group below a control group.
        refusal: The first refusal: the attempt's error where nothing better explains it.
        placed: Threads that a group took.
        hopeless: Threads that no group will take in this attempt.
        homes: Groups that took some.
        rejections: How often a group refused a thread of its own control group.
        closed: Control groups that are given up, and why.
        heard_of: Control groups that threads were in when they were asked.
    """

    resctrl: Resctrl[P]
    asked: Reconcile
    groups: tuple[Path, ...]
    listed: _Listed
    make: Callable[[str], Path]
    refusal: ResctrlError
    placed: set[Tid] = field(factory=set)
    hopeless: set[Tid] = field(factory=set)
    homes: set[Path] = field(factory=set)
    rejections: Counter[str] = field(factory=Counter)
    closed: dict[str, ResctrlError] = field(factory=dict)
    heard_of: set[str] = field(factory=set)

    def run(self, refused: Sequence[Tid], max_passes: int) -> Placed:
        """Place these, then whatever is listed newly, until nothing is."""
        try:
            self._put(refused)
            return self._judge(self._follow(max_passes))
        except Exception as error:  # noqa: BLE001 - rule 6, whatever the source or the kernel says
            return Placed(complete=False, groups=self.groups, homes=frozenset(self.homes), error=error)

    def _follow(self, max_passes: int) -> set[Tid]:
        """Place what is listed newly; return the listing that was taken after the last write."""
        for _ in range(max_passes):
            live = set(self.listed())
            new = live - self.placed - self.hopeless
            if not new:
                return live
            self._put(sorted(new))
        return set(self.listed())

    def _put(self, tids: Sequence[Tid]) -> None:
        """Write threads, each into the group below its own control group; see rule 1."""
        rest = list(tids)
        while rest:
            asked = rest[0]
            try:
                where = self.resctrl.task_groups(asked)
            except ResctrlError:
                self._try_main_group(rest)
                return
            if where is None:
                rest.remove(asked)
                continue
            control_group = where.control_group
            self.heard_of.add(control_group)
            if control_group in self.closed:
                inside = self._those_in(control_group, rest) | {asked}
                self.hopeless |= inside
                rest = [tid for tid in rest if tid not in inside]
                continue
            group = self._group_in(control_group, rest)
            refused = self._write(control_group, group, rest) if group is not None else None
            if refused is None:
                continue  # the control group is given up, unless it is what is gone: the thread says
            if asked in refused:
                self.rejections[control_group] += 1
                if self.rejections[control_group] == _MOST_REJECTIONS:
                    self.closed[control_group] = self.refusal
                refused = [*(tid for tid in refused if tid != asked), asked]  # others may be taken
            rest = refused

    def _try_main_group(self, tids: Sequence[Tid]) -> None:
        """Place threads whose control groups cannot be known, where most are: each is tried."""
        main = self.groups[0]
        refused = self._write(_control_group(self.resctrl, main), main, tids, try_all=True)
        self.hopeless.update(tids if refused is None else refused)

    def _write(
        self, control_group: str, group: Path, tids: Sequence[Tid], *, try_all: bool = False
    ) -> list[Tid] | None:
        """Write threads into a group; return those that it refused, None where the group itself failed."""
        refused: list[Tid] = []
        assigned = True
        try:
            self.resctrl.assign_tasks(group, tids, try_all=try_all)
        except ResctrlError as error:
            assigned = _assigned(error) > 0
            if not _is_refusal(error):
                self.closed[control_group] = error
                self.homes.update({group} if assigned else ())
                return None
            refused = list(error.refused)
        self.homes.update({group} if assigned else ())
        self.placed.update(set(tids).difference(refused))
        return refused

    def _those_in(self, control_group: str, tids: Iterable[Tid]) -> set[Tid]:
        """Return those of the threads that are in a control group; all of them where that cannot be read.

        In the default one is who is in no other one that was heard of.
        """
        others = self.heard_of.union(_control_group(self.resctrl, group) for group in self.groups)
        names = {control_group} if control_group else others - {""}
        try:
            listed = [self.resctrl.list_group_tasks(self.resctrl.config.root / name) for name in names]
        except ResctrlError:
            return set(tids)
        return set(tids).intersection(*listed) if control_group else set(tids).difference(*listed)

    def _group_in(self, control_group: str, tids: Sequence[Tid]) -> Path | None:
        """Return the pod's group below a control group, moved or made if need be; None where that fails."""
        for group in self.groups:
            if _control_group(self.resctrl, group) == control_group:
                return group
        try:
            return self._moved_to(control_group, tids) or self._made_in(control_group)
        except ResctrlError as error:
            self.closed[control_group] = error
            return None

    def _moved_to(self, control_group: str, tids: Sequence[Tid]) -> Path | None:
        """Rename a group below a control group, as rule 3 says; None where none can be."""
        for group in self.groups:
            if group not in self.asked.movable or group in self.homes:
                continue
            try:
                if self.resctrl.list_group_tasks(group):
                    continue
                if self._those_in(_control_group(self.resctrl, group), tids):
                    continue
                moved = self.resctrl.move_group(group, control_group)
            except _CANNOT_MOVE:
                continue
            self.groups = tuple(moved if each == group else each for each in self.groups)
            return moved
        return None

    def _made_in(self, control_group: str) -> Path:
        made = self.make(control_group)
        self.groups = (*self.groups, made)
        return made

    def _judge(self, live: set[Tid]) -> Placed:
        """See where the threads of the last listing are."""
        inside = {home: live.intersection(self.resctrl.list_group_tasks(home)) for home in self.homes}
        outside = live.difference(*inside.values())
        if outside:  # died since, or refused, or born too fast, or taken away again
            outside &= set(self.listed())
        homes = frozenset(home for home, threads in inside.items() if threads)
        refused = not outside.isdisjoint(self.hopeless)
        error = next(iter(self.closed.values()), self.refusal) if refused else None
        return Placed(complete=bool(live) and not outside, groups=self.groups, homes=homes, error=error)
