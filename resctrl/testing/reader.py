"""`WatchedReader`: an open file that tells before each read of a page.

Owns: that. Must not know: who wants to know it, or why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    from resctrl.fs import Reader

__all__ = ["WatchedReader"]


class WatchedReader:
    """Passes everything on to another reader.

    Args:
        inner: The reader that does the work.
        before: Called before each `read_page`; an `OSError` that it raises is the outcome.
    """

    def __init__(self, inner: Reader, before: Callable[[], object]) -> None:
        self._inner = inner
        self._before = before

    def read(self) -> str:
        """Pass on."""
        return self._inner.read()

    def read_page(self) -> str:
        """Tell, and pass on."""
        self._before()
        return self._inner.read_page()

    def close(self) -> None:
        """Pass on."""
        self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
