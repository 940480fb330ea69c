"""A terminal that is drawn on again and again: its modes, its keys, its signals.

Owns: escape sequences, termios, signals. Must not know: what is drawn.

Rules:
    1. However it ends, the terminal is as it was before: normal screen, cursor, echo.
    2. A new size, a key, and a stop and continue (Ctrl-Z, `fg`) are noticed at once.
    3. SIGTERM and SIGHUP end the wait as the key for the end does.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import termios
import tty
from typing import TYPE_CHECKING, Final, Self, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

__all__ = ["END", "RESIZED", "Screen"]

RESIZED: Final = "resized"
END: Final = "end"
"""What `Screen.wait` returns besides keys."""

_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[J"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_REST_OF_LINE: Final = "\x1b[K"
_REST_OF_SCREEN: Final = "\x1b[J"
_KEY: Final = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]|\x1b?.", re.DOTALL)
"""A key as a terminal sends it: a sequence, or a letter, with Alt before it or not."""
_NAMES: Final = {"\x1b[A": "up", "\x1b[B": "down", "\x1b[5~": "page-up", "\x1b[6~": "page-down"}
_SMALLEST: Final = (24, 80)
_SIGNALS: Final = (signal.SIGWINCH, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)


class Screen:
    """The terminal, from `with` on.

    Args:
        keys: Where keys come from; they are left alone if it is no terminal.
        output: The terminal.
    """

    def __init__(self, keys: TextIO | None, output: TextIO) -> None:
        self._output = output
        self._keys = keys.fileno() if keys is not None and keys.isatty() else None
        self._before: list[int | list[bytes | int]] | None = None
        self._handlers: dict[signal.Signals, signal._HANDLER] = {}
        self._wake: tuple[int, int] | None = None
        self._wakeup_before = -1
        self._news: list[str] = []
        self._to_stop = False

    def __enter__(self) -> Self:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake = reader, writer
        self._wakeup_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, self._signalled) for number in _SIGNALS}
        self._take()
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):  # the terminal may be gone
            self._give_back()
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for descriptor in self._wake or ():
            os.close(descriptor)
        self._wake = None

    @property
    def size(self) -> tuple[int, int]:
        """Lines and columns."""
        with contextlib.suppress(OSError):
            columns, lines = os.get_terminal_size(self._output.fileno())
            if columns and lines:
                return lines, columns
        return _SMALLEST

    def draw(self, lines: Iterable[str]) -> None:
        """Show lines from the top on; each is known to fit.

        Raises:
            OSError: The terminal is gone.
        """
        text = f"{_REST_OF_LINE}\r\n".join(lines)
        self._write(f"{_HOME}{text}{_REST_OF_LINE}{_REST_OF_SCREEN}")

    def wait(self, seconds: float) -> list[str]:
        """Wait for keys, a new size or the end.

        Args:
            seconds: How long at most.

        Returns:
            Keys by their letter (arrows as "up", "down", "page-up", "page-down"), `RESIZED`, `END`; nothing
            after the time.
        """
        if not self._news and self._wake is not None:
            sources = [self._wake[0], *([self._keys] if self._keys is not None else [])]
            ready, _, _ = select.select(sources, [], [], max(0.0, seconds))
            if self._wake[0] in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake[0], 4096)
            if self._keys is not None and self._keys in ready:
                self._news += self._pressed(self._keys)
        if self._to_stop:
            self._stop()
        news, self._news = self._news, []
        return news

    # Within

    def _take(self) -> None:
        if self._keys is not None:
            self._before = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys, termios.TCSANOW)
        self._write(_ENTER)

    def _give_back(self) -> None:
        try:
            self._write(_LEAVE)
        finally:
            if self._keys is not None and self._before is not None:
                with contextlib.suppress(termios.error):
                    termios.tcsetattr(self._keys, termios.TCSANOW, self._before)

    def _stop(self) -> None:
        """Stop as the terminal's user wants, and go on when told to."""
        self._to_stop = False
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._signalled)
        self._take()
        self._news.append(RESIZED)

    def _signalled(self, number: int, _: FrameType | None) -> None:
        match number:
            case signal.SIGWINCH:
                self._news.append(RESIZED)
            case signal.SIGTSTP:
                self._to_stop = True
            case _:
                self._news.append(END)

    def _pressed(self, descriptor: int) -> list[str]:
        try:
            typed = os.read(descriptor, 256)
        except OSError:
            typed = b""
        if not typed:  # the terminal is gone
            return [END]
        keys = _KEY.findall(typed.decode("utf-8", "ignore"))
        return [_NAMES.get(key, key) for key in keys]

    def _write(self, text: str) -> None:
        self._output.write(text)
        self._output.flush()
