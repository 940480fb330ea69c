"""Threads of any class find their pod's group below their own control group, and no thread changes class."""

from __future__ import annotations

import errno
import itertools
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nri_resctrl_plugin.budget import create_within
from nri_resctrl_plugin.errors import BudgetExceededError, CgroupError
from nri_resctrl_plugin.model import ContainerCgroup, ContainerId, PodUid
from nri_resctrl_plugin.placement import Placed, place
from nri_resctrl_plugin.pods import Reconcile
from resctrl import (
    AssignmentResult,
    CapacityError,
    EmptyPidSetError,
    GroupNotFoundError,
    NoPermissionError,
    Resctrl,
    ResctrlIOError,
    TaskNotInParentError,
    Tid,
)
from resctrl.testing import FakeFs, FaultyFs, RecordingFs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

UID = PodUid("a")
CLASSES = ("", "gold", "silver", "bronze")


class Machine:
    """A fake with three classes, a pod with its group, and one container's threads."""

    def __init__(self, **how: object) -> None:
        self.kernel = FakeFs(num_rmids=16, **how)  # type: ignore[arg-type]
        self.faults = FaultyFs(self.kernel)
        self.fs = RecordingFs(self.faults)
        self.resctrl = Resctrl.with_provider(self.fs)
        for name in CLASSES[1:]:
            self.kernel.create_dir(self.kernel.root / name)
        self.main = self.resctrl.create_group(UID)
        self.tids: list[Tid] = []
        self.max_groups = 0
        self.listings = 0
        self.fs.forget()

    def thread(self, control_group: str = "") -> Tid:
        """Start a thread of the container in a class."""
        tid = self.kernel.spawn()
        self.tids.append(tid)
        self.classify(control_group, tid)
        return tid

    def classify(self, control_group: str, *tids: Tid) -> None:
        """Put threads into a class, as the agent that owns the classes does."""
        for tid in tids:
            self.kernel.write_all(self.kernel.root / control_group / "tasks", [b"%d\n" % tid])

    def group(self, control_group: str) -> Path:
        """Return where the pod's group below a control group stands."""
        return self.resctrl.group_path(UID, control_group)

    def class_of(self, tid: Tid) -> str:
        """Return a thread's control group, past the code under test."""
        inside = [name for name in CLASSES[1:] if tid in self.kernel.tasks_in(self.kernel.root / name)]
        return inside[0] if inside else ""

    def place(
        self,
        *others: Path,
        movable: Iterable[Path] = (),
        follow: bool = True,
        main: Path | None = None,
        source: Callable[[], Iterable[Tid]] | None = None,
        passes: int = 5,
    ) -> Placed:
        """Make one attempt."""
        asked = Reconcile(
            UID,
            ContainerId("c"),
            main if main is not None else self.main,
            ContainerCgroup(cgroups_path="/x"),
            others,
            frozenset(movable),
        )

        def make(control_group: str) -> Path:
            return create_within(self.resctrl, UID, control_group, max_groups=self.max_groups)

        def listed() -> Iterable[Tid]:
            self.listings += 1
            return source() if source is not None else list(self.tids)

        return place(self.resctrl, asked, listed, passes, make if follow else None)

    def looked_up(self) -> int:
        """Return how many threads were asked for their groups."""
        return sum(call.path.name == "cpu_resctrl_groups" for call in self.fs.calls)

    def reads(self, group: Path) -> int:
        """Return how often the `tasks` of a group were read."""
        return self.fs.count("read_text", group / "tasks")

    @property
    def controls(self) -> list[Path]:
        """The control groups, the default one first."""
        return [self.kernel.root / name for name in CLASSES]

    def inside(self, group: Path) -> set[Tid]:
        """Return who is in a group, past the code under test."""
        return self.kernel.tasks_in(group)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_where_all_is_in_the_default_group_nothing_more_is_asked(machine: Machine) -> None:
    """The same calls to the kernel as a plain reconcile, to the last one."""
    for _ in range(5):
        machine.thread()
    assert machine.place(movable={machine.main}) == Placed(
        complete=True, groups=(machine.main,), homes=frozenset({machine.main})
    )
    placed = machine.fs.calls
    machine.fs.forget()
    machine.resctrl.reconcile_group(machine.main, lambda: machine.tids, 5)
    assert placed == machine.fs.calls


def test_a_group_that_is_nobodys_home_moves_with_the_container(machine: Machine) -> None:
    """The container starts in a class: the pod's empty group is renamed; no second RMID is used."""
    free = machine.kernel.free_rmids
    for _ in range(4):
        machine.thread("gold")
    gold = machine.group("gold")
    assert machine.place(movable={machine.main}) == Placed(
        complete=True, groups=(gold,), homes=frozenset({gold})
    )
    assert machine.inside(gold) == set(machine.tids)
    assert machine.kernel.free_rmids == free
    assert not machine.kernel.exists(machine.main)
    assert (machine.fs.count("rename"), machine.fs.count("create_dir"), machine.looked_up()) == (1, 0, 1)
    assert machine.listings == 3, "twice by the refused attempt, once after the last write"


def test_the_home_of_another_container_stays_and_a_group_is_made(machine: Machine) -> None:
    """The pod has two groups then, the main one first."""
    machine.thread("gold")
    gold = machine.group("gold")
    assert machine.place() == Placed(complete=True, groups=(machine.main, gold), homes=frozenset({gold}))
    assert machine.fs.count("rename") == 0


def test_a_group_with_threads_is_never_renamed(machine: Machine) -> None:
    """Its threads would change their class: another container's, or this one's."""
    stranger = machine.kernel.spawn()
    machine.resctrl.assign_tasks(machine.main, [stranger])
    machine.thread("gold")
    placed = machine.place(movable={machine.main})
    assert placed.groups == (machine.main, machine.group("gold"))
    assert machine.class_of(stranger) == ""
    assert placed.complete


def test_a_mixed_container_is_split_by_class(machine: Machine) -> None:
    """Each thread is in the group below its own control group, asked once per control group."""
    tids = {name: [machine.thread(name) for _ in range(20)] for name in CLASSES}
    placed = machine.place(movable={machine.main})
    assert placed.complete
    assert placed.groups[0] == machine.main
    assert placed.homes == set(placed.groups) == {machine.group(name) for name in CLASSES}
    for name in CLASSES:
        assert machine.inside(machine.group(name)) == set(tids[name])
    assert machine.looked_up() == 3


def test_threads_keep_their_class_and_no_class_is_written_to(machine: Machine) -> None:
    """Every tasks file that is written is one of the pod's groups."""
    for name in CLASSES * 2:
        machine.thread(name)
    before = {tid: machine.class_of(tid) for tid in machine.tids}
    assert machine.place(movable={machine.main}).complete
    assert {tid: machine.class_of(tid) for tid in machine.tids} == before
    written = {call.path.parent for call in machine.fs.calls if call.operation == "write"}
    assert written == {machine.group(name) for name in CLASSES}


def test_with_further_groups_the_first_thread_says_where_to_begin(machine: Machine) -> None:
    """Where the pod has a group in the container's class already, no thread is refused any more."""
    gold = machine.resctrl.create_group(UID, "gold")
    for _ in range(3):
        machine.thread("gold")
    machine.fs.forget()
    placed = machine.place(gold)
    assert placed == Placed(complete=True, groups=(machine.main, gold), homes=frozenset({gold}))
    assert machine.looked_up() == 1
    assert machine.fs.written(machine.main / "tasks") == []


def test_the_beginning_survives_dead_threads_and_a_kernel_that_does_not_tell() -> None:
    """A thread that died says nothing; without the file the main group is tried."""
    machine = Machine()
    gold = machine.resctrl.create_group(UID, "gold")
    dead = machine.thread()
    machine.kernel.end(dead)
    machine.thread("gold")
    assert machine.place(gold, source=lambda: [dead, machine.tids[1]]).homes == {gold}
    silent = Machine(proc_groups=False)
    gold = silent.resctrl.create_group(UID, "gold")
    silent.thread()
    assert silent.place(gold).complete


def test_further_groups_that_are_gone_are_left_out(machine: Machine) -> None:
    """Somebody removed the control group, and the pod's group with it: its threads are in the default one."""
    gold = machine.resctrl.create_group(UID, "gold")
    machine.thread()
    machine.kernel.remove_dir(machine.kernel.root / "gold")
    assert machine.place(gold, machine.group("silver")).groups == (machine.main,)
    machine.faults.fail("exists", errno.EACCES)
    assert machine.place(gold).groups == (machine.main, gold)


def test_a_class_change_back_and_forth_keeps_the_group(machine: Machine) -> None:
    """The one group follows its container wherever it goes: same RMID, one group at every moment."""
    tids = [machine.thread() for _ in range(3)]
    machine.place(movable={machine.main})
    free = machine.kernel.free_rmids
    main = machine.main
    for name in ("gold", "silver", "", "gold", ""):
        machine.classify(name, *tids)
        placed = machine.place(movable={main}, main=main)
        assert placed.complete
        assert placed.groups == (machine.group(name),)
        main = placed.groups[0]
        assert machine.inside(main) == set(tids)
        assert machine.kernel.free_rmids == free


def test_a_further_group_can_be_the_one_that_moves(machine: Machine) -> None:
    """The main one is another container's home: it stays first."""
    gold = machine.resctrl.create_group(UID, "gold")
    machine.thread("silver")
    placed = machine.place(gold, movable={gold})
    assert placed.groups == (machine.main, machine.group("silver"))
    assert not machine.kernel.exists(gold)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOENT, errno.EIO, errno.EBUSY])
def test_where_a_group_cannot_be_renamed_one_is_made(machine: Machine, number: int) -> None:
    """A kernel before 6.5, a group that monitors CPUs, a race: the container is complete all the same."""
    machine.thread("gold")
    machine.faults.fail("rename", number)
    placed = machine.place(movable={machine.main})
    assert placed.complete
    assert placed.groups == (machine.main, machine.group("gold"))


def test_a_group_that_is_there_already_is_used(machine: Machine) -> None:
    """EEXIST on the rename: the one that an earlier life left is the pod's."""
    machine.resctrl.create_group(UID, "gold")
    machine.thread("gold")
    placed = machine.place(movable={machine.main})
    assert placed.complete
    assert placed.groups == (machine.main, machine.group("gold"))


def test_a_movable_group_that_is_gone_is_passed_over(machine: Machine) -> None:
    """Reading its threads says so; another one is made."""
    gold = machine.resctrl.create_group(UID, "gold")
    silver = machine.resctrl.create_group(UID, "silver")
    machine.thread("bronze")
    machine.faults.before("read_text", lambda _: machine.kernel.remove_dir(gold), path=gold / "tasks")
    placed = machine.place(gold, silver, movable={gold, silver})
    assert placed.complete
    assert machine.group("bronze") in placed.groups
    assert not machine.kernel.exists(silver)


# --- what cannot be placed ---


def test_a_class_without_room_is_tried_once_and_the_others_are_placed(machine: Machine) -> None:
    """One mkdir per control group and attempt, however many threads; its error is the attempt's."""
    gold = [machine.thread("gold") for _ in range(5)]
    silver = [machine.thread("silver") for _ in range(5)]
    machine.faults.fail("create_dir", errno.ENOSPC, times=math.inf, path=machine.group("gold"))
    placed = machine.place()
    assert isinstance(placed.error, CapacityError)
    assert not placed.complete
    assert placed.groups == (machine.main, machine.group("silver"))
    assert placed.homes == {machine.group("silver")}
    assert machine.inside(machine.group("silver")) == set(silver)
    assert machine.fs.count("create_dir", machine.group("gold")) == 1
    assert {machine.class_of(tid) for tid in gold} == {"gold"}
    assert machine.looked_up() == 3, "one of silver, one of gold, and again once that was given up"


def test_the_budget_holds_for_groups_below_classes(machine: Machine) -> None:
    """A rename needs no room; a new group does."""
    machine.max_groups = 1
    machine.thread("gold")
    refused = machine.place()
    assert isinstance(refused.error, BudgetExceededError)
    assert machine.fs.count("create_dir") == 0
    assert machine.place(movable={machine.main}).complete


def test_without_placement_a_refusal_is_the_answer(machine: Machine) -> None:
    """As ever: the others are in, the thread in the class is not, and nobody is asked where it is."""
    inside, outside = machine.thread(), machine.thread("gold")
    placed = machine.place(follow=False, movable={machine.main})
    assert isinstance(placed.error, TaskNotInParentError)
    assert placed.error.refused == (outside,)
    assert not placed.complete
    assert placed.homes == {machine.main}
    assert machine.inside(machine.main) == {inside}
    assert machine.looked_up() == 0


def test_without_placement_a_container_of_another_class_costs_a_few_calls(machine: Machine) -> None:
    """However many threads it has, and all of them are told; one in the default class is put in."""
    outside = [machine.thread("gold") for _ in range(500)]
    inside = machine.thread()
    placed = machine.place(follow=False)
    assert isinstance(placed.error, TaskNotInParentError)
    assert set(placed.error.refused) == set(outside)
    assert placed.error.partial == AssignmentResult(1, 0)
    assert placed.homes == {machine.main}
    assert machine.inside(machine.main) == {inside}
    assert len(machine.fs.calls) < 15


def test_without_placement_no_thread_is_asked_where_it_is(machine: Machine) -> None:
    """Not even where the pod has further groups from before."""
    gold = machine.resctrl.create_group(UID, "gold")
    machine.thread()
    assert machine.place(gold, follow=False).complete
    assert machine.looked_up() == 0


def test_where_the_kernel_does_not_tell_a_refusal_is_the_answer() -> None:
    """Without cpu_resctrl_groups the class cannot be known: one is asked, each is tried, and it ends."""
    machine = Machine(proc_groups=False)
    for _ in range(3):
        machine.thread("gold")
    inside = machine.thread()
    placed = machine.place(movable={machine.main})
    assert isinstance(placed.error, TaskNotInParentError)
    assert (placed.complete, placed.groups) == (False, (machine.main,))
    assert machine.fs.count("rename") == machine.fs.count("create_dir") == 0
    assert machine.inside(machine.main) == {inside}, "whoever can be placed is"
    assert machine.looked_up() == 2, "one thread, and whether it could be told of any"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EPERM])
def test_a_group_that_refuses_its_own_threads_is_given_up(machine: Machine, number: int) -> None:
    """A pseudo-locked group, or a kernel that lies: bounded work, and the refusal is the answer."""
    for _ in range(64):
        machine.thread()
    machine.faults.fail("write", number, times=math.inf)
    placed = machine.place(passes=3)
    assert placed.error is not None
    assert not placed.complete
    assert placed.homes == frozenset()
    assert machine.fs.count("write") <= 3 * 7 + 1, "without advice it is searched for by halves"
    assert machine.fs.count("write_all") == 3
    assert machine.looked_up() == 3
    assert machine.fs.count("read_text", machine.kernel.root / "tasks") == 0


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EIO, ResctrlIOError), (errno.ENODEV, GroupNotFoundError)]
)
def test_a_failure_of_a_classs_group_leaves_the_others_alone(
    machine: Machine, number: int, kind: type[Exception]
) -> None:
    """The first group fails as a whole: not tried again, the other class is placed, its error told."""
    machine.thread("gold")
    silver = machine.thread("silver")
    machine.faults.fail("write", number, path=machine.group("gold") / "tasks", times=math.inf)
    placed = machine.place()
    assert isinstance(placed.error, kind)
    assert machine.inside(machine.group("silver")) == {silver}
    assert machine.group("gold") in placed.groups
    assert placed.homes == {machine.group("silver")}


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EIO, ResctrlIOError), (errno.ENODEV, GroupNotFoundError)]
)
def test_a_failure_of_the_home_is_no_refusal(machine: Machine, number: int, kind: type[Exception]) -> None:
    """Even where threads were refused before it: then nothing is moved or made."""
    machine.thread()
    machine.thread("gold")
    machine.faults.fail("read_text", number, path=machine.main / "tasks")
    placed = machine.place()
    assert isinstance(placed.error, kind)
    assert placed.homes == {machine.main}
    assert machine.looked_up() == 0


def test_a_group_that_may_not_be_written_is_no_refusal(machine: Machine) -> None:
    """EACCES at the open says nothing about threads: they are asked nothing, and the error is told."""
    machine.thread()
    machine.faults.fail("write_all", errno.EACCES)
    placed = machine.place(movable={machine.main})
    assert isinstance(placed.error, NoPermissionError)
    assert machine.looked_up() == 0


def test_a_vanished_control_group_is_an_answer(machine: Machine) -> None:
    """It went between the question and the rename: its threads are in the default group, and are followed."""
    tid = machine.thread("gold")
    machine.faults.before(
        "rename", lambda _: machine.kernel.remove_dir(machine.kernel.root / "gold"), path=machine.main
    )
    placed = machine.place(movable={machine.main})
    assert placed.complete
    assert placed.groups == (machine.main,)
    assert machine.inside(machine.main) == {tid}


# --- what it costs ---

MANY = pytest.mark.parametrize("many", [1, 10, 1000])


def lists(count: int) -> int:
    """Return how many lists so many ids need."""
    return math.ceil(count / 819)


@MANY
def test_the_cost_of_a_container_in_a_class(machine: Machine, many: int) -> None:
    """Beyond one in the pod's first group: at most two writes and three reads, however many threads."""
    gold = machine.group("gold")
    for _ in range(many):
        machine.thread("gold")
    assert machine.place().complete
    assert len(machine.fs.written(machine.main / "tasks")) == min(many, 2)
    assert len(machine.fs.written(gold / "tasks")) == lists(many)
    assert machine.looked_up() == 1
    assert [machine.reads(group) for group in (machine.main, gold, *machine.controls)] == [1, 1, 0, 0, 0, 0]
    assert machine.fs.count("write_all") == 2
    assert machine.fs.count("read_text") == 3 + min(many, 2), "and the kernel's words after each refusal"


@MANY
@pytest.mark.parametrize("takes_lists", [True, False])
def test_the_cost_where_no_group_is_to_be_had(many: int, takes_lists: bool) -> None:
    """The same at each attempt: it is told at once, whether the kernel takes lists or not."""
    machine = Machine(lists=takes_lists)
    machine.faults.fail("create_dir", errno.ENOSPC, times=math.inf)
    for _ in range(many):
        machine.thread("gold")
    for _ in range(2):
        machine.fs.forget()
        placed = machine.place()
        assert isinstance(placed.error, CapacityError)
        assert (placed.complete, placed.homes) == (False, frozenset())
        assert machine.fs.count("write") == min(many, 2)
        assert (machine.looked_up(), machine.fs.count("create_dir")) == (2, 1)
        assert [machine.reads(group) for group in (machine.main, *machine.controls)] == [1, 0, 1, 0, 0]
    assert machine.listings == 2 * 4


@MANY
def test_the_cost_where_the_default_group_is_not_to_be_had(machine: Machine, many: int) -> None:
    """The pod's group is in a class, this container is not: the `tasks` of the whole machine stay unread."""
    gold = machine.resctrl.move_group(machine.main, "gold")
    machine.max_groups = 1
    for _ in range(many):
        machine.thread()
    machine.fs.forget()
    placed = machine.place(main=gold)
    assert isinstance(placed.error, BudgetExceededError)
    assert machine.fs.count("write") == min(many, 2)
    assert machine.looked_up() == 2
    assert [machine.reads(group) for group in (gold, *machine.controls)] == [1, 0, 1, 0, 0]


@MANY
@pytest.mark.parametrize("closed", [True, False])
def test_the_cost_of_two_classes_one_after_the_other(machine: Machine, many: int, closed: bool) -> None:
    """A change of class costs a few writes, wherever it is."""
    if closed:
        machine.faults.fail("create_dir", errno.ENOSPC, times=math.inf)
    plain = [machine.thread() for _ in range(many)]
    gold = [machine.thread("gold") for _ in range(many)]
    placed = machine.place(movable={machine.main})
    assert placed.complete is not closed
    assert machine.inside(machine.main) == set(plain)
    assert placed.groups[1:] == (() if closed else (machine.group("gold"),))
    assert machine.fs.count("write") <= 2 * lists(many) + 5
    assert machine.looked_up() == (2 if closed else 1)
    assert {machine.class_of(tid) for tid in gold} == {"gold"}


@given(st.lists(st.sampled_from(CLASSES[:2]), min_size=1, max_size=80), st.booleans(), st.booleans())
@settings(max_examples=200)
def test_the_cost_of_two_classes_in_any_order(classes: list[str], closed: bool, movable: bool) -> None:
    """It grows with the changes of class in the list, at most, and whoever can be placed is."""
    machine = Machine()
    if closed:
        machine.faults.fail("create_dir", errno.ENOSPC, times=math.inf)
    changes = sum(one != other for one, other in itertools.pairwise(classes))
    tids: dict[str, set[Tid]] = {"": set(), "gold": set()}
    for name in classes:
        tids[name].add(machine.thread(name))
    placed = machine.place(movable={machine.main} if movable else ())
    moved = movable and not tids[""]
    assert placed.complete is (moved or not (closed and tids["gold"]))
    assert placed.groups[0] == machine.group("gold" if moved else "")
    if tids[""]:
        assert machine.inside(machine.main) == tids[""]
    if placed.complete and tids["gold"]:
        assert machine.inside(machine.group("gold")) == tids["gold"]
    assert machine.fs.count("write") <= 5 * changes + 4
    assert machine.looked_up() <= changes + 2
    assert machine.reads(machine.kernel.root) == 0


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOENT])
def test_a_class_that_cannot_be_read_ends_the_attempt(machine: Machine, number: int) -> None:
    """Neither a group is to be had nor can be seen who needs it: nobody is asked one by one."""
    machine.faults.fail("create_dir", errno.ENOSPC, times=math.inf)
    machine.faults.fail("read_text", number, times=math.inf, path=machine.kernel.root / "gold/tasks")
    for _ in range(10):
        machine.thread("gold")
    placed = machine.place()
    assert isinstance(placed.error, CapacityError)
    assert (machine.fs.count("write"), machine.looked_up()) == (2, 2)


def test_a_main_group_that_fails_where_no_class_can_be_known() -> None:
    """Its own error is told, and the threads are not asked again."""
    machine = Machine(proc_groups=False)
    for _ in range(10):
        machine.thread("gold")
    machine.faults.fail("write_all", errno.EIO, nth=2)
    placed = machine.place()
    assert isinstance(placed.error, ResctrlIOError)
    assert (machine.fs.count("write_all"), machine.looked_up()) == (2, 2)


def test_one_that_its_own_group_refuses_keeps_nobody_out(machine: Machine) -> None:
    """Whoever stands first and may not be moved is passed over: the others are placed, at a few writes."""
    tids = [machine.thread() for _ in range(100)]

    def refuse(_: Path) -> None:
        if b"%d" % tids[0] in machine.fs.calls[-1].chunk.strip().split(b","):
            raise OSError(errno.EPERM, "not this one")

    machine.faults.before("write", refuse, times=math.inf)
    placed = machine.place()
    assert isinstance(placed.error, NoPermissionError)
    assert machine.inside(machine.main) == set(tids[1:])
    assert machine.fs.count("write") < 60
    assert machine.looked_up() == 4


# --- threads that come, go and change ---


def test_a_thread_that_changes_its_class_on_the_way_is_followed(machine: Machine) -> None:
    """It was asked, then moved: the group refuses it, it is asked again."""
    tid = machine.thread("gold")
    machine.faults.before(
        "write", lambda _: machine.classify("silver", tid), path=machine.group("gold") / "tasks"
    )
    placed = machine.place()
    assert placed.complete
    assert machine.inside(machine.group("silver")) == {tid}
    assert placed.homes == {machine.group("silver")}


def test_threads_born_in_the_class_meanwhile_are_placed(machine: Machine) -> None:
    """The search lists again after each write, as the plain reconcile does."""
    first = machine.thread("gold")
    machine.faults.before(
        "write", lambda _: machine.thread("gold"), path=machine.group("gold") / "tasks", times=3
    )
    placed = machine.place()
    assert placed.complete
    assert len(machine.inside(machine.group("gold"))) == 4
    assert first in machine.inside(machine.group("gold"))


def test_a_container_that_never_rests_is_not_complete(machine: Machine) -> None:
    """Passes are bounded in the search too, and no error is made up."""
    machine.thread("gold")
    machine.faults.before(
        "write",
        lambda _: machine.thread("gold"),
        path=machine.group("gold") / "tasks",
        times=math.inf,
    )
    placed = machine.place(passes=3)
    assert (placed.complete, placed.error) == (False, None)
    assert machine.fs.count("write_all", machine.group("gold") / "tasks") == 4


def test_threads_that_die_on_the_way_are_no_obstacle(machine: Machine) -> None:
    """Refused, then dead: not asked, not missed."""
    dying, living = machine.thread("gold"), machine.thread("gold")

    def die(_: Path) -> None:
        if dying in machine.tids:
            machine.tids.remove(dying)
            machine.kernel.end(dying)

    machine.faults.before("read_text", die, path=lambda path: path.name == "cpu_resctrl_groups")
    placed = machine.place(movable={machine.main})
    assert placed.complete
    assert machine.inside(machine.group("gold")) == {living}


def test_a_thread_that_dies_after_the_last_listing_is_not_missed(machine: Machine) -> None:
    """It is in no group, and nowhere else either."""
    dying = machine.thread("gold")
    machine.thread("gold")
    gold = machine.group("gold")

    def die(_: Path) -> None:
        machine.tids.remove(dying)
        machine.kernel.end(dying)

    machine.faults.before("read_text", die, path=gold / "tasks")
    assert machine.place().complete


def test_one_pass_is_enough_for_threads_that_rest(machine: Machine) -> None:
    """All classes are served in it, past a thread that died when it was asked."""
    tids = [machine.thread(name) for name in ("gold", "gold", "silver", "bronze", "")]

    def die(_: Path) -> None:
        machine.tids.remove(tids[0])
        machine.kernel.end(tids[0])

    machine.faults.before("read_text", die, path=lambda path: path.name == "cpu_resctrl_groups")
    assert machine.place(passes=1).complete


def test_a_container_that_ends_on_the_way_is_not_complete(machine: Machine) -> None:
    """Nothing is in any group; nothing went wrong either."""
    tid = machine.thread("gold")

    def end(_: Path) -> None:
        machine.tids.clear()
        machine.kernel.end(tid)

    machine.faults.before("read_text", end, path=lambda path: path.name == "cpu_resctrl_groups")
    placed = machine.place(movable={machine.main})
    assert (placed.complete, placed.error, placed.groups) == (False, None, (machine.main,))


def test_a_thread_that_is_taken_away_again_is_missing(machine: Machine) -> None:
    """Another agent moves it after the write: what the groups' own files say counts."""
    tid = machine.thread("gold")
    gold = machine.group("gold")
    machine.faults.before("read_text", lambda _: machine.classify("gold", tid), path=gold / "tasks")
    placed = machine.place()
    assert (placed.complete, placed.error, placed.homes) == (False, None, frozenset())


def test_what_the_source_raises_does_not_hide_what_was_moved(machine: Machine) -> None:
    """The pod's main group stands elsewhere now, whatever happened after."""
    machine.thread("gold")
    listings = iter([list(machine.tids), list(machine.tids)])

    def source() -> list[Tid]:
        if (listing := next(listings, None)) is None:
            raise CgroupError("no")
        return listing

    placed = machine.place(movable={machine.main}, source=source)
    assert isinstance(placed.error, CgroupError)
    assert not placed.complete
    assert placed.groups == (machine.group("gold"),)
    with pytest.raises(CgroupError):
        machine.place(main=placed.groups[0], source=source)


def test_no_threads_at_all_is_told_as_ever(machine: Machine) -> None:
    """With and without further groups."""
    gold = machine.resctrl.create_group(UID, "gold")
    assert isinstance(machine.place().error, EmptyPidSetError)
    assert isinstance(machine.place(gold).error, EmptyPidSetError)


# --- whatever the classes are ---


@given(
    there=st.sets(st.sampled_from(CLASSES[1:])),
    movable=st.sets(st.sampled_from(CLASSES)),
    now=st.lists(st.sampled_from(CLASSES), min_size=1, max_size=12),
    then=st.lists(st.sampled_from(CLASSES), min_size=12, max_size=12),
    lists=st.booleans(),
)
@settings(max_examples=200)
def test_after_each_change_all_threads_are_in_the_pods_groups(
    there: set[str], movable: set[str], now: list[str], then: list[str], lists: bool
) -> None:
    """Whichever groups the pod has: complete, no class changed, homes true, no group lost or leaked."""
    machine = Machine(lists=lists)
    groups: tuple[Path, ...] = (machine.main, *(machine.resctrl.create_group(UID, name) for name in there))
    for name in now:
        machine.thread(name)
    for _ in range(2):
        before = {tid: machine.class_of(tid) for tid in machine.tids}
        may = set(groups) & {machine.group(name) for name in movable}
        placed = machine.place(*groups[1:], main=groups[0], movable=may)
        assert placed.complete
        assert {tid: machine.class_of(tid) for tid in machine.tids} == before
        homes = {machine.group(name) for name in before.values()}
        assert placed.homes == homes <= set(placed.groups)
        for tid, name in before.items():
            assert tid in machine.inside(machine.group(name))
        on_disk = {group.path for group in machine.resctrl.list_groups() if group.ours}
        assert on_disk == set(placed.groups)
        assert len(placed.groups) == len(set(placed.groups))
        groups = placed.groups
        for tid, name in zip(machine.tids, then, strict=False):
            machine.classify(name, tid)
