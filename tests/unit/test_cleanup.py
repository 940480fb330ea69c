"""Resctrl.cleanup_all: what a sweep removes, and what it must never touch."""

from __future__ import annotations

import errno
import math
from typing import TYPE_CHECKING

import pytest

from resctrl import (
    CleanupReport,
    InvalidGroupError,
    NoPermissionError,
    NotMountedError,
    Resctrl,
    ResctrlConfig,
    ResctrlIOError,
)
from resctrl.testing import FakeFs, FaultyFs, RecordingFs
from tests.unit.fakes import MON, ROOT

if TYPE_CHECKING:
    from pathlib import Path


def report(removed: int = 0, failures: int = 0, race: int = 0, foreign: int = 0) -> CleanupReport:
    """Return a report."""
    return CleanupReport(
        removed=removed, removal_failures=failures, removal_race=race, non_prefix_groups=foreign
    )


def populated(*groups: str) -> FakeFs:
    """Return a machine with groups."""
    fs = FakeFs(num_rmids=32, num_closids=8)
    for group in groups:
        fs.create_dir(ROOT / group)
    return fs


def test_an_empty_machine() -> None:
    """The kernel's own directories are neither removed nor counted."""
    fs = populated()
    assert Resctrl.with_provider(fs).cleanup_all() == report()
    assert fs.read_child_dirs(ROOT) == ["info", "mon_data", "mon_groups"]


def test_both_levels() -> None:
    """Prefixed groups at the root, control groups included, and in the root's mon_groups are removed."""
    fs = populated("pod_ctrl", "other", "mon_groups/pod_a", "mon_groups/pod_b", "mon_groups/other")
    assert Resctrl.with_provider(fs).cleanup_all() == report(removed=3, foreign=2)
    assert fs.read_child_dirs(ROOT) == ["info", "mon_data", "mon_groups", "other"]
    assert fs.read_child_dirs(MON) == ["other"]


def test_a_control_groups_own_groups_are_left_alone() -> None:
    """What stands in a control group's mon_groups is not even listed."""
    inner = populated("other", "other/mon_groups/pod_a")
    fs = RecordingFs(inner)
    assert Resctrl.with_provider(fs).cleanup_all() == report(foreign=1)
    assert inner.exists(ROOT / "other/mon_groups/pod_a")
    assert {call.path for call in fs.calls if call.operation == "read_child_dirs"} == {ROOT, MON}


def test_a_prefixed_file_is_no_group() -> None:
    """The kernel's file cpus_list begins with the prefix cpus_; it is neither removed nor counted."""
    inner = populated("cpus_a", "mon_groups/cpus_b")
    fs = RecordingFs(inner)
    resctrl = Resctrl.with_provider(fs, ResctrlConfig(group_prefix="cpus_"))
    assert resctrl.cleanup_all() == report(removed=2)
    assert inner.exists(ROOT / "cpus_list")
    assert fs.count("remove_dir", ROOT / "cpus_list") == 0


@pytest.mark.parametrize("prefix", ["mon_", "info", "mon", "i"])
def test_a_prefix_of_the_kernels_own_directories(prefix: str) -> None:
    """info, mon_data and mon_groups are not tried, whatever the prefix."""
    fs = RecordingFs(populated("mon_groups/other"))
    resctrl = Resctrl.with_provider(fs, ResctrlConfig(group_prefix=prefix))
    assert resctrl.cleanup_all() == report(foreign=1)
    assert fs.count("remove_dir") == 0


def test_an_empty_prefix_is_refused() -> None:
    """It would make everybody's groups ours; nothing is looked at."""
    fs = RecordingFs(populated("mon_groups/other"))
    with pytest.raises(InvalidGroupError, match="prefix is empty"):
        Resctrl.with_provider(fs, ResctrlConfig(group_prefix="")).cleanup_all()
    assert fs.calls == []


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV])
def test_an_entry_that_vanishes_is_a_race(number: int) -> None:
    """Somebody else removed it between the listing and the rmdir: no failure, and no success of ours."""
    fs = FaultyFs(populated("mon_groups/pod_a", "mon_groups/pod_b"))
    fs.fail("remove_dir", number, path=MON / "pod_a")
    assert Resctrl.with_provider(fs).cleanup_all() == report(removed=1, race=1)


def test_an_entry_that_really_vanishes() -> None:
    """The same with a real race: another sweep is faster."""
    inner = populated("pod_ctrl", "mon_groups/pod_a", "mon_groups/pod_b")
    fs = FaultyFs(inner)

    def other_sweep(path: Path) -> None:
        inner.remove_dir(path)

    fs.before("remove_dir", other_sweep, nth=1, times=2)
    assert Resctrl.with_provider(fs).cleanup_all() == report(removed=1, race=2)


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EACCES, errno.EIO])
def test_a_failure_does_not_stop_the_sweep(number: int) -> None:
    """What cannot be removed is counted, and the rest is removed."""
    inner = populated("pod_ctrl", "mon_groups/pod_a", "mon_groups/pod_b")
    fs = FaultyFs(inner)
    fs.fail("remove_dir", number, path=ROOT / "pod_ctrl")
    assert Resctrl.with_provider(fs).cleanup_all() == report(removed=2, failures=1)
    assert inner.exists(ROOT / "pod_ctrl")


def test_without_mon_groups() -> None:
    """On a machine that only allocates, the root alone is swept."""
    fs = FakeFs(monitoring=False)
    fs.create_dir(ROOT / "pod_ctrl")
    assert Resctrl.with_provider(fs).cleanup_all() == report(removed=1)


@pytest.mark.parametrize("machine", [{"mounted": False}, {"supported": False}])
def test_unmounted(machine: dict[str, bool]) -> None:
    """An unmounted resctrl is no empty one."""
    fs = RecordingFs(FakeFs(**machine))  # type: ignore[arg-type]
    with pytest.raises(NotMountedError):
        Resctrl.with_provider(fs).cleanup_all()
    assert fs.count("read_child_dirs") == 0


@pytest.mark.parametrize(("path", "number"), [(ROOT, errno.EIO), (MON, errno.EIO), (ROOT, errno.ENOENT)])
def test_a_directory_that_cannot_be_listed(path: Path, number: int) -> None:
    """Not being able to look is an error, and nothing has been removed."""
    inner = populated("mon_groups/pod_a")
    fs = FaultyFs(inner)
    fs.fail("read_child_dirs", number, path=path, times=math.inf)
    with pytest.raises(ResctrlIOError):
        Resctrl.with_provider(fs).cleanup_all()
    assert inner.exists(MON / "pod_a")


def test_not_allowed_to_look() -> None:
    """A refused listing is a missing permission."""
    fs = FaultyFs(populated())
    fs.fail("read_child_dirs", errno.EACCES)
    with pytest.raises(NoPermissionError):
        Resctrl.with_provider(fs).cleanup_all()


def test_a_second_sweep_finds_nothing() -> None:
    """A sweep leaves nothing of ours."""
    fs = populated("pod_ctrl", "mon_groups/pod_a", "mon_groups/other")
    resctrl = Resctrl.with_provider(fs)
    resctrl.cleanup_all()
    assert resctrl.cleanup_all() == report(foreign=1)
