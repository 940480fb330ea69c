"""One plugin as the runtime sees it: the calls, in either delivery style.

Owns: how an event becomes a call. Must not know: which pods there are, or how the plugin came to be
connected.

It does what containerd's NRI adaptation does, as far as a monitoring plugin can tell the difference.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from nri_resctrl_plugin.demo.encode import container_message, pod_message
from nri_resctrl_plugin.nri import api

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nri_resctrl_plugin.nri.messages import Container, PodSandbox

__all__ = ["ALL_EVENTS", "MAX_PART_BYTES", "PluginPeer", "Style", "split_parts"]

ALL_EVENTS: Final = 0x3FFF
"""Every event that NRI 0.12 has; what a mask of 0 asks for."""

MAX_PART_BYTES: Final = (4 << 20) - 4096
"""Most bytes of one Synchronize, its envelope left aside."""

_ALWAYS_DEDICATED: Final = frozenset({api.Event.UPDATE_CONTAINER, api.Event.STOP_CONTAINER})


class Style(Enum):
    """How a runtime delivers events."""

    STATE_CHANGE = "StateChange"
    """NRI before 0.12: one call for most kinds of event."""
    DEDICATED = "dedicated"
    """NRI 0.12: a call for each kind; StateChange for a plugin that does not know them."""


class PluginPeer:
    """A connected plugin.

    Args:
        stub: Calls the plugin.
        style: How events are delivered.
        timeout: Seconds that the plugin has for each answer.

    Attributes:
        name: As it registered.
        idx: As it registered.
        nri_version: As it registered, "" where it did not say.
        events: The events that it asked for.
        calls: How many event calls it has answered.
    """

    def __init__(self, stub: api.PluginStub, style: Style, timeout: float) -> None:
        self._stub = stub
        self._style = style
        self._timeout = timeout
        self.name: str = ""
        self.idx: str = ""
        self.nri_version: str = ""
        self.events: int = 0
        self.calls: int = 0

    async def configure(self, request: api.ConfigureRequest) -> None:
        """Configure it and learn which events it wants.

        Raises:
            GRPCError: It refuses, or asks for events that do not exist.
        """
        answer = await self._stub.configure(request, timeout=self._timeout)
        if answer.events & ~ALL_EVENTS:
            raise GRPCError(Status.INVALID_ARGUMENT, f"invalid event mask {answer.events:#x}")
        self.events = answer.events or ALL_EVENTS

    async def synchronize(self, parts: Sequence[api.SynchronizeRequest]) -> None:
        """Tell it what exists; all parts together have one timeout.

        Raises:
            GRPCError: It does not answer in time, or cannot take a list in parts.
        """
        for part in parts:
            answer = await self._stub.synchronize(part, timeout=self._timeout)
            if part.more and not answer.more:
                raise GRPCError(Status.UNIMPLEMENTED, "plugin does not handle split sync requests")

    async def event(
        self, kind: api.Event, pod: PodSandbox | None, container: Container | None, *, unasked: bool = False
    ) -> None:
        """Tell it one event, if it asked for it or `unasked` is true.

        Raises:
            GRPCError: It answers with an error, or not in time.
        """
        if not unasked and not self.events & 1 << (int(kind) - 1):
            return
        pod_part = None if pod is None else pod_message(pod)
        container_part = None if container is None else container_message(container)
        if self._style is Style.DEDICATED or kind in _ALWAYS_DEDICATED:
            try:
                await self._dedicated(kind, pod_part, container_part)
            except GRPCError as error:
                if error.status is not Status.UNIMPLEMENTED:
                    raise
                self._style = Style.STATE_CHANGE  # for the rest of the connection
            else:
                self.calls += 1
                return
        await self._stub.state_change(
            api.StateChangeEvent(event=kind, pod=pod_part, container=container_part), timeout=self._timeout
        )
        self.calls += 1

    async def _dedicated(
        self, kind: api.Event, pod: api.PodSandbox | None, container: api.Container | None
    ) -> None:
        stub, timeout = self._stub, self._timeout
        match kind:
            case api.Event.RUN_POD_SANDBOX:
                await stub.run_pod_sandbox(api.RunPodSandboxRequest(pod=pod), timeout=timeout)
            case api.Event.STOP_POD_SANDBOX:
                await stub.stop_pod_sandbox(api.StopPodSandboxRequest(pod=pod), timeout=timeout)
            case api.Event.REMOVE_POD_SANDBOX:
                await stub.remove_pod_sandbox(api.RemovePodSandboxRequest(pod=pod), timeout=timeout)
            case api.Event.START_CONTAINER:
                start = api.StartContainerRequest(pod=pod, container=container)
                await stub.start_container(start, timeout=timeout)
            case api.Event.UPDATE_CONTAINER:
                update = api.UpdateContainerRequest(pod=pod, container=container)
                await stub.update_container(update, timeout=timeout)
            case api.Event.STOP_CONTAINER:
                stop = api.StopContainerRequest(pod=pod, container=container)
                await stub.stop_container(stop, timeout=timeout)
            case api.Event.REMOVE_CONTAINER:
                remove = api.RemoveContainerRequest(pod=pod, container=container)
                await stub.remove_container(remove, timeout=timeout)
            case _:
                raise ValueError(f"{kind.name} is no event of this runtime side")


def split_parts(
    pods: Sequence[bytes], containers: Sequence[bytes], max_bytes: int = MAX_PART_BYTES
) -> list[api.SynchronizeRequest]:
    """Cut a list into messages that fit; at least one.

    Pods and containers are cut independently, as runtimes do: a container can come before its pod.

    Args:
        pods: Encoded pods.
        containers: Encoded containers.
        max_bytes: Most bytes in one message. An item that is longer has a message of its own.
    """
    count = 1
    while True:
        parts = [
            api.SynchronizeRequest(
                pods=_share(pods, index, count),
                containers=_share(containers, index, count),
                more=index + 1 < count,
            )
            for index in range(count)
        ]
        if count >= max(len(pods), len(containers)) or all(_size(part) <= max_bytes for part in parts):
            return parts
        count += 1


def _share(items: Sequence[bytes], index: int, count: int) -> list[bytes]:
    """Return the items of one of so many parts of nearly equal length."""
    return list(items[len(items) * index // count : len(items) * (index + 1) // count])


def _size(part: api.SynchronizeRequest) -> int:
    """Return an upper bound of a part's encoded bytes, without encoding it."""
    return sum(len(item) + 6 for item in (*part.pods, *part.containers)) + 2
