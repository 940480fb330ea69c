"""The sweep of stale groups.

Owns: which groups a sweep removes, and in which order. Must not know: why it is due.

Rules:
    1. Everything is listed before anything is removed: who cannot look removes nothing.
    2. The kernel's own directories are neither touched nor counted.
    3. Removing a control group takes its monitoring groups along; one that holds a group to be kept stays.
"""

from __future__ import annotations

import errno
from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING, Final

from resctrl.errors import InvalidGroupError, Operation
from resctrl.inventory import control_groups, mon_groups, require_mounted
from resctrl.model import CleanupReport, ResctrlConfig, ResctrlGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

    from resctrl.fs import FsProvider

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
    remove = fs.remove_dir if remove is None else remove
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
    fates: Counter[_Fate] = Counter()
    default = mon_groups(fs, config, "", Operation.SWEEP) or []
    for control in controls:
        inside = below.get(control.control_group, [])
        stays = control.control_group in wanted or any(group.name in wanted for group in inside)
        fate = _fate_of(remove, control, keep=stays)
        fates[fate] += 1
        if below_control_groups and fate not in {_Fate.REMOVED, _Fate.RACE}:
            fates += _fates_of(remove, inside, wanted)
    fates += _fates_of(remove, default, wanted)
    return CleanupReport(**{fate.value: fates[fate] for fate in _Fate})


def _fates_of(
    remove: Callable[[Path], None], groups: Iterable[ResctrlGroup], wanted: frozenset[str]
) -> Counter[_Fate]:
    return Counter(_fate_of(remove, group, keep=group.name in wanted) for group in groups)


def _fate_of(remove: Callable[[Path], None], group: ResctrlGroup, *, keep: bool) -> _Fate:
    """Remove a group if it is ours and nobody wants it."""
    if not group.ours:
        return _Fate.FOREIGN
    if keep:
        return _Fate.KEPT
    try:
        remove(group.path)
    except OSError as error:
        return _Fate.RACE if error.errno in _GONE else _Fate.FAILED
    return _Fate.REMOVED
