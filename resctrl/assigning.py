"""Moving threads into a group, as many as fit with one write.

Owns: how threads are put into lists, and what became of each. Must not know: who listed them, or what a group
stands for.

Rules:
    1. A call opens `tasks` once. A write(2) holds as many ids as fit a page; the kernel takes no more. They
       are plain decimals, since numbers have base 0 there.
    2. The kernel works a list off from the left and stops at the first thread that it cannot move. Which one
       that was stands in last_cmd_status, which somebody else's write may have replaced meanwhile: so it is
       advice. The thread that is named is written alone, then those before it as one list, and all the others
       after that, which does no harm to those that have been moved. A thread counts as assigned only when a
       whole write with it was taken, as gone or refused only by a write of its own.
    3. A list that failed halves the lists that follow, one that was taken doubles them. So a thread that
       cannot be moved costs a few more writes, wherever it stands, and it is found without advice as well.
    4. Kernels before 6.7 answer EINVAL to a list, as later ones do to a list with a thread of another control
       group. What this kernel does is decided once, by a thread that was taken alone, then refused as a list
       of twice itself, then taken alone again.
    5. Who need not have each thread tried is told at the first that is refused with none left before it:
       where all are in another control group that is the second write, however many they are.
    6. Who wants each thread tried is spared those of which it is known: of many, who is in the control group
       of one that was refused is not tried. Two files tell that; each time that they spare nobody, twice as
       many refusals pass until they are read again.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from attrs import define, field

from resctrl.errors import InvalidTidError, Operation, ResctrlError, translate
from resctrl.fs import FsProvider, WriteError
from resctrl.inventory import neighbours
from resctrl.model import AssignmentResult, ResctrlConfig, Tid
from resctrl.status import LastStatus, last_status

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from pathlib import Path

__all__ = ["Assigner", "Assignment", "checked"]

_ABOUT_A_THREAD: Final = frozenset({errno.ESRCH, errno.EINVAL, errno.EPERM})
_MANY: Final = 8
"""From how many threads on it is cheaper to read where they are than to try them."""
_LARGEST_TID: Final = 2**31 - 1
_PAGE: Final = 4096
"""Bytes that a write may have; kernels with larger pages take more."""


def checked(operation: Operation, path: Path, tids: Iterable[Tid]) -> list[Tid]:
    """Return the ids without repetition, in order, or refuse them all.

    Raises:
        InvalidTidError: An id is 0, negative or too large.
    """
    unique = list(dict.fromkeys(tids))
    for tid in unique:
        if not 0 < tid <= _LARGEST_TID:
            raise InvalidTidError(operation, path, detail=f"{tid} is no thread id")
    return unique


@define
class Assignment:
    """What became of the threads of one call.

    Attributes:
        assigned: Those that are in the group now.
        missing: Those that were gone.
        refused: Those that the kernel would not take, in the order in which that came out; after them those
            that were given up, untried.
        refusal: The error of the first of these.
    """

    assigned: set[Tid] = field(factory=set)
    missing: set[Tid] = field(factory=set)
    refused: list[Tid] = field(factory=list)
    refusal: ResctrlError | None = None

    @property
    def result(self) -> AssignmentResult:
        """The numbers."""
        return AssignmentResult(assigned=len(self.assigned), missing=len(self.missing))


class Assigner:
    """Writes to `tasks` files, and remembers whether this kernel takes lists.

    Args:
        fs: The provider.
        config: Where resctrl is mounted.

    Attributes:
        lists: Whether it does; None while that has not come out.
    """

    __slots__ = ("config", "fs", "lists", "root")

    def __init__(self, fs: FsProvider, config: ResctrlConfig) -> None:
        self.fs: FsProvider = fs
        self.config: ResctrlConfig = config
        self.root: Path = config.root
        self.lists: bool | None = None

    def assign(self, group: Path, tids: Sequence[Tid], *, try_all: bool = True) -> Assignment:
        """Put threads into a group; no id may come twice.

        Args:
            group: The group.
            tids: The threads.
            try_all: False: once one is refused with none left before it, count the rest as refused, untried.

        Raises:
            ResctrlError: The failure concerns the group itself; `partial` and `refused` tell what was done.
        """
        run = _Run(self, group, tids, try_all=try_all)
        if tids:
            try:
                self.fs.write_all(group / "tasks", run.chunks(), go_on=run.go_on)
            except WriteError as error:
                typed = _typed(group, error, last_status(self.fs, self.root))
                typed.partial, typed.refused = run.done.result, (*run.done.refused, *run.spared)
                raise typed from error
        run.done.refused += run.spared
        return run.done


class _Run:
    """One call: yields what is to be written next, and is told when that failed."""

    def __init__(self, assigner: Assigner, group: Path, tids: Sequence[Tid], *, try_all: bool) -> None:
        self.done = Assignment()
        self.spared: list[Tid] = []
        self._next_look = self._patience = 0
        self._assigner = assigner
        self._group = group
        self._try_all = try_all
        self._rest = list(reversed(tids))  # the next one last, where lists are cut and extended cheaply
        self._narrowest = len(f"{min(tids, default=0)},")
        self._room = _PAGE
        self._before = 0  # how many of the rest stood before the thread that was named: the next list
        self._writing: Sequence[Tid] = ()
        self._failure: WriteError | None = None
        self._status = LastStatus()

    def go_on(self, failure: WriteError) -> bool:
        """Take note of a failed write; one that does not concern a thread ends the call."""
        self._failure = failure
        if failure.errno not in _ABOUT_A_THREAD:
            return False
        untold = self.done.refusal is None and failure.errno != errno.ESRCH
        if len(self._writing) > 1 or untold:  # else nothing is to be learnt from it
            self._status = last_status(self._assigner.fs, self._assigner.root)
        return True

    def chunks(self) -> Generator[bytes, None, None]:
        """Yield one write after the other, until every thread is accounted for."""
        while self._rest:
            batch, text = self._next_batch()
            if len(batch) == 1:
                taken = yield from self._alone(batch[0])
            else:
                taken = yield from self._together(batch, text)
            if taken:
                self._room = min(2 * self._room, _PAGE)

    def _next_batch(self) -> tuple[list[Tid], bytes]:
        """Take as many threads as may go into the next list, at least one; return them, and the list.

        It is written out for as many as could fit if all were short, and cut where the room ends: the
        loop is the interpreter's own, since one of ours would take longer than the kernel does.
        """
        room = 0 if self._assigner.lists is False else self._room
        before, self._before = self._before, 0
        batch = self._rest[: -(before or max(1, room // self._narrowest)) - 1 : -1]
        text = ",".join(map(str, batch)) + "\n"
        if len(text) > room and len(batch) > 1 and not before:
            end = text.rfind(",", 0, room)
            end = text.index(",") if end < 0 else end
            batch = batch[: text.count(",", 0, end) + 1]
            text = text[:end] + "\n"
        del self._rest[-len(batch) :]
        return batch, text.encode()

    def _together(self, batch: list[Tid], text: bytes) -> Generator[bytes, None, bool]:
        """Write several threads; return whether they were taken. If not, all but perhaps one come again."""
        failure = yield from self._write(batch, text)
        if failure is None:
            self._assigner.lists = True
            self.done.assigned.update(batch)
            return True
        self._room = len(text) // 2
        if failure.errno == errno.ESRCH:
            self._assigner.lists = True  # who does not take lists does not look for threads in one
        named = self._status.task
        self._rest.extend(tid for tid in reversed(batch) if tid != named)
        if named is not None and named in batch:
            self._before = batch.index(Tid(named))
            yield from self._alone(Tid(named))
        elif failure.errno == errno.EINVAL:
            yield from self._find_out()
        return False

    def _find_out(self) -> Generator[bytes, None, None]:
        """Where that is not known, write threads alone until one decides whether this kernel takes lists."""
        while self._rest and self._assigner.lists is None:
            tid = self._rest.pop()
            if not (yield from self._alone(tid)):
                continue
            failure = yield from self._write((tid, tid), b"%d,%d\n" % (tid, tid))
            if failure is None or failure.errno == errno.ESRCH:
                self._assigner.lists = True
            elif failure.errno == errno.EINVAL and (yield from self._alone(tid)):
                self._assigner.lists = False

    def _alone(self, tid: Tid) -> Generator[bytes, None, bool]:
        """Write one thread, which settles what becomes of it; return whether it was taken."""
        failure = yield from self._write((tid,), b"%d\n" % tid)
        if failure is None:
            self.done.assigned.add(tid)
            return True
        self.done.assigned.discard(tid)
        if failure.errno == errno.ESRCH:
            self.done.missing.add(tid)
        else:
            self.done.refused.append(tid)
            self.done.refusal = self.done.refusal or _typed(self._group, failure, self._status)
            if not self._before:
                self._spare(tid, failure)
        return False

    def _spare(self, refused: Tid, failure: WriteError) -> None:
        """Give up those of the rest that need not be tried after this refusal."""
        if not self._try_all:
            self.spared += reversed(self._rest)
            self._rest.clear()
        elif failure.errno == errno.EINVAL and len(self._rest) >= _MANY:
            if self._next_look > 0:
                self._next_look -= 1
                return
            inside = neighbours(self._assigner.fs, self._assigner.config, self._group, refused)
            if inside.isdisjoint(self._rest):
                self._next_look, self._patience = self._patience, 2 * self._patience + 1
            self.spared += (tid for tid in reversed(self._rest) if tid in inside)
            self._rest = [tid for tid in self._rest if tid not in inside]

    def _write(self, tids: Sequence[Tid], text: bytes) -> Generator[bytes, None, WriteError | None]:
        """Yield one write; return its failure, or None when the kernel took it."""
        self._writing, self._failure = tids, None
        yield text
        return self._failure


def _typed(group: Path, failure: WriteError, status: LastStatus) -> ResctrlError:
    """Build the typed error of a failure."""
    try:
        with translate(Operation.ASSIGN_TASKS, group, lambda: status.sentence):
            raise failure
    except ResctrlError as typed:
        return typed
