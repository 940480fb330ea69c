"""A node: its runtime, its witness, somebody else who makes groups, and the comparison of all that is told.

Owns: what every node scenario begins with and ends with. Must not know: what a scenario claims.

Rules:
    1. `assert_truth` is the one measure: the program's snapshot, the resctrl tree and every thread's own word
       must tell the same, with everything frozen that runs.
    2. After each scenario the node is bare again: no pod, and no group of this run.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.e2e import observer
from tests.e2e.containerd import Containerd
from tests.node.kubelet import Kubelet
from tests.node.others import Others
from tests.node.program import Program
from tests.node.witness import Witness, frozen_cgroup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.e2e.pods import Pod
    from tests.node.site import NodeSite

__all__ = ["Node"]


class Node:
    """One machine, with a containerd of the lane's own.

    Attributes:
        site: What is particular about the machine.
        containerd: Its runtime.
        witness: Sees groups and threads past the code under test.
        others: Makes groups that are not the plugin's.
    """

    def __init__(self, site: NodeSite) -> None:
        self.site = site
        self.containerd = Containerd(site.tools)
        self.witness = Witness(site.resctrl_root)
        self.others = Others(site, self.witness)

    def kubelet(self) -> Kubelet:
        """Return hands for one scenario."""
        return Kubelet(self.containerd)

    def program(self, name: str) -> Program:
        """Return the installed program, not yet started."""
        return Program(self.site, self.containerd.nri_socket, name)

    def group(self, pod: Pod) -> Path:
        """Return where a pod's group must stand."""
        return self.witness.mon_groups / f"{self.site.prefix}{pod.uid}"

    def our_groups(self) -> set[str]:
        """Return the names of all groups in `mon_groups` that begin with the plugin's prefix."""
        return {it for it in self.witness.groups() if it.startswith(self.site.prefix)}

    async def assert_truth(self, program: Program, pods: Mapping[Pod, Sequence[str]]) -> None:
        """Compare all that the program tells and did with the machine, pod by pod and thread by thread.

        Args:
            program: The program, at rest.
            pods: Every pod there is, with its running containers. Each has its group and is complete.
        """
        told = {pod.uid: f"Exists {len(ids)}/{len(ids)}" for pod, ids in pods.items()}
        assert await program.snapshot() == told
        assert self.our_groups() == {self.group(pod).name for pod in pods}
        async with frozen_cgroup(f"/{self.containerd.name}"):
            threads = self.witness.threads(f"/{self.containerd.name}/")
            for pod, containers in pods.items():
                theirs = {it.tid: it.group for it in threads if any(cid in it.cgroup for cid in containers)}
                assert all(any(cid in it.cgroup for it in threads) for cid in containers), (
                    "a container is empty"
                )
                assert set(theirs.values()) <= {self.group(pod).name}, f"strays: {theirs}"
                assert self.witness.tasks(self.group(pod)) == set(theirs)
                pause = [it for it in threads if pod.sandbox_id in it.cgroup]
                assert pause, "the pause process is seen, so that the next line can fail"
                assert {it.group for it in pause} == {""}, "the pause process was assigned"
        assert program.complaints() == []

    async def restore(self) -> None:
        """Make the node bare again, whatever a scenario left."""
        if not observer.processes_on_socket(self.containerd.socket):
            await self.containerd.start()
        async with self.kubelet() as kubelet:
            await kubelet.remove_all()
        self.others.remove_all()

    def close(self) -> list[str]:
        """End the runtime and all that is its; return what was left in spite of it."""
        self.others.remove_all()
        with contextlib.suppress(OSError):  # it never started
            (self.site.directory / "containerd.log").write_text(self.containerd.log)
        return self.containerd.close()
