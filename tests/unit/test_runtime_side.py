"""The runtime's side as a runtime: what it does to plugins that misbehave."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from hypothesis import given
from hypothesis import strategies as st

from nri_resctrl_plugin.demo.peer import ALL_EVENTS, MAX_PART_BYTES, split_parts
from nri_resctrl_plugin.demo.runtime import RuntimeSide, Style
from nri_resctrl_plugin.nri import api, mux, transport
from nri_resctrl_plugin.nri.messages import Container, PodSandbox
from tests.nri_support import in_loop, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

POD = PodSandbox(id="sb0", uid="uid0")


class Plugin(api.PluginBase):
    """A plugin by hand: answers what a test tells it to, in the way of its style.

    Attributes:
        calls: Names of the calls that came.
        events: What it asks for.
        echo: Whether it echoes `more`.
        does: What an event awaits.
    """

    def __init__(self, *, events: int = 0x627, echo: bool = True) -> None:
        self.calls: list[str] = []
        self.events = events
        self.echo = echo
        self.does: Callable[[], Awaitable[None]] | None = None

    async def configure(self, message: api.ConfigureRequest) -> api.ConfigureResponse:
        """Ask for events."""
        self.calls.append("configure")
        return api.ConfigureResponse(events=self.events)

    async def synchronize(self, message: api.SynchronizeRequest) -> api.SynchronizeResponse:
        """Take a list."""
        self.calls.append(f"synchronize({len(message.pods)}, {len(message.containers)})")
        return api.SynchronizeResponse(more=message.more and self.echo)

    async def state_change(self, message: api.StateChangeEvent) -> api.Empty:
        """Take an event of the old style."""
        self.calls.append(f"StateChange {message.event.name}")
        if self.does is not None:
            await self.does()
        return api.Empty()

    async def stop_container(self, message: api.StopContainerRequest) -> api.StopContainerResponse:
        """Take an event that always had a call of its own."""
        self.calls.append("StopContainer")
        return api.StopContainerResponse()


@asynccontextmanager
async def connected(
    path: Path, plugin: Plugin, *, name: str = "hand", idx: str = "10", times: int = 1
) -> AsyncIterator[transport.Trunk]:
    """Connect a plugin by hand and register it as often as told; nothing is waited for after."""
    trunk = await transport.Trunk.connect(path)
    trunk.serve(mux.PLUGIN_CONN, [plugin])
    runtime = transport.stub(api.RuntimeStub, trunk.channel(mux.RUNTIME_CONN))
    reading = asyncio.create_task(trunk.run())
    try:
        for _ in range(times):
            await runtime.register_plugin(api.RegisterPluginRequest(plugin_name=name, plugin_idx=idx))
        yield trunk
    finally:
        await trunk.close()
        with suppress(OSError):  # a runtime that hangs up with bytes unread resets the connection
            await reading


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the runtime listens."""
    return tmp_path / "nri.sock"


@in_loop
async def test_a_plugin_without_dedicated_calls_gets_state_changes(path: Path) -> None:
    """Code 12 turns a connection to StateChange, except for the calls that have always been there."""
    plugin = Plugin()
    async with RuntimeSide(path, style=Style.DEDICATED) as runtime, connected(path, plugin):
        peer = await runtime.synchronized()
        await runtime.run_pod(POD)
        await runtime.start_container(Container(id="c0", pod_sandbox_id="sb0"))
        await runtime.stop_container("c0")
        assert plugin.calls[2:] == [
            "StateChange RUN_POD_SANDBOX",
            "StateChange START_CONTAINER",
            "StopContainer",
        ]
        assert peer.calls == 3


@in_loop
async def test_only_events_that_were_asked_for_are_told(path: Path) -> None:
    """The mask is kept; 0 means everything."""
    plugin = Plugin(events=0x2)
    async with RuntimeSide(path, style=Style.STATE_CHANGE) as runtime, connected(path, plugin):
        await runtime.synchronized()
        await runtime.run_pod(POD)
        await runtime.stop_pod("sb0")
        assert plugin.calls[2:] == ["StateChange STOP_POD_SANDBOX"]
    everything = Plugin(events=0)
    async with RuntimeSide(path) as runtime, connected(path, everything):
        assert (await runtime.synchronized()).events == ALL_EVENTS


@in_loop
async def test_an_impossible_mask_drops_the_plugin(path: Path) -> None:
    """A bit beyond the last event fails Configure and the connection is closed."""
    async with RuntimeSide(path) as runtime, connected(path, Plugin(events=1 << 14)):
        await until(lambda: runtime.dropped, "it was dropped")
        assert "mask" in runtime.dropped[0]


@in_loop
async def test_a_late_answer_drops_the_plugin(path: Path) -> None:
    """Who misses the deadline of an event is disconnected; the caller goes on."""
    plugin = Plugin()

    async def hang() -> None:
        await asyncio.Event().wait()

    plugin.does = hang
    runtime = RuntimeSide(path, style=Style.STATE_CHANGE, request_timeout=0.5)
    async with runtime, connected(path, plugin):
        await runtime.synchronized()
        await runtime.run_pod(POD)
        await runtime.gone()
        assert "RUN_POD_SANDBOX" in runtime.dropped[0]
        await runtime.stop_pod("sb0")


@in_loop
async def test_an_error_from_a_plugin_is_the_pods_failure(path: Path) -> None:
    """An RPC error is no "ignore": the one who starts the pod gets it."""
    plugin = Plugin()

    async def refuse() -> None:
        raise GRPCError(Status.UNKNOWN, "no")

    plugin.does = refuse
    async with RuntimeSide(path, style=Style.STATE_CHANGE) as runtime, connected(path, plugin):
        await runtime.synchronized()
        with pytest.raises(GRPCError, match="no"):
            await runtime.run_pod(POD)


@in_loop
async def test_a_dedicated_call_that_fails_is_no_fallback(path: Path) -> None:
    """Any code but 12 is a real error, and the connection keeps its style."""

    class Failing(Plugin):
        async def run_pod_sandbox(self, message: api.RunPodSandboxRequest) -> api.RunPodSandboxResponse:
            raise GRPCError(Status.NOT_FOUND, "what ttrpc for Rust says by default")

    plugin = Failing()
    async with RuntimeSide(path) as runtime, connected(path, plugin):
        peer = await runtime.synchronized()
        with pytest.raises(GRPCError, match="Rust"):
            await runtime.run_pod(POD)
        assert len(plugin.calls) == 2
        with pytest.raises(ValueError, match="CREATE_CONTAINER"):
            await peer.event(api.Event.CREATE_CONTAINER, POD, None, unasked=True)


@in_loop
async def test_a_plugin_that_cannot_take_parts_is_dropped(path: Path) -> None:
    """`more` must be echoed."""
    runtime = RuntimeSide(path, part_bytes=10)
    runtime.pods = {f"sb{n}": PodSandbox(id=f"sb{n}") for n in range(5)}
    async with runtime, connected(path, Plugin(echo=False)):
        await until(lambda: runtime.dropped, "it was dropped")
        assert "split sync" in runtime.dropped[0]


@pytest.mark.parametrize(("name", "idx"), [("a b", "10"), ("", "10"), ("a", "1"), ("a", "x1")])
@in_loop
async def test_a_bad_identity_is_refused(path: Path, name: str, idx: str) -> None:
    """The call fails with UNKNOWN, and the plugin never becomes active."""
    async with RuntimeSide(path, registration_timeout=0.2) as runtime:
        with pytest.raises(GRPCError) as caught:
            async with connected(path, Plugin(), name=name, idx=idx):
                pass
        assert caught.value.status is Status.UNKNOWN
        assert runtime.plugin is None


@in_loop
async def test_registering_twice_is_refused(path: Path) -> None:
    """A connection registers once."""
    async with RuntimeSide(path):
        with pytest.raises(GRPCError, match="already"):
            async with connected(path, Plugin(), times=2):
                pass


@in_loop
async def test_a_silent_connection_is_closed(path: Path) -> None:
    """Who does not register in time is closed, and holds up the next one until then."""
    async with RuntimeSide(path, registration_timeout=0.1) as runtime:
        reader, writer = await asyncio.open_unix_connection(path)
        async with connected(path, Plugin()):
            await runtime.synchronized()
        assert await reader.read() == b""
        writer.close()
        assert "TimeoutError" in runtime.dropped[0]


@in_loop
async def test_who_hangs_up_before_registering_holds_up_nobody(path: Path) -> None:
    """The end of such a connection is noticed at once."""
    async with RuntimeSide(path, registration_timeout=60) as runtime:
        _, writer = await asyncio.open_unix_connection(path)
        await until(lambda: runtime.connections == 1, "it was accepted")
        writer.close()
        async with connected(path, Plugin()):
            await runtime.synchronized(5)


@in_loop
async def test_without_a_plugin_life_goes_on(path: Path) -> None:
    """Pods run whether or not anybody listens, and are listed to who comes later."""
    plugin = Plugin()
    async with RuntimeSide(path) as runtime:
        await runtime.run_pod(POD)
        await runtime.start_container(Container(id="c0", pod_sandbox_id="sb0"))
        await runtime.drop()
        async with connected(path, plugin):
            await runtime.synchronized()
            assert plugin.calls == ["configure", "synchronize(1, 1)"]
        await runtime.gone()


@in_loop
async def test_waiting_has_an_end(path: Path) -> None:
    """Waiting for a plugin that does not come, or does not go, is a TimeoutError."""
    async with RuntimeSide(path) as runtime:
        with pytest.raises(TimeoutError):
            await runtime.synchronized(0.05)
        async with connected(path, Plugin()):
            await runtime.synchronized()
            with pytest.raises(TimeoutError):
                await runtime.gone(0.05)


items = st.lists(st.binary(min_size=1, max_size=60), max_size=30)


@given(items, items, st.integers(60, 400))
def test_parts_hold_everything_once_and_fit(pods: list[bytes], containers: list[bytes], room: int) -> None:
    """Parts in order give the list back, all but the last say `more`, and none is longer than allowed."""
    parts = split_parts(pods, containers, room)
    assert [pod for part in parts for pod in part.pods] == pods
    assert [container for part in parts for container in part.containers] == containers
    assert [part.more for part in parts] == [True] * (len(parts) - 1) + [False]
    for part in parts:
        alone = len(part.pods) <= 1 and len(part.containers) <= 1
        assert alone or len(bytes(part)) <= room


def test_a_part_fits_into_a_message() -> None:
    """Parts of the default size are messages that ttrpc takes, envelope included."""
    parts = split_parts([bytes(4000)] * 500, [bytes(10_000)] * 2500)
    assert len(parts) >= 7
    assert max(len(bytes(part)) for part in parts) <= MAX_PART_BYTES < 4 << 20
