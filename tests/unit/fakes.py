"""What the tests of the fake share: a clock that stands still, and an errno as a value."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from resctrl import Resctrl
from resctrl.testing import FakeFs, FaultyFs, RecordingFs

if TYPE_CHECKING:
    from collections.abc import Callable

    from resctrl import Tid

ROOT = Path("/sys/fs/resctrl")
MON = ROOT / "mon_groups"


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def answer(call: Callable[..., object], *arguments: object) -> str:
    """Return "ok", or the name of the errno that a call failed with."""
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def status(fs: FakeFs) -> list[str]:
    """Return the lines of last_cmd_status."""
    return fs.read_text(ROOT / "info/last_cmd_status").splitlines()


def spoil_status(fs: FakeFs) -> list[str]:
    """Leave something in last_cmd_status, and return it."""
    assert answer(fs.write_all, ROOT / "tasks", [b"-1"]) == "EINVAL"
    return status(fs)


def put(fs: FakeFs, group: Path, text: str | bytes) -> str:
    """Write once to a group's `tasks`; return "ok" or the errno's name."""
    return answer(fs.write_all, group / "tasks", [text.encode() if isinstance(text, str) else text])


class Machine:
    """A fake with one group and a control group, behind a recorder and a fault injector."""

    def __init__(self) -> None:
        self.fake = FakeFs()
        self.faulty = FaultyFs(self.fake)
        self.fs = RecordingFs(self.faulty)
        self.resctrl = Resctrl.with_provider(self.fs)
        self.group = self.resctrl.create_group("a")
        self.fake.create_dir(ROOT / "c1")
        self.fs.forget()

    def threads(self, count: int) -> list[Tid]:
        """Start threads."""
        return [self.fake.spawn() for _ in range(count)]

    def dead(self) -> Tid:
        """Return the id of a thread that is no more."""
        tid = self.fake.spawn()
        self.fake.end(tid)
        return tid

    def classed(self) -> Tid:
        """Start a thread in the control group."""
        tid = self.fake.spawn()
        put(self.fake, ROOT / "c1", f"{tid}")
        return tid
