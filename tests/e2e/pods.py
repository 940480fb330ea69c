"""Pods and containers for tests: made over CRI the way a kubelet makes them, and removed again.

Owns: the CRI configurations and the list of what was made. Must not know: NRI, the plugin, resctrl.
"""

from __future__ import annotations

import contextlib
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Self

from attrs import field, frozen
from grpclib.exceptions import GRPCError, StreamTerminatedError

from tests.e2e import observer
from tests.e2e.containerd import IMAGE, View
from tests.e2e.cri import CriClient, api
from tests.e2e.waiting import until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.e2e.containerd import Containerd

__all__ = ["SLEEP", "Pod", "PodMaker", "nest", "python_command"]

SLEEP = ("/bin/sleep", "1000000000")
"""A workload that does nothing for thirty years."""


@frozen
class Pod:
    """One pod sandbox that was made.

    Attributes:
        uid: The pod's uid, as a kubelet would choose it.
        sandbox_id: The runtime's id.
        config: What it was made from; CRI wants it again with each container.
    """

    uid: str
    sandbox_id: str
    config: api.PodSandboxConfig = field(eq=False, repr=False)


class PodMaker:
    """A kubelet's hands. Leaving its context removes every pod, whatever happened.

    Attributes:
        cri: The client; it counts calls and failures.
    """

    def __init__(self, containerd: Containerd) -> None:
        self._containerd = containerd
        self.cri = CriClient(containerd.socket)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        try:
            # A daemon that a failed test left dead or dying cannot; the sweep ends its pods.
            with contextlib.suppress(OSError, GRPCError, StreamTerminatedError):
                await self.remove_all()
        finally:
            await self.cri.__aexit__(*exc)

    async def pod(self, uid: str | None = None, attempt: int = 0) -> Pod:
        """Run a pod sandbox.

        Args:
            uid: The pod's uid; a new one if none is given. Two sandboxes of one uid differ in `attempt`.
            attempt: The how-manieth sandbox of the pod this is.
        """
        uid = uid or str(uuid.uuid4())
        config = self._pod_config(uid, attempt)
        return Pod(uid, await self.cri.run_pod(config), config)

    async def container(
        self,
        pod: Pod,
        command: Sequence[str] = SLEEP,
        *,
        mounts: Sequence[Path] = (),
        start: bool = True,
    ) -> str:
        """Make a container, and start it (see `start`) unless told not to; returns its id.

        Args:
            pod: The pod it belongs to.
            command: What it runs.
            mounts: Directories of this machine that it sees at the same place, read-only.
            start: Whether to start it.
        """
        config = self._container_config(command, mounts)
        container_id = await self.cri.create_container(pod.sandbox_id, config, pod.config)
        if start:
            await self.start(container_id)
        return container_id

    async def start(self, container_id: str) -> None:
        """Start a container, and wait until its first process has become the workload.

        CRI answers when that process has been let go; for a moment it is still runc's.
        """
        await self.cri.start_container(container_id)

        def runs() -> bool:
            names = {observer.comm(tid) for tid in observer.threads_in(container_id)}
            return bool(names - {""}) and observer.NOT_YET_EXECED not in names

        await until(f"the workload of {container_id} runs", runs)

    async def remove_container(self, container_id: str) -> None:
        """Stop and remove a container, as a kubelet does."""
        await self.cri.stop_container(container_id)
        await self.cri.remove_container(container_id)

    async def remove(self, pod: Pod) -> None:
        """Stop and remove a pod with its containers, and its cgroup, as a kubelet does."""
        await self._remove_sandbox(pod.sandbox_id)
        for mount in observer.cgroup_mounts():
            with contextlib.suppress(OSError):  # another sandbox of the pod may live in it
                (mount / self._cgroup_parent(pod.uid).lstrip("/")).rmdir()

    async def remove_all(self) -> None:
        """Remove every pod of the daemon, also those of another maker."""
        for sandbox in await self.cri.pods():
            with contextlib.suppress(GRPCError):  # what cannot be removed is the sweep's
                await self._remove_sandbox(sandbox.id)

    async def exited(self, container_id: str) -> None:
        """Wait until the runtime knows that a container's process has ended."""

        async def ended() -> bool:
            states = {it.id: it.state for it in await self.cri.containers()}
            return states[container_id] is api.ContainerState.CONTAINER_EXITED

        await until(f"container {container_id} has ended", ended)

    def threads(self, container_id: str) -> set[int]:
        """Return a container's threads, as the observer sees them."""
        return observer.threads_in(container_id)

    def _pod_config(self, uid: str, attempt: int) -> api.PodSandboxConfig:
        return api.PodSandboxConfig(
            metadata=api.PodSandboxMetadata(
                name=f"pod-{uid[:8]}", uid=uid, namespace="default", attempt=attempt
            ),
            linux=api.LinuxPodSandboxConfig(
                cgroup_parent=self._cgroup_parent(uid),
                security_context=api.LinuxSandboxSecurityContext(namespace_options=_namespaces()),
            ),
        )

    def _container_config(self, command: Sequence[str], mounts: Sequence[Path]) -> api.ContainerConfig:
        return api.ContainerConfig(
            metadata=api.ContainerMetadata(name=f"c-{uuid.uuid4().hex[:8]}"),
            image=api.ImageSpec(image=IMAGE),
            command=list(command),
            mounts=[
                api.Mount(container_path=str(it), host_path=str(it.resolve()), readonly=True) for it in mounts
            ],
            linux=api.LinuxContainerConfig(
                security_context=api.LinuxContainerSecurityContext(namespace_options=_namespaces())
            ),
        )

    async def _remove_sandbox(self, sandbox_id: str) -> None:
        await self.cri.stop_pod(sandbox_id)
        await self.cri.remove_pod(sandbox_id)

    def _cgroup_parent(self, uid: str) -> str:
        name = self._containerd.name
        if self._containerd.view in {View.SLICES, View.LITERAL}:
            leaf = f"{name}-burstable-pod{uid.replace('-', '_')}.slice"
            return f"/{name}.slice/{name}-burstable.slice/{leaf}"
        return f"/{name}/burstable/pod{uid}"


def _namespaces() -> api.NamespaceOption:
    return api.NamespaceOption(
        network=api.NamespaceMode.NODE,  # no CNI here
        pid=api.NamespaceMode.CONTAINER,
        ipc=api.NamespaceMode.NODE,
    )


def nest(container_id: str, pid: int, name: str) -> list[Path]:
    """Move a container's process into a cgroup below its own, in every hierarchy that has the container.

    Args:
        container_id: The container.
        pid: The process.
        name: The new cgroup, relative to the present one.

    Returns:
        The directories, one a hierarchy.
    """
    directories = [
        mount / path.lstrip("/") / name
        for path in observer.cgroups_of(pid)
        for mount in observer.cgroup_mounts()
        if container_id in path and (mount / path.lstrip("/")).is_dir()
    ]
    for directory in directories:
        _make_cgroup(directory)
        (directory / "cgroup.procs").write_text(str(pid))
    return directories


def _make_cgroup(directory: Path) -> None:
    if directory.is_dir():
        return
    _make_cgroup(directory.parent)
    directory.mkdir()
    for file in ("cpuset.cpus", "cpuset.mems"):  # cgroup v1 takes no process while these are empty
        if (directory / file).exists():
            (directory / file).write_text((directory.parent / file).read_text())


def python_command(script: str, *arguments: str) -> tuple[tuple[str, ...], tuple[Path, ...]]:
    """Return a command that runs a script with this machine's Python, and the directories to mount for it."""
    interpreter = Path(sys.executable).resolve()
    wanted = [Path("/lib"), Path("/lib64"), Path("/usr"), Path(sys.base_prefix).resolve()]
    mounts: list[Path] = []
    for it in wanted:
        if it.is_dir() and not any(it.is_relative_to(other) for other in mounts):
            mounts.append(it)
    return (str(interpreter), "-I", "-S", "-c", script, *arguments), tuple(mounts)
