"""What the kernel says about its last failure: info/last_cmd_status.

Owns: the reading of that text. Must not know: which operation failed, or what follows.

Rules:
    1. It is one buffer for the whole machine, and the next write of anybody clears it: it is read right after
       the failure, and what it says is advice.
    2. An unreadable text is no second failure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from attrs import frozen

if TYPE_CHECKING:
    from pathlib import Path

    from resctrl.fs import FsProvider

__all__ = ["LastStatus", "last_status"]

_WHICH_TASK: Final = re.compile(r"Error while processing task (\d{1,10})")


@frozen
class LastStatus:
    """What was read.

    Attributes:
        sentence: The newest line that says why something failed, or None.
        task: The number of the task that was being moved, where the text ends with one (Linux 6.7).
    """

    sentence: str | None = None
    task: int | None = None


def last_status(fs: FsProvider, root: Path) -> LastStatus:
    """Read the text.

    A `tasks` write adds a line that only repeats which task it was; the line before it says why.
    """
    try:
        lines = fs.read_text(root / "info" / "last_cmd_status").rstrip("\n").split("\n")
    except OSError:
        return LastStatus()
    match = _WHICH_TASK.fullmatch(lines[-1])
    while len(lines) > 1 and _WHICH_TASK.fullmatch(lines[-1]):
        lines.pop()
    sentence = lines[-1] if lines[-1] not in {"", "ok"} else None
    return LastStatus(sentence, int(match[1]) if match is not None else None)
