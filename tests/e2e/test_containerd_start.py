"""The bar: nothing of a workload runs before its container's threads are in the pod's group."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

from attrs import define, field

from nri_resctrl_plugin.hearing import LONGEST_START_WAIT
from nri_resctrl_plugin.model import ContainerState
from tests.e2e import observer
from tests.e2e.pods import PodMaker
from tests.e2e.stage import Stage

if TYPE_CHECKING:
    from pathlib import Path

    from nri_resctrl_plugin.nri.messages import Container, PodSandbox
    from tests.e2e.containerd import Containerd
    from tests.e2e.pods import Pod

PODS = 20
CONTAINERS = 2
AT_ONCE = 4
"""How many pods are made at a time: a kubelet works on several, and the runtime calls a plugin for one."""


@define
class _Witness:
    """What was the case at each write, and as each reply left."""

    stage: Stage
    writes: list[tuple[int, str]] = field(factory=list)
    replies: dict[str, str] = field(factory=dict)
    outside: dict[str, set[int]] = field(factory=dict)
    inside: dict[str, int] = field(factory=dict)

    def at_write(self, tasks: Path, chunk: bytes) -> None:
        """Look at the processes of the threads that are about to be written."""
        for tid in chunk.split(b","):
            if process := observer.process_of(int(tid)):  # else it has just ended, and the write says so
                self.writes.append((process, observer.comm(process)))

    def at_reply(self, pod: PodSandbox | None, container: Container) -> None:
        """Look at the container whose START is about to be answered."""
        assert pod is not None
        # The group first: what is put into it while we look comes too late.
        group = {int(it) for it in self.stage.fs.tasks_in(self.stage.fs.root / f"mon_groups/pod_{pod.uid}")}
        self.replies[container.id] = observer.comm(container.pid)
        threads = observer.threads_in(container.id)
        self.inside[container.id] = len(threads & group)
        self.outside[container.id] = threads - group


async def test_no_workload_runs_before_its_threads_are_in_the_group(containerd: Containerd) -> None:
    """At each write, and as each START reply leaves, the first process has not exec'd, and all are inside."""
    stage = Stage(containerd)
    witness = _Witness(stage)
    stage.fs.on_write = witness.at_write
    turns = asyncio.Semaphore(AT_ONCE)

    async with PodMaker(containerd) as maker, stage.plugin() as plugin:
        plugin.on_reply = witness.at_reply

        async def make() -> tuple[Pod, list[str]]:
            async with turns:
                pod = await maker.pod()
                return pod, [await maker.container(pod) for _ in range(CONTAINERS)]

        pods = dict(await asyncio.gather(*(make() for _ in range(PODS))))
        await plugin.settled()
        made = {container for containers in pods.values() for container in containers}

        assert len(made) == PODS * CONTAINERS
        assert witness.replies == dict.fromkeys(made, observer.NOT_YET_EXECED)
        assert witness.outside == {container: set() for container in made}
        assert min(witness.inside.values()) >= 1
        assert {name for _, name in witness.writes} == {observer.NOT_YET_EXECED}
        assert len({process for process, _ in witness.writes}) == len(made)
        assert {plugin.container_state(it) for it in made} == {ContainerState.RECONCILED}
        stage.assert_truth(plugin, pods)
        assert {observer.comm(tid) for it in made for tid in maker.threads(it)} == {"sleep"}

        for pod in pods:
            await maker.remove(pod)
            await stage.gone(plugin, pod)
        assert stage.groups() == set()
        assert maker.cri.failures == []
        assert maker.cri.calls >= PODS * (1 + 2 * CONTAINERS + 2)


async def test_a_resctrl_that_hangs_fails_no_pod(containerd: Containerd) -> None:
    """While writes hang, a START is answered before the runtime drops the plugin; work goes on behind."""
    stage = Stage(containerd)
    gate = threading.Event()
    stage.fs.on_write = lambda _tasks, _chunk: gate.wait(20)
    async with PodMaker(containerd) as maker, stage.plugin() as plugin:
        try:
            pod = await maker.pod()
            begin = time.monotonic()
            container = await maker.container(pod)
            took = time.monotonic() - begin
            assert plugin.container_state(container) is ContainerState.PARTIAL
            assert took >= LONGEST_START_WAIT
        finally:
            gate.set()
        await stage.counts(plugin, pod, 1, 1)
        stage.assert_truth(plugin, {pod: [container]})
        other = await maker.pod()
        await stage.counts(plugin, other, 0, 0)
        assert plugin.calls["synchronize"] == 1, "the runtime dropped the plugin"
        assert maker.cri.failures == []
