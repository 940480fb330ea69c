"""What an audit sees, in which order it looks, and what that costs."""

from __future__ import annotations

import errno
import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nri_resctrl_plugin.errors import CgroupError
from nri_resctrl_plugin.inspection import Inspection, ended_sandboxes, inspect, meet
from nri_resctrl_plugin.model import ContainerCgroup, ContainerId, PodUid, SandboxId
from nri_resctrl_plugin.pods import Finding, Inspect, InspectedContainer, LiveSandbox
from resctrl import Resctrl, ResctrlIOError, Tid
from resctrl.testing import FakeFs, FakePidSource, FaultyFs, RecordingFs

if TYPE_CHECKING:
    from collections.abc import Collection


class Pod:
    """A pod with containers whose threads are in its group, on a fake machine."""

    def __init__(self) -> None:
        self.kernel = FakeFs()
        self.faults = FaultyFs(self.kernel)
        self.fs = RecordingFs(self.faults)
        self.resctrl = Resctrl.with_provider(self.fs)
        self.kernel.create_dir(self.kernel.root / "gold")
        self.main = self.resctrl.create_group("a")
        self.gold = self.resctrl.create_group("a", "gold")
        self.pids = FakePidSource()
        self.threads: dict[str, list[Tid]] = {}

    def container(self, name: str, *, inside: int = 0, outside: int = 0) -> list[Tid]:
        """Let a container have threads in the main group, and in none."""
        tids = [self.kernel.spawn() for _ in range(inside + outside)]
        self.resctrl.assign_tasks(self.main, tids[:inside])
        self.threads[name] = tids
        self.pids.follow(f"/{name}", lambda: list(self.threads[name]))
        return tids

    def inspect(self, *groups: Path, given_up: frozenset[Tid | Path] = frozenset()) -> Inspection:
        """Inspect all containers and begin a new record."""
        containers = tuple(InspectedContainer(ContainerId(name), _cgroup(name)) for name in self.threads)
        self.fs.forget()
        self.pids.calls.clear()
        asked = Inspect(PodUid("a"), groups or (self.main,), containers)
        return inspect(self.resctrl, self.pids, asked, given_up)

    def calls(self) -> list[tuple[str, str]]:
        """Return what was asked of the file system, without the root."""
        root = str(self.kernel.root)
        return [(call.operation, str(call.path).removeprefix(root)) for call in self.fs.calls]


@pytest.fixture
def it() -> Pod:
    return Pod()


def _cgroup(name: str) -> ContainerCgroup:
    return ContainerCgroup(cgroups_path=f"/{name}")


def found(seen: Inspection) -> dict[str, Finding]:
    """Return the findings by container."""
    return {str(name): finding for name, finding in seen.findings}


# --- what it costs ---


def test_with_nothing_changed_each_thing_is_read_once(it: Pod) -> None:
    """Each container is listed once and each group read once; nothing else, and no thread is looked up."""
    for name in ("c1", "c2", "c3"):
        it.container(name, inside=4)
    it.container("c4", inside=1)
    it.kernel.write_all(it.kernel.root / "gold" / "tasks", [b"%d\n" % it.threads["c4"][0]])
    it.resctrl.assign_tasks(it.gold, it.threads["c4"])
    seen = it.inspect(it.main, it.gold)
    assert seen == Inspection(
        findings=tuple((ContainerId(name), Finding.COMPLETE) for name in ("c1", "c2", "c3", "c4")),
        others=(it.gold,),
    )
    assert it.calls() == [
        ("read_text", "/mon_groups/pod_a/tasks"),
        ("read_text", "/gold/mon_groups/pod_a/tasks"),
    ]
    assert it.pids.calls == {f"/c{number}": 1 for number in range(1, 5)}


def test_without_threads_no_group_is_read(it: Pod) -> None:
    """Then it is enough that the groups are there."""
    it.container("c1")
    assert it.inspect(it.main, it.gold).lost is False
    assert it.calls() == [("exists", "/mon_groups/pod_a"), ("exists", "/gold/mon_groups/pod_a")]


def test_one_container_astray_costs_one_listing_more(it: Pod) -> None:
    """Only the container that looks astray is listed again."""
    it.container("c1", inside=2)
    it.container("c2", inside=2, outside=1)
    it.inspect()
    assert it.pids.calls == {"/c1": 1, "/c2": 2}
    assert len(it.calls()) == 1


# --- what is found ---


def test_threads_in_no_group_of_the_pod_are_astray(it: Pod) -> None:
    """Executed from outside, or moved by another agent; counted, container by container."""
    it.container("c1", inside=3)
    it.container("c2", inside=1, outside=2)
    it.container("c3", outside=4)
    seen = it.inspect()
    assert found(seen) == {"c1": Finding.COMPLETE, "c2": Finding.ASTRAY, "c3": Finding.ASTRAY}
    assert (len(seen.astray), seen.failures) == (6, ())


@pytest.mark.parametrize("successor", [False, True])
def test_a_thread_that_is_given_up_makes_its_container_astray_again(it: Pod, successor: bool) -> None:
    """Whichever way it shows; it is no less astray, and other containers are judged as ever."""
    tids = it.container("c1", inside=1, outside=1)
    it.container("c2", outside=1)
    if successor:
        before, tids[1:] = tids[1:], [it.kernel.spawn()]
        it.pids.sequence("/c1", [tids[0], *before], tids)
    seen = it.inspect(given_up=frozenset(tids))
    assert found(seen) == {"c1": Finding.ASTRAY_AGAIN, "c2": Finding.ASTRAY}
    assert seen.astray == {tids[1], *it.threads["c2"]}


def test_a_thread_born_while_it_is_looked_at_is_not_astray(it: Pod) -> None:
    """It inherits the group: listed before the groups are read, it cannot seem to be outside."""
    tids = it.container("c1", inside=2)
    it.faults.before("read_text", lambda _: tids.append(it.kernel.spawn(tids[0])), path=it.main / "tasks")
    assert found(it.inspect()) == {"c1": Finding.COMPLETE}
    assert it.pids.calls == {"/c1": 1}


def test_a_thread_that_dies_while_it_is_looked_at_is_not_astray(it: Pod) -> None:
    """It was listed, and is in no group any more: a second listing tells."""
    tids = it.container("c1", inside=2)
    it.faults.before("read_text", lambda _: it.kernel.end(tids.pop()), path=it.main / "tasks")
    assert found(it.inspect()) == {"c1": Finding.COMPLETE}


@pytest.mark.parametrize(
    ("outside", "finding"), [(True, Finding.ASTRAY), (False, Finding.COMPLETE)], ids=["outside", "inside"]
)
def test_the_successor_of_a_thread_that_died_is_judged_by_itself(
    it: Pod, outside: bool, finding: Finding
) -> None:
    """A process that forks and ends leaves a child where it was itself: its end makes nobody complete."""
    tids, strange = it.container("c1", inside=3), it.kernel.spawn()

    def succeed(_: Path) -> None:
        tids.append(it.kernel.spawn(strange if outside else tids[0]))
        it.kernel.end(strange)
        it.pids.set("/c1", tids)

    it.pids.set("/c1", [*tids, strange])
    it.faults.before("read_text", succeed, path=it.main / "tasks")
    seen = it.inspect()
    assert (found(seen), len(seen.astray), seen.unsure) == ({"c1": finding}, int(outside), False)


def test_one_that_was_born_inside_does_not_vouch_for_the_child_of_another(it: Pod) -> None:
    """Of two born meanwhile one is inside and one died before it was asked: its child is looked up too."""
    tids, strange = it.container("c1", inside=1), it.kernel.spawn()
    born, lost, child = (it.kernel.spawn() for _ in range(3))
    it.kernel.end(lost)

    def join(_: Path) -> None:
        it.resctrl.assign_tasks(it.main, [born])

    it.faults.before("read_text", join, path=Path("/proc", str(born), "cpu_resctrl_groups"))
    it.pids.sequence("/c1", [*tids, strange], [*tids, born, lost], [*tids, born, child])
    seen = it.inspect()
    assert (found(seen), len(seen.astray)) == ({"c1": Finding.ASTRAY}, 1)


def test_the_newest_are_asked_first(it: Pod) -> None:
    """They have the most of their lives before them."""
    tids = it.container("c1", inside=1)
    lost, *born = (it.kernel.spawn() for _ in range(4))
    it.kernel.end(lost)
    it.pids.sequence("/c1", [*tids, lost], [*tids, *born])
    assert len(it.inspect().astray) == 3
    asked = [path for operation, path in it.calls() if "cpu_resctrl_groups" in path]
    assert asked == [f"/proc/{tid}/cpu_resctrl_groups" for tid in reversed(born)]


def test_a_line_of_threads_that_cannot_be_followed_is_unknown(it: Pod) -> None:
    """Where each dies before it is looked up, or this kernel does not tell, nothing is said."""
    tids = it.container("c1", inside=1)

    def fresh() -> Tid:
        tid = it.kernel.spawn()
        it.kernel.end(tid)
        return tid

    it.pids.follow("/c1", lambda: [*tids, fresh()])
    seen = it.inspect()
    assert (found(seen), len(seen.astray), seen.unsure) == ({"c1": Finding.UNKNOWN}, 0, True)
    assert it.pids.calls["/c1"] < 10


def test_a_container_that_dies_while_it_is_looked_at_is_unknown(it: Pod) -> None:
    """No thread is left to tell by."""
    tids = it.container("c1", inside=1)
    it.faults.before("read_text", lambda _: it.kernel.end(tids.pop()), path=it.main / "tasks")
    seen = it.inspect()
    assert (found(seen), len(seen.astray)) == ({"c1": Finding.UNKNOWN}, 0)


def test_a_removed_cgroup_is_gone_and_an_empty_one_is_unknown(it: Pod) -> None:
    """Only the witness says gone, of what was seen before; a source that is none never does."""
    it.container("c1", inside=1)
    it.container("c2")
    it.inspect()
    it.pids.remove("/c1")
    assert found(it.inspect()) == {"c1": Finding.GONE, "c2": Finding.UNKNOWN}
    blind = inspect(it.resctrl, _Blind(it.pids), _asked(it, "c1"))
    assert found(blind) == {"c1": Finding.UNKNOWN}


def test_a_container_that_cannot_be_listed_is_unknown_and_told(it: Pod) -> None:
    """The others are found all the same; a second listing that fails says nothing either."""
    it.container("c1", inside=1)
    it.container("c2", inside=1, outside=1)
    error = CgroupError("no")
    it.pids.sequence("/c1", error)
    it.pids.sequence("/c2", it.threads["c2"], error)
    seen = it.inspect()
    assert found(seen) == {"c1": Finding.UNKNOWN, "c2": Finding.UNKNOWN}
    assert [name for name, _ in seen.failures] == ["c1", "c2"]


def test_a_witness_that_raises_says_nothing(it: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """The container is unknown and told; the group and the others are seen all the same."""
    it.container("c1")
    it.container("c2", inside=1, outside=1)
    error = OSError(errno.EACCES, "no")

    def refuse(_: object) -> bool:
        raise error

    monkeypatch.setattr(it.pids, "is_gone", refuse)
    seen = it.inspect()
    assert found(seen) == {"c1": Finding.UNKNOWN, "c2": Finding.ASTRAY}
    assert seen.failures == ((ContainerId("c1"), error),)


@pytest.mark.parametrize(("inside", "removed"), [(0, True), (1, True), (1, False)])
def test_a_main_group_that_is_not_there_is_lost(it: Pod, inside: int, removed: bool) -> None:
    """With threads its file says so (ENODEV, where it goes while it is read), without any its directory."""
    it.container("c1", inside=inside)
    if removed:
        it.kernel.remove_dir(it.main)
    else:
        it.faults.before("read_text", lambda _: it.kernel.remove_dir(it.main))
        it.faults.fail("read_text", errno.ENODEV)
    seen = it.inspect(it.main, it.gold)
    assert (seen.lost, seen.others) == (True, (it.gold,))
    assert found(seen) == {"c1": Finding.ASTRAY if inside else Finding.UNKNOWN}


def test_only_a_main_group_that_is_lost_is_given_up(it: Pod) -> None:
    """Not one that is there, and not one that was not lost so often."""
    it.container("c1", inside=1)
    given_up = frozenset({it.main})
    assert not it.inspect(it.main, it.gold, given_up=given_up).given_up
    it.kernel.remove_dir(it.main)
    assert it.inspect(it.main, it.gold, given_up=given_up).given_up
    assert not it.inspect(it.main, it.gold, given_up=frozenset({it.gold})).given_up


def test_a_further_group_that_is_not_there_is_told(it: Pod) -> None:
    """The main one is there, so nothing is lost but that one."""
    it.container("c1", inside=1)
    it.kernel.remove_dir(it.kernel.root / "gold")
    seen = it.inspect(it.main, it.gold)
    assert (seen.lost, seen.others, found(seen)) == (False, (), {"c1": Finding.COMPLETE})


def test_a_further_group_without_threads_is_unused(it: Pod) -> None:
    """Not the main one, nor one with a thread, whoever's it is."""
    silver = it.kernel.root / "silver"
    it.kernel.create_dir(silver)
    it.container("c1", inside=1)
    it.kernel.write_all(silver / "tasks", [b"%d\n" % it.threads["c1"][0]])
    used = it.resctrl.create_group("a", "silver")
    it.resctrl.assign_tasks(used, it.threads["c1"])
    seen = it.inspect(it.main, it.gold, used)
    assert (seen.unused, seen.others) == ((it.gold,), (it.gold, used))
    stranger = it.kernel.spawn()
    it.kernel.write_all(it.kernel.root / "gold" / "tasks", [b"%d\n" % stranger])
    it.resctrl.assign_tasks(it.gold, [stranger])
    assert it.inspect(it.main, it.gold, used).unused == ()


def test_a_further_group_is_in_use_where_anybody_may_need_it(it: Pod) -> None:
    """Whoever is astray may have left it for another class, and takes it along; nor does ignorance count."""
    it.container("c1", inside=1)
    tids = it.container("c2", outside=1)
    assert it.inspect(it.main, it.gold).unused == ()
    it.threads["c2"] = []
    assert it.inspect(it.main, it.gold).unused == (), "one without threads may be about to have some"
    it.threads["c2"] = tids
    it.resctrl.assign_tasks(it.main, tids)
    assert it.inspect(it.main, it.gold).unused == (it.gold,)
    it.pids.remove("/c2")
    assert it.inspect(it.main, it.gold).unused == (it.gold,)
    it.pids.remove("/c1")
    assert it.inspect(it.main, it.gold).unused == (), "nothing was read"


def test_no_further_group_is_unused_where_the_main_one_is_lost(it: Pod) -> None:
    """All that was in it needs a group."""
    [tid] = it.container("c1", inside=1)
    silver = it.kernel.root / "silver"
    it.kernel.create_dir(silver)
    it.kernel.write_all(silver / "tasks", [b"%d\n" % tid])
    used = it.resctrl.create_group("a", "silver")
    it.resctrl.assign_tasks(used, [tid])
    it.kernel.remove_dir(it.main)
    seen = it.inspect(it.main, it.gold, used)
    assert (seen.lost, seen.unused, found(seen)) == (True, (), {"c1": Finding.COMPLETE})


def test_a_further_group_that_is_gone_is_not_unused(it: Pod) -> None:
    """Nothing of it is left to give back."""
    it.container("c1", inside=1)
    it.kernel.remove_dir(it.kernel.root / "gold")
    assert it.inspect(it.main, it.gold).unused == ()


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESRCH, errno.ENODEV])
def test_a_group_that_cannot_be_read_says_nothing(it: Pod, number: int) -> None:
    """Nothing is lost, nobody is astray; only what is gone is known."""
    it.container("c1", inside=1)
    it.container("c2", inside=1)
    it.inspect()
    it.pids.remove("/c2")
    it.faults.fail("read_text", number, times=math.inf)
    it.faults.fail("exists", number, times=math.inf)
    seen = it.inspect(it.main, it.gold)
    assert (seen.lost, seen.others, len(seen.astray)) == (False, (it.gold,), 0)
    assert found(seen) == {"c1": Finding.UNKNOWN, "c2": Finding.GONE}
    assert [name for name, _ in seen.failures] == [None]


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV])
def test_a_group_that_is_there_is_not_lost(it: Pod, number: int) -> None:
    """Its file was gone and its directory is not: it came back, and one made beside it would leak."""
    it.container("c1", inside=1)
    it.faults.fail("read_text", number)
    seen = it.inspect(it.main, it.gold)
    assert (seen.lost, found(seen)) == (False, {"c1": Finding.UNKNOWN})
    assert [name for name, _ in seen.failures] == [None]


def test_a_group_that_cannot_be_looked_for_is_not_lost(it: Pod) -> None:
    """EACCES on the directory is no proof."""
    it.container("c1")
    it.faults.fail("exists", errno.EACCES)
    assert it.inspect().lost is False


def test_the_typed_error_is_kept(it: Pod) -> None:
    """An agent can tell failures apart."""
    it.container("c1", inside=1)
    it.faults.fail("read_text", errno.EIO)
    [(_, error)] = it.inspect().failures
    assert isinstance(error, ResctrlIOError)


# --- which pods are gone ---


class _Blind:
    """A source that is no witness."""

    def __init__(self, pids: FakePidSource) -> None:
        self._pids = pids

    def thread_ids(self, container: ContainerCgroup) -> Collection[Tid]:
        return self._pids.thread_ids(container)


class _Refusing:
    """A witness that raises, which none should."""

    def thread_ids(self, _: ContainerCgroup) -> Collection[Tid]:
        raise AssertionError

    def is_gone(self, _: ContainerCgroup) -> bool:
        raise OSError(errno.EACCES, "no")


def _asked(it: Pod, name: str) -> Inspect:
    return Inspect(PodUid("a"), (it.main,), (InspectedContainer(ContainerId(name), _cgroup(name)),))


def _sandbox(*containers: str, own: bool = True) -> LiveSandbox:
    cgroup = _cgroup("sandbox") if own else None
    return LiveSandbox(SandboxId("s"), PodUid("u"), cgroup, tuple(_cgroup(each) for each in containers))


def test_a_sandbox_is_gone_with_its_own_cgroup_and_all_containers() -> None:
    """One of them that stands, or was never seen, keeps it."""
    pids = FakePidSource()
    sandbox = _sandbox("c1", "c2")
    assert ended_sandboxes(pids, [sandbox], set(sandbox.containers)) == []
    pids.remove("/sandbox")
    assert ended_sandboxes(pids, [sandbox], ()) == []
    pids.remove("/c1")
    assert ended_sandboxes(pids, [sandbox], ()) == []
    pids.remove("/c2")
    assert ended_sandboxes(pids, [sandbox, _sandbox("never-seen")], ()) == ["s"]
    pids.remove("/unseen")
    assert ended_sandboxes(pids, [_sandbox("unseen")], ()) == []


def test_a_living_sandbox_costs_one_look() -> None:
    """Its containers are not asked for, but those that nobody has looked at yet."""
    pids = FakePidSource()
    ended_sandboxes(pids, [_sandbox("c1", "c2")], {_cgroup("c2")})
    assert pids.looks == {"/sandbox": 1, "/c2": 1}


def test_what_was_met_can_be_missed() -> None:
    """The sandbox and its containers; no cgroup, no witness and no answer are no error."""
    pids = FakePidSource()
    meet(pids, [_sandbox("c1", "c2"), _sandbox(own=False)])
    for path in ("/sandbox", "/c1", "/c2"):
        assert pids.looks[path] == 1
        pids.remove(path)
    assert ended_sandboxes(pids, [_sandbox("c1", "c2")], ()) == ["s"]
    meet(_Blind(pids), [_sandbox("c1")])
    assert pids.looks["/c1"] == 2
    meet(_Refusing(), [_sandbox("c1")])


def test_without_its_own_cgroup_or_a_witness_nothing_is_gone() -> None:
    """Ignorance ends no pod."""
    pids = FakePidSource()
    for name in ("sandbox", "c1"):
        pids.is_gone(_cgroup(name))
        pids.remove(f"/{name}")
    assert ended_sandboxes(pids, [_sandbox("c1", own=False)], ()) == []
    assert ended_sandboxes(_Blind(pids), [_sandbox("c1")], ()) == []
    assert ended_sandboxes(pids, [_sandbox()], ()) == ["s"]
