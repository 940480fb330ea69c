"""One connection between a runtime and a plugin: a socket, the trunk on it, and the ends of its streams.

Owns: the socket, the read loop, the tasks that last as long as the connection. Must not know: NRI's messages
and what they mean.

It is not gRPC: betterproto2's generated clients and servers run on it unchanged because it offers what they
call, for unary methods.

Rules:
    1. The read loop never awaits a handler.
    2. One message is one write, under one lock; nobody else writes.
    3. When the connection ends, pending calls fail and the tasks that belong to it end.
    4. What was said on a connection before it was taken over is heard here too, and not said again.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from nri_resctrl_plugin.nri import mux, wire
from nri_resctrl_plugin.nri.ahead import Said
from nri_resctrl_plugin.nri.channel import Channel
from nri_resctrl_plugin.nri.server import LatePolicy, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path

    import grpclib.client

    from nri_resctrl_plugin.nri.server import Servable

__all__ = ["Trunk", "stub"]

_READ_BYTES: Final = 1 << 18
_STREAM_LIMIT: Final = 8 << 20  # one whole Synchronize message without stopping and starting the socket
_CLOSE_SECONDS: Final = 1.0
_CALLER_DECIDES: Final = LatePolicy()
_NOTHING: Final = Said()

StubT = TypeVar("StubT")


def stub(factory: Callable[[grpclib.client.Channel], StubT], channel: Channel) -> StubT:
    """Make a generated client that calls through our channel.

    Generated clients ask for grpclib's own class by name and use nothing of it but `request`.
    """
    return factory(cast("grpclib.client.Channel", channel))


class Trunk:
    """One connection, either end of it.

    Args:
        reader: Bytes from the other side.
        writer: Bytes to it.
        said: What has been said before, by `Ahead`.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: Said = _NOTHING
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._received = said.received
        self._spoken = set(said.spoken)
        self._lock = asyncio.Lock()
        self._mux = mux.MuxReader()
        self._ends: dict[int, Server | Channel] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @classmethod
    async def connect(cls, path: Path) -> Trunk:
        """Dial a unix socket.

        Raises:
            OSError: Nobody listens there, or it may not be used.
        """
        return cls(*await asyncio.open_unix_connection(path, limit=_STREAM_LIMIT))

    @classmethod
    async def inherit(cls, fd: int, said: Said = _NOTHING) -> Trunk:
        """Take over one end of a socket pair that a runtime left open for us.

        Args:
            fd: The descriptor.
            said: What has been said on it before.

        Raises:
            OSError: The descriptor is no socket.
        """
        sock = socket.socket(fileno=fd)
        sock.set_inheritable(False)
        return cls(*await asyncio.open_unix_connection(sock=sock, limit=_STREAM_LIMIT), said)

    def serve(
        self,
        conn: int,
        services: Sequence[Servable],
        *,
        late: LatePolicy = _CALLER_DECIDES,
        answered: Callable[[str, float], None] | None = None,
    ) -> Server:
        """Serve calls that come in on a connection of the trunk; the arguments are `Server`'s."""
        send = functools.partial(self._send, conn)
        server = Server(send, self.spawn, services, late=late, answered=answered)
        self._ends[conn] = server
        return server

    def channel(self, conn: int) -> Channel:
        """Return the end of a connection of the trunk on which calls go out."""
        channel = Channel(functools.partial(self._send, conn))
        self._ends[conn] = channel
        return channel

    async def run(self) -> None:
        """Read until the other side closes, then end everything that was going on.

        Raises:
            WireError: What came cannot be the protocol, or it ended in the middle of a message.
            OSError: The socket failed.
        """
        try:
            received, self._received = self._received, b""
            while data := received or await self._reader.read(_READ_BYTES):
                received = b""
                for conn, piece in self._mux.feed(data):
                    if (end := self._ends.get(conn)) is not None:
                        end.receive(piece)
            if not self._closed and not self._whole():
                raise wire.WireError("the connection ended in the middle of a message")
        finally:
            await self.close()

    def _whole(self) -> bool:
        return self._mux.at_boundary and all(end.at_boundary for end in self._ends.values())

    async def _send(self, conn: int, message: bytes) -> None:
        if self._spoken:
            said = (conn, int.from_bytes(message[4:8], "big"))  # ttrpc's header: length, then stream
            if said in self._spoken:
                self._spoken.discard(said)
                return
        async with self._lock:
            self._writer.write(mux.frames(conn, message))
            await self._writer.drain()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something for as long as the connection lasts."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Close the socket, fail pending calls, end this trunk's tasks. Closing twice is no error."""
        self._closed = True
        self._writer.close()
        for end in self._ends.values():
            end.end()
        others = self._tasks - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)
        with contextlib.suppress(OSError, TimeoutError):  # closed is closed, however it went
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._writer.wait_closed()
        self._writer.transport.abort()  # a peer that does not read could keep it open for ever
