"""The program starts on a node that has lived: pods that run already, groups that somebody left."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING

from tests.node.workloads import FORKS, PROCESSES, THREADS

if TYPE_CHECKING:
    from tests.node.node import Node
    from tests.node.program import Program


async def test_preexisting_containers_are_assigned(node: Node, program: Program) -> None:
    """Containers older than the program, with threads and children, are in their pod's group, and told so."""
    async with node.kubelet() as kubelet:
        pod, bare = await kubelet.pod(), await kubelet.pod()
        containers = [await kubelet.run(pod, THREADS), await kubelet.run(pod, PROCESSES)]
        for container, workload in zip(containers, (THREADS, PROCESSES), strict=True):
            await kubelet.runs_in_full(pod, container, workload)
            assert kubelet.first_group(container) == "", "no group can be named before there is one"
        program.start()
        await program.told(pod, "Exists 2/2")
        await program.told(bare, "Exists 0/0")
        assert program.words(pod) == ["Exists 0/2", "Exists 1/2", "Exists 2/2"]
        assert program.words(bare) == ["Exists 0/0"]
        await node.assert_truth(program, {pod: containers, bare: []})
        assert len(node.witness.tasks(node.group(pod))) == THREADS.threads + PROCESSES.threads
        assert kubelet.cri.failures == []


async def test_startup_removes_prefixed_groups_and_no_others(node: Node, program: Program) -> None:
    """What bears the prefix goes, also below somebody's control group; all else stays; nothing is told."""
    root, mon_groups = node.witness.root, node.witness.mon_groups
    ours, others = node.site.prefix, node.site.others_prefix
    stale = [mon_groups / f"{ours}stale", mon_groups / f"{ours}in-use", root / f"{ours}control"]
    foreign = [mon_groups / f"{others}stays", root / f"{others}control"]
    inside = foreign[1] / "mon_groups"  # with placement, which is on, the program makes groups there too
    stale.append(inside / f"{ours}inside")
    foreign.append(inside / f"{others}inside")
    for path in (*foreign, *stale):
        await node.others.make(path)
    sleeper = subprocess.Popen(["sleep", "1000000"])  # noqa: ASYNC220 - starting is a fork
    try:
        (stale[1] / "tasks").write_text(str(sleeper.pid))
        assert node.witness.tasks(stale[1]) == {sleeper.pid}
        below = (root / name / "mon_groups" for name in node.witness.groups(root))
        without = sum(
            not name.startswith(ours) for at in (root, mon_groups, *below) for name in node.witness.groups(at)
        )
        async with node.kubelet() as kubelet:
            pod = await kubelet.pod()
            container = await kubelet.run(pod, FORKS)
            program.start()
            await program.told(pod, "Exists 1/1")
            (record,) = program.records("startup_cleanup")
            counts = {
                it: record[it] for it in ("removed", "removal_failures", "removal_race", "non_prefix_groups")
            }
            assert counts == {
                "removed": 4, "removal_failures": 0, "removal_race": 0, "non_prefix_groups": without
            }  # fmt: skip
            assert not any(path.exists() for path in stale)
            assert all(path.is_dir() for path in foreign)
            assert sleeper.pid in node.witness.tasks(root), (
                "the task of a removed group is where it came from"
            )
            assert {event["pod_uid"] for event in program.events} == {pod.uid}
            await program.audited()  # what forked while its parent was moved
            await node.assert_truth(program, {pod: [container]})
    finally:
        sleeper.send_signal(signal.SIGKILL)
        sleeper.wait()
