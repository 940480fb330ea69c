"""What the program's exit status says, in the words of sysexits(3)."""

from __future__ import annotations

import os
import sys
from enum import IntEnum

__all__ = ["Exit", "Stop", "flush_standard_output"]


class Exit(IntEnum):
    """Exit statuses of every command."""

    OK = os.EX_OK
    USAGE = 2  # what argparse uses
    UNSUPPORTED = os.EX_UNAVAILABLE
    """This kernel or processor has no resctrl."""
    IO = os.EX_IOERR
    """Nobody reads the events any more."""
    LOST = os.EX_TEMPFAIL
    """The runtime is not there, or went away, and `--exit-on-disconnect` says not to wait."""
    PERMISSION = os.EX_NOPERM
    CONFIG = os.EX_CONFIG


class Stop(Exception):  # noqa: N818 - not always an error: it carries how the program ends
    """Ends a command.

    Attributes:
        status: With what.
    """

    def __init__(self, status: Exit, message: str) -> None:
        self.status = status
        super().__init__(message)


def flush_standard_output() -> None:
    """Flush what was printed; where nobody reads it any more, print to nowhere from now on.

    At the interpreter's end a reader that is gone would change the exit status.
    """
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
