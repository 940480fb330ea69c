"""The fake's mounts, paths, permissions, readings. Each docstring names the belief it proves."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest

from resctrl.testing import FakeFs, Privilege
from tests.unit.fakes import MON, ROOT, Clock, answer, put, spoil_status, status

LLC = "mon_data/mon_L3_00/llc_occupancy"
MBM = "mon_data/mon_L3_00/mbm_total_bytes"


# Readings and info


def test_readings_of_a_new_group() -> None:
    """K70: a group without threads counts nothing."""
    fs = FakeFs(limbo=1.0)
    fs.create_dir(MON / "m1")
    assert fs.read_text(MON / "m1" / LLC) == "0\n"
    assert fs.read_text(MON / "m1" / MBM) == "0\n"
    tid = fs.spawn()
    put(fs, MON / "m1", f"{tid}")
    assert int(fs.read_text(MON / "m1" / LLC)) > 0


def test_a_control_group_adds_up() -> None:
    """K71: what the root counts includes its monitoring groups."""
    fs = FakeFs()
    fs.create_dir(MON / "m1")
    fs.set_reading(ROOT, "mbm_total_bytes", 1000)
    fs.set_reading(MON / "m1", "mbm_total_bytes", 24)
    assert fs.read_text(ROOT / MBM) == "1024\n"
    assert fs.read_text(MON / "m1" / MBM) == "24\n"


def test_words_as_readings() -> None:
    """K72: a word is what the file reads; in a sum it counts nothing."""
    fs = FakeFs()
    fs.create_dir(MON / "m1")
    fs.set_reading(MON / "m1", "mbm_total_bytes", "Unavailable")
    fs.set_reading(ROOT, "mbm_total_bytes", 7)
    assert fs.read_text(MON / "m1" / MBM) == "Unavailable\n"
    assert fs.read_text(ROOT / MBM) == "7\n"
    fs.set_reading(ROOT, "mbm_total_bytes", "Error")
    assert fs.read_text(ROOT / MBM) == "Error\n"
    with pytest.raises(ValueError, match="no group"):
        fs.set_reading(MON, "mbm_total_bytes", 1)


def test_domains() -> None:
    """K73: each L3 has its directory and its own value."""
    fs = FakeFs(domains=(0, 11))
    fs.create_dir(MON / "m1")
    assert fs.read_child_dirs(MON / "m1/mon_data") == ["mon_L3_00", "mon_L3_11"]
    fs.set_reading(MON / "m1", "mbm_local_bytes", 5, domain=11)
    assert fs.read_text(MON / "m1/mon_data/mon_L3_11/mbm_local_bytes") == "5\n"
    assert fs.read_text(MON / "m1/mon_data/mon_L3_00/mbm_local_bytes") == "0\n"
    assert fs.read_text(ROOT / "schemata") == "MB:0=100;11=100\nL3:0=fff;11=fff\n"


def test_info() -> None:
    """K74: info tells how many of each there are."""
    fs = FakeFs(num_rmids=32, num_closids=16, limbo=1.0)
    info = ROOT / "info"
    assert fs.read_child_dirs(info) == ["L3", "L3_MON", "MB"]
    assert fs.read_text(info / "L3_MON/num_rmids") == "32\n"
    assert fs.read_text(info / "L3/num_closids") == "16\n"
    assert fs.read_text(info / "L3/cbm_mask") == "fff\n"
    assert fs.read_text(info / "L3_MON/mon_features").split() == [
        "llc_occupancy",
        "mbm_total_bytes",
        "mbm_local_bytes",
    ]


def test_no_llc_occupancy() -> None:
    """K76: a processor that cannot count occupancy does not show it."""
    fs = FakeFs(limbo=0.0)
    assert "llc_occupancy" not in fs.read_text(ROOT / "info/L3_MON/mon_features")
    assert not fs.exists(ROOT / LLC)
    assert fs.exists(ROOT / MBM)


@pytest.mark.parametrize(
    ("text", "outcome", "after"),
    [
        ("65535", "ok", 0),
        ("0x20001\n", "ok", 131072),
        ("16777216", "ok", 16777216),
        ("16777217", "EINVAL", 2097152),
        ("99999999999", "ERANGE", 2097152),
        ("abc", "EINVAL", 2097152),
        ("", "EINVAL", 2097152),
        ("-1", "EINVAL", 2097152),
    ],
)
def test_the_threshold(text: str, outcome: str, after: int) -> None:
    """K77: what may be written to max_threshold_occupancy, and what it reads then."""
    fs = FakeFs(num_rmids=8)
    path = ROOT / "info/L3_MON/max_threshold_occupancy"
    assert answer(fs.write_all, path, [text.encode()]) == outcome
    assert fs.read_text(path) == f"{after}\n"


@pytest.mark.parametrize("name", ["cpus", "cpus_list", "mode", "schemata"])
def test_what_is_not_modelled_says_so(name: str) -> None:
    """A write that the fake would have to pretend is refused loudly."""
    with pytest.raises(NotImplementedError, match=name):
        FakeFs().write_all(ROOT / name, [b"0\n"])


# Mounting


def test_unmounted() -> None:
    """K80: the directory is there, and empty."""
    fs = FakeFs(mounted=False)
    assert fs.exists(ROOT)
    assert fs.read_child_dirs(ROOT) == []
    assert fs.mount_point is None
    assert answer(fs.create_dir, ROOT / "x") == "ENOENT"
    assert answer(fs.create_dir, MON / "x") == "ENOENT"
    assert answer(fs.remove_dir, ROOT) == "EPERM"
    assert answer(fs.remove_dir, ROOT / "x") == "ENOENT"
    assert answer(fs.create_dir, ROOT.parent / "x") == "EPERM"
    assert answer(fs.create_dir, Path("/proc/x")) == "ENOENT"
    assert answer(fs.unmount) == "EINVAL"


def test_unsupported() -> None:
    """K81: without RDT there is no directory, and no file system of that type."""
    fs = FakeFs(supported=False)
    assert not fs.exists(ROOT)
    assert answer(fs.mount_resctrl, ROOT) == "ENOENT"
    assert answer(fs.mount_resctrl, Path("/sys/fs")) == "ENODEV"
    assert answer(fs.mount_resctrl, Path("/proc/filesystems")) == "ENODEV"
    assert "resctrl" not in fs.read_text(Path("/proc/filesystems"))


def test_a_second_mount() -> None:
    """K82: resctrl can be mounted once; EBUSY is told before ENOTDIR."""
    fs = FakeFs()
    for target in (ROOT, Path("/sys/fs"), ROOT / "tasks"):
        assert answer(fs.mount_resctrl, target) == "EBUSY"
    assert answer(fs.mount_resctrl, Path("/nope")) == "ENOENT"
    fs.unmount()
    assert answer(fs.mount_resctrl, Path("/proc/filesystems")) == "ENOTDIR"
    assert fs.mount_point is None
    assert answer(fs.mount_resctrl, ROOT) == "ok"


def test_unmounting() -> None:
    """K83: nothing is left but the limbo."""
    clock = Clock()
    fs = FakeFs(num_rmids=4, limbo=1.0, clock=clock)
    tid = fs.spawn()
    fs.create_dir(ROOT / "c1")
    fs.create_dir(ROOT / "c1/mon_groups/m1")
    fs.create_dir(MON / "m2")
    put(fs, ROOT / "c1", f"{tid}")
    spoil_status(fs)
    fs.unmount()
    assert fs.read_child_dirs(ROOT) == []
    fs.mount()
    assert status(fs) == ["ok"]
    assert fs.read_child_dirs(ROOT) == ["info", "mon_data", "mon_groups"]
    assert fs.read_child_dirs(MON) == []
    assert tid in fs.tasks_in(ROOT)
    assert answer(fs.create_dir, MON / "m3") == "EBUSY"
    clock.now = 1.0
    assert fs.free_rmids == 3
    fs.create_dir(ROOT / "c2")


def test_unmounting_with_an_open_file() -> None:
    """K84: an open file keeps the mount, also one whose group is gone."""
    fs = FakeFs()
    fs.create_dir(MON / "m1")
    reader = fs.open_reader(MON / "m1/tasks")
    assert answer(fs.unmount) == "EBUSY"
    fs.remove_dir(MON / "m1")
    assert answer(fs.unmount) == "EBUSY"
    reader.close()
    reader.close()
    with fs.open_reader(Path("/proc/filesystems")):
        assert answer(fs.unmount) == "ok"


def test_read_only() -> None:
    """K85: nothing can be changed, and an existing name is still EEXIST."""
    fs = FakeFs()
    fs.create_dir(MON / "m1")
    fs.remount(read_only=True)
    assert answer(fs.create_dir, MON / "m2") == "EROFS"
    assert answer(fs.create_dir, MON / "m1") == "EEXIST"
    assert answer(fs.remove_dir, MON / "m1") == "EROFS"
    assert answer(fs.rename, MON / "m1", MON / "m2") == "EROFS"
    assert put(fs, MON / "m1", "1") == "EROFS"
    assert not fs.can_open_for_write(ROOT / "tasks")
    assert " ro,relatime " in fs.read_text(Path("/proc/self/mountinfo"))
    fs.remount(read_only=False)
    assert answer(fs.remove_dir, MON / "m1") == "ok"


def test_a_user_may_not_mount() -> None:
    """K86: EPERM; a missing directory is told first."""
    fs = FakeFs(mounted=False, privilege=Privilege.USER)
    assert answer(fs.mount_resctrl, ROOT) == "EPERM"
    assert answer(fs.mount_resctrl, Path("/nope")) == "ENOENT"


def test_proc() -> None:
    """K87: what /proc tells; a blank in a mount point is written as an octal number."""
    fs = FakeFs(root=Path("/mnt/a b\\c"))
    lines = fs.read_text(Path("/proc/self/mountinfo")).splitlines()
    assert lines[-1].split()[4] == r"/mnt/a\040b\134c"
    assert lines[-1].endswith(" - resctrl resctrl rw")
    assert fs.mount_point == fs.root == Path("/mnt/a b\\c")
    assert "nodev\tresctrl\n" in fs.read_text(Path("/proc/filesystems"))
    assert fs.read_child_dirs(ROOT) == []


def test_mounted_elsewhere() -> None:
    """Another process may have mounted it elsewhere; a plain directory can be made for that."""
    fs = FakeFs(mounted=False)
    fs.create_dir(Path("/mnt"))
    fs.mount(Path("/mnt"))
    assert fs.mount_point == Path("/mnt")
    assert fs.read_child_dirs(Path("/mnt")) == ["info", "mon_data", "mon_groups"]
    assert answer(fs.remove_dir, Path("/mnt")) == "EBUSY"
    fs.unmount()
    fs.create_dir(Path("/mnt/x"))
    assert answer(fs.remove_dir, Path("/mnt")) == "ENOTEMPTY"
    fs.remove_dir(Path("/mnt/x"))
    fs.remove_dir(Path("/mnt"))
    assert not fs.exists(Path("/mnt"))
    assert answer(fs.remove_dir, Path("/")) == "EBUSY"
    with pytest.raises(NotImplementedError):
        fs.rename(Path("/proc"), Path("/x"))


# Paths, descriptors, permissions


def test_walking() -> None:
    """K90: what is wrong on the way."""
    fs = FakeFs()
    for operation in (fs.read_text, fs.read_child_dirs, fs.create_dir, fs.can_open_for_write):
        assert answer(operation, ROOT / "nope/x") == "ENOENT"
        assert answer(operation, ROOT / "tasks/x") == "ENOTDIR"
    assert answer(fs.read_child_dirs, ROOT / "tasks") == "ENOTDIR"
    assert not fs.exists(ROOT / "tasks/x")
    assert not fs.exists(ROOT / "nope/x")
    assert fs.exists(Path("/"))
    for wrong in (Path("relative"), Path("/with\0nul")):
        with pytest.raises(ValueError, match="not an absolute path"):
            fs.exists(wrong)


def test_long_paths() -> None:
    """K91: 4095 bytes are a path, 4096 are not."""
    fs = FakeFs()
    room = 4095 - len(str(MON)) - 1
    assert answer(fs.create_dir, MON / ("n" * room)) == "ok"
    assert answer(fs.create_dir, MON / ("n" * (room + 1))) == "ENAMETOOLONG"
    assert answer(fs.exists, MON / ("n" * (room + 1))) == "ENAMETOOLONG"


def test_dot_dot() -> None:
    """K92: it leads up, across the mount as well."""
    fs = FakeFs()
    assert fs.read_child_dirs(MON / "..") == fs.read_child_dirs(ROOT)
    assert fs.read_child_dirs(ROOT / "..") == ["resctrl"]
    assert fs.read_child_dirs(Path("/..")) == fs.read_child_dirs(Path("/"))
    assert answer(fs.create_dir, MON / "..") == "EEXIST"


def test_a_held_reader() -> None:
    """K93: an open file shows what is, and ENODEV once its group is gone."""
    fs = FakeFs()
    fs.create_dir(MON / "m1")
    with fs.open_reader(MON / "m1/tasks") as reader:
        assert reader.read() == ""
        tid = fs.spawn()
        put(fs, MON / "m1", f"{tid}")
        assert reader.read() == f"{tid}\n"
        fs.remove_dir(MON / "m1")
        fs.create_dir(MON / "m1")
        assert answer(reader.read) == "ENODEV"
    with pytest.raises(ValueError, match="closed"):
        reader.read()


def test_read_only_files() -> None:
    """K94: root may not write what is 0444."""
    fs = FakeFs()
    for name in ("info/last_cmd_status", "size", MBM):
        assert answer(fs.write_all, ROOT / name, [b"1"]) == "EACCES"
        assert not fs.can_open_for_write(ROOT / name)
    assert fs.can_open_for_write(ROOT / "tasks")


def test_root_without_dac_override() -> None:
    """K95: groups at the root cannot be made, removed or renamed; tasks can be written."""
    fs = FakeFs()
    fs.create_dir(ROOT / "c1")
    fs.create_dir(MON / "m1")
    fs.privilege = Privilege.NO_DAC_OVERRIDE
    assert answer(fs.create_dir, MON / "m2") == "EACCES"
    assert answer(fs.create_dir, ROOT / "c2") == "EACCES"
    assert answer(fs.remove_dir, MON / "m1") == "EACCES"
    assert answer(fs.rename, MON / "m1", MON / "m2") == "EACCES"
    assert answer(fs.rename, MON / "m1", ROOT / "c1/mon_groups/m2") == "EACCES"
    assert put(fs, MON / "m1", "1") == "ok"
    assert answer(fs.create_dir, ROOT / "c1/mon_groups/n1") == "ok"
    assert answer(fs.rename, ROOT / "c1/mon_groups/n1", ROOT / "c1/mon_groups/n2") == "ok"
    assert answer(fs.remove_dir, ROOT / "c1/mon_groups/n2") == "ok"


def test_a_user() -> None:
    """K96: reading is free, changing is not; what exists is told first."""
    fs = FakeFs()
    fs.create_dir(ROOT / "c1")
    fs.privilege = Privilege.USER
    assert answer(fs.create_dir, MON / "m1") == "EACCES"
    assert answer(fs.create_dir, ROOT / "c1") == "EEXIST"
    assert answer(fs.create_dir, ROOT / "c1/mon_groups/m1") == "EACCES"
    assert answer(fs.remove_dir, ROOT / "c1") == "EACCES"
    assert put(fs, ROOT, "1") == "EACCES"
    assert fs.read_text(ROOT / "c1/tasks") == ""
    assert not fs.can_open_for_write(ROOT / "tasks")


def test_directories_are_no_files() -> None:
    """K97: reading and writing a directory is EISDIR."""
    fs = FakeFs()
    for operation in (fs.read_text, fs.open_reader, fs.can_open_for_write):
        assert answer(operation, MON) == "EISDIR"
    assert answer(fs.write_all, MON, [b"1"]) == "EISDIR"


def test_opening_makes_no_file() -> None:
    """K98: a tasks file that is not there is not made."""
    fs = FakeFs()
    assert put(fs, MON / "nope", "1") == "ENOENT"
    assert answer(fs.write_all, ROOT / "tasks2", [b"1"]) == "ENOENT"
    assert not fs.exists(ROOT / "tasks2")


# Threads that call


def test_many_callers_get_every_rmid_once() -> None:
    """The fake can be called by many threads: no RMID is given out twice or lost."""
    fs = FakeFs(num_rmids=101, limbo=math.inf)
    outcomes: list[str] = []

    def work(worker: int) -> None:
        for number in range(30):
            outcomes.append(answer(fs.create_dir, MON / f"w{worker}_{number}"))  # noqa: PERF401 - atomic

    workers = [threading.Thread(target=work, args=(worker,)) for worker in range(5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(outcomes) == ["ENOSPC"] * 50 + ["ok"] * 100
    assert len(fs.read_child_dirs(MON)) == 100
