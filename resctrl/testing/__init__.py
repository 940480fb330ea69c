"""Test parts for whoever uses `resctrl`: a kernel-faithful fake, and providers that fail or remember.

Owns: the public names of the test kit. The library never imports it.

>>> from resctrl import CapacityError, Resctrl
>>> from resctrl.testing import FakeFs, FaultyFs
>>> import errno
>>> fs = FaultyFs(FakeFs())
>>> fs.fail("create_dir", errno.EBUSY, nth=2)
>>> resctrl = Resctrl.with_provider(fs)
>>> resctrl.create_group("first").name
'pod_first'
>>> resctrl.create_group("second")
Traceback (most recent call last):
...
resctrl.errors.RmidsBusyError: cannot create group at '/sys/fs/resctrl/mon_groups/pod_second': EBUSY \
(freed RMIDs wait until their cache lines are evicted; try again in a second or two)
"""

from __future__ import annotations

from resctrl.testing.fake_fs import FakeFs
from resctrl.testing.faulty_fs import FaultyFs
from resctrl.testing.pid_source import FakePidSource
from resctrl.testing.recording_fs import Call, RecordingFs
from resctrl.testing.vfs import Privilege

__all__ = ["Call", "FakeFs", "FakePidSource", "FaultyFs", "Privilege", "RecordingFs"]
