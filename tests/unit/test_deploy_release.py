"""The workflows: what they may do, and on whose code they rely."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
RELEASE = ROOT / ".github/workflows/release.yml"
ACTIONLINT = shutil.which("actionlint") or shutil.which("actionlint", path=str(Path.home() / "go/bin"))


def jobs() -> dict[str, dict[str, Any]]:
    """Return the release's jobs by name."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(RELEASE.read_text())["jobs"]
    return found


def uses(job: dict[str, Any]) -> list[str]:
    """Return the actions of a job, without their versions."""
    return [step["uses"].partition("@")[0] for step in job["steps"] if "uses" in step]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
class TestEveryWorkflow:
    """What holds for all of them."""

    def test_actions_are_pinned(self, workflow: Path) -> None:
        """Each by a commit, with the version that it is beside it: a tag can be moved."""
        lines = [line.strip().removeprefix("- ") for line in workflow.read_text().splitlines()]
        used = [line for line in lines if line.startswith("uses:")]
        assert used
        assert [
            line for line in used if not re.fullmatch(r"uses: [\w./-]+@[0-9a-f]{40} # v[\d.]+", line)
        ] == []

    def test_nothing_is_allowed_by_default(self, workflow: Path) -> None:
        """Each job says what it may do, and no checkout leaves a token behind."""
        content = yaml.safe_load(workflow.read_text())
        assert content["permissions"] == {}
        for job in content["jobs"].values():
            for step in job.get("steps", []):
                if "actions/checkout" in step.get("uses", ""):
                    assert step["with"]["persist-credentials"] is False

    def test_no_text_of_others_is_run(self, workflow: Path) -> None:
        """Whatever an event carries reaches a script as a variable, never as part of it."""
        for job in yaml.safe_load(workflow.read_text())["jobs"].values():
            for step in job.get("steps", []):
                assert "${{ github.event" not in step.get("run", "")
                assert "${{ github.head_ref" not in step.get("run", "")
                assert "${{ github.ref" not in step.get("run", "")

    @pytest.mark.skipif(ACTIONLINT is None, reason="there is no actionlint here")
    def test_actionlint(self, workflow: Path) -> None:
        """It has nothing to say."""
        assert ACTIONLINT is not None
        done = subprocess.run([ACTIONLINT, str(workflow)], check=False, capture_output=True, text=True)
        assert done.stdout + done.stderr == ""


def test_the_searches_at_full_size_run_each_night() -> None:
    """What a push is spared waits for nobody to remember it: the session that has the profile `full`."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/searches.yml").read_text())
    assert workflow[True]["schedule"]
    assert any("nox -s searches" in step.get("run", "") for step in workflow["jobs"]["full"]["steps"])
    _, _, session = (ROOT / "noxfile.py").read_text().partition("def searches(")
    assert '"HYPOTHESIS_PROFILE": "full"' in session.partition("@nox.session")[0]


def test_no_secret() -> None:
    """Publishing is trusted because of where it runs; there is no token that could leak."""
    assert "secrets." not in RELEASE.read_text()


def test_who_may_what() -> None:
    """Building may only read; an identity is given to jobs that sign or publish, and those build nothing."""
    assert {name: job["permissions"] for name, job in jobs().items()} == {
        "build": {"contents": "read"},
        "attest": {"contents": "read", "id-token": "write", "attestations": "write"},
        "pypi": {"id-token": "write"},
        "assets": {"contents": "write"},
    }
    for name in ("attest", "pypi"):
        assert not [step for step in jobs()[name]["steps"] if "run" in step]


def test_only_a_tag_publishes() -> None:
    """Started by hand it builds, and stops there; the index waits for whoever guards its environment."""
    assert yaml.safe_load(RELEASE.read_text())[True] == {"push": {"tags": ["v*"]}, "workflow_dispatch": None}
    for name in ("attest", "pypi", "assets"):
        assert jobs()[name]["if"] == "github.event_name == 'push'"
    assert jobs()["pypi"]["environment"]["name"] == "pypi"
    assert jobs()["assets"]["needs"] == ["pypi"]


def test_everything_is_attested() -> None:
    """Provenance of the packages and of each single file, and a bill of materials of each single file."""
    attest = jobs()["attest"]
    assert uses(attest)[1:] == ["actions/attest-build-provenance", "actions/attest-sbom"]
    minors = yaml.safe_load(RELEASE.read_text())["jobs"]["build"]["steps"][2]["with"][
        "python-version"
    ].split()
    assert attest["strategy"]["matrix"]["python"] == minors
    subjects = attest["steps"][1]["with"]["subject-path"]
    assert {"dist/*.whl", "dist/*.tar.gz"} < set(subjects.split())
