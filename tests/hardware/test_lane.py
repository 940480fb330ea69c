"""The lane's script without a machine: what it refuses, what its summary says, what it removes."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from tests.hardware import lane as lane_module
from tests.hardware import probe
from tests.hardware.evidence import tree
from tests.hardware.lane import Lane, main
from tests.hardware.results import Case, Outcome, Step, read_cases, summary

if TYPE_CHECKING:
    from collections.abc import Iterator

JUNIT = """<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="tests.a" name="good[x]" time="1.5">
<properties><property name="n" value="3"/></properties></testcase>
<testcase classname="tests.a" name="bad" time="0"><failure message="m">the report
E   assert 1 == 2</failure></testcase>
<testcase classname="tests.a" name="lacks" time="0">
<skipped message="no such thing here">x</skipped></testcase>
<testcase classname="tests.a" name="leaves" time="0"><error message="m">left behind</error></testcase>
</testsuite></testsuites>"""


@pytest.fixture
def lane(tmp_path: Path) -> Lane:
    """A lane over an empty directory instead of resctrl."""
    root = tmp_path / "resctrl"
    (root / "mon_groups").mkdir(parents=True)
    return Lane(tmp_path / "artifacts", "run-1_", root=root)


def test_a_machine_that_cannot_run_it_is_a_failure_with_its_reason(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever starts the lane has asked the probe: an incapable machine runs nothing and is not green."""
    monkeypatch.setattr(probe, "obstacle", lambda: "there is no such processor")
    assert lane.run() == 1
    page = (lane.artifacts / "summary.md").read_text()
    assert page.startswith("# Hardware lane: FAILED\n")
    assert "**there is no such processor**" in page
    assert not list(lane.artifacts.glob("*.xml"))


@pytest.mark.parametrize("at", ["mon_groups", "."])
def test_a_prefix_that_is_taken_is_refused(lane: Lane, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """A group that begins so is somebody's: it is named, and it stays."""
    monkeypatch.setattr(probe, "obstacle", lambda: None)
    somebody = lane.root / at / "run-1_pod_x"
    somebody.mkdir()
    assert lane.run() == 1
    assert f"the prefix run-1_ is taken: {somebody} is there" in (lane.artifacts / "summary.md").read_text()
    assert somebody.is_dir()


def test_a_mount_elsewhere_is_refused(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be mounted once only is not moved away from whoever has it."""
    monkeypatch.setattr(probe, "resctrl_mount", lambda: Path("/mnt/elsewhere"))
    assert lane.run() == 1
    assert "resctrl is mounted at /mnt/elsewhere" in (lane.artifacts / "summary.md").read_text()


def test_the_teardown_removes_by_prefix_at_both_levels_and_nothing_else(lane: Lane) -> None:
    """What a killed step left goes, and the groups of everybody else stay."""
    others = [lane.root / "mon_groups/pod_a", lane.root / "mon_groups/xrun-1_", lane.root / "run-2_pod_a"]
    below = others[-1] / "mon_groups"
    ours = [lane.root / "mon_groups/run-1_pod_a", lane.root / "run-1_others_c", below / "run-1_pod_a"]
    for path in (*others, below, *ours, lane.root / "info", lane.root / "mon_data"):
        path.mkdir()
    lane._remove_groups()
    assert not any(path.exists() for path in ours)
    assert all(path.is_dir() for path in others)
    assert lane.remarks == ["3 groups of this run were left to the teardown"]


@pytest.mark.parametrize("failing", ["gather", "sweep_abandoned"])
def test_groups_are_removed_whatever_else_fails(
    lane: Lane, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """A full disk, or a mount that will not go, leaves no group of ours behind."""
    monkeypatch.setattr(lane_module, "gather", lambda *_: None)
    monkeypatch.setattr(lane_module, "sweep_abandoned", lambda: None)
    monkeypatch.setattr(lane_module.Lane, "_mount", lambda _: False)

    def fail(*_: object) -> None:
        raise subprocess.TimeoutExpired("umount", 60)

    monkeypatch.setattr(lane_module, failing, fail)
    group = lane.root / "mon_groups/run-1_pod_a"
    with pytest.raises(subprocess.TimeoutExpired), lane._left_as_found():
        group.mkdir()
    assert not group.exists()


@pytest.mark.parametrize("prefix", ["", "_", "pod", "p_", "a b_", "../x_", "x/y_", "-ab_"])
def test_a_prefix_that_is_no_word_is_refused(tmp_path: Path, prefix: str) -> None:
    """The teardown removes by prefix: a short one, or one that is a path, could be somebody else's."""
    with pytest.raises(SystemExit) as refused:
        main([f"--artifacts={tmp_path}", f"--prefix={prefix}"])
    assert refused.value.code == 2


def test_the_report_is_read_as_pytest_writes_it(tmp_path: Path) -> None:
    """Passed, failed in the call or around it, skipped with its reason, and what was recorded."""
    file = tmp_path / "junit.xml"
    file.write_text(JUNIT)
    cases = read_cases(file)
    assert [(it.name, it.outcome) for it in cases] == [
        ("good[x]", Outcome.PASSED),
        ("bad", Outcome.FAILED),
        ("lacks", Outcome.SKIPPED),
        ("leaves", Outcome.FAILED),
    ]
    assert (cases[0].seconds, cases[0].properties) == (1.5, (("n", "3"),))
    assert cases[2].text == "no such thing here"
    file.write_text(JUNIT[:200])
    assert read_cases(file) == read_cases(tmp_path / "absent.xml") == []


def test_the_summary_counts_and_names(tmp_path: Path) -> None:
    """How many ran, what was skipped and why, what failed with its last line."""
    file = tmp_path / "junit.xml"
    file.write_text(JUNIT)
    page = summary("Lane: FAILED", [Step(name="node", status=1, cases=read_cases(file))], ["a remark"])
    assert page.startswith("# Lane: FAILED\n\n- a remark\n")
    assert "| node | 3 | 1 | 2 | 1 | 2 | 1 |" in page
    assert "## Skipped\n\n- `tests.a::lacks`: no such thing here\n" in page
    assert "- `tests.a::bad`: E   assert 1 == 2\n" in page
    assert "- `good[x]`: n = 3\n" in page


def test_a_step_without_a_test_is_no_success() -> None:
    """Status 0 with nothing run, or only skips, is not green."""
    skip = Case(module="m", name="n", outcome=Outcome.SKIPPED)
    assert not Step(name="s", status=0, cases=[]).passed
    assert not Step(name="s", status=0, cases=[skip]).passed
    assert Step(name="s", status=0, cases=[Case(module="m", name="n", outcome=Outcome.PASSED), skip]).passed


def test_the_listing_shows_groups_and_small_files(tmp_path: Path) -> None:
    """Each file with what it says; counters by name; what cannot be read is a line, not a failure."""
    group = tmp_path / "mon_groups/g"
    (group / "mon_data/mon_L3_00").mkdir(parents=True)
    (group / "mon_data/mon_L3_00/llc_occupancy").write_text("77\n")
    (group / "tasks").write_text("1\n2\n")
    (group / "empty").write_text("")
    (group / "odd").symlink_to("nowhere")
    text = tree(tmp_path)
    assert "mon_groups/g/tasks:\n    1\n    2\n" in text
    assert "mon_groups/g/empty: (empty)\n" in text
    assert "mon_groups/g/mon_data/mon_L3_00/llc_occupancy\n" in text
    assert "mon_groups/g/odd:\n    ([Errno 2]" in text


INTERRUPTED = """
import sys, time
from contextlib import contextmanager
from pathlib import Path
from tests.hardware import lane, probe

def wait(*_):
    print("asked", flush=True)
    time.sleep(60)

@contextmanager
def left_as_found(self):
    try:
        yield Path(sys.argv[1])
    finally:
        print("teardown", flush=True)
        sys.stdin.readline()
        print("torn down", flush=True)

probe.resctrl_mount = lambda: None
lane.Lane._left_as_found = left_as_found
if sys.argv.pop(1) == "obstacle":
    probe.obstacle = wait
else:
    probe.obstacle = lambda: None
    lane.Lane._step = wait
sys.exit(lane.main(sys.argv[1:]))
"""


@pytest.fixture
def interrupted(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """A lane that stands where the parameter says."""
    command = [sys.executable, "-c", INTERRUPTED, request.param, f"--artifacts={tmp_path}", "--prefix=run-1_"]
    here = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=here)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"asked\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("interrupted", ["obstacle", "step"], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_lane_tells_so(
    tmp_path: Path, interrupted: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    """Before the first step as in the middle of one, the summary is there, and it is not a pass."""
    interrupted.send_signal(number)
    interrupted.communicate(b"\n", timeout=30)
    assert interrupted.returncode == 128 + number
    page = (tmp_path / "summary.md").read_text()
    assert page.startswith("# Hardware lane: FAILED\n")
    assert "**interrupted**" in page


@pytest.mark.parametrize("interrupted", ["step"], indirect=True)
def test_a_second_signal_does_not_cut_the_teardown_short(interrupted: subprocess.Popen[bytes]) -> None:
    """Whoever cancels a job twice still gets a machine without the run's groups."""
    assert interrupted.stdout is not None
    interrupted.send_signal(signal.SIGTERM)
    assert interrupted.stdout.readline() == b"teardown\n"
    interrupted.send_signal(signal.SIGTERM)
    interrupted.send_signal(signal.SIGINT)
    output, _ = interrupted.communicate(b"\n", timeout=30)
    assert output.startswith(b"torn down\n")
    assert interrupted.returncode == 128 + signal.SIGTERM


def test_a_lane_without_a_step_is_no_success(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing ran: that is not green."""
    monkeypatch.setattr(probe, "obstacle", lambda: None)
    monkeypatch.setattr(Lane, "_left_as_found", lambda _: contextlib.nullcontext(lane.artifacts))
    assert evolve(lane, steps=()).run() == 1
