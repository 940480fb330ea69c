"""The system's log, for a program that has no standard error: the journal, or whatever listens at `/dev/log`.

Owns: syslog's datagrams. Must not know: what is logged.

Rules:
    1. Nothing waits and nothing fails: a message that nobody takes is lost.
    2. One line is one message; what is longer than `LINE_LIMIT` is cut.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

__all__ = ["ERROR", "PRIORITIES", "Journal"]

PATH: Final = "/dev/log"
"""Where journald and every syslog listen."""

LINE_LIMIT: Final = 8192
"""Bytes of a message at most."""

ERROR: Final = 3
PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": ERROR, "critical": 2}
"""syslog's number of each level of ours."""

_DAEMON: Final = 3 << 3
_NAME: Final = "nri-resctrl-plugin"


class Journal:
    """Sends lines.

    Args:
        path: The socket.
    """

    def __init__(self, path: str = PATH) -> None:
        self._path = path
        self._head = f"{_NAME}[{os.getpid()}]: "
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)  # noqa: FBT003 - its only argument

    def send(self, priority: int, text: str) -> None:
        """Send a text, line by line."""
        for line in text.splitlines():
            if line.strip():
                message = f"<{_DAEMON | priority}>{self._head}{line}".encode(errors="replace")
                with contextlib.suppress(OSError):
                    self._socket.sendto(message[:LINE_LIMIT], self._path)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
