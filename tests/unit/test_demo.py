"""`nri-resctrl-plugin demo`: what a newcomer sees."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from nri_resctrl_plugin.cli import main
from nri_resctrl_plugin.cli.exits import Exit
from nri_resctrl_plugin.demo import story

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-m", "nri_resctrl_plugin", "demo"]
BARE = {"PYTHONPATH": str(ROOT)}


@pytest.fixture(autouse=True)
def _own_logs() -> Iterator[None]:
    """The program sets up the log of the whole process: put it back."""
    yield
    structlog.reset_defaults()


def test_the_story(capsys: pytest.CaptureFixture[str]) -> None:
    """Pods appear, RMIDs run out, a retry fails silently twice, one succeeds, pods go: in this order."""
    assert main(["demo", "-fast=true"], {}) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    expected = [
        r"runs pod 'web' with container 'nginx' \(5 threads\)",
        r"EVENT +web +1 of 1 containers reconciled; group Exists pod_web",
        r"EVENT +db +1 of 1 containers reconciled",
        r"has the answer",
        r"EVENT +batch +0 of 0 containers reconciled; group Failed",
        r"ENOSPC",
        r"EVENT +batch +0 of 1 containers reconciled; group Failed",
        r"gets CapacityError: ENOSPC",
        r"EVENT +cache +Removed",
        r"gets RmidsBusyError: EBUSY",
        r"EVENT +batch +0 of 1 containers reconciled; group Exists pod_batch",
        r"EVENT +batch +1 of 1 containers reconciled; group Exists pod_batch",
        r"is back",
        r"EVENT +db +Removed",
        r"EVENT +web +Removed",
        r"EVENT +batch +Removed",
        r"13 events told, 0 groups left, 0 errors answered",
    ]
    rest = captured.out
    for pattern in expected:
        found = re.search(pattern, rest)
        assert found, f"{pattern} is missing in, or in the wrong place of:\n{captured.out}"
        rest = rest[found.end() :]


def test_every_line_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines are readable on 120 columns, and every act is explained below it in words."""
    assert main(["demo", "--fast"], {}) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120
    chapters = [index for index, line in enumerate(lines) if line.startswith("== ")]
    assert len(chapters) >= 8
    assert sum(line.startswith(" " * 20) for line in lines) >= 10


def test_in_a_process_of_its_own() -> None:
    """With an empty environment: status 0, nothing on standard error."""
    done = subprocess.run(
        [*PROGRAM, "-fast=false"], env=BARE, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "events told" in done.stdout


def test_a_reader_that_stops_is_no_failure() -> None:
    """`demo | head -1` ends quietly."""
    with subprocess.Popen(
        [*PROGRAM, "--fast"], env=BARE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(30) == 0


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_output_that_cannot_be_written(redirection: str) -> None:
    """On a full disk or with standard output closed it ends with status 74 and one sentence."""
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {redirection}', "sh", *PROGRAM, "--fast"],
        env=BARE, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == Exit.IO
    assert re.fullmatch("nri-resctrl-plugin: .*standard output.*\n", done.stderr)


def test_a_retry_that_goes_another_way_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no RMID ever rests, a retry succeeds too early, and the demo fails at that very retry."""
    monkeypatch.setattr(story, "LIMBO", 0.0)
    with pytest.raises(AssertionError, match="the retry for 'batch' gets RmidsBusyError"):
        main(["demo", "--fast"], {})


def test_the_story_checks_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the world is not as the story says, the demo fails instead of telling it all the same."""
    monkeypatch.setattr(story, "RMIDS", 6)
    with pytest.raises(AssertionError, match="this did not happen"):
        main(["demo", "--fast"], {})
