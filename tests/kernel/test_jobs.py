"""What guests leave is read so that nothing that did not run counts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.kernel.fidelity.__main__ import as_json
from tests.kernel.fidelity.machine import Difference, Report
from tests.kernel.fidelity.operations import Kind, Operation
from tests.kernel.image import Image
from tests.kernel.jobs import (
    FIDELITY,
    JOBS,
    SCENARIOS,
    Fidelity,
    Outcome,
    Scenarios,
    _fidelity,
    operations,
    patience,
)
from tests.kernel.vm import GuestRun
from tests.worlds import Machine

if TYPE_CHECKING:
    from pathlib import Path

JUNIT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" tests="5">
<testcase classname="tests.scenarios.test_s1_startup" name="test_a[kernel]"/>
<testcase classname="tests.scenarios.test_s1_startup" name="test_b[kernel]">
  <system-out>said</system-out></testcase>
<testcase classname="tests.scenarios.test_s1_startup" name="test_c[kernel]">
  <failure message="assert 1 == 2">test_s1_startup.py:7</failure></testcase>
<testcase classname="tests.scenarios.test_s2_containers" name="test_d[kernel]">
  <skipped message="no limbo">it has none</skipped></testcase>
<testcase classname="tests.scenarios.test_s2_containers" name="test_e[kernel]">
  <error message="no world">setup</error></testcase>
</testsuite></testsuites>
"""


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    """Return a job that left nothing yet."""
    image = Image(bzimage=tmp_path, busybox=tmp_path, release="6.12", origin="nowhere")
    run = GuestRun(
        status=None,
        reason="no end within 1 s",
        output=b"out",
        errors=b"err",
        console="boot",
        seconds=1.0,
        image=image,
    )
    return Outcome(run, tmp_path)


def test_only_what_passed_counts(outcome: Outcome) -> None:
    """Failures, errors and skips are told with pytest's words, and none of them is a pass."""
    (outcome.directory / "junit.xml").write_text(JUNIT, encoding="utf-8")
    report = Scenarios.of(outcome)
    assert report.passed == {"test_s1_startup.py": 2}
    assert [text.split(": ")[1] for text in report.others] == ["failure", "skipped", "error"]
    assert "test_c[kernel]: failure: assert 1 == 2\ntest_s1_startup.py:7" in report.others[0]


def test_no_report_is_no_pass(outcome: Outcome) -> None:
    """A guest that left no report has passed nothing, and what it said is kept for the failure."""
    assert Scenarios.of(outcome).passed == {}
    assert Fidelity.of(outcome) is None
    for word in ("no end within", "out", "err", "boot"):
        assert word in outcome.story


def test_a_comparison_is_read_as_it_is_written(outcome: Outcome) -> None:
    """The report of the guest's program and its reading agree."""
    report = Report(operations=3, waited=1.26)
    report.answers["create_dir", "EBUSY"] = 2
    report.differences.append(Difference((Operation(Kind.UNMOUNT),), "ok", "EINVAL"))
    text = as_json(report, 2.04)
    (outcome.directory / "fidelity.json").write_text(text, encoding="utf-8")
    found = Fidelity.of(outcome)
    assert found is not None
    assert (found.operations, found.waited, found.seconds) == (3, 1.26, 2.0)
    assert found.answers == {("create_dir", "EBUSY"): 2}
    assert found.differences == ["  unmount\n    kernel: ok\n    fake:   EINVAL\n"]
    assert json.loads(text)["operations"] == 3


def test_every_machine_has_a_job() -> None:
    """Scenarios of each kind of machine are run, and each limbo is compared, with as much as the bar says."""
    assert set(SCENARIOS.values()) == set(Machine)
    assert set(JOBS) == {*SCENARIOS, *FIDELITY}
    assert min(FIDELITY["fidelity-none"], FIDELITY["fidelity-endless"]) >= 10_000
    for name, count in FIDELITY.items():
        assert str(operations(count)) in JOBS[name].command


def test_a_long_night_is_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """RESCTRL_FIDELITY multiplies."""
    monkeypatch.setenv("RESCTRL_FIDELITY", "2.5")
    assert operations(1000) == 2500


def test_a_longer_comparison_has_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What multiplies the operations multiplies the limits; a shorter one keeps the ordinary ones."""
    for factor, operations_, seconds in (("20", 200_000, 16_000.0), ("0.1", 1_000, 800.0)):
        monkeypatch.setenv("RESCTRL_FIDELITY", factor)
        assert (operations(10_000), patience(800.0)) == (operations_, seconds)
        job = _fidelity(JOBS["fidelity-none"].guest, "none", 10_000)
        assert job.limit == seconds
        assert str(operations_) in job.command


def test_domains_can_be_told_apart() -> None:
    """The guest that runs the scenarios has two L3 caches, each with a processor that can go."""
    guest = JOBS["scenarios-full"].guest
    assert (guest.sockets, guest.cpus) == (2, 2)
