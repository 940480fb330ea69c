"""What an errno means to each operation, and how it is told."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from resctrl import (
    AssignmentResult,
    CapacityError,
    EmptyPidSetError,
    GroupExistsError,
    GroupNotFoundError,
    InvalidGroupError,
    InvalidTidError,
    NoPermissionError,
    NotMountedError,
    Operation,
    ResctrlError,
    ResctrlIOError,
    RmidsBusyError,
    TaskNotInParentError,
    UnexpectedContentError,
    UnsupportedError,
)
from resctrl.errors import translate

HERE = Path("/sys/fs/resctrl/mon_groups/pod_x")

MEANINGS: list[tuple[Operation, int, type[ResctrlError]]] = [
    *[(operation, errno.EACCES, NoPermissionError) for operation in Operation],
    *[(operation, errno.EPERM, NoPermissionError) for operation in Operation],
    (Operation.CREATE_GROUP, errno.ENOSPC, CapacityError),
    (Operation.CREATE_GROUP, errno.EBUSY, RmidsBusyError),
    (Operation.CREATE_GROUP, errno.ENOENT, ResctrlIOError),
    (Operation.CREATE_GROUP, errno.EINVAL, ResctrlIOError),
    (Operation.ASSIGN_TASKS, errno.EINVAL, TaskNotInParentError),
    (Operation.ASSIGN_TASKS, errno.ENOENT, GroupNotFoundError),
    (Operation.ASSIGN_TASKS, errno.ENODEV, GroupNotFoundError),
    (Operation.ASSIGN_TASKS, errno.EIO, ResctrlIOError),
    (Operation.ASSIGN_TASKS, errno.ENOSPC, ResctrlIOError),
    (Operation.LIST_TASKS, errno.ENOENT, GroupNotFoundError),
    (Operation.LIST_TASKS, errno.ENODEV, GroupNotFoundError),
    (Operation.DELETE_GROUP, errno.ENOENT, GroupNotFoundError),
    (Operation.DELETE_GROUP, errno.EBUSY, ResctrlIOError),
    (Operation.MOVE_GROUP, errno.EEXIST, GroupExistsError),
    (Operation.MOVE_GROUP, errno.ENOENT, GroupNotFoundError),
    (Operation.MOVE_GROUP, errno.ENODEV, GroupNotFoundError),
    (Operation.MOVE_GROUP, errno.EBUSY, ResctrlIOError),
    (Operation.CREATE_GROUP, errno.EEXIST, ResctrlIOError),
    (Operation.LIST_GROUPS, errno.ENOENT, ResctrlIOError),
    (Operation.READ_TASK, errno.ESRCH, ResctrlIOError),
    (Operation.READ_CAPACITY, errno.ENOENT, ResctrlIOError),
    (Operation.MOUNT, errno.ENODEV, UnsupportedError),
    (Operation.MOUNT, errno.EINVAL, UnsupportedError),
    (Operation.MOUNT, errno.ENOSYS, UnsupportedError),
    (Operation.MOUNT, errno.ENOTSUP, UnsupportedError),
    (Operation.MOUNT, errno.ENOENT, NotMountedError),
    (Operation.MOUNT, errno.EBUSY, ResctrlIOError),
    (Operation.SWEEP, errno.ENOENT, ResctrlIOError),
    (Operation.DETECT, errno.EIO, ResctrlIOError),
]


@pytest.mark.parametrize(("operation", "number", "meaning"), MEANINGS)
def test_an_errno_means_what_the_operation_makes_of_it(
    operation: Operation, number: int, meaning: type[ResctrlError]
) -> None:
    """The same errno is a different error in a different operation; the OSError stays as the cause."""
    cause = OSError(number, os.strerror(number), str(HERE))
    with pytest.raises(ResctrlError) as caught, translate(operation, HERE):
        raise cause
    error = caught.value
    assert type(error) is meaning
    assert (error.operation, error.path, error.errno) == (operation, HERE, number)
    assert error.__cause__ is cause
    assert error.kernel_status is None


def test_nothing_is_translated_where_nothing_fails() -> None:
    """Without a failure the kernel is not even asked for its sentence."""
    with translate(Operation.CREATE_GROUP, HERE, lambda: pytest.fail("asked")):
        pass


def test_other_exceptions_pass() -> None:
    """What is no OSError is none of its business, typed errors included."""
    inner = NotMountedError(Operation.CREATE_GROUP, HERE)
    with pytest.raises(NotMountedError) as caught, translate(Operation.CREATE_GROUP, HERE):
        raise inner
    assert caught.value is inner
    with pytest.raises(KeyError), translate(Operation.CREATE_GROUP, HERE):
        raise KeyError


def test_an_oserror_without_a_number() -> None:
    """An OSError that never came from the kernel counts as EIO."""
    with pytest.raises(ResctrlIOError) as caught, translate(Operation.SWEEP, HERE):
        raise OSError("who knows")
    assert caught.value.errno == errno.EIO


def test_the_kernels_sentence_is_asked_for_once_after_the_failure() -> None:
    """kernel_status is called exactly once, and its answer stands in the message."""
    asked: list[str] = []

    def sentence() -> str:
        asked.append("once")
        return "Out of RMIDs"

    with pytest.raises(CapacityError) as caught, translate(Operation.CREATE_GROUP, HERE, sentence):
        raise OSError(errno.ENOSPC, "full")
    assert asked == ["once"]
    assert caught.value.kernel_status == "Out of RMIDs"
    assert str(caught.value) == (
        "cannot create group at '/sys/fs/resctrl/mon_groups/pod_x': ENOSPC; the kernel says 'Out of RMIDs' "
        "(delete a group that is no longer needed, then try again)"
    )


def test_a_mount_point_that_is_not_there() -> None:
    """ENOENT of a mount is about the place: to mount it there, as the usual hint says, would not help."""
    cause = FileNotFoundError(errno.ENOENT, "absent")
    with pytest.raises(NotMountedError) as caught, translate(Operation.MOUNT, HERE):
        raise cause
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("the mount point does not exist")


def test_a_group_that_will_not_move() -> None:
    """EPERM of a rename is hardly ever about who asks: the hint names what it is about."""
    cause = PermissionError(errno.EPERM, "refused")
    with pytest.raises(NoPermissionError) as caught, translate(Operation.MOVE_GROUP, HERE):
        raise cause
    assert "monitors CPUs" in str(caught.value)


def test_a_message_with_nothing_to_tell() -> None:
    """Everything but the operation can be absent."""
    error = ResctrlIOError(Operation.DETECT)
    assert str(error) == "cannot detect support"
    assert error.hint is None
    assert error.partial is None
    assert error.refused == ()


def test_a_message_with_details() -> None:
    """A detail comes before the errno, which may have no name; the hint can be replaced."""
    error = NotMountedError(Operation.MOUNT, HERE, errno=9999, detail="no luck", hint="give up")
    assert str(error) == f"cannot mount resctrl at '{HERE}': no luck: errno 9999 (give up)"


def test_unexpected_content_shows_the_beginning() -> None:
    """A file that cannot be read is quoted, but not whole."""
    error = UnexpectedContentError(Operation.LIST_TASKS, HERE, "x" * 1000)
    assert error.text == "x" * 1000
    assert len(str(error)) < 200


@pytest.mark.parametrize("kind", [InvalidTidError, InvalidGroupError])
def test_wrong_arguments_are_value_errors_too(kind: type[ResctrlError]) -> None:
    """A caller's mistake can be caught as ValueError."""
    assert issubclass(kind, ValueError)


def test_only_capacity_can_be_tried_again() -> None:
    """The flag is true of capacity, busy RMIDs included, and of nothing else."""
    kinds: set[type[ResctrlError]] = {ResctrlError, *_all_subclasses(ResctrlError)}
    assert {kind for kind in kinds if kind.retryable} == {CapacityError, RmidsBusyError}
    assert issubclass(RmidsBusyError, CapacityError)


def test_every_error_has_a_hint_that_helps() -> None:
    """Each kind says what to do, except the base and the one that stands for anything."""
    silent = {kind for kind in _all_subclasses(ResctrlError) if kind.default_hint is None}
    assert silent == {ResctrlIOError, UnexpectedContentError}


def test_partial_counts_can_be_carried() -> None:
    """What was done before a failure stays with it."""
    partial = AssignmentResult(assigned=3, missing=1)
    assert EmptyPidSetError(Operation.ASSIGN_TASKS, HERE, partial=partial).partial == partial


def _all_subclasses(kind: type[ResctrlError]) -> set[type[ResctrlError]]:
    """Return the library's own errors below one; whoever uses it may have more."""
    direct = [below for below in kind.__subclasses__() if below.__module__ == "resctrl.errors"]
    return set(direct).union(*(_all_subclasses(one) for one in direct))
