"""The program `nri-resctrl-plugin`: `python -m nri_resctrl_plugin`, the installed script, the single file.

Owns: what happens before the command line is even loaded, and after it ended. Must not know: commands.

Rules:
    1. A plugin that the runtime launched registers before anything else is loaded (`nri.ahead`).
    2. Until it serves, it does not end, whatever is missing, broken or refused: some runtimes would end with
       it. It stays connected, does nothing, and the journal has the reason.
"""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> int:
    """Run the program with the arguments and the environment of this process.

    Returns:
        The exit status.
    """
    descriptor = os.environ.get("NRI_PLUGIN_SOCKET", "")
    if not descriptor.isdecimal() or (sys.argv[1:] and sys.argv[1] != "run"):
        from nri_resctrl_plugin.cli import main as command  # noqa: PLC0415 - rule 1

        return command()
    return _launched(int(descriptor))


def _launched(fd: int) -> int:
    from nri_resctrl_plugin.nri.ahead import Ahead  # noqa: PLC0415 - not needed by other commands

    name, idx = os.environ.get("NRI_PLUGIN_NAME", ""), os.environ.get("NRI_PLUGIN_IDX", "")
    ahead = Ahead(fd, name or "resctrl", idx or "10")
    try:
        ahead.begin()
    except OSError as error:
        _tell(f"descriptor {fd} is no connection to a runtime: {error.strerror}")
        return os.EX_TEMPFAIL
    status = os.EX_SOFTWARE
    try:
        from nri_resctrl_plugin.cli import main as command  # noqa: PLC0415 - rule 1

        status = command(ahead=ahead)
    except SystemExit as end:  # argparse: help, or wrong usage
        status = end.code if isinstance(end.code, int) else status
    except Exception:  # noqa: BLE001 - rule 2
        import traceback  # noqa: PLC0415 - rule 1

        _tell(traceback.format_exc())
    if not ahead.taken:
        _tell(f"would have ended with status {status}; stays connected to the runtime and does nothing")
        ahead.idle()
    return status


def _tell(text: str) -> None:
    """Say it where somebody may read it: a launched plugin has no standard error."""
    from nri_resctrl_plugin.cli.exits import complain  # noqa: PLC0415 - rule 1

    complain(text, launched=True)


if __name__ == "__main__":
    sys.exit(main())
