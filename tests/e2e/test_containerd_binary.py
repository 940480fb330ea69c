"""The installed program under a real containerd, judged by its JSON Lines alone."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e import observer
from tests.e2e.containerd import Containerd, View
from tests.e2e.lines import Lines
from tests.e2e.pods import PodMaker
from tests.e2e.waiting import until

if TYPE_CHECKING:
    from tests.e2e.packages import Tools

PROGRAM = Path(sys.executable).parent / "nri-resctrl-plugin"
"""Where installing puts it: beside the interpreter."""


@pytest.fixture(params=["containerd", "unified_containerd"])
def daemon(request: pytest.FixtureRequest) -> Containerd:
    """A containerd, and one that lives where only cgroup v2 is mounted, as then does the program."""
    daemon: Containerd = request.getfixturevalue(request.param)
    return daemon


async def test_the_program_tells_pods_as_json_lines(daemon: Containerd, tmp_path: Path) -> None:
    """Older pods, new ones, one too many, the retry that mends it, removal, SIGTERM: all in its output."""
    lines = Lines(tmp_path / "events.jsonl")
    command = [
        *(["nsenter", f"--target={daemon.pid}", "--mount"] if daemon.view is View.UNIFIED else []),
        *(str(PROGRAM), "run", "--resctrl=fake", "--fake-rmids=3", "--retry-interval=0.2"),
        *("-socket-path", str(daemon.nri_socket)),
    ]  # two pods' groups: one of the three RMIDs is the default group's
    async with PodMaker(daemon) as maker:
        old = await maker.pod()
        await maker.container(old)
        with lines.file.open("wb") as output, (tmp_path / "log").open("wb") as log:
            program = subprocess.Popen(command, stdout=output, stderr=log)  # noqa: ASYNC220 - starting is a fork
        try:
            await lines.until_last(old, "Exists 1/1")
            assert lines.of(old) == ["Exists 0/1", "Exists 1/1"]

            new = await maker.pod()
            await lines.until_last(new, "Exists 0/0")
            container = await maker.container(new)
            await lines.until_last(new, "Exists 1/1")

            extra = await maker.pod()
            await lines.until_last(extra, "Failed 0/0")
            await maker.container(extra)
            await lines.until_last(extra, "Failed 0/1")

            await maker.remove_container(container)
            await lines.until_last(new, "Exists 0/0")
            await maker.remove(new)
            await lines.until_last(new, "removed")
            await lines.until_last(extra, "Exists 1/1")  # nobody but the cadence asked for it
            assert maker.cri.failures == []
        finally:
            program.send_signal(signal.SIGTERM)
            await until("the program has ended", lambda: program.poll() is not None)
        assert program.returncode == 0, (tmp_path / "log").read_text()

    assert lines.of(new) == ["Exists 0/0", "Exists 1/1", "Exists 0/0", "removed"]
    assert lines.of(extra)[:2] == ["Failed 0/0", "Failed 0/1"]
    told = lines.all()
    assert lines.file.read_text().endswith("\n")
    assert {line["schema"] for line in told} == {1}
    assert [line["seq"] for line in told] == list(range(1, len(told) + 1))
    moments = [datetime.fromisoformat(line["ts"]) for line in told]
    assert moments == sorted(moments)
    paths = {line["group_state"]["path"] for line in told if line.get("group_state", {}).get("path")}
    assert paths == {f"/sys/fs/resctrl/mon_groups/pod_{pod.uid}" for pod in (old, new, extra)}


async def test_a_runtime_may_launch_the_program(tools: Tools) -> None:
    """Put where containerd looks for plugins, it is started with it, configured by it, and ends with it."""
    containerd = Containerd(tools)
    lines = Lines(containerd.directory / "events.jsonl")
    containerd.install_plugin(
        f"10-{containerd.name}",
        f"exec '{PROGRAM}' run --resctrl=fake --events '{lines.file}' 2>'{containerd.directory}/plugin.log'",
        config="group_prefix: launched_\n",
    )

    def runs() -> bool:
        return bool(observer.processes_with_environment(f"NRI_PLUGIN_NAME={containerd.name}"))

    try:
        await containerd.start()
        async with PodMaker(containerd) as maker:
            pod = await maker.pod()
            await lines.until_last(pod, "Exists 0/0")
            await maker.container(pod)
            await lines.until_last(pod, "Exists 1/1")
            path = lines.all()[-1]["group_state"]["path"]
            await maker.remove(pod)
            await lines.until_last(pod, "removed")
            assert maker.cri.failures == []
        assert path == f"/sys/fs/resctrl/mon_groups/launched_{pod.uid}"
        assert runs()
        await containerd.stop()
        await until("the program has ended with its runtime", lambda: not runs())
    finally:
        log = containerd.directory / "plugin.log"
        sys.stdout.write(log.read_text() if log.exists() else "")
        left = containerd.close()
    assert left == []


def test_the_program_is_installed() -> None:
    """What the tests run is the console script of the distribution."""
    assert shutil.which(str(PROGRAM)) is not None
