"""The plugin under a real containerd: pods made over CRI, groups in the fake, the truth from /proc."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from nri_resctrl_plugin.events import Exists, Failed, PodResctrlAddOrUpdate, PodResctrlRemoved
from nri_resctrl_plugin.model import ContainerState, PodUid
from resctrl import CapacityError
from tests.e2e import observer
from tests.e2e.pods import PodMaker, nest, python_command
from tests.e2e.stage import Stage
from tests.e2e.waiting import until

if TYPE_CHECKING:
    from nri_resctrl_plugin.events import PodResctrlEvent
    from tests.e2e.containerd import Containerd
    from tests.e2e.pods import Pod

THREADS = """
import threading, time
for _ in range(7):
    threading.Thread(target=time.sleep, args=(10**6,), daemon=True).start()
time.sleep(10**6)
"""

PROCESSES = ("/bin/sh", "-c", "for i in 1 2 3 4 5; do /bin/sleep 1000000 & done; wait")


async def test_what_was_there_before_the_plugin_is_taken_in(viewed_containerd: Containerd) -> None:
    """Groups and counts of pods older than the plugin are true, however the cgroup world looks."""
    stage = Stage(viewed_containerd)
    async with PodMaker(viewed_containerd) as maker:
        pods: dict[Pod, list[str]] = {}
        for size in (0, 1, 2):
            pod = await maker.pod()
            pods[pod] = [await maker.container(pod) for _ in range(size)]
        async with stage.plugin() as plugin:
            stage.assert_truth(plugin, pods)
            late = await maker.pod()
            pods[late] = [await maker.container(late)]
            await stage.counts(plugin, late, 1, 1)
            stage.assert_truth(plugin, pods)
            await maker.remove(late)
            del pods[late]
            await stage.gone(plugin, late)
            stage.assert_truth(plugin, pods)
        assert maker.cri.failures == []


async def test_a_created_container_counts_from_its_start(containerd: Containerd) -> None:
    """Synchronize lists a container that was made and not started: it counts nowhere until its START."""
    stage = Stage(containerd)
    async with PodMaker(containerd) as maker:
        pod = await maker.pod()
        container = await maker.container(pod, start=False)
        async with stage.plugin() as plugin:
            assert plugin.container_state(container) is ContainerState.CREATED
            stage.assert_truth(plugin, {pod: []})
            await maker.start(container)
            await stage.counts(plugin, pod, 1, 1)
            stage.assert_truth(plugin, {pod: [container]})


async def test_an_exited_container_counts_nowhere(containerd: Containerd) -> None:
    """A container whose process ended before the plugin came is no container of the pod any more."""
    stage = Stage(containerd)
    async with PodMaker(containerd) as maker:
        pod = await maker.pod()
        ended, lives = await maker.container(pod), await maker.container(pod)
        (pid,) = maker.threads(ended)
        os.kill(pid, signal.SIGKILL)
        await maker.exited(ended)
        async with stage.plugin() as plugin:
            stage.assert_truth(plugin, {pod: [lives]})


async def test_a_container_added_later_is_told_once(containerd: Containerd) -> None:
    """Each step of a pod's life is told by exactly one event, in order, and an update by none."""
    stage = Stage(containerd)
    async with PodMaker(containerd) as maker, stage.plugin() as plugin:
        with plugin.record_events() as record:
            pod = await maker.pod()
            await stage.counts(plugin, pod, 0, 0)
            first = await maker.container(pod)
            await stage.counts(plugin, pod, 1, 1)
            second = await maker.container(pod)
            await stage.counts(plugin, pod, 2, 2)
            await maker.cri.update_container(first, cpu_shares=512)
            stage.assert_truth(plugin, {pod: [first, second]})
            await maker.remove_container(second)
            await stage.counts(plugin, pod, 1, 1)
            await maker.remove(pod)
            await stage.gone(plugin, pod)
        uid, exists = PodUid(pod.uid), Exists(stage.group(pod))
        assert record.events == [
            PodResctrlAddOrUpdate(uid, exists, 0, 0),
            PodResctrlAddOrUpdate(uid, exists, 1, 1),
            PodResctrlAddOrUpdate(uid, exists, 2, 2),
            PodResctrlAddOrUpdate(uid, exists, 1, 1),
            *_while_the_pod_stops(record.events[4:-1], uid, exists),
            PodResctrlRemoved(uid),
        ]
        assert maker.cri.failures == []


def _while_the_pod_stops(events: list[PodResctrlEvent], uid: PodUid, exists: Exists) -> list[PodResctrlEvent]:
    """Return what may stand there: the container's STOP can come before the sandbox's, or not."""
    return [PodResctrlAddOrUpdate(uid, exists, 0, 0)] if events else []


async def test_every_thread_of_a_process_is_in_the_group(containerd: Containerd) -> None:
    """A process of eight threads that ran before the plugin came has all eight in the group."""
    stage = Stage(containerd)
    command, mounts = python_command(THREADS)
    async with PodMaker(containerd) as maker:
        pod = await maker.pod()
        container = await maker.container(pod, command, mounts=mounts)
        await until("the process has eight threads", lambda: len(maker.threads(container)) == 8)
        assert len(observer.processes_in(container)) == 1
        async with stage.plugin() as plugin:
            assert len(stage.fs.tasks_in(stage.group(pod))) == 8
            stage.assert_truth(plugin, {pod: [container]})


async def test_every_process_of_a_container_is_in_the_group(containerd: Containerd) -> None:
    """A shell with five children that ran before the plugin came has all six in the group."""
    stage = Stage(containerd)
    async with PodMaker(containerd) as maker:
        pod = await maker.pod()
        container = await maker.container(pod, PROCESSES)
        await until("the shell has five children", lambda: len(observer.processes_in(container)) == 6)
        async with stage.plugin() as plugin:
            stage.assert_truth(plugin, {pod: [container]})


async def test_a_nested_cgroup_belongs_to_its_container(viewed_containerd: Containerd) -> None:
    """Processes in cgroups below the container's own, as of a systemd inside it, are in the group."""
    stage = Stage(viewed_containerd)
    async with PodMaker(viewed_containerd) as maker:
        pod = await maker.pod()
        container = await maker.container(pod, PROCESSES)
        await until("the shell has five children", lambda: len(observer.processes_in(container)) == 6)
        inner, innermost, *_ = sorted(observer.processes_in(container), reverse=True)
        nested = nest(container, inner, "inner")
        deeper = nest(container, innermost, "inner/most")
        try:
            assert all(path.endswith("/inner") for path in observer.cgroups_of(inner) if container in path)
            async with stage.plugin() as plugin:
                assert {inner, innermost} <= {int(it) for it in stage.fs.tasks_in(stage.group(pod))}
                stage.assert_truth(plugin, {pod: [container]})
        finally:
            await maker.remove(pod)
            assert [it for it in (*nested, *deeper) if it.exists()] == []


async def test_a_killed_container_leaves_the_counts(containerd: Containerd) -> None:
    """A container that ends by itself is told as fewer, without anybody asking the runtime to stop it."""
    stage = Stage(containerd)
    async with PodMaker(containerd) as maker, stage.plugin() as plugin:
        pod = await maker.pod()
        ends, lives = await maker.container(pod), await maker.container(pod)
        await stage.counts(plugin, pod, 2, 2)
        (pid,) = maker.threads(ends)
        os.kill(pid, signal.SIGKILL)
        await stage.counts(plugin, pod, 1, 1)
        stage.assert_truth(plugin, {pod: [lives]})


async def test_a_removed_pod_gives_its_group_back(containerd: Containerd) -> None:
    """Where one RMID is free, pods can come and go for ever: each told removed once, no group left behind."""
    stage = Stage(containerd, num_rmids=2)  # one is the default group's
    async with PodMaker(containerd) as maker, stage.plugin() as plugin:
        for _ in range(3):
            with plugin.record_events() as record:
                pod = await maker.pod()
                await maker.container(pod)
                await stage.counts(plugin, pod, 1, 1)
                await maker.remove(pod)
                await stage.gone(plugin, pod)
            assert record.events.count(PodResctrlRemoved(PodUid(pod.uid))) == 1
            assert stage.groups() == set()
        assert maker.cri.failures == []


async def test_a_new_sandbox_of_the_same_pod_keeps_the_group(containerd: Containerd) -> None:
    """A kubelet makes a pod's sandbox anew and removes the old one later: one group all the while."""
    stage = Stage(containerd)
    async with PodMaker(containerd) as maker, stage.plugin() as plugin:
        with plugin.record_events() as record:
            old = await maker.pod()
            await maker.container(old)
            await stage.counts(plugin, old, 1, 1)
            await maker.cri.stop_pod(old.sandbox_id)
            new = await maker.pod(old.uid, attempt=1)
            container = await maker.container(new)
            await stage.counts(plugin, new, 1, 1)
            await maker.cri.remove_pod(old.sandbox_id)
            await plugin.settled()
            stage.assert_truth(plugin, {new: [container]})
            assert plugin.container_state(container) is ContainerState.RECONCILED
        assert record.events.count(PodResctrlRemoved(PodUid(old.uid))) == 1  # the stop of its only sandbox
        assert maker.cri.failures == []


async def test_two_sandboxes_of_one_pod_share_its_group(containerd: Containerd) -> None:
    """While the old sandbox still runs, the counts are the sum; the pod is told removed with the last."""
    stage = Stage(containerd)
    async with PodMaker(containerd) as maker, stage.plugin() as plugin:
        old = await maker.pod()
        first = await maker.container(old)
        new = await maker.pod(old.uid, attempt=1)
        second = await maker.container(new)
        await stage.counts(plugin, new, 2, 2)
        threads = maker.threads(first) | maker.threads(second)
        assert stage.fs.tasks_in(stage.group(new)) == threads
        with plugin.record_events() as record:
            await maker.cri.stop_pod(old.sandbox_id)
            await maker.cri.remove_pod(old.sandbox_id)
            await stage.counts(plugin, new, 1, 1)
            assert PodResctrlRemoved(PodUid(new.uid)) not in record.events
            stage.assert_truth(plugin, {new: [second]})


async def test_a_full_machine_starts_pods_all_the_same(containerd: Containerd) -> None:
    """Out of RMIDs, a pod starts and is told Failed; once one is free, a retry makes it whole."""
    stage = Stage(containerd, num_rmids=2)  # one is the default group's
    async with PodMaker(containerd) as maker, stage.plugin() as plugin:
        first, second = await maker.pod(), await maker.pod()
        uid = PodUid(second.uid)
        container = await maker.container(second)
        await until("it counts", lambda: plugin.snapshot()[uid].total_containers == 1)
        assert plugin.snapshot()[uid] == PodResctrlAddOrUpdate(uid, Failed(), 1, 0)
        assert maker.threads(container) != set()
        with plugin.record_events() as record:
            with pytest.raises(CapacityError):
                await plugin.retry_group_creation(second.uid)
            assert record.events == []
        await maker.remove(first)
        await stage.gone(plugin, first)
        report = await plugin.retry_all_once()
        assert (report.groups_created, report.containers_reconciled) == (1, 1)
        stage.assert_truth(plugin, {second: [container]})
        assert maker.cri.failures == []
