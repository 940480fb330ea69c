"""What the program does about its memory: it runs on every node, so what it keeps is paid many times.

Owns: what is not loaded, what the collector need not look at, what goes back to the system. Must not know:
what the memory was for.

Rules:
    1. The program alone does this, never the library: a process that somebody else owns is not ours to tune.
    2. Where the interpreter or the C library cannot, nothing happens.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["UNUSED", "give_back", "keep", "without"]

UNUSED: Final = ("rich", "ssl")
"""What our packages load where it is there and go without where it is not: coloured tracebacks and TLS, 7 MB.
Records are plain text here, and every connection is a unix socket."""


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """Import things as if these modules were not installed; those that are loaded already stay.

    Args:
        names: Their names.
    """
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None stands for "cannot be imported"
    try:
        yield
    finally:
        for name in absent:
            if sys.modules[name] is None:
                del sys.modules[name]


def keep() -> None:
    """Let the collector pass over everything that exists now.

    That is modules, and they stay. Each time it looked through them no event was handled for 15 ms.
    """
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Give what was freed back to the system: a list of 27 MB leaves its holes behind everywhere."""
    with contextlib.suppress(AttributeError, OSError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
