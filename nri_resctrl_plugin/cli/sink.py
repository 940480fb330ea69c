"""Where event lines go: a file or standard output, written by a thread of its own.

Owns: the queue between the event loop and a stream that may be slow. Must not know: what a line says.

Rules:
    1. `put` never waits: a reader that sleeps must not make the plugin miss the runtime's deadline.
    2. The queue is bounded. A line that finds it full is dropped, and the log says so once; the reader sees
       the gap in `seq`.
    3. A reader that is gone (EPIPE) ends the sink, and `on_end` is told. Any other failure costs one line.
    4. `on_loss` is told of each line that is lost while there is somebody to read.
"""

from __future__ import annotations

import queue
import threading
from typing import IO, TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

__all__ = ["LineSink"]

QUEUE_LIMIT: Final = 65536
"""Lines that wait at most: some 20 MB."""


class LineSink:
    """Writes lines in order, each flushed at once.

    Args:
        stream: Where to.
        on_end: Called from the writing thread when nobody reads any more.
        on_loss: Called for each line that is lost, from any thread.
    """

    def __init__(
        self, stream: IO[str], on_end: Callable[[], None], on_loss: Callable[[], None] = lambda: None
    ) -> None:
        self._stream = stream
        self._on_end = on_end
        self._on_loss = on_loss
        self._lines: queue.Queue[str | None] = queue.Queue(QUEUE_LIMIT)
        self._dropping = False
        self._log: FilteringBoundLogger = structlog.get_logger("nri_resctrl_plugin.events")
        self._thread = threading.Thread(target=self._write, name="event-lines", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Queue a line, its newline included."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            if not self._dropping:
                self._log.error("events_dropped", reason="the reader is too slow", queue=QUEUE_LIMIT)
            self._dropping = True
            self._on_loss()
        else:
            self._dropping = False

    def close(self, timeout: float = 2.0) -> bool:
        """Write what is queued.

        Args:
            timeout: Seconds to wait for a slow reader.

        Returns:
            Whether everything was written in time.
        """
        try:
            self._lines.put(None, timeout=timeout)
        except queue.Full:
            return False
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._stream.write(line)
                self._stream.flush()
            except BrokenPipeError:
                self._on_end()
                return
            except (OSError, ValueError) as error:
                self._log.error("event_not_written", error=str(error))
                self._on_loss()
