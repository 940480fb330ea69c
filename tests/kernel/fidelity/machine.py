"""Plays operations on both sides and compares every answer.

Owns: what an answer is, what may differ, how a sequence that shows a difference is made short. Must not know:
which side is the kernel.

What may differ, each a row of "Where fake and kernel may differ" in docs/explanation/kernel-semantics.md:
    D1  in which order a `tasks` file lists, and threads of the machine that the fake does not have
    D2  the values of counters (that each is a number, or the word, may not differ)
    D3  with ordinary limbo: whether an RMID is back already, for at most 2.5 s
"""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen

from resctrl import Resctrl, Tid
from tests.kernel.fidelity.answers import CALLS, answer, call, write_on
from tests.kernel.fidelity.operations import ELSEWHERE, ROOT, Generator, Kind, Operation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from resctrl import Reader
    from tests.kernel.fidelity.sides import FakeSide, Leader, Side

__all__ = ["LIMBO_MAY_DIFFER", "Difference", "Report", "Stage", "compare", "shortened"]

LIMBO_MAY_DIFFER: Final = 2.5
"""Seconds that one side may have an RMID back before the other."""

_PAGE: Final = 4096
_FIRST_TASKS: Final = 4
_MOST_TASKS: Final = 12
_EVERYWHERE: Final = (1, 2)
"""Threads that every machine has."""


@frozen
class Difference:
    """Where the sides part.

    Attributes:
        operations: What was done, the last being what was answered differently.
        kernel: The one answer.
        fake: The other.
    """

    operations: tuple[Operation, ...]
    kernel: str
    fake: str

    def __str__(self) -> str:
        steps = "".join(f"  {operation}\n" for operation in self.operations)
        return f"{steps}    kernel: {self.kernel}\n    fake:   {self.fake}\n"


@define
class Report:
    """What came of a comparison.

    Attributes:
        operations: How many were compared.
        answers: How often each kind was answered how.
        differences: What differed.
        waited: The longest that limbo differed, seconds.
    """

    operations: int = 0
    answers: Counter[tuple[str, str]] = field(factory=Counter)
    differences: list[Difference] = field(factory=list)
    waited: float = 0.0


class Stage:
    """Both sides, with the tasks and readers of one sequence.

    Args:
        leader: The side that starts tasks.
        fake: The other.
        ordinary_limbo: The sides may differ about limbo for a while.
    """

    def __init__(self, leader: Leader, fake: FakeSide, *, ordinary_limbo: bool = False) -> None:
        self._leader = leader
        self._fake = fake
        self._ordinary_limbo = ordinary_limbo
        self._living: list[Tid] = []
        self._processes: dict[Tid, set[Tid]] = {}
        self._dead: Tid = Tid(4194304)  # nobody's: one above the highest that Linux gives
        self._readers: list[tuple[Path, Reader, Reader]] = []
        self.waited = 0.0

    def begin(self) -> None:
        """Begin a sequence."""
        for reader in self._readers:
            reader[1].close()
        self._readers.clear()
        for tid in self._living:
            if tid not in self._processes:
                self._leader.end(tid)
        for tid in self._processes:
            self._leader.end(tid)
        self._living.clear()
        self._processes.clear()
        self._leader.reset()
        self._fake.reset()
        for _ in range(_FIRST_TASKS):
            self._start(None, fork=True)

    def play(self, operation: Operation) -> tuple[str, str]:
        """Do one operation on both sides; return both answers."""
        match operation.kind:
            case Kind.THREAD | Kind.FORK | Kind.END:
                return self._task(operation)
            case Kind.OPEN_READER:
                return self._open(operation.path)
            case Kind.READER_READ | Kind.READER_CLOSE:
                return self._reader(operation)
            case Kind.OBSERVE:
                return self._places(self._leader), self._places(self._fake)
            case Kind.WRITE_ALL:
                chunks = self._chunks(operation)
                kernel, fake = self._both(lambda side: side.fs.write_all(operation.path, chunks))
            case Kind.WRITE_ON:
                chunks = self._chunks(operation)
                kernel, fake = self._both(lambda side: write_on(side.fs, operation.path, chunks))
            case kind if kind in CALLS:
                tids = [Tid(int(chunk)) for chunk in self._chunks(operation)]
                kernel, fake = (call(side.fs, operation, tids) for side in (self._leader, self._fake))
            case _:
                kernel, fake = self._both(lambda side: self._call(side, operation))
        if operation.kind is Kind.CREATE_DIR and self._ordinary_limbo and kernel != fake:
            return self._after_limbo(operation.path, kernel, fake)
        return kernel, fake

    def tree(self) -> tuple[str, str]:
        """Return the directories below the root on both sides, and who is in each group."""
        return self._tree_of(self._leader), self._tree_of(self._fake)

    # Operations

    def _call(self, side: Side, operation: Operation) -> object:
        path, fs = operation.path, side.fs
        match operation.kind:
            case Kind.EXISTS:
                return fs.exists(path)
            case Kind.READ_TEXT:
                return self._comparable(side, path, fs.read_text(path))
            case Kind.READ_CHILD_DIRS:
                return self._listed(path, [*fs.read_child_dirs(path), *fs.read_child_files(path)])
            case Kind.CAN_OPEN_FOR_WRITE:
                return fs.can_open_for_write(path)
            case Kind.DETECT:
                return Resctrl.with_provider(fs).detect_support()
            case _:
                self._change(side, operation)
                return None

    def _change(self, side: Side, operation: Operation) -> None:
        match operation.kind:
            case Kind.CREATE_DIR:
                side.fs.create_dir(operation.path)
            case Kind.REMOVE_DIR:
                side.fs.remove_dir(operation.path)
            case Kind.RENAME:
                side.fs.rename(operation.path, operation.target)
            case Kind.MOUNT:
                side.fs.mount_resctrl(operation.path)
            case Kind.UNMOUNT:
                side.unmount()
            case Kind.REMOUNT:
                side.remount(read_only=bool(operation.number))
            case _:
                raise ValueError(operation.kind)

    def _task(self, operation: Operation) -> tuple[str, str]:
        if operation.kind is Kind.END:
            alone = [tid for tid in self._living if not self._processes.get(tid)]
            if len(self._living) <= 1 or not alone:
                return "ok", "ok"
            tid = alone[operation.number % len(alone)]
            self._leader.end(tid)
            self._fake.end(tid)
            self._living.remove(tid)
            self._processes.pop(tid, None)
            for threads in self._processes.values():
                threads.discard(tid)
            self._dead = tid
        elif len(self._living) < _MOST_TASKS:
            parent = self._living[operation.number % len(self._living)]
            tid = self._start(parent, fork=operation.kind is Kind.FORK)
            return self._leader.place_of(tid), self._fake.place_of(tid)
        return "ok", "ok"

    def _start(self, parent: Tid | None, *, fork: bool) -> Tid:
        tid = self._leader.start(parent, fork=fork)
        self._fake.adopt(parent, tid)
        self._living.append(tid)
        if fork:
            self._processes[tid] = set()
        elif parent is not None:
            process = next((first for first, rest in self._processes.items() if parent in {first, *rest}))
            self._processes[process].add(tid)
        return tid

    def _open(self, path: Path) -> tuple[str, str]:
        opened: list[Reader] = []
        answers = self._both(lambda side: opened.append(side.fs.open_reader(path)))
        if len(opened) == 2:
            self._readers.append((path, opened[0], opened[1]))
        else:
            for reader in opened:
                reader.close()
        return answers

    def _reader(self, operation: Operation) -> tuple[str, str]:
        if not self._readers:
            return "ok", "ok"
        number = operation.number % len(self._readers)
        path, *pair = self._readers[number]
        if operation.kind is Kind.READER_CLOSE:
            del self._readers[number]
            for reader in pair:
                reader.close()
            return "ok", "ok"
        sides: tuple[Side, Side] = (self._leader, self._fake)
        kernel, fake = (
            answer(partial(self._read_held, side, path, reader))
            for side, reader in zip(sides, pair, strict=True)
        )
        return kernel, fake

    def _read_held(self, side: Side, path: Path, reader: Reader) -> object:
        return self._comparable(side, path, reader.read())

    def _chunks(self, operation: Operation) -> list[bytes]:
        """Fill in the tasks."""
        chosen = [self._living[(operation.number + i) % len(self._living)] for i in range(3)]
        names = {f"t{i}": str(tid) for i, tid in enumerate(chosen)}
        names |= {f"x{i}": hex(tid) for i, tid in enumerate(chosen)}
        names |= {f"o{i}": f"0{tid:o}" for i, tid in enumerate(chosen)}
        names |= {"dead": str(self._dead)}
        element = f"{chosen[0]},"
        names |= {"fit": element * (_PAGE // len(element)), "over": (element * _PAGE)[: _PAGE + 1]}
        filled = []
        for chunk in operation.chunks:
            text = chunk
            for name, value in names.items():
                text = text.replace(f"{{{name}}}", value)
            filled.append(text.encode("utf-8", "surrogateescape"))
        return filled

    def _after_limbo(self, path: Path, kernel: str, fake: str) -> tuple[str, str]:
        """Wait until the sides agree about an RMID in limbo (D3)."""
        began = time.monotonic()
        while kernel != fake and "EBUSY" in {kernel, fake} and time.monotonic() < began + LIMBO_MAY_DIFFER:
            time.sleep(0.02)
            if fake == "EBUSY":
                fake = answer(lambda: self._fake.fs.create_dir(path))
            if kernel == "EBUSY":
                kernel = answer(lambda: self._leader.fs.create_dir(path))
        self.waited = max(self.waited, time.monotonic() - began)
        # Each try has left its line: that is this machine's doing, not a difference.
        self._both(lambda side: side.fs.write_all(ROOT / "tasks", [b"\n"]))
        return kernel, fake

    # Answers

    def _both(self, call: Callable[[Side], object]) -> tuple[str, str]:
        return answer(lambda: call(self._leader)), answer(lambda: call(self._fake))

    def _comparable(self, side: Side, path: Path, text: str) -> object:
        if path.name == "tasks" and path.parent.name != "info":
            return self._known(side, text)
        if path.parent.name.startswith("mon_L3_"):
            return "a number" if text.removesuffix("\n").isdigit() else text
        return text

    def _known(self, side: Side, text: str) -> list[int]:
        """Return who is listed, of those that both sides know (D1)."""
        known = {*self._living, *_EVERYWHERE, side.self_tid}
        listed = [int(line) for line in text.split()]
        return sorted(0 if tid == side.self_tid else tid for tid in listed if tid in known)

    def _listed(self, path: Path, names: list[str]) -> list[str]:
        """Return the names in a directory; outside of resctrl the fake knows only what leads to it."""
        inside = any(path.is_relative_to(top) for top in (ROOT, ELSEWHERE)) and ".." not in path.parts
        return names if inside else []

    def _places(self, side: Side) -> str:
        tids = [*self._living, *_EVERYWHERE, side.self_tid]
        return "; ".join(side.place_of(tid).replace("\n", " ") for tid in tids)

    def _tree_of(self, side: Side) -> str:
        lines: list[str] = []
        waiting = [ROOT, ELSEWHERE]
        while waiting:
            directory = waiting.pop()
            names = side.fs.read_child_dirs(directory)
            members = answer(partial(self._members, side, directory))
            lines.append(f"{directory} {names} {members}")
            waiting += [directory / name for name in names]
        return "\n".join(lines)

    def _members(self, side: Side, directory: Path) -> list[int]:
        return self._known(side, side.fs.read_text(directory / "tasks"))


def _first_difference(stage: Stage, operations: Sequence[Operation], report: Report) -> Difference | None:
    """Play a sequence; return where it differs, the shortest head of it that does."""
    stage.begin()
    for number, operation in enumerate(operations):
        kernel, fake = stage.play(operation)
        report.operations += 1
        report.answers[operation.kind.value, fake.partition(":")[0].partition(" after")[0]] += 1
        if kernel != fake:
            return Difference(tuple(operations[: number + 1]), kernel, fake)
    kernel, fake = stage.tree()
    return None if kernel == fake else Difference(tuple(operations), kernel, fake)


def shortened(stage: Stage, difference: Difference, seconds: float) -> Difference:
    """Leave out what the difference does not need, as far as the time allows.

    Args:
        stage: Where to play.
        difference: What was found.
        seconds: How long to try at most.
    """
    end = time.monotonic() + seconds
    size = len(difference.operations) // 2
    while size:
        start = 0
        while start < len(difference.operations) and time.monotonic() < end:
            rest = difference.operations[:start] + difference.operations[start + size :]
            found = _first_difference(stage, rest, Report()) if rest else None
            if found is not None:
                difference = found
            else:
                start += size
        size //= 2
    return difference


def compare(
    stage: Stage,
    *,
    seed: int,
    operations: int,
    length: int,
    most_differences: int = 5,
    shorten_for: float = 60.0,
) -> Report:
    """Play sequence after sequence.

    Args:
        stage: Where.
        seed: The same seed makes the same operations.
        operations: How many to play in all.
        length: How many a sequence has.
        most_differences: End after so many.
        shorten_for: Seconds to make one short.
    """
    report, generator = Report(), Generator(seed)
    while report.operations < operations and len(report.differences) < most_differences:
        sequence = generator.sequence(min(length, operations - report.operations))
        difference = _first_difference(stage, sequence, report)
        if difference is not None:
            report.differences.append(shortened(stage, difference, shorten_for))
    report.waited = stage.waited
    return report
