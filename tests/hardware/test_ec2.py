"""The script that provisions, against a cloud that only writes down what it is asked."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".github" / "scripts" / "ec2.sh"
CLOUD = """#!/bin/sh
printf '%s\\0' "$(basename "$0") $*" >>"$ASKED"
case "$*" in
  *get-parameter*) echo ami-1 ;;
  *run-instances*) [ -z "${FULL:-}" ] || exit 254; echo i-1 ;;
  *PublicIpAddress*) echo 192.0.2.1 ;;
  *describe-instances*) echo "${FOUND:-}" ;;
  *sudo*) cat ;;
esac
"""


class Cloud:
    """What was asked of `aws`, `ssh` and `ssh-keygen`, and what the script made of it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        for name in ("aws", "ssh", "ssh-keygen"):
            (directory / name).write_text(CLOUD)
            (directory / name).chmod(stat.S_IRWXU)

    def do(self, *words: str, given: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        """Call the script."""
        return subprocess.run(
            [SCRIPT, *words],
            env={
                "PATH": f"{self._directory}:{os.environ['PATH']}",
                "ASKED": str(self._directory / "asked"),
                "RUNNER_TEMP": str(self._directory),
                "INSTANCE_TYPE": "m7i.metal-24xl",
                "SUBNET_ID": "subnet-1",
                "SECURITY_GROUP_ID": "sg-1",
                **environ,
            },
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    @property
    def asked(self) -> list[str]:
        """What was asked, in order."""
        return (self._directory / "asked").read_text().split("\0")[:-1]


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    """A cloud."""
    return Cloud(tmp_path)


def test_an_instance_ends_itself_and_is_the_runs(cloud: Cloud) -> None:
    """Spot, tagged with lane and run; its own shutdown, set at its start, terminates it."""
    done = cloud.do("start", "abc", "77")
    assert (done.returncode, done.stdout) == (0, "i-1\n")
    (asked,) = [it for it in cloud.asked if "run-instances" in it]
    for word in (
        "--instance-type m7i.metal-24xl",
        "MarketType=spot",
        "--instance-initiated-shutdown-behavior terminate",
        "{Key=lane,Value=resctrl-hardware-lane}",
        "{Key=run,Value=77}",
    ):
        assert word in asked
    # As it is: the real command encodes it.
    assert "--user-data #!/bin/sh\nshutdown -h +120 --" in asked


def test_no_instance_is_a_failure(cloud: Cloud) -> None:
    """Where the cloud has none, no name is made up."""
    done = cloud.do("start", "abc", "77", FULL="yes")
    assert (done.returncode, done.stdout) == (254, "")


@pytest.mark.parametrize(
    ("words", "filters"),
    [
        (("stop", "77"), ["Name=tag:lane,Values=resctrl-hardware-lane", "Name=tag:run,Values=77"]),
        (("reap",), ["Name=tag:lane,Values=resctrl-hardware-lane"]),
    ],
)
def test_only_what_bears_the_tags_is_ended(cloud: Cloud, words: tuple[str, ...], filters: list[str]) -> None:
    """What is terminated was found by the lane's tag, and by the run's; where nothing is, nothing is."""
    done = cloud.do(*words)
    assert (done.returncode, done.stdout) == (0, "terminated: none\n")
    (asked,) = cloud.asked
    assert [it for it in filters if it not in asked] == []
    assert cloud.do(*words, FOUND="i-1\ti-2").returncode == 0
    assert cloud.asked[-1] == "aws ec2 terminate-instances --instance-ids i-1 i-2"


def test_a_command_gets_our_input(cloud: Cloud) -> None:
    """The checkout is piped to it: asking whether the machine answers does not eat it."""
    done = cloud.do("run", "i-1", "tar -xf -", given="the checkout")
    assert (done.returncode, done.stdout) == (0, "the checkout")
    assert cloud.asked[-1].endswith(r"ubuntu@192.0.2.1 sudo bash -euc tar\ -xf\ -")
    assert any(it.startswith("ssh -n ") for it in cloud.asked)
