"""What a plugin implements: one coroutine a kind of event.

Owns: the `NriHandler` protocol. Must not know: the wire.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nri_resctrl_plugin.nri.messages import Container, PodSandbox, RuntimeInfo

__all__ = ["NriHandler"]


class NriHandler(Protocol):
    """What the stub calls. One call at a time, in the order in which the runtime told.

    The runtime is answered by its deadline whether or not a call has returned, so a call may take its
    time; the next one waits. What a call raises is logged and never reaches the runtime: an error answer to
    an event can keep a pod from starting.
    """

    async def configure(self, runtime: RuntimeInfo) -> None:
        """Take the runtime's identity and configuration, once a connection, before anything else."""
        ...

    async def synchronize(self, pods: Sequence[PodSandbox], containers: Sequence[Container]) -> None:
        """Take the whole list of what exists, once a connection, after the runtime was answered."""
        ...

    async def run_pod_sandbox(self, pod: PodSandbox) -> None:
        """A pod sandbox runs; its containers do not exist yet."""
        ...

    async def stop_pod_sandbox(self, pod: PodSandbox) -> None:
        """A pod sandbox has stopped. CRI-O may tell it twice."""
        ...

    async def remove_pod_sandbox(self, pod: PodSandbox) -> None:
        """A pod sandbox is gone. It never comes for pods older than a restart of containerd."""
        ...

    async def start_container(self, pod: PodSandbox | None, container: Container) -> None:
        """A container is about to run: its first process exists and has not yet exec'd the workload."""
        ...

    async def stop_container(self, pod: PodSandbox | None, container: Container) -> None:
        """A container's processes are gone. `pod` is None where the runtime no longer knows it."""
        ...

    async def remove_container(self, pod: PodSandbox | None, container: Container) -> None:
        """A container is being deleted."""
        ...

    async def update_container(self, pod: PodSandbox | None, container: Container) -> None:
        """A container's resources change. Not subscribed by the stub; a runtime may call it all the same."""
        ...
