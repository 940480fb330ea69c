"""The library over the fake, against plain dictionaries: any order of calls, deaths and acts of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
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
    Capacity,
    CapacityError,
    CleanupReport,
    EmptyPidSetError,
    GroupExistsError,
    GroupNotFoundError,
    NotMountedError,
    ReconcileResult,
    Resctrl,
    ResctrlConfig,
    ResctrlError,
    ResctrlGroup,
    RmidsBusyError,
    TaskGroups,
    TaskNotInParentError,
    Tid,
)
from resctrl.testing import FakeFs, FaultyFs, RecordingFs

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = "pod_"
LIMBO = 10.0
USABLE_RMIDS = 4
GOLD = "gold"

Place = tuple[str, str]
"""A monitoring group: the control group it stands below ("" is the default one), and its name."""

uids = st.sampled_from(["a", "b", "c", "a.b", "h-x", ""])
foreign_names = st.sampled_from(["others", "poD_a", "filler"])
controls = st.sampled_from(["", "", GOLD])


def _counts(outcome: AssignmentResult | ResctrlError) -> AssignmentResult | None:
    return outcome.partial if isinstance(outcome, ResctrlError) else outcome


def _ours(place: Place) -> bool:
    return place[1].startswith(PREFIX)


class GroupsMachine(RuleBasedStateMachine):
    """One machine with few RMIDs and one control group; three actors: us, others, and time."""

    threads = Bundle("threads")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.fake = FakeFs(num_rmids=2 + USABLE_RMIDS, num_closids=2, limbo=LIMBO, clock=lambda: self.now)
        self.faulty = FaultyFs(self.fake)
        self.fs = RecordingFs(self.faulty)
        self.resctrl = Resctrl.with_provider(self.fs, ResctrlConfig(group_prefix=PREFIX))
        self.root = self.fake.root
        self.status = self.root / "info/last_cmd_status"
        # the model
        self.mounted = True
        self.gold = False
        self.groups: dict[Place, set[Tid]] = {}
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

    def path(self, place: Place) -> Path:
        """Return where a monitoring group stands."""
        return self.root / place[0] / "mon_groups" / place[1]

    def place(self, path: Path) -> Place:
        """Return the same the other way round."""
        control = path.parents[1]
        return ("" if control == self.root else control.name, path.name)

    def there(self, control: str) -> bool:
        """Tell whether groups can be made below a control group."""
        return self.mounted and (not control or self.gold)

    def live_in(self, home: str) -> set[Tid]:
        """Return the live threads of a control group ("" is the default one)."""
        return {tid for tid, where in self.homes.items() if where == home and tid not in self.dead}

    def forget_group(self, place: Place) -> None:
        """A group is gone, by whoever's hand."""
        del self.groups[place]
        self.freed.append(self.now)

    def refused_create(self, error: ResctrlError, control: str) -> None:
        """A creation may fail only as the model says."""
        if not self.mounted:
            assert type(error) is NotMountedError
        elif not self.there(control):
            assert type(error) is GroupNotFoundError
            assert error.path == self.root / GOLD
        else:
            assert self.free() == 0
            assert type(error) is (RmidsBusyError if self.resting() else CapacityError)
            assert error.kernel_status == "Out of RMIDs"

    def some_group(self, data: st.DataObject) -> Path:
        """Draw a group of a pod, more often than not one that exists."""
        ours = sorted(filter(_ours, self.groups))
        often = data.draw(st.integers(0, 3)) > 0
        if ours and often:
            return self.path(data.draw(st.sampled_from(ours)))
        return self.resctrl.group_path(data.draw(uids), data.draw(controls))

    # Us

    @rule(uid=uids, control=controls)
    def create(self, uid: str, control: str) -> None:
        """Make a pod's group, or find it."""
        expected = self.resctrl.group_path(uid, control)
        place = self.place(expected)
        self.faulty.heal()  # the sentence is to be that of this call
        try:
            assert self.resctrl.create_group(uid, control) == expected
        except ResctrlError as error:
            assert place not in self.groups
            self.refused_create(error, control)
        else:
            assert self.there(control)
            if place not in self.groups:
                assert self.free() > 0
                self.groups[place] = set()

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """Delete a pod's group, or find it gone."""
        path = self.some_group(data)
        self.resctrl.delete_group(path)
        if self.place(path) in self.groups:
            self.forget_group(self.place(path))

    @rule(data=st.data(), control=controls)
    def move(self, data: st.DataObject, control: str) -> None:
        """Move a pod's group below another control group; its threads and its RMID come along."""
        path = self.some_group(data)
        source, target = self.place(path), (control, path.name)
        try:
            moved = self.resctrl.move_group(path, control)
        except NotMountedError:
            assert not self.mounted
            return
        except GroupExistsError as error:
            assert {source, target} <= set(self.groups)
            self.is_about(error, self.path(target))
            assert source != target
            return
        except GroupNotFoundError as error:
            assert source not in self.groups or not self.there(control)
            self.is_about(error, path if self.there(control) else self.root / GOLD)
            return
        assert moved == self.path(target)
        members = self.groups.pop(source)
        self.groups[target] = members
        self.homes.update(dict.fromkeys(members, control))

    @rule(data=st.data(), tids=st.lists(threads, max_size=8))
    def assign(self, data: st.DataObject, tids: list[Tid]) -> None:
        """Put threads into a pod's group."""
        path = self.some_group(data)
        place = self.place(path)
        wanted = set(tids)
        taken = wanted & self.live_in(place[0])
        expected = AssignmentResult(assigned=len(taken), missing=len(wanted & self.dead))
        outcome: AssignmentResult | ResctrlError
        self.fs.forget()
        try:
            outcome = self.resctrl.assign_tasks(path, tids)
        except ResctrlError as error:
            outcome = error
        assert self.fs.count("write_all") == bool(tids)
        if place not in self.groups:
            assert isinstance(outcome, GroupNotFoundError) == bool(tids)
            assert _counts(outcome) == AssignmentResult(0, 0)
            return
        refused = wanted - taken - self.dead
        assert isinstance(outcome, TaskNotInParentError) == bool(refused)
        if isinstance(outcome, ResctrlError):
            self.refused(outcome, refused)
        assert _counts(outcome) == expected
        self.moved(taken, place)

    @rule(data=st.data(), tids=st.lists(threads, max_size=8), passes=st.integers(1, 3))
    def reconcile(self, data: st.DataObject, tids: list[Tid], passes: int) -> None:
        """Reconcile a pod's group with threads that stay as they are."""
        path = self.some_group(data)
        place = self.place(path)
        listed = set(tids) - self.dead
        taken = listed & self.live_in(place[0])
        self.fs.forget()
        try:
            result = self.resctrl.reconcile_group(path, lambda: listed, passes)
        except EmptyPidSetError:
            assert not listed
            return
        except GroupNotFoundError:
            assert place not in self.groups
            return
        except TaskNotInParentError as error:
            self.refused(error, listed - taken)
        else:
            assert listed == taken
            assert result == ReconcileResult(assigned=len(listed), missing=0, passes=1)
        assert place in self.groups
        assert self.fs.count("read_text", path / "tasks") == 1
        self.moved(taken, place)

    @rule(below=st.booleans(), keep=st.lists(uids, max_size=3))
    def sweep(self, below: bool, keep: list[str]) -> None:
        """Remove everything of ours that is not wanted, at one level or at both."""
        wanted = {self.resctrl.group_path(uid).name for uid in keep}
        seen = [place for place in self.groups if below or not place[0]]
        ours = [place for place in seen if _ours(place)]
        kept = [place for place in ours if place[1] in wanted]
        try:
            report = self.resctrl.cleanup_all(below_control_groups=below, keep=wanted)
        except NotMountedError:
            assert not self.mounted
            return
        assert report == CleanupReport(
            removed=len(ours) - len(kept),
            removal_failures=0,
            removal_race=0,
            non_prefix_groups=len(seen) - len(ours) + self.gold,
            kept=len(kept),
        )
        for place in set(ours) - set(kept):
            self.forget_group(place)

    def is_about(self, error: ResctrlError, path: Path) -> None:
        """An error tells where."""
        assert error.path == path

    def refused(self, error: ResctrlError, tids: set[Tid]) -> None:
        """An error tells of each refused thread once, and of nobody else."""
        assert tids
        assert sorted(error.refused) == sorted(tids)

    def moved(self, tids: set[Tid], place: Place | None) -> None:
        """Threads are in a group, and so in no other."""
        for members in self.groups.values():
            members.difference_update(tids)
        if place is not None:
            self.groups[place] |= tids

    # Others

    @initialize(target=threads, lists=st.booleans())
    def first_threads(self, lists: bool) -> object:
        """There are threads to begin with, on a kernel that takes lists or on one that does not."""
        self.fake._kernel._lists = lists
        return multiple(*(self.born(None) for _ in range(4)))

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

    @rule(tid=threads)
    def others_have_the_last_word(self, tid: Tid) -> None:
        """When next somebody asks what the kernel said, it was about somebody else's write."""

        def overwrite(_: object) -> None:
            self.fake._kernel.status.clear()
            self.fake._kernel.status.puts(f"No task {tid}\nError while processing task {tid}\n")

        self.faulty.heal()
        self.faulty.before("read_text", overwrite, path=self.status)

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
        self.moved({tid}, None)

    @precondition(lambda self: self.gold)
    @rule()
    def drop_class(self) -> None:
        """Somebody removes the control group, and with it every group below it."""
        self.fake.remove_dir(self.root / GOLD)
        self.gold = False
        self.freed.append(self.now)
        for place in [place for place in self.groups if place[0]]:
            self.forget_group(place)
        self.homes = dict.fromkeys(self.homes, "")

    @rule(name=foreign_names, control=controls)
    def others_create(self, name: str, control: str) -> None:
        """Somebody makes a monitoring group of another name."""
        if (control, name) not in self.groups and self.there(control) and self.free() > 0:
            self.fake.create_dir(self.path((control, name)))
            self.groups[control, name] = set()

    @precondition(lambda self: self.groups)
    @rule(data=st.data())
    def others_remove(self, data: st.DataObject) -> None:
        """Somebody removes a monitoring group, perhaps ours."""
        place = data.draw(st.sampled_from(sorted(self.groups)))
        self.fake.remove_dir(self.path(place))
        self.forget_group(place)

    @precondition(lambda self: self.mounted)
    @rule(tid=threads)
    def others_take_back(self, tid: Tid) -> None:
        """Somebody writes a thread into the root's tasks: it is in no monitoring group any more."""
        if tid not in self.dead:
            self.fake.write_all(self.root / "tasks", [b"%d" % tid])
            self.homes[tid] = ""
            self.moved({tid}, None)

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
        """No group is lost or left over, and they are listed as what they are."""
        if not self.mounted:
            assert self.fake.read_child_dirs(self.root) == []
            with pytest.raises(NotMountedError):
                self.resctrl.list_groups()
            return
        expected = {ResctrlGroup(self.path(place), *place, ours=_ours(place)) for place in self.groups}
        if self.gold:
            expected.add(ResctrlGroup(self.root / GOLD, GOLD, "", ours=False))
        listed = self.resctrl.list_groups()
        assert set(listed) == expected
        assert len(listed) == len(expected)

    @invariant()
    def every_thread_is_where_the_model_says(self) -> None:
        """Nobody was moved who should not have been, least of all the writer itself."""
        if not self.mounted:
            return
        groups = {tid: place for place, members in self.groups.items() for tid in members}
        for place, members in self.groups.items():
            assert self.fake.tasks_in(self.path(place)) == members
            assert set(self.resctrl.list_group_tasks(self.path(place))) == members
        for tid, home in self.homes.items():
            told = self.resctrl.task_groups(tid)
            expected = TaskGroups(home, groups[tid][1] if tid in groups else "")
            assert told == (None if tid in self.dead else expected)
        assert self.resctrl.task_groups(self.fake.self_tid) == TaskGroups("", "")

    @invariant()
    def no_rmid_is_lost(self) -> None:
        """What is free, resting and used adds up."""
        assert self.fake.free_rmids == self.free()
        assert self.fake.rmids_in_limbo == self.resting()
        if self.mounted:
            capacity = self.resctrl.capacity()
            assert capacity == Capacity(
                num_rmids=2 + USABLE_RMIDS,
                in_use=1 + len(self.groups) + self.gold,
                ours=sum(map(_ours, self.groups)),
            )
            assert capacity.free == self.free() + self.resting()


TestGroupsMachine = GroupsMachine.TestCase
