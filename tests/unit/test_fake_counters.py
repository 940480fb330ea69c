"""The fake's counters and domains. Each docstring names the belief it proves."""

from __future__ import annotations

from pathlib import Path

import pytest

from resctrl import Tid
from resctrl.testing import FakeFs
from tests.unit.fakes import MON, ROOT, answer, put

ELSEWHERE = Path("/mnt")


def total(fs: FakeFs, group: Path, domain: str = "mon_L3_00", event: str = "mbm_total_bytes") -> str:
    """Return what a counter reads."""
    return fs.read_text(group / "mon_data" / domain / event).rstrip("\n")


def test_traffic_counts_where_the_thread_is() -> None:
    """K64: what a thread moves is counted in its group of that moment, and in that group's parent."""
    fs = FakeFs(domains=(0, 3))
    fs.create_dir(MON / "a")
    fs.create_dir(MON / "b")
    tid = fs.spawn()
    assert put(fs, MON / "a", f"{tid}") == "ok"
    fs.move_bytes(tid, 1000, local=750, domain=3)
    fs.move_bytes(tid, 24, domain=3)
    assert put(fs, MON / "b", f"{tid}") == "ok"
    fs.move_bytes(tid, 5)
    assert [total(fs, group, "mon_L3_03") for group in (MON / "a", MON / "b", ROOT)] == ["1024", "0", "1024"]
    assert total(fs, MON / "a", "mon_L3_03", "mbm_local_bytes") == "750"
    assert [total(fs, group) for group in (MON / "a", MON / "b", ROOT)] == ["0", "5", "5"]
    fs.end(tid)
    with pytest.raises(LookupError, match="no live thread"):
        fs.move_bytes(tid, 1)
    with pytest.raises(LookupError, match="no live thread"):
        fs.move_bytes(Tid(4711), 1)


def test_a_word_that_was_set_stays() -> None:
    """What a test has fixed as a word does not become a number by traffic."""
    fs = FakeFs()
    fs.set_reading(ROOT, "mbm_total_bytes", "Unassigned")
    fs.move_bytes(fs.spawn(), 10, local=4)
    assert total(fs, ROOT) == "Unassigned"
    assert total(fs, ROOT, event="mbm_local_bytes") == "4"


def test_counters_that_the_hardware_refuses() -> None:
    """K65: the word stands in every file of every group, and then the counters go on where they were."""
    fs = FakeFs(limbo=1.0, domains=(0, 1), packages=(0,))
    fs.create_dir(MON / "a")
    fs.set_reading(MON / "a", "mbm_total_bytes", 7)
    for word in ("Unavailable", "Error"):
        fs.fail_counters(word)
        for group in (ROOT, MON / "a"):
            domains = [group / "mon_data" / name for name in fs.read_child_dirs(group / "mon_data")]
            files = [domain / name for domain in domains for name in fs.read_child_files(domain)]
            assert len(files) == 2 * 3 + 2
            assert {fs.read_text(file) for file in files} == {f"{word}\n"}
    fs.fail_counters(None)
    assert (total(fs, MON / "a"), total(fs, ROOT)) == ("7", "7")


def test_packages_that_count_energy() -> None:
    """K66: they are domains of another kind, with decimal fractions, and info/ tells of them."""
    fs = FakeFs(packages=(0, 1))
    fs.create_dir(MON / "a")
    fs.set_reading(MON / "a", "core_energy", 1.5, domain=1)
    assert fs.read_child_dirs(MON / "a/mon_data") == ["mon_L3_00", "mon_PERF_PKG_00", "mon_PERF_PKG_01"]
    assert fs.read_child_files(MON / "a/mon_data/mon_PERF_PKG_01") == ["activity", "core_energy"]
    assert total(fs, MON / "a", "mon_PERF_PKG_01", "core_energy") == "1.500000"
    assert total(fs, ROOT, "mon_PERF_PKG_01", "core_energy") == "1.500000"
    assert total(fs, MON / "a", "mon_PERF_PKG_00", "core_energy") == "0.000000"
    assert fs.read_text(ROOT / "info/PERF_PKG_MON/mon_features") == "core_energy\nactivity\n"
    assert fs.read_text(ROOT / "info/PERF_PKG_MON/num_rmids") == "8\n"
    assert not FakeFs().exists(ROOT / "info/PERF_PKG_MON")
    assert not FakeFs(packages=(0,), monitoring=False).exists(ROOT / "info/PERF_PKG_MON")


def test_sub_domains() -> None:
    """K67: the cache reads as the sum of its nodes, without those that say a word."""
    fs = FakeFs(domains=(0, 1), nodes_per_domain=2)
    mon_data = ROOT / "mon_data"
    assert fs.read_child_dirs(mon_data) == ["mon_L3_00", "mon_L3_01"]
    assert fs.read_child_dirs(mon_data / "mon_L3_01") == ["mon_sub_L3_02", "mon_sub_L3_03"]
    assert fs.read_child_files(mon_data / "mon_L3_01") == ["mbm_local_bytes", "mbm_total_bytes"]
    fs.move_bytes(fs.spawn(), 40, domain=2)
    fs.move_bytes(fs.spawn(), 2, domain=3)
    assert [total(fs, ROOT, f"mon_L3_01{sub}") for sub in ("", "/mon_sub_L3_02", "/mon_sub_L3_03")] == [
        "42",
        "40",
        "2",
    ]
    assert total(fs, ROOT) == "0"
    fs.set_reading(ROOT, "mbm_total_bytes", "Error", domain=2)
    assert total(fs, ROOT, "mon_L3_01") == "2"
    fs.set_reading(ROOT, "mbm_total_bytes", "Error", domain=3)
    assert total(fs, ROOT, "mon_L3_01") == "Unavailable"
    assert total(fs, ROOT, "mon_L3_01/mon_sub_L3_03") == "Error"


def test_a_domain_that_goes_and_comes() -> None:
    """K68: its files are gone, and what comes back has counted nothing; all else stays."""
    fs = FakeFs(domains=(0, 1), nodes_per_domain=2)
    fs.create_dir(ROOT / "c1")
    fs.create_dir(ROOT / "c1/mon_groups/a")
    group = ROOT / "c1/mon_groups/a"
    tid = fs.spawn()
    put(fs, ROOT / "c1", f"{tid}")
    put(fs, group, f"{tid}")
    for domain in (0, 2):
        fs.move_bytes(tid, 100, domain=domain)
    number = fs.identity(group)
    reader = fs.open_reader(group / "mon_data/mon_L3_01/mbm_total_bytes")
    fs.set_online(1, online=False)
    assert answer(reader.read) == "ENODEV"
    assert fs.read_child_dirs(group / "mon_data") == fs.read_child_dirs(ROOT / "mon_data") == ["mon_L3_00"]
    assert fs.read_text(ROOT / "schemata") == "MB:0=100\nL3:0=fff\n"
    fs.create_dir(MON / "b")
    assert fs.read_child_dirs(MON / "b/mon_data") == ["mon_L3_00"]
    fs.set_online(1, online=False)
    fs.set_online(1, online=True)
    assert answer(reader.read_page) == "ENODEV"
    assert [total(fs, one, "mon_L3_01") for one in (group, ROOT / "c1")] == ["0", "0"]
    assert [total(fs, one) for one in (group, ROOT / "c1")] == ["100", "100"]
    assert fs.read_child_dirs(MON / "b/mon_data/mon_L3_01") == ["mon_sub_L3_02", "mon_sub_L3_03"]
    assert fs.read_text(ROOT / "c1/schemata") == "MB:0=100;1=100\nL3:0=fff;1=fff\n"
    assert fs.identity(group) == number
    for domain in (7, 0):
        fs.set_online(1, online=False)
        with pytest.raises(ValueError, match="cannot do without"):
            fs.set_online(domain, online=False)


def test_numbers_of_directories() -> None:
    """K99: a rename keeps the number, a group made anew has another, and a new mount begins to count anew."""
    fs = FakeFs()
    fs.create_dir(MON / "a")
    number = fs.identity(MON / "a")
    fs.create_dir(ROOT / "c1")
    fs.rename(MON / "a", ROOT / "c1/mon_groups/b")
    assert fs.identity(ROOT / "c1/mon_groups/b") == number
    seen = {number}
    for _ in range(3):
        fs.create_dir(MON / "a")
        assert fs.identity(MON / "a") not in seen
        seen.add(fs.identity(MON / "a"))
        fs.remove_dir(MON / "a")
    fs.unmount()
    fs.mount()
    fs.create_dir(MON / "a")
    assert fs.identity(MON / "a") == number
    assert answer(fs.identity, MON / "b") == "ENOENT"


def test_files_and_directories_are_listed_apart() -> None:
    """What one listing leaves out the other has, and neither lists a file."""
    fs = FakeFs()
    assert fs.read_child_dirs(ROOT) == ["info", "mon_data", "mon_groups"]
    assert fs.read_child_files(ROOT) == ["cpus", "cpus_list", "mode", "schemata", "size", "tasks"]
    assert answer(fs.read_child_files, ROOT / "tasks") == "ENOTDIR"
    assert answer(fs.read_child_files, ROOT / "nope") == "ENOENT"


def test_a_page_of_a_file() -> None:
    """One pread of a page gives the beginning of what is longer, and all of what is not."""
    fs = FakeFs()
    with fs.open_reader(ROOT / "tasks") as reader:
        assert reader.read_page() == reader.read()
        for _ in range(1000):
            fs.spawn()
        assert reader.read_page() == reader.read()[:4096]
        assert len(reader.read()) > 4096
    with pytest.raises(ValueError, match="closed"):
        reader.read_page()
