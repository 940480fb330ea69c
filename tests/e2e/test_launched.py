"""The single file where a real containerd looks for plugins: it starts and ends with it, and never harms."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e import observer
from tests.e2e.containerd import Containerd
from tests.e2e.lines import Lines
from tests.e2e.pods import PodMaker
from tests.e2e.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.packages import Tools
    from tests.e2e.pods import Pod

INDEXES = ("10", "20", "30", "40", "50", "60")
BUILDER = Path(__file__).parents[2] / "tools/build_single_file.py"


def _built(target: Path, interpreter: str) -> Path:
    command = [sys.executable, str(BUILDER), str(target), "--python", interpreter]
    subprocess.run(command, check=True, capture_output=True)
    return target


@pytest.fixture(scope="module")
def single(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file, for the interpreter that runs this; containerd gives it no PATH to find one."""
    return _built(tmp_path_factory.mktemp("single") / "program", str(Path(sys.executable).resolve()))


@pytest.fixture
def daemon(tools: Tools) -> Iterator[Containerd]:
    """A containerd that has not been started yet; in the end nothing is left of it."""
    containerd = Containerd(tools)
    try:
        yield containerd
    finally:
        left = containerd.close()
    assert left == []


def _install(daemon: Containerd, program: Path, idx: str, config: str | None) -> None:
    directory = daemon.directory / "nri"
    for part in ("plugins", "conf.d"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    # Not straight to its place: a file that is written to cannot be run.
    copy = directory / f"{idx}-copy"
    shutil.copy(program, copy)
    copy.rename(directory / "plugins" / f"{idx}-{daemon.name}")
    if config is not None:
        (directory / "conf.d" / f"{idx}-{daemon.name}.conf").write_text(config)


def _whole_again(lines: Lines, pod: Pod, told: int) -> bool:
    """Tell whether a pod has been told anew, with all its containers in its group."""
    words = lines.of(pod)
    counts = words[-1].partition(" ")[2].split("/")
    return len(words) > told and counts in (["1", "1"], ["2", "2"], ["3", "3"])


def _processes(daemon: Containerd) -> set[int]:
    return set(observer.processes_with_environment(f"NRI_PLUGIN_NAME={daemon.name}"))


def _indexes(daemon: Containerd) -> set[str]:
    """Return the indexes of the plugins that run."""
    ours = _processes(daemon)
    return {it for it in INDEXES if ours & set(observer.processes_with_environment(f"NRI_PLUGIN_IDX={it}"))}


def _broken(program: Path, target: Path) -> Path:
    """Copy the file without one of its modules."""
    name, other = b"nri_resctrl_plugin/cli/run.py", b"nri_resctrl_plugin/cli/ruin.p"
    target.write_bytes(program.read_bytes().replace(name, other))
    target.chmod(0o755)
    return target


async def test_it_lives_and_dies_with_its_runtime(daemon: Containerd, single: Path) -> None:
    """Settings from conf.d, log and events to files; a restart and a SIGKILL each bring one that serves."""
    lines, log = Lines(daemon.directory / "events"), daemon.directory / "plugin.log"
    config = (
        f"resctrl: fake\nevents: {lines.file}\nlog_file: {log}\ngroup_prefix: launched_\n"
        f"cgroup_root: {daemon.cgroup_root}\n"
    )
    _install(daemon, single, "10", config)
    await daemon.start()
    async with PodMaker(daemon) as maker:
        old = await maker.pod()
        await maker.container(old)
        await lines.until_last(old, "Exists 1/1")
        path = lines.all()[-1]["group_state"]["path"]
        assert path == f"/sys/fs/resctrl/mon_groups/launched_{old.uid}"

        for end in (daemon.stop, daemon.kill):
            (before,) = _processes(daemon)
            await end()
            await until("the program has ended with its runtime", lambda: not _processes(daemon))
            await daemon.start()
            (after,) = _processes(daemon)
            assert after != before

            new = await maker.pod()
            await lines.until_last(new, "Exists 0/0")
            container = await maker.container(new)
            await lines.until_last(new, "Exists 1/1")
            await maker.remove_container(container)
            await maker.remove(new)
            await lines.until_last(new, "removed")

            # containerd 1.7 tells a plugin that it launched nothing of what ran before, until it changes.
            told = len(lines.of(old))
            await maker.container(old)
            await until("the older pod is told", functools.partial(_whole_again, lines, old, told))
        assert maker.cri.failures == []
    await daemon.stop()
    await until("the program has ended with its runtime", lambda: not _processes(daemon))
    assert log.read_text().count("connection_ended") == 3
    assert "Traceback" not in log.read_text()


async def test_whatever_is_wrong_the_runtime_starts(daemon: Containerd, single: Path, tmp_path: Path) -> None:
    """No settings, nonsense, a typo, no place to write to, no interpreter, a broken archive: pods run."""
    log = daemon.directory / "refused.log"
    orphan = _built(tmp_path / "orphan", "no-such-python")
    broken = _broken(single, tmp_path / "broken")
    _install(daemon, single, "10", None)
    _install(daemon, single, "20", "{{{ no YAML")
    _install(daemon, single, "30", f"resctrl: fake\nlog_file: {log}\nretry_intervall: 5\n")
    _install(
        daemon, single, "40", f"resctrl: fake\nlog_file: {daemon.directory}/no/log\nevents: /no/events\n"
    )
    _install(daemon, orphan, "50", "resctrl: fake\n")
    _install(daemon, broken, "60", "resctrl: fake\n")
    await daemon.start()
    assert _indexes(daemon) == set(INDEXES)
    async with PodMaker(daemon) as maker:
        pod = await maker.pod()
        container = await maker.container(pod)
        await maker.remove_container(container)
        await maker.remove(pod)
        assert maker.cri.failures == []
    assert "unknown key 'retry_intervall'; did you mean 'retry_interval'?" in log.read_text()
    assert _indexes(daemon) == set(INDEXES), "each is there still"
    await daemon.stop()
    await until("they have ended with their runtime", lambda: not _processes(daemon))
