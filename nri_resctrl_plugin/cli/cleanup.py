"""`nri-resctrl-plugin cleanup`: remove the groups that a former run left, or list them.

Owns: what is said of the sweep. Must not know: which groups it takes.

Rules:
    1. What `--dry-run` lists is found by the sweep itself, whose removals alone are left out.
    2. An empty prefix is refused: every group would be ours.
    3. A sweep goes on to its end, whether or not what it says can be written; a list that was lost is told.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from nri_resctrl_plugin.cli.exits import Exit, Stop, flush_standard_output
from nri_resctrl_plugin.cli.place import place
from nri_resctrl_plugin.cli.terminal import printable
from resctrl import (
    FsProvider,
    InvalidGroupError,
    NoPermissionError,
    NotMountedError,
    RealFs,
    Resctrl,
    ResctrlError,
)
from resctrl.sweeping import sweep

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["cleanup"]


def cleanup(
    options: Namespace,
    environment: Mapping[str, str],
    *,
    options_of_run: Callable[[], Namespace],
    fs: FsProvider | None = None,
) -> int:
    """Sweep, and say which groups went.

    Args:
        options: The flags.
        environment: The environment.
        options_of_run: Makes the flags of a `run`.
        fs: Another provider than the real file system.

    Returns:
        0, or 1 where a group could not be removed.

    Raises:
        Stop: A setting is refused, there is nothing that can be swept, or the list could not be written.
    """
    config = place(options, environment, options_of_run).config
    if not config.group_prefix:
        raise Stop(Exit.CONFIG, "the group prefix is empty: every group would be removed")
    resctrl: Resctrl[FsProvider] = Resctrl.with_provider(fs if fs is not None else RealFs(), config)
    sweeper = _Sweeper(resctrl, dry=options.dry_run)
    try:
        report = sweep(
            resctrl.fs,
            config,
            below_control_groups=options.below_control_groups,
            keep=(),
            remove=sweeper.remove,
        )
    except ResctrlError as error:
        raise Stop(_status_of(error), str(error)) from error
    verb = "would be removed" if options.dry_run else "removed"
    counts = [f"{report.removed} {verb}", f"{report.non_prefix_groups} without the prefix stay"]
    if report.removal_failures:
        counts.append(f"{report.removal_failures} could not be removed")
    if report.removal_race:
        counts.append(f"{report.removal_race} went by themselves")
    sweeper.say(", ".join(counts))
    if sweeper.lost is not None:
        raise Stop(Exit.IO, f"cannot write to standard output: {sweeper.lost.strerror}")
    return Exit.UNUSABLE if report.removal_failures else Exit.OK


class _Sweeper:
    """Removes groups, or only says that they would be.

    Attributes:
        lost: Why something could not be said; a reader that is gone wanted no more.
    """

    def __init__(self, resctrl: Resctrl[FsProvider], *, dry: bool) -> None:
        self._resctrl = resctrl
        self._dry = dry
        self.lost: OSError | None = None

    def remove(self, group: Path) -> None:
        """Say what becomes of a group, with the threads that fall back to its parent."""
        try:
            threads = f"{len(self._resctrl.list_group_tasks(group))} threads"
        except ResctrlError:
            threads = "threads unknown"
        what = f"{group}  ({threads})"
        if self._dry:
            self.say(f"would remove {what}")
            return
        try:
            self._resctrl.fs.remove_dir(group)
        except OSError as error:
            self.say(f"cannot remove {what}: {os.strerror(error.errno or 0)}")
            raise
        self.say(f"removed {what}")

    def say(self, line: str) -> None:
        """Print a line (rule 3)."""
        try:
            print(printable(line, getattr(sys.stdout, "encoding", None)), flush=True)
        except OSError as error:
            if not isinstance(error, BrokenPipeError) and self.lost is None:
                self.lost = error
            flush_standard_output()


def _status_of(error: ResctrlError) -> Exit:
    if isinstance(error, InvalidGroupError):
        return Exit.CONFIG
    if isinstance(error, NoPermissionError):
        return Exit.PERMISSION
    return Exit.UNSUPPORTED if isinstance(error, NotMountedError) else Exit.IO
