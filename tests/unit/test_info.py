"""info/ and the mount as typed values: nothing required, nothing lost."""

from __future__ import annotations

import errno
import math
from typing import TYPE_CHECKING

import pytest

from resctrl import (
    AssignMode,
    MonitoringInfo,
    MountInfo,
    NoPermissionError,
    NotMountedError,
    RealFs,
    Resctrl,
    ResctrlConfig,
    ResctrlInfo,
)
from resctrl.testing import FakeFs, FaultyFs
from tests.unit.fakes import MON, ROOT, answer, spoil_status

if TYPE_CHECKING:
    from pathlib import Path


class Tree(RealFs):
    """Files below a directory, as if resctrl were mounted there."""

    def __init__(self, root: Path, options: str = "rw") -> None:
        self.root = root
        self.options = options
        self.of_this_mount = "rw,relatime"

    def read_text(self, path: Path) -> str:
        """Read a file; mountinfo tells of the directory."""
        if str(path) == "/proc/self/mountinfo":
            return f"31 17 0:27 / {self.root} {self.of_this_mount} - resctrl resctrl {self.options}\n"
        return super().read_text(path)

    def write(self, **files: str) -> None:
        """Write files of info/, by path with `__` for `/`."""
        for name, text in files.items():
            path = self.root / "info" / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def info(self) -> ResctrlInfo:
        """Return what the library makes of it."""
        return Resctrl.with_provider(self, ResctrlConfig(root=self.root)).info()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Return an empty info/."""
    found = Tree(tmp_path)
    found.write(last_cmd_status="ok\n")
    return found


def test_what_linux_6_12_tells() -> None:
    """Every file of that kernel is understood, but for bit_usage, which stays text."""
    info = Resctrl.with_provider(FakeFs(num_rmids=16, num_closids=5, limbo=1.0, domains=(0, 1))).info()
    assert info.mount == MountInfo(mount_point=ROOT, options=(), read_only=False)
    assert (info.num_rmids, info.num_closids) == (16, 5)
    assert info.features == ("llc_occupancy", "mbm_total_bytes", "mbm_local_bytes")
    assert set(info.monitoring) == {"L3_MON"}
    monitoring = info.monitoring["L3_MON"]
    assert (monitoring.max_threshold_occupancy, monitoring.mbm_assign_mode, dict(monitoring.other)) == (
        16 * 1024 * 1024 // 16,
        None,
        {},
    )
    cache, bandwidth = info.allocation["L3"], info.allocation["MB"]
    assert (cache.num_closids, cache.cbm_mask, cache.min_cbm_bits) == (5, 0xFFF, 1)
    assert (cache.shareable_bits, cache.sparse_masks, cache.min_bandwidth) == (0, False, None)
    assert cache.other == {"bit_usage": "0=SSSSSSSSSSSS;1=SSSSSSSSSSSS\n"}
    assert (bandwidth.min_bandwidth, bandwidth.bandwidth_gran, bandwidth.delay_linear) == (10, 10, True)
    assert (bandwidth.thread_throttle_mode, bandwidth.cbm_mask, dict(bandwidth.other)) == ("max", None, {})
    assert (info.last_cmd_status, dict(info.other)) == ((), {})


def test_counters_that_are_assigned(tree: Tree) -> None:
    """Linux 6.18 on AMD: modes, numbers of counters by domain, and the files of the event configuration."""
    tree.write(
        L3_MON__num_rmids="4096\n",
        L3_MON__mon_features="llc_occupancy\nmbm_total_bytes\nmbm_total_bytes_config\n",
        L3_MON__mbm_assign_mode="[mbm_event]\ndefault\n",
        L3_MON__num_mbm_cntrs="0=32;1=32\n",
        L3_MON__available_mbm_cntrs="0=30;1=0\n",
        L3_MON__mbm_assign_on_mkdir="1\n",
        L3_MON__event_configs__mbm_total_bytes__event_filter="local_reads,remote_reads\n",
    )
    monitoring = tree.info().monitoring["L3_MON"]
    assert monitoring == MonitoringInfo(
        name="L3_MON",
        num_rmids=4096,
        features=("llc_occupancy", "mbm_total_bytes", "mbm_total_bytes_config"),
        mbm_assign_mode=AssignMode(current="mbm_event", possible=("mbm_event", "default")),
        num_mbm_cntrs={0: 32, 1: 32},
        available_mbm_cntrs={0: 30, 1: 0},
        mbm_assign_on_mkdir=True,
        other={"event_configs/mbm_total_bytes/event_filter": "local_reads,remote_reads\n"},
    )


def test_the_smallest_number_is_the_limit() -> None:
    """Where more than one resource counts (Linux 7.0), or allocates, each has its number of groups."""
    fs = FakeFs(num_rmids=16, packages=(0,))
    info = Resctrl.with_provider(fs).info()
    assert info.features == ("mbm_total_bytes", "mbm_local_bytes", "core_energy", "activity")
    assert info.num_rmids == 16


def test_limits_of_several_resources(tree: Tree) -> None:
    """The minimum counts, of those that have a number at all."""
    assert (tree.info().num_rmids, tree.info().num_closids) == (None, None)
    tree.write(L3_MON__num_rmids="256\n", PERF_PKG_MON__num_rmids="576\n", ODD_MON__mon_features="x\n")
    tree.write(L3__num_closids="16\n", MB__num_closids="8\n", SMBA__min_bandwidth="1\n")
    info = tree.info()
    assert (info.num_rmids, info.num_closids) == (256, 8)
    assert set(info.monitoring) == {"L3_MON", "ODD_MON", "PERF_PKG_MON"}
    assert set(info.allocation) == {"L3", "MB", "SMBA"}
    assert info.allocation["SMBA"].min_bandwidth == 1


def test_what_nobody_has_seen_is_kept(tree: Tree) -> None:
    """Unknown resources, files and directories are told as text, and what is known beside them is typed."""
    tree.write(
        CBA__num_closids="4\n",
        CBA__mood="sunny\n",
        L3_MON__deep__er="1\n",
        L3_MON__num_rmids="8\n",
        news="x\n",
    )
    info = tree.info()
    assert (info.allocation["CBA"].num_closids, dict(info.allocation["CBA"].other)) == (
        4,
        {"mood": "sunny\n"},
    )
    assert dict(info.monitoring["L3_MON"].other) == {"deep/er": "1\n"}
    assert dict(info.other) == {"news": "x\n"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *[("num_rmids", text) for text in ("", "-1\n", "many\n", "1 2\n", "0x10\n", "9" * 30)],
        *[("max_threshold_occupancy", text) for text in ("\n", "1.5\n")],
        *[("mbm_assign_mode", text) for text in ("", "default\n", "[a]\n[b]\n", "[a\n")],
        *[("num_mbm_cntrs", text) for text in ("", "0\n", "0=\n", "0=1;;1=2\n", "a=1\n", "0=1,1=2\n")],
        *[("mbm_assign_on_mkdir", text) for text in ("", "2\n", "yes\n")],
    ],
)
def test_texts_of_another_shape_are_kept(tree: Tree, name: str, text: str) -> None:
    """A known file with an unknown text has no typed value, and its text is not lost."""
    tree.write(**{f"L3_MON__{name}": text})
    monitoring = tree.info().monitoring["L3_MON"]
    assert monitoring == MonitoringInfo(name="L3_MON", other={name: text})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *[("cbm_mask", text) for text in ("xyz\n", "", "f" * 17)],
        *[("delay_linear", text) for text in ("2\n", "")],
        ("thread_throttle_mode", "\n"),
    ],
)
def test_texts_of_another_shape_of_an_allocation(tree: Tree, name: str, text: str) -> None:
    """The same holds for what can be allocated."""
    tree.write(**{f"L3__{name}": text})
    allocation = tree.info().allocation["L3"]
    assert getattr(allocation, name) is None
    assert dict(allocation.other) == {name: text}


def test_how_it_is_mounted(tree: Tree) -> None:
    """The options are those of the file system; ro is not one of them, wherever it is said."""
    assert tree.info().mount == MountInfo(mount_point=tree.root, options=(), read_only=False)
    tree.options = "rw,cdp,mba_MBps,debug"
    assert tree.info().mount.options == ("cdp", "mba_MBps", "debug")
    tree.options = "ro,cdp"
    assert (tree.info().mount.options, tree.info().mount.read_only) == (("cdp",), True)
    tree.options, tree.of_this_mount = "rw", "ro,relatime"
    assert (tree.info().mount.options, tree.info().mount.read_only) == ((), True)
    fake = FakeFs()
    fake.remount(read_only=True)
    assert Resctrl.with_provider(fake).info().mount.read_only


def test_why_the_last_command_failed() -> None:
    """All its lines, or none after a success."""
    fs = FakeFs()
    resctrl = Resctrl.with_provider(fs)
    assert list(resctrl.info().last_cmd_status) == []
    assert list(resctrl.info().last_cmd_status) != spoil_status(fs)
    assert list(resctrl.info().last_cmd_status) == spoil_status(fs)
    fs.write_all(ROOT / "tasks", [b"\n"])
    assert list(resctrl.info().last_cmd_status) == []


def test_a_machine_that_only_allocates_or_only_counts() -> None:
    """What it cannot do is empty."""
    allocating = Resctrl.with_provider(FakeFs(monitoring=False)).info()
    assert (dict(allocating.monitoring), allocating.num_rmids, allocating.features) == ({}, None, ())
    counting = Resctrl.with_provider(FakeFs(allocation=False)).info()
    assert (dict(counting.allocation), counting.num_closids) == ({}, None)


def test_unmounted() -> None:
    """That is an error, with the hint that belongs to it."""
    with pytest.raises(NotMountedError, match="mount -t resctrl"):
        Resctrl.with_provider(FakeFs(mounted=False)).info()
    with pytest.raises(NotMountedError, match="no resctrl at all"):
        Resctrl.with_provider(FakeFs(supported=False)).info()


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EINVAL, errno.ENOENT])
def test_a_file_that_cannot_be_read_is_left_out(number: int) -> None:
    """The rest is told, also where it is the status or a whole directory."""
    fs = FaultyFs(FakeFs())
    resctrl = Resctrl.with_provider(fs)
    for name in ("info/L3_MON/num_rmids", "info/last_cmd_status"):
        fs.fail("read_text", number, path=ROOT / name, times=math.inf)
    info = resctrl.info()
    assert (info.num_rmids, info.last_cmd_status) == (None, ())
    assert info.features == ("mbm_total_bytes", "mbm_local_bytes")
    assert dict(info.monitoring["L3_MON"].other) == {}
    fs.fail("read_child_files", number, path=ROOT / "info/MB")
    assert resctrl.info().allocation["MB"].min_bandwidth is None
    fs.fail("read_child_dirs", number, path=ROOT / "info/MB")
    assert resctrl.info().allocation["MB"].num_closids is None


def test_info_that_cannot_be_listed() -> None:
    """That is an error of the whole call."""
    for operation in ("read_child_dirs", "read_child_files"):
        fs = FaultyFs(FakeFs())
        fs.fail(operation, errno.EACCES, path=ROOT / "info")
        with pytest.raises(NoPermissionError, match="cannot read info"):
            Resctrl.with_provider(fs).info()
    fs = FaultyFs(FakeFs())
    fs.fail("read_text", errno.EACCES)
    with pytest.raises(NoPermissionError):
        Resctrl.with_provider(fs).info()


def test_directories_without_end_are_not_followed(tree: Tree) -> None:
    """What is nested more deeply than any kernel does is left out."""
    tree.write(L3_MON__a__b__c="3\n", L3_MON__a__b__c2__d="4\n", L3_MON__a__b__c2__d2__e="5\n")
    assert set(tree.info().monitoring["L3_MON"].other) == {"a/b/c", "a/b/c2/d"}


def test_the_values_cannot_be_changed() -> None:
    """They are read-only, and can be kept in a set."""
    fs = FakeFs(num_rmids=3)
    info = Resctrl.with_provider(fs).info()
    with pytest.raises(TypeError):
        info.monitoring["L3_MON"] = MonitoringInfo(name="x")  # type: ignore[index]
    with pytest.raises(TypeError):
        info.allocation["L3"].other["x"] = ""  # type: ignore[index]
    assert len({info, Resctrl.with_provider(fs).info()}) == 1
    assert [answer(fs.create_dir, MON / name) for name in "abc"] == ["ok", "ok", "ENOSPC"]
