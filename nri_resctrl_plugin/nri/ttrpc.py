"""ttrpc's calls over one byte stream: which streams are open, and how each call is judged.

Owns: the rules of both ends of a connection. Must not know: the methods' payloads, or how bytes move.

Rules:
    1. Pure: bytes in, values and bytes out.
    2. A message that announces more than 4 MiB is answered with code 8; its body was never kept.
    3. A request that cannot be decoded, or whose stream id is even or not higher than the last, is answered
       with code 3; an unknown method with code 12. The connection survives all three.
    4. Other kinds of message than request (on a server) and response (on a client) are ignored, and data
       messages are never sent: in ttrpc up to 1.2.7 one of them ends the whole runtime.
    5. Success is an answer without status; an empty answer is a body of no bytes.
    6. A client counts its stream ids 1, 3, 5; a server accepts gaps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from attrs import field, frozen

from nri_resctrl_plugin.nri import envelope
from nri_resctrl_plugin.nri.envelope import (
    MAX_MESSAGE,
    Code,
    Message,
    MessageReader,
    Oversized,
    Request,
    Response,
)
from nri_resctrl_plugin.nri.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = [
    "CallStreams",
    "Code",
    "Refusal",
    "Request",
    "Response",
    "ServeStreams",
    "Served",
    "TooLargeError",
]


class TooLargeError(Exception):
    """A message of our own that is longer than the other side may accept; nothing was sent."""


@frozen
class Refusal:
    """A call that was answered without asking anybody.

    Attributes:
        stream_id: The call.
        code: What it was answered with.
        text: The sentence beside it.
        reply: The bytes to send.
    """

    stream_id: int
    code: Code
    text: str
    reply: bytes = field(repr=False)


Served: TypeAlias = Request | Refusal


class ServeStreams:
    """The serving end of one ttrpc connection.

    Args:
        routes: The methods that are served, each as `/service/Method`.
    """

    def __init__(self, routes: Collection[str]) -> None:
        self._routes = frozenset(routes)
        self._services = frozenset(route.rpartition("/")[0] for route in routes)
        self._reader = MessageReader()
        self._last = 0
        self._open: set[int] = set()

    @property
    def open(self) -> frozenset[int]:
        """Calls that have no answer yet."""
        return frozenset(self._open)

    @property
    def at_boundary(self) -> bool:
        """Whether the stream may end here."""
        return self._reader.at_boundary

    def feed(self, data: bytes) -> list[Served]:
        """Take bytes as they arrive and return the calls that they complete, in order."""
        return [self._judge(m) for m in self._reader.feed(data) if m.kind == envelope.REQUEST]

    def _judge(self, message: Message | Oversized) -> Served:
        """Accept one request, or say why not."""
        stream_id = message.stream_id
        if isinstance(message, Oversized):
            return _refuse(stream_id, Code.RESOURCE_EXHAUSTED, message.complaint)
        if stream_id % 2 == 0 or stream_id <= self._last:
            return _refuse(stream_id, Code.INVALID_ARGUMENT, "StreamID must be odd and higher than the last")
        self._last = stream_id
        try:
            request = envelope.decode_request(message)
        except WireError as error:
            return _refuse(stream_id, Code.INVALID_ARGUMENT, f"unmarshal request error: {error}")
        if request.route in self._routes:
            self._open.add(stream_id)
            return request
        known = f"/{request.service}" in self._services
        missing = f"method {request.method}" if known else f"service {request.service}"
        return _refuse(stream_id, Code.UNIMPLEMENTED, missing)

    def answer(self, stream_id: int, payload: bytes) -> bytes:
        """Return the bytes of a successful answer; none where the call has been answered before."""
        reply = envelope.encode_answer(stream_id, payload)
        if len(reply) > MAX_MESSAGE:
            return self.fail(stream_id, Code.RESOURCE_EXHAUSTED, "the answer is too long")
        return self._finish(stream_id, reply)

    def fail(self, stream_id: int, code: int, text: str) -> bytes:
        """Return the bytes of an answer that says no; none where the call has been answered before."""
        return self._finish(stream_id, envelope.encode_failure(stream_id, code, text))

    def _finish(self, stream_id: int, reply: bytes) -> bytes:
        if stream_id not in self._open:
            return b""
        self._open.remove(stream_id)
        return reply


def _refuse(stream_id: int, code: Code, text: str) -> Refusal:
    return Refusal(stream_id, code, text, envelope.encode_failure(stream_id, code, text))


class CallStreams:
    """The calling end of one ttrpc connection."""

    def __init__(self) -> None:
        self._reader = MessageReader()
        self._next = 1
        self._open: set[int] = set()

    @property
    def open(self) -> frozenset[int]:
        """Calls that have no answer yet."""
        return frozenset(self._open)

    @property
    def at_boundary(self) -> bool:
        """Whether the stream may end here."""
        return self._reader.at_boundary

    def call(self, service: str, method: str, payload: bytes, timeout: float | None) -> tuple[int, bytes]:
        """Begin a call.

        Args:
            service: Full name of the service.
            method: Bare name of the method.
            payload: The encoded request message.
            timeout: Seconds that the caller waits, or None for no limit. It is told to the other side.

        Returns:
            The call's stream id, and the bytes to send.

        Raises:
            TooLargeError: The message would be longer than 4 MiB. The stream id is used up.
        """
        stream_id, self._next = self._next, self._next + 2
        request = envelope.encode_request(stream_id, service, method, payload, timeout)
        if len(request) > MAX_MESSAGE:
            raise TooLargeError(
                f"a request of {len(request)} bytes exceeds the {MAX_MESSAGE} of the protocol"
            )
        self._open.add(stream_id)
        return stream_id, request

    def forget(self, stream_id: int) -> None:
        """Stop waiting for an answer; one that comes later is dropped."""
        self._open.discard(stream_id)

    def feed(self, data: bytes) -> list[Response]:
        """Take bytes as they arrive and return the answers that they complete, in order."""
        responses = []
        for message in self._reader.feed(data):
            if message.kind != envelope.RESPONSE or message.stream_id not in self._open:
                continue
            self._open.remove(message.stream_id)
            responses.append(_judge_response(message))
        return responses


def _judge_response(message: Message | Oversized) -> Response:
    if isinstance(message, Oversized):
        return Response(message.stream_id, Code.RESOURCE_EXHAUSTED, message.complaint, b"")
    try:
        return envelope.decode_response(message)
    except WireError as error:
        return Response(message.stream_id, Code.INTERNAL, f"unmarshal response error: {error}", b"")
