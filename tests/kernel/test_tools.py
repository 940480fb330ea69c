"""`doctor`, `top` and `cleanup` on a kernel's own resctrl: what they say is so."""

from __future__ import annotations

import compileall
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.guest import GuestConfig
from tests.kernel.vm import run_guest

if TYPE_CHECKING:
    from tests.kernel.image import Image

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAM = Path(sys.executable).parent / "nri-resctrl-plugin"
MON = Path("/sys/fs/resctrl/mon_groups")
pytestmark = pytest.mark.timeout(900)

SCRIPT = f"""
cd {CHECKOUT}
run() {{ name=$1; shift; {PROGRAM} "$@" > /vmjob/$name 2> /vmjob/$name.err; echo $? > /vmjob/$name.rc; }}
run unmounted doctor --library --json
mount -t resctrl resctrl /sys/fs/resctrl
mkdir {MON}/pod_busy {MON}/pod_idle {MON}/foreign
mkdir /sys/fs/resctrl/gold /sys/fs/resctrl/gold/mon_groups/pod_gold
while :; do :; done & echo $! > {MON}/pod_busy/tasks
run doctor doctor --library --json --probe
run top top -n 1 --interval 2 -o json
run dry cleanup --dry-run
ls {MON} > /vmjob/before
run cleanup cleanup
ls {MON} /sys/fs/resctrl/gold/mon_groups > /vmjob/after
kill $!
"""


@pytest.fixture(scope="module")
def tools(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands left, each in its file, with their statuses beside."""
    for package in ("resctrl", "nri_resctrl_plugin"):  # in a guest that would take its time, each time
        compileall.compile_dir(CHECKOUT / package, quiet=2)
    directory = tmp_path_factory.mktemp("tools")
    run = run_guest([SCRIPT], GuestConfig(num_rmids=16), limit=600, job=directory, image=image)
    assert run.status == 0, f"{run.reason}\n{run.text}\n{run.console}"
    assert {each.name: each.read_text() for each in directory.glob("*.err")} == {
        f"{name}.err": "" for name in ("unmounted", "doctor", "top", "dry", "cleanup")
    }
    return directory


def status(directory: Path, name: str) -> int:
    """Return the status that a command ended with."""
    return int((directory / f"{name}.rc").read_text())


def levels(told: dict[str, Any]) -> dict[str, str]:
    """Return the level of each rung."""
    return {each["rung"]: each["level"] for each in told["rungs"]}


def test_the_doctor_finds_it_usable(tools: Path) -> None:
    """With resctrl mounted every rung of the library is well, a group can really be made: status 0."""
    told = json.loads((tools / "doctor").read_text())
    assert status(tools, "doctor") == 0
    assert set(levels(told).values()) == {"ok"}, told
    found = {each["rung"]: each["found"] for each in told["rungs"]}
    assert found["rmids"].startswith("10 of 16 free"), "5 groups are there, and the default one"
    assert found["features"] == "llc_occupancy, mbm_total_bytes, mbm_local_bytes"
    assert found["probe"] == "made pod_doctor-probe and removed it"


def test_the_doctor_misses_the_mount_alone(tools: Path) -> None:
    """Unmounted, that is the one failure, and the command that mends it is the one that did mend it."""
    told = json.loads((tools / "unmounted").read_text())
    assert (status(tools, "unmounted"), told["failed"]) == (1, ["mount"])
    mount = next(each for each in told["rungs"] if each["rung"] == "mount")
    assert mount["fix"][0] == "mount -t resctrl resctrl /sys/fs/resctrl"


def test_top_tells_busy_from_idle(tools: Path) -> None:
    """The group of a spinning task grows by a gigabyte a second of its processor time, the idle one not."""
    assert status(tools, "top") == 0
    told = json.loads((tools / "top").read_text())
    groups = {each["name"]: each for each in told["groups"]}
    assert set(groups) == {"(default)", "gold", "gold/pod_gold", "foreign", "pod_busy", "pod_idle"}
    busy, idle = groups["pod_busy"], groups["pod_idle"]
    assert (busy["threads"], idle["threads"], busy["state"], idle["state"]) == (1, 0, "ok", "ok")
    assert 2e8 < busy["rates"]["mbm_total_bytes"]["per_second"] < 1.1e9
    assert busy["rates"]["mbm_local_bytes"]["per_second"] < busy["rates"]["mbm_total_bytes"]["per_second"]
    assert busy["totals"]["llc_occupancy"] == {"amount": 8 * 1024 * 1024, "complete": True}
    assert idle["rates"]["mbm_total_bytes"]["per_second"] == 0
    assert idle["totals"]["llc_occupancy"]["amount"] == 0
    assert (told["num_rmids"], told["rmids_in_use"]) == (16, 6)


def test_cleanup_removes_what_it_listed(tools: Path) -> None:
    """The dry run names both groups of ours and removes none; the run removes these two alone."""
    listed = (tools / "dry").read_text().splitlines()
    assert listed == [
        f"would remove {MON}/pod_busy  (1 threads)",
        f"would remove {MON}/pod_idle  (0 threads)",
        "2 would be removed, 2 without the prefix stay",
    ]
    assert (tools / "before").read_text().split() == ["foreign", "pod_busy", "pod_idle"]
    removed = (tools / "cleanup").read_text().splitlines()
    assert removed == [line.replace("would remove", "removed").replace("would be ", "") for line in listed]
    left = (tools / "after").read_text().split()
    assert left == ["/sys/fs/resctrl/gold/mon_groups:", "pod_gold", f"{MON}:", "foreign"]
    assert (status(tools, "dry"), status(tools, "cleanup")) == (0, 0)


@pytest.mark.parametrize(
    ("guest", "failed"),
    [
        (GuestConfig.without_rdt(), ["processor", "kernel"]),
        (GuestConfig.allocation_only(), ["processor", "features"]),
        (GuestConfig(llc_occupancy=False, mbm_total=False, mbm_local=False), ["boot", "features"]),
    ],
    ids=["without-rdt", "allocation-only", "turned-off-at-boot"],
)
def test_the_doctor_on_machines_that_cannot(
    image: Image, tmp_path: Path, guest: GuestConfig, failed: list[str]
) -> None:
    """The rungs that fail are the true ones, by what the kernel itself tells: status 1."""
    mount = "mount -t resctrl resctrl /sys/fs/resctrl 2>/dev/null; "
    line = f"{mount}cd {CHECKOUT}; {PROGRAM} doctor --library --json"
    run = run_guest([line], guest, limit=300, job=tmp_path, image=image)
    told = json.loads(run.output)
    assert (run.status, told["failed"]) == (1, failed), told
    assert all(each["fix"] for each in told["rungs"] if each["level"] == "fail")
