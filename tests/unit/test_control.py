from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import select
import socket
import stat
import sys
import termios
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nri_resctrl_plugin import (
    AuditReport,
    ContainerState,
    Exists,
    PodNotFoundError,
    PodResctrlAddOrUpdate,
    PodUid,
    RetryReport,
    control,
)
from nri_resctrl_plugin.control import CONNECTION_LIMIT, LINE_LIMIT, ControlError, ControlServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

GROUP = Exists(Path("/r/g"))


class Plugin:
    """Answers every call; `no-such-pod` is not known."""

    async def retry_group_creation(self, pod_uid: str) -> Exists:
        if pod_uid == "no-such-pod":
            raise PodNotFoundError(PodUid(pod_uid))
        return GROUP

    async def retry_container_reconcile(self, container_id: str) -> ContainerState:
        assert container_id == "c"
        return ContainerState.RECONCILED

    async def retry_all_once(self) -> RetryReport:
        return RetryReport(groups_created=2)

    async def audit_once(self) -> AuditReport:
        return AuditReport(pods=3, containers_astray=1)

    def snapshot(self) -> dict[PodUid, PodResctrlAddOrUpdate]:
        return {PodUid("u"): PodResctrlAddOrUpdate(PodUid("u"), GROUP, 2, 1)}


def served(path: Path, body: Callable[[ControlServer], Awaitable[None]]) -> None:
    """Run a body while a server serves, all within ten seconds."""

    async def run() -> None:
        async with asyncio.timeout(10), ControlServer(Plugin(), path) as server:
            await body(server)

    asyncio.run(run())


async def ask(path: Path, *lines: bytes) -> list[dict[str, object]]:
    """Send lines over one connection and return the answers."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"".join(lines))
    writer.write_eof()
    answers = [json.loads(line) async for line in reader]
    writer.close()
    await writer.wait_closed()
    return answers


@pytest.mark.parametrize(
    ("request_", "result"),
    [
        ({"call": "retry_group", "pod_uid": "u"}, {"type": "Exists", "path": "/r/g", "others": []}),
        ({"call": "retry_container", "container_id": "c"}, "reconciled"),
        (
            {"call": "snapshot"},
            {
                "u": {
                    "type": "AddOrUpdate",
                    "pod_uid": "u",
                    "group_state": {"type": "Exists", "path": "/r/g", "others": []},
                    "total_containers": 2,
                    "reconciled_containers": 1,
                }
            },
        ),
    ],
)
def test_each_call_is_answered_with_its_result(tmp_path: Path, request_: object, result: object) -> None:
    """A request is one line, and its answer carries the call's own result."""

    async def body(server: ControlServer) -> None:
        answers = await ask(tmp_path / "s", json.dumps(request_).encode() + b"\n")
        assert answers == [{"ok": True, "result": result}]

    served(tmp_path / "s", body)


def test_a_pass_of_retries_is_reported(tmp_path: Path) -> None:
    """retry_all answers with the report's counters."""

    async def body(server: ControlServer) -> None:
        [answer] = await ask(tmp_path / "s", b'{"call": "retry_all"}\n')
        assert answer["ok"] is True
        assert isinstance(answer["result"], dict)
        assert answer["result"]["groups_created"] == 2

    served(tmp_path / "s", body)


def test_an_audit_is_reported(tmp_path: Path) -> None:
    """Audit answers with the report's counters."""

    async def body(server: ControlServer) -> None:
        [answer] = await ask(tmp_path / "s", b'{"call": "audit"}\n')
        assert answer["ok"] is True
        assert isinstance(answer["result"], dict)
        assert (answer["result"]["pods"], answer["result"]["containers_astray"]) == (3, 1)

    served(tmp_path / "s", body)


@pytest.mark.parametrize(
    "line",
    [b"\n", b"nonsense\n", b"[]\n", b"{}\n", b'{"call": "stop"}\n', b'{"call": "retry_group"}\n',
     b'{"call": "retry_group", "pod_uid": 7}\n', b'{"call": "snapshot", "more": 1}\n', b"\xff\n",
     b"[" * 50000 + b"\n"],
)  # fmt: skip
def test_a_bad_line_is_answered_and_the_connection_goes_on(tmp_path: Path, line: bytes) -> None:
    """Whatever a line is, it gets one answer that says what is wrong, and the next request works."""

    async def body(server: ControlServer) -> None:
        bad, good = await ask(tmp_path / "s", line, b'{"call": "snapshot"}\n')
        assert bad["ok"] is False
        assert bad["message"]
        assert good["ok"] is True

    served(tmp_path / "s", body)


def test_an_error_keeps_its_name(tmp_path: Path) -> None:
    """The caller can tell errors apart by class name."""

    async def body(server: ControlServer) -> None:
        [answer] = await ask(tmp_path / "s", b'{"call": "retry_group", "pod_uid": "no-such-pod"}\n')
        assert answer["error"] == "PodNotFoundError"

    served(tmp_path / "s", body)


def test_only_the_owner_may_connect(tmp_path: Path) -> None:
    """The socket file has mode 0600."""

    async def body(server: ControlServer) -> None:
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600

    served(tmp_path / "s", body)
    assert not (tmp_path / "s").exists()


def test_a_line_beyond_the_limit_ends_the_connection_only(tmp_path: Path) -> None:
    """An endless line costs its own connection; others are served."""

    async def body(server: ControlServer) -> None:
        assert await ask(tmp_path / "s", b"x" * (2 * LINE_LIMIT)) == []
        assert (await ask(tmp_path / "s", b'{"call": "snapshot"}\n'))[0]["ok"] is True

    served(tmp_path / "s", body)


def test_one_connection_too_many_is_closed(tmp_path: Path) -> None:
    """Connections are bounded, and one that ends makes room."""

    async def body(server: ControlServer) -> None:
        open_ones = [await asyncio.open_unix_connection(str(tmp_path / "s")) for _ in range(CONNECTION_LIMIT)]
        for reader, writer in open_ones:
            writer.write(b'{"call": "snapshot"}\n')
            assert await reader.readline()
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        assert await reader.read() == b""
        writer.close()
        open_ones.pop()[1].close()
        answers: list[dict[str, object]] = []
        while not answers:  # the server has to notice the end first
            with contextlib.suppress(OSError):
                answers = await ask(tmp_path / "s", b'{"call": "snapshot"}\n')
        for _, writer in open_ones:
            writer.close()

    served(tmp_path / "s", body)


async def left(client: socket.socket) -> None:
    """Wait until the server has let go of a connection that was not read from."""
    poll = select.poll()
    poll.register(client, 0)  # a hang-up is told unasked
    while not poll.poll(0):  # noqa: ASYNC110 - the other end belongs to the code under test
        await asyncio.sleep(0.01)


def waiting(client: socket.socket) -> int:
    """Return how many bytes have come and were not read."""
    number = fcntl.ioctl(client, termios.FIONREAD, bytes(4))
    return int.from_bytes(number, sys.byteorder)


def deaf(path: Path) -> socket.socket:
    """Return a connection that takes in next to nothing unless it is read from."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    client.setblocking(False)
    return client


def test_who_asks_and_never_reads_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that nobody takes keep a descriptor no longer than the connection's place."""
    monkeypatch.setattr(control, "IDLE_LIMIT", 0.2)

    async def body(server: ControlServer) -> None:
        with deaf(tmp_path / "s") as client:
            for _ in range(100):
                with contextlib.suppress(BlockingIOError):
                    client.send(b'{"call": "snapshot"}\n' * 1000)
                await asyncio.sleep(0)
            await left(client)

    served(tmp_path / "s", body)


async def ask_until_full(client: socket.socket) -> int:
    """Ask until an answer has to stay with the server, then end; return how many were asked."""
    asked, before = 0, -1
    while (here := waiting(client)) > before:
        before = here
        client.send(b'{"call": "snapshot"}\n')
        asked += 1
        for _ in range(10):
            await asyncio.sleep(0)
    client.shutdown(socket.SHUT_WR)
    return asked


def test_who_ends_and_never_reads_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer too small to be waited for, to a client that has said its last, is no reason either."""
    monkeypatch.setattr(control, "IDLE_LIMIT", 0.2)

    async def body(server: ControlServer) -> None:
        with deaf(tmp_path / "s") as client:
            await ask_until_full(client)
            await left(client)

    served(tmp_path / "s", body)


def test_who_ends_and_reads_late_gets_all_answers(tmp_path: Path) -> None:
    """The end of the questions does not cut off answers that are on their way."""

    async def body(server: ControlServer) -> None:
        client = deaf(tmp_path / "s")
        asked = await ask_until_full(client)
        await asyncio.sleep(0.1)
        reader, writer = await asyncio.open_unix_connection(sock=client)
        assert len((await reader.read()).splitlines()) == asked
        writer.close()

    served(tmp_path / "s", body)


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    """A file left by a killed plugin does not keep the next one from starting."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "s"))

    async def body(server: ControlServer) -> None:
        assert (await ask(tmp_path / "s", b'{"call": "snapshot"}\n'))[0]["ok"] is True

    served(tmp_path / "s", body)


def test_a_served_socket_is_not_taken_over(tmp_path: Path) -> None:
    """Two plugins cannot share a path: the second is told so and the first goes on."""

    async def body(server: ControlServer) -> None:
        with pytest.raises(ControlError, match="served by another"):
            await ControlServer(Plugin(), tmp_path / "s").start()
        assert (await ask(tmp_path / "s", b'{"call": "snapshot"}\n'))[0]["ok"] is True

    served(tmp_path / "s", body)


def test_two_that_start_at_once_do_not_take_each_others_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find a stale file, and while one is about to remove it the other starts: one of them serves."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    servers: list[ControlServer] = []
    hurried: list[threading.Thread] = []
    unlink = Path.unlink

    def start() -> None:
        async def run() -> None:
            with contextlib.suppress(ControlError):
                async with ControlServer(Plugin(), path) as server:
                    servers.append(server)
                    assert (await ask(path, b'{"call": "snapshot"}\n'))[0]["ok"] is True
                    await asyncio.sleep(1)

        asyncio.run(run())

    def late(self: Path, *, missing_ok: bool = False) -> None:
        if not hurried:
            hurried.append(threading.Thread(target=start))
            hurried[0].start()
            hurried[0].join(0.3)
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", late)
    start()
    hurried[0].join()
    assert len(servers) == 1


def test_a_lock_of_somebody_else_only_delays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may read the directory can lock it, and yet cannot keep a plugin from starting."""
    monkeypatch.setattr(control, "LOCK_LIMIT", 0.05)
    directory = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)

    async def body(server: ControlServer) -> None:
        assert (await ask(tmp_path / "s", b'{"call": "snapshot"}\n'))[0]["ok"] is True

    served(tmp_path / "s", body)
    os.close(directory)


def test_another_kind_of_file_is_left_alone(tmp_path: Path) -> None:
    """A path that names an ordinary file is refused and the file kept."""
    (tmp_path / "s").write_text("precious")
    with pytest.raises(ControlError, match="no socket"):
        asyncio.run(ControlServer(Plugin(), tmp_path / "s").start())
    assert (tmp_path / "s").read_text() == "precious"


def test_a_path_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """The error names the path and the errno."""
    with pytest.raises(ControlError, match="ENOENT"):
        asyncio.run(ControlServer(Plugin(), tmp_path / "absent" / "s").start())
