from __future__ import annotations

import asyncio
import json
import socket
import stat
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
        for _, writer in open_ones:
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
