"""The program or the runtime is killed in the middle, and comes back: the truth is the same afterwards."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tests.node.patience import eventually
from tests.node.workloads import FORKS, PROCESSES, QUIET

if TYPE_CHECKING:
    from tests.node.node import Node
    from tests.node.program import Program


async def test_a_killed_program_comes_back_to_the_truth(node: Node, program: Program) -> None:
    """What changed while nobody served is found at the next start: who came, who went, and what was left."""
    async with node.kubelet() as kubelet:
        program.start()
        await program.synchronized()
        stays, goes = await kubelet.pod(), await kubelet.pod()
        old, gone = await kubelet.run(stays, FORKS), await kubelet.run(goes, QUIET)
        assert kubelet.first_group(old) == node.group(stays).name
        assert kubelet.first_group(gone) == node.group(goes).name
        await program.told(stays, "Exists 1/1")
        await program.told(goes, "Exists 1/1")

        program.kill()
        assert node.witness.tasks(node.group(stays)), "the group outlives the program, with its threads"
        await kubelet.remove(goes)
        assert node.group(goes).is_dir(), "nobody was there to remove it"
        comes = await kubelet.pod()
        new = await kubelet.run(comes, PROCESSES)
        await kubelet.runs_in_full(comes, new, PROCESSES)
        assert kubelet.first_group(new) == ""

        program.start()
        await program.told(stays, "Exists 1/1")
        await program.told(comes, "Exists 1/1")
        assert program.words(goes) == []
        later = await kubelet.run(comes, QUIET)
        assert kubelet.first_group(later) == node.group(comes).name
        await program.told(comes, "Exists 2/2")
        await program.audited()  # what forked while the new program moved its parent
        await node.assert_truth(program, {stays: [old], comes: [new, later]})
        assert kubelet.cri.failures == []

        assert program.stop() == 0
        assert node.our_groups() == {node.group(it).name for it in (stays, comes)}, (
            "SIGTERM leaves groups in place"
        )


async def test_a_killed_runtime_is_connected_again(node: Node, program: Program) -> None:
    """The program waits for the runtime, keeps what lives, and a Synchronize collects what ended unheard."""
    async with node.kubelet() as kubelet:
        program.start()
        await program.synchronized()
        pod, old = await kubelet.pod(), await kubelet.pod()
        lives, ends = await kubelet.run(pod, FORKS), await kubelet.run(pod, QUIET)
        quiet = await kubelet.run(old, QUIET)
        assert [kubelet.first_group(it) for it in (lives, ends)] == [node.group(pod).name] * 2
        assert kubelet.first_group(quiet) == node.group(old).name
        await program.told(pod, "Exists 2/2")
        await program.told(old, "Exists 1/1")

        await node.containerd.kill()
        (first,) = kubelet.threads(ends)
        os.kill(first, signal.SIGKILL)
        await eventually("the container has ended", lambda: kubelet.threads(ends) == set())
        await node.containerd.start()
        await program.synchronized(2)
        await program.told(pod, "Exists 1/1")
        await node.assert_truth(program, {pod: [lives], old: [quiet]})

        later = await kubelet.run(pod, PROCESSES)
        assert kubelet.first_group(later) == node.group(pod).name
        await program.told(pod, "Exists 2/2")
        # containerd 1.7 never tells the end of a pod that it found at its own start; the next list does.
        await kubelet.remove(old)
        await node.containerd.stop()
        await node.containerd.start()
        await program.told(old, "removed")
        await kubelet.runs_in_full(pod, later, PROCESSES)
        await eventually("the old pod's group is gone", lambda: not node.group(old).exists())
        await node.assert_truth(program, {pod: [lives, later]})
        assert kubelet.cri.failures == []
