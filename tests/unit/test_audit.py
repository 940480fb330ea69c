"""The shell of an audit: what it costs, whom it waits for, what can end it, and what its report counts."""

from __future__ import annotations

import asyncio
import errno
import math
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from attrs import evolve
from structlog.testing import capture_logs

from nri_resctrl_plugin import (
    AuditReport,
    CgroupError,
    ContainerState,
    Exists,
    Failed,
    PluginClosedError,
    PodResctrlAddOrUpdate,
    PodResctrlRemoved,
    PodUid,
    RetrySubject,
    pods_questions,
)
from nri_resctrl_plugin.model import ContainerCgroup
from resctrl import CapacityError, GroupNotFoundError, ResctrlIOError
from tests.plugin_support import Bench, ManualExecutor, bench, cgroup_of, container, pod, run
from tests.real_cgroups import index_of, own_cgroup, traced

if TYPE_CHECKING:
    from pathlib import Path

    from nri_resctrl_plugin import PodResctrlEvent
    from nri_resctrl_plugin.pods import LiveSandbox
    from nri_resctrl_plugin.pods_records import SandboxRecord
    from resctrl import Tid


def sandbox_cgroup(uid: str) -> str:
    """Return the cgroup path of a pod's sandbox."""
    return pod(uid, f"s-{uid}").cgroups_path


async def node(it: Bench, pods: int = 2, containers: int = 3) -> dict[str, list[Tid]]:
    """Bring up pods with containers of two threads each; return the threads by container."""
    threads: dict[str, list[Tid]] = {}
    it.plugin._audits.moment = 0.0
    for number in range(pods):
        for index in range(containers):
            name = f"c{number}{index}"
            threads[name] = await it.start(name, f"s-p{number}", f"p{number}", threads=2)
    await it.plugin.settled()
    it.record.events.clear()
    it.fs.forget()
    it.pids.calls.clear()
    it.pids.looks.clear()
    return threads


def stray(it: Bench, name: str, threads: dict[str, list[Tid]]) -> Tid:
    """Let a process enter a container from outside."""
    tid = it.kernel.spawn()
    threads[name].append(tid)
    it.pids.set(cgroup_of(name), threads[name])
    return tid


# --- what it costs ---


@pytest.mark.parametrize("containers", [1, 2, 3, 5])
def test_an_audit_of_what_is_in_order_reads_each_thing_once(containers: int) -> None:
    """Per pod one look and one read of its group, per container one listing; nothing else at all."""

    async def main() -> None:
        it = bench()
        await node(it, containers=containers)
        in_order = AuditReport(pods=2, containers=2 * containers)
        listed = {cgroup_of(f"c{a}{b}"): 1 for a in range(2) for b in range(containers)}
        assert await it.plugin.audit_once() == in_order
        # Only what was seen can be missed later, so the first audit looks at each cgroup.
        assert it.pids.looks == listed | {sandbox_cgroup(f"p{a}"): 1 for a in range(2)}
        it.fs.forget()
        it.pids.calls.clear()
        it.pids.looks.clear()
        report = await it.plugin.audit_once()
        assert report == in_order
        assert not report.found_something
        assert [(call.operation, call.path) for call in it.fs.calls] == [
            ("read_text", it.path(f"p{a}") / "tasks") for a in range(2)
        ]
        assert it.pids.calls == listed
        assert it.pids.looks == {sandbox_cgroup(f"p{a}"): 1 for a in range(2)}
        assert it.record.events == []
        await it.plugin.close()

    run(main())


def test_a_census_asks_for_each_pod_a_fixed_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the event loop its work grows with the pods, not with their square."""
    asked: list[SandboxRecord] = []
    answer = pods_questions._live

    def counted(sandbox: SandboxRecord) -> LiveSandbox:
        asked.append(sandbox)
        return answer(sandbox)

    async def main(pods: int) -> float:
        it = bench()
        await node(it, pods=pods, containers=1)
        asked.clear()
        await it.plugin.audit_once()
        await it.plugin.close()
        return len(asked) / pods

    monkeypatch.setattr(pods_questions, "_live", counted)
    assert [run(main(pods)) for pods in (1, 3, 6)] == [4, 4, 4]


def test_a_container_that_came_later_is_looked_at_once_too() -> None:
    """What the audit has met is forgotten with its pod, and a new container is looked at when it is met."""

    async def main() -> None:
        it = bench()
        await node(it, pods=1, containers=1)
        await it.plugin.audit_once()
        await it.start("late", "s-p0", threads=1)
        for _ in range(3):
            await it.plugin.audit_once()
        assert it.pids.looks[cgroup_of("late")] == 1
        assert len(it.plugin._audits._met) == 2
        await it.plugin.stop_pod_sandbox(pod("p0", "s-p0"))
        await it.plugin.audit_once()
        assert it.plugin._audits._met == frozenset()
        await it.plugin.close()

    run(main())


NO_FILE = {"epoll_wait", "getpid", "brk", "mmap", "munmap", "mremap"}
"""System calls of the event loop and of the allocator."""


@pytest.mark.parametrize("containers", [1, 2, 3, 5])
def test_an_audit_costs_two_system_calls_per_container_three_per_group_and_one_per_pod(
    containers: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """By the kernel's own account, on real cgroups: at most six per container, also where a pod has one."""
    directories = [own_cgroup(request, f"{number:064x}") for number in range(1 + containers)]
    told = [f"/{'/'.join(directory.parts[-2:])}" for directory in directories]
    group = tmp_path / "mon_groups" / "pod_u"
    group.mkdir(parents=True)
    (group / "tasks").touch()
    code = f"""
import asyncio, os, subprocess
from pathlib import Path
from attrs import evolve
from nri_resctrl_plugin import AuditReport, Exists, ResctrlPlugin, ResctrlPluginConfig
from nri_resctrl_plugin.cgroups import CgroupPidSource
from nri_resctrl_plugin.worker import attempt
from resctrl import Resctrl, ResctrlConfig
from tests.plugin_support import container, pod

class OnTheLoop:
    def submit(self, key, work, done, *, urgent):
        asyncio.get_running_loop().call_soon(done, attempt(work))
    async def close(self, timeout):
        return True

async def main():
    own, *paths = {told!r}
    resctrl = Resctrl(ResctrlConfig(root=Path({str(tmp_path)!r})))
    config = ResctrlPluginConfig(cleanup_on_start=False)
    plugin = ResctrlPlugin.with_pid_source(config, resctrl, CgroupPidSource(), executor=OnTheLoop())
    await plugin.synchronize(
        [evolve(pod("u", "s"), cgroups_path=own, pid=0)],
        [evolve(container(f"c{{n}}", "s"), cgroups_path=path, pid=0) for n, path in enumerate(paths)],
    )
    await plugin.settled()
    Path({str(group)!r}, "tasks").write_text("".join(f"{{each.pid}}\\n" for each in sleepers))
    for _ in range(3):
        await plugin.audit_once()
    os.path.lexists("/begin")
    report = await plugin.audit_once()
    os.path.lexists("/end")
    assert report == AuditReport(pods=1, containers={containers}), report
    assert plugin.snapshot()["u"].reconciled_containers == {containers}

sleepers = [subprocess.Popen(["sleep", "60"]) for _ in range({containers})]
try:
    for directory, each in zip({[str(each) for each in directories[1:]]!r}, sleepers):
        Path(directory, "cgroup.procs").write_text(str(each.pid))
    asyncio.run(main())
finally:
    for each in sleepers:
        each.kill()
        each.wait()
"""
    lines = traced(code)
    calls = [line.split("(")[0] for line in lines[index_of(lines, "/begin") + 1 : index_of(lines, "/end")]]
    files = Counter(call for call in calls if call not in NO_FILE)
    opened = 0 if (directories[0] / "cgroup.threads").exists() else containers  # v1: each time anew
    assert files == {
        "newfstatat": 1 + containers,
        "openat": 1 + opened,
        "close": 1 + opened,
        "pread64": 1 + containers,
    }
    assert opened or files.total() <= 6 * containers


# --- how often it looks ---


def test_a_child_that_comes_after_a_look_that_found_all_well_is_found() -> None:
    """Its parent was moved while it forked, and the fork took longer than the moment that was waited."""

    async def main() -> None:
        it = bench()
        threads = await node(it, pods=1, containers=1)
        tids, tasks = [stray(it, "c00", threads)], it.path("p0") / "tasks"
        it.fs.forget()
        # Read at a look, at the attempt that mends, at the next look: listed before that, it seems complete.
        it.faults.before("read_text", lambda _: tids.append(stray(it, "c00", threads)), path=tasks, nth=3)
        report = await it.plugin.audit_once()
        assert it.kernel.tasks_in(it.path("p0")) >= set(tids)
        assert (len(tids), report.threads_astray, report.containers_astray) == (2, 2, 1)
        # After each of the two that were found: an attempt; in between one good look, in the end two.
        assert it.fs.count("read_text", tasks) == 2 + 1 + 2 + 2
        await it.plugin.close()

    run(main())


def test_the_last_look_comes_after_a_longer_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that forks may have to wait for the processor; where all is well nobody waits.

    What an audit meets for the first time may have been placed just now: it is looked at once more.
    """
    waited: list[float] = []
    sleep = asyncio.sleep

    async def recorded(seconds: float) -> None:
        waited.append(seconds)
        await sleep(0)

    async def main() -> None:
        it = bench()
        threads = await node(it, pods=1, containers=1)
        it.plugin._audits.moment = 1.0
        monkeypatch.setattr(asyncio, "sleep", recorded)
        await it.plugin.audit_once()
        assert waited == [5.0]
        await it.plugin.audit_once()
        assert waited == [5.0]
        stray(it, "c00", threads)
        await it.plugin.audit_once()
        assert waited == [5.0, 1.0, 5.0]
        await it.start("late", "s-p0")
        await it.plugin.audit_once()
        monkeypatch.undo()
        assert waited == [5.0, 1.0, 5.0, 5.0]
        await it.plugin.close()

    run(main())


def test_a_container_that_was_put_in_since_is_new_to_an_audit() -> None:
    """One that an audit left outside is looked at twice after a retry put it in; what ended is forgotten."""

    async def main() -> None:
        it = bench()
        threads = await node(it, pods=1, containers=1)
        await it.plugin.audit_once()
        stray(it, "c00", threads)
        it.faults.fail("write_all", errno.EIO)
        await it.plugin.audit_once()
        assert await it.plugin.retry_container_reconcile("c00") is ContainerState.RECONCILED
        for looks in (2, 1):
            it.fs.forget()
            await it.plugin.audit_once()
            assert it.fs.count("read_text", it.path("p0") / "tasks") == looks
        await it.plugin.stop_pod_sandbox(pod("p0", "s-p0"))
        await it.plugin.audit_once()
        assert it.plugin._audits._settled == set()
        await it.plugin.close()

    run(main())


def test_a_look_that_could_not_tell_is_repeated() -> None:
    """Threads that die faster than they are looked up hide one that is outside, but not for ever."""

    async def main() -> None:
        it = bench()
        threads = await node(it, pods=1, containers=1)
        strange, listings = it.kernel.spawn(), 0

        def listing() -> list[Tid]:
            nonlocal listings
            listings += 1
            if listings > 7:  # the first look's: one, one more, and those of five generations
                return [*threads["c00"], strange]
            brief = it.kernel.spawn()
            it.kernel.end(brief)
            return [*threads["c00"], brief]

        it.pids.follow(cgroup_of("c00"), listing)
        report = await it.plugin.audit_once()
        assert strange in it.kernel.tasks_in(it.path("p0"))
        assert (report.threads_astray, report.containers_reconciled) == (1, 1)
        await it.plugin.close()

    run(main())


def test_a_container_that_can_never_be_told_does_not_keep_an_audit() -> None:
    """It ends after ten looks, having said nothing of it."""

    async def main() -> None:
        it = bench()
        threads = await node(it, pods=1, containers=1)

        def listing() -> list[Tid]:
            brief = it.kernel.spawn()
            it.kernel.end(brief)
            return [*threads["c00"], brief]

        it.pids.follow(cgroup_of("c00"), listing)
        it.fs.forget()
        assert await it.plugin.audit_once() == AuditReport(pods=1, containers=1)
        assert it.fs.count("read_text", it.path("p0") / "tasks") == 10
        await it.plugin.close()

    run(main())


# --- whom it waits for ---


def test_a_busy_pod_is_waited_for() -> None:
    """Its other container is astray: an audit that passed the pod over would have missed it."""

    async def main() -> None:
        it = bench()
        threads = await node(it, pods=1, containers=1)
        gate = it.gate("write_all")
        start = asyncio.create_task(it.start("slow", "s-p0", threads=1))
        await gate.reached()
        tid = stray(it, "c00", threads)
        audit = asyncio.create_task(it.plugin.audit_once())
        await asyncio.sleep(0)
        gate.open()
        report = await audit
        await start
        assert (report.pods, report.containers, report.containers_astray) == (1, 2, 1)
        assert tid in it.kernel.tasks_in(it.path("p0"))
        await it.plugin.close()

    run(main())


async def held(it: Bench, hand: ManualExecutor) -> asyncio.Task[AuditReport]:
    """Begin an audit of a pod whose reconcile is in flight, and let it come past its census."""
    it.plugin._audits.moment = 0.0
    it.threads("c")
    await it.plugin.synchronize([pod("a", "s-a")], [container("c", "s-a")])
    while not isinstance(it.plugin._driver.table.group_state(PodUid("a")), Exists):
        assert hand.step()
    audit = asyncio.create_task(it.plugin.audit_once())
    await _turns()
    reconcile, census = hand.waiting
    hand.waiting.reverse()
    hand.step()
    await _turns()
    assert hand.waiting == [reconcile]
    assert census not in hand.ended
    return audit


def test_a_pod_whose_attempt_is_in_flight_is_inspected_after_it() -> None:
    """Not passed over, though an audit of it counts for nothing now."""

    async def main() -> None:
        hand = ManualExecutor()
        it = bench(executor=hand)
        audit = await held(it, hand)
        while not audit.done():
            hand.step()
            await _turns()
        assert await audit == AuditReport(pods=1, containers=1, containers_reconciled=1)
        await it.plugin.close()

    run(main())


def test_closing_ends_an_audit_that_waits_for_a_pod() -> None:
    """What it waits for will not come."""

    async def main() -> None:
        hand = ManualExecutor()
        it = bench(executor=hand)
        audit = await held(it, hand)
        await it.plugin.close()
        assert await audit == AuditReport()

    run(main())


def test_settled_waits_for_an_audit() -> None:
    """Nothing is in flight only once the audit has ended."""

    async def main() -> None:
        it = bench()
        await node(it, pods=1)
        gate = it.gate("read_text", path=it.path("p0") / "tasks")
        audit = asyncio.create_task(it.plugin.audit_once())
        await gate.reached()
        settled = asyncio.create_task(it.plugin.settled())
        await asyncio.sleep(0)
        assert not settled.done()
        gate.open()
        await settled
        assert not it.plugin._audits.passes.running
        assert (await audit).pods == 1
        await it.plugin.close()

    run(main())


def test_a_caller_that_gives_up_does_not_end_the_audit() -> None:
    """Others wait for it; a call during it is the same audit."""

    async def main() -> None:
        it = bench()
        await node(it, pods=1)
        await it.plugin.audit_once()  # what is new is looked at twice
        it.fs.forget()
        gate = it.gate("read_text", path=it.path("p0") / "tasks")
        impatient = asyncio.create_task(it.plugin.audit_once())
        await gate.reached()
        patient = asyncio.create_task(it.plugin.audit_once())
        await asyncio.sleep(0)
        impatient.cancel()
        gate.open()
        assert await patient == AuditReport(pods=1, containers=3)
        assert it.fs.count("read_text", it.path("p0") / "tasks") == 1
        with pytest.raises(asyncio.CancelledError):
            await impatient
        await it.plugin.close()

    run(main())


def test_an_audit_before_anything_happened_does_nothing() -> None:
    """No worker is started, and nothing is begun that a Synchronize would have to begin."""

    async def main() -> None:
        it = bench()
        assert await it.plugin.audit_once() == AuditReport()
        assert it.plugin._driver.untouched
        await it.plugin.close()
        assert await it.plugin.audit_once() == AuditReport()

    run(main())


# --- what can end it ---


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("ran", [False, True])
def test_closing_ends_an_audit_wherever_it_is(steps: int, ran: bool) -> None:
    """At the census, an inspection, a creation, an attempt, at rest: it reports what it saw; nobody hangs."""

    async def main() -> None:
        hand = ManualExecutor()
        it = bench(executor=hand)
        it.plugin._audits.moment = 0.0
        threads: dict[str, list[Tid]] = {"c": it.threads("c", 2)}
        await it.plugin.synchronize([pod("a", "s-a")], [container("c", "s-a")])
        for _ in range(5):
            hand.step()
            await _turns()
        it.kernel.remove_dir(it.path("a"))
        stray(it, "c", threads)
        audit = asyncio.create_task(it.plugin.audit_once())
        for _ in range(steps):
            await _turns()
            hand.step()
        await _turns()
        if ran and hand.waiting:
            hand.run()
        await it.plugin.close()
        report = await audit
        assert report.failures == ()
        assert not it.plugin._audits.passes.running
        waiters = it.plugin._driver.waiters
        assert not any((waiters._inspections, waiters._rests, waiters._deletions, waiters._attempts))
        assert not waiters._looks

    run(main())


async def _turns() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


def test_whoever_begins_to_wait_after_the_end_is_told_so() -> None:
    """An audit that goes on for a moment after the end never waits for what will not come."""

    async def main() -> None:
        it = bench()
        await node(it, pods=1)
        await it.plugin.close()
        driver = it.plugin._driver
        uid = PodUid("p0")
        answers = [
            await driver.waiters.inspection(uid),
            await driver.waiters.rest(uid),
            await driver.waiters.deletion(uid),
            await driver.waiters.creation(uid),
            await driver.look(lambda: None),
        ]
        assert all(isinstance(each, PluginClosedError) for each in answers)
        assert driver.waiters._inspections == {}

    run(main())


def test_a_pod_that_goes_while_it_is_looked_at_is_no_failure() -> None:
    """Its groups are deleted after the look, and the audit goes on with the next pod."""

    async def main() -> None:
        it = bench()
        threads = await node(it)
        stray(it, "c00", threads)
        gate = it.gate("read_text", path=it.path("p0") / "tasks")
        audit = asyncio.create_task(it.plugin.audit_once())
        await gate.reached()
        await it.plugin.stop_pod_sandbox(pod("p0", "s-p0"))
        gate.open()
        report = await audit
        assert (report.failures, report.pods) == ((), 2)
        await it.plugin.settled()
        assert it.groups() == ["pod_p1"]
        await it.plugin.close()

    run(main())


# --- what the report counts ---


def test_a_census_that_fails_drops_nobody_and_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pods are looked at all the same."""

    async def main() -> None:
        it = bench()
        await node(it)
        error = CgroupError("no")

        def refuse(_: object) -> bool:
            raise error

        monkeypatch.setattr(it.pids, "is_gone", refuse)
        report = await it.plugin.audit_once()
        assert [(each.subject, each.id, each.error) for each in report.failures] == [
            (RetrySubject.GROUP, "p0", error),
            (RetrySubject.GROUP, "p1", error),
        ]
        assert (report.pods, report.pods_dropped) == (2, 0)
        await it.plugin.close()

    run(main())


@pytest.mark.parametrize("refused", [False, True])
def test_a_pod_that_ended_unheard_is_dropped_with_its_group(refused: bool) -> None:
    """Told as Removed, exactly once; a group that cannot be deleted is an orphan and a failure."""

    async def main() -> None:
        it = bench()
        await node(it, containers=1)
        await it.plugin.audit_once()
        for path in (sandbox_cgroup("p0"), cgroup_of("c00")):
            it.pids.remove(path)
        if refused:
            it.faults.fail("remove_dir", errno.EPERM)
        report = await it.plugin.audit_once()
        assert it.record.events == [PodResctrlRemoved(PodUid("p0"))]
        assert (report.pods, report.pods_dropped, report.groups_deleted) == (1, 1, not refused)
        assert [(each.subject, each.id) for each in report.failures] == [
            (RetrySubject.ORPHAN, "p0")
        ] * refused
        assert it.plugin._driver.table.orphans() == ("p0",) * refused
        assert (await it.plugin.retry_all_once()).orphans_deleted == refused
        await it.plugin.close()

    run(main())


@pytest.mark.parametrize("audited", [False, True])
def test_a_pod_without_a_group_is_dropped_too(audited: bool) -> None:
    """There is nothing to delete, and the audit does not wait for it; nor need one have been before."""

    async def main() -> None:
        it = bench()
        it.faults.fail("create_dir", errno.ENOSPC)
        await it.start("c", "s-a", "a", threads=1)
        if audited:
            await it.plugin.audit_once()
        for path in (sandbox_cgroup("a"), cgroup_of("c")):
            it.pids.remove(path)
        report = await it.plugin.audit_once()
        assert report == AuditReport(pods_dropped=1)
        assert it.plugin.snapshot() == {}
        await it.plugin.close()

    run(main())


def test_a_container_that_came_while_the_group_was_refused_is_met_by_the_retry() -> None:
    """No attempt lists its threads; the next creation sees what stands by then."""

    async def main() -> None:
        it = bench()
        it.faults.fail("create_dir", errno.ENOSPC, times=math.inf)
        await it.plugin.run_pod_sandbox(pod("a", "s-a"))
        await it.plugin.settled()
        await it.start("c", "s-a", threads=1)
        await it.plugin.retry_all_once()
        for path in (sandbox_cgroup("a"), cgroup_of("c")):
            it.pids.remove(path)
        assert (await it.plugin.audit_once()).pods_dropped == 1
        await it.plugin.close()

    run(main())


def test_a_container_of_which_more_was_told_during_the_look_is_not_dropped() -> None:
    """Its cgroup is another one by now, of which the look says nothing."""

    async def main() -> None:
        hand = ManualExecutor()
        it = bench(executor=hand)
        it.pids.is_gone(ContainerCgroup(cgroups_path=cgroup_of("c")))
        it.pids.remove(cgroup_of("c"))
        await it.plugin.synchronize([pod("a", "s-a")], [container("c", "s-a", monitored=True)])
        while hand.step():
            await _turns()
        audit = asyncio.create_task(it.plugin.audit_once())
        await _turns()
        hand.run()
        moved = evolve(container("c", "s-a", monitored=True), cgroups_path="/kubepods/elsewhere")
        await it.plugin.start_container(None, moved)
        while not audit.done():
            hand.step()
            await _turns()
        assert await audit == AuditReport(pods=1)
        assert it.plugin.container_state("c") is ContainerState.RUNTIME_MONITORED
        await it.plugin.close()

    run(main())


def test_one_sandbox_of_two_that_ended_leaves_the_pod() -> None:
    """The pod lives in the other one; its containers there count as before."""

    async def main() -> None:
        it = bench()
        await it.start("old", "s-a", "a", threads=1)
        await it.start("new", "s2", "a", threads=1)
        await it.plugin.audit_once()
        for path in (sandbox_cgroup("a"), cgroup_of("old")):
            it.pids.remove(path)
        it.record.events.clear()
        report = await it.plugin.audit_once()
        assert (report.pods_dropped, report.groups_deleted) == (0, 0)
        assert it.record.events == [PodResctrlAddOrUpdate(PodUid("a"), Exists(it.path("a")), 1, 1)]
        await it.plugin.close()

    run(main())


def test_a_sandbox_that_joined_and_ended_between_two_audits_is_missed() -> None:
    """Its first container's attempt met it: no audit need have been before, the pod lives on without it."""

    async def main() -> None:
        it = bench()
        await it.start("old", "s-a", "a", threads=1)
        await it.start("new", "s2", "a", threads=1)
        for path in (pod("a", "s2").cgroups_path, cgroup_of("new")):
            it.pids.remove(path)
        it.record.events.clear()
        await it.plugin.audit_once()
        assert it.record.events == [PodResctrlAddOrUpdate(PodUid("a"), Exists(it.path("a")), 1, 1)]
        assert [each.sandbox_id for each in it.plugin._driver.table.sandboxes()] == ["s-a"]
        for path in (sandbox_cgroup("a"), cgroup_of("old")):
            it.pids.remove(path)
        assert (await it.plugin.audit_once()).pods_dropped == 1
        await it.plugin.close()

    run(main())


def test_an_attempt_meets_no_sandbox_but_its_containers_own() -> None:
    """So what it costs does not grow with the pod."""

    async def main() -> None:
        it = bench()
        await it.start("old", "s-a", "a", threads=1)
        it.pids.looks.clear()
        await it.start("new", "s2", "a", threads=1)
        assert it.pids.looks == {pod("a", "s2").cgroups_path: 1}
        await it.plugin.close()

    run(main())


def test_what_is_mended_counts_once_however_often_it_is_looked_at() -> None:
    """The second look finds it in order: one container, one thread, one event down and one up."""

    async def main() -> None:
        it = bench()
        threads = await node(it)
        await it.plugin.audit_once()
        it.fs.forget()
        stray(it, "c01", threads)
        report = await it.plugin.audit_once()
        assert report == AuditReport(
            pods=2, containers=6, containers_astray=1, threads_astray=1, containers_reconciled=1
        )
        assert report.found_something
        exists = Exists(it.path("p0"))
        assert it.record.events == [PodResctrlAddOrUpdate(PodUid("p0"), exists, 3, n) for n in (2, 3)]
        assert it.fs.count("read_text", it.path("p1") / "tasks") == 1
        await it.plugin.close()

    run(main())


async def two_groups(it: Bench) -> Path:
    """Bring up a pod with a container in the default class and one in gold; return its further group."""
    it.plugin._audits.moment = 0.0
    gold = it.kernel.root / "gold"
    it.kernel.create_dir(gold)
    it.threads("plain")
    it.kernel.write_all(gold / "tasks", [b"%d\n" % tid for tid in it.threads("gold")])
    await it.plugin.synchronize([pod("a", "s-a")], [container("plain", "s-a"), container("gold", "s-a")])
    await it.plugin.audit_once()
    return gold / "mon_groups" / "pod_a"


def test_a_further_group_that_was_removed_counts_as_made_again() -> None:
    """The kernel moves its threads to the control group, and the container's attempt makes it anew."""

    async def main() -> None:
        it = bench()
        further = await two_groups(it)
        it.kernel.remove_dir(further)
        report = await it.plugin.audit_once()
        assert report == AuditReport(
            pods=1,
            containers=2,
            containers_astray=1,
            threads_astray=1,
            containers_reconciled=1,
            groups_recreated=1,
        )
        assert it.kernel.exists(further)
        assert await it.plugin.audit_once() == AuditReport(pods=1, containers=2)
        await it.plugin.close()

    run(main())


@pytest.mark.parametrize("refused", [False, True])
def test_each_group_of_a_dropped_pod_counts(refused: bool) -> None:
    """Also where one of them cannot be deleted: that one is a failure, and the other one is gone."""

    async def main() -> None:
        it = bench()
        further = await two_groups(it)
        for path in (sandbox_cgroup("a"), cgroup_of("plain"), cgroup_of("gold")):
            it.pids.remove(path)
        if refused:
            it.faults.fail("remove_dir", errno.EPERM, path=further)
        report = await it.plugin.audit_once()
        assert (report.pods_dropped, report.groups_deleted) == (1, 1 if refused else 2)
        assert [each.id for each in report.failures] == ["a"] * refused
        await it.plugin.close()

    run(main())


def test_what_was_mended_and_fell_again_does_not_count_as_reconciled() -> None:
    """It is PARTIAL when the audit ends, and a failure; a report that called it reconciled would lie."""

    async def main() -> None:
        it = bench()
        threads = await node(it, pods=1, containers=1)
        stray(it, "c00", threads)
        mended = PodResctrlAddOrUpdate(PodUid("p0"), Exists(it.path("p0")), 1, 1)

        def disturb(event: PodResctrlEvent) -> None:
            if event == mended and len(it.record.events) < 3:
                stray(it, "c00", threads)
                it.faults.fail("write", errno.EIO, times=math.inf)

        it.plugin.subscribe(disturb)
        report = await it.plugin.audit_once()
        assert it.plugin.container_state("c00") is ContainerState.PARTIAL
        assert [each.id for each in report.failures] == ["c00"]
        assert (report.containers_astray, report.containers_reconciled, report.threads_astray) == (1, 0, 2)
        await it.plugin.close()

    run(main())


def test_a_thread_that_is_taken_out_again_each_time_is_left_there() -> None:
    """It counts once, few events tell of it, and nobody ends told complete who is known not to be."""

    async def main() -> None:
        it = bench()
        threads = await node(it, pods=1, containers=2)
        robbed = threads["c00"][0]
        told = [PodResctrlAddOrUpdate(PodUid("p0"), Exists(it.path("p0")), 2, n) for n in (1, 2)]

        def rob() -> None:
            it.kernel.write_all(it.kernel.root / "tasks", [b"%d\n" % robbed])

        def rob_again(event: PodResctrlEvent) -> None:
            if event == told[1]:
                rob()

        rob()
        unsubscribe = it.plugin.subscribe(rob_again)
        report = await it.plugin.audit_once()
        assert report == AuditReport(pods=1, containers=2, containers_astray=1, threads_astray=1)
        assert it.record.events == [*told, *told, told[0]]
        assert it.plugin.container_state("c00") is ContainerState.PARTIAL
        assert it.plugin.container_state("c01") is ContainerState.RECONCILED
        unsubscribe()
        report = await it.plugin.audit_once()  # begins anew
        assert (report.threads_astray, report.containers_reconciled, it.record.events[5:]) == (1, 1, told[1:])
        await it.plugin.close()

    run(main())


def test_a_group_that_is_removed_again_each_time_is_left_removed() -> None:
    """It is made again twice; then its pod is Failed, told so and why, until a retry; others are as ever."""

    async def main() -> None:
        it = bench()
        await node(it, pods=2, containers=2)
        path = it.path("p1")
        there = [PodResctrlAddOrUpdate(PodUid("p1"), Exists(path), 2, n) for n in range(3)]
        told = [PodResctrlAddOrUpdate(PodUid("p1"), Failed(), 2, 0), *there]

        def remove_again(event: PodResctrlEvent) -> None:
            if event == told[-1]:
                it.kernel.remove_dir(path)

        unsubscribe = it.plugin.subscribe(remove_again)  # is told at once that all is well
        report = await it.plugin.audit_once()
        assert it.record.events == [*told, *told, told[0]]
        assert it.fs.count("create_dir", path) == 2
        assert (report.groups_recreated, report.containers_reconciled) == (0, 0)
        assert (report.pods, report.containers, report.containers_astray) == (2, 4, 2)
        [failure] = report.failures
        assert (failure.subject, failure.id) == (RetrySubject.GROUP, "p1")
        assert isinstance(failure.error, GroupNotFoundError)
        state = it.plugin.snapshot()[PodUid("p1")].group_state
        assert isinstance(state, Failed)
        assert "removed by somebody else each time" in state.reason
        assert state.reason in str(failure.error)
        unsubscribe()
        assert await it.plugin.audit_once() == AuditReport(pods=1, containers=2)
        retried = await it.plugin.retry_all_once()
        assert (retried.groups_created, retried.containers_reconciled) == (1, 2)
        it.kernel.remove_dir(path)
        assert (await it.plugin.audit_once()).groups_recreated == 1  # begins anew
        await it.plugin.close()

    run(main())


def test_a_container_that_never_comes_to_rest_ends_the_audit_all_the_same() -> None:
    """It is looked at a few times, and is as it is then: PARTIAL, told as the first look found it."""

    async def main() -> None:
        it = bench()
        await node(it, pods=1, containers=1)
        it.pids.never_converge(cgroup_of("c00"), it.kernel.spawn)
        report = await it.plugin.audit_once()
        assert (report.containers_astray, report.containers_reconciled, report.failures) == (1, 0, ())
        assert it.plugin.container_state("c00") is ContainerState.PARTIAL
        assert it.fs.count("read_text", it.path("p0") / "tasks") < 40
        await it.plugin.close()

    run(main())


@pytest.mark.parametrize("lost", [False, True])
def test_what_cannot_be_mended_is_a_failure_once(lost: bool) -> None:
    """A group that cannot be made again, a thread that the kernel refuses: reported with their errors."""

    async def main() -> None:
        it = bench()
        threads = await node(it, pods=1, containers=1)
        stray(it, "c00", threads)
        if lost:
            it.kernel.remove_dir(it.path("p0"))
            it.faults.fail("create_dir", errno.ENOSPC)
        else:
            it.faults.fail("write", errno.EIO, times=math.inf)
        with capture_logs() as logs:
            [failure] = (await it.plugin.audit_once()).failures
        assert "reconcile_failed" not in [log["event"] for log in logs], "what is reported is not logged too"
        if lost:
            assert (failure.subject, failure.id) == (RetrySubject.GROUP, "p0")
            assert isinstance(failure.error, CapacityError)
            assert it.record.events == [PodResctrlAddOrUpdate(PodUid("p0"), Failed(), 1, 0)]
        else:
            assert (failure.subject, failure.id) == (RetrySubject.CONTAINER, "c00")
            assert isinstance(failure.error, ResctrlIOError)
            assert it.plugin.container_state("c00") is ContainerState.PARTIAL
        await it.plugin.close()

    run(main())
