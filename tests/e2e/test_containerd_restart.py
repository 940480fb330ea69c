"""The plugin ends and begins again, or the runtime does: the truth is the same afterwards."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from nri_resctrl_plugin.events import Exists, PodResctrlAddOrUpdate, PodResctrlRemoved
from nri_resctrl_plugin.model import PodUid
from tests.e2e.pods import PodMaker
from tests.e2e.stage import Stage
from tests.e2e.waiting import until

if TYPE_CHECKING:
    from tests.e2e.containerd import Containerd


@pytest.mark.parametrize("cleanup_on_start", [True, False], ids=["cleanup", "no-cleanup"])
async def test_a_restarted_plugin_tells_the_same_truth(
    containerd: Containerd, cleanup_on_start: bool
) -> None:
    """Whether it sweeps at its start or takes over the groups, a new instance ends where the old one was."""
    stage = Stage(containerd)
    async with PodMaker(containerd) as maker:
        pod, other = await maker.pod(), await maker.pod()
        async with stage.plugin() as plugin:
            container = await maker.container(pod)
            await stage.counts(plugin, pod, 1, 1)
            before = plugin.snapshot()
            stage.assert_truth(plugin, {pod: [container], other: []})
        made = stage.fs.groups_made
        async with stage.plugin(cleanup_on_start=cleanup_on_start) as plugin:
            assert plugin.snapshot() == before
            stage.assert_truth(plugin, {pod: [container], other: []})
        assert stage.fs.groups_made - made == (2 if cleanup_on_start else 0)


async def test_a_pod_that_went_while_no_plugin_ran_is_swept(containerd: Containerd) -> None:
    """The group of a pod that was removed between two plugins is gone, and that pod is never told."""
    stage = Stage(containerd)
    async with PodMaker(containerd) as maker:
        goes, stays = await maker.pod(), await maker.pod()
        async with stage.plugin():
            assert len(stage.groups()) == 2
        await maker.remove(goes)
        async with stage.plugin() as plugin:
            stage.assert_truth(plugin, {stays: []})


async def test_a_killed_runtime_that_comes_back_is_told_the_same_truth(containerd: Containerd) -> None:
    """After SIGKILL the plugin connects again by itself; groups stay, and what ended meanwhile is told."""
    stage = Stage(containerd)
    async with PodMaker(containerd) as maker, stage.plugin() as plugin:
        pod, other = await maker.pod(), await maker.pod()
        lives, ends = await maker.container(pod), await maker.container(pod)
        await stage.counts(plugin, pod, 2, 2)
        made = stage.fs.groups_made
        with plugin.record_events() as record:
            await containerd.kill()
            (pid,) = maker.threads(ends)
            os.kill(pid, signal.SIGKILL)
            await until("the container has ended", lambda: maker.threads(ends) == set())
            await containerd.start()
            await stage.synchronized(plugin, 2)
            await stage.counts(plugin, pod, 1, 1)
            stage.assert_truth(plugin, {pod: [lives], other: []})
            assert record.events == [PodResctrlAddOrUpdate(PodUid(pod.uid), Exists(stage.group(pod)), 1, 1)]
        assert stage.fs.groups_made == made, "groups of living pods were made again"
        later = await maker.container(pod)
        await stage.counts(plugin, pod, 2, 2)
        stage.assert_truth(plugin, {pod: [lives, later], other: []})


async def test_a_pod_older_than_the_runtime_is_told_removed_at_the_next_synchronize(
    containerd: Containerd,
) -> None:
    """The end of a pod that containerd found at its start is told by the next Synchronize, if not before.

    containerd 1.7 tells its containers' ends and not its own, so meanwhile it is there without any.
    """

    def empty_or_gone() -> bool:
        event = plugin.snapshot().get(PodUid(pod.uid))
        return event is None or event.total_containers == 0

    stage = Stage(containerd)
    async with PodMaker(containerd) as maker, stage.plugin() as plugin:
        pod = await maker.pod()
        await maker.container(pod)
        await stage.counts(plugin, pod, 1, 1)
        await containerd.kill()
        await containerd.start()
        await stage.synchronized(plugin, 2)
        with plugin.record_events() as record:
            await maker.remove(pod)
            await until("the pod has no container", empty_or_gone)
            await containerd.kill()
            await containerd.start()
            await stage.synchronized(plugin, 3)
            assert record.events.count(PodResctrlRemoved(PodUid(pod.uid))) == 1
            assert plugin.snapshot() == {}
        assert stage.groups() == set()
        assert maker.cri.failures == []


async def test_a_runtime_that_is_killed_again_and_again(containerd: Containerd) -> None:
    """Three deaths in a row, one of them before the plugin can have registered: the truth comes back."""
    stage = Stage(containerd)
    async with PodMaker(containerd) as maker, stage.plugin() as plugin:
        pod = await maker.pod()
        container = await maker.container(pod)
        for _ in range(3):
            await containerd.kill()
            await containerd.start()
        seen = plugin.calls["synchronize"]
        await containerd.kill()
        await containerd.start()
        await stage.synchronized(plugin, seen + 1)
        stage.assert_truth(plugin, {pod: [container]})
