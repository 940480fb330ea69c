"""Typed access to Linux resctrl: one monitoring group per pod, with the kernel's answers told truthfully.

Owns: the public names. The parts are `errors`, `model`, `fs`, `mount` and `groups`; `resctrl.testing` brings
a kernel-faithful fake for tests without hardware, as here:

>>> from resctrl import CapacityError, Resctrl, Tid
>>> from resctrl.testing import FakeFs
>>> kernel = FakeFs(num_rmids=2)  # one for the default group, one for us
>>> resctrl = Resctrl.with_provider(kernel)
>>> group = resctrl.create_group("6f1c1a5e-0001")
>>> print(group)
/sys/fs/resctrl/mon_groups/pod_6f1c1a5e-0001

A thread that died on the way is counted, not raised, and costs the others nothing:

>>> worker, dead = kernel.spawn(), kernel.spawn()
>>> kernel.end(dead)
>>> resctrl.assign_tasks(group, [worker, dead])
AssignmentResult(assigned=1, missing=1)

Groups are scarce, and the error says whether trying again can help:

>>> try:
...     resctrl.create_group("6f1c1a5e-0002")
... except CapacityError as error:
...     print(error.kernel_status, error.retryable)
Out of RMIDs True
>>> resctrl.delete_group(group)
>>> resctrl.create_group("6f1c1a5e-0002").name
'pod_6f1c1a5e-0002'

On a real machine `Resctrl()` does the same on /sys/fs/resctrl.
"""

from __future__ import annotations

from resctrl.errors import (
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
from resctrl.fs import FsProvider, Reader, RealFs, WriteError
from resctrl.groups import Resctrl
from resctrl.model import (
    AssignmentResult,
    Capacity,
    CleanupReport,
    ReconcileResult,
    ResctrlConfig,
    ResctrlGroup,
    SupportInfo,
    TaskGroups,
    Tid,
    TidSource,
)

__all__ = [
    "AssignmentResult",
    "Capacity",
    "CapacityError",
    "CleanupReport",
    "EmptyPidSetError",
    "FsProvider",
    "GroupExistsError",
    "GroupNotFoundError",
    "InvalidGroupError",
    "InvalidTidError",
    "NoPermissionError",
    "NotMountedError",
    "Operation",
    "Reader",
    "RealFs",
    "ReconcileResult",
    "Resctrl",
    "ResctrlConfig",
    "ResctrlError",
    "ResctrlGroup",
    "ResctrlIOError",
    "RmidsBusyError",
    "SupportInfo",
    "TaskGroups",
    "TaskNotInParentError",
    "Tid",
    "TidSource",
    "UnexpectedContentError",
    "UnsupportedError",
    "WriteError",
]
