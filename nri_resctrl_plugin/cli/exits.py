"""What the program's exit status says, in the words of sysexits(3)."""

from __future__ import annotations

import contextlib
import os
import sys
from enum import IntEnum
from typing import TextIO

from nri_resctrl_plugin.cli.journal import ERROR, Journal

__all__ = ["Exit", "Stop", "complain", "flush_standard_error", "flush_standard_output"]


class Exit(IntEnum):
    """Exit statuses of every command."""

    OK = os.EX_OK
    UNUSABLE = 1
    """`doctor` found something that must be mended, `cleanup` a group that it could not remove."""
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


def complain(text: str, *, launched: bool = False) -> None:
    """Say on standard error why the program ends, if anybody can hear it.

    Args:
        text: Why.
        launched: A runtime launched the program: then it is said to the journal too.
    """
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(f"nri-resctrl-plugin: {text}", file=sys.stderr)
    if launched:
        journal = Journal()
        journal.send(ERROR, text)
        journal.close()


def flush_standard_output() -> None:
    """Flush what was printed; where it cannot be written, print to nowhere from now on.

    At the interpreter's end a reader that is gone would change the exit status.
    """
    _flush(sys.stdout)


def flush_standard_error() -> None:
    """As `flush_standard_output`, of the log and the complaints."""
    _flush(sys.stderr)


def _flush(stream: TextIO | None) -> None:
    if stream is None:  # the program was started with that descriptor closed
        return
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except ValueError:  # it is closed
        return
