"""Generated clients and servers over ttrpc on a socket."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from grpclib.metadata import Deadline
from structlog.testing import capture_logs

from nri_resctrl_plugin.nri import api, mux
from nri_resctrl_plugin.nri.channel import Channel
from nri_resctrl_plugin.nri.server import LatePolicy, Server, answer_within
from nri_resctrl_plugin.nri.transport import Trunk, stub
from nri_resctrl_plugin.nri.wire import WireError
from tests.nri_support import golden, in_loop, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping

    from nri_resctrl_plugin.nri.server import Servable

PREFIX = "/nri.pkg.api.v1alpha1.Plugin/"


class Plugin(api.PluginBase):
    """A service whose behaviour a test puts in.

    Attributes:
        seen: Requests in the order in which they were begun.
        does: What StateChange awaits.
    """

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.does: Callable[[], Awaitable[None]] | None = None
        self.cancelled = 0
        self.finished = 0

    async def configure(self, message: api.ConfigureRequest) -> api.ConfigureResponse:
        """Answer with a mask."""
        self.seen.append(message)
        return api.ConfigureResponse(events=5)

    async def state_change(self, message: api.StateChangeEvent) -> api.Empty:
        """Do what the test wants."""
        self.seen.append(message)
        try:
            if self.does is not None:
                await self.does()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.finished += 1
        return api.Empty()


class Link:
    """Two trunks on a socket pair: `client` calls, `server` serves a `Plugin`."""

    def __init__(
        self, client: Trunk, server: Trunk, plugin: Plugin, serving: Server, channel: Channel
    ) -> None:
        self.client = client
        self.server = server
        self.plugin = plugin
        self.serving = serving
        self.channel = channel
        self.stub = stub(api.PluginStub, channel)
        self.ended = [asyncio.create_task(trunk.run()) for trunk in (client, server)]


async def trunk_on(sock: socket.socket) -> Trunk:
    """Make a trunk of one end of a socket pair."""
    return await Trunk.inherit(sock.detach())


@asynccontextmanager
async def linked(
    late: LatePolicy | None = None,
    answered: Callable[[str, float], None] | None = None,
    services: list[Servable] | None = None,
) -> AsyncIterator[Link]:
    """Connect two trunks, and close both at the end."""
    left, right = socket.socketpair()
    client, server = await trunk_on(left), await trunk_on(right)
    plugin = Plugin()
    serving = server.serve(
        mux.PLUGIN_CONN, services or [plugin], late=late or LatePolicy(), answered=answered
    )
    link = Link(client, server, plugin, serving, client.channel(mux.PLUGIN_CONN))
    try:
        yield link
    finally:
        await client.close()
        await server.close()
        await asyncio.gather(*link.ended, return_exceptions=True)


@in_loop
async def test_generated_classes_run_unchanged() -> None:
    """A generated client calls a generated server base, and typed messages cross."""
    async with linked() as link:
        answer = await link.stub.configure(api.ConfigureRequest(config="x", request_timeout=7))
        assert answer.events == 5
        (seen,) = link.plugin.seen
        assert isinstance(seen, api.ConfigureRequest)
        assert (seen.config, seen.request_timeout) == ("x", 7)


@in_loop
async def test_metadata_and_deadline_are_accepted() -> None:
    """The whole of grpclib's call signature works; metadata is not sent."""
    async with linked() as link:
        await link.stub.configure(
            api.ConfigureRequest(), timeout=5, deadline=Deadline.from_timeout(9), metadata={"trace": "1"}
        )


@in_loop
async def test_a_method_that_is_not_overridden_is_unimplemented() -> None:
    """Generated bases and unknown services say UNIMPLEMENTED: NRI 0.12 falls back on code 12 alone."""
    async with linked() as link:
        with pytest.raises(GRPCError) as caught:
            await link.stub.run_pod_sandbox(api.RunPodSandboxRequest())
        assert (caught.value.status, caught.value.message) == (Status.UNIMPLEMENTED, "method RunPodSandbox")
        with pytest.raises(GRPCError) as caught:
            await stub(api.RuntimeStub, link.channel).register_plugin(api.RegisterPluginRequest())
        assert caught.value.status is Status.UNIMPLEMENTED


@in_loop
async def test_errors_of_a_handler_reach_the_caller() -> None:
    """A GRPCError comes as itself, anything else as UNKNOWN with its text, as Go does."""
    async with linked() as link:

        async def refuse() -> None:
            raise GRPCError(Status.INVALID_ARGUMENT, "not that")

        async def crash() -> None:
            raise KeyError("oops")

        link.plugin.does = refuse
        with pytest.raises(GRPCError) as caught:
            await link.stub.state_change(api.StateChangeEvent())
        assert (caught.value.status, caught.value.message) == (Status.INVALID_ARGUMENT, "not that")
        link.plugin.does = crash
        with pytest.raises(GRPCError) as caught:
            await link.stub.state_change(api.StateChangeEvent())
        assert (caught.value.status, caught.value.message) == (Status.UNKNOWN, "KeyError: 'oops'")


@in_loop
async def test_an_undecodable_payload_is_an_invalid_argument() -> None:
    """A payload that was cut short or is no UTF-8 is refused, and the next call works."""
    async with linked() as link:
        with pytest.raises(GRPCError) as caught:
            await link.channel.call(PREFIX + "Configure", b"\x0a\x05ab", None)
        assert caught.value.status is Status.INVALID_ARGUMENT
        with pytest.raises(GRPCError) as caught:
            await link.channel.call(PREFIX + "Configure", b"\x0a\x01\xff", None)
        assert caught.value.status is Status.INVALID_ARGUMENT
        assert await link.channel.call(PREFIX + "Configure", b"", None) == b"\x10\x05"


@in_loop
async def test_a_timeout_is_told_and_kept() -> None:
    """The caller gives up at its timeout, and the server hears of it as a deadline."""
    async with linked() as link:
        never = asyncio.Event()

        async def wait() -> None:
            await never.wait()

        link.plugin.does = wait
        with pytest.raises(GRPCError) as caught:
            await link.stub.state_change(api.StateChangeEvent(), timeout=0.2)
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        await until(lambda: link.plugin.cancelled == 1, "the handler was cancelled")
        with pytest.raises(GRPCError) as caught:
            await link.stub.configure(api.ConfigureRequest(), deadline=Deadline.from_timeout(-1))
        assert caught.value.status is Status.DEADLINE_EXCEEDED


@in_loop
async def test_a_late_answer_keeps_the_caller_and_the_handler() -> None:
    """With a late answer the caller is served while the handler still works, and finishes behind."""
    route = PREFIX + "StateChange"
    told: list[tuple[str, float]] = []
    async with linked(
        LatePolicy(answers={route: b""}, budget=0.3), answered=lambda name, took: told.append((name, took))
    ) as link:
        gate = asyncio.Event()

        async def wait() -> None:
            await gate.wait()

        link.plugin.does = wait
        assert await link.stub.state_change(api.StateChangeEvent(), timeout=10) == api.Empty()
        assert link.plugin.finished == 0
        gate.set()
        await until(lambda: link.plugin.finished == 1, "the handler finished")
        await link.stub.configure(api.ConfigureRequest())
        assert [name for name, _ in told] == [route, PREFIX + "Configure"], "each call is answered once"
        assert told[0][1] >= 0.24


@in_loop
async def test_the_callers_timeout_is_a_deadline_of_the_server() -> None:
    """What the caller says reaches the server, which answers before it."""
    took: list[float] = []
    async with linked(
        LatePolicy(answers={PREFIX + "StateChange": b""}), answered=lambda _, seconds: took.append(seconds)
    ) as link:
        never = asyncio.Event()

        async def wait() -> None:
            await never.wait()

        link.plugin.does = wait
        with suppress(GRPCError):  # on a busy machine the caller may wake up first
            await link.stub.state_change(api.StateChangeEvent(), timeout=0.4)
        await until(lambda: took, "the server answered")
        assert took[0] >= 0.35


@pytest.mark.parametrize(
    ("caller", "budget", "limit"),
    [
        (None, None, None),
        (2.0, None, 1.8),
        (None, 2.0, 1.8),
        (2.0, 30.0, 1.8),
        (30.0, 2.0, 1.8),
        (0.3, None, 0.25),
        (0.06, None, 0.03),
        (0.0, 2.0, 0.0),
    ],
)
def test_deadlines(caller: float | None, budget: float | None, limit: float | None) -> None:
    """The shorter of both, less a tenth, less 50 ms at least, and of a tiny one the half."""
    assert answer_within(caller, budget) == (None if limit is None else pytest.approx(limit))


@in_loop
async def test_calls_begin_in_order_and_end_in_any() -> None:
    """Requests reach handlers as they arrived; a slow one does not hold up the answer to a fast one."""
    async with linked() as link:
        gate = asyncio.Event()

        async def wait() -> None:
            await gate.wait()

        link.plugin.does = wait
        slow = [
            asyncio.create_task(link.stub.state_change(api.StateChangeEvent(event=api.Event(n))))
            for n in range(1, 9)
        ]
        await until(lambda: link.serving.in_flight == 8, "all calls have arrived")
        assert (await link.stub.configure(api.ConfigureRequest())).events == 5
        seen = [m.event for m in link.plugin.seen if isinstance(m, api.StateChangeEvent)]
        assert seen == list(range(1, 9))
        gate.set()
        await asyncio.gather(*slow)


@in_loop
async def test_the_end_of_the_connection_fails_pending_calls() -> None:
    """Whoever waits learns of the end, whoever calls later too; the server's handlers are cancelled."""
    async with linked() as link:
        never = asyncio.Event()

        async def wait() -> None:
            await never.wait()

        link.plugin.does = wait
        call = asyncio.create_task(link.stub.state_change(api.StateChangeEvent()))
        await until(lambda: link.serving.in_flight == 1, "the call has arrived")
        await link.server.close()
        with pytest.raises(StreamTerminatedError):
            await call
        assert link.plugin.cancelled == 1
        await link.ended[0]
        with pytest.raises(StreamTerminatedError):
            await link.stub.configure(api.ConfigureRequest())
        await link.client.close()


@in_loop
async def test_writing_to_a_dead_connection_is_its_end() -> None:
    """A call whose write fails ends like one whose connection ended."""
    async with linked() as link:
        link.client._writer.transport.abort()
        with pytest.raises(StreamTerminatedError):
            await link.stub.configure(api.ConfigureRequest())


@in_loop
async def test_an_answer_to_a_caller_who_has_just_gone_is_dropped() -> None:
    """A caller that is cancelled in the very turn in which its answer arrives disturbs nobody."""
    sent: list[bytes] = []

    async def send(message: bytes) -> None:
        sent.append(message)

    channel = Channel(send)
    call = asyncio.create_task(channel.call("/s/m", b"", None))
    await until(lambda: sent, "the call was sent")
    call.cancel()  # the future is cancelled, the caller not yet awake
    channel.receive(struct.pack(">IIBB", 0, 1, 2, 0))
    with pytest.raises(asyncio.CancelledError):
        await call


@in_loop
async def test_an_answer_that_comes_too_late_is_dropped() -> None:
    """An answer after the caller's timeout disturbs nobody; the next call gets its own."""
    sent: list[bytes] = []

    async def send(message: bytes) -> None:
        sent.append(message)

    channel = Channel(send)
    with pytest.raises(GRPCError, match="in time"):
        await channel.call("/s/m", b"", 0.01)
    channel.receive(struct.pack(">IIBB", 0, 1, 2, 0))
    call = asyncio.create_task(channel.call("/s/m", b"", None))
    await until(lambda: len(sent) == 2, "the next call was sent")
    channel.receive(struct.pack(">IIBB", 0, 1, 2, 0) + struct.pack(">IIBB", 3, 3, 2, 0) + b"\x12\x01x")
    assert await call == b"x"


@pytest.mark.parametrize("answers", [{}, {PREFIX + "Configure": b""}])
@in_loop
async def test_an_answer_that_is_on_its_way_is_not_overtaken(answers: dict[str, bytes]) -> None:
    """A deadline that passes while the answer is being written changes nothing about it."""
    gate, sent, tasks = asyncio.Event(), list[bytes](), set[asyncio.Task[None]]()

    async def send(message: bytes) -> None:
        await gate.wait()
        sent.append(message)

    def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        tasks.add(task)
        return task

    server = Server(send, spawn, [Plugin()], late=LatePolicy(answers=answers, budget=0.02))
    with capture_logs() as logs:
        server.receive(golden()["configure"][8:])
        await asyncio.sleep(0.05)  # past the deadline, with the answer still unsent
        gate.set()
        await asyncio.gather(*tasks)
    assert sent == [struct.pack(">IIBB", 4, 1, 2, 0) + b"\x12\x02\x10\x05"]
    assert logs == []


@in_loop
async def test_the_end_spares_a_caller_who_has_just_gone() -> None:
    """The same when the connection ends in that turn."""
    sent: list[bytes] = []

    async def send(message: bytes) -> None:
        sent.append(message)

    channel = Channel(send)
    call = asyncio.create_task(channel.call("/s/m", b"", None))
    await until(lambda: sent, "the call was sent")
    call.cancel()
    channel.end()
    with pytest.raises(asyncio.CancelledError):
        await call


@in_loop
async def test_too_much_is_not_sent() -> None:
    """A request over 4 MiB fails on our side, and the connection lives."""
    async with linked() as link:
        with pytest.raises(GRPCError) as caught:
            await link.stub.configure(api.ConfigureRequest(config="x" * (4 << 20)))
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        assert (await link.stub.configure(api.ConfigureRequest())).events == 5


@in_loop
async def test_large_messages_cross() -> None:
    """3.9 MiB in one message arrive whole."""
    async with linked() as link:
        config = "x" * 3_900_000
        await link.stub.configure(api.ConfigureRequest(config=config))
        (seen,) = link.plugin.seen
        assert isinstance(seen, api.ConfigureRequest)
        assert seen.config == config


class Odd:
    """A service that breaks the rules of unary calls."""

    async def silent(self, stream: object) -> None:
        """Give no answer."""

    async def streaming(self, stream: object) -> None:
        """Never be called."""
        raise AssertionError("a streaming method was called")

    def __mapping__(self) -> Mapping[str, Handler]:
        """Return the methods."""
        unary, streamed = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        return {
            "/odd/Silent": Handler(self.silent, unary, api.Empty, api.Empty),
            "/odd/Streaming": Handler(self.streaming, streamed, api.Empty, api.Empty),
        }


@in_loop
async def test_only_unary_calls_are_spoken() -> None:
    """Streams are refused on both ends, and a handler without an answer is an internal error."""
    async with linked(services=[Odd()]) as link:
        for method, status in (("Silent", Status.INTERNAL), ("Streaming", Status.UNIMPLEMENTED)):
            with pytest.raises(GRPCError) as caught:
                await link.channel.call(f"/odd/{method}", b"", 5)
            assert caught.value.status is status
        with pytest.raises(GRPCError) as caught:
            link.channel.request("/odd/Silent", Cardinality.STREAM_UNARY, api.Empty, api.Empty)
        assert caught.value.status is Status.UNIMPLEMENTED
        call = link.channel.request("/odd/Silent", Cardinality.UNARY_UNARY, api.Empty, api.Empty)
        with pytest.raises(ProtocolError):
            await call.recv_message()
        with pytest.raises(ProtocolError):
            await call.send_message(api.Empty())
        await call.send_message(api.Empty(), end=True)
        with pytest.raises(ProtocolError):
            await call.send_message(api.Empty(), end=True)


class Raw:
    """One trunk, and the bare other end of its socket."""

    def __init__(self, trunk: Trunk, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.trunk = trunk
        self.reader = reader
        self.writer = writer
        self.ended = asyncio.create_task(trunk.run())


@asynccontextmanager
async def bare() -> AsyncIterator[Raw]:
    """Give a trunk that serves a `Plugin`, and the raw socket to torture it with."""
    left, right = socket.socketpair()
    trunk = await trunk_on(left)
    trunk.serve(mux.PLUGIN_CONN, [Plugin()])
    trunk.channel(mux.RUNTIME_CONN)
    reader, writer = await asyncio.open_unix_connection(sock=right)
    raw = Raw(trunk, reader, writer)
    try:
        yield raw
    finally:
        writer.close()
        await trunk.close()
        with suppress(WireError):
            await raw.ended
        with suppress(OSError):
            await writer.wait_closed()


@pytest.mark.parametrize("size", range(1, len(golden()["configure"])))
@in_loop
async def test_the_end_inside_a_frame_is_a_protocol_error(size: int) -> None:
    """EOF in the middle of the header or the payload of either layer ends the trunk with the typed error."""
    async with bare() as raw:
        raw.writer.write(golden()["configure"][:size])
        raw.writer.write_eof()
        with pytest.raises(WireError, match="in the middle"):
            await raw.ended


@in_loop
async def test_the_end_inside_a_message_is_a_protocol_error() -> None:
    """EOF between two frames of one message is no clean end either."""
    async with bare() as raw:
        whole = golden()["configure"]
        raw.writer.write(struct.pack(">II", 1, 20) + whole[8:28])
        raw.writer.write_eof()
        with pytest.raises(WireError, match="in the middle"):
            await raw.ended


@in_loop
async def test_the_end_between_messages_is_the_end() -> None:
    """EOF between messages ends the trunk without an error."""
    async with bare() as raw:
        raw.writer.write(golden()["configure"])
        await raw.reader.readexactly(8 + 10 + 4)
        raw.writer.write_eof()
        await raw.ended


@in_loop
async def test_an_oversized_frame_ends_the_connection() -> None:
    """A frame over 16 MiB and slack cannot be read past: the trunk ends with the typed error."""
    async with bare() as raw:
        raw.writer.write(struct.pack(">II", 1, 0xFFFFFFF0))
        with pytest.raises(WireError, match="too long"):
            await raw.ended
        assert await raw.reader.read() == b""


@in_loop
async def test_an_oversized_message_is_refused_and_the_connection_lives() -> None:
    """A body over 4 MiB, in frames, is answered with code 8; the next call is served."""
    async with bare() as raw:
        length = (4 << 20) + 7
        message = struct.pack(">IIBB", length, 1, 1, 0) + bytes(length)
        raw.writer.write(mux.frames(1, message))
        raw.writer.write(golden()["configure"][:12] + struct.pack(">I", 3) + golden()["configure"][16:])
        header = await raw.reader.readexactly(18)
        _, _, size, stream_id, kind, _ = struct.unpack(">IIIIBB", header)
        assert (stream_id, kind) == (1, 2)
        assert b"\x08\x08" in await raw.reader.readexactly(size)
        _, _, _, stream_id, _, _ = struct.unpack(">IIIIBB", await raw.reader.readexactly(18))
        assert stream_id == 3


@in_loop
async def test_pieces_of_connections_without_an_end_are_dropped() -> None:
    """A trunk that only serves takes what comes on the other connection and goes on."""
    left, right = socket.socketpair()
    trunk = await trunk_on(left)
    trunk.serve(mux.PLUGIN_CONN, [Plugin()])
    ended = asyncio.create_task(trunk.run())
    reader, writer = await asyncio.open_unix_connection(sock=right)
    writer.write(golden()["register_reply"] + golden()["configure"])
    assert (await reader.readexactly(8))[:4] == b"\0\0\0\1"
    writer.close()
    await ended


@in_loop
async def test_closing_does_not_wait_for_a_peer_that_does_not_read() -> None:
    """With a full socket and a silent peer, close ends within its second or so."""
    left, right = socket.socketpair()
    trunk = await trunk_on(left)
    channel = trunk.channel(mux.RUNTIME_CONN)
    call = asyncio.create_task(channel.call("/s/m", bytes(4_000_000), None))
    await until(lambda: trunk._writer.transport.get_write_buffer_size() > 0, "the socket is full")
    loop = asyncio.get_running_loop()
    began = loop.time()
    await trunk.close()
    assert loop.time() - began < 2
    with pytest.raises(StreamTerminatedError):
        await call
    right.close()


@in_loop
async def test_only_a_socket_can_be_inherited() -> None:
    """A descriptor of something else is an OSError."""
    read, write = os.pipe()
    try:
        with pytest.raises(OSError, match="socket"):
            await Trunk.inherit(read)
    finally:
        os.close(read)
        os.close(write)


@in_loop
async def test_an_unknown_status_code_is_unknown() -> None:
    """A code that gRPC does not know becomes UNKNOWN with the number in its text."""
    left, right = socket.socketpair()
    trunk = await trunk_on(left)
    channel = trunk.channel(mux.RUNTIME_CONN)
    ended = asyncio.create_task(trunk.run())
    reader, writer = await asyncio.open_unix_connection(sock=right)
    for answer, status in ((b"\x0a\x02\x08\x63", Status.UNKNOWN), (b"\x12\x02\x0a\x05", Status.INTERNAL)):
        call = asyncio.create_task(
            stub(api.RuntimeStub, channel).register_plugin(api.RegisterPluginRequest())
        )
        _, _, length, stream_id, _, _ = struct.unpack(">IIIIBB", await reader.readexactly(18))
        await reader.readexactly(length)
        writer.write(mux.frames(2, struct.pack(">IIBB", len(answer), stream_id, 2, 0) + answer))
        with pytest.raises(GRPCError) as caught:
            await call
        assert caught.value.status is status
    writer.close()
    await ended
