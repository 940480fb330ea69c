"""The probe on fabricated machines: what it says of each, and that it says nothing of a capable one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.hardware.probe import CANNOT_MONITOR, obstacle, resctrl_mount

FILESYSTEMS = "nodev\tsysfs\nnodev\tresctrl\n\text4\n"
MOUNTED = (
    "25 1 0:22 / /sys rw - sysfs sysfs rw\n34 25 0:30 / /sys/fs/resctrl rw,relatime - resctrl resctrl rw\n"
)
CHECKOUT = Path(__file__).resolve().parents[2]


def machine(root: Path, files: dict[str, str]) -> Path:
    """Fabricate a machine's files; the default is a capable one that has not mounted resctrl."""
    capable = {
        "proc/filesystems": FILESYSTEMS,
        "proc/self/mountinfo": "25 1 0:22 / /sys rw - sysfs sysfs rw\n",
        "proc/cpuinfo": "model name\t: cqm_mbm_total by name only\nflags\t\t: fpu cqm cqm_occup_llc\n",
        "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
    }
    for name, text in (capable | files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    "files",
    [{}, {"proc/self/mountinfo": MOUNTED, "sys/fs/resctrl/info/L3_MON/num_rmids": "224\n"}],
    ids=["unmounted", "mounted"],
)
def test_a_capable_machine_gets_no_word(tmp_path: Path, files: dict[str, str]) -> None:
    """With RDT monitoring, root and cgroup v2 there is no obstacle, whether resctrl is mounted or not."""
    assert obstacle(machine(tmp_path, files), uid=0) is None


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"proc/filesystems": "nodev\tsysfs\n"}, "no resctrl in /proc/filesystems"),
        ({"proc/filesystems": "nodev\tresctrlfs\n"}, "no resctrl in /proc/filesystems"),
        ({"proc/cpuinfo": "flags\t\t: fpu cat_l3 rdt_a\n"}, CANNOT_MONITOR),
        ({"proc/cpuinfo": "model name\t: cqm_mbm_total\nflags\t\t: fpu\n"}, CANNOT_MONITOR),
        ({"proc/self/mountinfo": MOUNTED}, CANNOT_MONITOR),
        (
            {"proc/self/mountinfo": MOUNTED, "sys/fs/resctrl/info/L3_MON/num_rmids": "4\n"},
            "4 RMIDs are too few",
        ),
    ],
    ids=["no-resctrl", "another-name", "no-flag", "flag-elsewhere", "allocation-only", "few-rmids"],
)
def test_a_lesser_machine_is_told_why(tmp_path: Path, files: dict[str, str], words: str) -> None:
    """What is missing is named in one line."""
    reason = obstacle(machine(tmp_path, files), uid=0)
    assert reason is not None
    assert words in reason
    assert "\n" not in reason


def test_a_user_and_cgroup_v1_are_told_too(tmp_path: Path) -> None:
    """A capable processor is not enough: the lane needs root and cgroup v2."""
    root = machine(tmp_path, {})
    assert "only root" in (obstacle(root, uid=1000) or "")
    (root / "sys/fs/cgroup/cgroup.controllers").unlink()
    assert "cgroup v2" in (obstacle(root, uid=0) or "")


def test_the_mount_point_is_what_mountinfo_says(tmp_path: Path) -> None:
    """A mount elsewhere is found, with its escaped blanks; no mount is None."""
    assert resctrl_mount(machine(tmp_path, {})) is None
    line = "34 25 0:30 / /mnt/r\\040x rw shared:1 - resctrl resctrl rw\n"
    assert resctrl_mount(machine(tmp_path, {"proc/self/mountinfo": line})) == Path("/mnt/r x")


def test_the_command_says_the_same() -> None:
    """As a command it prints the reason and ends with 1, or nothing and 0, with nothing installed."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from tests.hardware.probe import main; sys.exit(main())"
    )
    command = [sys.executable, "-I", "-S", "-c", script, str(CHECKOUT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    reason = obstacle()
    assert done.stdout == ("" if reason is None else f"{reason}\n")
    assert (done.returncode, done.stderr) == (0 if reason is None else 1, "")
