"""What the runtime calls, as the handler sees it: both delivery styles into one line of handler calls.

Owns: the translation of NRI's calls, and the collecting of a Synchronize that comes in parts. Must not know:
sockets, registration, reconnecting.

Rules:
    1. An event is never answered with an error: that could keep a pod from starting.
    2. Calls of their own (NRI 0.12) and StateChange (before) reach the same handlers.
    3. An event of an unknown kind, or without the pod or container that it is about, is answered and ignored.
    4. The events asked for are always spelled out: a mask of 0 asks for everything, and would put the plugin
       in front of every container's creation.
    5. A Synchronize is answered before it is decoded; what it lists is handed on when the last part has come.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Final, TypeVar

import structlog
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from nri_resctrl_plugin.nri import api, messages
from nri_resctrl_plugin.nri.server import LatePolicy
from nri_resctrl_plugin.nri.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from structlog.typing import FilteringBoundLogger

    from nri_resctrl_plugin.nri.delivery import Delivery
    from nri_resctrl_plugin.nri.handler import NriHandler
    from nri_resctrl_plugin.nri.messages import Container, PodSandbox, RuntimeInfo

__all__ = ["EVENT_MASK", "LATE", "SYNCHRONIZE", "PluginService"]

_WANTED: Final = (
    api.Event.RUN_POD_SANDBOX,
    api.Event.STOP_POD_SANDBOX,
    api.Event.REMOVE_POD_SANDBOX,
    api.Event.START_CONTAINER,
    api.Event.STOP_CONTAINER,
    api.Event.REMOVE_CONTAINER,
)

EVENT_MASK: Final = sum(1 << (int(event) - 1) for event in _WANTED)
"""The events asked for; all of them exist in every NRI since 0.2."""

_PREFIX: Final = "/nri.pkg.api.v1alpha1.Plugin/"
_CONFIGURE: Final = _PREFIX + "Configure"
SYNCHRONIZE: Final = _PREFIX + "Synchronize"
"""Route of the call whose answer must be on time, or a runtime before NRI 0.7 forgets the plugin."""

_EVENT_CALLS: Final = (
    "RunPodSandbox",
    "StopPodSandbox",
    "RemovePodSandbox",
    "StartContainer",
    "StopContainer",
    "RemoveContainer",
    "UpdateContainer",
    "StateChange",
)

LATE: Final = LatePolicy(
    answers={
        _CONFIGURE: bytes(api.ConfigureResponse(events=EVENT_MASK)),
        **{_PREFIX + name: b"" for name in _EVENT_CALLS},
    },
    budget=2.0,  # NRI's default until Configure says otherwise
)
"""What to answer while a handler still works. It works on; the runtime would drop the plugin."""

_TURN_SECONDS: Final = 0.005
_ValueT = TypeVar("_ValueT")


class PluginService(api.PluginBase):
    """NRI's Plugin service in front of one handler, for one connection.

    Args:
        handler: What is called.
        delivery: The line that calls it.
        on_configure: Called when Configure has arrived.
        on_failure: Called when the handler could not be configured, after the runtime was told.
    """

    def __init__(
        self,
        handler: NriHandler,
        delivery: Delivery,
        *,
        on_configure: Callable[[RuntimeInfo], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._handler = handler
        self._delivery = delivery
        self._on_configure = on_configure
        self._on_failure = on_failure
        self._pod_calls: Mapping[int, Callable[[PodSandbox], Awaitable[None]]] = {
            int(api.Event.RUN_POD_SANDBOX): handler.run_pod_sandbox,
            int(api.Event.STOP_POD_SANDBOX): handler.stop_pod_sandbox,
            int(api.Event.REMOVE_POD_SANDBOX): handler.remove_pod_sandbox,
        }
        self._container_calls: Mapping[int, Callable[[PodSandbox | None, Container], Awaitable[None]]] = {
            int(api.Event.START_CONTAINER): handler.start_container,
            int(api.Event.UPDATE_CONTAINER): handler.update_container,
            int(api.Event.STOP_CONTAINER): handler.stop_container,
            int(api.Event.REMOVE_CONTAINER): handler.remove_container,
        }
        self._pods: list[bytes] = []
        self._containers: list[bytes] = []
        self._style: str | None = None
        self._answer_left: asyncio.Future[bool] | None = None
        self._log: FilteringBoundLogger = structlog.get_logger("nri_resctrl_plugin.nri.service")

    async def configure(self, message: api.ConfigureRequest) -> api.ConfigureResponse:
        """Hand on who the runtime is, and ask for the events that are handled.

        Raises:
            GRPCError: The handler could not be configured; the runtime closes the connection.
        """
        runtime = messages.runtime_value(message)
        self._on_configure(runtime)
        error = await self._delivery.put("CONFIGURE", functools.partial(self._handler.configure, runtime))
        if error is not None:
            # Later, so that the answer leaves first: whoever hears of the failure closes the connection.
            asyncio.get_running_loop().call_soon(self._on_failure, error)
            raise GRPCError(Status.UNKNOWN, f"the plugin cannot use its configuration: {error}")
        return api.ConfigureResponse(events=EVENT_MASK)

    async def synchronize(self, message: api.SynchronizeRequest) -> api.SynchronizeResponse:
        """Keep one part of the list. `more` is echoed: a runtime reads that as "this plugin takes parts"."""
        pods, containers, more = messages.sync_parts(message)
        self._pods += pods
        self._containers += containers
        if not more:
            # It takes its place in the line now: an event that follows the answer must not overtake it.
            pods, self._pods = self._pods, []
            containers, self._containers = self._containers, []
            self._answer_left = asyncio.get_running_loop().create_future()
            work = functools.partial(self._synchronize, pods, containers, self._answer_left)
            self._delivery.put("SYNCHRONIZE", work)
        return api.SynchronizeResponse(more=more)

    @property
    def list_is_whole(self) -> bool:
        """Whether a whole list waits for `release_list`."""
        return self._answer_left is not None

    def release_list(self, *, valid: bool) -> None:
        """Let a whole list go to the handler, if there is one.

        Args:
            valid: The answer to its last part has left in time. Otherwise the list is dropped; another
                connection brings another.
        """
        if self._answer_left is not None:
            self._answer_left.set_result(valid)
            self._answer_left = None

    async def _synchronize(
        self, raw_pods: list[bytes], raw_containers: list[bytes], answer_left: asyncio.Future[bool]
    ) -> None:
        if not await answer_left:
            return
        pods, broken_pods = await _decode_all(raw_pods, messages.decode_pod)
        containers, broken_containers = await _decode_all(raw_containers, messages.decode_container)
        self._log.info("synchronized", pods=len(pods), containers=len(containers))
        if broken_pods or broken_containers:
            self._log.error("synchronize_undecodable", pods=broken_pods, containers=broken_containers)
        await asyncio.sleep(0)  # what a handler does at once with a big list is a long turn by itself
        await self._handler.synchronize(pods, containers)

    async def shutdown(self, message: api.Empty) -> api.Empty:
        """Take note. No runtime has ever sent it; the end of the connection is what counts."""
        del message
        self._log.info("runtime_shuts_down")
        return api.Empty()

    async def run_pod_sandbox(self, message: api.RunPodSandboxRequest) -> api.RunPodSandboxResponse:
        """See `NriHandler.run_pod_sandbox`."""
        await self._dedicated(api.Event.RUN_POD_SANDBOX, message.pod)
        return api.RunPodSandboxResponse()

    async def stop_pod_sandbox(self, message: api.StopPodSandboxRequest) -> api.StopPodSandboxResponse:
        """See `NriHandler.stop_pod_sandbox`."""
        await self._dedicated(api.Event.STOP_POD_SANDBOX, message.pod)
        return api.StopPodSandboxResponse()

    async def remove_pod_sandbox(self, message: api.RemovePodSandboxRequest) -> api.RemovePodSandboxResponse:
        """See `NriHandler.remove_pod_sandbox`."""
        await self._dedicated(api.Event.REMOVE_POD_SANDBOX, message.pod)
        return api.RemovePodSandboxResponse()

    async def start_container(self, message: api.StartContainerRequest) -> api.StartContainerResponse:
        """See `NriHandler.start_container`."""
        await self._dedicated(api.Event.START_CONTAINER, message.pod, message.container)
        return api.StartContainerResponse()

    async def update_container(self, message: api.UpdateContainerRequest) -> api.UpdateContainerResponse:
        """See `NriHandler.update_container`."""
        await self._dedicated(api.Event.UPDATE_CONTAINER, message.pod, message.container)
        return api.UpdateContainerResponse()

    async def stop_container(self, message: api.StopContainerRequest) -> api.StopContainerResponse:
        """See `NriHandler.stop_container`."""
        await self._dedicated(api.Event.STOP_CONTAINER, message.pod, message.container)
        return api.StopContainerResponse()

    async def remove_container(self, message: api.RemoveContainerRequest) -> api.RemoveContainerResponse:
        """See `NriHandler.remove_container`."""
        await self._dedicated(api.Event.REMOVE_CONTAINER, message.pod, message.container)
        return api.RemoveContainerResponse()

    async def state_change(self, message: api.StateChangeEvent) -> api.Empty:
        """Take an event in the style of NRI before 0.12."""
        self._note_style("StateChange")
        await self._event(int(message.event), message.pod, message.container)
        return api.Empty()

    async def _dedicated(
        self, event: api.Event, pod: api.PodSandbox | None, container: api.Container | None = None
    ) -> None:
        self._note_style("dedicated calls")
        await self._event(int(event), pod, container)

    async def _event(
        self, event: int, raw_pod: api.PodSandbox | None, raw_container: api.Container | None
    ) -> None:
        """Queue an event for its handler and wait until that has returned."""
        pod = messages.pod_value(raw_pod)
        container = messages.container_value(raw_container)
        if (pod_call := self._pod_calls.get(event)) is not None and pod is not None:
            await self._delivery.put(api.Event(event).name, functools.partial(pod_call, pod))
        elif (call := self._container_calls.get(event)) is not None and container is not None:
            await self._delivery.put(api.Event(event).name, functools.partial(call, pod, container))
        else:
            self._log.debug("event_ignored", kind=event)

    def _note_style(self, style: str) -> None:
        if self._style is None:
            self._style = style
            self._log.info("event_delivery", style=style)


async def _decode_all(
    raw: list[bytes], decode: Callable[[bytes], _ValueT | None]
) -> tuple[Sequence[_ValueT], int]:
    """Decode items one by one, letting others run in between; return them and the number of broken ones."""
    loop = asyncio.get_running_loop()
    turn = loop.time()
    values: list[_ValueT] = []
    broken = 0
    for index, item in enumerate(raw):
        raw[index] = b""  # a big list is held once, not twice
        try:
            value = decode(item)
        except WireError:
            value = None
        if value is None:
            broken += 1
        else:
            values.append(value)
        if loop.time() - turn > _TURN_SECONDS:
            await asyncio.sleep(0)
            turn = loop.time()
    return values, broken
