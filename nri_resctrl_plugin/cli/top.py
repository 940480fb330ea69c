"""`nri-resctrl-plugin top`: what every group uses: live on a terminal, line by line elsewhere.

Owns: when the groups are looked at, and where what was seen goes. Must not know: how they are read.

Rules:
    1. On a terminal the table is drawn anew in place and follows keys, unless a number of tables was asked
       for. Elsewhere tables, or lines of JSON, follow each other.
    2. The first table outside of a live terminal comes after one interval: a rate needs two readings.
    3. A reader that is gone is a good end, a stream that cannot be written is not.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Final, TextIO

from attrs import define, field

from nri_resctrl_plugin.cli.exits import Exit, Stop, flush_standard_output
from nri_resctrl_plugin.cli.place import place
from nri_resctrl_plugin.cli.screen import END, RESIZED, Screen
from nri_resctrl_plugin.cli.terminal import Paint, columns_of, cut, paint_for, printable, width_of
from nri_resctrl_plugin.top.record import record
from nri_resctrl_plugin.top.rows import View, sort_rows
from nri_resctrl_plugin.top.table import heading, table
from nri_resctrl_plugin.top.watch import Watch
from resctrl import FsProvider, NoPermissionError, RealFs, Resctrl, ResctrlError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nri_resctrl_plugin.top.rows import Row
    from resctrl import ResctrlConfig

__all__ = ["top"]

_KEYS: Final = {"o": "occupancy", "t": "total", "l": "local", "h": "threads", "n": "name"}
_HELP: Final = "q quit  r reverse  j k scroll  by: o occupancy t total l local h threads n name"
_SCROLL: Final = {"j": 1, "down": 1, "k": -1, "up": -1}
_FRAME: Final = 4
"""Lines around the rows: heading, order, the head of the table, the keys."""


def top(
    options: Namespace,
    environment: Mapping[str, str],
    *,
    options_of_run: Callable[[], Namespace],
    fs: FsProvider | None = None,
) -> int:
    """Show the groups until somebody has seen enough.

    Args:
        options: The flags.
        environment: The environment.
        options_of_run: Makes the flags of a `run`.
        fs: Another provider than the real file system.

    Returns:
        The exit status.

    Raises:
        Stop: A setting is refused, there is nothing to look at, or standard output cannot be written.
    """
    config = place(options, environment, options_of_run).config
    if sys.stdout is None:
        raise Stop(Exit.IO, "standard output is closed: there is nowhere to show anything")
    resctrl, live = _machine(options, config, fs)
    _require(resctrl)
    try:
        with Watch(resctrl, only_ours=options.ours, interval=options.interval) as watch:
            shown = _Shown(watch, live, options, paint_for(sys.stdout, environment))
            dumb = environment.get("TERM", "") in {"", "dumb"}
            if sys.stdout.isatty() and not dumb and options.iterations is None and options.output == "table":
                _live(shown, sys.stdout)
            else:
                _in_lines(shown, sys.stdout)
    except ResctrlError as error:
        raise Stop(_status_of(error), str(error)) from error
    except BrokenPipeError:
        return Exit.OK
    except OSError as error:
        raise Stop(Exit.IO, f"cannot write to standard output: {error.strerror}") from error
    finally:
        flush_standard_output()
    return Exit.OK


def _machine(
    options: Namespace, config: ResctrlConfig, fs: FsProvider | None
) -> tuple[Resctrl[FsProvider], Callable[[float], None]]:
    """Return the resctrl to look at, and what lets its time pass."""
    if options.resctrl == "fake":
        from nri_resctrl_plugin.demo.lively import LivelyNode  # noqa: PLC0415 - only the fake needs the test kit

        node = LivelyNode(config)
        return Resctrl.with_provider(node.fs, config), node.live
    return Resctrl.with_provider(fs if fs is not None else RealFs(), config), lambda _: None


def _require(resctrl: Resctrl[FsProvider]) -> None:
    """End where nothing can be seen.

    Raises:
        Stop: Nothing can.
    """
    try:
        support = resctrl.detect_support()
    except ResctrlError as error:
        raise Stop(Exit.UNSUPPORTED, str(error)) from error
    root = resctrl.config.root
    if not support.mounted:
        why = f"resctrl is not mounted at {root}"
    elif not support.monitoring:
        why = f"this machine cannot monitor: there is no {root}/info/L3_MON"
    else:
        return
    raise Stop(
        Exit.UNSUPPORTED,
        f"{why}; `nri-resctrl-plugin doctor` tells why, `top --resctrl=fake` shows a fake one",
    )


def _status_of(error: ResctrlError) -> Exit:
    return Exit.PERMISSION if isinstance(error, NoPermissionError) else Exit.UNSUPPORTED


@define
class _Shown:
    """What is looked at, and how it is to be shown.

    Attributes:
        watch: Looks.
        live: Lets time pass for a fake.
        options: The flags.
        paint: Colours.
        view: What was seen last.
        sort: By what the rows are sorted.
        reverse: The other way round.
        offset: The first row on the screen.
    """

    watch: Watch
    live: Callable[[float], None]
    options: Namespace
    paint: Paint
    view: View | None = None
    sort: str = field(init=False)
    reverse: bool = field(init=False)
    offset: int = 0
    _looked: float = field(factory=time.monotonic)

    def __attrs_post_init__(self) -> None:
        self.sort = self.options.sort
        self.reverse = self.options.reverse

    def look(self) -> View:
        """Look at all groups."""
        now = time.monotonic()
        self.live(now - self._looked)
        self._looked = now
        self.view = self.watch.look()
        return self.view

    def rows(self, view: View) -> list[Row]:
        """Return the rows in order."""
        return sort_rows(view.rows, self.sort, reverse=self.reverse)

    def lines(self, view: View, rows: Sequence[Row], width: int, encoding: str) -> list[str]:
        """Return the table."""
        found = table(view, rows, width, lambda text: printable(text, encoding), columns_of)
        return [
            self.paint(cut(line.text, width), "1" if line.row is None else "33" if line.is_troubled else "")
            for line in found
        ]


def _in_lines(shown: _Shown, stream: TextIO) -> None:
    """Write table after table, or record after record."""
    interval = shown.options.interval
    shown.look()
    due = time.monotonic()
    for seq in count(1):
        due += interval
        time.sleep(max(0.0, due - time.monotonic()))
        view = shown.look()
        rows = shown.rows(view)
        if shown.options.output == "json":
            text = json.dumps(record(view, rows, seq, time.time()))
        else:
            width = width_of(stream) if stream.isatty() else sys.maxsize
            text = "\n".join([heading(view), *shown.lines(view, rows, width, stream.encoding)])
            text = f"\n{text}" if seq > 1 else text
        print(text, file=stream, flush=True)
        if seq == shown.options.iterations:
            return


def _live(shown: _Shown, stream: TextIO) -> None:
    """Draw the table in place until the user wants no more of it."""
    with Screen(sys.stdin, stream) as screen:
        due = time.monotonic()
        while True:
            if time.monotonic() >= due:
                shown.look()
                due = max(due + shown.options.interval, time.monotonic())
            screen.draw(_picture(shown, screen.size, stream.encoding))
            for news in screen.wait(due - time.monotonic()):
                if news in {END, "q", "Q", "\x03"}:
                    return
                if news != RESIZED:
                    _obey(shown, news, page=screen.size[0] - _FRAME)


def _obey(shown: _Shown, key: str, page: int) -> None:
    """Do what a key says."""
    rows = len(shown.view.rows) if shown.view is not None else 0
    scroll = {**_SCROLL, "page-down": page, " ": page, "page-up": -page}
    if key in _KEYS:
        shown.sort, shown.offset = _KEYS[key], 0
    elif key == "r":
        shown.reverse = not shown.reverse
    elif key in scroll:
        shown.offset = max(0, min(shown.offset + scroll[key], rows - page))


def _picture(shown: _Shown, size: tuple[int, int], encoding: str) -> list[str]:
    """Return the lines of the screen; they fit."""
    height, width = size
    view = shown.view
    if view is None:
        return []
    room = max(1, height - _FRAME)
    rows = shown.rows(view)
    shown.offset = max(0, min(shown.offset, len(rows) - room))
    visible = rows[shown.offset : shown.offset + room]
    part = f", rows {shown.offset + 1} to {shown.offset + len(visible)}" if len(visible) < len(rows) else ""
    order = f"sorted by {shown.sort}{' in reverse' if shown.reverse else ''}{part}"
    head = f"{time.strftime('%H:%M:%S')}  {heading(view)}"
    lines = [cut(head, width), cut(order, width), *shown.lines(view, visible, width, encoding)]
    lines += [""] * (height - 1 - len(lines))
    return [*lines[: height - 1], shown.paint(cut(_HELP, width), "2")]
