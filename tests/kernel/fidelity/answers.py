"""What comes of an operation, as a text: of a system call, of a row of writes, of a call of the library.

Owns: how outcomes read, and how a call of the library is made of an operation. Must not know: which side is
the kernel.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from resctrl import FsProvider, Resctrl, ResctrlConfig, ResctrlError, Tid, WriteError
from tests.kernel.fidelity.operations import ROOT, Kind, Operation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["CALLS", "answer", "call", "write_on"]

CALLS: Final = frozenset({Kind.ASSIGN, Kind.TASK_GROUPS, Kind.MOVE, Kind.INVENTORY, Kind.SWEEP})
"""The operations that are calls of the library."""


def answer(act: Callable[[], object]) -> str:
    """Return what something came to: its value, or the errno's name."""
    try:
        value = act()
    except WriteError as error:
        return f"{_name(error)} after {error.written}"
    except OSError as error:
        return _name(error)
    return "ok" if value is None else f"ok: {value!r}"


def write_on(fs: FsProvider, path: Path, chunks: Sequence[bytes]) -> object:
    """Write all chunks, whatever becomes of each; return how many were taken, and how the others failed."""
    failures: list[tuple[str, int]] = []

    def go_on(failure: WriteError) -> bool:
        failures.append((_name(failure), failure.written))
        return True

    return fs.write_all(path, chunks, go_on=go_on), failures


def call(fs: FsProvider, operation: Operation, tids: Sequence[Tid]) -> str:
    """Make a call; return what came of it, everything that it tells included.

    Args:
        fs: The side.
        operation: One of `CALLS`.
        tids: The threads that are meant.
    """
    # With an empty prefix every group is one of ours; a sweep needs another.
    prefix = operation.path.name if operation.kind is Kind.SWEEP else ""
    resctrl = Resctrl.with_provider(fs, ResctrlConfig(root=ROOT, group_prefix=prefix))
    try:
        return f"ok: {_outcome(resctrl, operation, tids)!r}"
    except ResctrlError as error:
        number = f" {errno.errorcode[error.errno]}" if error.errno is not None else ""
        told = (str(error.path), error.kernel_status, error.partial, error.refused)
        return f"{type(error).__name__}{number}: {told!r}"


def _name(error: OSError) -> str:
    return errno.errorcode[error.errno or 0]


def _outcome(resctrl: Resctrl[FsProvider], operation: Operation, tids: Sequence[Tid]) -> object:
    match operation.kind:
        case Kind.ASSIGN:
            return resctrl.assign_tasks(operation.path, tids)
        case Kind.TASK_GROUPS:
            return [resctrl.task_groups(tid) for tid in tids]
        case Kind.MOVE:
            return str(resctrl.move_group(operation.path, operation.target.name))
        case Kind.SWEEP:
            keep = [operation.target.name] if operation.number % 2 else []
            return resctrl.cleanup_all(below_control_groups=operation.number % 3 > 0, keep=keep)
        case _:
            return resctrl.list_groups(), resctrl.capacity()
