"""`doctor` beside a real containerd: what it says of the runtime is so, and its mend does mend."""

from __future__ import annotations

import asyncio
import json
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e import observer
from tests.e2e.containerd import Containerd
from tests.e2e.pods import PodMaker
from tests.e2e.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.packages import Tools

PROGRAM = Path(sys.executable).parent / "nri-resctrl-plugin"


async def rungs(containerd: Containerd) -> dict[str, dict[str, Any]]:
    """Run the doctor; return what it says of each rung."""
    command = [str(PROGRAM), "doctor", "--json", f"--socket-path={containerd.nri_socket}"]
    doctor = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await doctor.communicate()
    return {each["rung"]: each for each in json.loads(output)["rungs"]}


class WithoutNri(Containerd):
    """A containerd as 1.7 is by default: NRI is off, until its drop-in directory says otherwise."""

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self.drop_ins = self.directory / "conf.d"
        self.drop_ins.mkdir()
        lines = self._config.read_text().replace("disable = false", "disable = true").split("\n")
        self._config.write_text("\n".join([lines[0], f'imports = ["{self.drop_ins}/*.toml"]', *lines[1:]]))

    def _listens(self) -> bool:
        return super()._listens() if any(self.drop_ins.iterdir()) else self._serves()

    def _serves(self) -> bool:
        return bool(observer.processes_on_socket(self.socket))


@pytest.fixture
def without_nri(tools: Tools) -> Iterator[WithoutNri]:
    """Such a containerd, not yet started."""
    daemon = WithoutNri(tools)
    try:
        yield daemon
    finally:
        left = daemon.close()
    assert not left, f"it left things behind: {left}"


async def test_the_mend_for_a_runtime_without_nri_mends_it(without_nri: WithoutNri, tools: Tools) -> None:
    """NRI off: the rung fails and names containerd; with the file that it shows and a restart it is well."""
    await without_nri.start()
    told = await rungs(without_nri)
    assert (told["nri"]["level"], told["runtime"]["level"]) == ("fail", "ok")
    assert told["nri"]["meaning"].startswith("containerd runs, but does not offer NRI")
    version = ".".join(map(str, tools.containerd_version[:2]))
    assert told["runtime"]["found"].startswith(f"containerd {version}.")

    fix = told["nri"]["fix"]
    begin = fix.index("containerd: put this into /etc/containerd/conf.d/nri.toml") + 1
    end = next(number for number, line in enumerate(fix) if line.startswith("with the same version"))
    (without_nri.drop_ins / "nri.toml").write_text(textwrap.dedent("\n".join(fix[begin:end]) + "\n"))
    await without_nri.stop()
    await without_nri.start()
    told = await rungs(without_nri)
    assert (told["nri"]["level"], told["runtime"]["level"]) == ("ok", "ok")


async def test_the_doctor_disturbs_nobody(containerd: Containerd) -> None:
    """While a plugin serves the doctor calls several times; the plugin stays, and no pod waits for it."""
    stage = Stage(containerd)
    async with PodMaker(containerd) as maker, stage.plugin() as plugin:
        pod = await maker.pod()
        assert [each["nri"]["level"] for each in [await rungs(containerd) for _ in range(3)]] == ["ok"] * 3
        calls = asyncio.gather(*(rungs(containerd) for _ in range(3)))
        container = await maker.container(pod)
        await calls
        await stage.counts(plugin, pod, 1, 1)
        stage.assert_truth(plugin, {pod: [container]})
        assert plugin.calls["synchronize"] == 1, "the runtime dropped the plugin"
        assert maker.cri.failures == []


async def test_a_runtime_that_is_gone_leaves_a_stale_socket(containerd: Containerd) -> None:
    """After its end the socket's file is there and nobody listens: that is what is told."""
    await containerd.kill()
    try:
        told = await rungs(containerd)
        assert told["nri"]["level"] == "fail"
        assert told["nri"]["found"] == f"nobody listens at {containerd.nri_socket}"
    finally:
        await containerd.start()
