"""Calls that come in: the shape of grpclib's server, with ttrpc beneath.

Owns: calls that have no answer yet, and their deadlines. Must not know: NRI's messages, or the socket.

Rules:
    1. Each call is served in a task of its own, begun in order of arrival.
    2. A call that the caller will soon give up is answered before that, with what `late` says for its method.
    3. A call is answered once; what its handler says later is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol

import structlog
from attrs import frozen
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import Deadline

from nri_resctrl_plugin.nri import wire
from nri_resctrl_plugin.nri.codec import ReplyT, RequestT, WireMessage, decode
from nri_resctrl_plugin.nri.ttrpc import Code, Refusal, Request, ServeStreams

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from structlog.typing import FilteringBoundLogger

__all__ = ["LatePolicy", "Servable", "Server", "ServerStream", "answer_within"]


class Servable(Protocol):
    """A generated service base: its methods by route."""

    def __mapping__(self) -> Mapping[str, Handler]:
        """Return the methods, each as `/service/Method`."""
        ...


@frozen
class LatePolicy:
    """What happens to a call whose handler has not returned in time.

    Attributes:
        answers: The encoded message to answer with, by route; the handler goes on. A route that is not in it
            is answered with DEADLINE_EXCEEDED, and its handler is cancelled.
        budget: Seconds that a call may take at most, whatever the caller said. None: the caller decides.
    """

    answers: Mapping[str, bytes] = MappingProxyType({})
    budget: float | None = None


_CALLER_DECIDES: Final = LatePolicy()


class ServerStream(Generic[RequestT, ReplyT]):
    """One call that is being served: what generated service code calls `stream`.

    Attributes:
        deadline: When the caller gives up, or None.
        reply: The encoded answer, once there is one.
    """

    def __init__(self, request: Request, request_type: type[RequestT]) -> None:
        self._payload = request.payload
        self._request_type = request_type
        self.deadline: Deadline | None = (
            None if request.timeout is None else Deadline.from_timeout(request.timeout)
        )
        self.reply: bytes | None = None

    async def recv_message(self) -> RequestT:
        """Return the request.

        Raises:
            GRPCError: INVALID_ARGUMENT; it cannot be decoded.
        """
        try:
            return decode(self._payload, self._request_type)
        except wire.WireError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, f"unmarshal request error: {error}") from error

    async def send_message(self, message: ReplyT) -> None:
        """Take the answer; it leaves when the handler returns."""
        self.reply = message.SerializeToString()


class Server:
    """Serves generated service bases on one connection.

    Args:
        send: Writes one message; raises OSError where the connection is gone.
        spawn: Runs something for as long as the connection lasts.
        services: What is served.
        late: What happens to calls whose handler takes too long.
        answered: Called after each answer has left, with the route and the seconds since the call arrived.

    Attributes:
        budget: As in `LatePolicy`; may be set at any time.
    """

    def __init__(
        self,
        send: Callable[[bytes], Awaitable[None]],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        services: Sequence[Servable],
        *,
        late: LatePolicy = _CALLER_DECIDES,
        answered: Callable[[str, float], None] | None = None,
    ) -> None:
        self._write = send
        self._spawn = spawn
        self._handlers: dict[str, Handler] = {}
        for service in services:
            self._handlers.update(service.__mapping__())
        self._streams = ServeStreams(self._handlers)
        self._late = late.answers
        self.budget: float | None = late.budget
        self._answered = answered
        self._received: dict[int, float] = {}
        self._log: FilteringBoundLogger = structlog.get_logger("nri_resctrl_plugin.nri.server")

    @property
    def at_boundary(self) -> bool:
        """Whether the connection may end here."""
        return self._streams.at_boundary

    @property
    def in_flight(self) -> int:
        """How many calls have no answer yet."""
        return len(self._streams.open)

    def receive(self, piece: bytes) -> None:
        """Take bytes of the connection, and begin to serve the calls that they complete."""
        for served in self._streams.feed(piece):
            if isinstance(served, Refusal):
                self._log.warning("request_refused", code=served.code.name, reason=served.text[:200])
                self._spawn(self._send(served.reply))
            else:
                self._begin(served)

    def end(self) -> None:
        """Nothing pends here: the tasks are those of whoever spawned them."""

    def _begin(self, request: Request) -> None:
        loop = asyncio.get_running_loop()
        self._received[request.stream_id] = loop.time()
        task = self._spawn(self._serve(request))
        limit = answer_within(request.timeout, self.budget)
        if limit is not None:
            timer = loop.call_later(limit, self._overdue, request, task)
            task.add_done_callback(lambda _: timer.cancel())

    def _overdue(self, request: Request, task: asyncio.Task[None]) -> None:
        """Answer for a handler that takes too long."""
        if request.stream_id not in self._streams.open:
            return  # the answer is on its way
        payload = self._late.get(request.route)
        if payload is not None:
            self._log.warning("answered_before_done", method=request.method)
            self._spawn(self._answer(request, payload))
        else:
            self._log.warning("deadline_exceeded", method=request.method)
            task.cancel()
            self._spawn(self._fail(request, Code.DEADLINE_EXCEEDED, "deadline exceeded"))

    async def _serve(self, request: Request) -> None:
        try:
            reply = await self._handle(request)
        except GRPCError as error:
            text = error.message if error.message is not None else f"method {request.method}"
            await self._fail(request, error.status.value, text)
        except Exception as error:  # noqa: BLE001 - a handler may raise anything, and the caller must be told
            self._log.exception("handler_failed", method=request.method)
            await self._fail(request, Code.UNKNOWN, f"{type(error).__name__}: {error}")
        else:
            await self._answer(request, reply)

    async def _handle(self, request: Request) -> bytes:
        """Run the method's handler and return the encoded answer."""
        handler = self._handlers[request.route]
        if handler.cardinality is not Cardinality.UNARY_UNARY:
            raise GRPCError(Status.UNIMPLEMENTED, f"method {request.method} is not unary")
        stream: ServerStream[WireMessage, WireMessage] = ServerStream(request, handler.request_type)
        await handler.func(stream)
        if stream.reply is None:
            raise GRPCError(Status.INTERNAL, f"method {request.method} gave no answer")
        return stream.reply

    async def _answer(self, request: Request, payload: bytes) -> None:
        await self._reply(request, self._streams.answer(request.stream_id, payload))

    async def _fail(self, request: Request, code: int, text: str) -> None:
        await self._reply(request, self._streams.fail(request.stream_id, code, text))

    async def _reply(self, request: Request, reply: bytes) -> None:
        if not reply:
            return  # it was answered by its deadline
        await self._send(reply)
        took = asyncio.get_running_loop().time() - self._received.pop(request.stream_id)
        if self._answered is not None:
            self._answered(request.route, took)

    async def _send(self, reply: bytes) -> None:
        with contextlib.suppress(OSError):  # who reads the connection learns of its end
            await self._write(reply)


def answer_within(timeout: float | None, budget: float | None) -> float | None:
    """Return the seconds until a call is answered in any case, or None where nobody set a limit.

    That is a tenth before the earlier limit, and 50 ms at least; of a very short limit it is the half.

    Args:
        timeout: What the caller said.
        budget: What the server allows.
    """
    limits = [seconds for seconds in (timeout, budget) if seconds is not None]
    if not limits:
        return None
    limit = min(limits)
    return max(limit - max(0.05, limit / 10), limit / 2)
