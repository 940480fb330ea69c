"""What can go wrong with resctrl, and the one place where an errno gets a meaning.

Owns: the exception hierarchy and `translate`. Must not know: how groups are named or kept.

Rules:
    1. Every failure that leaves this package is a `ResctrlError`; the `OSError` stays as its cause.
    2. The same errno means different things to different operations, so `translate` asks for the operation.
    3. A message says what was tried, where, the errno's name, the kernel's own sentence and one hint.
    4. A vanished task (ESRCH) and a group already gone on delete (ENOENT) are results, not exceptions; the
       callers take them out before translation.
"""

from __future__ import annotations

import errno as _errno
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from resctrl.model import AssignmentResult, Tid

__all__ = [
    "CapacityError",
    "EmptyPidSetError",
    "GroupExistsError",
    "GroupNotFoundError",
    "InvalidGroupError",
    "InvalidTidError",
    "NoPermissionError",
    "NotMountedError",
    "Operation",
    "ResctrlError",
    "ResctrlIOError",
    "RmidsBusyError",
    "TaskNotInParentError",
    "UnexpectedContentError",
    "UnsupportedError",
    "translate",
]


class Operation(Enum):
    """What was being tried when the kernel refused; the value is the phrase used in messages."""

    CREATE_GROUP = "create group"
    DELETE_GROUP = "delete group"
    MOVE_GROUP = "move group"
    LIST_GROUPS = "list groups"
    ASSIGN_TASKS = "assign tasks"
    LIST_TASKS = "list tasks"
    READ_TASK = "read the groups of a task"
    READ_CAPACITY = "read the capacity"
    READ_GROUP = "read group"
    READ_INFO = "read info"
    SWEEP = "sweep groups"
    MOUNT = "mount resctrl"
    DETECT = "detect support"


class ResctrlError(Exception):
    """Base of everything this package raises.

    Attributes:
        operation: What was tried.
        path: Where, or None where no path is involved.
        errno: The kernel's error number, or None where the kernel was not asked.
        kernel_status: The newest line of `info/last_cmd_status`, or None. It is one buffer for the whole
            machine, so treat it as advice: another writer may have replaced it.
        hint: One sentence that says what to do, or None.
        retryable: Whether the same call can succeed later without anybody changing the configuration.
        partial: Of a call that assigns threads, what was done before and beside the failure.
        refused: Of a call that assigns threads, those that the kernel would not take (EINVAL: another control
            group; EPERM), in the order in which that came out; after them those that were given up, untried.
    """

    retryable: ClassVar[bool] = False
    default_hint: ClassVar[str | None] = None

    refused: tuple[Tid, ...] = ()

    def __init__(  # noqa: PLR0913 - the fields of one report, all but two by keyword
        self,
        operation: Operation,
        path: Path | None = None,
        *,
        errno: int | None = None,
        kernel_status: str | None = None,
        hint: str | None = None,
        detail: str | None = None,
        partial: AssignmentResult | None = None,
    ) -> None:
        self.operation = operation
        self.path = path
        self.errno = errno
        self.kernel_status = kernel_status
        self.hint: str | None = hint if hint is not None else self.default_hint
        self.detail = detail
        self.partial = partial
        super().__init__(self._message())

    def _message(self) -> str:
        text = f"cannot {self.operation.value}"
        if self.path is not None:
            text += f" at {str(self.path)!r}"
        if self.detail is not None:
            text += f": {self.detail}"
        if self.errno is not None:
            text += f": {_errno.errorcode.get(self.errno, f'errno {self.errno}')}"
        if self.kernel_status is not None:
            text += f"; the kernel says {self.kernel_status!r}"
        if self.hint is not None:
            text += f" ({self.hint})"
        return text


class NotMountedError(ResctrlError):
    """The resctrl file system is not mounted where it is expected."""

    default_hint: ClassVar[str | None] = "mount it: mount -t resctrl resctrl /sys/fs/resctrl"


class UnsupportedError(ResctrlError):
    """This kernel or this processor has no resctrl, or not the part that was asked for."""

    default_hint: ClassVar[str | None] = (
        "the processor or the kernel lacks the feature; see info/ and the kernel's rdt= boot option"
    )


class NoPermissionError(ResctrlError):
    """EACCES or EPERM: the caller may not do this."""

    default_hint: ClassVar[str | None] = (
        "run as root of the initial user namespace, with CAP_DAC_OVERRIDE (CAP_SYS_ADMIN to mount)"
    )


class CapacityError(ResctrlError):
    """ENOSPC on mkdir: no RMID or CLOSID is free. It lasts until somebody deletes a group."""

    retryable: ClassVar[bool] = True
    default_hint: ClassVar[str | None] = "delete a group that is no longer needed, then try again"


class RmidsBusyError(CapacityError):
    """EBUSY on mkdir: freed RMIDs are still in limbo, for 1 to 2 s, or for as long as the cache stays hot."""

    default_hint: ClassVar[str | None] = (
        "freed RMIDs wait until their cache lines are evicted; try again in a second or two"
    )


class GroupNotFoundError(ResctrlError):
    """The group is not there (any more)."""

    default_hint: ClassVar[str | None] = "create the group again"


class GroupExistsError(ResctrlError):
    """EEXIST on a rename: the control group has a group of that name already."""

    default_hint: ClassVar[str | None] = "use the group that is there, or delete it first"


class TaskNotInParentError(ResctrlError):
    """EINVAL on a tasks write: the task belongs to another control group. Trying again cannot help."""

    default_hint: ClassVar[str | None] = "the monitoring group must stand below the task's own control group"


class EmptyPidSetError(ResctrlError):
    """The source of thread ids listed none, so there is nothing to reconcile."""

    default_hint: ClassVar[str | None] = "the container has no live thread yet, or none any more"


class UnexpectedContentError(ResctrlError):
    """A file of the kernel does not read as its documentation says.

    Attributes:
        text: What was read.
    """

    def __init__(self, operation: Operation, path: Path, text: str) -> None:
        self.text = text
        super().__init__(operation, path, detail=f"unexpected content {text[:80]!r}")


class InvalidTidError(ResctrlError, ValueError):
    """A thread id that must never reach a `tasks` file: 0 means the writer itself, less is no id at all."""

    default_hint: ClassVar[str | None] = (
        "0 stands for a task outside the reader's pid namespace: run in the host's (hostPID)"
    )


class InvalidGroupError(ResctrlError, ValueError):
    """A path that is no group of ours, or a prefix that would make a sweep hit other people's groups."""

    default_hint: ClassVar[str | None] = (
        "use the path that create_group returned, and a non-empty group_prefix"
    )


class ResctrlIOError(ResctrlError):
    """Any other failure; `errno` is kept."""


_PERMISSION: Final = frozenset({_errno.EACCES, _errno.EPERM})
_GONE: Final = frozenset({_errno.ENOENT, _errno.ENODEV})
_NO_RESCTRL: Final = frozenset({_errno.ENODEV, _errno.EINVAL, _errno.ENOSYS, _errno.ENOTSUP})
_HINTS: Final = {
    (Operation.MOVE_GROUP, _errno.EPERM): (
        "a group that monitors CPUs stays where it is, and before Linux 6.5 every group does"
    ),
    (
        Operation.MOUNT,
        _errno.ENOENT,
    ): "the mount point does not exist: make it, or the directory it stands in",
}


def _meaning(operation: Operation, number: int) -> type[ResctrlError]:  # noqa: PLR0911 - one row a meaning
    """Return the class that an errno stands for in an operation."""
    if number in _PERMISSION:
        return NoPermissionError
    match operation:
        case Operation.CREATE_GROUP if number == _errno.ENOSPC:
            return CapacityError
        case Operation.CREATE_GROUP if number == _errno.EBUSY:
            return RmidsBusyError
        case Operation.ASSIGN_TASKS if number == _errno.EINVAL:
            return TaskNotInParentError
        case (
            Operation.ASSIGN_TASKS
            | Operation.LIST_TASKS
            | Operation.DELETE_GROUP
            | Operation.MOVE_GROUP
            | Operation.READ_GROUP
        ) if number in _GONE:
            return GroupNotFoundError
        case Operation.MOVE_GROUP if number == _errno.EEXIST:
            return GroupExistsError
        case Operation.MOUNT if number in _NO_RESCTRL:
            return UnsupportedError
        case Operation.MOUNT if number == _errno.ENOENT:
            return NotMountedError
        case _:
            return ResctrlIOError


@contextmanager
def translate(
    operation: Operation,
    path: Path,
    kernel_status: Callable[[], str | None] | None = None,
) -> Iterator[None]:
    """Turn an `OSError` of the body into the typed error that it means for this operation.

    Args:
        operation: What the body tries.
        path: Where.
        kernel_status: Called once, right after a failure, for the kernel's own sentence.

    Raises:
        ResctrlError: The typed error, with the `OSError` as its cause.
    """
    try:
        yield
    except OSError as error:
        number = error.errno if error.errno is not None else _errno.EIO
        status = kernel_status() if kernel_status is not None else None
        hint = _HINTS.get((operation, number))
        kind = _meaning(operation, number)
        raise kind(operation, path, errno=number, kernel_status=status, hint=hint) from error
