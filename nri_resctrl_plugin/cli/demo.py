"""`nri-resctrl-plugin demo`: the main job in some seconds, on any machine."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from nri_resctrl_plugin.cli.exits import Exit, Stop, flush_standard_output
from nri_resctrl_plugin.cli.logs import set_up_logs
from nri_resctrl_plugin.demo.story import tell

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

__all__ = ["demo"]


def demo(options: Namespace, _: Mapping[str, str]) -> int:
    """Tell the story on standard output.

    Args:
        options: `fast`: no pauses.

    Returns:
        The exit status.

    Raises:
        Stop: Standard output cannot be written.
    """
    set_up_logs("text", "error")
    if sys.stdout is None:
        raise Stop(Exit.IO, "standard output is closed: the demo has nowhere to tell its story")
    voice = _Voice()
    asyncio.run(tell(voice.say, pause=0.0 if options.fast else 0.25))
    if voice.failure is not None:
        raise Stop(Exit.IO, f"cannot write to standard output: {voice.failure.strerror}")
    return Exit.OK


class _Voice:
    """Standard output, line by line; what says lines must not hear of its failure.

    Attributes:
        failure: Why a line was lost, if one was. A reader that stopped reading is none: `demo | head`.
    """

    def __init__(self) -> None:
        self.failure: OSError | None = None

    def say(self, line: str) -> None:
        """Print a line now; after a failure nothing more is printed."""
        try:
            print(line, flush=True)
        except BrokenPipeError:
            flush_standard_output()
        except OSError as error:
            self.failure = self.failure or error
            flush_standard_output()
