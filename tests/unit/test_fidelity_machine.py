"""The fidelity machine finds what it is made to find: here with a fake in the kernel's place."""

from __future__ import annotations

import errno
import re
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from resctrl.testing import FakeFs
from tests.kernel.fidelity import machine
from tests.kernel.fidelity.machine import Difference, Report, Stage, compare, shortened
from tests.kernel.fidelity.operations import ELSEWHERE, ROOT, Generator, Kind, Operation
from tests.kernel.fidelity.sides import FakeLeader, FakeSide, Limbo, Sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from resctrl import Reader, Tid, WriteError

PAGE = Path(__file__).parents[2] / "docs/explanation/kernel-semantics.md"
SIZES = Sizes(num_rmids=10)
SHORT = 9
"""Operations within which every mistake below can be shown."""


def found_in(make: Callable[..., FakeFs], limbo: Limbo = Limbo.NONE, *, seed: int = 1) -> Report:
    """Compare a fake with another one."""
    stage = Stage(FakeLeader(SIZES, limbo), FakeSide(SIZES, limbo, make))
    return compare(stage, seed=seed, operations=6000, length=300, most_differences=1)


@pytest.mark.parametrize("limbo", [Limbo.NONE, Limbo.ENDLESS])
def test_two_of_a_kind_do_not_differ(limbo: Limbo) -> None:
    """What is the same is told to be the same."""
    report = found_in(FakeFs, limbo)
    assert report.differences == []
    assert report.operations == 6000
    assert {kind for kind, _ in report.answers} == {kind.value for kind in Kind}


class BusyIsFull(FakeFs):
    """Tells ENOSPC where RMIDs are in limbo."""

    def create_dir(self, path: Path) -> None:
        try:
            super().create_dir(path)
        except OSError as error:
            raise OSError(errno.ENOSPC if error.errno == errno.EBUSY else error.errno, "") from error


class ForgetsToInherit(FakeFs):
    """Lets children begin in the default group."""

    def spawn(self, parent: Tid | None = None, *, tid: Tid | None = None) -> Tid:
        return super().spawn(None, tid=tid)


class MovesPastTheDead(FakeFs):
    """Works a list off to its end, whatever fails."""

    def write_all(
        self,
        path: Path,
        chunks: Iterable[bytes],
        *,
        go_on: Callable[[WriteError], bool] | None = None,
    ) -> int:
        for chunk in chunks:
            for part in chunk.split(b","):
                try:
                    super().write_all(path, [part])
                except ProcessLookupError:
                    continue
        return 1


class AlwaysOk(FakeFs):
    """Has no last words."""

    def read_text(self, path: Path) -> str:
        return "ok\n" if path.name == "last_cmd_status" else super().read_text(path)


class RemovesInfo(FakeFs):
    """Keeps silent about the directories that cannot be removed."""

    def remove_dir(self, path: Path) -> None:
        try:
            super().remove_dir(path)
        except PermissionError:
            return


class ReadsOn(FakeFs):
    """Reads by path what is held open."""

    def open_reader(self, path: Path) -> Reader:
        reader = super().open_reader(path)
        reader.read = lambda: self.read_text(path)  # type: ignore[method-assign]
        return reader


class RenamesOver(FakeFs):
    """Lets a group take the place of another one."""

    def rename(self, source: Path, target: Path) -> None:
        try:
            super().rename(source, target)
        except FileExistsError:
            super().remove_dir(target)
            super().rename(source, target)


class UnmountsAlways(FakeFs):
    """Does not mind open files."""

    def unmount(self) -> None:
        self._held.clear()
        super().unmount()

    def _let_go(self, node: object) -> None:
        pass


class KeepsGroups(FakeFs):
    """Loses the tasks of a removed group."""

    def remove_dir(self, path: Path) -> None:
        there = [tid for tid in self._tasks(path) if tid > 2]
        super().remove_dir(path)
        for tid in there:
            super().end(tid)
            super().spawn(tid=tid)

    def _tasks(self, path: Path) -> set[Tid]:
        try:
            return self.tasks_in(path) if "mon_groups" in path.parts else set()
        except (OSError, ValueError):
            return set()


@pytest.mark.parametrize(
    ("make", "limbo"),
    [
        (BusyIsFull, Limbo.ENDLESS),
        (ForgetsToInherit, Limbo.NONE),
        (MovesPastTheDead, Limbo.NONE),
        (AlwaysOk, Limbo.NONE),
        (RemovesInfo, Limbo.NONE),
        (ReadsOn, Limbo.NONE),
        (RenamesOver, Limbo.NONE),
        (UnmountsAlways, Limbo.NONE),
        (KeepsGroups, Limbo.NONE),
    ],
)
def test_a_mistake_is_found_and_made_short(make: Callable[..., FakeFs], limbo: Limbo) -> None:
    """Each of these fakes is told from a true one, by a sequence that a person can read."""
    (difference,) = found_in(make, limbo).differences
    assert difference.kernel != difference.fake
    # 9 RMIDs have to be used up before limbo shows.
    assert len(difference.operations) <= SHORT + (SIZES.num_rmids if limbo is Limbo.ENDLESS else 0)


def test_other_limbo_is_found() -> None:
    """A fake whose RMIDs come back at once is told from one whose never do."""
    stage = Stage(FakeLeader(SIZES, Limbo.ENDLESS), FakeSide(SIZES, Limbo.NONE))
    report = compare(stage, seed=1, operations=3000, length=300, most_differences=1)
    assert report.differences


def test_ordinary_limbo_may_differ_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """One side may have an RMID back before the other, and that is no difference; for longer it is one."""
    monkeypatch.setattr(machine, "LIMBO_MAY_DIFFER", 0.3)
    group = [ROOT / "mon_groups" / name for name in "abc"]
    steps = [
        Operation(Kind.CREATE_DIR, group[0]),
        Operation(Kind.REMOVE_DIR, group[0]),
        Operation(Kind.CREATE_DIR, group[1]),
    ]
    for seconds, same in ((0.1, True), (60.0, False)):
        sizes = Sizes(num_rmids=2)
        fake = FakeSide(sizes, Limbo.REAL, lambda seconds=seconds, **kw: FakeFs(**{**kw, "limbo": seconds}))
        stage = Stage(FakeLeader(sizes, Limbo.NONE), fake, ordinary_limbo=True)
        stage.begin()
        answers = [stage.play(step) for step in steps]
        assert (answers[-1] == ("ok", "ok")) is same
        assert stage.waited > 0


def test_making_short_takes_no_longer_than_it_may() -> None:
    """Where each try is slow the difference stays as long as it was found."""
    stage = Stage(FakeLeader(SIZES, Limbo.NONE), FakeSide(SIZES, Limbo.NONE, AlwaysOk))
    long = Difference(tuple(Generator(2).sequence(200)), "", "")
    begin = time.monotonic()
    assert shortened(stage, long, 0.0) == long
    assert time.monotonic() - begin < 1.0


def test_little_may_differ() -> None:
    """What may differ is five rows at most, each with its line of the kernel, and known to the machine."""
    rows = re.findall(r"^\| (D\d) \| .+ \| `\w+`: `.+` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == re.findall(r"^    (D\d)  ", machine.__doc__ or "", re.MULTILINE)
    assert 0 < len(rows) <= 5


def test_a_seed_is_a_sequence() -> None:
    """The same seed makes the same operations, another one others; each is called by what it is."""
    one, again, other = (Generator(seed).sequence(500) for seed in (1, 1, 2))
    assert one == again != other
    assert Counter(map(str, one)).total() == 500
    texts = {str(Operation(kind, ROOT / ("x" * 3000), ELSEWHERE, ("{t0}",), 3)) for kind in Kind}
    assert len(texts) == len(Kind)
    assert max(map(len, texts)) < 200
