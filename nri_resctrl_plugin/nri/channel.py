"""Calls that go out: the shape of grpclib's channel, with ttrpc beneath.

Owns: calls that wait for an answer, and their time limits. Must not know: NRI's messages, or the socket.

Rules:
    1. A call ends in exactly one way: an answer, a status, no answer in time, or the end of the connection.
    2. An answer that nobody waits for any more is dropped.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, Self

from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from nri_resctrl_plugin.nri import wire
from nri_resctrl_plugin.nri.codec import ReplyT, RequestT, decode
from nri_resctrl_plugin.nri.ttrpc import CallStreams, Code, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from grpclib.metadata import Deadline

__all__ = ["Channel", "ClientStream"]


class Channel:
    """The calling end of one connection: what generated clients call `channel`.

    Args:
        send: Writes one message; raises OSError where the connection is gone.
    """

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._send = send
        self._streams = CallStreams()
        self._pending: dict[int, asyncio.Future[bytes]] = {}
        self._ended = False

    @property
    def at_boundary(self) -> bool:
        """Whether the connection may end here."""
        return self._streams.at_boundary

    def receive(self, piece: bytes) -> None:
        """Take bytes of the connection, and hand the answers that they complete to who waits for them."""
        for response in self._streams.feed(piece):
            future = self._pending.pop(response.stream_id)
            if future.done():
                continue
            if response.code == Code.OK:
                future.set_result(response.payload)
            else:
                future.set_exception(_grpc_error(response.code, response.text))

    def end(self) -> None:
        """Fail every pending call."""
        self._ended = True
        for future in self._pending.values():
            if not future.done():
                future.set_exception(StreamTerminatedError("the connection ended"))
                future.exception()  # who waits gets it; nobody waiting is no news
        self._pending.clear()

    def request(  # noqa: PLR0913 - grpclib's signature
        self,
        name: str,
        cardinality: Cardinality,
        request_type: type[RequestT],
        reply_type: type[ReplyT],
        *,
        timeout: float | None = None,
        deadline: Deadline | None = None,
        metadata: Mapping[str, str | bytes] | Collection[tuple[str, str | bytes]] | None = None,
    ) -> ClientStream[RequestT, ReplyT]:
        """Begin a call; grpclib's own signature.

        Args:
            name: `/service/Method`.
            cardinality: UNARY_UNARY; NRI has no other.
            request_type: Type of the request.
            reply_type: Type of the answer.
            timeout: Seconds to wait.
            deadline: When to stop waiting; the earlier of both counts.
            metadata: Not sent: no runtime reads any.

        Raises:
            GRPCError: UNIMPLEMENTED; another cardinality.
        """
        del request_type, metadata
        if cardinality is not Cardinality.UNARY_UNARY:
            raise GRPCError(Status.UNIMPLEMENTED, "only unary methods are spoken over ttrpc here")
        if deadline is not None:
            timeout = min(deadline.time_remaining(), timeout if timeout is not None else float("inf"))
        return ClientStream(self, name, reply_type, timeout)

    async def call(self, name: str, payload: bytes, timeout: float | None) -> bytes:  # noqa: ASYNC109 - it is sent too
        """Send one request and wait for its answer.

        Raises:
            GRPCError: The other side says no, or did not answer in time.
            StreamTerminatedError: The connection ended first.
        """
        if self._ended:
            raise StreamTerminatedError("the connection ended")
        service, _, method = name.removeprefix("/").rpartition("/")
        try:
            stream_id, message = self._streams.call(service, method, payload, timeout)
        except TooLargeError as error:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, str(error)) from error
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._pending[stream_id] = future
        try:
            async with asyncio.timeout(timeout):
                try:
                    await self._send(message)
                except OSError as error:
                    raise StreamTerminatedError("the connection ended") from error
                return await future
        except TimeoutError as error:
            raise GRPCError(Status.DEADLINE_EXCEEDED, f"no answer to {method} in time") from error
        finally:
            self._streams.forget(stream_id)
            self._pending.pop(stream_id, None)


class ClientStream(Generic[RequestT, ReplyT]):
    """One call that goes out: what generated client code calls `stream`."""

    def __init__(self, channel: Channel, name: str, reply_type: type[ReplyT], timeout: float | None) -> None:
        self._channel = channel
        self._name = name
        self._reply_type = reply_type
        self._timeout = timeout
        self._payload: bytes | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    async def send_message(self, message: RequestT, *, end: bool = False) -> None:
        """Take the request; it leaves when the answer is asked for.

        Raises:
            ProtocolError: A second request, or one without `end`: the call would be a stream.
        """
        if not end or self._payload is not None:
            raise ProtocolError("a unary call has one request, sent with end=True")
        self._payload = message.SerializeToString()

    async def recv_message(self) -> ReplyT:
        """Send the request and return the answer.

        Raises:
            GRPCError: The other side says no, did not answer in time, or answered nonsense.
            StreamTerminatedError: The connection ended first.
            ProtocolError: No request was sent.
        """
        if self._payload is None:
            raise ProtocolError("the request must be sent first")
        payload = await self._channel.call(self._name, self._payload, self._timeout)
        try:
            return decode(payload, self._reply_type)
        except wire.WireError as error:
            raise GRPCError(Status.INTERNAL, f"unmarshal response error: {error}") from error


def _grpc_error(code: int, text: str) -> GRPCError:
    try:
        return GRPCError(Status(code), text)
    except ValueError:
        return GRPCError(Status.UNKNOWN, f"status {code}: {text}")
