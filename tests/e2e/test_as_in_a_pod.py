"""The program as the DaemonSet confines it: in a cgroup namespace, with one capability and its settings."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e import observer
from tests.e2e.lines import Lines
from tests.e2e.pods import PodMaker
from tests.e2e.waiting import until

if TYPE_CHECKING:
    from tests.e2e.containerd import Containerd

PROGRAM = Path(sys.executable).parent / "nri-resctrl-plugin"
CONFIG = Path(__file__).parents[2] / "docs/deploy/kubernetes/base/config.yaml"

# The runtime's own steps: into the container's cgroup, into new namespaces, the host's cgroups where the pod
# mounts them, and then without capabilities but the one. $1: where to mount, $2...: cgroups to enter.
CONFINE = """\
set -e
there=$1; shift
while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done
shift
exec unshare --cgroup --mount --propagation private sh -ec '
    there=$1; shift
    mount --rbind /sys/fs/cgroup "$there"
    exec setpriv --bounding-set=-all,+dac_override --inh-caps=-all --no-new-privs "$@"
' sh "$there" "$@"
"""


def _cgroups(daemon: Containerd) -> list[Path]:
    """Make a cgroup for the program in every hierarchy, as a kubelet does for its pod. The lane sweeps it."""
    made = []
    for mount in observer.cgroup_mounts():
        directory = mount / daemon.name / "burstable" / "podagent"
        directory.mkdir(parents=True, exist_ok=True)
        for each in (directory.parents[1], directory.parent, directory):
            for file in ("cpuset.cpus", "cpuset.mems"):  # cgroup v1 takes no process while these are empty
                if (each / file).exists() and not (each / file).read_text().strip():
                    (each / file).write_text((each.parent / file).read_text())
        made.append(directory)
    return made


@pytest.fixture(params=["containerd", "sliced_containerd"])
def daemon(request: pytest.FixtureRequest) -> Containerd:
    """A containerd with plain cgroup paths, and one with those of systemd."""
    daemon: Containerd = request.getfixturevalue(request.param)
    return daemon


async def test_confined_as_in_the_daemonset(daemon: Containerd, tmp_path: Path) -> None:
    """What /proc says of others begins with dots there; older and newer pods are told whole all the same."""
    lines = Lines(tmp_path / "events")
    host = tmp_path / "cgroup"
    host.mkdir()
    config = tmp_path / "config.yaml"
    text = CONFIG.read_text()
    assert "cgroup_root: /host/cgroup\n" in text
    config.write_text(text.replace("/host/cgroup", str(host)))
    command = [
        *("sh", "-c", CONFINE, "sh", str(host), *map(str, _cgroups(daemon)), "--"),
        *(str(PROGRAM), "run", f"--config={config}", "--resctrl=fake", f"--events={lines.file}"),
        f"--socket-path={daemon.nri_socket}",
    ]
    async with PodMaker(daemon) as maker:
        old = await maker.pod()
        await maker.container(old)
        with (tmp_path / "log").open("wb") as log:
            program = subprocess.Popen(command, stderr=log)  # noqa: ASYNC220 - starting is a fork
        try:
            await lines.until_last(old, "Exists 1/1")
            inside = (observer.PROC / str(program.pid) / "status").read_text()
            assert "CapEff:\t0000000000000002\n" in inside
            namespaces = {(observer.PROC / it / "ns/cgroup").readlink() for it in ("self", str(program.pid))}
            assert len(namespaces) == 2
            new = await maker.pod()
            await maker.container(new)
            await lines.until_last(new, "Exists 1/1")
            await maker.remove(new)
            await lines.until_last(new, "removed")
            assert maker.cri.failures == []
        finally:
            program.send_signal(signal.SIGTERM)
            await until("the program has ended", lambda: program.poll() is not None)
    assert program.returncode == 0, (tmp_path / "log").read_text()
