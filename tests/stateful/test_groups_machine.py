"""The library over the fake, against plain dictionaries: any order of calls, deaths and acts of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from resctrl import (
    AssignmentResult,
    CapacityError,
    CleanupReport,
    EmptyPidSetError,
    GroupNotFoundError,
    NotMountedError,
    ReconcileResult,
    Resctrl,
    ResctrlConfig,
    ResctrlError,
    RmidsBusyError,
    TaskNotInParentError,
    Tid,
)
from resctrl.testing import FakeFs, RecordingFs

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = "pod_"
LIMBO = 10.0
USABLE_RMIDS = 4
GOLD = "gold"

uids = st.sampled_from(["a", "b", "c", "a.b", "h-x", ""])
foreign_names = st.sampled_from(["others", "poD_a", "filler"])


def _counts(outcome: AssignmentResult | ResctrlError) -> AssignmentResult | None:
    return outcome.partial if isinstance(outcome, ResctrlError) else outcome


class GroupsMachine(RuleBasedStateMachine):
    """One machine with few RMIDs and one control group; three actors: us, others, and time."""

    threads = Bundle("threads")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.fake = FakeFs(num_rmids=2 + USABLE_RMIDS, num_closids=2, limbo=LIMBO, clock=lambda: self.now)
        self.fs = RecordingFs(self.fake)
        self.resctrl = Resctrl.with_provider(self.fs, ResctrlConfig(group_prefix=PREFIX))
        self.root = self.fake.root
        # the model
        self.mounted = True
        self.gold = False
        self.groups: dict[str, set[Tid]] = {}
        self.homes: dict[Tid, str] = {}
        self.dead: set[Tid] = set()
        self.freed: list[float] = []

    # What the model says

    def resting(self) -> int:
        """Return how many RMIDs are in limbo."""
        return sum(at + LIMBO > self.now for at in self.freed)

    def free(self) -> int:
        """Return how many RMIDs can be taken."""
        return USABLE_RMIDS + (not self.gold) - len(self.groups) - self.resting()

    def path(self, name: str) -> Path:
        """Return where a monitoring group stands."""
        return self.root / "mon_groups" / name

    def live_in(self, home: str) -> set[Tid]:
        """Return the live threads of a control group ("" is the default one)."""
        return {tid for tid, where in self.homes.items() if where == home and tid not in self.dead}

    def forget_group(self, name: str) -> None:
        """A group is gone, by whoever's hand."""
        del self.groups[name]
        self.freed.append(self.now)

    def refused_create(self, error: ResctrlError) -> None:
        """A creation may fail only as the model says."""
        if not self.mounted:
            assert type(error) is NotMountedError
        else:
            assert self.free() == 0
            assert type(error) is (RmidsBusyError if self.resting() else CapacityError)
            assert error.kernel_status == "Out of RMIDs"

    def some_group(self, data: st.DataObject) -> Path:
        """Draw a group of a pod, more often than not one that exists."""
        ours = sorted(name for name in self.groups if name.startswith(PREFIX))
        often = data.draw(st.integers(0, 3)) > 0
        if ours and often:
            return self.path(data.draw(st.sampled_from(ours)))
        return self.resctrl.group_path(data.draw(uids))

    # Us

    @rule(uid=uids)
    def create(self, uid: str) -> None:
        """Make a pod's group, or find it."""
        expected = self.resctrl.group_path(uid)
        try:
            assert self.resctrl.create_group(uid) == expected
        except ResctrlError as error:
            assert expected.name not in self.groups
            self.refused_create(error)
        else:
            assert self.mounted
            if expected.name not in self.groups:
                assert self.free() > 0
                self.groups[expected.name] = set()

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """Delete a pod's group, or find it gone."""
        path = self.some_group(data)
        self.resctrl.delete_group(path)
        if path.name in self.groups:
            self.forget_group(path.name)

    @rule(data=st.data(), tids=st.lists(threads, max_size=5))
    def assign(self, data: st.DataObject, tids: list[Tid]) -> None:
        """Put threads into a pod's group."""
        path = self.some_group(data)
        wanted = set(tids)
        expected = AssignmentResult(assigned=len(wanted & self.live_in("")), missing=len(wanted & self.dead))
        outcome: AssignmentResult | ResctrlError
        try:
            outcome = self.resctrl.assign_tasks(path, tids)
        except ResctrlError as error:
            outcome = error
        if path.name not in self.groups:
            assert isinstance(outcome, GroupNotFoundError) == bool(tids)
            assert _counts(outcome) == AssignmentResult(0, 0)
            return
        assert isinstance(outcome, TaskNotInParentError) == bool(wanted & self.live_in(GOLD))
        assert _counts(outcome) == expected
        self.moved(wanted & self.live_in(""), path.name)

    @rule(data=st.data(), tids=st.lists(threads, max_size=5), passes=st.integers(1, 3))
    def reconcile(self, data: st.DataObject, tids: list[Tid], passes: int) -> None:
        """Reconcile a pod's group with threads that stay as they are."""
        path = self.some_group(data)
        listed = set(tids) - self.dead
        reads = self.fs.count("read_text", path / "tasks")
        try:
            result = self.resctrl.reconcile_group(path, lambda: listed, passes)
        except EmptyPidSetError:
            assert not listed
            return
        except GroupNotFoundError:
            assert path.name not in self.groups
            return
        except TaskNotInParentError:
            assert listed & self.live_in(GOLD)
        else:
            assert not listed & self.live_in(GOLD)
            assert result == ReconcileResult(assigned=len(listed), missing=0, passes=1)
        assert path.name in self.groups
        assert self.fs.count("read_text", path / "tasks") == reads + 1
        self.moved(listed & self.live_in(""), path.name)

    @rule()
    def sweep(self) -> None:
        """Remove everything of ours."""
        ours = [name for name in self.groups if name.startswith(PREFIX)]
        foreign = len(self.groups) - len(ours) + self.gold
        try:
            report = self.resctrl.cleanup_all()
        except NotMountedError:
            assert not self.mounted
            return
        assert report == CleanupReport(
            removed=len(ours), removal_failures=0, removal_race=0, non_prefix_groups=foreign
        )
        for name in ours:
            self.forget_group(name)

    def moved(self, tids: set[Tid], name: str) -> None:
        """Threads are in a group, and so in no other."""
        for members in self.groups.values():
            members.difference_update(tids)
        if name in self.groups:
            self.groups[name] |= tids

    # Others

    @initialize(target=threads)
    def first_threads(self) -> object:
        """There are threads to begin with."""
        return multiple(*(self.born(None) for _ in range(3)))

    @rule(target=threads)
    def spawn(self) -> Tid:
        """A thread starts in the default group."""
        return self.born(None)

    @rule(target=threads, parent=threads)
    def fork(self, parent: Tid) -> object:
        """A thread starts another, which is where it is."""
        return multiple() if parent in self.dead else self.born(parent)

    def born(self, parent: Tid | None) -> Tid:
        """A thread starts."""
        tid = self.fake.spawn(parent)
        self.homes[tid] = self.homes[parent] if parent is not None else ""
        for members in self.groups.values():
            if parent in members:
                members.add(tid)
        return tid

    @rule(tid=threads)
    def die(self, tid: Tid) -> None:
        """A thread ends; its id stays known to whoever has it."""
        if tid not in self.dead:
            self.fake.end(tid)
            self.dead.add(tid)
            for members in self.groups.values():
                members.discard(tid)

    @precondition(lambda self: self.mounted and not self.gold and self.free() > 0)
    @rule()
    def make_class(self) -> None:
        """Somebody makes a control group."""
        self.fake.create_dir(self.root / GOLD)
        self.gold = True

    @precondition(lambda self: self.gold)
    @rule(tid=threads)
    def classify(self, tid: Tid) -> None:
        """Somebody puts a thread into it, which takes it out of our group."""
        if tid in self.dead:
            return
        self.fake.write_all(self.root / GOLD / "tasks", [b"%d" % tid])
        self.homes[tid] = GOLD
        self.moved({tid}, "")

    @precondition(lambda self: self.gold)
    @rule()
    def drop_class(self) -> None:
        """Somebody removes the control group."""
        self.fake.remove_dir(self.root / GOLD)
        self.gold = False
        self.freed.append(self.now)
        self.homes = dict.fromkeys(self.homes, "")

    @precondition(lambda self: self.mounted)
    @rule(name=foreign_names)
    def others_create(self, name: str) -> None:
        """Somebody makes a monitoring group of another name."""
        if name not in self.groups and self.free() > 0:
            self.fake.create_dir(self.path(name))
            self.groups[name] = set()

    @precondition(lambda self: self.groups)
    @rule(data=st.data())
    def others_remove(self, data: st.DataObject) -> None:
        """Somebody removes a monitoring group, perhaps ours."""
        name = data.draw(st.sampled_from(sorted(self.groups)))
        self.fake.remove_dir(self.path(name))
        self.forget_group(name)

    @precondition(lambda self: self.mounted)
    @rule(tid=threads)
    def others_take_back(self, tid: Tid) -> None:
        """Somebody writes a thread into the root's tasks: it is in no monitoring group any more."""
        if tid not in self.dead:
            self.fake.write_all(self.root / "tasks", [b"%d" % tid])
            self.homes[tid] = ""
            self.moved({tid}, "")

    @rule(really=st.integers(0, 3))
    def remount(self, really: int) -> None:
        """Somebody unmounts resctrl, or mounts it again; nothing is left of the groups but the limbo."""
        if self.mounted and really:
            return
        if self.mounted:
            self.fake.unmount()
            self.freed += [self.now] * (len(self.groups) + self.gold)
            self.groups, self.gold = {}, False
            self.homes = dict.fromkeys(self.homes, "")
        else:
            self.fake.mount()
        self.mounted = not self.mounted

    @rule(seconds=st.sampled_from([1.0, LIMBO / 2, LIMBO]))
    def wait(self, seconds: float) -> None:
        """Time passes, and limbo ends."""
        self.now += seconds

    @rule(tids=consumes(threads))
    def forget(self, tids: Tid) -> None:
        """Nobody speaks of a thread any more."""

    # What must always be true

    @invariant()
    def the_groups_are_those_of_the_model(self) -> None:
        """No group is lost or left over."""
        if self.mounted:
            assert set(self.fake.read_child_dirs(self.root / "mon_groups")) == set(self.groups)
        else:
            assert self.fake.read_child_dirs(self.root) == []

    @invariant()
    def every_thread_is_where_the_model_says(self) -> None:
        """Nobody was moved who should not have been, least of all the writer itself."""
        if not self.mounted:
            return
        for name, members in self.groups.items():
            assert self.fake.tasks_in(self.path(name)) == members
            assert set(self.resctrl.list_group_tasks(self.path(name))) == members
        assert self.fake.self_tid in self.fake.tasks_in(self.root)

    @invariant()
    def no_rmid_is_lost(self) -> None:
        """What is free, resting and used adds up."""
        assert self.fake.free_rmids == self.free()
        assert self.fake.rmids_in_limbo == self.resting()


TestGroupsMachine = GroupsMachine.TestCase
