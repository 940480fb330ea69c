"""The stub against the runtime's side, over a real unix socket."""

from __future__ import annotations

import asyncio
import itertools
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from structlog.testing import capture_logs

from nri_resctrl_plugin.demo.encode import container_message, pod_message
from nri_resctrl_plugin.demo.runtime import RuntimeSide, Style
from nri_resctrl_plugin.nri import api, mux, transport
from nri_resctrl_plugin.nri.errors import (
    ConnectionLostError,
    HandshakeError,
    RegistrationError,
    UnreachableError,
)
from nri_resctrl_plugin.nri.messages import Container, ContainerStatus, PodSandbox
from nri_resctrl_plugin.nri.stub import Backoff, Handshake, Link, LinkState, NriStub
from nri_resctrl_plugin.nri.wire import WireError
from tests.nri_support import RecordingHandler, in_loop, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

FAST = Backoff(first=0.01, limit=0.05, after_kick=0.02)
POD = PodSandbox(id="sb0", uid="uid0", name="web", namespace="default", labels={"app": "web"})
CONTAINER = Container(id="c0", pod_sandbox_id="sb0", name="main", state=ContainerStatus.RUNNING, pid=4242)
EVENTS = [
    "run_pod_sandbox",
    "start_container",
    "update_container",
    "stop_container",
    "remove_container",
    "stop_pod_sandbox",
    "remove_pod_sandbox",
]


class Running:
    """A stub that runs.

    Attributes:
        links: What it told of its connection.
    """

    def __init__(self, socket_path: Path | None, handler: RecordingHandler, **options: object) -> None:
        self.handler = handler
        self.links: list[Link] = []
        arguments = {"backoff": FAST, "name": "resctrl", "idx": "10", "on_link": self.links.append}
        if socket_path is not None:
            arguments["socket_path"] = socket_path
        self.stub = NriStub(handler, **(arguments | options))  # type: ignore[arg-type]
        self.task = asyncio.create_task(self.stub.run())


@asynccontextmanager
async def running(
    socket_path: Path | None, handler: RecordingHandler | None = None, **options: object
) -> AsyncIterator[Running]:
    """Run a stub, and close it at the end."""
    run = Running(socket_path, handler or RecordingHandler(), **options)
    try:
        yield run
    finally:
        await run.stub.close()
        await asyncio.wait({run.task})
        run.task.cancelled() or run.task.exception()  # the test has looked at it, or does not care


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the runtime listens."""
    return tmp_path / "nri.sock"


async def live(runtime: RuntimeSide) -> None:
    """Let one pod with one container live its life."""
    await runtime.run_pod(POD)
    await runtime.start_container(CONTAINER)
    await runtime.update_container("c0")
    await runtime.stop_container("c0")
    await runtime.remove_container("c0")
    await runtime.stop_pod("sb0")
    await runtime.remove_pod("sb0")


class TestTelling:
    """From the runtime's mouth to the handler's ear."""

    @pytest.mark.parametrize("style", Style)
    @in_loop
    async def test_both_styles_reach_the_same_handlers(self, path: Path, style: Style) -> None:
        """A pod's life is told completely and in order, by calls of their own and by StateChange."""
        async with RuntimeSide(path, style=style) as runtime, running(path) as run:
            await runtime.synchronized()
            await live(runtime)
            assert run.handler.names == ["configure", "synchronize", *EVENTS]
            assert run.handler.args("start_container") == (POD, CONTAINER)
            assert run.handler.args("remove_container") == (POD, CONTAINER)
            assert run.handler.args("stop_pod_sandbox") == (POD,)
            assert runtime.dropped == []

    @in_loop
    async def test_the_registration(self, path: Path) -> None:
        """Name, index and version are told; exactly six kinds of event are asked for, none beyond 11."""
        async with RuntimeSide(path) as runtime, running(path, name="my.plugin", idx="05"):
            peer = await runtime.synchronized()
            assert (peer.name, peer.idx, peer.nri_version) == ("my.plugin", "05", "v0.12.2")
            assert peer.events == 0x1 + 0x2 + 0x4 + 0x20 + 0x200 + 0x400

    @in_loop
    async def test_configure_tells_the_runtime(self, path: Path) -> None:
        """Identity, timeouts and configuration arrive as values."""
        runtime = RuntimeSide(
            path, name="containerd", version="v2.3.1", nri_version="", config="a: b", request_timeout=3
        )
        async with runtime, running(path) as run:
            await runtime.synchronized()
            (info,) = run.handler.args("configure")
            assert (info.name, info.version, info.nri_version, info.config) == (
                "containerd",
                "v2.3.1",
                "",
                "a: b",
            )
            assert (info.request_timeout, info.registration_timeout) == (3.0, 5.0)

    @in_loop
    async def test_an_empty_pod_is_none(self, path: Path) -> None:
        """A container whose sandbox the runtime no longer knows is told with no pod."""
        async with RuntimeSide(path) as runtime, running(path) as run:
            await runtime.synchronized()
            await runtime.start_container(CONTAINER)
            assert run.handler.args("start_container") == (None, CONTAINER)

    @in_loop
    async def test_the_style_and_the_runtime_are_logged_once(self, path: Path) -> None:
        """One record names the runtime, one the style of delivery."""
        async with RuntimeSide(path, name="cri-o", version="1.34.0", style=Style.STATE_CHANGE) as runtime:
            with capture_logs() as logs:
                async with running(path):
                    await runtime.synchronized()
                    await live(runtime)
            styles = [log for log in logs if log["event"] == "event_delivery"]
            assert [log["style"] for log in styles] == ["StateChange"]
            (configured,) = [log for log in logs if log["event"] == "configured"]
            assert (configured["runtime"], configured["version"]) == ("cri-o", "1.34.0")


class TestSynchronize:
    """The list of what exists."""

    @staticmethod
    def crowd(runtime: RuntimeSide, pods: int, containers: int, size: int = 0) -> None:
        """Let many pods and containers exist."""
        filler = {"filler": "x" * size}
        for number in range(pods):
            runtime.pods[f"sb{number}"] = PodSandbox(id=f"sb{number}", uid=f"u{number}", labels=filler)
        for number in range(containers):
            runtime.containers[f"c{number}"] = Container(
                id=f"c{number}", pod_sandbox_id=f"sb{number % pods}", labels=filler
            )

    @in_loop
    async def test_a_split_list_is_handed_on_once_and_whole(self, path: Path) -> None:
        """Many parts, cut so that containers come before their pods, arrive as one list."""
        async with RuntimeSide(path, part_bytes=400) as runtime:
            self.crowd(runtime, 40, 100)
            async with running(path) as run:
                await runtime.synchronized()
                await until(lambda: "synchronize" in run.handler.finished, "synchronize was handled")
                pods, containers = run.handler.args("synchronize")
                assert [pod.id for pod in pods] == list(runtime.pods)
                assert [container.id for container in containers] == list(runtime.containers)
                assert run.handler.names.count("synchronize") == 1

    @in_loop
    async def test_real_sizes(self, path: Path) -> None:
        """12 MB in messages of 4 MiB arrive whole."""
        async with RuntimeSide(path) as runtime:
            self.crowd(runtime, 100, 500, size=20_000)
            async with running(path) as run:
                await runtime.synchronized()
                await until(lambda: "synchronize" in run.handler.finished, "synchronize was handled")
                pods, containers = run.handler.args("synchronize")
                assert (len(pods), len(containers)) == (100, 500)

    @in_loop
    async def test_the_answer_does_not_wait_for_the_handler(self, path: Path) -> None:
        """A handler that works long on the list holds up nothing; events wait behind it, answered."""
        handler, gate = RecordingHandler(), asyncio.Event()

        async def work(*_: object) -> None:
            await gate.wait()

        handler.hooks["synchronize"] = work
        async with RuntimeSide(path, request_timeout=10, told_timeout=0.3) as runtime, running(path, handler):
            await runtime.synchronized()
            await runtime.run_pod(POD)
            assert "run_pod_sandbox" not in handler.names
            gate.set()
            await until(lambda: "run_pod_sandbox" in handler.finished, "the event was handled")
            assert handler.names == ["configure", "synchronize", "run_pod_sandbox"]
            assert runtime.dropped == []

    @in_loop
    async def test_what_cannot_be_decoded_is_counted_and_the_rest_told(self, path: Path) -> None:
        """A broken pod or container in the list costs itself alone."""
        handler = RecordingHandler()
        good = bytes(pod_message(POD)), bytes(container_message(CONTAINER))

        async def script(scripted: Scripted) -> None:
            await scripted.handshake()
            await scripted.plugin.synchronize(
                api.SynchronizeRequest(pods=[b"\x0a\x09x", good[0], b""], containers=[good[1], b"\x0b"])
            )
            await until(lambda: handler.finished[-1:] == ["synchronize"], "the list was handed on")

        with capture_logs() as logs:
            async with scripted_runtime(path, script) as done, running(path, handler):
                await done
        assert handler.args("synchronize") == ([POD], [CONTAINER])
        (record,) = [log for log in logs if log["event"] == "synchronize_undecodable"]
        assert (record["pods"], record["containers"]) == (2, 1)

    @in_loop
    async def test_more_is_echoed_and_nothing_is_told_of_a_part(self, path: Path) -> None:
        """Each part's answer says `more` as the part did; a list that breaks off is never told."""
        handler = RecordingHandler()
        rounds = itertools.count()

        async def script(scripted: Scripted) -> None:
            first = next(rounds) == 0
            await scripted.handshake()
            name = "old" if first else "new"
            part = api.SynchronizeRequest(pods=[bytes(pod_message(PodSandbox(id=name)))], more=True)
            assert (await scripted.plugin.synchronize(part)).more
            if first:
                return  # and hang up
            last = await scripted.plugin.synchronize(api.SynchronizeRequest(more=False))
            assert not last.more
            await until(lambda: "synchronize" in handler.finished, "the list was handed on")

        async with scripted_runtime(path, script, connections=2) as done, running(path, handler):
            await done
        assert handler.names.count("synchronize") == 1
        assert [pod.id for pod in handler.args("synchronize")[0]] == ["new"]

    @in_loop
    async def test_each_list_is_told_by_itself(self, path: Path) -> None:
        """No runtime sends a second list on a connection; if one did, it would not hold the first again."""
        handler = RecordingHandler()

        async def script(scripted: Scripted) -> None:
            await scripted.handshake()
            for _ in range(2):
                await scripted.plugin.synchronize(
                    api.SynchronizeRequest(
                        pods=[bytes(pod_message(POD))], containers=[bytes(container_message(CONTAINER))]
                    )
                )
            await until(lambda: handler.finished.count("synchronize") == 2, "both were handed on")

        with capture_logs() as logs:
            async with scripted_runtime(path, script) as done, running(path, handler):
                await done
        assert [args for name, args in handler.told if name == "synchronize"] == [([POD], [CONTAINER])] * 2
        assert "synchronize_undecodable" not in [log["event"] for log in logs]

    @in_loop
    async def test_no_event_overtakes_the_list(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An event that comes while the answer to the list is still being written waits behind the list."""
        handler, gate = RecordingHandler(), asyncio.Event()
        real = transport.Trunk._send
        written = asyncio.Event()

        async def slow(trunk: transport.Trunk, conn: int, message: bytes) -> None:
            await real(trunk, conn, message)
            if conn == mux.PLUGIN_CONN and len(message) == 10 and not written.is_set():
                written.set()  # the empty answer to the list; that it has left is not known yet
                await gate.wait()

        async def script(scripted: Scripted) -> None:
            await scripted.handshake()
            await scripted.plugin.synchronize(api.SynchronizeRequest())
            await written.wait()
            event = api.RunPodSandboxRequest(pod=pod_message(POD))
            call = asyncio.create_task(scripted.plugin.run_pod_sandbox(event))
            await until(lambda: scripted.channel._pending, "the event is on its way")
            await asyncio.sleep(0.05)  # time enough to overtake
            assert handler.names == ["configure"]
            gate.set()
            await call

        monkeypatch.setattr(transport.Trunk, "_send", slow)
        async with scripted_runtime(path, script) as done, running(path, handler):
            await done
        assert handler.names == ["configure", "synchronize", "run_pod_sandbox"]

    @in_loop
    async def test_a_list_whose_answer_never_left_is_dropped(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A connection that ends before the answer has left takes its list along, and blocks nothing."""
        handler = RecordingHandler()
        rounds = itertools.count()
        real = transport.Trunk._send

        stuck_once = itertools.count()

        async def stuck(trunk: transport.Trunk, conn: int, message: bytes) -> None:
            if conn == mux.PLUGIN_CONN and len(message) == 10 and next(stuck_once) == 0:
                await asyncio.Event().wait()
            await real(trunk, conn, message)

        async def script(scripted: Scripted) -> None:
            first = next(rounds) == 0
            await scripted.handshake()
            name = "old" if first else "new"
            request = api.SynchronizeRequest(pods=[bytes(pod_message(PodSandbox(id=name)))])
            if first:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(scripted.plugin.synchronize(request), 0.1)
            else:
                await scripted.plugin.synchronize(request)
                await until(lambda: "synchronize" in handler.finished, "the list was handed on")

        monkeypatch.setattr(transport.Trunk, "_send", stuck)
        async with scripted_runtime(path, script, connections=2) as done, running(path, handler):
            await done
        assert [args[0][0].id for name, args in handler.told if name == "synchronize"] == ["new"]

    @in_loop
    async def test_a_list_that_was_answered_late_ends_the_connection(self, path: Path) -> None:
        """All parts together have one request timeout; after that the plugin hangs up and connects again.

        NRI before 0.7 never tells such a plugin anything again and does not hang up either.
        """
        handler = RecordingHandler()
        rounds = itertools.count()

        async def script(scripted: Scripted) -> None:
            late = next(rounds) == 0
            await scripted.handshake(request_timeout=200)
            await scripted.plugin.synchronize(api.SynchronizeRequest(more=True))
            if late:
                await asyncio.sleep(0.25)  # the time that passes is the test
            await scripted.plugin.synchronize(api.SynchronizeRequest())
            if late:
                await asyncio.wait_for(scripted.reading, 5)
            else:
                await until(lambda: "synchronize" in handler.finished, "the list was handed on")

        with capture_logs() as logs:
            async with scripted_runtime(path, script, connections=2) as done, running(path, handler) as run:
                await done
        assert handler.names == ["configure", "configure", "synchronize"]
        assert "synchronize_answered_late" in [log["event"] for log in logs]
        (down,) = [link for link in run.links if link.state is LinkState.DOWN][:1]
        assert "too late" in down.reason


class TestDeadlines:
    """Whatever a handler does, the runtime is answered in time and without an error."""

    @pytest.mark.parametrize("style", Style)
    @in_loop
    async def test_a_slow_handler_is_answered_for(self, path: Path, style: Style) -> None:
        """The plugin is not dropped; what follows waits its turn and is answered too."""
        handler, gate = RecordingHandler(), asyncio.Event()

        async def work(*_: object) -> None:
            await gate.wait()

        handler.hooks["run_pod_sandbox"] = work
        async with (
            RuntimeSide(path, style=style, request_timeout=10, told_timeout=0.2) as runtime,
            running(path, handler),
        ):
            await runtime.synchronized()
            await live(runtime)
            assert handler.names[-1] == "run_pod_sandbox"
            assert runtime.dropped == []
            gate.set()
            await until(lambda: len(handler.finished) == 2 + len(EVENTS), "all was handled")
            assert handler.names == ["configure", "synchronize", *EVENTS]

    @pytest.mark.parametrize("style", Style)
    @in_loop
    async def test_a_failing_handler_is_answered_for(self, path: Path, style: Style) -> None:
        """An exception in every handler reaches no runtime; every event is told all the same."""
        handler = RecordingHandler()

        async def fail(*_: object) -> None:
            raise RuntimeError("the handler's own business")

        handler.hooks = dict.fromkeys([*EVENTS, "synchronize"], fail)
        async with RuntimeSide(path, style=style) as runtime, running(path, handler):
            await runtime.synchronized()
            await live(runtime)
            assert handler.names == ["configure", "synchronize", *EVENTS]
            assert runtime.dropped == []

    @in_loop
    async def test_a_slow_configure_is_answered_with_the_mask(self, path: Path) -> None:
        """Empty would mean "every event" and make the plugin a validator; the mask is sent instead."""
        handler, gate = RecordingHandler(), asyncio.Event()

        async def work(*_: object) -> None:
            await gate.wait()

        handler.hooks["configure"] = work
        runtime = RuntimeSide(path, request_timeout=10)
        async with runtime, running(path, handler):
            peer = await runtime.synchronized()
            assert peer.events == 0x627
            assert handler.finished == []
            gate.set()
            await until(lambda: "synchronize" in handler.finished, "the list followed")

    @in_loop
    async def test_the_runtimes_timeout_is_used(self, path: Path) -> None:
        """What Configure says of the request timeout holds for calls that tell none themselves."""
        handler, gate = RecordingHandler(), asyncio.Event()

        async def work(*_: object) -> None:
            await gate.wait()

        handler.hooks["run_pod_sandbox"] = work
        took = []

        async def script(scripted: Scripted) -> None:
            await scripted.handshake(request_timeout=200)
            loop = asyncio.get_running_loop()
            began = loop.time()
            await scripted.plugin.run_pod_sandbox(api.RunPodSandboxRequest(pod=pod_message(POD)))
            took.append(loop.time() - began)
            gate.set()

        async with scripted_runtime(path, script) as done, running(path, handler):
            await done
        assert 0.1 < took[0] < 2.0, "not the 2 s that NRI has by default"


class TestOddities:
    """What a runtime may send although it makes little sense."""

    @in_loop
    async def test_strange_events_are_answered_and_ignored(self, path: Path) -> None:
        """Unknown kinds, kinds without a pod or container, Shutdown: OK each time; unknown calls: code 12."""
        handler = RecordingHandler()

        async def script(scripted: Scripted) -> None:
            await scripted.handshake()
            pod, container = pod_message(POD), container_message(CONTAINER)
            change = scripted.plugin.state_change
            for event in (api.Event.UNKNOWN, api.Event.POST_START_CONTAINER, api.Event(77)):
                await change(api.StateChangeEvent(event=event, pod=pod, container=container))
            await change(api.StateChangeEvent(event=api.Event.RUN_POD_SANDBOX))
            await change(api.StateChangeEvent(event=api.Event.RUN_POD_SANDBOX, pod=api.PodSandbox()))
            await change(api.StateChangeEvent(event=api.Event.START_CONTAINER, pod=pod))
            await scripted.plugin.start_container(api.StartContainerRequest())
            await scripted.plugin.shutdown()
            with pytest.raises(GRPCError) as caught:
                await scripted.channel.call("/nri.pkg.api.v1alpha1.Plugin/CreateContainer", b"", 1)
            assert caught.value.status is Status.UNIMPLEMENTED

        async with scripted_runtime(path, script) as done, running(path, handler):
            await done
        assert handler.names == ["configure"]

    @in_loop
    async def test_duplicates_are_told_as_often_as_they_come(self, path: Path) -> None:
        """The wire does not filter: that an event may repeat is the handler's business."""
        async with RuntimeSide(path) as runtime, running(path) as run:
            await runtime.synchronized()
            await runtime.run_pod(POD)
            await runtime.stop_pod("sb0")
            await runtime.stop_pod("sb0")
            assert run.handler.names[2:] == ["run_pod_sandbox", "stop_pod_sandbox", "stop_pod_sandbox"]

    @in_loop
    async def test_a_call_that_the_runtime_gave_up_does_not_disturb(self, path: Path) -> None:
        """A runtime may give up a call without hanging up and send the next: both are handled, in order."""
        handler, gate = RecordingHandler(), asyncio.Event()

        async def work(*_: object) -> None:
            await gate.wait()

        handler.hooks["run_pod_sandbox"] = work

        async def script(scripted: Scripted) -> None:
            await scripted.handshake()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await scripted.plugin.run_pod_sandbox(api.RunPodSandboxRequest(pod=pod_message(POD)))
            stop = scripted.plugin.stop_pod_sandbox(api.StopPodSandboxRequest(pod=pod_message(POD)))
            follow = asyncio.create_task(stop)
            await until(lambda: scripted.channel._pending, "the next call is on its way")
            gate.set()
            await follow

        async with scripted_runtime(path, script) as done, running(path, handler):
            await done
        assert handler.finished == ["configure", "run_pod_sandbox", "stop_pod_sandbox"]


class TestReconnecting:
    """Connections end, the plugin comes back."""

    @in_loop
    async def test_after_a_drop_everything_begins_anew(self, path: Path) -> None:
        """A new connection brings Configure, a whole list, and events; links tell the story."""
        async with RuntimeSide(path) as runtime, running(path) as run:
            runtime.pods["sb0"] = POD
            await runtime.synchronized()
            await runtime.drop()
            await runtime.gone()
            await runtime.synchronized()
            await runtime.start_container(CONTAINER)
            assert run.handler.names == [
                "configure",
                "synchronize",
                "configure",
                "synchronize",
                "start_container",
            ]
            assert [link.state.name for link in run.links] == [
                "CONFIGURED",
                "SYNCHRONIZED",
                "DOWN",
                "CONFIGURED",
                "SYNCHRONIZED",
            ]
            assert run.links[2].reason == "the runtime closed the connection"
            assert run.links[2].retry_in is not None

    @in_loop
    async def test_a_runtime_that_restarts(self, path: Path) -> None:
        """While the runtime is away the plugin tries; a new one at the same path gets it."""
        async with RuntimeSide(path) as runtime, running(path) as run:
            await runtime.synchronized()
            await runtime.stop()
            await until(lambda: any("no socket at" in link.reason for link in run.links), "it was missed")
            await runtime.start()
            await runtime.synchronized()
            assert runtime.connections == 2

    @in_loop
    async def test_a_missing_socket_is_told_once(self, path: Path) -> None:
        """The first failure is a warning that says what to do; the same again is for debugging only."""
        with capture_logs() as logs:
            async with running(path) as run:
                await until(lambda: len(run.links) >= 4, "it tried four times")
        records = [log for log in logs if log["event"] == "not_connected"]
        assert [record["log_level"] for record in records] == ["warning", *["debug"] * (len(records) - 1)]
        assert "NRI enabled" in records[0]["reason"]

    @in_loop
    async def test_old_events_are_handled_before_a_new_list(self, path: Path) -> None:
        """What was told and answered is handled, although its connection has gone meanwhile."""
        handler, gate = RecordingHandler(), asyncio.Event()

        async def work(*_: object) -> None:
            await gate.wait()

        handler.hooks["run_pod_sandbox"] = work
        runtime = RuntimeSide(path, request_timeout=10, told_timeout=0.2)
        async with runtime, running(path, handler):
            await runtime.synchronized()
            await runtime.run_pod(POD)
            await runtime.stop_pod("sb0")
            await runtime.drop()
            await runtime.gone()
            await runtime.synchronized()
            gate.set()
            await until(lambda: handler.finished.count("synchronize") == 2, "the new list was handled")
            assert handler.names == [
                "configure",
                "synchronize",
                "run_pod_sandbox",
                "stop_pod_sandbox",
                "configure",
                "synchronize",
            ]

    @in_loop
    async def test_a_kick_makes_the_plugin_wait_longer(self, path: Path) -> None:
        """A connection that ends during a call counts as a kick."""
        handler = RecordingHandler()
        rounds = itertools.count()

        async def work(*_: object) -> None:
            await asyncio.Event().wait()

        handler.hooks["run_pod_sandbox"] = work

        async def script(scripted: Scripted) -> None:
            await scripted.handshake()
            if next(rounds) == 0:
                call = scripted.plugin.run_pod_sandbox(api.RunPodSandboxRequest(pod=pod_message(POD)))
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(call, 0.1)

        backoff = Backoff(first=0.01, after_kick=0.3, jitter=0)
        async with (
            scripted_runtime(path, script, connections=1) as done,
            running(path, handler, backoff=backoff) as run,
        ):
            await done
            await until(lambda: run.links[-1].state is LinkState.DOWN, "the plugin noticed")
            assert run.links[-1].retry_in == 0.3

    @pytest.mark.parametrize("garbage", [b"\0\0\0\1\xff\xff\xff\xff", b"\0\0\0\2\0\0"])
    @in_loop
    async def test_garbage_ends_the_connection_and_another_follows(self, path: Path, garbage: bytes) -> None:
        """An impossible frame and a frame that breaks off are a connection's end, not the plugin's."""
        rounds = itertools.count()

        async def script(scripted: Scripted) -> None:
            await scripted.handshake()
            if next(rounds) == 0:
                scripted.trunk._writer.write(garbage)

        async with scripted_runtime(path, script, connections=2) as done, running(path) as run:
            await done
        assert "broke off" in next(link.reason for link in run.links if link.state is LinkState.DOWN)

    @in_loop
    async def test_a_socket_that_fails_is_an_end(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An error of the socket itself is told in words."""
        real = transport.Trunk.run

        async def script(scripted: Scripted) -> None:
            await scripted.handshake()

        async def run_and_fail(trunk: transport.Trunk) -> None:
            await real(trunk)
            raise ConnectionResetError(104, "reset by peer")

        async with scripted_runtime(path, script) as done:
            monkeypatch.setattr(transport.Trunk, "run", run_and_fail)
            async with running(path, reconnect=False) as run:
                with pytest.raises(ConnectionLostError, match=r"failed: .*reset by peer"):
                    await run.task
                await done

    @in_loop
    async def test_without_reconnecting_the_end_is_an_error(self, path: Path) -> None:
        """With reconnect=False `run` raises at the end of the connection."""
        async with RuntimeSide(path) as runtime, running(path, reconnect=False) as run:
            await runtime.synchronized()
            await runtime.drop()
            with pytest.raises(ConnectionLostError, match="closed the connection"):
                await run.task
            assert run.links[-1].retry_in is None


class TestUnreachable:
    """Nobody there."""

    @in_loop
    async def test_no_socket(self, path: Path) -> None:
        """A path that does not exist."""
        async with running(path, reconnect=False) as run:
            with pytest.raises(UnreachableError, match=r"no socket at .*NRI enabled.*mount its directory"):
                await run.task

    @in_loop
    async def test_nobody_listens(self, path: Path) -> None:
        """A stale socket file, as a runtime leaves it that was killed."""
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        async with running(path, reconnect=False) as run:
            with pytest.raises(UnreachableError, match="nobody listens"):
                await run.task

    @in_loop
    async def test_a_path_that_is_no_socket(self, path: Path) -> None:
        """A regular file, and a path that is too long for a socket."""
        path.write_text("")  # noqa: ASYNC240 - nothing else runs
        async with running(path, reconnect=False) as run:
            with pytest.raises(UnreachableError):
                await run.task
        async with running(path / ("x" * 200), reconnect=False) as run:
            with pytest.raises(UnreachableError):
                await run.task

    @pytest.mark.parametrize(
        ("error", "text"),
        [
            (PermissionError(13, "denied"), "run as root"),
            (TimeoutError(), "does not take connections"),
            (OSError(99, "odd"), "cannot connect"),
        ],
    )
    @in_loop
    async def test_other_obstacles(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, text: str
    ) -> None:
        """Each way of failing to connect is told in words."""

        async def refuse(_: Path) -> None:
            raise error

        monkeypatch.setattr(transport.Trunk, "connect", refuse)
        async with running(path, reconnect=False) as run:
            with pytest.raises(UnreachableError, match=text) as caught:
                await run.task
        assert caught.value.__cause__ is error


class TestHandshake:
    """Between connecting and the first event."""

    @in_loop
    async def test_a_refusal_ends_the_connection(self, path: Path) -> None:
        """The runtime keeps a refused connection open and dead: the plugin asks once and hangs up."""
        asked: list[int] = []

        class Refusing(api.RuntimeBase):
            async def register_plugin(self, message: api.RegisterPluginRequest) -> api.Empty:
                asked.append(1)
                raise GRPCError(Status.UNKNOWN, "not you")

        ended = asyncio.Event()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            trunk = transport.Trunk(reader, writer)
            trunk.serve(mux.RUNTIME_CONN, [Refusing()])
            await trunk.run()
            ended.set()

        server = await asyncio.start_unix_server(accept, path)
        async with running(path, reconnect=False) as run:
            with pytest.raises(RegistrationError, match="10-resctrl: not you"):
                await run.task
        await ended.wait()
        assert asked == [1]
        server.close()

    @in_loop
    async def test_a_runtime_that_does_not_answer(self, path: Path) -> None:
        """RegisterPlugin has a limit of its own."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(1000):
                pass
            writer.close()

        server = await asyncio.start_unix_server(accept, path)
        async with running(path, reconnect=False, handshake=Handshake(register=0.1)) as run:
            with pytest.raises(RegistrationError, match="no answer"):
                await run.task
        server.close()

    @in_loop
    async def test_a_runtime_that_hangs_up_first(self, path: Path) -> None:
        """The end before the answer is told as such."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.close()

        server = await asyncio.start_unix_server(accept, path)
        async with running(path, reconnect=False) as run:
            with pytest.raises(HandshakeError, match="before the plugin was registered"):
                await run.task
        server.close()

    @in_loop
    async def test_no_configure(self, path: Path) -> None:
        """A runtime that registers the plugin and then says nothing is left."""

        async def script(scripted: Scripted) -> None:
            await scripted.registered
            await asyncio.wait_for(scripted.reading, 5)

        async with (
            scripted_runtime(path, script) as done,
            running(path, reconnect=False, handshake=Handshake(configure=0.1)) as run,
        ):
            with pytest.raises(HandshakeError, match=r"no Configure within 0\.1 s"):
                await run.task
            await done

    @in_loop
    async def test_the_end_between_registration_and_configure(self, path: Path) -> None:
        """The end is noticed at once, not after the limit."""

        async def script(scripted: Scripted) -> None:
            await scripted.registered

        async with (
            scripted_runtime(path, script) as done,
            running(path, reconnect=False, handshake=Handshake(configure=60)) as run,
        ):
            await done
            with pytest.raises(ConnectionLostError, match="closed the connection"):
                await run.task

    @in_loop
    async def test_a_long_wait_for_the_list_is_told(self, path: Path) -> None:
        """It is no error: the runtime may be waiting for a pod that terminates. It is worth a warning."""

        async def script(scripted: Scripted) -> None:
            await scripted.handshake()
            await until(lambda: "no_synchronize_yet" in [log["event"] for log in logs], "it was told")
            await scripted.plugin.synchronize(api.SynchronizeRequest())

        with capture_logs() as logs:
            async with (
                scripted_runtime(path, script) as done,
                running(path, handshake=Handshake(notice=0.05)),
            ):
                await done

    @in_loop
    async def test_a_list_in_time_is_no_news(self, path: Path) -> None:
        """The warning does not come once the list was there."""
        with capture_logs() as logs:
            async with (
                RuntimeSide(path) as runtime,
                running(path, handshake=Handshake(notice=0.05)),
            ):
                await runtime.synchronized()
                await asyncio.sleep(0.1)  # past the notice, which must not come
        assert "no_synchronize_yet" not in [log["event"] for log in logs]

    @pytest.mark.parametrize("slow", [False, True])
    @in_loop
    async def test_a_configuration_that_cannot_be_used_ends_run(self, path: Path, *, slow: bool) -> None:
        """The runtime is told why (if it still waits), and `run` raises what the handler raised."""
        handler = RecordingHandler()

        async def refuse(*_: object) -> None:
            if slow:
                await asyncio.sleep(2)  # past the 1.8 s after which the runtime was answered
            raise LookupError("no such key: colour")

        handler.hooks["configure"] = refuse
        runtime = RuntimeSide(path, request_timeout=10)
        async with runtime, running(path, handler) as run:
            with pytest.raises(LookupError, match="colour"):
                await run.task
            await runtime.gone()
            await until(lambda: slow or runtime.dropped, "the runtime was told")
            assert slow or "colour" in runtime.dropped[0]

    @in_loop
    async def test_two_failures_are_one_end(self, path: Path) -> None:
        """A runtime that configures twice at once gets two refusals, and the first error ends `run`."""
        handler = RecordingHandler()

        async def refuse(*_: object) -> None:
            raise LookupError("no")

        handler.hooks["configure"] = refuse

        async def script(scripted: Scripted) -> None:
            await scripted.registered
            calls = [scripted.plugin.configure(api.ConfigureRequest()) for _ in range(2)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert isinstance(outcomes[0], GRPCError)

        async with scripted_runtime(path, script) as done, running(path, handler) as run:
            with pytest.raises(LookupError):
                await run.task
            await done


class TestInherited:
    """A plugin that the runtime launched itself."""

    @in_loop
    async def test_run_returns_at_the_end_when_all_is_handled(self) -> None:
        """The descriptor is served like a dialled connection; at its end nothing told is lost."""
        handler = RecordingHandler()

        async def work(*_: object) -> None:
            await asyncio.sleep(0.1)

        handler.hooks["run_pod_sandbox"] = work
        left, right = socket.socketpair()
        async with running(None, handler, fd=left.detach()) as run:
            scripted = Scripted(*await asyncio.open_unix_connection(sock=right))
            await scripted.handshake(request_timeout=50)
            await scripted.plugin.run_pod_sandbox(api.RunPodSandboxRequest(pod=pod_message(POD)))
            assert "run_pod_sandbox" not in handler.finished
            await scripted.trunk.close()
            await asyncio.wait_for(run.task, 5)
            assert handler.finished == ["configure", "run_pod_sandbox"]
            assert run.links[-1] == Link(LinkState.DOWN, reason="the runtime closed the connection")

    @in_loop
    async def test_a_descriptor_that_is_none(self) -> None:
        """A number that is no open socket is a typed error."""
        async with running(None, fd=987) as run:
            with pytest.raises(UnreachableError, match="descriptor 987"):
                await run.task


class TestClosing:
    """How `run` ends."""

    @in_loop
    async def test_close_does_not_wait_for_a_handler(self, path: Path) -> None:
        """A handler that hangs is cancelled; what waits behind it is dropped."""
        handler = RecordingHandler()

        async def hang(*_: object) -> None:
            await asyncio.Event().wait()

        handler.hooks["synchronize"] = hang
        async with RuntimeSide(path) as runtime, running(path, handler) as run:
            await runtime.synchronized()
            await until(lambda: handler.names[-1:] == ["synchronize"], "it hangs")
            await asyncio.wait_for(run.stub.close(), 2)
            assert run.task.done()
            assert run.task.exception() is None
            await runtime.gone()
            await run.stub.close()

    @in_loop
    async def test_close_while_waiting_to_connect(self, path: Path) -> None:
        """A long wait for the next attempt is ended too."""
        async with running(path, backoff=Backoff(first=30)) as run:
            await until(lambda: run.links, "the first attempt failed")
            await asyncio.wait_for(run.stub.close(), 2)

    @in_loop
    async def test_close_before_run(self, path: Path) -> None:
        """A stub that was closed does not run."""
        stub = NriStub(RecordingHandler(), name="resctrl", idx="10", socket_path=path)
        await stub.close()
        await asyncio.wait_for(stub.run(), 2)

    @in_loop
    async def test_close_from_a_handler(self, path: Path) -> None:
        """A handler may end the plugin."""
        handler = RecordingHandler()
        async with RuntimeSide(path) as runtime, running(path, handler) as run:

            async def close(*_: object) -> None:
                await run.stub.close()

            handler.hooks["run_pod_sandbox"] = close
            await runtime.synchronized()
            await runtime.run_pod(POD)
            await asyncio.wait_for(run.task, 5)

    @in_loop
    async def test_cancelling_run_closes_everything(self, path: Path) -> None:
        """Cancelling the task is as good as close, but for the exception."""
        async with RuntimeSide(path) as runtime, running(path) as run:
            await runtime.synchronized()
            run.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run.task
            await runtime.gone()


class Scripted(api.RuntimeBase):
    """One connection of a runtime that a test scripts."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.trunk = transport.Trunk(reader, writer)
        self.registered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.trunk.serve(mux.RUNTIME_CONN, [self])
        self.channel = self.trunk.channel(mux.PLUGIN_CONN)
        self.plugin = transport.stub(api.PluginStub, self.channel)
        self.reading = asyncio.create_task(self.trunk.run())

    async def register_plugin(self, message: api.RegisterPluginRequest) -> api.Empty:
        """Take any plugin, once."""
        self.registered.set_result(None)
        return api.Empty()

    async def handshake(self, request_timeout: int = 2000) -> None:
        """Wait for the registration and configure the plugin; milliseconds."""
        await self.registered
        await self.plugin.configure(api.ConfigureRequest(request_timeout=request_timeout))


@asynccontextmanager
async def scripted_runtime(
    path: Path, script: Callable[[Scripted], Awaitable[None]], connections: int = 1
) -> AsyncIterator[asyncio.Future[None]]:
    """Play a script on each connection; the future ends after so many, or with a script's error."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left = connections

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        scripted = Scripted(reader, writer)
        try:
            await script(scripted)
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - the test gets it
            if not done.done():
                done.set_exception(error)
        finally:
            await scripted.trunk.close()
            with suppress(WireError, OSError):
                await scripted.reading
        left -= 1
        if left == 0 and not done.done():
            done.set_result(None)

    server = await asyncio.start_unix_server(accept, path)
    try:
        yield done
    finally:
        server.close()
