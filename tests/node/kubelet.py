"""The kubelet's hands on a node: pods with container logs, in which each workload's first act can be read.

Owns: where logs are, and reading the first act. Must not know: the plugin, which group is right.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from grpclib.exceptions import GRPCError

from tests.e2e.pods import PodMaker
from tests.node.patience import eventually
from tests.node.witness import CGROUPS, monitoring_group

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.containerd import Containerd
    from tests.e2e.cri import api
    from tests.e2e.pods import Pod
    from tests.node.workloads import Workload

__all__ = ["Kubelet"]


class Kubelet(PodMaker):
    """Makes pods and runs workloads in them.

    Attributes:
        asked_again: Refusals to remove a pod after which it was asked once more.
    """

    def __init__(self, containerd: Containerd) -> None:
        super().__init__(containerd)
        self.asked_again: list[str] = []
        self._logs = containerd.directory / "logs"
        self._log_of: dict[str, Path] = {}

    async def run(self, pod: Pod, workload: Workload) -> str:
        """Start a workload in a container of its own, and wait for its first act; returns its id."""
        config = self._container_config(workload.command, workload.mounts)
        config.log_path = f"{config.metadata.name}.log" if config.metadata is not None else "log"
        container_id = await self.cri.create_container(pod.sandbox_id, config, pod.config)
        self._log_of[container_id] = self._logs / pod.uid / config.log_path
        await self.cri.start_container(container_id)
        await eventually(
            f"{workload.name} has said in which group it is",
            lambda: self.first_group(container_id) is not None,
        )
        return container_id

    async def runs_in_full(self, pod: Pod, container_id: str, workload: Workload) -> None:
        """Wait until a workload has all the threads that it is going to have."""
        threads = CGROUPS / self.cgroup(pod, container_id).lstrip("/") / "cgroup.threads"
        await eventually(
            f"{workload.name} has {workload.threads} threads",
            lambda: len(threads.read_text().split()) >= workload.threads,
        )

    def cgroup(self, pod: Pod, container_id: str) -> str:
        """Return a container's cgroup, without the mount's prefix."""
        return f"{self._cgroup_parent(pod.uid)}/{container_id}"

    def first_group(self, container_id: str) -> str | None:
        """Return the group that a workload named first, "" for the default one; None if not yet."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return monitoring_group(_standard_output(self._log_of[container_id].read_text()))
        return None

    async def _remove_sandbox(self, sandbox_id: str) -> None:
        """Remove a pod; ask again where that is refused.

        A kubelet asks until it is done. containerd 1.7 was seen to refuse once in some hundred removals, with
        "failed to stop container: failed to kill container: ttrpc: closed".
        """
        try:
            await super()._remove_sandbox(sandbox_id)
        except GRPCError:
            self.asked_again += self.cri.failures[-1:]
            await super()._remove_sandbox(sandbox_id)

    def _pod_config(self, uid: str, attempt: int) -> api.PodSandboxConfig:
        config = super()._pod_config(uid, attempt)
        config.log_directory = str(self._logs / uid)
        return config


def _standard_output(log: str) -> str:
    """Return what a container printed, whole lines only, from a log in CRI's format."""
    words = [line.split(" ", 3) for line in log.splitlines(keepends=True) if line.endswith("\n")]
    return "".join(it[3] for it in words if len(it) == 4 and it[1:3] == ["stdout", "F"])
