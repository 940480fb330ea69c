"""`nri-resctrl-plugin demo`: the main job in some seconds, on any machine."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from nri_resctrl_plugin.cli.exits import Exit, flush_standard_output
from nri_resctrl_plugin.cli.logs import set_up_logs
from nri_resctrl_plugin.demo.story import tell

if TYPE_CHECKING:
    from argparse import Namespace

__all__ = ["demo"]


def demo(options: Namespace) -> int:
    """Tell the story on standard output.

    Args:
        options: `fast`: no pauses.

    Returns:
        The exit status.
    """
    set_up_logs("text", "error")
    asyncio.run(tell(_say, pause=0.0 if options.fast else 0.25))
    return Exit.OK


def _say(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # `demo | head` is no failure
        print(line)
    flush_standard_output()
