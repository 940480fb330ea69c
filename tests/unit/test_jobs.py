"""What the worker does for the table: adoption, deletion of several groups, the settings in force."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from nri_resctrl_plugin.config import ResctrlPluginConfig
from nri_resctrl_plugin.errors import BudgetExceededError
from nri_resctrl_plugin.jobs import Deletion, Jobs
from nri_resctrl_plugin.model import ContainerCgroup, ContainerId, PodUid
from nri_resctrl_plugin.pods import DeleteGroup, GroupCreated, Inspect, InspectedContainer, Reconcile
from resctrl import NoPermissionError, Resctrl, ResctrlIOError, TaskNotInParentError
from resctrl.testing import FakeFs, FakePidSource, FaultyFs, RecordingFs

if TYPE_CHECKING:
    from pathlib import Path

A, B = PodUid("a"), PodUid("b")


class Bench:
    """Jobs with given settings over a fake with a class."""

    def __init__(self, config: ResctrlPluginConfig | None = None) -> None:
        self.kernel = FakeFs()
        self.kernel.create_dir(self.kernel.root / "gold")
        self.faults = FaultyFs(self.kernel)
        self.fs = RecordingFs(self.faults)
        self.resctrl = Resctrl.with_provider(self.fs)
        self.pids = FakePidSource()
        settings = config if config is not None else ResctrlPluginConfig()
        self.jobs = Jobs(settings, self.resctrl, self.pids)

    def left(self, *control_groups: str, uid: PodUid = A) -> tuple[Path, ...]:
        """Leave groups of an earlier life."""
        return tuple(self.resctrl.create_group(uid, name) for name in control_groups)

    def ours(self) -> set[Path]:
        """Return the groups of ours that are there."""
        return {group.path for group in self.resctrl.list_groups() if group.ours}


def adopting(**more: object) -> ResctrlPluginConfig:
    return ResctrlPluginConfig(startup_policy="adopt", **more)  # type: ignore[arg-type]


# --- adoption ---


def test_adopted_groups_are_the_pods_without_a_mkdir() -> None:
    """Main and further ones are found where they stand, the one below the default group first."""
    it = Bench(adopting())
    gold, main = it.left("gold", "")
    it.left("", uid=B)
    result = it.jobs.start_up([A])
    assert result.report is not None
    assert (result.report.kept, result.report.removed) == (2, 1)
    assert result.adopted == {A: (main, gold)}
    it.fs.forget()
    assert it.jobs.create(A) == GroupCreated(A, main, (gold,))
    assert it.fs.count("create_dir") == 0


def test_a_group_below_a_class_alone_is_the_main_one() -> None:
    """The pod's one container lives in that class."""
    it = Bench(adopting())
    [gold] = it.left("gold")
    it.jobs.start_up([A, B])
    assert it.jobs.create(A) == GroupCreated(A, gold)
    assert it.jobs.create(B) == GroupCreated(B, it.resctrl.group_path(B))


def test_adoption_counts_once_and_only_for_what_is_there_still() -> None:
    """A later create makes a group as ever; one that somebody removed meanwhile is not believed in."""
    it = Bench(adopting())
    main, gold = it.left("", "gold")
    it.jobs.start_up([A])
    it.kernel.remove_dir(gold)
    assert it.jobs.create(A) == GroupCreated(A, main)
    it.fs.forget()
    assert it.jobs.create(A) == GroupCreated(A, main)
    assert it.fs.count("create_dir") == 1


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        (ResctrlPluginConfig(), ()),
        (adopting(class_placement=False), ("", "gold")),
        (adopting(cleanup_on_start=False), ("", "gold")),
        (ResctrlPluginConfig(cleanup_on_start=False), ("", "gold")),
    ],
)
def test_what_the_settings_keep(config: ResctrlPluginConfig, kept: tuple[str, ...]) -> None:
    """`clean` sweeps everything; without placement nobody looks below classes; without a sweep all stays."""
    it = Bench(config)
    it.left("", "gold")
    result = it.jobs.start_up([A])
    assert it.ours() == {it.resctrl.group_path(A, name) for name in kept}
    assert (result.report is not None) is config.cleanup_on_start
    adopted = config.startup_policy == "adopt"
    below = config.class_placement
    assert set(result.adopted) == ({A} if adopted else set())
    assert not adopted or len(result.adopted[A]) == 1 + below


def test_nothing_is_swept_or_adopted_after_the_first_group() -> None:
    """Without a listing it is not known whose groups are there."""
    it = Bench(adopting())
    it.left("")
    result = it.jobs.start_up(None)
    assert (result.report, result.adopted) == (None, {})
    assert len(it.ours()) == 1


def test_an_adoption_that_cannot_look_is_an_error_and_no_end() -> None:
    """What the sweep did is told all the same."""
    it = Bench(adopting())
    it.left("")
    it.faults.fail("read_child_dirs", errno.EIO, nth=5)
    result = it.jobs.start_up([A])
    assert result.sweep_error is not None
    assert result.report is not None
    assert it.jobs.owes_startup
    assert it.jobs.create(A).path == it.resctrl.group_path(A)


def test_the_startup_is_done_when_all_that_was_found_is_taken_up() -> None:
    """By a create, by a look, or as stale once the pod is gone; what the pod knows is not found again."""
    it = Bench(adopting())
    main, gold = it.left("", "gold")
    it.faults.fail("read_child_dirs", errno.EIO)
    it.jobs.start_up([A])
    assert it.jobs.create(A) == GroupCreated(A, main)
    assert it.jobs.start_up_again({A: (main,), B: ()}).adopted == {A: (gold,)}
    assert it.jobs.owes_startup
    for others in ((gold,), ()):
        assert it.jobs.inspect(Inspect(A, (main,), ())).others == others
        assert not it.jobs.owes_startup
    assert it.jobs.start_up_again({A: (main, gold)}).adopted == {}
    assert it.jobs.start_up_again({}).adopted == {}
    assert it.ours() == set()
    assert not it.jobs.owes_startup


def test_what_failed_again_is_owed_again() -> None:
    """What was found before stays found as long as nobody can look."""
    it = Bench(adopting())
    main, gold = it.left("", "gold")
    it.jobs.start_up([A])
    it.faults.fail("read_child_dirs", errno.EIO)
    assert it.jobs.start_up_again({A: ()}).sweep_error is not None
    assert it.jobs.create(A) == GroupCreated(A, main, (gold,))
    assert it.jobs.owes_startup
    it.faults.fail("remove_dir", errno.EIO, path=gold)
    it.jobs.start_up_again({})
    assert it.jobs.owes_startup
    it.jobs.start_up_again({})
    assert not it.jobs.owes_startup


# --- deletion ---


def test_all_groups_of_a_pod_go() -> None:
    """The main one and the further ones; one that is gone already is no failure."""
    it = Bench()
    main, gold = it.left("", "gold")
    it.kernel.remove_dir(main)
    assert it.jobs.delete(DeleteGroup(A, main, (gold,))) == Deletion(removed=2)
    assert it.ours() == set()


def test_one_group_that_stays_keeps_none_of_the_others() -> None:
    """Each takes an RMID, so each is tried; what is left is told, with the first error."""
    it = Bench()
    main, gold = it.left("", "gold")
    it.faults.fail("remove_dir", errno.EPERM, path=main)
    deletion = it.jobs.delete(DeleteGroup(A, main, (gold,)))
    assert deletion.left == (main,)
    assert isinstance(deletion.error, NoPermissionError)
    assert it.ours() == {main}


# --- settings ---


def test_unused_groups_are_given_back_and_the_rest_is_told() -> None:
    """What cannot be removed stays the pod's, with the reason."""
    it = Bench()
    it.kernel.create_dir(it.kernel.root / "silver")
    main, gold, silver = it.left("", "gold", "silver")
    tid = it.kernel.spawn()
    it.pids.set("/c", [tid])
    it.resctrl.assign_tasks(main, [tid])
    containers = (InspectedContainer(ContainerId("c"), ContainerCgroup(cgroups_path="/c")),)
    asked = Inspect(A, (main, gold, silver), containers)
    it.faults.fail("remove_dir", errno.EBUSY, path=gold)
    seen = it.jobs.inspect(asked)
    assert (seen.unused, seen.others) == ((silver,), (gold,))
    [(name, error)] = seen.failures
    assert name is None
    assert isinstance(error, ResctrlIOError)
    assert it.ours() == {main, gold}
    seen = it.jobs.inspect(Inspect(A, (main, gold), containers))
    assert (seen.unused, seen.others, seen.failures) == ((gold,), (), ())
    assert it.ours() == {main}


def test_a_group_that_the_pod_learnt_of_since_is_looked_at_once() -> None:
    """It is one group, whoever found it: read and told once, and a main one is never given back."""
    it = Bench(adopting())
    main, gold = it.left("", "gold")
    it.jobs.start_up([A])
    tid = it.kernel.spawn()
    it.kernel.write_all(it.kernel.root / "gold" / "tasks", [b"%d\n" % tid])
    it.resctrl.assign_tasks(gold, [tid])
    it.pids.set("/c", [tid])
    it.fs.forget()
    containers = (InspectedContainer(ContainerId("c"), ContainerCgroup(cgroups_path="/c")),)
    seen = it.jobs.inspect(Inspect(A, (main, gold), containers))
    assert (seen.others, seen.unused) == ((gold,), ())
    assert [it.fs.count("read_text", group / "tasks") for group in (main, gold)] == [1, 1]
    assert it.ours() == {main, gold}


def test_the_budget_holds_for_every_group() -> None:
    """For a pod's first one, and for one below a class."""
    it = Bench(ResctrlPluginConfig(max_groups=1))
    main = it.jobs.create(A).path
    with pytest.raises(BudgetExceededError):
        it.jobs.create(B)
    placed = it.jobs.reconcile(classed(it, main))
    assert isinstance(placed.error, BudgetExceededError)


def test_passes_and_placement_are_the_settings() -> None:
    """So many passes; and without placement no thread of another class is followed."""
    it = Bench(ResctrlPluginConfig(class_placement=False, max_reconcile_passes=2))
    main = it.jobs.create(A).path
    assert isinstance(it.jobs.reconcile(classed(it, main)).error, TaskNotInParentError)
    it.pids.never_converge("/c", it.kernel.spawn)
    it.pids.calls.clear()
    it.jobs.reconcile(asked(main))
    assert it.pids.calls["/c"] == 3
    it.jobs = Jobs(ResctrlPluginConfig(), it.resctrl, it.pids)
    assert it.jobs.reconcile(classed(it, main)).complete


def asked(main: Path) -> Reconcile:
    return Reconcile(A, ContainerId("c"), main, ContainerCgroup(cgroups_path="/c"))


def classed(it: Bench, main: Path) -> Reconcile:
    """Let the container have a thread in a class."""
    tid = it.kernel.spawn()
    it.kernel.write_all(it.kernel.root / "gold" / "tasks", [b"%d\n" % tid])
    it.pids.set("/c", [tid])
    return asked(main)
