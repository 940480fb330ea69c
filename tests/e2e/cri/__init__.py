"""A client of the Kubernetes Container Runtime Interface: grpclib and betterproto2 over a unix socket.

Owns: the calls of the lane, each counted. Must not know: what is asserted about them, NRI, resctrl.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypeVar

from grpclib.client import Channel
from grpclib.exceptions import GRPCError, StreamTerminatedError

from tests.e2e.cri.gen.runtime import v1 as api

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

__all__ = ["CriClient", "api"]

CALL_SECONDS = 20.0
"""Deadline of one call. The slowest legal one, a StartContainer whose plugin misses its 2 s, is far below."""

Reply = TypeVar("Reply")


class CriClient:
    """One connection to a CRI runtime.

    Attributes:
        calls: How many calls were made.
        failures: What each failed call answered. It is raised too; a test of a whole run counts here.
    """

    def __init__(self, socket: Path) -> None:
        self.calls = 0
        self.failures: list[str] = []
        self._channel = Channel(path=str(socket))
        self._runtime = api.RuntimeServiceStub(self._channel)
        self._images = api.ImageServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._channel.close()

    async def version(self) -> api.VersionResponse:
        """Ask who answers; a runtime that does is up."""
        return await self._counted(
            self._runtime.version(api.VersionRequest(version="v1"), timeout=CALL_SECONDS)
        )

    async def has_image(self, reference: str) -> bool:
        """Tell whether the runtime knows an image."""
        request = api.ImageStatusRequest(image=api.ImageSpec(image=reference))
        return (
            await self._counted(self._images.image_status(request, timeout=CALL_SECONDS))
        ).image is not None

    async def run_pod(self, config: api.PodSandboxConfig) -> str:
        """Start a pod sandbox; returns its id."""
        request = api.RunPodSandboxRequest(config=config)
        return (
            await self._counted(self._runtime.run_pod_sandbox(request, timeout=CALL_SECONDS))
        ).pod_sandbox_id

    async def stop_pod(self, sandbox_id: str) -> None:
        """Stop a pod sandbox and every container in it."""
        request = api.StopPodSandboxRequest(pod_sandbox_id=sandbox_id)
        await self._counted(self._runtime.stop_pod_sandbox(request, timeout=CALL_SECONDS))

    async def remove_pod(self, sandbox_id: str) -> None:
        """Remove a pod sandbox and every container in it."""
        request = api.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id)
        await self._counted(self._runtime.remove_pod_sandbox(request, timeout=CALL_SECONDS))

    async def pods(self) -> list[api.PodSandbox]:
        """List every pod sandbox, the stopped ones too."""
        return (await self._counted(self._runtime.list_pod_sandbox(timeout=CALL_SECONDS))).items

    async def containers(self) -> list[api.Container]:
        """List every container, those that have ended too."""
        return (await self._counted(self._runtime.list_containers(timeout=CALL_SECONDS))).containers

    async def create_container(
        self, sandbox_id: str, config: api.ContainerConfig, pod: api.PodSandboxConfig
    ) -> str:
        """Make a container in a pod without starting it; returns its id."""
        request = api.CreateContainerRequest(pod_sandbox_id=sandbox_id, config=config, sandbox_config=pod)
        return (
            await self._counted(self._runtime.create_container(request, timeout=CALL_SECONDS))
        ).container_id

    async def start_container(self, container_id: str) -> None:
        """Start a container; returns when its first process has been let go."""
        request = api.StartContainerRequest(container_id=container_id)
        await self._counted(self._runtime.start_container(request, timeout=CALL_SECONDS))

    async def stop_container(self, container_id: str) -> None:
        """Kill a container, without a grace period."""
        request = api.StopContainerRequest(container_id=container_id, timeout=0)
        await self._counted(self._runtime.stop_container(request, timeout=CALL_SECONDS))

    async def remove_container(self, container_id: str) -> None:
        """Remove a container; a running one is killed first."""
        request = api.RemoveContainerRequest(container_id=container_id)
        await self._counted(self._runtime.remove_container(request, timeout=CALL_SECONDS))

    async def update_container(self, container_id: str, cpu_shares: int) -> None:
        """Change a container's share of the processor."""
        request = api.UpdateContainerResourcesRequest(
            container_id=container_id, linux=api.LinuxContainerResources(cpu_shares=cpu_shares)
        )
        await self._counted(self._runtime.update_container_resources(request, timeout=CALL_SECONDS))

    async def exec(self, container_id: str, *command: str) -> bytes:
        """Run a command in a running container to its end; returns its standard output."""
        request = api.ExecSyncRequest(container_id=container_id, cmd=list(command), timeout=10)
        return (await self._counted(self._runtime.exec_sync(request, timeout=CALL_SECONDS))).stdout

    async def _counted(self, call: Awaitable[Reply]) -> Reply:
        self.calls += 1
        try:
            return await call
        except (GRPCError, StreamTerminatedError, OSError, TimeoutError) as err:
            self.failures.append(repr(err))
            raise
