"""The examples are short, and do what they say."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import pytest
import structlog

from nri_resctrl_plugin import ResctrlPlugin
from nri_resctrl_plugin.demo.runtime import RuntimeSide
from nri_resctrl_plugin.jsonl import payload
from resctrl import Resctrl, ResctrlConfig, Sampler, Tid
from resctrl.testing import FakeFs, FakePidSource, FaultyFs
from tests.plugin_support import DEADLINE, cgroup_of, container, pod

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import ModuleType

EXAMPLES: Final = Path(__file__).resolve().parents[2] / "docs" / "examples"
LONGEST: Final = 40


def example(name: str) -> ModuleType:
    """Load an example, as its user would run it but for its last lines."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lives(tid: int) -> bool:
    """Tell whether a thread lives, a zombie not counted."""
    try:
        return "State:\tZ" not in Path(f"/proc/{tid}/status").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("name", ["agent", "monitor_pid"])
def test_it_is_short(name: str) -> None:
    """It fits on a page."""
    lines = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LONGEST


def test_monitor_pid_follows_a_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each second, with rates from the second on; at the end the group is gone again."""
    kernel = FakeFs(alive=lives, limbo=1.0)
    resctrl = Resctrl.with_provider(kernel, ResctrlConfig(group_prefix="watch_"))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        seconds = iter(range(3))

        def sleep(_: float) -> None:
            if next(seconds) < 2:
                kernel.move_bytes(Tid(process.pid), 5_000_000, local=1_000_000)
            else:
                process.kill()
                process.wait()

        monkeypatch.setattr(time, "sleep", sleep)
        example("monitor_pid").monitor(resctrl, process.pid)
    said = capsys.readouterr()
    first, second, third = map(json.loads, said.out.splitlines())
    assert first == {"llc_occupancy": 65536, "mbm_local_bytes": 0, "mbm_total_bytes": 0}
    assert (second["mbm_total_bytes"], third["mbm_total_bytes"]) == (5_000_000, 10_000_000)
    assert second["bytes_per_second"] > 0
    assert third["mbm_local_bytes"] == 2_000_000
    assert said.err == f"process {process.pid} has ended\n"
    assert resctrl.list_groups() == []


@pytest.mark.parametrize("kind", [FileNotFoundError, ProcessLookupError])
def test_monitor_pid_takes_an_end_at_any_moment(monkeypatch: pytest.MonkeyPatch, kind: type[OSError]) -> None:
    """A process that ends while its threads are listed has none; it is no traceback."""

    def ended(_: object) -> NoReturn:
        raise kind

    threads = example("monitor_pid").threads
    assert Tid(os.getpid()) in threads(os.getpid())
    monkeypatch.setattr(os, "listdir", ended)
    monkeypatch.setattr(os, "scandir", ended)
    assert threads(os.getpid()) == []


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the seconds of cadences be milliseconds: what a test waits for is a condition."""
    sleep = asyncio.sleep

    async def nap(delay: float, result: object = None) -> object:
        return await sleep(delay / 100, result)

    monkeypatch.setattr(asyncio, "sleep", nap)


@pytest.fixture
def as_json() -> Iterator[None]:
    """Print the log as the example's last lines have it."""
    structlog.configure(processors=[structlog.processors.JSONRenderer(default=payload)])
    yield
    structlog.reset_defaults()


class Node:
    """A node with room for two groups, and an agent on it."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.kernel = FakeFs(num_rmids=3, limbo=0.0)
        self.fs = FaultyFs(self.kernel)
        self.resctrl = Resctrl.with_provider(self.fs)
        self.threads = FakePidSource()
        self.plugin = ResctrlPlugin.with_pid_source(None, self.resctrl, self.threads)
        self.runtime = RuntimeSide(directory / "nri.sock")
        self.sampler = Sampler(self.resctrl)
        self._capsys = capsys

    @contextlib.asynccontextmanager
    async def agent(self) -> AsyncIterator[None]:
        """Run the example; its sampler is closed after its last thread has ended, as at the example's end."""
        run = functools.partial(self.plugin.run, socket_path=self.runtime.socket_path)
        self.plugin.run = run  # type: ignore[method-assign]
        with self.sampler:
            async with self.runtime:
                agent = asyncio.create_task(example("agent").agent(self.plugin, self.sampler))
                try:
                    await self.runtime.synchronized()
                    yield
                finally:
                    agent.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await agent
                    await asyncio.get_running_loop().shutdown_default_executor()

    async def start(self, uid: str) -> Tid:
        """Start a pod with one container of one thread."""
        tid = self.kernel.spawn()
        self.threads.set(cgroup_of(uid), [tid])
        await self.runtime.run_pod(pod(uid))
        await self.runtime.start_container(container(uid, f"sb-{uid}"))
        return tid

    async def end(self, uid: str) -> None:
        """End it."""
        await self.runtime.stop_pod(f"sb-{uid}")
        await self.runtime.remove_pod(f"sb-{uid}")

    async def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until the agent prints a line of which something is true; what came with it is read over."""
        async with asyncio.timeout(DEADLINE):
            while True:
                new: list[dict[str, Any]] = [
                    json.loads(line) for line in self._capsys.readouterr().out.splitlines()
                ]
                for line in new:
                    if holds(line):
                        return line
                await asyncio.sleep(0.1)


def sample_of(uid: str) -> Callable[[dict[str, Any]], bool]:
    """Return what is true of a sample of a pod."""
    return lambda line: line["event"] == "sample" and line["pod"] == uid


def moved(line: dict[str, Any]) -> int:
    """Return how many bytes a sample tells of."""
    amount: int = line["mbm_total_bytes"]["amount"]
    return amount


def news_of(uid: str, kind: str) -> Callable[[dict[str, Any]], bool]:
    """Return what is true of the news that a pod's group is so, or the pod gone."""

    def holds(line: dict[str, Any]) -> bool:
        told = line.get("told", {"pod_uid": None})
        return told["pod_uid"] == uid and kind in {told["type"], told.get("group_state", {}).get("type")}

    return holds


@pytest.mark.usefixtures("hasty", "as_json")
def test_the_agent_follows_samples_and_retries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pods come over the wire and are sampled; one that is refused gets its group when there is room."""

    async def life() -> None:
        node = Node(tmp_path, capsys)
        async with node.agent():
            thread = await node.start("web")
            await node.start("db")
            told = await node.until(sample_of("web"))
            assert told["mbm_total_bytes"] == {"amount": 0, "complete": True, "missing": []}
            node.kernel.move_bytes(thread, 7_000_000)
            await node.until(lambda line: sample_of("web")(line) and moved(line) == 7_000_000)
            node.kernel.set_reading(node.resctrl.group_path("web"), "mbm_total_bytes", "Unavailable")
            await node.until(
                lambda line: sample_of("web")(line) and line["mbm_total_bytes"]["complete"] is False
            )
            await node.start("batch")
            refused = await node.until(news_of("batch", "Failed"))
            assert "Out of RMIDs" in refused["told"]["group_state"]["reason"]
            await node.end("db")
            await node.until(news_of("db", "Removed"))
            await node.until(sample_of("batch"))  # nobody else has tried its group again
            assert {group.name for group in node.sampler.groups} == {"pod_web", "pod_batch"}

    asyncio.run(life())


@pytest.mark.usefixtures("hasty", "as_json")
def test_a_kernel_that_hangs_does_not_stop_the_agent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While a counter is not answered, pods are still served, and events told: no loop waits for a sample."""
    asked, answer = threading.Event(), threading.Event()
    answered = []

    def hang(_: Path) -> None:
        asked.set()
        answered.append(answer.wait(DEADLINE))

    async def life() -> None:
        node = Node(tmp_path, capsys)
        async with node.agent():
            await node.start("web")
            await node.until(sample_of("web"))
            node.fs.before("read_page", hang)
            assert await asyncio.to_thread(asked.wait, DEADLINE)
            await node.start("db")
            await node.until(
                lambda line: news_of("db", "Exists")(line) and line["told"]["reconciled_containers"]
            )
            answer.set()
            await node.until(sample_of("db"))
            assert answered == [True]

    asyncio.run(life())


@pytest.mark.usefixtures("hasty", "as_json")
def test_the_agent_can_be_tried_anywhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The node in memory shows it all: samples, a refusal, and the retry that succeeds."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "agent", raising=False)
    demo = example("agent_demo")
    monkeypatch.setattr(demo, "SECONDS", 100)
    monkeypatch.setattr(demo, "LIMBO", 0.01)
    demo.main()
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    first, *_, last = [line["told"] for line in told if news_of("batch", "AddOrUpdate")(line)]
    assert first["group_state"]["type"] == "Failed"
    assert (last["group_state"]["type"], last["reconciled_containers"]) == ("Exists", 1)
    assert {line["pod"] for line in told if line["event"] == "sample"} == {"web", "db", "batch"}
    assert max(moved(line) for line in told if sample_of("web")(line)) > 50_000_000
