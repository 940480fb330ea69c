"""The fake's groups: RMIDs, mkdir, rmdir, rename. Each docstring names the belief it proves."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from resctrl import FsProvider
from resctrl.testing import FakeFs
from resctrl.testing.ids import RmidPool
from resctrl.testing.nodes import Refusal
from tests.unit.fakes import MON, ROOT, Clock, answer, put, spoil_status, status


def test_it_is_a_provider() -> None:
    """FakeFs can stand wherever the library takes an FsProvider."""
    assert isinstance(FakeFs(), FsProvider)


@pytest.mark.parametrize(
    "machine",
    [
        {"monitoring": False, "allocation": False},
        {"num_rmids": 0},
        {"num_closids": 0},
        {"limbo": -1.0},
        {"root": Path("/sys/fs/other")},
    ],
)
def test_impossible_machines_are_refused(machine: dict[str, object]) -> None:
    """A machine that cannot exist cannot be made."""
    with pytest.raises(ValueError, match=r"\w"):
        FakeFs(**machine)  # type: ignore[arg-type]


# RMIDs and CLOSIDs


def test_every_group_takes_one_rmid() -> None:
    """K01: num_rmids - 1 groups fit, of whatever kind."""
    fs = FakeFs(num_rmids=4)
    fs.create_dir(ROOT / "c1")
    fs.create_dir(MON / "m1")
    assert fs.free_rmids == 1
    fs.create_dir(ROOT / "c1/mon_groups/m2")
    assert fs.free_rmids == 0
    assert answer(fs.create_dir, MON / "m3") == "ENOSPC"
    fs.remove_dir(MON / "m1")
    fs.create_dir(MON / "m3")


def test_a_control_group_takes_a_closid() -> None:
    """K02: num_closids - 1 control groups fit, and a deleted one makes room for another."""
    fs = FakeFs(num_closids=3)
    fs.create_dir(ROOT / "c1")
    fs.create_dir(ROOT / "c2")
    assert answer(fs.create_dir, ROOT / "c3") == "ENOSPC"
    assert status(fs)[-1] == "Out of CLOSIDs"
    fs.remove_dir(ROOT / "c1")
    fs.create_dir(ROOT / "c3")


def test_no_rmid_is_enospc() -> None:
    """K03: with nothing free and nothing in limbo mkdir is ENOSPC."""
    fs = FakeFs(num_rmids=2, limbo=1.0, clock=Clock())
    fs.create_dir(MON / "m1")
    assert answer(fs.create_dir, MON / "m2") == "ENOSPC"
    assert status(fs) == ["Out of RMIDs"]
    assert not fs.exists(MON / "m2")


def test_limbo_is_ebusy() -> None:
    """K04: with nothing free but something in limbo mkdir is EBUSY, and the text is the same."""
    fs = FakeFs(num_rmids=3, limbo=1.0, clock=Clock())
    fs.create_dir(MON / "m1")
    fs.create_dir(MON / "m2")
    fs.remove_dir(MON / "m1")
    assert answer(fs.create_dir, MON / "m3") == "EBUSY"
    assert status(fs) == ["Out of RMIDs"]
    assert fs.rmids_in_limbo == 1


def test_limbo_ends_by_the_clock() -> None:
    """K05: a freed RMID can be used again after the limbo, not before."""
    clock = Clock()
    fs = FakeFs(num_rmids=2, limbo=1.5, clock=clock)
    fs.create_dir(MON / "m1")
    fs.remove_dir(MON / "m1")
    clock.now = 1.4
    assert answer(fs.create_dir, MON / "m2") == "EBUSY"
    clock.now = 1.5
    assert answer(fs.create_dir, MON / "m2") == "ok"


def test_no_occupancy_no_limbo() -> None:
    """K06: a processor without llc_occupancy frees an RMID at once."""
    fs = FakeFs(num_rmids=2, limbo=0.0)
    fs.create_dir(MON / "m1")
    fs.remove_dir(MON / "m1")
    assert answer(fs.create_dir, MON / "m2") == "ok"
    assert fs.rmids_in_limbo == 0


def test_rmids_are_reused_longest_free_first() -> None:
    """K07: the RMID that has been free longest is used first, whatever its number."""
    pool = RmidPool(4, limbo=0.0, clock=Clock())
    assert [pool.take(), pool.take(), pool.take()] == [1, 2, 3]
    for rmid in (2, 3, 1):
        pool.give_back(rmid)
    assert [pool.take(), pool.take(), pool.take()] == [2, 3, 1]
    with pytest.raises(Refusal):
        pool.take()


def test_endless_limbo_ends_by_the_threshold() -> None:
    """K08: limbo can last for ever, until the threshold is raised above what the cache still holds."""
    clock = Clock()
    fs = FakeFs(num_rmids=2, limbo=math.inf, clock=clock)
    fs.create_dir(MON / "m1")
    fs.remove_dir(MON / "m1")
    clock.now = 1e9
    assert answer(fs.create_dir, MON / "m2") == "EBUSY"
    threshold = ROOT / "info/L3_MON/max_threshold_occupancy"
    fs.write_all(threshold, [b"8388608\n"])
    assert answer(fs.create_dir, MON / "m2") == "EBUSY"
    fs.write_all(threshold, [b"16777216\n"])
    assert answer(fs.create_dir, MON / "m2") == "ok"


def test_a_test_can_end_the_limbo() -> None:
    """end_limbo frees everything that rests, so that a test need not wait."""
    fs = FakeFs(num_rmids=2, limbo=math.inf)
    fs.create_dir(MON / "m1")
    fs.remove_dir(MON / "m1")
    fs.end_limbo()
    assert answer(fs.create_dir, MON / "m2") == "ok"


# mkdir


@pytest.mark.parametrize(
    "place",
    [
        "info/x",
        "info/L3/x",
        "mon_data/x",
        "mon_data/mon_L3_00/x",
        "mon_groups/m1/x",
        "mon_groups/m1/mon_data/x",
        "c1/x",
        "c1/mon_data/x",
    ],
)
def test_mkdir_in_odd_places(place: str) -> None:
    """K10: outside of the root and the mon_groups mkdir is EPERM, and says nothing."""
    fs = FakeFs()
    fs.create_dir(ROOT / "c1")
    fs.create_dir(MON / "m1")
    before = spoil_status(fs)
    assert answer(fs.create_dir, ROOT / place) == "EPERM"
    assert status(fs) == before


@pytest.mark.parametrize(
    "name", ["mon_groups/m1", "c1", "info", "tasks", "mon_groups", "mon_data", "c1/mon_groups"]
)
@pytest.mark.parametrize("limbo", [0.0, math.inf])
def test_eexist_wins(name: str, limbo: float) -> None:
    """K11: an existing name is EEXIST, also when there is no RMID left, free or resting."""
    fs = FakeFs(num_rmids=4, limbo=limbo)
    fs.create_dir(ROOT / "c1")
    fs.create_dir(MON / "m1")
    fs.create_dir(MON / "m2")
    if limbo:
        fs.remove_dir(MON / "m2")
    assert answer(fs.create_dir, ROOT / name) == "EEXIST"


def test_closid_before_rmid() -> None:
    """K12: with both exhausted CLOSIDs are named; an RMID's refusal gives the CLOSID back."""
    fs = FakeFs(num_rmids=3, num_closids=3)
    fs.create_dir(ROOT / "c1")
    fs.create_dir(MON / "m1")
    assert answer(fs.create_dir, ROOT / "c2") == "ENOSPC"
    assert status(fs) == ["Out of RMIDs"]
    fs.remove_dir(MON / "m1")
    fs.create_dir(ROOT / "c2")
    assert answer(fs.create_dir, ROOT / "c3") == "ENOSPC"
    assert status(fs)[-1] == "Out of CLOSIDs"


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("a\nb", "EINVAL"),
        ("a b", "ok"),
        ("a\tb", "ok"),
        ("a,b:c.d%\\", "ok"),
        (".hidden", "ok"),
        ("gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n", "ok"),
        ("\udcff\udcfe", "ok"),
        ("n" * 256, "ok"),
        ("n" * 3000, "ok"),
    ],
)
def test_names(name: str, outcome: str) -> None:
    """K13: a newline is EINVAL, everything else that fits into a path is a name."""
    fs = FakeFs()
    assert answer(fs.create_dir, MON / name) == outcome
    assert fs.read_child_dirs(MON) == ([name] if outcome == "ok" else [])


def test_no_group_named_mon_groups() -> None:
    """K14: mon_groups/mon_groups is EPERM."""
    fs = FakeFs()
    assert answer(fs.create_dir, MON / "mon_groups") == "EPERM"


def test_monitoring_only() -> None:
    """K15: without allocation there are no control groups, but monitoring groups."""
    fs = FakeFs(allocation=False)
    assert answer(fs.create_dir, ROOT / "c1") == "EPERM"
    assert answer(fs.create_dir, MON / "m1") == "ok"
    assert fs.read_child_dirs(ROOT / "info") == ["L3_MON"]
    assert fs.read_text(ROOT / "schemata") == ""


def test_allocation_only() -> None:
    """K16: without monitoring there is nothing to monitor with, but control groups."""
    fs = FakeFs(monitoring=False)
    assert fs.read_child_dirs(ROOT) == ["info"]
    assert fs.read_child_dirs(ROOT / "info") == ["L3", "MB"]
    assert answer(fs.create_dir, MON / "m1") == "ENOENT"
    fs.create_dir(ROOT / "c1")
    assert fs.read_child_dirs(ROOT / "c1") == []


def test_files_of_a_group() -> None:
    """K17: control groups have what allocates, monitoring groups only what counts."""
    fs = FakeFs()
    fs.create_dir(ROOT / "c1")
    fs.create_dir(MON / "m1")
    common = ["tasks", "cpus", "cpus_list"]
    control = ["mode", "schemata", "size"]
    assert all(fs.exists(ROOT / "c1" / name) for name in common + control)
    assert all(fs.exists(MON / "m1" / name) for name in common)
    assert not any(fs.exists(MON / "m1" / name) for name in control)
    assert fs.read_child_dirs(ROOT / "c1") == ["mon_data", "mon_groups"]
    assert fs.read_child_dirs(MON / "m1") == ["mon_data"]
    assert fs.read_text(ROOT / "schemata") == "MB:0=100\nL3:0=fff\n"
    assert fs.read_text(ROOT / "size") == "MB:0=100\nL3:0=16777212\n"
    assert fs.read_text(ROOT / "cpus_list") == "0-1\n"
    assert fs.read_text(MON / "m1/cpus_list") == "\n"


def test_allocation_only_takes_no_rmid() -> None:
    """K18: a control group on a machine that only allocates does not fail for RMIDs."""
    fs = FakeFs(monitoring=False, num_rmids=1)
    fs.create_dir(ROOT / "c1")
    fs.remove_dir(ROOT / "c1")
    fs.unmount()


# rmdir


def test_rmdir_of_a_monitoring_group() -> None:
    """K20: its threads fall to the control group that it stands in, not to the default one."""
    fs = FakeFs()
    fs.create_dir(ROOT / "c1")
    fs.create_dir(ROOT / "c1/mon_groups/m1")
    tid = fs.spawn()
    assert put(fs, ROOT / "c1", f"{tid}") == "ok"
    assert put(fs, ROOT / "c1/mon_groups/m1", f"{tid}") == "ok"
    fs.remove_dir(ROOT / "c1/mon_groups/m1")
    assert fs.tasks_in(ROOT / "c1") == {tid}


def test_rmdir_of_a_control_group() -> None:
    """K21: children go along, every RMID and the CLOSID are free again, threads are in the default group."""
    fs = FakeFs(num_rmids=4, num_closids=2)
    fs.create_dir(ROOT / "c1")
    fs.create_dir(ROOT / "c1/mon_groups/m1")
    fs.create_dir(ROOT / "c1/mon_groups/m2")
    first, second = fs.spawn(), fs.spawn()
    put(fs, ROOT / "c1", f"{first},{second}")
    put(fs, ROOT / "c1/mon_groups/m1", f"{first}")
    fs.remove_dir(ROOT / "c1")
    assert not fs.exists(ROOT / "c1")
    assert fs.free_rmids == 3
    assert {first, second} <= fs.tasks_in(ROOT)
    fs.create_dir(ROOT / "c2")


@pytest.mark.parametrize(
    "place",
    [
        "info",
        "info/L3",
        "mon_data",
        "mon_data/mon_L3_00",
        "mon_groups",
        "mon_groups/m1/mon_data",
        "c1/mon_groups",
        "c1/mon_data/mon_L3_00",
    ],
)
def test_rmdir_of_kernel_directories(place: str) -> None:
    """K22: what is no group cannot be removed."""
    fs = FakeFs()
    fs.create_dir(ROOT / "c1")
    fs.create_dir(MON / "m1")
    assert answer(fs.remove_dir, ROOT / place) == "EPERM"


@pytest.mark.parametrize(
    ("place", "outcome"),
    [
        ("nope", "ENOENT"),
        ("nope/x", "ENOENT"),
        ("tasks", "ENOTDIR"),
        ("tasks/x", "ENOTDIR"),
        ("", "EBUSY"),
        ("/proc", "EBUSY"),
        ("/sys", "EBUSY"),
        ("mon_groups/..", "ENOTEMPTY"),
    ],
)
def test_rmdir_as_the_vfs_answers(place: str, outcome: str) -> None:
    """K23: what rmdir says before resctrl is asked."""
    fs = FakeFs()
    assert answer(fs.remove_dir, ROOT / place if place else ROOT) == outcome


# rename


def two_classes() -> FakeFs:
    """Return a machine with the control groups c1 and c2 and the monitoring groups m1 and m2."""
    fs = FakeFs()
    for path in ("c1", "c2", "mon_groups/m1", "mon_groups/m2"):
        fs.create_dir(ROOT / path)
    return fs


@pytest.mark.parametrize(
    ("source", "target", "outcome"),
    [
        ("mon_groups/m1", "mon_groups/m1", "ok"),
        ("c1", "c1", "ok"),
        ("mon_groups/m1", "/tmp/x", "EXDEV"),  # noqa: S108 - a path of the fake
        ("/proc", "mon_groups/x", "EXDEV"),
        ("mon_groups/nope", "/proc/x", "EXDEV"),
        ("/sys/fs/resctrl", "/sys/fs/other", "EBUSY"),
        ("mon_groups/m2", "..", "EBUSY"),
        ("mon_groups/m2", "mon_groups/..", "EBUSY"),
        ("mon_groups/..", "x", "EBUSY"),
        ("nope", "x", "ENOENT"),
        ("nope/x", "x", "ENOENT"),
        ("mon_groups/m1", "nope/x", "ENOENT"),
        ("tasks/x", "y", "ENOTDIR"),
        ("mon_groups/m1", "tasks/x", "ENOTDIR"),
        ("mon_groups/m1", "mon_groups/m1/x", "EINVAL"),
        ("mon_groups/m1", "mon_groups/m1/tasks", "EINVAL"),
        ("c1", "c1/mon_groups/x", "EINVAL"),
        ("mon_groups", "mon_groups/x", "EINVAL"),
        ("mon_groups/m1", "mon_groups", "ENOTEMPTY"),
        ("mon_groups/m1/mon_data", "mon_groups", "ENOTEMPTY"),
        ("mon_groups/m1", "tasks", "ENOTDIR"),
        ("c1", "tasks", "ENOTDIR"),
        ("tasks", "mon_groups", "EISDIR"),
    ],
)
def test_rename_as_the_vfs_answers(source: str, target: str, outcome: str) -> None:
    """K30: what rename says before resctrl is asked; last_cmd_status stays."""
    fs = two_classes()
    if target.startswith("/tmp"):  # noqa: S108 - a path of the fake
        fs.create_dir(Path("/tmp"))  # noqa: S108 - as above
    before = spoil_status(fs)
    assert answer(fs.rename, ROOT / source, ROOT / target) == outcome
    assert status(fs) == before


def test_renaming_the_unmounted_mount_point() -> None:
    """K30: sysfs renames nothing."""
    assert answer(FakeFs(mounted=False).rename, ROOT, Path("/sys/fs/other")) == "EPERM"


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("c1", "c9"),
        ("c1", "mon_groups/c1"),
        ("c1", "c2"),
        ("mon_data", "mon_groups/x"),
        ("mon_groups", "x"),
        ("mon_groups/m1/mon_data", "mon_groups/x"),
        ("c1/mon_groups", "mon_groups/x"),
    ],
)
def test_rename_needs_a_monitoring_group(source: str, target: str) -> None:
    """K31: nothing but a monitoring group can be renamed."""
    fs = two_classes()
    assert answer(fs.rename, ROOT / source, ROOT / target) == "EPERM"
    assert status(fs) == ["Source must be a MON group"]


@pytest.mark.parametrize("target", ["x", "c1/x", "mon_groups/mon_groups", "c1", "mon_data", "info"])
def test_rename_needs_mon_groups(target: str) -> None:
    """K32: a monitoring group stays in a mon_groups."""
    fs = two_classes()
    assert answer(fs.rename, MON / "m1", ROOT / target) == "EPERM"
    assert status(fs) == ["Destination must be a mon_groups subdirectory"]


def test_rename_onto_another() -> None:
    """K33: an existing group is EEXIST; a newline is no obstacle, unlike in mkdir."""
    fs = two_classes()
    spoil_status(fs)
    assert answer(fs.rename, MON / "m1", MON / "m2") == "EEXIST"
    assert status(fs) == ["ok"]
    assert answer(fs.rename, MON / "m1", MON / "a\nb") == "ok"
    assert fs.read_child_dirs(MON) == ["a\nb", "m2"]


def test_rename_to_another_control_group() -> None:
    """K34: the threads change class with the group; its RMID, readings and open files stay with it."""
    fs = two_classes()
    tid = fs.spawn()
    put(fs, MON / "m1", f"{tid}")
    fs.set_reading(MON / "m1", "mbm_total_bytes", 4096)
    free = fs.free_rmids
    moved = ROOT / "c1/mon_groups/moved"
    with fs.open_reader(MON / "m1/tasks") as reader:
        fs.rename(MON / "m1", moved)
        assert reader.read() == f"{tid}\n"
    assert fs.tasks_in(moved) == {tid}
    assert fs.tasks_in(ROOT / "c1") == {tid}
    assert tid not in fs.tasks_in(ROOT)
    assert fs.read_text(moved / "mon_data/mon_L3_00/mbm_total_bytes") == "4096\n"
    assert fs.free_rmids == free
    assert put(fs, MON / "m2", f"{tid}") == "EINVAL"
    fs.remove_dir(ROOT / "c1")
    assert not fs.exists(moved)
    assert fs.free_rmids == free + 2


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("info", "mon_groups/x"),
        ("info/L3", "mon_groups/x"),
        ("info/last_cmd_status", "mon_groups/x"),
        ("mon_groups/m1", "info/x"),
    ],
)
def test_rename_below_info(source: str, target: str) -> None:
    """K35: info is no group's: ENOENT, and last_cmd_status is not touched."""
    fs = two_classes()
    before = spoil_status(fs)
    assert answer(fs.rename, ROOT / source, ROOT / target) == "ENOENT"
    assert status(fs) == before


def test_rename_of_an_unmounted_place() -> None:
    """K30: unmounted, the directory for resctrl is a part of sysfs, in which nothing is found: ENOENT."""
    fs = FakeFs(mounted=False)
    assert answer(fs.rename, ROOT / "a", ROOT.parent / "b") == "ENOENT"
    assert answer(fs.rename, ROOT, ROOT / "a") == "ENOENT"
    assert answer(fs.rename, ROOT / "a", Path("/proc/b")) == "EXDEV"


def test_rename_of_a_file_of_a_resource() -> None:
    """K37: below a resource's directory a file is refused as a file, not as something of info."""
    fs = two_classes()
    spoil_status(fs)
    assert answer(fs.rename, ROOT / "info/L3/num_closids", MON / "x") == "EPERM"
    assert status(fs) == ["Source and destination must be directories"]
    assert answer(fs.rename, ROOT / "info/L3/num_closids", ROOT / "info/MB/x") == "ENOENT"
    assert answer(fs.rename, ROOT / "info/L3", MON / "x") == "ENOENT"


def test_rename_of_a_file() -> None:
    """K36: a file cannot be renamed; the text lacks its newline."""
    fs = two_classes()
    assert answer(fs.rename, ROOT / "tasks", MON / "x") == "EPERM"
    text = fs.read_text(ROOT / "info/last_cmd_status")
    assert text == "Source and destination must be directories"
