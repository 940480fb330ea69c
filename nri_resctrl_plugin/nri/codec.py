"""Encoded messages in and out of generated classes, whole ones only.

Owns: the codec. Must not know: which messages there are.
"""

from __future__ import annotations

from typing import Protocol, Self, TypeVar, cast

from grpclib.encoding.proto import ProtoCodec

from nri_resctrl_plugin.nri import wire

__all__ = ["ReplyT", "RequestT", "WireMessage", "decode"]


class WireMessage(Protocol):
    """A generated message, as far as the codec needs it."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's spelling
        """Return the encoded message."""
        ...

    @classmethod
    def FromString(cls, data: bytes) -> Self:  # noqa: N802 - protobuf's spelling
        """Return the decoded message."""
        ...


RequestT = TypeVar("RequestT", bound=WireMessage)
ReplyT = TypeVar("ReplyT", bound=WireMessage)


def decode(payload: bytes, message_type: type[RequestT]) -> RequestT:
    """Decode a message, making sure that it is whole: generated code takes one that was cut short.

    Raises:
        WireError: It cannot be decoded.
    """
    wire.check(payload)
    try:
        return cast("RequestT", ProtoCodec().decode(payload, message_type))
    except Exception as error:
        # Generated code raises whatever its parser stumbles over; all of it means the same.
        raise wire.WireError(f"{type(error).__name__}: {error}") from error
