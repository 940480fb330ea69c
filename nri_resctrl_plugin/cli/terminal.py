"""What a stream can show: whether it is a terminal, how wide, and whether colours are welcome.

Owns: the escape sequences of colours, and when there are none (https://no-color.org). Must not know: what is
shown.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from typing import IO, TYPE_CHECKING, Final

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PLAIN", "Paint", "columns_of", "cut", "paint_for", "printable", "width_of"]

_PLAIN_WIDTH: Final = 100
_LEAST_WIDTH: Final = 40


@frozen
class Paint:
    """Colours a text, or leaves it alone.

    Attributes:
        on: Whether it does.
    """

    on: bool

    def __call__(self, text: str, code: str) -> str:
        """Return the text with an attribute such as "1" (bold), "32" (green), "33" (yellow), "31" (red)."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.on and code else text


PLAIN: Final = Paint(on=False)


def paint_for(stream: IO[str], environment: Mapping[str, str]) -> Paint:
    """Return how to colour what goes to a stream."""
    dumb = environment.get("TERM", "") in {"", "dumb"}
    return Paint(on=stream.isatty() and not dumb and not environment.get("NO_COLOR"))


def width_of(stream: IO[str]) -> int:
    """Return how many columns a stream shows."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return _PLAIN_WIDTH
    return max(_LEAST_WIDTH, columns) if columns else _PLAIN_WIDTH  # a serial line tells 0


def printable(text: str, encoding: str | None = None) -> str:
    """Return a text as it may be shown: names of groups are any bytes, and must not steer a terminal."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown.encode(encoding or sys.getdefaultencoding(), "replace").decode(
        encoding or sys.getdefaultencoding()
    )


def cut(text: str, width: int) -> str:
    """Return a printable text that takes at most so many columns; a tilde stands for what was cut off."""
    if columns_of(text) <= width:
        return text
    while text and columns_of(text) > width - 1:
        text = text[:-1]
    return f"{text}~"


def columns_of(text: str) -> int:
    """Return how many columns a printable text takes."""
    return sum(
        0 if unicodedata.combining(letter) else 1 + (unicodedata.east_asian_width(letter) in {"W", "F"})
        for letter in text
    )
