"""The flags of the commands that look at a node: `doctor`, `top`, `cleanup`.

Owns: their names, defaults and help. Must not know: what a command does with them; nothing but argparse is
loaded for them.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SORT_KEYS", "TOOLS", "add_tools"]

TOOLS: Final = ("doctor", "top", "cleanup")
"""The commands."""

SORT_KEYS: Final = ("occupancy", "total", "local", "threads", "name")
"""What the table of `top` can be sorted by; all but the name begin with the largest."""


def add_tools(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the parsers of the commands."""
    parser = add_parser(
        "doctor", help="tell what this machine can do, what is missing and how to mend it", allow_abbrev=False
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--library", action="store_true", help="leave the container runtime out")
    parser.add_argument("--probe", action="store_true", help="also make a group, and remove it")
    parser.add_argument(
        "--socket-path", metavar="PATH", help="the runtime's NRI socket (/var/run/nri/nri.sock)"
    )
    _add_place(parser)

    parser = add_parser("top", help="show what every group uses, live", allow_abbrev=False)
    parser.add_argument(
        "--interval", type=_interval, default=1.0, metavar="SECONDS", help="between tables (1)"
    )
    number = parser.add_mutually_exclusive_group()
    number.add_argument("-n", "--iterations", type=_count, metavar="N", help="end after so many tables")
    number.add_argument("--once", action="store_const", dest="iterations", const=1, help="one table")
    parser.add_argument("--sort", choices=SORT_KEYS, default="occupancy", help="by what (occupancy)")
    parser.add_argument("--reverse", action="store_true", help="the other way round")
    parser.add_argument("--ours", action="store_true", help="only groups with our prefix")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table",
                        help="json: one object a line (table)")  # fmt: skip
    parser.add_argument("--resctrl", choices=("real", "fake"), default="real",
                        help="the kernel's, or a lively one in memory (real)")  # fmt: skip
    _add_place(parser)

    parser = add_parser("cleanup", help="remove the groups that a former run left", allow_abbrev=False)
    parser.add_argument("--dry-run", action="store_true", help="only list what would be removed")
    parser.add_argument("--below-control-groups", action="store_true",
                        help="also those below the control groups of others")  # fmt: skip
    _add_place(parser)


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resctrl-root", metavar="PATH", help="where resctrl is mounted (/sys/fs/resctrl)")
    parser.add_argument("--group-prefix", metavar="TEXT", help="begins the names of our groups (pod_)")
    parser.add_argument("--config", metavar="FILE", help="take both from the settings of the plugin")


def _interval(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 86400:  # noqa: PLR2004 - as the message says
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0.1 to 86400")
    return value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:9]) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text[:9])
