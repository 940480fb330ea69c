"""The sweep of stale groups.

Owns: which groups a sweep removes, and in which order. Must not know: why it is due.

Rules:
    1. Everything is listed before anything is removed: who cannot look removes nothing.
    2. The kernel's own directories are neither touched nor counted.
    3. What the kernel says is gone was a race only if it is: one that is there still could not be removed.
    4. Removing a control group takes its monitoring groups along; one that holds a group to be kept stays.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import define, field

from resctrl.errors import InvalidGroupError, Operation, ResctrlError, translate
from resctrl.fs import FsProvider
from resctrl.inventory import control_groups, mon_groups, require_mounted
from resctrl.model import CleanupReport, ResctrlConfig, ResctrlGroup

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["sweep"]

_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV})


class _Fate(Enum):
    """What became of a group; the value is the field of the report that counts it."""

    REMOVED = "removed"
    FAILED = "removal_failures"
    RACE = "removal_race"
    FOREIGN = "non_prefix_groups"
    KEPT = "kept"


def sweep(
    fs: FsProvider,
    config: ResctrlConfig,
    *,
    below_control_groups: bool,
    keep: Collection[str],
    remove: Callable[[Path], None] | None = None,
) -> CleanupReport:
    """Remove stale groups: see `resctrl.Resctrl.cleanup_all`.

    Args:
        fs: The provider.
        config: Where resctrl is and which groups are ours.
        below_control_groups: As there.
        keep: As there.
        remove: Takes the directory of each group that must go, in the provider's stead.
    """
    if not config.group_prefix:
        raise InvalidGroupError(Operation.SWEEP, config.root, detail="the group prefix is empty")
    require_mounted(fs, config.root, Operation.SWEEP)
    wanted = frozenset(keep)
    controls = control_groups(fs, config, Operation.SWEEP)
    below: dict[str, list[ResctrlGroup]] = {}
    for control in controls:
        if below_control_groups or (control.ours and wanted):
            below[control.control_group] = (
                mon_groups(fs, config, control.control_group, Operation.SWEEP) or []
            )
    default = mon_groups(fs, config, "", Operation.SWEEP) or []
    broom = _Broom(fs, fs.remove_dir if remove is None else remove, wanted)
    for control in controls:
        inside = below.get(control.control_group, [])
        stays = control.control_group in wanted or any(group.name in wanted for group in inside)
        fate = broom.sweep(control, keep=stays)
        if below_control_groups and fate not in {_Fate.REMOVED, _Fate.RACE}:
            broom.sweep_all(inside)
    broom.sweep_all(default)
    counts = {fate.value: broom.fates[fate] for fate in _Fate}
    return CleanupReport(**counts, failures=tuple(broom.failures))


@define
class _Broom:
    """Removes groups, and counts what became of them.

    Attributes:
        fs: The provider.
        remove: Removes a directory.
        wanted: Names of groups that stay.
        fates: How many groups there are of each fate.
        failures: Why groups could not be removed.
    """

    fs: FsProvider
    remove: Callable[[Path], None]
    wanted: frozenset[str]
    fates: Counter[_Fate] = field(factory=Counter)
    failures: list[ResctrlError] = field(factory=list)

    def sweep_all(self, groups: Iterable[ResctrlGroup]) -> None:
        """Remove groups, but for those to be kept."""
        for group in groups:
            self.sweep(group, keep=group.name in self.wanted)

    def sweep(self, group: ResctrlGroup, *, keep: bool) -> _Fate:
        """Remove a group if it is ours and nobody wants it; return what became of it."""
        fate = self._fate_of(group, keep=keep)
        self.fates[fate] += 1
        return fate

    def _fate_of(self, group: ResctrlGroup, *, keep: bool) -> _Fate:
        if not group.ours:
            return _Fate.FOREIGN
        if keep:
            return _Fate.KEPT
        try:
            with translate(Operation.SWEEP, group.path):
                return self._removed(group.path)
        except ResctrlError as error:
            self.failures.append(error)
            return _Fate.FAILED

    def _removed(self, path: Path) -> _Fate:
        try:
            self.remove(path)
        except OSError as error:
            if error.errno in _GONE and not self.fs.exists(path):
                return _Fate.RACE
            raise
        return _Fate.REMOVED
