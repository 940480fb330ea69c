"""The program as one file: what is in it, how soon it registers, what it needs of a machine."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
import zipfile
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attrs import define

from nri_resctrl_plugin.cli.exits import Exit
from nri_resctrl_plugin.demo.runtime import RuntimeSide, Style
from nri_resctrl_plugin.jsonl import event_from_line
from nri_resctrl_plugin.nri.messages import PodSandbox
from tests.nri_support import in_loop, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ROOT = Path(__file__).parents[2]
BUILDER = ROOT / "tools/build_single_file.py"
INTERPRETER = Path(sys.executable).resolve()
MINOR = f"python{sys.version_info[0]}.{sys.version_info[1]}"
POD = PodSandbox(id="sandbox", uid="uid")


def built(target: Path, *arguments: str) -> Path:
    """Build it as `nox -s single_file` does."""
    subprocess.run([sys.executable, str(BUILDER), str(target), *arguments], check=True, capture_output=True)
    return target


@pytest.fixture(scope="session")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file, for this interpreter."""
    return built(tmp_path_factory.mktemp("single") / "10-resctrl", "--python", str(INTERPRETER))


@pytest.fixture
def orphan(single: Path, tmp_path: Path) -> Path:
    """The file as it would be for an interpreter that no machine has."""
    orphan = tmp_path / "10-resctrl"
    content = single.read_bytes()
    assert content.count(str(INTERPRETER).encode()) == 3
    orphan.write_bytes(content.replace(str(INTERPRETER).encode(), b"no-such-python"))
    orphan.chmod(0o755)
    return orphan


@define
class Process:
    """What was started.

    Attributes:
        pid: Its process.
        status: How it ended, or None.
    """

    pid: int
    status: int | None = None

    def ended(self) -> bool:
        """Tell whether it has ended."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is not None


@contextmanager
def started(program: Path, side: socket.socket, *before: str, **environment: str) -> Iterator[Process]:
    """Start it as a runtime does: descriptor 3, three variables, nowhere to write to."""
    command = [*before, str(program)]
    variables = {"NRI_PLUGIN_NAME": "resctrl", "NRI_PLUGIN_IDX": "10", "NRI_PLUGIN_SOCKET": "3"} | environment
    nowhere = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
    process = Process(
        os.posix_spawn(
            command[0], command, variables, file_actions=[(os.POSIX_SPAWN_DUP2, side.fileno(), 3), *nowhere]
        )
    )
    side.close()
    try:
        yield process
    finally:
        if not process.ended():
            os.kill(process.pid, signal.SIGKILL)
            os.waitpid(process.pid, 0)


@asynccontextmanager
async def launched(
    program: Path,
    path: Path,
    *before: str,
    style: Style = Style.DEDICATED,
    config: str = "",
    **environment: str,
) -> AsyncIterator[tuple[RuntimeSide, Process]]:
    """Start it under a runtime."""
    async with RuntimeSide(path, style=style, config=config) as runtime:
        side = socket.socket(socket.AF_UNIX)
        side.connect(str(path))
        with started(program, side, *before, **environment) as process:
            yield runtime, process


def test_the_same_inputs_give_the_same_bytes(single: Path, tmp_path: Path) -> None:
    """Whoever builds it again can compare."""
    again = built(tmp_path / "again", "--python", str(INTERPRETER))
    assert again.read_bytes() == single.read_bytes()
    assert stat.S_IMODE(again.stat().st_mode) == 0o755


def test_what_is_in_it(single: Path) -> None:
    """Pure Python, each module compiled; each package with its version and licence; nobody's tests."""
    with zipfile.ZipFile(single) as archive:
        names = set(archive.namelist())
        assert archive.testzip() is None
    modules = {name for name in names if name.endswith(".py")}
    assert modules
    assert {name for name in names if name.endswith(".pyc")} == {f"{name}c" for name in modules}
    strange = {name for name in names - modules if not name.endswith(".pyc") and ".dist-info/" not in name}
    assert strange == {"LICENSE"}
    packages = {name.partition(".dist-info/")[0].lower() for name in names if ".dist-info/" in name}
    assert {name.rpartition("-")[0] for name in packages} >= {
        "attrs", "betterproto2", "cattrs", "grpclib", "h2", "hpack", "hyperframe", "multidict", "pyyaml",
        "resctrl", "structlog",
    }  # fmt: skip
    for package in packages - {"resctrl-0.1.0"}:
        own = {name for name in names if name.lower().startswith(f"{package}.dist-info/")}
        assert any(name.endswith("/METADATA") for name in own), package
    assert not any("tests" in name.split("/") for name in names)
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "nri_resctrl_plugin").rglob("*.py")}
    assert ours <= modules


def test_its_bill_of_materials(single: Path) -> None:
    """What is inside, each with its version, and the file's own digest."""
    bill = json.loads(single.with_name("10-resctrl.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    (digest,) = bill["metadata"]["component"]["hashes"]
    assert digest == {"alg": "SHA-256", "content": hashlib.sha256(single.read_bytes()).hexdigest()}
    with zipfile.ZipFile(single) as archive:
        inside = {name.partition(".dist-info/")[0] for name in archive.namelist() if ".dist-info/" in name}
    named = {f"{each['name'].replace('-', '_')}-{each['version']}".lower() for each in bill["components"]}
    assert named == {name.lower() for name in inside} - {
        f"resctrl-{bill['metadata']['component']['version']}"
    }
    known = {bill["metadata"]["component"]["bom-ref"], *(each["bom-ref"] for each in bill["components"])}
    needed = {ref for each in bill["dependencies"] for ref in each["dependsOn"]}
    assert needed == known - {bill["metadata"]["component"]["bom-ref"]}, (
        "each is there because something needs it"
    )


def test_it_needs_nothing_of_its_environment(single: Path) -> None:
    """An empty environment, and the whole program runs from the file alone."""
    done = subprocess.run([str(single), "demo", "--fast"], check=True, env={}, capture_output=True, text=True)
    assert "Exists" in done.stdout
    done = subprocess.run([str(single), "--version"], check=True, env={}, capture_output=True, text=True)
    assert done.stdout.startswith("nri-resctrl-plugin ")
    script = f"import sys; sys.path.insert(0, {str(single)!r})\n"
    script += "import nri_resctrl_plugin.cli.run, yaml, multidict\n"
    script += "print(*{m.__file__ for m in sys.modules.values() if getattr(m, '__file__', None)}, sep='\\n')"
    done = subprocess.run(
        [str(INTERPRETER), "-I", "-S", "-c", script], check=True, capture_output=True, text=True
    )
    assert not [file for file in done.stdout.splitlines() if "site-packages" in file]
    inside = [file for file in done.stdout.splitlines() if file.startswith(str(single))]
    assert len(inside) > 100
    assert not [file for file in inside if not file.endswith(".pyc")], "read from byte code"


def test_it_registers_within_a_second(single: Path) -> None:
    """From its start to its first word, three variables in its environment: the best of five, in seconds."""
    times = []
    for _ in range(5):
        mine, theirs = socket.socketpair()
        with mine:
            mine.settimeout(20)
            began = time.monotonic()
            with started(single, theirs):
                assert b"RegisterPlugin" in mine.recv(4096)
                times.append(time.monotonic() - began)
    assert min(times) < 1.0


@in_loop
async def test_it_serves(single: Path, tmp_path: Path) -> None:
    """Settings and flags from Configure, events and log to files, metrics, and it ends with its runtime."""
    events, log = tmp_path / "events", tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    config = (
        f"resctrl: fake\nevents: {events}\nlog_file: {log}\ngroup_prefix: single_\nhealth_addr: {address}\n"
    )
    async with launched(single, tmp_path / "nri.sock", config=config) as (runtime, process):
        assert (await runtime.synchronized()).name == "resctrl"
        await runtime.run_pod(POD)
        await until(lambda: events.exists() and events.read_text().endswith("\n"), "it tells the pod", 10)
        event = event_from_line(events.read_text().splitlines()[0])
        assert str(event.group_state.path).endswith("/single_uid")  # type: ignore[union-attr]
        metrics = await asyncio.to_thread(urllib.request.urlopen, f"http://{address}/metrics", timeout=10)
        with metrics:
            assert b"nri_resctrl_pods" in metrics.read()
        await runtime.stop()
        await until(process.ended, "it ended", 10)
        assert process.status == Exit.OK
        assert "connection_ended" in log.read_text()


def test_it_finds_its_python_by_name(tmp_path: Path) -> None:
    """The named minor comes first; whatever else is there is better than none."""
    program = built(tmp_path / "10-resctrl")
    for name in (MINOR, "python3"):
        there = tmp_path / name
        there.mkdir()
        (there / name).symlink_to(INTERPRETER)
        done = subprocess.run(
            [str(program), "--version"], check=True, env={"PATH": str(there)}, capture_output=True, text=True
        )
        assert done.stdout.startswith("nri-resctrl-plugin ")


class TestWithoutPython:
    """A machine that lost its interpreter must not lose its container runtime."""

    def test_a_person_is_told(self, orphan: Path) -> None:
        """Status 69, and what is missing."""
        done = subprocess.run([str(orphan), "run"], check=False, env={}, capture_output=True, text=True)
        assert done.returncode == Exit.UNSUPPORTED
        assert done.stderr == f"{orphan} needs one of: no-such-python\n"

    def test_a_descriptor_that_is_not_the_third(self, orphan: Path) -> None:
        """Runtimes pass descriptor 3; with anything else it does not try."""
        done = subprocess.run(
            [str(orphan)], check=False, env={"NRI_PLUGIN_SOCKET": "4"}, capture_output=True, text=True
        )
        assert done.returncode == Exit.UNSUPPORTED

    @pytest.mark.parametrize("style", Style)
    @pytest.mark.parametrize("shell", ["sh", "bash"])
    def test_a_runtime_is_answered(self, orphan: Path, tmp_path: Path, shell: str, style: Style) -> None:
        """The script alone registers and answers: long settings, a list, events of any size, to the end."""
        program = shutil.which(shell)
        assert program is not None

        @in_loop
        async def play() -> None:
            path = tmp_path / "nri.sock"
            config = "#" * 9000
            async with launched(orphan, path, program, style=style, config=config) as (runtime, process):
                peer = await runtime.synchronized()
                assert (peer.name, peer.idx) == ("resctrl", "10")
                for size in (0, 100, 3000, 4096, 9000):
                    await runtime.run_pod(PodSandbox(id=f"s{size}", uid="u", labels={"x": "y" * size}))
                assert runtime.dropped == []
                assert not process.ended()
                await runtime.stop()
                await until(process.ended, "it ended", 10)
                assert process.status == Exit.UNSUPPORTED

        play()
