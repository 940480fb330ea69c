"""Typed access to Linux resctrl: one monitoring group per pod, with the kernel's answers told truthfully.

Owns: the public names. The parts are `errors`, `model`, `fs`, `mount`, `groups`, `monitoring`, `rates`,
`sampler` and `info`; `resctrl.testing` brings a kernel-faithful fake for tests without hardware, as here:

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

from importlib import import_module
from typing import TYPE_CHECKING, Final

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

if TYPE_CHECKING:
    from resctrl.info import AllocationInfo, AssignMode, MonitoringInfo, MountInfo, ResctrlInfo
    from resctrl.monitoring import (
        Domain,
        EventKind,
        GroupReading,
        ReadError,
        Reading,
        Total,
        Unassigned,
        Unavailable,
        Value,
        event_kind,
    )
    from resctrl.rates import DomainRate, Rate, Reset, ResetReason, rate
    from resctrl.sampler import Sample, Sampler

__all__ = [
    "AllocationInfo",
    "AssignMode",
    "AssignmentResult",
    "Capacity",
    "CapacityError",
    "CleanupReport",
    "Domain",
    "DomainRate",
    "EmptyPidSetError",
    "EventKind",
    "FsProvider",
    "GroupExistsError",
    "GroupNotFoundError",
    "GroupReading",
    "InvalidGroupError",
    "InvalidTidError",
    "MonitoringInfo",
    "MountInfo",
    "NoPermissionError",
    "NotMountedError",
    "Operation",
    "Rate",
    "ReadError",
    "Reader",
    "Reading",
    "RealFs",
    "ReconcileResult",
    "Resctrl",
    "ResctrlConfig",
    "ResctrlError",
    "ResctrlGroup",
    "ResctrlIOError",
    "ResctrlInfo",
    "Reset",
    "ResetReason",
    "RmidsBusyError",
    "Sample",
    "Sampler",
    "SupportInfo",
    "TaskGroups",
    "TaskNotInParentError",
    "Tid",
    "TidSource",
    "Total",
    "Unassigned",
    "Unavailable",
    "UnexpectedContentError",
    "UnsupportedError",
    "Value",
    "WriteError",
    "event_kind",
    "rate",
]

_HOME: Final = {
    "AllocationInfo": "info",
    "AssignMode": "info",
    "MonitoringInfo": "info",
    "MountInfo": "info",
    "ResctrlInfo": "info",
    "Domain": "monitoring",
    "EventKind": "monitoring",
    "GroupReading": "monitoring",
    "ReadError": "monitoring",
    "Reading": "monitoring",
    "Total": "monitoring",
    "Unassigned": "monitoring",
    "Unavailable": "monitoring",
    "Value": "monitoring",
    "event_kind": "monitoring",
    "DomainRate": "rates",
    "Rate": "rates",
    "Reset": "rates",
    "ResetReason": "rates",
    "rate": "rates",
    "Sample": "sampler",
    "Sampler": "sampler",
}
"""In which module a name is at home that is loaded when it is first used: who only makes groups, as a plugin
does on every node, is spared the readings."""

if not TYPE_CHECKING:  # a checker sees the imports above, and refuses what is not among them

    def __getattr__(name: str) -> object:
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
