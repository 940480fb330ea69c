"""ttrpc's messages: a 10-byte header and a body, and the two envelopes that a body can be.

Owns: framing of one byte stream, encoding and decoding of requests and responses. Must not know: which calls
are open, the methods' payloads, or how bytes move.

Rules:
    1. Pure: bytes in, values and bytes out.
    2. A message that announces more than 4 MiB is read past without being kept.
    3. What cannot be decoded, or is cut short, is a `WireError`.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

from attrs import field, frozen

from nri_resctrl_plugin.nri.wire import WireError, bytes_field, fields, int_field, signed64

__all__ = [
    "MAX_BODY",
    "MAX_MESSAGE",
    "REQUEST",
    "RESPONSE",
    "Code",
    "Message",
    "MessageReader",
    "Oversized",
    "Request",
    "Response",
    "decode_request",
    "decode_response",
    "encode_answer",
    "encode_failure",
    "encode_request",
]

MAX_BODY: Final = 4 << 20
"""Most bytes of a message's body, in either direction."""

REQUEST: Final = 1
"""Kind of a message that asks."""

RESPONSE: Final = 2
"""Kind of a message that answers."""

_HEADER: Final = struct.Struct(">IIBB")

MAX_MESSAGE: Final = _HEADER.size + MAX_BODY
"""Most bytes of a whole message."""


class Code(IntEnum):
    """The status codes of gRPC that matter here."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13


@frozen
class Message:
    """One whole message as it arrived.

    Attributes:
        stream_id: The call that it belongs to.
        kind: 1 request, 2 response, 3 data; others are reserved.
        body: The envelope.
    """

    stream_id: int
    kind: int
    body: bytes


@frozen
class Oversized:
    """A message whose body was too long and has been read past.

    Attributes:
        stream_id: The call that it belongs to.
        kind: As in `Message`.
        length: Bytes that it announced.
    """

    stream_id: int
    kind: int
    length: int

    @property
    def complaint(self) -> str:
        """The sentence that Go's ttrpc uses."""
        return f"message length {self.length} exceed maximum message size of {MAX_BODY}"


class MessageReader:
    """Cuts a byte stream into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0
        self._skipped: Oversized | None = None

    @property
    def at_boundary(self) -> bool:
        """Whether the stream may end here: no message has begun and not ended."""
        return not self._buffer and self._skipped is None

    def feed(self, data: bytes) -> list[Message | Oversized]:
        """Take bytes as they arrive and return what they complete, in order."""
        self._buffer += data
        messages: list[Message | Oversized] = []
        at = 0
        while True:
            if self._skipped is not None:
                step = min(self._skip, len(self._buffer) - at)
                at += step
                self._skip -= step
                if self._skip:
                    break
                messages.append(self._skipped)
                self._skipped = None
            if len(self._buffer) - at < _HEADER.size:
                break
            length, stream_id, kind, _flags = _HEADER.unpack_from(self._buffer, at)
            if length > MAX_BODY:
                at += _HEADER.size
                self._skip, self._skipped = length, Oversized(stream_id, kind, length)
                continue
            end = at + _HEADER.size + length
            if len(self._buffer) < end:
                break
            messages.append(Message(stream_id, kind, bytes(self._buffer[at + _HEADER.size : end])))
            at = end
        del self._buffer[:at]
        return messages


@frozen
class Request:
    """A call to be served.

    Attributes:
        stream_id: To be given back with the answer.
        service: Full name of the service.
        method: Bare name of the method.
        payload: The encoded request message.
        timeout: Seconds that the caller still waits, or None where it did not say.
    """

    stream_id: int
    service: str
    method: str
    payload: bytes = field(repr=False)
    timeout: float | None

    @property
    def route(self) -> str:
        """Service and method as one path, in gRPC's spelling."""
        return f"/{self.service}/{self.method}"


@frozen
class Response:
    """The answer to a call of ours.

    Attributes:
        stream_id: The call.
        code: 0 for success.
        text: The sentence beside another code.
        payload: The encoded response message.
    """

    stream_id: int
    code: int
    text: str
    payload: bytes = field(repr=False)


def _message(stream_id: int, kind: int, body: bytes) -> bytes:
    """Return one message with its header."""
    return _HEADER.pack(len(body), stream_id, kind, 0) + body


def encode_request(stream_id: int, service: str, method: str, payload: bytes, timeout: float | None) -> bytes:
    """Return a request with its header; the time that the caller waits is told in nanoseconds."""
    return _message(
        stream_id,
        REQUEST,
        bytes_field(1, service.encode())
        + bytes_field(2, method.encode())
        + bytes_field(3, payload)
        + int_field(4, 0 if timeout is None else max(1, round(timeout * 1e9))),
    )


def encode_answer(stream_id: int, payload: bytes) -> bytes:
    """Return a successful response with its header: no status, and no body at all for an empty message."""
    return _message(stream_id, RESPONSE, bytes_field(2, payload))


def encode_failure(stream_id: int, code: int, text: str) -> bytes:
    """Return a response that holds a status alone: `Status{code=1, message=2}` in field 1."""
    status = int_field(1, code) + bytes_field(2, text.encode(errors="replace"))
    return _message(stream_id, RESPONSE, bytes_field(1, status))


def decode_request(message: Message) -> Request:
    """Decode `Request{service=1, method=2, payload=3, timeout_nano=4, metadata=5}`; metadata is ignored."""
    service, method, payload, nanoseconds = b"", b"", b"", 0
    for number, value in fields(message.body):
        match number, value:
            case 1, bytes():
                service = value
            case 2, bytes():
                method = value
            case 3, bytes():
                payload = value
            case 4, int():
                nanoseconds = signed64(value)
            case _:
                pass
    timeout = nanoseconds / 1e9 if nanoseconds > 0 else None
    return Request(message.stream_id, _text(service), _text(method), payload, timeout)


def decode_response(message: Message) -> Response:
    """Decode `Response{status=1, payload=2}`; a status that comes in two parts is merged."""
    status, payload = b"", b""
    for number, value in fields(message.body):
        match number, value:
            case 1, bytes():
                status += value
            case 2, bytes():
                payload = value
            case _:
                pass
    code, text = 0, b""
    for number, value in fields(status):
        match number, value:
            case 1, int():
                code = signed64(value)
            case 2, bytes():
                text = value
            case _:
                pass
    return Response(message.stream_id, code, text.decode(errors="replace"), payload)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise WireError("a string field is not UTF-8") from error
