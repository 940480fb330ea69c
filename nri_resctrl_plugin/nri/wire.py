"""The protobuf wire format, just enough of it: walk over a message's fields, and build small ones.

Owns: varints, field tags, lengths. Must not know: any message's meaning.

It exists because the generated code accepts a message that was cut short as if it were whole. What walks
through here is whole at the level that is walked: of a message inside another the length is checked, not the
content.

Rules:
    1. Pure: bytes in, values out, `WireError` for anything that is no protobuf.
    2. A known field with another wire type than expected is an unknown field, as everywhere in protobuf.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["WireError", "bytes_field", "check", "fields", "int_field", "keep", "signed64"]

_VARINT: Final = 0
_LENGTH: Final = 2
_FIXED: Final[Mapping[int, int]] = MappingProxyType({1: 8, 5: 4})  # wire type -> bytes
_MAX_VARINT_BYTES: Final = 10
_MAX_FIELD: Final = (1 << 29) - 1


class WireError(Exception):
    """Bytes that cannot be what the protocol says must come here."""


def fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """Return the varint and length-delimited fields of a message in order.

    Fixed-width fields are checked and left out: no message that is read by hand has one.

    Args:
        data: One whole message.

    Raises:
        WireError: It is cut short, or no protobuf.
    """
    return [
        (number, value if kind == _VARINT else data[value:end])
        for number, kind, value, end in _walk(data)
        if kind in (_VARINT, _LENGTH)
    ]


def keep(data: bytes, numbers: frozenset[int]) -> bytes:
    """Return a message with the fields of some numbers alone.

    Generated code spends most of its time on fields that it does not know; this passes over them cheaply.

    Raises:
        WireError: It is cut short, or no protobuf.
    """
    kept = []
    start = 0
    for number, _, _, end in _walk(data):
        if number in numbers:
            kept.append(data[start:end])
        start = end
    return b"".join(kept)


def check(data: bytes) -> None:
    """Make sure that a message is whole at its top level.

    Raises:
        WireError: It is cut short, or no protobuf.
    """
    for _ in _walk(data):
        pass


def _walk(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield (field number, wire type, value or first byte, end) of each field, whole ones only."""
    at, size = 0, len(data)
    while at < size:
        tag = data[at]
        if tag < 0x80:  # noqa: PLR2004 - the continuation bit; nearly every tag is one byte
            at += 1
        else:
            tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if not 0 < number <= _MAX_FIELD:
            raise WireError(f"field number {number} is out of range")
        value = at
        if kind == _VARINT:
            value, at = _varint(data, at)
        elif kind == _LENGTH:
            length, value = _varint(data, at)
            at = value + length
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            raise WireError(f"wire type {kind} is not used in proto3")
        if at > size:
            raise WireError(f"field {number} needs {at - size} bytes more than there are")
        yield number, kind, value, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the varint that begins at a position, and the position after it."""
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if at + index >= len(data):
            raise WireError("a varint is cut short")
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value & 0xFFFF_FFFF_FFFF_FFFF, at + index + 1
    raise WireError("a varint is longer than 10 bytes")


def signed64(value: int) -> int:
    """Read an unsigned 64-bit varint as an int64 or int32 field."""
    return value - (1 << 64) if value >> 63 else value


def _encode_varint(value: int) -> bytes:
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def bytes_field(number: int, value: bytes) -> bytes:
    """Return one length-delimited field; an empty value is left out, as proto3 does."""
    return _encode_varint(number << 3 | _LENGTH) + _encode_varint(len(value)) + value if value else b""


def int_field(number: int, value: int) -> bytes:
    """Return one varint field; 0 is left out, as proto3 does."""
    return _encode_varint(number << 3 | _VARINT) + _encode_varint(value) if value else b""
