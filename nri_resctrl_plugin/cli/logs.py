"""The program's log: structured, on standard error or elsewhere, text for people or JSON for machines.

Owns: where records go. Must not know: who writes them.

Rules:
    1. A record that cannot be written is lost and nothing else is: a full disk or a log reader that is gone
       must not become an error in the middle of a handler.
    2. A file is only ever appended to, so that whoever rotates it may truncate it.
    3. What came from outside cannot move a terminal's cursor or begin a line of its own: in text, whatever is
       not printable is escaped; JSON does it anyway.
"""

from __future__ import annotations

import functools
import io
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO, cast

import structlog

from nri_resctrl_plugin.cli.journal import PRIORITIES, Journal

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["JOURNAL", "STANDARD_ERROR", "append_to", "leads_nowhere", "set_up_logs"]

STANDARD_ERROR: Final = "-"
JOURNAL: Final = "journal"


class _Lossy(io.TextIOBase):
    """Writes where it can (rule 1)."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream

    def write(self, text: str, /) -> int:
        # No contextlib here: the interpreter flushes at its very end, when modules are gone already.
        try:
            if self._stream is not None:
                self._stream.write(text)
        except (OSError, ValueError):
            pass
        return len(text)

    def flush(self) -> None:
        try:
            if self._stream is not None:
                self._stream.flush()
        except (OSError, ValueError):
            pass

    def isatty(self) -> bool:
        try:
            return self._stream is not None and self._stream.isatty()
        except (OSError, ValueError):
            return False


class _JournalLogger:
    """What structlog ends in: a rendered record goes to the system's log with its level."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __getattr__(self, level: str) -> Callable[[str], None]:
        return functools.partial(self._journal.send, PRIORITIES[level])


def _printable(text: str, kept: str = "") -> str:
    """Escape what is not printable, but for some characters."""
    if text.isprintable():
        return text
    return "".join(it if it.isprintable() or it in kept else repr(it)[1:-1] for it in text)


def _escaped(_: object, __: str, record: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Make the text of a record's values printable (rule 3)."""
    return {key: _printable(value) if isinstance(value, str) else value for key, value in record.items()}


def _plain_traceback(stream: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    whole = io.StringIO()
    structlog.dev.plain_traceback(whole, exc_info)
    stream.write(_printable(whole.getvalue(), "\n"))


def leads_nowhere(stream: TextIO | None) -> bool:
    """Tell whether what is written there is lost: it is closed, or /dev/null."""
    try:
        return stream is None or os.fstat(stream.fileno()).st_rdev == Path(os.devnull).stat().st_rdev
    except (OSError, ValueError):
        return stream is None or stream.closed


def append_to(path: str) -> int:
    """Open a file that tells of pods; made where it is not there, and then not for everybody to read.

    Raises:
        OSError: It cannot be opened.
    """
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def set_up_logs(style: str, level: str, target: str = STANDARD_ERROR) -> None:
    """Send every record of this process to one place.

    Args:
        style: "text" or "json".
        level: "debug", "info", "warning" or "error".
        target: "-" for standard error, "journal", or a file, which is made where it is not there.

    Raises:
        OSError: The file cannot be opened; nothing was changed.
    """
    stream = _Lossy(_stream(target))
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=_plain_traceback)
    )
    processors: list[structlog.typing.Processor] = [structlog.processors.add_log_level]
    if style == "json" or target != JOURNAL:  # the journal has a clock of its own
        key = "ts" if style == "json" else "timestamp"
        processors.append(structlog.processors.TimeStamper(fmt="iso", utc=True, key=key))
    processors.append(structlog.processors.format_exc_info if style == "json" else _escaped)
    journal = _JournalLogger(Journal()) if target == JOURNAL else None
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=(lambda *_: journal)
        if journal is not None
        else structlog.WriteLoggerFactory(file=cast("TextIO", stream)),
        cache_logger_on_first_use=False,
    )


def _stream(target: str) -> TextIO | None:
    if target == STANDARD_ERROR:
        return sys.stderr
    if target == JOURNAL:
        return None
    return open(append_to(target), "a", buffering=1, encoding="utf-8", errors="replace")
