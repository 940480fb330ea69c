"""Looking at all groups of a machine, again and again.

Owns: which groups there are, their readings, what was read before, and how often threads are counted. Must
not know: how anything is shown.

Rules:
    1. Any group is looked at, whosever it is; what comes and goes is noticed at each look.
    2. Counting threads makes the kernel walk through all threads of the machine, under the lock of resctrl:
       it takes at most a tenth of the time, group by group in turn.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final, Self

from nri_resctrl_plugin.top.rows import GroupKind, View, row_of
from resctrl import FsProvider, GroupNotFoundError, Resctrl, ResctrlError, ResctrlGroup, Sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from nri_resctrl_plugin.top.rows import Row
    from resctrl import GroupReading, Sample

__all__ = ["Watch"]

_SHARE: Final = 0.1
_NS: Final = 1_000_000_000
DEFAULT_NAME: Final = "(default)"


class Watch:
    """Looks at the groups.

    Args:
        resctrl: Where they are.
        only_ours: Leave the groups of others out.
        interval: Seconds from one look to the next, about.
        clock: Nanoseconds of the monotonic clock.
    """

    def __init__(
        self,
        resctrl: Resctrl[FsProvider],
        *,
        only_ours: bool = False,
        interval: float = 1.0,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._resctrl = resctrl
        self._only_ours = only_ours
        self._sampler = Sampler(resctrl, clock=clock)
        self._earlier: Mapping[Path, GroupReading] = {}
        self._threads = _Threads(resctrl, int(interval * _SHARE * _NS), clock)

    def look(self) -> View:
        """Read every group once.

        Raises:
            NotMountedError: resctrl is not mounted at the root.
            ResctrlError: The groups cannot be listed.
        """
        found = self._resctrl.list_groups()
        root = self._resctrl.config.root
        groups = [ResctrlGroup(root, "", "", ours=False), *found]
        wanted = {each.path: each for each in groups if each.ours or not self._only_ours}
        for path in set(self._sampler.groups) - set(wanted):
            self._sampler.discard(path)
        for path in wanted:
            self._sampler.add(path)
        sample = self._sampler.sample()
        self._threads.count(sample.readings)
        rows = [row for each in wanted.values() if (row := self._row(each, sample)) is not None]
        self._earlier = sample.readings
        return View(
            tuple(rows),
            num_rmids=self._resctrl.info().num_rmids,
            in_use=len(groups),
            unheld=len(sample.unheld),
        )

    def close(self) -> None:
        """Close all files."""
        self._sampler.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _row(self, group: ResctrlGroup, sample: Sample) -> Row | None:
        """Return the row of a group; None if it is gone."""
        path = group.path
        later = sample.readings.get(path) or sample.failed.get(path)
        if later is None or isinstance(later, GroupNotFoundError):
            return None
        name, kind = _named(group)
        return row_of(
            path,
            name,
            kind,
            ours=group.ours,
            threads=self._threads.counts.get(path),
            later=later,
            earlier=self._earlier.get(path),
        )


def _named(group: ResctrlGroup) -> tuple[str, GroupKind]:
    if group.name:
        below = f"{group.control_group}/" if group.control_group else ""
        return f"{below}{group.name}", GroupKind.MONITOR
    if group.control_group:
        return group.control_group, GroupKind.CONTROL
    return DEFAULT_NAME, GroupKind.DEFAULT


class _Threads:
    """Counts the threads of groups, some at a time (rule 2 of the module).

    Attributes:
        counts: The last count of each group.
    """

    def __init__(self, resctrl: Resctrl[FsProvider], budget: int, clock: Callable[[], int]) -> None:
        self.counts: dict[Path, int] = {}
        self._resctrl = resctrl
        self._budget = budget
        self._clock = clock
        self._turns: deque[Path] = deque()

    def count(self, groups: Iterable[Path]) -> None:
        """Count at least one group, and as many as there is time for."""
        present = set(groups)
        self.counts = {path: count for path, count in self.counts.items() if path in present}
        waiting = set(self._turns)
        self._turns = deque([*sorted(present - waiting), *(path for path in self._turns if path in present)])
        end = self._clock() + self._budget
        for _ in range(len(self._turns)):
            path = self._turns[0]
            self._turns.rotate(-1)
            try:
                self.counts[path] = len(self._resctrl.list_group_tasks(path))
            except ResctrlError:
                self.counts.pop(path, None)
            if self._clock() >= end:
                return
