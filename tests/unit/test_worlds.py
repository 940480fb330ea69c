"""The worlds: what a scenario asks of its machine is there."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nri_resctrl_plugin.cgroups import CgroupWitness
from nri_resctrl_plugin.model import ContainerCgroup
from tests.unit.fakes import answer
from tests.worlds import WORLDS, FakeWorld, Machine, WorldMissing, eventually, mounts, real
from tests.worlds.counting import HardwareCounting
from tests.worlds.real import Resting
from tests.worlds.tasks import Tasks, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resctrl import Tid
    from tests.worlds import ContainerHandle


def cgroup_of(container: ContainerHandle) -> ContainerCgroup:
    """Return where the plugin looks for a container."""
    return ContainerCgroup(cgroups_path=container.cgroups_path)


@pytest.fixture
def fake() -> Iterator[FakeWorld]:
    """Return the fake world."""
    world = FakeWorld()
    yield world
    world.close()


def test_containers_have_threads(fake: FakeWorld) -> None:
    """A container has as many threads as asked for; its children are its own; nobody is in a group."""
    one, other = fake.new_container(3), fake.new_container()
    assert len(fake.threads_of(one)) == 3
    assert set(fake.pid_source.thread_ids(ContainerCgroup(cgroups_path=one.cgroups_path))) == fake.threads_of(
        one
    )
    child = fake.spawn_task(min(fake.threads_of(one)))
    assert child in fake.threads_of(one)
    assert fake.threads_of(other).isdisjoint(fake.threads_of(one))
    assert fake.threads_of(one) <= fake.tasks_in(fake.root)
    fake.end_task(child)
    assert child not in fake.threads_of(one)
    assert fake.spawn_task() not in fake.threads_of(one) | fake.threads_of(other)
    assert fake.threads_of(fake.new_container(0)) == set()


def test_rmids_are_used_up_and_given_back(fake: FakeWorld) -> None:
    """While they are used up nothing fits (ENOSPC, not EBUSY); one can be freed; in the end all are back."""
    path = fake.root / "mon_groups/pod_x"
    fake.add_group(path)
    fake.fs.remove_dir(path)
    with fake.use_up_rmids():
        assert answer(fake.fs.create_dir, path) == "ENOSPC"
        fake.free_one_rmid()
        assert answer(fake.fs.create_dir, path) == "EBUSY"
    names = fake.groups_in(fake.root / "mon_groups")
    assert not any(name.startswith(fake.others_prefix) for name in names)
    assert fake.kernel.free_rmids + fake.kernel.rmids_in_limbo == 11


def test_a_world_gives_everything_back() -> None:
    """Closing removes our groups, those made for us and the fillers, and ends the threads."""
    world = FakeWorld()
    world.new_container(2)
    world.add_group(world.root / "gold")
    world.add_group(world.root / "mon_groups/others")
    world.fs.create_dir(world.root / "mon_groups/pod_a")
    world.fs.create_dir(world.root / "mon_groups/others_filler_0000")
    world.mount_state(mounted=False)
    assert not world.is_mounted()
    world.mount_state(mounted=True)
    world.fs.create_dir(world.root / "mon_groups/pod_b")
    world.close()
    assert world.groups_in(world.root) == world.groups_in(world.root / "mon_groups") == set()
    assert world.tasks_in(world.root) == set()


def test_what_enters_a_container_is_in_no_group(fake: FakeWorld) -> None:
    """An exec'd process is one of its container's threads and stays in the default group."""
    container = fake.new_container(2)
    group = fake.root / "mon_groups/pod_a"
    fake.add_group(group)
    fake.put(group, *fake.threads_of(container))
    strange, child = fake.exec_in(container), fake.spawn_task(min(fake.threads_of(container)))
    assert strange in fake.threads_of(container)
    assert strange in fake.pid_source.thread_ids(cgroup_of(container))
    assert fake.tasks_in(group) == fake.threads_of(container) - {strange}
    assert child in fake.tasks_in(group)


def test_a_container_that_ended_is_missed_where_it_was_seen(fake: FakeWorld) -> None:
    """Its threads are gone, and so is its cgroup, for a witness that saw it."""
    container, source = fake.new_container(2), fake.pid_source
    assert isinstance(source, CgroupWitness)
    assert not source.is_gone(cgroup_of(container))
    fake.end_container(container)
    assert fake.threads_of(container) == set()
    assert source.is_gone(cgroup_of(container))


def test_a_container_that_forks_without_pause(fake: FakeWorld) -> None:
    """Each process is succeeded by another; some are in the group by birth, some were born too early."""
    container = fake.new_forking_container(20, 0.0)
    group = fake.root / "mon_groups/pod_a"
    fake.add_group(group)
    first = fake.pid_source.thread_ids(cgroup_of(container))
    unlisted = fake.threads_of(container) - set(first)
    assert 0 < len(unlisted) < 20, "some forks are under way, and nobody is listed yet"
    fake.put(group, *first)
    second = set(first)
    while not second.isdisjoint(first):
        second = set(fake.pid_source.thread_ids(cgroup_of(container)))
    with fake.frozen(container):
        assert len(second) == 20
        assert second.isdisjoint(first)
        assert 0 < len(second & fake.tasks_in(group)) < 20
        assert second < fake.threads_of(container)


def test_counters_follow_the_work(fake: FakeWorld) -> None:
    """What a container does is counted by the group of its first thread, and by no other."""
    container, other = fake.new_container(2), fake.new_container()
    group = fake.control_group("gold") / "mon_groups/pod_a"
    fake.add_group(group)
    fake.put(group.parent.parent, *fake.threads_of(container))
    fake.put(group, *fake.threads_of(container))
    before, root = fake.traffic(group), fake.traffic(fake.root)
    fake.work(container)
    assert all(value > before[key] for key, value in fake.traffic(group).items())
    assert fake.traffic(fake.root) == root
    fake.work(other)
    assert all(value > root[key] for key, value in fake.traffic(fake.root).items())
    fake.remove_group(group)
    assert fake.groups_in(group.parent) == set()


def test_a_stranger_in_one_of_our_groups_is_seen(fake: FakeWorld) -> None:
    """All that is in a group of ours is told, since nobody else may be; of a group of others only our own."""
    stranger = fake.kernel.spawn()
    for prefix, seen in ((fake.prefix, {stranger}), (fake.others_prefix, set())):
        group = fake.root / "mon_groups" / f"{prefix}a"
        fake.add_group(group)
        fake.put(group, stranger)
        assert fake.tasks_in(group) == seen


def test_counters_can_be_told_to_refuse_and_to_begin_anew(fake: FakeWorld) -> None:
    """The word stands in every counter meanwhile; a domain that went and came has counted nothing."""
    container = fake.new_container()
    fake.work(container)
    file = fake.root / "mon_data/mon_L3_01/mbm_total_bytes"
    with fake.refused_counters("Error"):
        assert fake.fs.read_text(file) == "Error\n"
    before = fake.traffic(fake.root)
    assert fake.part_domains() == {"mon_L3_01"}
    after = fake.traffic(fake.root)
    assert {key for key, value in after.items() if value == before[key] > 0} == {
        *("mon_L3_00/mbm_local_bytes", "mon_L3_00/mbm_total_bytes")
    }
    assert {value for key, value in after.items() if key.startswith("mon_L3_01/")} == {0}


def test_hardware_that_cannot_refuse(tmp_path: Path) -> None:
    """There the word is put in where counters are read, at once or again and again, and nowhere else."""
    (tmp_path / "mon_data").mkdir()
    counter, other = tmp_path / "mon_data/x", tmp_path / "y"
    for file in (counter, other):
        file.write_text("7\n")
    counting = HardwareCounting()
    with counting.fs.open_reader(counter) as reader, counting.fs.open_reader(other) as untouched:
        with counting.refused("Unavailable"):
            told = {counting.fs.read_text(counter), reader.read(), reader.read_page()}
            assert told == {"Unavailable\n"}
            assert {counting.fs.read_text(other), untouched.read(), untouched.read_page()} == {"7\n"}
        assert {counting.fs.read_text(counter), reader.read(), reader.read_page()} == {"7\n"}
    with pytest.raises(WorldMissing, match="its processors are others'"):
        counting.part_domains()


def test_other_machines() -> None:
    """A machine can be one that lacks resctrl, or monitoring, and gives back what there is to give."""
    without_resctrl = FakeWorld(Machine.WITHOUT_RESCTRL)
    assert not without_resctrl.fs.exists(without_resctrl.root)
    without_resctrl.close()
    without_monitoring = FakeWorld(Machine.WITHOUT_MONITORING)
    assert without_monitoring.fs.exists(without_monitoring.root / "info")
    assert not without_monitoring.fs.exists(without_monitoring.root / "info/L3_MON")
    without_monitoring.close()


@pytest.mark.parametrize("name", ["kernel", "hardware"])
def test_a_world_that_is_missing_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no such machine the reason is told, and nothing is begun."""
    monkeypatch.setattr(mounts, "is_mounted_at", lambda _: False)
    monkeypatch.setattr(real, "_MODEL", Path("/nonexistent"))
    with pytest.raises(WorldMissing, match=r"not the guest|not mounted|only root"):
        WORLDS[name]()


def test_waiting_ends() -> None:
    """What never comes is a failure that names it; what comes is returned."""
    answers = iter([None, None, 7])

    async def soon() -> int | None:
        return next(answers)

    async def never() -> int | None:
        return None

    assert asyncio.run(eventually(soon, "seven")) == 7
    with pytest.raises(AssertionError, match=r"waited 0\.05 s in vain for godot"):
        asyncio.run(eventually(never, "godot", deadline=0.05))


# The real threads of the real worlds, which any Linux can have


@pytest.fixture
def tasks() -> Iterator[Tasks]:
    """Return a first process."""
    tasks = Tasks()
    yield tasks
    tasks.close()


def is_gone(tid: Tid) -> bool:
    """Tell whether a process lives no more; who is to wait for it may leave it a zombie for a while."""
    try:
        return "State:\tZ" in Path(f"/proc/{tid}/status").read_text()
    except FileNotFoundError:
        return True


def process_of(tid: Tid) -> int:
    """Return to which process a thread belongs."""
    return int(Path(f"/proc/{tid}/status").read_text().partition("Tgid:")[2].split()[0])


def test_threads_and_forks_come_from_their_parents(tasks: Tasks) -> None:
    """Threads are in their process, forks are children of it, whoever starts them; each takes orders."""
    first = tasks.process()
    one, two = tasks.threads(first, 2)
    (deeper,) = tasks.threads(one, 1)
    fork = tasks.fork(deeper)
    (inner,) = tasks.threads(fork, 1)
    assert {int(path.name) for path in Path(f"/proc/{first}/task").iterdir()} == {first, one, two, deeper}
    assert [process_of(tid) for tid in (deeper, fork, inner)] == [first, fork, fork]
    assert f"PPid:\t{first}\n" in Path(f"/proc/{fork}/status").read_text()


def test_a_task_that_ended_is_gone(tasks: Tasks) -> None:
    """Threads and processes leave nothing behind, no zombie either, and the others live on."""
    first = tasks.process()
    one, two = tasks.threads(first, 2)
    fork = tasks.fork(first)
    for tid in (one, fork):
        tasks.end(tid)
        assert not Path(f"/proc/{tid}").exists()
    assert Path(f"/proc/{two}").exists()
    assert tasks.threads(two, 1)


def test_lineages_and_work(tasks: Tasks) -> None:
    """A lineage is another process again and again; who works says when it has, and takes orders after it."""
    first = tasks.process()

    def below(tid: Tid) -> set[str]:
        return set(Path(f"/proc/{tid}/task/{tid}/children").read_text().split())

    tasks.breed(first, 2, 30.0)
    assert len(below(first)) == 2
    other = tasks.process()
    tasks.breed(other, 1, 0.001)
    wait_until(lambda: below(other) == set(), "the first generation to end")
    tasks.work(first)
    assert tasks.threads(first, 1)


def test_no_task_outlives_its_session() -> None:
    """The first process takes its descendants along."""
    tasks = Tasks()
    first = tasks.process()
    fork = tasks.fork(tasks.threads(first, 1)[0])
    tasks.close()
    for tid in (first, fork):
        wait_until(partial(is_gone, tid), f"the end of {tid}")


def unasked(count: int) -> int:
    """Fail: nobody was to try how many groups can be made."""
    pytest.fail(f"{count} groups were tried")


def test_resting_rmids_are_waited_for() -> None:
    """A scenario begins when, of what others freed, so much can have come back that it finds room."""
    begin = time.monotonic()
    resting = Resting(0.3)
    resting.wait(0, unasked)
    resting.freed(80)
    resting.wait(96, unasked)
    assert time.monotonic() - begin < 0.3
    resting.wait(95, lambda _: 0)
    assert time.monotonic() - begin >= 0.3


def test_rmids_that_are_back_are_not_waited_for() -> None:
    """Where a few groups can be made at once, and could not before, the rest came back as well."""
    resting = Resting(60.0)
    resting.freed(50)  # of 63: the first that are made never rested
    answers = iter([8, 5, 0, 8])
    resting.wait(63, lambda _: next(answers))
    assert next(answers, None) is None
    resting.wait(63, unasked)  # all but the few that were tried are back
    few = Resting(0.05)
    few.freed(30)
    few.wait(30, unasked)  # too few RMIDs for that: the longest limbo is waited for
