"""Resctrl.reconcile_group: what a moving target comes to."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from resctrl import (
    AssignmentResult,
    EmptyPidSetError,
    GroupNotFoundError,
    InvalidTidError,
    Operation,
    ReconcileResult,
    Resctrl,
    ResctrlIOError,
    TaskNotInParentError,
    Tid,
    UnexpectedContentError,
)
from resctrl.testing import FakeFs, RecordingFs
from tests.unit.fakes import MON, ROOT, Machine, put

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TASKS = MON / "pod_a/tasks"


@pytest.fixture
def machine() -> Machine:
    """Return a machine with one group."""
    return Machine()


def listings(*lists: list[Tid]) -> Callable[[], list[Tid]]:
    """Return a source that lists one after the other, and then the last one again."""
    rest = list(lists)
    return lambda: rest.pop(0) if len(rest) > 1 else rest[0]


def test_threads_that_were_there_before(machine: Machine) -> None:
    """Every thread of every process is moved: one pass, and a look that finds nothing new."""
    tids = machine.threads(200)
    result = machine.resctrl.reconcile_group(machine.group, lambda: tids)
    assert result == ReconcileResult(assigned=200, missing=0, passes=1)
    assert result.complete
    assert machine.fake.tasks_in(machine.group) == set(tids)


def test_tasks_are_read_once(machine: Machine) -> None:
    """Each read of tasks walks all threads of the machine, so there is one, whatever the passes."""
    a, b, c = machine.threads(3)
    machine.resctrl.reconcile_group(machine.group, listings([a], [a, b], [a, b, c]))
    assert machine.fs.count("read_text", TASKS) == 1
    assert machine.fs.count("write_all", TASKS) == 3


def test_threads_that_are_born_meanwhile(machine: Machine) -> None:
    """The source is asked until it lists nothing new; each thread is written once."""
    a, b, c = machine.threads(3)
    result = machine.resctrl.reconcile_group(machine.group, listings([a], [a, b], [a, b, c]))
    assert result == ReconcileResult(assigned=3, missing=0, passes=3)
    assert machine.fs.written(TASKS) == [b"%d\n" % tid for tid in (a, b, c)]


def test_children_that_inherit(machine: Machine) -> None:
    """A thread that was born into the group is written as well, which does no harm."""
    (parent,) = machine.threads(1)

    def source() -> list[Tid]:
        if machine.fake.tasks_in(machine.group):
            children.append(machine.fake.spawn(parent)) if not children else None
        return [parent, *children]

    children: list[Tid] = []
    assert machine.resctrl.reconcile_group(machine.group, source).complete
    assert machine.fake.tasks_in(machine.group) == {parent, *children}


@pytest.mark.parametrize("max_passes", [1, 2, 10])
def test_threads_that_never_come_to_rest(machine: Machine, max_passes: int) -> None:
    """After max_passes it ends, and what was listed last and is outside is missing."""
    result = machine.resctrl.reconcile_group(machine.group, lambda: machine.threads(1), max_passes=max_passes)
    assert result == ReconcileResult(assigned=max_passes, missing=1, passes=max_passes)
    assert not result.complete
    assert machine.fs.count("write_all") == max_passes


def test_max_passes_of_none(machine: Machine) -> None:
    """Doing nothing cannot be asked for, and is never reported as complete."""
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="max_passes"):
            machine.resctrl.reconcile_group(machine.group, lambda: machine.threads(1), max_passes=wrong)
    assert machine.fs.calls == []


def test_nothing_listed(machine: Machine) -> None:
    """A container without threads is not complete: it is an error of its own."""
    with pytest.raises(EmptyPidSetError):
        machine.resctrl.reconcile_group(machine.group, list)
    assert machine.fs.calls == []


def test_nothing_listed_any_more(machine: Machine) -> None:
    """The same when all its threads have gone meanwhile; what was done stays with the error."""
    (tid,) = machine.threads(1)
    with pytest.raises(EmptyPidSetError) as caught:
        machine.resctrl.reconcile_group(machine.group, listings([tid], []))
    assert caught.value.partial == AssignmentResult(assigned=1, missing=0)


def test_the_dead_are_not_missing(machine: Machine) -> None:
    """A thread that died before or after its write makes nothing incomplete."""
    a, b = machine.threads(2)
    dead = machine.dead()
    lists = [[a, b, dead], [a, b]]

    def source() -> list[Tid]:
        return lists.pop(0) if len(lists) > 1 else lists[0]

    assert machine.resctrl.reconcile_group(machine.group, source).complete


def test_dead_but_still_listed(machine: Machine) -> None:
    """A thread that answers ESRCH in the last pass and once more after it is dead, whatever is listed."""
    (tid,) = machine.threads(1)
    dead = machine.dead()
    result = machine.resctrl.reconcile_group(machine.group, lambda: [tid, dead], max_passes=3)
    assert result == ReconcileResult(assigned=1, missing=0, passes=3)


def test_an_id_that_is_used_again_after_the_last_pass(machine: Machine) -> None:
    """ESRCH of the last pass is no proof once the id is listed again: it is written once more, and taken."""
    (a,) = machine.threads(1)
    reused = machine.dead()
    looks = 0

    def source() -> list[Tid]:
        nonlocal looks
        looks += 1
        if looks == 2:
            machine.fake.spawn(tid=reused)
        return [a, reused]

    result = machine.resctrl.reconcile_group(machine.group, source, max_passes=1)
    assert result == ReconcileResult(assigned=2, missing=0, passes=1)
    assert machine.fake.tasks_in(machine.group) == {a, reused}
    assert machine.fs.count("read_text", TASKS) == 1


def test_children_of_the_last_one_taken(machine: Machine) -> None:
    """What is taken after the last look may have had children outside meanwhile: there is one look more."""
    (a,) = machine.threads(1)
    reused = machine.dead()
    machine.faulty.before("write_all", lambda _: machine.fake.spawn(tid=reused), nth=2)
    child = machine.fake.spawn()
    source = listings([a, reused], [a, reused], [a, reused, child])
    result = machine.resctrl.reconcile_group(machine.group, source, max_passes=1)
    assert result == ReconcileResult(assigned=2, missing=1, passes=1)


def test_nothing_listed_after_the_last_one_taken(machine: Machine) -> None:
    """The look after it is like the others: who lists nothing is not complete."""
    (a,) = machine.threads(1)
    reused = machine.dead()
    machine.faulty.before("write_all", lambda _: machine.fake.spawn(tid=reused), nth=2)
    source = listings([a, reused], [a, reused], [])
    with pytest.raises(EmptyPidSetError) as caught:
        machine.resctrl.reconcile_group(machine.group, source, max_passes=1)
    assert caught.value.partial == AssignmentResult(assigned=2, missing=1)


def test_an_id_that_is_used_again_elsewhere(machine: Machine) -> None:
    """A thread that is refused when it is written once more is a refusal like any other."""
    (a,) = machine.threads(1)
    reused = machine.dead()

    def classed(_: object) -> None:
        put(machine.fake, ROOT / "c1", f"{machine.fake.spawn(tid=reused)}")

    machine.faulty.before("write_all", classed, nth=3, path=TASKS)
    with pytest.raises(TaskNotInParentError) as caught:
        machine.resctrl.reconcile_group(machine.group, lambda: [a, reused], max_passes=2)
    assert caught.value.partial == AssignmentResult(assigned=1, missing=2)


def test_death_between_the_last_look_and_the_read(machine: Machine) -> None:
    """A thread that was assigned and is not in the group is looked up again: dead is not missing."""
    a, b = machine.threads(2)
    live = [a, b]

    def die(_: object) -> None:
        machine.fake.end(b)
        live.remove(b)

    machine.faulty.before("read_text", die, path=TASKS)
    result = machine.resctrl.reconcile_group(machine.group, lambda: list(live))
    assert result == ReconcileResult(assigned=2, missing=0, passes=1)


def test_moved_away_by_somebody_else(machine: Machine) -> None:
    """An assigned thread that lives and is not in the group is missing: somebody classed it."""
    a, b = machine.threads(2)
    machine.faulty.before("read_text", lambda _: put(machine.fake, ROOT / "c1", f"{b}"), path=TASKS)
    result = machine.resctrl.reconcile_group(machine.group, lambda: [a, b])
    assert result == ReconcileResult(assigned=2, missing=1, passes=1)


def test_an_id_that_is_used_again(machine: Machine) -> None:
    """An id that was dead in one pass and is listed in the next is written again."""
    dead = machine.dead()
    a, b = machine.threads(2)
    machine.faulty.before("write_all", lambda _: machine.fake.spawn(tid=dead), nth=2)

    result = machine.resctrl.reconcile_group(machine.group, listings([a, dead], [a, b, dead]))
    assert result == ReconcileResult(assigned=3, missing=0, passes=2)
    assert machine.fake.tasks_in(machine.group) == {a, b, dead}


def test_dead_long_ago_and_listed_last(machine: Machine) -> None:
    """Only the last pass tells who is dead: an id that is used again when no pass is left is missing."""
    dead = machine.dead()
    a, b = machine.threads(2)
    machine.faulty.before("write_all", lambda _: machine.fake.spawn(tid=dead), nth=2)
    source = listings([a, dead], [a, b], [a, b, dead])
    result = machine.resctrl.reconcile_group(machine.group, source, max_passes=2)
    assert result == ReconcileResult(assigned=2, missing=1, passes=2)


def test_a_refused_thread_stops_nobody(machine: Machine) -> None:
    """The other threads and passes go on; the refusal is raised at the end, and written only once."""
    a, b = machine.threads(2)
    classed = machine.classed()
    with pytest.raises(TaskNotInParentError) as caught:
        machine.resctrl.reconcile_group(machine.group, listings([a, classed], [a, classed, b]))
    assert caught.value.partial == AssignmentResult(assigned=2, missing=0)
    assert caught.value.refused == (classed,)
    assert machine.fake.tasks_in(machine.group) == {a, b}
    assert machine.fs.written(TASKS) == [
        b"%d,%d\n" % (a, classed),
        *(b"%d\n" % tid for tid in (classed, a, b)),
    ]


def test_a_group_that_goes_away(machine: Machine) -> None:
    """A hard error ends it, with the sum of all passes so far."""
    a, b, c = machine.threads(3)
    dead, classed = machine.dead(), machine.classed()
    # first pass: the list, dead, a; second pass: the list, classed, b, c
    machine.faulty.fail("write", errno.ENODEV, nth=7)
    with pytest.raises(GroupNotFoundError) as caught:
        machine.resctrl.reconcile_group(machine.group, listings([a, dead], [a, b, classed, c]))
    assert caught.value.partial == AssignmentResult(assigned=2, missing=1)
    assert caught.value.refused == (classed,)
    assert machine.faulty.unused() == 0


def test_the_dead_of_a_pass_that_broke_off(machine: Machine) -> None:
    """They are counted with those of the passes before it."""
    a, b = machine.threads(2)
    dead, more = machine.dead(), machine.dead()
    # first pass: the list, dead, a; second pass: the list, more, b
    machine.faulty.fail("write", errno.ENODEV, nth=6)
    with pytest.raises(GroupNotFoundError) as caught:
        machine.resctrl.reconcile_group(machine.group, listings([a, dead], [a, b, more]))
    assert caught.value.partial == AssignmentResult(assigned=1, missing=2)
    assert machine.faulty.unused() == 0


def test_a_group_that_goes_away_at_the_end(machine: Machine) -> None:
    """A failed read of tasks does not lose what was done before it."""
    a, b = machine.threads(2)
    machine.faulty.fail("read_text", errno.ENODEV, path=TASKS)
    with pytest.raises(GroupNotFoundError) as caught:
        machine.resctrl.reconcile_group(machine.group, listings([a, machine.dead()], [a, b]))
    assert caught.value.partial == AssignmentResult(assigned=2, missing=1)


def test_tasks_that_cannot_be_understood(machine: Machine) -> None:
    """The same when what is read makes no sense."""
    tids = machine.threads(2)

    class Nonsense(RecordingFs[FakeFs]):
        def read_text(self, path: Path) -> str:
            return "nonsense" if path == TASKS else super().read_text(path)

    resctrl = Resctrl.with_provider(Nonsense(machine.fake))
    with pytest.raises(UnexpectedContentError) as caught:
        resctrl.reconcile_group(machine.group, lambda: tids)
    assert caught.value.partial == AssignmentResult(assigned=2, missing=0)


def test_a_source_that_fails_later(machine: Machine) -> None:
    """A typed error of a later listing carries what was done; that of the first, that nothing was."""
    tids = machine.threads(2)
    for listed, assigned in (([], 0), ([tids], 2)):
        rest = list(listed)

        def source(rest: list[list[Tid]] = rest) -> list[Tid]:
            if not rest:
                raise ResctrlIOError(Operation.LIST_TASKS, errno=errno.EIO)
            return rest.pop()

        with pytest.raises(ResctrlIOError) as caught:
            machine.resctrl.reconcile_group(machine.group, source)
        assert caught.value.partial == AssignmentResult(assigned=assigned, missing=0)


@pytest.mark.parametrize("max_passes", [1, 10])
def test_an_impossible_id_that_is_listed_later(machine: Machine, max_passes: int) -> None:
    """The same when a later listing holds a 0: it is not written, and what was done is told."""
    (tid,) = machine.threads(1)
    with pytest.raises(InvalidTidError) as caught:
        machine.resctrl.reconcile_group(machine.group, listings([tid], [tid, Tid(0)]), max_passes=max_passes)
    assert caught.value.partial == AssignmentResult(assigned=1, missing=0)
    assert machine.fs.written(TASKS) == [b"%d\n" % tid]


def test_a_look_for_the_lost_that_fails(machine: Machine) -> None:
    """The same when it is looked whether a thread that has left the group still lives."""
    (tid,) = machine.threads(1)
    machine.faulty.before("read_text", lambda _: put(machine.fake, ROOT / "c1", f"{tid}"), path=TASKS)
    with pytest.raises(InvalidTidError) as caught:
        machine.resctrl.reconcile_group(machine.group, listings([tid], [tid], [Tid(0)]))
    assert caught.value.partial == AssignmentResult(assigned=1, missing=0)


def test_an_impossible_id_is_never_written(machine: Machine) -> None:
    """A 0 from the source (a task outside our pid namespace) would move ourselves."""
    with pytest.raises(InvalidTidError):
        machine.resctrl.reconcile_group(machine.group, lambda: [Tid(0), *machine.threads(1)])
    assert machine.fake.tasks_in(machine.group) == set()


def test_what_the_source_raises_is_passed_on(machine: Machine) -> None:
    """An unreadable cgroup is the source's affair."""

    def source() -> list[Tid]:
        raise FileNotFoundError(errno.ENOENT, "no cgroup")

    with pytest.raises(FileNotFoundError):
        machine.resctrl.reconcile_group(machine.group, source)


def test_a_second_reconcile_writes_again(machine: Machine) -> None:
    """Nothing is remembered between calls: what was taken away meanwhile comes back."""
    (tid,) = machine.threads(1)
    machine.resctrl.reconcile_group(machine.group, lambda: [tid])
    put(machine.fake, ROOT, f"{tid}")
    result = machine.resctrl.reconcile_group(machine.group, lambda: [tid])
    assert result.complete
    assert machine.fake.tasks_in(machine.group) == {tid}
