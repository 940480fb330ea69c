"""What a launched plugin says before its packages are loaded."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from nri_resctrl_plugin.demo.runtime import RuntimeSide, Style
from nri_resctrl_plugin.nri import ahead, mux, service, session
from nri_resctrl_plugin.nri.ahead import Ahead
from nri_resctrl_plugin.nri.messages import Container, PodSandbox
from nri_resctrl_plugin.nri.stub import NriStub
from nri_resctrl_plugin.nri.transport import Trunk
from tests.nri_support import RecordingHandler, in_loop, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

POD = PodSandbox(id="sandbox", uid="uid")
CONTAINER = Container(id="container", pod_sandbox_id="sandbox", pid=77)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "nri.sock"


def launched(path: Path) -> Ahead:
    """Connect as the runtime would have, and speak."""
    side = socket.socket(socket.AF_UNIX)
    side.connect(str(path))
    early = Ahead(side.detach(), "resctrl", "07")
    early.begin()
    return early


@asynccontextmanager
async def served(early: Ahead, handler: RecordingHandler) -> AsyncIterator[NriStub]:
    """Let the stub take over."""
    stub = NriStub(handler, name="resctrl", idx="07", ahead=early)
    task = asyncio.create_task(stub.run())
    try:
        yield stub
    finally:
        await stub.close()
        await task


def test_it_says_what_the_stub_would() -> None:
    """The mask and the version, spelled out here for a quick start, are those of the rest of the package."""
    assert ahead.EVENT_MASK == service.EVENT_MASK
    assert ahead.NRI_VERSION == session._NRI_VERSION


def test_it_needs_nothing_but_the_standard_library() -> None:
    """Of the distribution it loads two small modules, and of others none."""
    script = (
        "import sys\n"
        "import nri_resctrl_plugin.nri.ahead\n"
        "tops = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(tops - sys.stdlib_module_names - {'__main__', 'nri_resctrl_plugin'}))\n"
        "print(sorted(name for name in sys.modules if name.startswith('nri_resctrl_plugin')))\n"
        "print('asyncio' in sys.modules, 'argparse' in sys.modules)\n"
    )
    out = subprocess.run([sys.executable, "-S", "-c", script], check=True, capture_output=True, text=True)
    others, ours, slow = out.stdout.splitlines()
    assert others == "[]"
    assert ours == str([
        "nri_resctrl_plugin", "nri_resctrl_plugin.nri", "nri_resctrl_plugin.nri.ahead",
        "nri_resctrl_plugin.nri.mux", "nri_resctrl_plugin.nri.wire",
    ])  # fmt: skip
    assert slow == "False False"


@in_loop
async def test_settings_and_list_before_anybody_takes_over(path: Path) -> None:
    """The runtime registers it, gets its answers, and whoever takes over hears all of it, once."""
    async with RuntimeSide(path, config="group_prefix: early_\n", part_bytes=200) as runtime:
        runtime.pods[POD.id] = POD
        runtime.containers.update({f"c{n}": Container(id=f"c{n}", pod_sandbox_id=POD.id) for n in range(20)})
        early = launched(path)
        peer = await runtime.synchronized()
        assert (peer.name, peer.idx) == ("resctrl", "07")
        assert await asyncio.to_thread(early.settings, 5.0) == "group_prefix: early_\n"

        handler = RecordingHandler()
        async with served(early, handler):
            await until(lambda: handler.names == ["configure", "synchronize"], "it hears what was told")
            assert handler.args("configure")[0].config == "group_prefix: early_\n"
            pods, containers = handler.args("synchronize")
            assert [pod.id for pod in pods] == [POD.id]
            assert len(containers) == 20
            await runtime.run_pod(PodSandbox(id="later", uid="later"))
            assert handler.names[-1] == "run_pod_sandbox"
            assert runtime.dropped == []


@pytest.mark.parametrize("style", Style)
def test_events_before_anybody_takes_over(path: Path, style: Style) -> None:
    """An event is answered though nobody acts on it yet; then it is acted on, and not answered again."""

    @in_loop
    async def play() -> None:
        async with RuntimeSide(path, style=style) as runtime:
            early = launched(path)
            await runtime.synchronized()
            await runtime.run_pod(POD)
            await runtime.start_container(CONTAINER)
            handler = RecordingHandler()
            async with served(early, handler):
                await until(lambda: "start_container" in handler.names, "it hears the events")
                assert handler.names == ["configure", "synchronize", "run_pod_sandbox", "start_container"]
                await runtime.stop_container(CONTAINER.id)
                assert runtime.dropped == []

    play()


@in_loop
async def test_an_event_that_is_not_due_is_answered_by_whoever_takes_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer waits for the handler, as ever."""
    monkeypatch.setattr(ahead, "PATIENCE", 60.0)
    async with RuntimeSide(path) as runtime:
        early = launched(path)
        await runtime.synchronized()
        event = asyncio.create_task(runtime.run_pod(POD))
        await until(lambda: b"RunPodSandbox" in bytes(early._kept), "the event has arrived")
        gate = asyncio.Event()
        handler = RecordingHandler()
        handler.hooks["run_pod_sandbox"] = lambda *_: gate.wait()  # type: ignore[assignment]
        async with served(early, handler):
            await until(lambda: "run_pod_sandbox" in handler.names, "it hears the event")
            assert not event.done()
            gate.set()
            await event
            assert runtime.dropped == []


@in_loop
async def test_idle(path: Path) -> None:
    """A plugin that can do nothing answers everything with success until the runtime closes."""
    async with RuntimeSide(path) as runtime:
        early = launched(path)
        idle = asyncio.create_task(asyncio.to_thread(early.idle))
        await runtime.synchronized()
        began = asyncio.get_running_loop().time()
        for number in range(50):
            pod = PodSandbox(id=f"s{number}", uid=f"u{number}")
            await runtime.run_pod(pod)
        assert asyncio.get_running_loop().time() - began < 50 * ahead.PATIENCE / 2, "each waited"
        assert runtime.dropped == []
        assert not idle.done()
        assert len(early._kept) < 4096, "nothing is kept for anybody"
    await asyncio.wait_for(idle, 5)


@in_loop
async def test_what_is_kept_has_a_limit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it nothing more is read until somebody takes over; then everything is heard."""
    monkeypatch.setattr(ahead, "KEPT_BYTES", 1000)
    monkeypatch.setattr(ahead, "PATIENCE", 60.0)
    async with RuntimeSide(path) as runtime:
        early = launched(path)
        await runtime.synchronized()
        pod = PodSandbox(id="sandbox", uid="uid", labels={"x": "y" * 2_000_000})
        event = asyncio.create_task(runtime.run_pod(pod))
        await until(lambda: len(early._kept) >= 1000, "the limit is reached")
        await asyncio.sleep(0.05)  # time in which it must not read
        assert len(early._kept) < 1000 + (1 << 16)
        handler = RecordingHandler()
        async with served(early, handler):
            await event
            assert handler.args("run_pod_sandbox")[0].labels == pod.labels


@pytest.mark.parametrize(
    "nonsense",
    [
        (1).to_bytes(4, "big") + b"\xff\xff\xff\xff",  # a frame longer than any
        mux.frames(1, b"\xff\xff\xff\xff" + b"\0\0\0\1" + b"\1\0"),  # a message longer than any
        mux.frames(1, b"\0\0\0\2" + b"\0\0\0\1" + b"\1\0" + b"\xff\xff"),  # a body that is no protobuf
    ],
)
def test_nonsense_is_left_to_whoever_takes_over(nonsense: bytes) -> None:
    """It answers nothing to it, keeps it, and where nobody takes over it ends."""
    left, right = socket.socketpair()
    with right:
        early = Ahead(left.detach(), "resctrl", "07")
        early.begin()
        right.sendall(nonsense)
        assert early.settings(0.05) is None
        early._heard.clear()
        early.idle()
    left, right = socket.socketpair()
    with right, socket.socket(fileno=left.detach()) as mine:
        early = Ahead(mine.fileno(), "resctrl", "07")
        early.begin()
        right.sendall(nonsense)
        while len(early._kept) < len(nonsense):
            early._heard.wait(0.001)
        assert early.take() == (nonsense, frozenset({(2, 1)}))


def test_a_runtime_that_is_gone() -> None:
    """No Configure will come: whoever waits for it is told at once."""
    left, right = socket.socketpair()
    early = Ahead(left.fileno(), "resctrl", "07")
    early.begin()
    right.close()
    assert early.settings(30.0) is None
    early.idle()
    left.close()


def test_a_descriptor_that_is_none() -> None:
    """It says so, and no thread is left behind."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        Ahead(987, "resctrl", "07").begin()


@in_loop
async def test_what_is_said_is_not_said_again() -> None:
    """Only the first message of each stream that was spoken is dropped: later ones leave."""
    left, right = socket.socketpair()
    trunk = await Trunk.inherit(left.detach(), ahead.Said(b"", frozenset({(1, 1)})))
    message = b"\0\0\0\0" + b"\0\0\0\1" + b"\2\0"
    await trunk._send(1, message)
    await trunk._send(2, message)
    await trunk._send(1, message)
    await trunk.close()
    with right:
        assert right.recv(4096) == mux.frames(2, message) + mux.frames(1, message)
