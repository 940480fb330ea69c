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
    Operation,
    Resctrl,
    ResctrlConfig,
    ResctrlIOError,
)
from resctrl.testing import FakeFs, FaultyFs, RecordingFs
from tests.unit.fakes import MON, ROOT

if TYPE_CHECKING:
    from pathlib import Path


def report(
    removed: int = 0, failures: int = 0, race: int = 0, foreign: int = 0, kept: int = 0
) -> CleanupReport:
    """Return a report."""
    return CleanupReport(
        removed=removed,
        removal_failures=failures,
        removal_race=race,
        non_prefix_groups=foreign,
        kept=kept,
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
    inner = populated("mon_groups/pod_a", "mon_groups/pod_b")
    fs = FaultyFs(inner)

    def faster(path: Path) -> None:
        inner.remove_dir(path)
        raise OSError(number, "gone")

    fs.before("remove_dir", faster, path=MON / "pod_a")
    swept = Resctrl.with_provider(fs).cleanup_all()
    assert swept == report(removed=1, race=1)
    assert swept.failures == ()


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV])
def test_an_entry_that_is_there_still_is_no_race(number: int) -> None:
    """The answer says that it is gone, and it is not, or cannot be looked at: it could not be removed."""
    inner = populated("mon_groups/pod_a", "mon_groups/pod_b")
    fs = FaultyFs(inner)
    fs.fail("remove_dir", number, path=MON / "pod_a", times=2)
    assert Resctrl.with_provider(fs).cleanup_all() == report(removed=1, failures=1)
    fs.fail("exists", errno.EIO, path=MON / "pod_a")
    assert Resctrl.with_provider(fs).cleanup_all() == report(failures=1)
    assert inner.exists(MON / "pod_a")


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
    swept = Resctrl.with_provider(fs).cleanup_all()
    assert swept == report(removed=2, failures=1)
    assert inner.exists(ROOT / "pod_ctrl")
    assert [(error.path, error.errno, error.operation) for error in swept.failures] == [
        (ROOT / "pod_ctrl", number, Operation.SWEEP)
    ]


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


# Below control groups


def test_below_control_groups_when_it_is_asked_for() -> None:
    """Our groups below foreign control groups go as well, and nothing else there."""
    fs = populated("gold", "iron", "gold/mon_groups/pod_a", "gold/mon_groups/x", "mon_groups/pod_b")
    report_ = Resctrl.with_provider(fs).cleanup_all(below_control_groups=True)
    assert report_ == report(removed=2, foreign=3)
    assert fs.read_child_dirs(ROOT / "gold/mon_groups") == ["x"]
    assert fs.read_child_dirs(MON) == []


def test_what_goes_with_its_control_group_is_not_counted() -> None:
    """A control group of ours takes its groups along with one rmdir."""
    inner = populated("pod_ctrl", "pod_ctrl/mon_groups/pod_a", "pod_ctrl/mon_groups/x")
    fs = RecordingFs(inner)
    assert Resctrl.with_provider(fs).cleanup_all(below_control_groups=True) == report(removed=1)
    assert fs.count("remove_dir") == 1


def test_below_a_control_group_that_would_not_go() -> None:
    """Where the control group of ours stays its groups are removed one by one."""
    inner = populated("pod_ctrl", "pod_ctrl/mon_groups/pod_a", "pod_ctrl/mon_groups/x")
    fs = FaultyFs(inner)
    fs.fail("remove_dir", errno.EBUSY, path=ROOT / "pod_ctrl")
    swept = Resctrl.with_provider(fs).cleanup_all(below_control_groups=True)
    assert swept == report(removed=1, failures=1, foreign=1)


def test_a_control_group_that_vanishes_from_below() -> None:
    """Gone before its groups are listed: nothing to sweep there. Gone after that: a race for each of ours."""
    inner = populated("gold", "iron", "gold/mon_groups/pod_a", "iron/mon_groups/pod_b")
    fs = FaultyFs(inner)
    fs.before("read_child_dirs", lambda path: inner.remove_dir(path.parent), path=ROOT / "gold/mon_groups")
    fs.before(
        "remove_dir", lambda path: inner.remove_dir(path.parents[1]), path=ROOT / "iron/mon_groups/pod_b"
    )
    swept = Resctrl.with_provider(fs).cleanup_all(below_control_groups=True)
    assert swept == report(race=1, foreign=2)
    assert fs.unused() == 0


def test_a_control_group_that_cannot_be_looked_into() -> None:
    """Not being able to look is an error there too, and nothing has been removed."""
    inner = populated("gold", "mon_groups/pod_a")
    fs = FaultyFs(inner)
    fs.fail("read_child_dirs", errno.EIO, path=ROOT / "gold/mon_groups")
    with pytest.raises(ResctrlIOError):
        Resctrl.with_provider(fs).cleanup_all(below_control_groups=True)
    assert inner.exists(MON / "pod_a")


def test_below_control_groups_of_a_machine_that_cannot_monitor() -> None:
    """There is nothing below them."""
    fs = FakeFs(monitoring=False)
    fs.create_dir(ROOT / "gold")
    assert Resctrl.with_provider(fs).cleanup_all(below_control_groups=True) == report(foreign=1)


# What is kept


def test_what_is_kept_stays_wherever_it_stands() -> None:
    """Groups are kept by name; the others go."""
    fs = populated(
        "gold", "gold/mon_groups/pod_a", "gold/mon_groups/pod_b", "mon_groups/pod_a", "mon_groups/pod_c"
    )
    swept = Resctrl.with_provider(fs).cleanup_all(below_control_groups=True, keep=["pod_a", "pod_x"])
    assert swept == report(removed=2, foreign=1, kept=2)
    assert fs.read_child_dirs(MON) == ["pod_a"]
    assert fs.read_child_dirs(ROOT / "gold/mon_groups") == ["pod_a"]


def test_to_keep_what_is_not_ours_changes_nothing() -> None:
    """Without the prefix it is left alone anyhow, and counted as what it is."""
    fs = RecordingFs(populated("mon_groups/other", "mon_groups/pod_a", "gold"))
    assert Resctrl.with_provider(fs).cleanup_all(keep={"other", "gold"}) == report(removed=1, foreign=2)
    assert fs.count("read_child_dirs") == 2


@pytest.mark.parametrize("below", [False, True])
def test_a_control_group_that_holds_what_is_kept_stays(below: bool) -> None:
    """To remove it would take the group that lives along, whatever else is swept."""
    fs = populated("pod_ctrl", "pod_ctrl/mon_groups/pod_a", "pod_ctrl/mon_groups/pod_b", "pod_other")
    swept = Resctrl.with_provider(fs).cleanup_all(below_control_groups=below, keep=["pod_a"])
    assert fs.exists(ROOT / "pod_ctrl/mon_groups/pod_a")
    assert fs.exists(ROOT / "pod_ctrl/mon_groups/pod_b") is not below
    assert swept == (report(removed=2, kept=2) if below else report(removed=1, kept=1))


def test_a_control_group_stays_with_what_anybody_keeps() -> None:
    """Also where the group that is wanted has no prefix: it would go all the same."""
    fs = populated("pod_ctrl", "pod_ctrl/mon_groups/other", "pod_ctrl/mon_groups/pod_a")
    swept = Resctrl.with_provider(fs).cleanup_all(below_control_groups=True, keep=["other"])
    assert swept == report(removed=1, foreign=1, kept=1)
    assert fs.exists(ROOT / "pod_ctrl/mon_groups/other")


def test_a_control_group_is_kept_by_its_own_name() -> None:
    """A control group of ours may be wanted too."""
    fs = populated("pod_ctrl", "pod_ctrl/mon_groups/pod_a")
    swept = Resctrl.with_provider(fs).cleanup_all(below_control_groups=True, keep=["pod_ctrl"])
    assert swept == report(removed=1, kept=1)


def test_without_a_wish_control_groups_are_not_looked_into() -> None:
    """The plain sweep lists the root and its mon_groups, also where control groups of ours are."""
    fs = RecordingFs(populated("pod_ctrl", "pod_ctrl/mon_groups/pod_a"))
    assert Resctrl.with_provider(fs).cleanup_all() == report(removed=1)
    assert fs.count("read_child_dirs") == 2
