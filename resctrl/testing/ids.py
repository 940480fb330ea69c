"""The numbers that a resctrl kernel hands out, and the text it leaves behind.

Owns: RMIDs with their limbo, CLOSIDs, the last_cmd_status buffer. Must not know: paths, groups, tasks.
"""

from __future__ import annotations

import errno
import math
from collections import deque
from typing import TYPE_CHECKING, Final

from resctrl.testing.nodes import refuse

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ClosidPool", "RmidPool", "StatusBuffer"]


class RmidPool:
    """RMIDs 1 to num_rmids - 1; RMID 0 is the default group's and is never given out (K01).

    A freed RMID rests for `limbo` seconds, since cache lines still carry it (K05); the least recently freed
    one is used first (K07). Source: alloc_rmid, free_rmid, __check_limbo.
    """

    def __init__(self, num_rmids: int, limbo: float, clock: Callable[[], float]) -> None:
        self.num_rmids: Final[int] = num_rmids
        self._limbo = limbo
        self._clock = clock
        self._free = deque(range(1, num_rmids))
        self._resting: deque[tuple[float, int]] = deque()

    def take(self) -> int:
        """Return an RMID; ENOSPC if there is none, EBUSY if one rests at least (K03, K04)."""
        self._end_limbo()
        if not self._free:
            refuse(errno.EBUSY if self._resting else errno.ENOSPC)
        return self._free.popleft()

    def give_back(self, rmid: int) -> None:
        """Free an RMID: into limbo, or at once where there is no llc_occupancy (K06)."""
        if self._limbo > 0:
            self._resting.append((self._clock() + self._limbo, rmid))
        else:
            self._free.append(rmid)

    def flush(self) -> None:
        """End every limbo now, as when the caches have been emptied and the kernel's worker has looked."""
        self._free.extend(rmid for _, rmid in self._resting)
        self._resting.clear()

    def free(self) -> int:
        """Return how many RMIDs could be taken now."""
        self._end_limbo()
        return len(self._free)

    def resting(self) -> int:
        """Return how many RMIDs are in limbo now."""
        self._end_limbo()
        return len(self._resting)

    def _end_limbo(self) -> None:
        now = self._clock() if self._resting else -math.inf
        while self._resting and self._resting[0][0] <= now:
            self._free.append(self._resting.popleft()[1])


class ClosidPool:
    """CLOSIDs 1 to num_closids - 1, the lowest free one first; CLOSID 0 is the default group's (K02).

    Source: closid_alloc, closid_init.
    """

    def __init__(self, num_closids: int) -> None:
        self.num_closids: Final[int] = num_closids
        self._free = set(range(1, num_closids))

    def take(self) -> int:
        """Return a CLOSID; ENOSPC if there is none."""
        if not self._free:
            refuse(errno.ENOSPC)
        closid = min(self._free)
        self._free.remove(closid)
        return closid

    def give_back(self, closid: int) -> None:
        """Free a CLOSID; it can be taken at once."""
        self._free.add(closid)


class StatusBuffer:
    """last_cmd_status: 512 bytes that are appended to until somebody clears them (K60, K61).

    Source: seq_buf_puts, seq_buf_printf, rdt_last_cmd_status_show. A fixed text that does not fit is dropped,
    a formatted one is cut; either way nothing more is taken until the next clearing.
    """

    SIZE: Final[int] = 512

    def __init__(self) -> None:
        self._text = b""
        self._full = False

    def clear(self) -> None:
        """Forget everything."""
        self._text = b""
        self._full = False

    def puts(self, text: str) -> None:
        """Append a fixed text, or nothing of it where it does not fit with its NUL."""
        data = text.encode()
        if self._full or len(self._text) + len(data) + 1 > self.SIZE:
            self._full = True
            return
        self._text += data

    def printf(self, text: bytes) -> None:
        """Append a formatted text, cut where the buffer ends."""
        if self._full:
            return
        room = self.SIZE - len(self._text)
        if len(text) >= room:
            self._full = True
            text = text[: room - 1]
        self._text += text

    def show(self) -> str:
        """Return what the file reads."""
        return self._text.decode("utf-8", "surrogateescape") if self._text or self._full else "ok\n"
