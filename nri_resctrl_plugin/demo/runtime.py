"""The runtime's side of NRI, small enough to run anywhere: for the demonstration and for tests.

Owns: the socket, the pods and containers that "run", the plugin that is connected. Must not know: resctrl, or
what the plugin does.

It speaks the real wire over a real unix socket, and treats a plugin as a runtime does: one plugin registers
at a time, each answer has a deadline, who misses one is dropped.

Rules:
    1. The world (pods, containers) lasts; connections come and go.
    2. Events are told one after another, whoever asks for them.
    3. A plugin gets events only after it was synchronized.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Self

from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from nri_resctrl_plugin.demo.encode import container_message, pod_message
from nri_resctrl_plugin.demo.peer import MAX_PART_BYTES, PluginPeer, Style, split_parts
from nri_resctrl_plugin.nri import api, mux, transport
from nri_resctrl_plugin.nri.wire import WireError

if TYPE_CHECKING:
    from pathlib import Path

    from nri_resctrl_plugin.nri.messages import Container, PodSandbox

__all__ = ["RuntimeSide", "Style"]


class _Registration(api.RuntimeBase):
    """Takes the one RegisterPlugin of a connection."""

    def __init__(self) -> None:
        self.request: asyncio.Future[api.RegisterPluginRequest] = asyncio.get_running_loop().create_future()

    async def register_plugin(self, message: api.RegisterPluginRequest) -> api.Empty:
        """Take a plugin with a proper name and index. Who is refused stays connected, to no use."""
        if not re.fullmatch(r"[A-Za-z0-9_.+-]+", message.plugin_name):
            raise GRPCError(Status.UNKNOWN, f"invalid plugin name {message.plugin_name!r}")
        if not re.fullmatch(r"[0-9]{2}", message.plugin_idx):
            raise GRPCError(Status.UNKNOWN, f"invalid plugin index {message.plugin_idx!r}")
        if self.request.done():
            raise GRPCError(Status.UNKNOWN, "the plugin is registered already")
        self.request.set_result(message)
        return api.Empty()

    def give_up(self, _: object) -> None:
        """Take note that the connection ended; called in any case at its end."""
        if not self.request.done():
            self.request.set_exception(StreamTerminatedError("the connection ended before a registration"))


class RuntimeSide:
    """A runtime without containers: it tells plugins what it is told has happened.

    Args:
        socket_path: Where to listen; a stale socket there is replaced.
        style: How events are delivered.
        name: What Configure says the runtime is.
        version: What Configure says its version is.
        nri_version: What Configure says the version of its NRI is.
        config: Configuration text for the plugin.
        request_timeout: Seconds that a plugin has for each answer.
        told_timeout: What Configure says instead; None says the truth.
        registration_timeout: Seconds that a plugin has to register.
        part_bytes: Most bytes of one Synchronize message.

    Attributes:
        pods: What runs, by sandbox id; changed by the calls below, or directly before a plugin connects.
        containers: What runs, by container id.
        connections: How many connections were taken so far.
        dropped: Why plugins were dropped, in order.
    """

    def __init__(  # noqa: PLR0913 - each is a knob that a test turns
        self,
        socket_path: Path,
        *,
        style: Style = Style.DEDICATED,
        name: str = "demo-runtime",
        version: str = "v1.0.0",
        nri_version: str = "v0.12.2",
        config: str = "",
        request_timeout: float = 2.0,
        told_timeout: float | None = None,
        registration_timeout: float = 5.0,
        part_bytes: int = MAX_PART_BYTES,
    ) -> None:
        self.socket_path = socket_path
        self._style = style
        self._request_timeout = request_timeout
        self._registration_timeout = registration_timeout
        self._part_bytes = part_bytes
        self._configure = api.ConfigureRequest(
            config=config,
            runtime_name=name,
            runtime_version=version,
            registration_timeout=round(registration_timeout * 1000),
            request_timeout=round((request_timeout if told_timeout is None else told_timeout) * 1000),
            NRI_version=nri_version,
        )
        self.pods: dict[str, PodSandbox] = {}
        self.containers: dict[str, Container] = {}
        self.connections: int = 0
        self.dropped: list[str] = []
        self._listener: asyncio.Server | None = None
        self._trunks: dict[transport.Trunk, asyncio.Task[None]] = {}
        self._plugin: tuple[PluginPeer, transport.Trunk] | None = None
        self._changed = asyncio.Condition()
        self._one_plugin = asyncio.Lock()
        self._one_event = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    @property
    def plugin(self) -> PluginPeer | None:
        """The plugin that gets events, or None."""
        return self._plugin[0] if self._plugin is not None else None

    async def start(self) -> None:
        """Listen. Also after `stop`: the world is as it was.

        Raises:
            OSError: The socket cannot be made.
        """
        self.socket_path.unlink(missing_ok=True)
        self._listener = await asyncio.start_unix_server(self._accept, self.socket_path, limit=8 << 20)

    async def stop(self) -> None:
        """Close every connection and the socket, as a runtime that goes away does."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            self.socket_path.unlink(missing_ok=True)
        await self.drop("the runtime stops")

    async def drop(self, reason: str = "dropped by the script") -> None:
        """Close every connection and go on listening."""
        tasks = dict(self._trunks)
        for trunk in tasks:
            self.dropped.append(reason)
            await trunk.close()
        if tasks:
            await asyncio.wait(tasks.values())

    async def synchronized(self, timeout: float = 10.0) -> PluginPeer:  # noqa: ASYNC109 - the callers' deadline
        """Wait until a plugin is connected and synchronized, and return it.

        Raises:
            TimeoutError: None is, in that many seconds.
        """
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(lambda: self._plugin is not None)
        assert self._plugin is not None  # noqa: S101 - just waited for
        return self._plugin[0]

    async def gone(self, timeout: float = 10.0) -> None:  # noqa: ASYNC109 - the callers' deadline
        """Wait until no plugin is connected.

        Raises:
            TimeoutError: One still is, after that many seconds.
        """
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(lambda: self._plugin is None)

    async def run_pod(self, pod: PodSandbox) -> None:
        """A pod sandbox runs."""
        self.pods[pod.id] = pod
        await self._tell(api.Event.RUN_POD_SANDBOX, pod, None)

    async def stop_pod(self, sandbox_id: str) -> None:
        """A pod sandbox has stopped."""
        await self._tell(api.Event.STOP_POD_SANDBOX, self.pods[sandbox_id], None)

    async def remove_pod(self, sandbox_id: str) -> None:
        """A pod sandbox is gone."""
        await self._tell(api.Event.REMOVE_POD_SANDBOX, self.pods.pop(sandbox_id), None)

    async def start_container(self, container: Container) -> None:
        """A container is about to run."""
        self.containers[container.id] = container
        await self._tell_of(api.Event.START_CONTAINER, container)

    async def update_container(self, container_id: str) -> None:
        """A container's resources change. Told whether or not the plugin asked for it."""
        container = self.containers[container_id]
        pod = self.pods.get(container.pod_sandbox_id)
        await self._tell(api.Event.UPDATE_CONTAINER, pod, container, unasked=True)

    async def stop_container(self, container_id: str) -> None:
        """A container's processes are gone."""
        await self._tell_of(api.Event.STOP_CONTAINER, self.containers[container_id])

    async def remove_container(self, container_id: str) -> None:
        """A container is being deleted."""
        await self._tell_of(api.Event.REMOVE_CONTAINER, self.containers.pop(container_id))

    async def _tell_of(self, kind: api.Event, container: Container) -> None:
        await self._tell(kind, self.pods.get(container.pod_sandbox_id), container)

    async def _tell(
        self, kind: api.Event, pod: PodSandbox | None, container: Container | None, *, unasked: bool = False
    ) -> None:
        """Tell the plugin, if there is one; drop one that does not answer in time.

        Raises:
            GRPCError: The plugin answers with an error: in a real runtime the pod would fail.
        """
        async with self._one_event:
            if self._plugin is None:
                return
            peer, trunk = self._plugin
            try:
                await peer.event(kind, pod, container, unasked=unasked)
            except StreamTerminatedError:
                return  # it has gone; that is its business
            except GRPCError as error:
                if error.status is not Status.DEADLINE_EXCEEDED:
                    raise
                self.dropped.append(f"no answer to {kind.name} in time")
                await trunk.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends."""
        self.connections += 1
        trunk = transport.Trunk(reader, writer)
        registration = _Registration()
        trunk.serve(mux.RUNTIME_CONN, [registration])
        stub = transport.stub(api.PluginStub, trunk.channel(mux.PLUGIN_CONN))
        peer = PluginPeer(stub, self._style, self._request_timeout)
        reading = asyncio.create_task(trunk.run())
        self._trunks[trunk] = reading
        try:
            reading.add_done_callback(registration.give_up)
            async with self._one_plugin:
                await self._introduce(peer, registration, trunk)
            await reading
        except (GRPCError, StreamTerminatedError, TimeoutError, WireError, OSError) as error:
            self.dropped.append(f"{type(error).__name__}: {error}")
        finally:
            await trunk.close()
            with contextlib.suppress(WireError, OSError):
                await reading
            del self._trunks[trunk]
            if self._plugin is not None and self._plugin[1] is trunk:
                await self._set_plugin(None)

    async def _introduce(self, peer: PluginPeer, registration: _Registration, trunk: transport.Trunk) -> None:
        """Register, configure and synchronize a plugin."""
        async with asyncio.timeout(self._registration_timeout):
            request = await registration.request
        peer.name, peer.idx, peer.nri_version = request.plugin_name, request.plugin_idx, request.NRI_version
        await peer.configure(self._configure)
        async with self._one_event:  # nothing may happen between the list and the first event
            pods = [bytes(pod_message(pod)) for pod in self.pods.values()]
            containers = [bytes(container_message(container)) for container in self.containers.values()]
            await peer.synchronize(split_parts(pods, containers, self._part_bytes))
            await self._set_plugin((peer, trunk))

    async def _set_plugin(self, plugin: tuple[PluginPeer, transport.Trunk] | None) -> None:
        async with self._changed:
            self._plugin = plugin
            self._changed.notify_all()
