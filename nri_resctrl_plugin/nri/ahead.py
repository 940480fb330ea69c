"""What a launched plugin says before its packages are loaded, and for ever where they cannot be.

A runtime that launches a plugin counts five seconds from exec until it registers, and one with NRI 0.6 ends
itself where that fails. Most of a start is loading packages. So a thread registers at once and answers what
comes meanwhile; what it received and answered is handed to whoever takes over.

Owns: the first words on an inherited connection. Must not know: what they are about.

Rules:
    1. Nothing is imported but the standard library and two small modules beside this one: whatever else is
       missing or broken must not keep the plugin from registering.
    2. Configure and Synchronize are answered at once, an event after `PATIENCE`: whoever takes over before
       that answers it himself.
    3. Each call is answered once, whoever does it: `Said` tells which were.
    4. What is received is kept for whoever takes over, up to a limit; beyond it, it is left unread.
    5. What cannot be understood is left to whoever takes over; where nobody will, it is the end.
"""

from __future__ import annotations

import os
import select
import struct
import threading
import time
from typing import Final, NamedTuple

from nri_resctrl_plugin.nri import wire
from nri_resctrl_plugin.nri.mux import PLUGIN_CONN, RUNTIME_CONN, MuxReader, frames

__all__ = ["Ahead", "Said"]

EVENT_MASK: Final = 0x627
"""The events that the plugin asks for; `service` spells them out."""

NRI_VERSION: Final = "v0.12.2"
"""The NRI that the plugin was written for."""

PATIENCE: Final = 0.1
"""Seconds that an event waits for somebody better. It is part of the two seconds that the runtime allows."""

KEPT_BYTES: Final = 64 << 20
"""How much is kept at most; a list of 2,500 large containers has 27 MB."""

_HEADER: Final = struct.Struct(">IIBB")
_MAX_BODY: Final = 4 << 20
_REQUEST, _RESPONSE = 1, 2
_CONFIGURE, _SYNCHRONIZE = b"Configure", b"Synchronize"


class Said(NamedTuple):
    """What has happened on a connection before it was taken over.

    Attributes:
        received: Every byte that the other side has sent so far.
        spoken: The messages that were sent, each as its connection on the trunk and its stream.
    """

    received: bytes = b""
    spoken: frozenset[tuple[int, int]] = frozenset()


class Ahead:
    """Speaks first on a connection that the runtime made.

    Args:
        fd: Its descriptor.
        name: The plugin's name. The runtime knows it better; it is sent because it must be.
        idx: The plugin's index, likewise.

    Attributes:
        fd: The descriptor.
        taken: Whether somebody has taken over.
    """

    def __init__(self, fd: int, name: str, idx: str) -> None:
        self.fd = fd
        self.taken: bool = False
        self._identity = (name, idx)
        self._mux = MuxReader()
        self._stream = bytearray()
        self._kept = bytearray()
        self._spoken: set[tuple[int, int]] = set()
        self._due: list[tuple[float, int]] = []
        self._lost = False
        self._config: str | None = None
        self._heard = threading.Event()
        self._idle = threading.Event()
        self._wake = self._waker = -1
        self._thread = threading.Thread(target=self._run, name="nri-ahead", daemon=True)

    def begin(self) -> None:
        """Register, and answer from now on.

        Raises:
            OSError: The descriptor is no connection.
        """
        os.set_blocking(self.fd, True)
        name, idx = (text.encode(errors="replace") for text in self._identity)
        registration = wire.bytes_field(1, name) + wire.bytes_field(2, idx)
        registration += wire.bytes_field(3, NRI_VERSION.encode())
        call = wire.bytes_field(1, b"nri.pkg.api.v1alpha1.Runtime") + wire.bytes_field(2, b"RegisterPlugin")
        self._send(RUNTIME_CONN, 1, _REQUEST, call + wire.bytes_field(3, registration))
        self._wake, self._waker = os.pipe()
        self._thread.start()

    def settings(self, timeout: float) -> str | None:
        """Wait for the settings that the runtime brings with Configure.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Their text, empty where the runtime has none for us; None where no Configure came.
        """
        self._heard.wait(timeout)
        return self._config

    def take(self) -> Said:
        """Take over: from now on nobody else reads or writes the connection."""
        self.taken = True
        os.close(self._waker)
        self._thread.join()
        os.close(self._wake)
        return Said(bytes(self._kept), frozenset(self._spoken))

    def idle(self) -> None:
        """Answer until the runtime closes the connection, for a plugin that can do nothing else."""
        self._idle.set()
        os.write(self._waker, b".")
        self._thread.join()
        os.close(self._waker)
        os.close(self._wake)

    def _run(self) -> None:
        """Read and answer until somebody takes over or nobody is there."""
        try:
            while self._turn():
                pass
        except OSError:
            pass  # the connection failed: whoever takes over will see it fail again
        finally:
            self._heard.set()

    def _turn(self) -> bool:
        """Wait for whatever comes next, and deal with it; False where it is the end."""
        timeout = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
        watched = [self._wake] if self._full else [self._wake, self.fd]
        ready, _, _ = select.select(watched, [], [], timeout)
        if self._wake in ready and not os.read(self._wake, 1):
            return False
        if self._idle.is_set() and self._lost:
            return False
        if self.fd in ready:
            data = os.read(self.fd, 1 << 16)
            if not data:
                return False
            self._take_in(data)
        now = time.monotonic()
        while self._due and (self._idle.is_set() or self._due[0][0] <= now):
            self._answer(self._due.pop(0)[1], b"")
        return True

    @property
    def _full(self) -> bool:
        return not self._idle.is_set() and (self._lost or len(self._kept) >= KEPT_BYTES)

    def _take_in(self, data: bytes) -> None:
        if not self._idle.is_set():
            self._kept += data
        try:
            for conn, piece in self._mux.feed(data):
                if conn == PLUGIN_CONN:
                    self._stream += piece
            self._hear_calls()
        except wire.WireError:
            self._lost = True

    def _hear_calls(self) -> None:
        """Hear every call that has fully arrived."""
        while len(self._stream) >= _HEADER.size and not self._lost:
            length, stream, kind, _ = _HEADER.unpack_from(self._stream)
            if length > _MAX_BODY:
                self._lost = True
                return
            end = _HEADER.size + length
            if len(self._stream) < end:
                return
            body = bytes(self._stream[_HEADER.size : end])
            del self._stream[:end]
            if kind == _REQUEST:
                self._hear(stream, body)

    def _hear(self, stream: int, body: bytes) -> None:
        """Hear one call: what must be answered at once is."""
        call = {number: value for number, value in wire.fields(body) if isinstance(value, bytes)}
        method, payload = call.get(2, b""), call.get(3, b"")
        if method == _CONFIGURE:
            told = dict(wire.fields(payload)).get(1, b"")
            self._answer(stream, wire.int_field(2, EVENT_MASK))
            self._config = told.decode(errors="replace") if isinstance(told, bytes) else ""
            self._heard.set()
        elif method == _SYNCHRONIZE:
            more = dict(wire.fields(payload)).get(3)
            self._answer(stream, wire.int_field(2, 1) if more else b"")
        else:
            self._due.append((time.monotonic() + PATIENCE, stream))

    def _answer(self, stream: int, payload: bytes) -> None:
        self._send(PLUGIN_CONN, stream, _RESPONSE, wire.bytes_field(2, payload))

    def _send(self, conn: int, stream: int, kind: int, body: bytes) -> None:
        data = memoryview(frames(conn, _HEADER.pack(len(body), stream, kind, 0) + body))
        while data:
            data = data[os.write(self.fd, data) :]
        self._spoken.add((conn, stream))
