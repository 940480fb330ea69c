"""S11: what becomes of groups at a restart, how many there may be, and which pods get one."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from nri_resctrl_plugin import BudgetExceededError, ResctrlPluginConfig, RetryReport, RetrySubject
from nri_resctrl_plugin.model import ContainerState
from nri_resctrl_plugin.nri.messages import ContainerStatus
from resctrl import CapacityError, Resctrl, ResctrlConfig
from tests.scenarios.scene import Scene
from tests.worlds import Capability

if TYPE_CHECKING:
    from tests.scenarios.scene import Pod
    from tests.worlds import ContainerHandle, World

ADOPT = ResctrlPluginConfig(startup_policy="adopt")


async def left_behind(world: World, *uids: str) -> dict[str, ContainerHandle]:
    """Let a plugin run with pods of one busy container each, and end; the groups stay."""
    handles = {uid: world.new_container(2) for uid in uids}
    async with Scene(world) as scene:
        pods = {uid: scene.pod(uid) for uid in uids}
        await scene.synchronize(
            pods.values(), [scene.container(pods[uid], handle) for uid, handle in handles.items()]
        )
        assert scene.groups() == {pod.path.name for pod in pods.values()}
    for handle in handles.values():
        world.work(handle)
    return handles


def resting(pod: Pod) -> Pod:
    """Return the same pod as a runtime lists it that keeps no pause process, while nothing runs in it."""
    return evolve(pod, sandbox=evolve(pod.sandbox, pid=0, cgroups_path=""))


def never_less(before: dict[str, int], after: dict[str, int]) -> bool:
    """Tell whether no counter went backwards, and none is missing."""
    return all(after[key] >= value for key, value in before.items())


# A restart


async def test_adoption_keeps_the_counters_of_living_pods(world: World) -> None:
    """Over a restart they never go backwards: the groups stay, threads and RMIDs too, and are told."""
    handles = await left_behind(world, "one", "two")
    async with Scene(world, ADOPT) as scene:
        pods = [scene.pod(uid) for uid in handles]
        before = [world.traffic(pod.path) for pod in pods]
        assert min(min(each.values()) for each in before) > 0
        listed = [scene.container(pod, handles[pod.uid]) for pod in pods]
        await scene.plugin.synchronize([pod.sandbox for pod in pods], listed)
        for pod in pods:
            world.work(handles[pod.uid])
        await scene.settled()
        after = [world.traffic(pod.path) for pod in pods]
        assert all(map(never_less, before, after))
        assert (scene.mkdirs(), scene.fs.count("remove_dir")) == (0, 0)
        for pod in pods:
            assert scene.told_of(pod) == [pod.there(1, 0), pod.there(1, 1)]
            assert scene.tasks(pod) == world.threads_of(handles[pod.uid])
        (record,) = scene.records("startup_cleanup")
        assert (record["kept"], record["removed"]) == (2, 0)


async def test_adoption_over_several_restarts(world: World) -> None:
    """Each new plugin finds what the one before left; counters rise from first to last."""
    handles = await left_behind(world, "one")
    counts: list[dict[str, int]] = []
    for _ in range(3):
        async with Scene(world, ADOPT) as scene:
            pod = scene.pod("one")
            counts.append(world.traffic(pod.path))
            await scene.synchronize([pod], [scene.container(pod, handles["one"])])
            assert not (await scene.plugin.audit_once()).found_something
            world.work(handles["one"])
            counts.append(world.traffic(pod.path))
    assert all(map(never_less, counts, counts[1:]))
    assert counts[-1] != counts[0]


async def test_a_clean_start_begins_anew(world: World) -> None:
    """The default removes what is left and makes it again: counters begin at nothing, threads are moved."""
    handles = await left_behind(world, "one")
    async with Scene(world) as scene:
        pod = scene.pod("one")
        before = world.traffic(pod.path)
        await scene.synchronize([pod], [scene.container(pod, handles["one"])])
        assert not never_less(before, world.traffic(pod.path))
        assert scene.fs.count("remove_dir", pod.path) == scene.mkdirs() == 1
        assert scene.told == [pod.there(1, 0), pod.there(1, 1)]
        assert scene.tasks(pod) == world.threads_of(handles["one"])
        (record,) = scene.records("startup_cleanup")
        assert (record["kept"], record["removed"]) == (0, 1)


async def test_adoption_removes_the_groups_of_pods_that_are_gone(world: World) -> None:
    """What no listed pod has is swept as ever; groups of others stay."""
    handles = await left_behind(world, "stays", "gone")
    stranger = world.root / "mon_groups" / f"{world.others_prefix}theirs"
    world.add_group(stranger)
    async with Scene(world, ADOPT) as scene:
        stays, new = scene.pod("stays"), scene.pod("new")
        await scene.synchronize([stays, new], [scene.container(stays, handles["stays"])])
        assert scene.groups() == {stays.path.name, new.path.name}
        assert stranger.name in world.groups_in(scene.mon_groups)
        assert scene.told_of(new) == [new.there(0, 0)]
        assert scene.mkdirs() == 1
        (record,) = scene.records("startup_cleanup")
        assert (record["kept"], record["removed"], record["non_prefix_groups"]) == (1, 1, 1)


async def test_adoption_takes_up_what_happened_meanwhile(world: World) -> None:
    """Processes that were execed, and containers that started, while no plugin ran are assigned."""
    handles = await left_behind(world, "one")
    strange, started = world.exec_in(handles["one"]), world.new_container(2)
    async with Scene(world, ADOPT) as scene:
        pod = scene.pod("one")
        await scene.synchronize([pod], [scene.container(pod, handle) for handle in (handles["one"], started)])
        assert scene.told == [pod.there(2, 0), pod.there(2, 1), pod.there(2, 2)]
        assert strange in scene.tasks(pod)
        assert scene.tasks(pod) == world.threads_of(handles["one"]) | world.threads_of(started)


@pytest.mark.needs(Capability.CONTROL_GROUPS)
async def test_adoption_of_groups_below_control_groups(world: World) -> None:
    """They keep place, threads and counters; the one below the default group is the main one."""
    gold, plain, classed = world.control_group("gold"), world.new_container(2), world.new_container(2)
    lonely = world.new_container(2)
    world.put(gold, *world.threads_of(classed), *world.threads_of(lonely))

    def both(scene: Scene) -> tuple[Pod, Pod]:
        return scene.pod("both").and_below(gold), scene.pod("below").below(gold)

    async def synchronize(scene: Scene) -> None:
        pods = both(scene)
        told = [(pods[0], plain), (pods[0], classed), (pods[1], lonely)]
        await scene.synchronize(pods, [scene.container(pod, handle) for pod, handle in told])

    async with Scene(world) as scene:
        await synchronize(scene)
    for handle in (plain, classed, lonely):
        world.work(handle)
    async with Scene(world, ADOPT) as scene:
        two, one = both(scene)
        groups = (two.path, *two.others, one.path)
        before = [world.traffic(group) for group in groups]
        await synchronize(scene)
        assert scene.told_of(two) == [two.there(2, 0), two.there(2, 1), two.there(2, 2)]
        assert scene.told_of(one) == [one.there(1, 0), one.there(1, 1)]
        assert all(map(never_less, before, map(world.traffic, groups)))
        assert (scene.mkdirs(), scene.fs.count("rename"), scene.fs.count("remove_dir")) == (0, 0, 0)
        assert world.tasks_in(two.others[0]) == world.threads_of(classed)
        assert scene.tasks(one) == world.threads_of(lonely)


async def test_adoption_where_nothing_was_left(world: World) -> None:
    """It is a start like any other."""
    async with Scene(world, ADOPT) as scene:
        pod, handle = scene.pod("one"), world.new_container(2)
        await scene.synchronize([pod], [scene.container(pod, handle)])
        assert scene.told == [pod.there(1, 0), pod.there(1, 1)]
        assert scene.tasks(pod) == world.threads_of(handle)


async def test_a_group_that_goes_while_it_is_adopted(world: World) -> None:
    """What is not there any more when its turn comes is made instead."""
    handles = await left_behind(world, "one")
    async with Scene(world, ADOPT) as scene:
        pod = scene.pod("one")
        scene.faults.before("exists", lambda _: world.remove_group(pod.path), path=pod.path)
        await scene.synchronize([pod], [scene.container(pod, handles["one"])])
        assert scene.told == [pod.there(1, 0), pod.there(1, 1)]
        assert scene.tasks(pod) == world.threads_of(handles["one"])


async def test_adoption_keeps_the_groups_of_a_pod_between_two_crashes(world: World) -> None:
    """It is listed like a stopped one, with nothing that runs: no pod yet; a START finds its counters."""
    handles = await left_behind(world, "one")
    async with Scene(world, ADOPT) as scene:
        pod = resting(scene.pod("one"))
        before = world.traffic(pod.path)
        created = scene.container(pod, handles["one"], ContainerStatus.CREATED)
        await scene.synchronize([pod], [created])
        for _ in range(2):
            assert await scene.plugin.retry_all_once() == RetryReport()
        assert scene.told == []
        assert scene.groups() == {pod.path.name}
        await scene.start(pod, handles["one"])
        assert scene.told in ([pod.there(1, 1)], [pod.there(1, 0), pod.there(1, 1)])
        assert never_less(before, world.traffic(pod.path))
        assert scene.mkdirs() == scene.fs.count("remove_dir") == 0


@pytest.mark.parametrize("end", ["stop_pod_sandbox", "remove_pod_sandbox", "listing"])
async def test_groups_of_a_pod_that_ends_between_two_crashes(world: World, end: str) -> None:
    """Nothing runs in it any more: they are stale then, and the next retry removes them."""
    await left_behind(world, "one", "two")
    async with Scene(world, ADOPT) as scene:
        one, two = resting(scene.pod("one")), resting(scene.pod("two"))
        await scene.synchronize([one, two])
        if end == "listing":
            await scene.synchronize([two])
        else:
            await getattr(scene.plugin, end)(one.sandbox)
        assert await scene.plugin.retry_all_once() == RetryReport(orphans_deleted=1)
        assert scene.groups() == {two.path.name}
        assert scene.told == []


async def test_a_clean_start_keeps_nothing_of_a_pod_between_two_crashes(world: World) -> None:
    """All groups with our prefix go, and a START makes the pod's anew; what was owed is no other."""
    handles = await left_behind(world, "one")
    async with Scene(world) as scene:
        pod = resting(scene.pod("one"))
        scene.faults.fail("remove_dir", errno.EBUSY)
        await scene.synchronize([pod])
        assert await scene.plugin.retry_all_once() == RetryReport(orphans_deleted=1)
        assert scene.groups() == set()
        await scene.start(pod, handles["one"])
        assert scene.told[-1] == pod.there(1, 1)


# What a restart could not do


@pytest.mark.needs(Capability.CONTROL_GROUPS)
async def test_an_adoption_that_could_not_look_is_made_up_for(world: World) -> None:
    """The pod has another group by then; the one that was left to it is told too, and goes with it."""
    gold, handle = world.control_group("gold"), world.new_container(2)
    world.put(gold, *world.threads_of(handle))
    async with Scene(world) as scene:
        pod = scene.pod("one").below(gold)
        await scene.synchronize([pod], [scene.container(pod, handle)])
        assert scene.groups() == set()
    world.work(handle)
    async with Scene(world, ADOPT) as scene:
        pod = scene.pod("one").and_below(gold)
        before = world.traffic(pod.others[0])
        scene.faults.fail("read_child_dirs", errno.EIO)
        await scene.synchronize([pod])
        assert len(scene.records("startup_cleanup_failed")) == 1
        assert scene.groups() == {pod.path.name}
        assert await scene.plugin.retry_all_once() == RetryReport()
        await scene.plugin.audit_once()
        assert scene.plugin.snapshot() == {pod.uid: pod.there(0, 0)}
        assert never_less(before, world.traffic(pod.others[0]))
        await scene.stop_pod(pod)
        assert scene.groups() | world.groups_in(gold / "mon_groups") == set()


async def test_a_stale_group_that_could_not_be_removed_is_tried_again(world: World) -> None:
    """By each retry, as an orphan, until it is gone; living pods and others have nothing of it."""
    handles = await left_behind(world, "stays", "gone")
    stranger = world.root / "mon_groups" / f"{world.others_prefix}theirs"
    world.add_group(stranger)
    async with Scene(world, ADOPT) as scene:
        stays, gone, new = scene.pod("stays"), scene.pod("gone"), scene.pod("new")
        scene.faults.fail("remove_dir", errno.EBUSY, path=gone.path, times=2)
        await scene.synchronize([stays], [scene.container(stays, handles["stays"])])
        await scene.run(new)
        assert scene.groups() == {stays.path.name, gone.path.name, new.path.name}
        told = len(scene.told)
        report = await scene.plugin.retry_all_once()
        assert (report.orphans_deleted, report.orphans_kept) == (0, 1)
        (failure,) = report.failures
        assert (failure.subject, failure.id) == (RetrySubject.ORPHAN, str(gone.path))
        assert await scene.plugin.retry_all_once() == RetryReport(orphans_deleted=1)
        assert await scene.plugin.retry_all_once() == RetryReport()
        assert scene.groups() == {stays.path.name, new.path.name}
        assert stranger.name in world.groups_in(scene.mon_groups)
        assert scene.tasks(stays) == world.threads_of(handles["stays"])
        assert scene.told_since(told) == []
        assert len(scene.records("startup_cleanup")) == 1


async def test_a_sweep_that_failed_whole_is_made_up_for(world: World) -> None:
    """Under the default policy too: what was made since stays, with its threads, and what is stale goes."""
    handles = await left_behind(world, "stays", "gone")
    async with Scene(world) as scene:
        stays, gone, new = scene.pod("stays"), scene.pod("gone"), scene.pod("new")
        scene.faults.fail("read_child_dirs", errno.EIO, times=2)
        await scene.synchronize([stays], [scene.container(stays, handles["stays"])])
        await scene.run(new)
        told = len(scene.told)
        report = await scene.plugin.retry_all_once()
        assert [failure.subject for failure in report.failures] == [RetrySubject.ORPHAN]
        assert gone.path.name in scene.groups()
        assert await scene.plugin.retry_all_once() == RetryReport(orphans_deleted=1)
        assert scene.groups() == {stays.path.name, new.path.name}
        assert scene.tasks(stays) == world.threads_of(handles["stays"])
        assert scene.told_since(told) == []


async def test_groups_of_a_pod_that_failed_are_adopted_late(world: World) -> None:
    """A pod that could have no group takes up the one that was left to it, by the first retry."""
    handles = await left_behind(world, "one")
    async with Scene(world, ADOPT) as scene:
        pod = scene.pod("one")
        scene.faults.fail("read_child_dirs", errno.EIO)
        scene.faults.fail("create_dir", errno.ENOSPC)
        await scene.synchronize([pod], [scene.container(pod, handles["one"])])
        assert scene.told == [pod.failed(1)]
        before = world.traffic(pod.path)
        report = await scene.plugin.retry_all_once()
        assert report == RetryReport(groups_created=1, containers_reconciled=1)
        assert scene.told == [pod.failed(1), pod.there(1, 0), pod.there(1, 1)]
        assert never_less(before, world.traffic(pod.path))
        assert scene.mkdirs() == 1


@pytest.mark.needs(Capability.CONTROL_GROUPS)
@pytest.mark.parametrize(
    ("times", "counts"), [((2, 2), [(0, 2), (2, 0), (0, 0)]), ((2, 3), [(0, 2), (1, 1), (1, 0), (0, 0)])]
)
async def test_a_report_counts_each_group_of_an_orphan(
    world: World, times: tuple[int, int], counts: list[tuple[int, int]]
) -> None:
    """A pod with two groups is two of them: one may be gone and the other stay."""
    gold, plain, classed = world.control_group("gold"), world.new_container(), world.new_container(2)
    world.put(gold, *world.threads_of(classed))
    async with Scene(world) as scene:
        pod = scene.pod("one").and_below(gold)
        await scene.synchronize([pod], [scene.container(pod, plain), scene.container(pod, classed)])
        assert scene.plugin.snapshot() == {pod.uid: pod.there(2, 2)}
        for group, often in zip((pod.path, *pod.others), times, strict=True):
            scene.faults.fail("remove_dir", errno.EBUSY, path=group, times=often)
        await scene.stop_pod(pod)
        for deleted, kept in counts:
            report = await scene.plugin.retry_all_once()
            assert (report.orphans_deleted, report.orphans_kept) == (deleted, kept)
        assert scene.groups() | world.groups_in(gold / "mon_groups") == set()


# How many groups


async def test_no_more_groups_than_the_budget(world: World) -> None:
    """Who comes too late is Failed, with that reason; no mkdir is tried, and others have room."""
    async with Scene(world, ResctrlPluginConfig(max_groups=2)) as scene:
        first, second, third = (scene.pod(uid) for uid in ("first", "second", "third"))
        for pod in (first, second, third):
            await scene.run(pod)
        assert scene.told == [first.there(0, 0), second.there(0, 0), third.failed(0)]
        assert "max_groups" in str(scene.told[-1])
        assert scene.groups() == {first.path.name, second.path.name}
        assert scene.mkdirs() == 2
        world.add_group(scene.mon_groups / f"{world.others_prefix}theirs")


async def test_a_budget_that_is_used_up_is_no_room(world: World) -> None:
    """A retry raises CapacityError and tells nothing; a pass ends its groups there; a removal makes room."""
    async with Scene(world, ResctrlPluginConfig(max_groups=1)) as scene:
        first, second, third = (scene.pod(uid) for uid in ("first", "second", "third"))
        handle = world.new_container(2)
        for pod in (first, second, third):
            await scene.run(pod)
        await scene.start(second, handle)
        told = len(scene.told)
        with pytest.raises(BudgetExceededError) as caught:
            await scene.plugin.retry_group_creation(second.uid)
        assert isinstance(caught.value, CapacityError)
        report = await scene.plugin.retry_all_once()
        assert report.capacity_exhausted
        assert (report.groups_failed, report.groups_untried) == (1, 1)
        assert [failure.subject for failure in report.failures] == [RetrySubject.GROUP]
        assert scene.told_since(told) == []
        await scene.stop_pod(first)
        report = await scene.plugin.retry_all_once()
        assert (report.groups_created, report.groups_failed, report.containers_reconciled) == (1, 1, 1)
        assert scene.told_since(told) == [first.removed, second.there(1, 0), second.there(1, 1)]
        assert scene.groups() == {second.path.name}
        assert scene.tasks(second) == world.threads_of(handle)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV, errno.EIO])
async def test_groups_that_cannot_be_counted_are_no_room(world: World, number: int) -> None:
    """Whatever keeps from counting them: the pod is Failed, no mkdir is tried, and a retry counts again."""
    async with Scene(world, ResctrlPluginConfig(max_groups=2)) as scene:
        first, second, third = (scene.pod(uid) for uid in ("first", "second", "third"))
        await scene.run(first)
        for pod in (second, third):
            scene.faults.fail("read_child_dirs", number, path=scene.mon_groups)
            await scene.run(pod)
        assert scene.told == [first.there(0, 0), second.failed(0), third.failed(0)]
        assert scene.mkdirs() == 1
        report = await scene.plugin.retry_all_once()
        assert (report.groups_created, report.groups_failed) == (1, 1)
        assert scene.groups() == {first.path.name, second.path.name}


@pytest.mark.needs(Capability.CONTROL_GROUPS)
async def test_groups_below_control_groups_are_in_the_budget(world: World) -> None:
    """A second group of a pod counts as one more; where it is refused the container stays PARTIAL."""
    async with Scene(world, ResctrlPluginConfig(max_groups=1)) as scene:
        gold, plain, classed = world.control_group("gold"), world.new_container(), world.new_container(2)
        world.put(gold, *world.threads_of(classed))
        pod = scene.pod("one")
        await scene.synchronize([pod], [scene.container(pod, plain), scene.container(pod, classed)])
        assert scene.told == [pod.there(2, 0), pod.there(2, 1)]
        assert scene.plugin.container_state(classed.name) is ContainerState.PARTIAL
        assert world.groups_in(gold / "mon_groups") == set()
        (record,) = scene.records("reconcile_failed")
        assert "max_groups" in record["error"]
        world.end_container(plain)
        await scene.stop(pod, scene.container(pod, plain))
        assert await scene.plugin.retry_all_once() == RetryReport(containers_reconciled=1)
        assert scene.told[-1] == pod.below(gold).there(1, 1)


async def test_what_an_orphan_holds_is_in_the_budget(world: World) -> None:
    """A group that could not be deleted is still there: it counts until it is gone."""
    async with Scene(world, ResctrlPluginConfig(max_groups=1)) as scene:
        gone, waits = scene.pod("gone"), scene.pod("waits")
        await scene.run(gone)
        scene.faults.fail("remove_dir", errno.EIO, path=gone.path)
        await scene.stop_pod(gone)
        await scene.run(waits)
        assert scene.told == [gone.there(0, 0), gone.removed, waits.failed(0)]
        assert await scene.plugin.retry_all_once() == RetryReport(orphans_deleted=1, groups_created=1)
        assert scene.groups() == {waits.path.name}


async def test_adopted_groups_are_in_the_budget(world: World) -> None:
    """They stay, also where they are more than may be; nobody else gets one then."""
    await left_behind(world, "one", "two")
    async with Scene(world, ResctrlPluginConfig(startup_policy="adopt", max_groups=1)) as scene:
        one, two, new = (scene.pod(uid) for uid in ("one", "two", "new"))
        await scene.synchronize([one, two, new])
        assert scene.plugin.snapshot() == {
            one.uid: one.there(0, 0),
            two.uid: two.there(0, 0),
            new.uid: new.failed(0),
        }
        assert scene.groups() == {one.path.name, two.path.name}


async def test_capacity(world: World) -> None:
    """What is in use is the default group, every control group and every monitoring group, ours apart."""
    resctrl = Resctrl.with_provider(world.fs, ResctrlConfig(root=world.root, group_prefix=world.prefix))
    before = resctrl.capacity()
    async with Scene(world) as scene:
        await scene.synchronize([scene.pod("one"), scene.pod("two")])
        world.add_group(scene.mon_groups / f"{world.others_prefix}theirs")
        after = resctrl.capacity()
        assert after.num_rmids == before.num_rmids
        assert (after.in_use - before.in_use, after.ours - before.ours) == (3, 2)
        assert before.free - after.free == 3


# Which pods


async def test_only_pods_of_the_chosen_namespaces(world: World) -> None:
    """Others are not seen: no group, no event, no counter, whatever their containers do."""
    async with Scene(world, ResctrlPluginConfig(namespaces=("shop",))) as scene:
        chosen, other = scene.pod("chosen", namespace="shop"), scene.pod("other", namespace="bank")
        ours, theirs, late = (world.new_container(2) for _ in range(3))
        await scene.synchronize(
            [chosen, other], [scene.container(chosen, ours), scene.container(other, theirs)]
        )
        await scene.start(other, late)
        assert scene.told == [chosen.there(1, 0), chosen.there(1, 1)]
        assert scene.groups() == {chosen.path.name}
        assert scene.plugin.container_state(theirs.name) is None
        assert world.threads_of(theirs) | world.threads_of(late) <= world.tasks_in(world.root)
        assert (await scene.plugin.audit_once()).containers == 1
        told = len(scene.told)
        await scene.stop_pod(other)
        await scene.remove_pod(other)
        assert scene.told_since(told) == []


async def test_only_pods_with_all_the_chosen_labels(world: World) -> None:
    """A label with another value, or one of two, is not enough."""
    config = ResctrlPluginConfig(pod_labels={"tier": "gold", "watch": "yes"})
    async with Scene(world, config) as scene:
        both = scene.pod("both", labels={"tier": "gold", "watch": "yes", "more": "x"})
        one = scene.pod("one", labels={"tier": "gold"})
        wrong = scene.pod("wrong", labels={"tier": "gold", "watch": "no"})
        for pod in (one, both, wrong):
            await scene.run(pod)
        assert scene.told == [both.there(0, 0)]
        assert scene.groups() == {both.path.name}


async def test_labels_that_change_while_the_pod_lives(world: World) -> None:
    """What was chosen when it appeared stays so until it is removed, and the reverse: none is left behind."""
    async with Scene(world, ResctrlPluginConfig(pod_labels={"watch": "yes"})) as scene:
        chosen, other = scene.pod("chosen", labels={"watch": "yes"}), scene.pod("other")
        await scene.run(chosen)
        await scene.run(other)
        without, with_label = scene.pod("chosen"), scene.pod("other", labels={"watch": "yes"})
        await scene.start(without, world.new_container(2))
        await scene.start(with_label, world.new_container(2))
        await scene.synchronize([without, with_label])
        assert scene.told == [chosen.there(0, 0), chosen.there(1, 1), chosen.there(0, 0)]
        await scene.stop_pod(without)
        await scene.remove_pod(without)
        await scene.stop_pod(with_label)
        assert scene.told[-1] == chosen.removed
        assert scene.groups() == set()
        assert scene.plugin.snapshot() == {}


async def test_a_pod_that_is_not_chosen_is_not_adopted(world: World) -> None:
    """Its group is stale for this plugin, and is swept like any other."""
    await left_behind(world, "one")
    config = ResctrlPluginConfig(startup_policy="adopt", namespaces=("shop",))
    async with Scene(world, config) as scene:
        await scene.synchronize([scene.pod("one")])
        assert scene.told == []
        assert scene.groups() == set()
