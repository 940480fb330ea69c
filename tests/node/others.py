"""Somebody else on the node, who makes groups too: for capacity, and for what a sweep must leave alone.

Owns: groups that the plugin did not make, and their removal. Must not know: the plugin, pods.

Rules:
    1. It calls mkdir(2) and rmdir(2) itself, so that the kernel's answer is seen as it is.
    2. Only names that begin with the run's own prefix are ever made or removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from tests.node.site import NodeSite
    from tests.node.witness import Witness

__all__ = ["Others"]

LONGEST_LIMBO: Final = 60.0
"""Seconds that freed RMIDs may take to come back while nothing else is wanted of the machine."""


class Others:
    """Makes and removes groups on a site."""

    def __init__(self, site: NodeSite, witness: Witness) -> None:
        self._prefix = site.others_prefix
        self._run = site.run
        self._witness = witness
        self._numbers = itertools.count()

    async def make(self, path: Path) -> None:
        """Make a group of either kind; RMIDs in limbo are waited for.

        Raises:
            OSError: The kernel refused it for another reason; ENOSPC where nothing is free.
        """
        assert path.name.startswith(self._run), path
        deadline = time.monotonic() + LONGEST_LIMBO
        while True:
            try:
                _mkdir(path)
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.02)
            else:
                return

    async def use_up(self) -> None:
        """Make groups until the kernel says ENOSPC: no RMID is free, and none is in limbo."""
        while True:
            try:
                await self.make(self._next())
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                return

    def free_one(self) -> None:
        """Remove one of its groups. Its RMID may go into limbo."""
        name = min(it for it in self._witness.groups() if it.startswith(self._prefix))
        (self._witness.mon_groups / name).rmdir()

    def refusal(self) -> int:
        """Try to make a group and return the errno; 0 where there was room. What was made is removed."""
        path = self._next()
        try:
            path.mkdir()
        except OSError as error:
            return error.errno or 0
        path.rmdir()
        return 0

    def remove_all(self) -> None:
        """Remove every group of this run, the plugin's included, wherever it stands."""
        root = self._witness.root
        below = [root / name / "mon_groups" for name in self._witness.groups(root)]
        for directory in (*below, self._witness.mon_groups, root):
            for name in self._witness.groups(directory):
                if name.startswith(self._run):
                    with contextlib.suppress(FileNotFoundError):
                        (directory / name).rmdir()

    def _next(self) -> Path:
        return self._witness.mon_groups / f"{self._prefix}{next(self._numbers):04d}"


def _mkdir(path: Path) -> None:
    """Call mkdir(2): resctrl answers at once."""
    path.mkdir()
