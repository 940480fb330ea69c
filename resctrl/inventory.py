"""What there is: which groups, with which threads, and how many RMIDs. Nothing is changed.

Owns: the listing of directories, and the reading of `tasks`, of num_rmids and of
/proc/<tid>/cpu_resctrl_groups. Must not know: pods.

Rules:
    1. What vanishes while it is looked at is left out; what the kernel calls gone and is there did not.
    2. An unmounted resctrl is not an empty one.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from resctrl.errors import Operation, ResctrlError, UnexpectedContentError, UnsupportedError, translate
from resctrl.model import Capacity, ResctrlConfig, ResctrlGroup, TaskGroups, Tid
from resctrl.mount import detect_support, is_mounted, not_mounted
from resctrl.names import KERNEL_DIRS, MON_GROUPS

if TYPE_CHECKING:
    from resctrl.fs import FsProvider

__all__ = [
    "capacity",
    "control_groups",
    "list_groups",
    "mon_groups",
    "neighbours",
    "require_mounted",
    "task_groups",
    "tasks_of",
]

_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV})
_PROC: Final = Path("/proc")
_GROUPS_FILE: Final = "cpu_resctrl_groups"
_GROUPS_TEXT: Final = re.compile(r"res:(?P<control>[^\n]*)\nmon:(?P<mon>.*)\n", re.DOTALL)
_RESOURCES: Final = ("L3_MON", "PERF_PKG_MON")
"""The directories of info/ whose num_rmids limit the number of groups (the second since Linux 7.0)."""


def require_mounted(fs: FsProvider, root: Path, operation: Operation) -> None:
    """Make sure that resctrl is mounted at `root`.

    Raises:
        NotMountedError: It is not.
        ResctrlError: /proc cannot be read.
    """
    if not is_mounted(fs, root):
        raise not_mounted(detect_support(fs, root), operation, root)


def control_groups(fs: FsProvider, config: ResctrlConfig, operation: Operation) -> list[ResctrlGroup]:
    """Return the control groups, without the default group.

    Raises:
        ResctrlError: The root cannot be listed.
    """
    with translate(operation, config.root):
        names = [name for name in fs.read_child_dirs(config.root) if name not in KERNEL_DIRS]
    return [
        ResctrlGroup(config.root / name, name, "", name.startswith(config.group_prefix)) for name in names
    ]


def mon_groups(
    fs: FsProvider, config: ResctrlConfig, control_group: str, operation: Operation
) -> list[ResctrlGroup] | None:
    """Return the monitoring groups below a control group, "" being the default group.

    Returns:
        None where there is no `mon_groups`: the control group is gone, or the machine cannot monitor.

    Raises:
        ResctrlError: The directory cannot be listed.
    """
    directory = config.root / control_group / MON_GROUPS
    with translate(operation, directory):
        try:
            names = fs.read_child_dirs(directory)
        except OSError as error:
            if error.errno in _GONE and not fs.exists(directory):
                return None
            raise
    return [
        ResctrlGroup(directory / name, control_group, name, name.startswith(config.group_prefix))
        for name in names
    ]


def list_groups(fs: FsProvider, config: ResctrlConfig) -> list[ResctrlGroup]:
    """Return every group but the default one: see `resctrl.Resctrl.list_groups`."""
    require_mounted(fs, config.root, Operation.LIST_GROUPS)
    found = mon_groups(fs, config, "", Operation.LIST_GROUPS) or []
    for control in control_groups(fs, config, Operation.LIST_GROUPS):
        below = mon_groups(fs, config, control.control_group, Operation.LIST_GROUPS)
        if below is None and not _exists(fs, control.path):
            continue
        found += [control, *(below or ())]
    return found


def capacity(fs: FsProvider, config: ResctrlConfig) -> Capacity:
    """Return how many groups there is room for: see `resctrl.Resctrl.capacity`."""
    groups = list_groups(fs, config)
    told = [_num_rmids(fs, config.root / "info" / name) for name in _RESOURCES]
    limits = [number for number in told if number]
    if not limits:
        why = "there is no info/L3_MON" if told.count(None) == len(told) else "num_rmids is 0"
        detail = f"this machine cannot monitor ({why})"
        raise UnsupportedError(Operation.READ_CAPACITY, config.root, detail=detail)
    return Capacity(num_rmids=min(limits), in_use=1 + len(groups), ours=sum(group.ours for group in groups))


def tasks_of(fs: FsProvider, group: Path) -> list[Tid]:
    """Return the threads of a group: see `resctrl.Resctrl.list_group_tasks`."""
    path = group / "tasks"
    with translate(Operation.LIST_TASKS, group):
        text = fs.read_text(path)
    try:
        return [Tid(int(line)) for line in text.splitlines()]
    except ValueError as error:
        raise UnexpectedContentError(Operation.LIST_TASKS, path, text) from error


def task_groups(fs: FsProvider, config: ResctrlConfig, tid: Tid) -> TaskGroups | None:
    """Return where a thread is: see `resctrl.Resctrl.task_groups`."""
    path = _PROC / str(tid) / _GROUPS_FILE
    with translate(Operation.READ_TASK, path):
        try:
            text = fs.read_text(path)
        except OSError as error:
            if error.errno == errno.ESRCH:
                return None
            if error.errno != errno.ENOENT:
                raise
            if fs.exists(_PROC / "self" / _GROUPS_FILE) or not fs.exists(path.parent):
                return None
            detail = "this kernel does not tell (Linux 5.6, CONFIG_PROC_CPU_RESCTRL)"
            raise UnsupportedError(Operation.READ_TASK, path, errno=error.errno, detail=detail) from error
    match = _GROUPS_TEXT.fullmatch(text)
    if match is None:
        raise UnexpectedContentError(Operation.READ_TASK, path, text)
    if not match["control"]:
        raise not_mounted(detect_support(fs, config.root), Operation.READ_TASK, config.root)
    return TaskGroups(match["control"].removeprefix("/"), match["mon"])


def neighbours(fs: FsProvider, config: ResctrlConfig, group: Path, tid: Tid) -> frozenset[Tid]:
    """Return who is in a thread's control group with it, where that is known and not a group's own.

    Nobody for the default group, whose `tasks` list the whole machine, and for the one that the group stands
    below: whoever is there may be taken. Raises nothing: it is only asked to save writes.
    """
    try:
        where = task_groups(fs, config, tid)
        if where is None or not where.control_group:
            return frozenset()
        control = config.root / where.control_group
        return frozenset() if control == group.parent.parent else frozenset(tasks_of(fs, control))
    except ResctrlError:
        return frozenset()


def _num_rmids(fs: FsProvider, directory: Path) -> int | None:
    """Return how many RMIDs a resource has; None where there is no such resource."""
    path = directory / "num_rmids"
    with translate(Operation.READ_CAPACITY, path):
        try:
            text = fs.read_text(path)
        except FileNotFoundError:
            return None
    if not text.strip().isdecimal():
        raise UnexpectedContentError(Operation.READ_CAPACITY, path, text)
    return int(text)


def _exists(fs: FsProvider, path: Path) -> bool:
    with translate(Operation.LIST_GROUPS, path):
        return fs.exists(path)
