"""class Resctrl: listing groups, and the capacity of the machine."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from resctrl import (
    Capacity,
    CapacityError,
    NoPermissionError,
    NotMountedError,
    Operation,
    Resctrl,
    ResctrlConfig,
    ResctrlError,
    ResctrlGroup,
    ResctrlIOError,
    UnexpectedContentError,
    UnsupportedError,
)
from resctrl.testing import FakeFs, FaultyFs, RecordingFs
from tests.unit.fakes import MON, ROOT

if TYPE_CHECKING:
    from pathlib import Path


def populated(*groups: str) -> FakeFs:
    """Return a machine with groups."""
    fs = FakeFs(num_rmids=32, num_closids=8)
    for group in groups:
        fs.create_dir(ROOT / group)
    return fs


MIXED = ("gold", "pod_ctrl", "mon_groups/pod_a", "mon_groups/x", "gold/mon_groups/pod_a", "gold/mon_groups/x")


# list_groups


def test_every_group_is_listed() -> None:
    """Those of the default group, each control group and those below it; the default group itself is not."""
    assert Resctrl.with_provider(populated(*MIXED)).list_groups() == [
        ResctrlGroup(MON / "pod_a", "", "pod_a", ours=True),
        ResctrlGroup(MON / "x", "", "x", ours=False),
        ResctrlGroup(ROOT / "gold", "gold", "", ours=False),
        ResctrlGroup(ROOT / "gold/mon_groups/pod_a", "gold", "pod_a", ours=True),
        ResctrlGroup(ROOT / "gold/mon_groups/x", "gold", "x", ours=False),
        ResctrlGroup(ROOT / "pod_ctrl", "pod_ctrl", "", ours=True),
    ]


def test_an_empty_machine_has_no_groups() -> None:
    """The kernel's own directories are none."""
    assert Resctrl.with_provider(FakeFs()).list_groups() == []


def test_each_directory_is_listed_once() -> None:
    """One listing of the root, one for each mon_groups, and nothing is asked about single groups."""
    fs = RecordingFs(populated(*MIXED))
    Resctrl.with_provider(fs).list_groups()
    assert [call.path for call in fs.calls if call.operation == "read_child_dirs"] == [
        MON,
        ROOT,
        ROOT / "gold/mon_groups",
        ROOT / "pod_ctrl/mon_groups",
    ]
    assert fs.count("exists") == 0


def test_a_control_group_that_vanishes_is_left_out() -> None:
    """Removed between the listing of the root and that of its own groups."""
    inner = populated(*MIXED)
    fs = FaultyFs(inner)
    fs.before("read_child_dirs", lambda path: inner.remove_dir(path.parent), path=ROOT / "gold/mon_groups")
    listed = Resctrl.with_provider(fs).list_groups()
    assert [group.path for group in listed] == [MON / "pod_a", MON / "x", ROOT / "pod_ctrl"]


def test_without_monitoring_there_are_control_groups() -> None:
    """A machine that only allocates has no mon_groups anywhere."""
    fs = FakeFs(monitoring=False)
    fs.create_dir(ROOT / "gold")
    assert [group.path for group in Resctrl.with_provider(fs).list_groups()] == [ROOT / "gold"]


def test_without_allocation_there_are_monitoring_groups() -> None:
    """A machine that only monitors has no control groups."""
    fs = FakeFs(allocation=False)
    fs.create_dir(MON / "pod_a")
    assert [group.path for group in Resctrl.with_provider(fs).list_groups()] == [MON / "pod_a"]


@pytest.mark.parametrize("machine", [{"mounted": False}, {"supported": False}])
def test_unmounted_is_not_empty(machine: dict[str, bool]) -> None:
    """Both calls say that resctrl is not mounted."""
    resctrl = Resctrl.with_provider(FakeFs(**machine))  # type: ignore[arg-type]
    with pytest.raises(NotMountedError) as caught:
        resctrl.list_groups()
    assert caught.value.operation is Operation.LIST_GROUPS
    with pytest.raises(NotMountedError):
        resctrl.capacity()


@pytest.mark.parametrize("path", [ROOT, MON, ROOT / "gold/mon_groups"])
def test_a_directory_that_cannot_be_listed(path: Path) -> None:
    """Half a list would pass for a whole one."""
    fs = FaultyFs(populated(*MIXED))
    resctrl = Resctrl.with_provider(fs)
    fs.fail("read_child_dirs", errno.EIO, path=path)
    with pytest.raises(ResctrlIOError):
        resctrl.list_groups()
    fs.fail("read_child_dirs", errno.EACCES, path=path)
    with pytest.raises(NoPermissionError) as caught:
        resctrl.list_groups()
    assert caught.value.path == path


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV])
@pytest.mark.parametrize("path", [MON, ROOT / "gold/mon_groups"])
def test_a_directory_that_is_there_is_not_taken_for_gone(path: Path, number: int) -> None:
    """An answer that says so while it stands there is a failure: no groups would be believed in."""
    fs = FaultyFs(populated(*MIXED))
    resctrl = Resctrl.with_provider(fs)
    for call in (resctrl.list_groups, resctrl.capacity):
        fs.fail("read_child_dirs", number, path=path)
        with pytest.raises(ResctrlError) as caught:
            call()
        assert (caught.value.path, caught.value.errno) == (path, number)
    fs.fail("read_child_dirs", number, path=path)
    fs.fail("exists", errno.EIO, path=path)
    with pytest.raises(ResctrlIOError):
        resctrl.list_groups()


# capacity


def test_the_capacity_of_a_machine() -> None:
    """Every group takes an RMID, whoever made it and of whichever kind; the default group has one too."""
    resctrl = Resctrl.with_provider(populated(*MIXED))
    assert resctrl.capacity() == Capacity(num_rmids=32, in_use=7, ours=3)
    assert resctrl.capacity().free == 25


def test_a_machine_without_rmids() -> None:
    """The directory is there and the number in it is 0: that is told, not that the directory is missing."""

    class Empty(FakeFs):
        def read_text(self, path: Path) -> str:
            return "0\n" if path.name == "num_rmids" else super().read_text(path)

    with pytest.raises(UnsupportedError, match="num_rmids is 0"):
        Resctrl.with_provider(Empty()).capacity()


def test_free_is_how_many_can_be_made() -> None:
    """As many groups as are free can be made, and then none."""
    fs = FakeFs(num_rmids=6)
    fs.create_dir(ROOT / "gold")
    resctrl = Resctrl.with_provider(fs)
    for number in range(resctrl.capacity().free):
        resctrl.create_group(f"{number}", "gold" if number % 2 else "")
    assert resctrl.capacity() == Capacity(num_rmids=6, in_use=6, ours=4)
    with pytest.raises(CapacityError):
        resctrl.create_group("one more")


def test_limbo_is_not_counted() -> None:
    """A deleted group is out of use at once, although its RMID rests."""
    fs = FakeFs(num_rmids=2, limbo=10.0)
    resctrl = Resctrl.with_provider(fs)
    resctrl.delete_group(resctrl.create_group("a"))
    assert resctrl.capacity() == Capacity(num_rmids=2, in_use=1, ours=0)
    assert fs.rmids_in_limbo == 1


def test_more_groups_than_rmids_leave_none() -> None:
    """What was counted while others were at work never becomes less than nothing."""
    assert Capacity(num_rmids=2, in_use=5, ours=0).free == 0


def test_a_prefix_of_its_own_counts_its_own() -> None:
    """Ours is what has our prefix."""
    resctrl = Resctrl.with_provider(populated(*MIXED), ResctrlConfig(group_prefix="x"))
    assert resctrl.capacity().ours == 2


def test_a_machine_that_cannot_monitor() -> None:
    """It has no RMIDs to speak of."""
    with pytest.raises(UnsupportedError, match="cannot monitor") as caught:
        Resctrl.with_provider(FakeFs(monitoring=False)).capacity()
    assert caught.value.operation is Operation.READ_CAPACITY


class Telemetry(FakeFs):
    """A machine of Linux 7.0 that counts energy too, with RMIDs of its own."""

    l3 = "32\n"
    package: str | None = "8\n"

    def read_text(self, path: Path) -> str:
        if path == ROOT / "info/PERF_PKG_MON/num_rmids" and self.package is not None:
            return self.package
        return self.l3 if path == ROOT / "info/L3_MON/num_rmids" else super().read_text(path)


@pytest.mark.parametrize(
    ("l3", "package", "expected"), [("32\n", "8\n", 8), ("8\n", "32\n", 8), ("32\n", None, 32)]
)
def test_the_scarcest_resource_decides(l3: str, package: str | None, expected: int) -> None:
    """Where two resources are monitored a group takes an RMID of each."""
    fs = Telemetry()
    fs.l3, fs.package = l3, package
    assert Resctrl.with_provider(fs).capacity().num_rmids == expected


@pytest.mark.parametrize("text", ["", "many\n", "-1\n", "1 2\n"])
def test_a_number_that_is_none(text: str) -> None:
    """It is not guessed at."""
    fs = Telemetry()
    fs.l3 = text
    with pytest.raises(UnexpectedContentError) as caught:
        Resctrl.with_provider(fs).capacity()
    assert caught.value.path == ROOT / "info/L3_MON/num_rmids"


def test_a_number_that_cannot_be_read() -> None:
    """A failure is not the absence of monitoring."""
    fs = FaultyFs(FakeFs())
    fs.fail("read_text", errno.EIO, path=ROOT / "info/L3_MON/num_rmids")
    with pytest.raises(ResctrlIOError) as caught:
        Resctrl.with_provider(fs).capacity()
    assert caught.value.operation is Operation.READ_CAPACITY
