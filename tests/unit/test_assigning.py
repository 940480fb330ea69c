"""Lists of threads: how many writes, and what becomes of each thread whatever the kernel says about it."""

from __future__ import annotations

import errno
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resctrl import (
    AssignmentResult,
    GroupNotFoundError,
    NoPermissionError,
    Resctrl,
    ResctrlIOError,
    TaskNotInParentError,
    Tid,
)
from resctrl.testing import FakeFs, FaultyFs, RecordingFs
from tests.unit.fakes import MON, ROOT, put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GROUP = MON / "pod_a"
TASKS = GROUP / "tasks"
STATUS = ROOT / "info/last_cmd_status"
PAGE = 4096


class Liar(FakeFs):
    """Says something else than it should, or nothing, about the last failure."""

    says: Callable[[], str] | None = None

    def read_text(self, path: Path) -> str:
        if path != STATUS or self.says is None:
            return super().read_text(path)
        text = self.says()
        if not text:
            raise OSError(errno.EIO, "unreadable")
        return text


class Bench:
    """A machine with one group, whose writes are recorded."""

    def __init__(self, fake: FakeFs | None = None) -> None:
        self.fake = fake if fake is not None else FakeFs()
        self.faulty = FaultyFs(self.fake)
        self.fs = RecordingFs(self.faulty)
        self.resctrl = Resctrl.with_provider(self.fs)
        self.fake.create_dir(ROOT / "c1")
        self.fake.create_dir(GROUP)

    def make(self, kind: str) -> Tid:
        """Return the id of a thread that lives, is dead, or is in another control group."""
        tid = self.fake.spawn()
        if kind == "dead":
            self.fake.end(tid)
        if kind == "classed":
            put(self.fake, ROOT / "c1", f"{tid}")
        return tid

    def assign(self, tids: list[Tid], *, try_all: bool = True) -> tuple[AssignmentResult | None, set[Tid]]:
        """Assign; return the counts, and who was refused."""
        self.fs.forget()
        try:
            return self.resctrl.assign_tasks(GROUP, tids, try_all=try_all), set()
        except TaskNotInParentError as error:
            return error.partial, set(error.refused)

    @property
    def writes(self) -> list[bytes]:
        """What was written by the last call."""
        return self.fs.written(TASKS)

    @property
    def asked(self) -> list[bytes]:
        """The writes that only ask whether lists are taken: the same id twice."""
        pairs = [chunk.strip().split(b",") for chunk in self.writes]
        return [pair[0] for pair in pairs if len(pair) != len(set(pair))]


def lists(count: int, *, digits: int = 4) -> int:
    """Return how many lists so many ids need."""
    return math.ceil(count / (PAGE // (digits + 1)))


# How many writes


def test_a_thousand_threads_are_two_writes() -> None:
    """Beyond listing them it is four system calls: open, write, write, close. That is 0.004 a thread."""
    bench = Bench()
    tids = [bench.make("live") for _ in range(1000)]
    assert bench.assign(tids) == (AssignmentResult(1000, 0), set())
    assert [call.operation for call in bench.fs.calls] == ["write_all", "write", "write"]
    assert bench.fake.tasks_in(GROUP) == set(tids)


def test_a_reconcile_of_a_thousand_threads() -> None:
    """With the one look at the group it is five operations of the provider."""
    bench = Bench()
    tids = [bench.make("live") for _ in range(1000)]
    assert bench.resctrl.reconcile_group(GROUP, lambda: tids).complete
    assert [call.operation for call in bench.fs.calls] == ["write_all", "write", "write", "read_text"]


def test_a_list_is_as_long_as_a_page() -> None:
    """No write has more bytes than the kernel takes, and none has fewer than it could have."""
    bench = Bench()
    tids = [
        bench.fake.spawn(tid=Tid(10**digits + number)) for digits in (4, 5, 6, 7) for number in range(400)
    ]
    bench.assign(tids)
    sizes = [len(chunk) for chunk in bench.writes]
    assert max(sizes) <= PAGE
    assert all(size > PAGE - 8 for size in sizes[:-1])
    assert b"".join(bench.writes).replace(b"\n", b",") == b"".join(b"%d," % tid for tid in tids)


@pytest.mark.parametrize(("last", "writes"), [(10**6 + 511, 1), (10**7, 2)])
def test_a_page_to_the_last_byte(last: int, writes: int) -> None:
    """4096 bytes are one write; one byte more would be refused, and is two."""
    bench = Bench()
    tids = [bench.fake.spawn(tid=Tid(tid)) for tid in (*range(10**6, 10**6 + 511), last)]
    assert bench.assign(tids) == (AssignmentResult(512, 0), set())
    assert len(bench.writes) == writes


@pytest.mark.parametrize("kind", ["dead", "classed"])
@pytest.mark.parametrize("position", [0, 1, 2, 500, 817, 818, 819, 820, 998, 999])
def test_one_that_cannot_be_moved_costs_three_writes(kind: str, position: int) -> None:
    """It costs the list that it spoils, a write of its own, and one list more; wherever it stands."""
    bench = Bench()
    tids = [bench.make("live") for _ in range(1000)]
    tids[position] = bench.make(kind)
    counts, refused = bench.assign(tids)
    assert counts == AssignmentResult(999, int(kind == "dead"))
    assert refused == ({tids[position]} if kind == "classed" else set())
    assert len(bench.writes) <= lists(1000) + 3
    assert bench.writes.count(b"%d\n" % tids[position]) == 1
    assert bench.fs.count("write_all") == 1


@pytest.mark.parametrize("kind", ["dead", "classed"])
@pytest.mark.parametrize("many", [2, 10, 100])
@pytest.mark.parametrize("where", ["first", "last", "spread"])
def test_many_that_cannot_be_moved(kind: str, many: int, where: str) -> None:
    """Each costs at most three writes more, whatever the order."""
    bench = Bench()
    live = [bench.make("live") for _ in range(1000 - many)]
    bad = [bench.make(kind) for _ in range(many)]
    tids = {"first": bad + live, "last": live + bad}.get(where)
    if tids is None:
        tids, step = list(live), 1000 // many
        for number, tid in enumerate(bad):
            tids.insert(number * step, tid)
    counts, _ = bench.assign(tids)
    assert counts == AssignmentResult(len(live), many if kind == "dead" else 0)
    assert len(bench.writes) <= lists(1000) + 3 * many
    assert bench.fake.tasks_in(GROUP) == set(live)


def test_lists_shrink_and_grow_by_halves() -> None:
    """Two dead at the front: a page, half of it, a quarter; then twice as many each time."""
    bench = Bench()
    tids = [*(bench.make("dead") for _ in range(2)), *(bench.make("live") for _ in range(2000))]
    bench.assign(tids)
    lengths = [chunk.count(b",") + 1 for chunk in bench.writes]
    assert lengths == [819, 1, 409, 1, 204, 408, 817, 571]


def test_a_container_that_has_ended() -> None:
    """Where all are dead there is hardly more than a write for each, and nothing is read for most."""
    bench = Bench()
    tids = [bench.make("dead") for _ in range(1000)]
    assert bench.assign(tids) == (AssignmentResult(0, 1000), set())
    assert len(bench.writes) <= 1000 + 12
    assert bench.fs.count("read_text", STATUS) <= 12


@pytest.mark.parametrize("kind", ["dead", "classed"])
def test_without_advice_it_is_searched_for(kind: str) -> None:
    """A kernel whose last words are lost costs more writes, yet far fewer than one for each thread."""
    bench = Bench(Liar())
    bench.resctrl.assign_tasks(GROUP, [bench.make("live"), bench.make("live")])  # so much for lists
    bench.fake.says = lambda: ""  # type: ignore[attr-defined]
    tids = [bench.make("live") for _ in range(1000)]
    tids[300] = bench.make(kind)
    bench.assign(tids)
    assert bench.asked == []
    assert len(bench.writes) <= lists(1000) + 4 * 10
    assert bench.fake.tasks_in(GROUP) >= set(tids) - {tids[300]}


@given(st.lists(st.sampled_from(["live"] * 8 + ["dead", "classed"]), max_size=150), st.data())
def test_the_cost_of_any_mixture(plan: list[str], data: st.DataObject) -> None:
    """At most three writes more for each that cannot be moved, and each thread is where it belongs."""
    bench = Bench()
    tids = [bench.make(kind) for kind in plan]
    counts, refused = bench.assign(tids)
    bad = len(plan) - plan.count("live")
    assert counts == AssignmentResult(plan.count("live"), plan.count("dead"))
    assert refused == {tid for tid, kind in zip(tids, plan, strict=True) if kind == "classed"}
    assert len(bench.writes) <= lists(len(plan)) + 3 * bad
    assert bench.fs.count("write_all") == bool(plan)


# What nobody may be lost by


TEXTS = [
    "",
    "ok\n",
    "\n",
    "Out of RMIDs\n",
    "No task {live}\nError while processing task {live}\n",
    "No task {dead}\nError while processing task {dead}\n",
    "Can't move task to different control group\nError while processing task {live}\n",
    "Error while processing task 99999999999999999999\n",
    "Error while processing task -5\n",
    "Error while processing task \u0663\n",
    "Error while processing task 7\n",
    "Error while processing task {live}\nOut of RMIDs\n",
]


@given(
    plan=st.lists(st.sampled_from(["live", "live", "live", "dead", "classed"]), max_size=25),
    texts=st.lists(st.tuples(st.sampled_from(TEXTS), st.integers(0, 24)), min_size=1, max_size=6),
    takes_lists=st.booleans(),
)
@example(plan=["dead", "live"], texts=[(TEXTS[4], 1)], takes_lists=True)
@example(plan=["live", "live", "dead"], texts=[(TEXTS[5], 0)], takes_lists=True)
@example(plan=["classed", "classed", "live"], texts=[(TEXTS[4], 2)], takes_lists=False)
def test_whatever_the_kernel_says(plan: list[str], texts: list[tuple[str, int]], takes_lists: bool) -> None:
    """A lost text, an old one and one of somebody else's write neither lose a thread nor misplace one."""
    fake = Liar(lists=takes_lists)
    bench = Bench(fake)
    tids = [bench.make(kind) for kind in plan]

    def turn() -> Iterator[str]:
        while True:
            for text, number in texts:
                some = tids[number % len(tids)]
                yield text.format(live=some, dead=some)

    script = turn()
    fake.says = lambda: next(script)
    counts, refused = bench.assign(tids)
    by_kind = {
        kind: {tid for tid, each in zip(tids, plan, strict=True) if each == kind} for kind in set(plan)
    }
    assert counts == AssignmentResult(plan.count("live"), plan.count("dead"))
    assert refused == by_kind.get("classed", set())
    assert fake.tasks_in(GROUP) == by_kind.get("live", set())
    assert fake.tasks_in(ROOT / "c1") == by_kind.get("classed", set())
    assert len(bench.writes) <= 3 * len(plan) + 4


def test_a_named_thread_is_believed_only_when_it_fails_by_itself() -> None:
    """Another writer's failure may name a live thread of ours: it is assigned, and who was dead is found."""
    fake = Liar()
    bench = Bench(fake)
    first, named, last = (bench.make("live") for _ in range(3))
    dead = bench.make("dead")
    fake.says = lambda: f"No task {named}\nError while processing task {named}\n"
    assert bench.assign([first, dead, named, last]) == (AssignmentResult(3, 1), set())
    assert bench.fake.tasks_in(GROUP) == {first, named, last}


def test_the_last_words_are_read_at_once() -> None:
    """Between a failed list and the reading of last_cmd_status nothing else is done."""
    bench = Bench()
    bench.assign([bench.make("live"), bench.make("dead"), bench.make("live")])
    operations = [(call.operation, call.path) for call in bench.fs.calls]
    assert operations[:3] == [("write_all", TASKS), ("write", TASKS), ("read_text", STATUS)]


def test_a_thread_that_dies_while_lists_are_written() -> None:
    """Dead between the list that it did not spoil and the next one, it is in nobody's way."""
    bench = Bench()
    tids = [bench.make("live") for _ in range(10)]
    dead = bench.make("dead")

    def die(_: object) -> None:
        bench.fake.end(tids[0])

    bench.faulty.before("write", die, nth=3)
    assert bench.assign([*tids, dead]) == (AssignmentResult(9, 2), set())


def test_the_refusal_of_a_group_is_not_that_of_a_thread() -> None:
    """EPERM of the open ends the call: no thread was asked for."""
    bench = Bench()
    tids = [bench.make("live"), bench.make("live")]
    bench.faulty.fail("write_all", errno.EPERM)
    with pytest.raises(NoPermissionError) as caught:
        bench.resctrl.assign_tasks(GROUP, tids)
    assert caught.value.refused == ()
    assert bench.fs.count("write_all") == 1


# Who gives up in time


@pytest.mark.parametrize("many", [1, 10, 1000])
@pytest.mark.parametrize("takes_lists", [True, False])
def test_who_does_not_try_all_gives_up_at_the_first(many: int, takes_lists: bool) -> None:
    """All in another class: one write that is refused as a list, one that is refused alone; none is lost."""
    bench = Bench(FakeFs(lists=takes_lists))
    tids = [bench.make("classed") for _ in range(many)]
    assert bench.assign(tids, try_all=False) == (AssignmentResult(0, 0), set(tids))
    assert [chunk.count(b",") + 1 for chunk in bench.writes] == [min(many, 819), 1][-min(many, 2) :]
    assert bench.fs.count("read_text", STATUS) == len(bench.writes)
    bench.resctrl.assign_tasks(GROUP, [bench.make("live"), bench.make("live")])  # so much for lists
    assert bench.assign(tids, try_all=False) == (AssignmentResult(0, 0), set(tids))
    assert len(bench.writes) == (min(many, 2) if takes_lists else 1)


@pytest.mark.parametrize("takes_lists", [True, False])
def test_who_tries_all_is_spared_those_in_the_control_group_of_one_that_was_refused(
    takes_lists: bool,
) -> None:
    """Its `tasks` are read once for all of them; whoever else there is is tried, and nothing else is told."""
    bench = Bench(FakeFs(lists=takes_lists))
    bench.fake.create_dir(ROOT / "c2")
    kinds = ["live", "classed", "classed", "other"] * 100
    tids = [bench.make(kind) for kind in kinds]
    for tid, kind in zip(tids, kinds, strict=True):
        if kind == "other":
            put(bench.fake, ROOT / "c2", f"{tid}")
    live = {tid for tid, kind in zip(tids, kinds, strict=True) if kind == "live"}
    assert bench.assign(tids) == (AssignmentResult(100, 0), set(tids) - live)
    assert bench.fake.tasks_in(GROUP) == live
    assert [bench.fs.count("read_text", ROOT / name / "tasks") for name in ("c1", "c2")] == [1, 1]
    assert len(bench.writes) < (30 if takes_lists else 150)
    assert bench.assign(sorted(set(tids) - live)) == (AssignmentResult(0, 0), set(tids) - live)
    assert len(bench.writes) <= 4
    assert len(bench.fs.calls) <= 13


def test_few_are_tried_without_a_look() -> None:
    """A look costs as much as some writes."""
    bench = Bench()
    tids = [bench.make("classed") for _ in range(8)]
    assert bench.assign(tids) == (AssignmentResult(0, 0), set(tids))
    assert bench.fs.count("read_text", ROOT / "c1/tasks") == 0


@pytest.mark.parametrize("told", [True, False])
def test_where_a_look_spares_nobody_all_are_tried(told: bool) -> None:
    """The kernel does not tell, or the refused ones are where they could be taken: few looks, ever rarer."""
    bench = Bench(FakeFs(proc_groups=told))
    tids = [bench.make("live" if told else "classed") for _ in range(20)]
    if told:
        bench.faulty.fail("write", errno.EINVAL, times=3)  # a list, and two alone
    else:
        tids += [bench.make("live") for _ in range(20)]
    _, refused = bench.assign(tids)
    assert bench.fake.tasks_in(GROUP) == set(tids) - refused
    assert len(refused) == (2 if told else 20)
    assert sum(call.path.name == "cpu_resctrl_groups" for call in bench.fs.calls) <= 10
    assert bench.fs.count("read_text", ROOT / "tasks") == 0


@pytest.mark.parametrize("first", ["other", "dead"])
@pytest.mark.parametrize("many", [20, 200, 2000])
def test_one_of_whom_a_look_learns_nothing_does_not_cost_the_others(first: str, many: int) -> None:
    """It stands alone in its control group, or dies before the look; many others cost no more than few."""
    bench = Bench()
    bench.fake.create_dir(ROOT / "c2")
    tids = [bench.make("classed") for _ in range(1 + many)]
    if first == "other":
        put(bench.fake, ROOT / "c2", f"{tids[0]}")
    else:
        look = ROOT.parents[2] / "proc" / str(tids[0]) / "cpu_resctrl_groups"
        bench.faulty.before("read_text", lambda _: bench.fake.end(tids[0]), path=look)
    assert bench.assign(tids) == (AssignmentResult(0, 0), set(tids))
    assert len(bench.writes) <= 8
    assert len(bench.fs.calls) <= 25


def test_only_a_refusal_for_the_control_group_spares_others() -> None:
    """EPERM says something of the thread alone."""
    bench = Bench()
    tids = [bench.make("classed") for _ in range(20)]
    bench.faulty.fail("write", errno.EPERM, times=40)
    with pytest.raises(NoPermissionError) as caught:
        bench.resctrl.assign_tasks(GROUP, tids)
    assert set(caught.value.refused) == set(tids)
    assert bench.fs.count("read_text", ROOT / "c1/tasks") == 0


def test_who_was_spared_is_told_where_the_group_fails_later() -> None:
    """Nobody is lost: refused, untried and spared together are those that are not in the group."""
    bench = Bench()
    tids = [bench.make(kind) for kind in ["classed", "classed", "live"] * 10]
    bench.faulty.fail("write", errno.EIO, nth=3)
    with pytest.raises(ResctrlIOError) as caught:
        bench.resctrl.assign_tasks(GROUP, tids)
    classed = {tid for number, tid in enumerate(tids) if number % 3 != 2}
    assert classed <= set(caught.value.refused)


def test_a_thread_that_could_be_taken_now_spares_nobody() -> None:
    """It came into the group's control group just after it was refused: so may the others have."""
    bench = Bench()
    group = bench.resctrl.create_group("b", "c1")
    tids = [bench.make("classed") for _ in range(20)]
    bench.faulty.fail("write", errno.EINVAL, times=2)  # a list, and one alone
    with pytest.raises(TaskNotInParentError) as caught:
        bench.resctrl.assign_tasks(group, tids)
    assert len(caught.value.refused) == 1
    assert bench.fake.tasks_in(group) == set(tids) - set(caught.value.refused)


def test_the_tasks_of_the_default_group_are_not_read() -> None:
    """They list the whole machine: below a control group each of their threads is tried."""
    bench = Bench()
    group = bench.resctrl.create_group("b", "c1")
    tids = [bench.make("live") for _ in range(20)]
    bench.fs.forget()
    with pytest.raises(TaskNotInParentError) as caught:
        bench.resctrl.assign_tasks(group, tids)
    assert set(caught.value.refused) == set(tids)
    assert bench.fs.count("read_text", ROOT / "tasks") == 0
    assert sum(call.path.name == "cpu_resctrl_groups" for call in bench.fs.calls) <= 5


def test_those_that_were_not_tried_come_after_those_that_were() -> None:
    """So the first one that is told of was surely refused."""
    bench = Bench()
    kinds = ["live", "classed", "classed", "live", "classed", "live"]
    tids = [bench.make(kind) for kind in kinds]
    with pytest.raises(TaskNotInParentError) as caught:
        bench.resctrl.assign_tasks(GROUP, tids, try_all=False)
    assert caught.value.refused == tuple(tids[1:])
    assert caught.value.partial == AssignmentResult(1, 0)
    assert bench.fake.tasks_in(GROUP) == {tids[0]}


@pytest.mark.parametrize("kind", ["dead", "classed"])
@pytest.mark.parametrize("position", [1, 500, 817, 818, 820, 999])
def test_one_that_comes_after_others_is_no_reason_to_give_up(kind: str, position: int) -> None:
    """Where the kernel takes some before it, all others are tried, for three writes more."""
    bench = Bench()
    tids = [bench.make("live") for _ in range(1000)]
    tids[position] = bench.make(kind)
    counts, _ = bench.assign(tids, try_all=False)
    assert counts == AssignmentResult(999, int(kind == "dead"))
    assert len(bench.writes) <= lists(1000) + 3


def test_the_dead_are_no_reason_to_give_up() -> None:
    """Only a refusal is."""
    bench = Bench()
    tids = [bench.make(kind) for kind in ("dead", "dead", "live")]
    assert bench.assign(tids, try_all=False) == (AssignmentResult(1, 2), set())


@given(st.lists(st.sampled_from(["live", "live", "dead", "classed"]), max_size=60), st.booleans())
def test_giving_up_loses_nobody(plan: list[str], takes_lists: bool) -> None:
    """Each thread is assigned, gone or among those that were refused, in any order of them."""
    bench = Bench(FakeFs(lists=takes_lists))
    tids = [bench.make(kind) for kind in plan]
    counts, refused = bench.assign(tids, try_all=False)
    assert counts is not None
    assert counts.assigned + counts.missing + len(refused) == len(tids)
    assert bench.fake.tasks_in(GROUP).isdisjoint(refused)
    assert len(bench.fake.tasks_in(GROUP)) == counts.assigned
    assert bool(refused) == ("classed" in plan)


def test_the_prefix_of_the_one_that_is_named_is_made_sure_of_at_once() -> None:
    """A list of two classes one after the other costs five writes, wherever the second one begins."""
    for many in (1, 10, 400):
        bench = Bench()
        tids = [bench.make("live") for _ in range(many)] + [bench.make("classed") for _ in range(many)]
        assert bench.assign(tids, try_all=False)[0] == AssignmentResult(many, 0)
        lengths = [chunk.count(b",") + 1 for chunk in bench.writes]
        assert lengths[:3] == [2 * many, 1, many]
        assert len(lengths) == (3 if many == 1 else 5)


# Kernels before 6.7


def test_an_old_kernel_is_asked_once() -> None:
    """One list, one thread alone, the list of twice itself, itself again: from then on one write a thread."""
    bench = Bench(FakeFs(lists=False))
    tids = [bench.make("live") for _ in range(5)]
    assert bench.assign(tids) == (AssignmentResult(5, 0), set())
    first, *rest = (b"%d" % tid for tid in tids)
    assert bench.writes == [
        b",".join([first, *rest]) + b"\n",
        first + b"\n",
        first + b"," + first + b"\n",
        first + b"\n",
        *(tid + b"\n" for tid in rest),
    ]
    assert bench.assign(tids) == (AssignmentResult(5, 0), set())
    assert bench.writes == [b"%d\n" % tid for tid in tids]
    assert bench.fs.count("write_all") == 1
    assert bench.fs.count("read_text") == 0


def test_only_the_first_refusal_is_looked_into() -> None:
    """Thread by thread, the kernel's sentence is read for the refusal that is told, and for none after it."""
    bench = Bench(FakeFs(lists=False))
    bench.assign([bench.make("live"), bench.make("live")])
    assert bench.assign([bench.make("classed") for _ in range(5)])[0] == AssignmentResult(0, 0)
    assert bench.fs.count("read_text", STATUS) == 1
    assert bench.assign([bench.make("dead") for _ in range(5)])[0] == AssignmentResult(0, 5)
    assert bench.fs.count("read_text", STATUS) == 0


def test_another_instance_asks_anew() -> None:
    """What was found out belongs to the instance, not to the process."""
    bench = Bench(FakeFs(lists=False))
    bench.assign([bench.make("live") for _ in range(3)])
    other = RecordingFs(FakeFs())
    resctrl = Resctrl.with_provider(other)
    group = resctrl.create_group("a")
    resctrl.assign_tasks(group, [other.inner.spawn() for _ in range(3)])
    assert len(other.written(group / "tasks")) == 1


@pytest.mark.parametrize("kind", ["dead", "classed"])
def test_an_old_kernel_is_found_out_by_a_thread_that_is_taken(kind: str) -> None:
    """A thread that fails alone decides nothing; the next one does."""
    bench = Bench(FakeFs(lists=False))
    bad, good, last = bench.make(kind), bench.make("live"), bench.make("live")
    bench.assign([bad, good, last])
    assert b"%d,%d\n" % (good, good) in bench.writes
    assert b"%d,%d\n" % (bad, bad) not in bench.writes
    bench.assign([good, last])
    assert bench.writes == [b"%d\n" % good, b"%d\n" % last]


def test_a_new_kernel_is_found_out_as_well() -> None:
    """Where nobody says why a list failed, a thread that is taken twice in a list tells of a newer kernel."""
    fake = Liar()
    bench = Bench(fake)
    fake.says = lambda: "ok\n"
    first, classed = bench.make("live"), bench.make("classed")
    more = [bench.make("live") for _ in range(100)]
    assert bench.assign([first, classed, *more]) == (AssignmentResult(101, 0), {classed})
    assert bench.writes[1:3] == [b"%d\n" % first, b"%d,%d\n" % (first, first)]
    assert len(bench.writes) < 30
    bench.assign(more)
    assert len(bench.writes) == 1


def test_nothing_is_decided_where_nobody_is_taken() -> None:
    """All refused: the next call asks again, and finds a kernel that takes lists."""
    fake = Liar()
    bench = Bench(fake)
    fake.says = lambda: "ok\n"
    assert bench.assign([bench.make("classed") for _ in range(4)])[0] == AssignmentResult(0, 0)
    assert len(bench.writes) == 1 + 4
    bench.assign([bench.make("live") for _ in range(4)])
    assert len(bench.writes) == 1


def test_a_thread_that_is_stolen_while_it_is_asked_by_decides_nothing() -> None:
    """Taken alone, then classed by somebody, then refused in a list: that is no old kernel."""
    fake = Liar()
    bench = Bench(fake)
    fake.says = lambda: "ok\n"
    victim, classed = bench.make("live"), bench.make("classed")
    bench.faulty.before("write", lambda _: put(fake, ROOT / "c1", f"{victim}"), nth=3, path=TASKS)
    more = [bench.make("live") for _ in range(50)]
    counts, refused = bench.assign([victim, classed, *more])
    assert counts == AssignmentResult(50, 0)
    assert refused == {victim, classed}
    assert fake.tasks_in(GROUP) == set(more)
    bench.assign(more)
    assert len(bench.writes) == 1


def test_a_thread_that_dies_while_it_is_asked_by() -> None:
    """ESRCH to a list says that lists are taken: who does not take them looks for nobody in one."""
    fake = Liar()
    bench = Bench(fake)
    fake.says = lambda: "ok\n"
    victim, classed = bench.make("live"), bench.make("classed")
    bench.faulty.before("write", lambda _: fake.end(victim), nth=3, path=TASKS)
    more = [bench.make("live") for _ in range(50)]
    assert bench.assign([victim, classed, *more])[1] == {classed}
    assert bench.asked == [b"%d" % victim]
    assert fake.tasks_in(GROUP) == set(more)
    bench.assign(more)
    assert len(bench.writes) == 1


def test_a_dead_thread_in_a_list_decides_as_well() -> None:
    """ESRCH of the first list says that lists are taken: a refusal that nobody explains asks no more."""
    fake = Liar()
    bench = Bench(fake)
    fake.says = lambda: "ok\n"
    tids = [bench.make(kind) for kind in ("dead", "live", "classed", "live", "live")]
    assert bench.assign(tids) == (AssignmentResult(3, 1), {tids[2]})
    assert bench.asked == []
    assert [chunk.count(b",") + 1 for chunk in bench.writes] == [5, 2, 1, 1, 2, 1, 1, 1]


@pytest.mark.parametrize("dead", [5, 1_000_000])
@pytest.mark.parametrize("order", [1, -1])
def test_long_and_short_ids_without_advice(dead: int, order: int) -> None:
    """A list of two that failed is never tried again as it is, whichever of its ids takes the most room."""
    fake = Liar()
    bench = Bench(fake)
    fake.says = lambda: "ok\n"
    tids = [fake.spawn(tid=Tid(tid)) for tid in (5, 1_000_000)][::order]
    fake.end(Tid(dead))
    assert bench.assign(tids) == (AssignmentResult(1, 1), set())
    assert len(bench.writes) == 3


def test_eperm_asks_nothing() -> None:
    """It is no answer to a list as such: who may not be moved is searched for."""
    fake = Liar()
    bench = Bench(fake)
    fake.says = lambda: "ok\n"
    tids = [bench.make("live") for _ in range(8)]
    bench.faulty.fail("write", errno.EPERM, times=2)
    assert bench.assign(tids) == (AssignmentResult(8, 0), set())
    assert bench.asked == []
    assert [chunk.count(b",") + 1 for chunk in bench.writes] == [8, 4, 2, 4, 2]


def test_a_list_that_may_not_be_written_decides_nothing() -> None:
    """Only EINVAL says that lists are not taken: after EPERM of the question the next thread is asked by."""
    fake = Liar()
    bench = Bench(fake)
    fake.says = lambda: "ok\n"
    tids = [bench.make("live"), bench.make("classed"), *(bench.make("live") for _ in range(5))]
    bench.faulty.fail("write", errno.EPERM, nth=3)
    assert bench.assign(tids) == (AssignmentResult(6, 0), {tids[1]})
    assert bench.asked == [b"%d" % tids[0], b"%d" % tids[2]]
    assert bench.assign(tids[2:]) == (AssignmentResult(5, 0), set())
    assert len(bench.writes) == 1


def test_a_single_thread_decides_nothing() -> None:
    """A write of one id is no list."""
    bench = Bench(FakeFs(lists=False))
    bench.assign([bench.make("live")])
    assert len(bench.writes) == 1
    bench.assign([bench.make("live"), bench.make("live")])
    assert len(bench.writes) == 1 + 3 + 1


@pytest.mark.parametrize(("nth", "assigned"), [(1, 0), (2, 0), (3, 1), (4, 1), (5, 1)])
def test_a_group_that_is_gone_while_it_is_asked(nth: int, assigned: int) -> None:
    """What concerns the group ends the call at any write."""
    bench = Bench(FakeFs(lists=False))
    tids = [bench.make("live") for _ in range(3)]
    bench.faulty.before("write", lambda _: bench.fake.remove_dir(GROUP), nth=nth)
    with pytest.raises(GroupNotFoundError) as caught:
        bench.resctrl.assign_tasks(GROUP, tids)
    assert caught.value.partial == AssignmentResult(assigned, 0)
    assert caught.value.refused == ()
