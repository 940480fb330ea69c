"""The trunk: several byte streams over one socket, cut into frames of an 8-byte header and a payload.

Owns: the frames of NRI's multiplexer. Must not know: what the streams carry, or how bytes move.

Rules:
    1. Pure: bytes in, pieces out. Nothing is kept but a header that has not fully arrived.
    2. Frame boundaries mean nothing to a reader: one message may span frames, so pieces are handed on as they
       come.
    3. Frames of connections that nobody here knows are read and dropped; a frame without payload is legal.
    4. When writing, a message of up to 4096 bytes is one frame; a longer one is a frame of exactly 4096 bytes
       and one with the rest. The Go side reads through a buffer of 4096 bytes and fails when a longer frame
       *begins* a message; it queues at most 256 frames, so cutting everything small breaks it too. No frame
       holds bytes of two messages.
"""

from __future__ import annotations

import struct
from typing import Final

from nri_resctrl_plugin.nri.wire import WireError

__all__ = ["MAX_PAYLOAD", "PLUGIN_CONN", "RUNTIME_CONN", "MuxReader", "frames"]

PLUGIN_CONN: Final = 1
"""The stream on which the runtime calls the plugin."""

RUNTIME_CONN: Final = 2
"""The stream on which the plugin calls the runtime."""

MAX_PAYLOAD: Final = (16 << 20) + 4096
"""Most bytes of payload accepted in one frame: the largest limit that any NRI release had, and some slack."""

_HEADER: Final = struct.Struct(">II")
_FIRST_FRAME: Final = 4096


def frames(conn: int, message: bytes) -> bytes:
    """Return one message framed for the trunk, to be written in one go.

    Args:
        conn: Connection id.
        message: One whole message of the protocol above, with its header.
    """
    head, rest = message[:_FIRST_FRAME], message[_FIRST_FRAME:]
    framed = _HEADER.pack(conn, len(head)) + head
    if rest:
        framed += _HEADER.pack(conn, len(rest)) + rest
    return framed


class MuxReader:
    """Cuts what arrives on the trunk into pieces of its connections."""

    def __init__(self, known: frozenset[int] = frozenset({PLUGIN_CONN, RUNTIME_CONN})) -> None:
        self._known = known
        self._header = b""
        self._conn = 0
        self._left = 0

    @property
    def at_boundary(self) -> bool:
        """Whether the trunk may end here: no frame has begun and not ended."""
        return self._left == 0 and not self._header

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take bytes as they arrive.

        Returns:
            Pieces (connection id, bytes) in order; none is empty.

        Raises:
            WireError: A frame announces more than `MAX_PAYLOAD`. The trunk cannot be read any further.
        """
        pieces: list[tuple[int, bytes]] = []
        at = 0
        while at < len(data):
            if self._left == 0:
                at = self._read_header(data, at)
                continue
            piece = data[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            if self._conn in self._known:
                pieces.append((self._conn, piece))
        return pieces

    def _read_header(self, data: bytes, at: int) -> int:
        """Take what is there of a header, and return the position after it."""
        missing = _HEADER.size - len(self._header)
        self._header += data[at : at + missing]
        if len(self._header) == _HEADER.size:
            self._conn, self._left = _HEADER.unpack(self._header)
            self._header = b""
            if self._left > MAX_PAYLOAD:
                raise WireError(f"a frame of {self._left} bytes on connection {self._conn} is too long")
        return at + missing
