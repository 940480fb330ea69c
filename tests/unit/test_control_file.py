"""The control socket's file: who may open it from its first moment on, and who removes it."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nri_resctrl_plugin.control import ControlError, ControlServer
from tests.unit.test_control import Plugin, ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nri_resctrl_plugin import RetryReport


@pytest.fixture
def no_umask() -> Iterator[None]:
    """A process that forbids nothing to nobody."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_it_is_born_for_its_owner_alone(
    tmp_path: Path, no_umask: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even between two system calls, and whatever the umask, may anybody else open it."""
    modes: list[int] = []

    class Listener(socket.socket):
        def bind(self, address: str) -> None:  # type: ignore[override]
            super().bind(address)
            modes.append(stat.S_IMODE(Path(address).stat().st_mode))

    monkeypatch.setattr(socket, "socket", Listener)

    async def run() -> None:
        async with ControlServer(Plugin(), tmp_path / "s"):
            pass

    asyncio.run(run())
    assert modes == [0o600]


def test_only_its_own_file_is_removed(tmp_path: Path) -> None:
    """Where somebody has put another file in its place, that one stays."""
    path = tmp_path / "s"

    async def run() -> None:
        async with ControlServer(Plugin(), path):
            path.unlink()
            path.write_text("somebody else's")

    asyncio.run(run())
    assert path.read_text() == "somebody else's"


def test_the_file_goes_before_the_socket_is_deaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts at that moment finds no file that looks stale, which its end would remove later."""
    there: list[bool] = []
    close = asyncio.Server.close

    def seen(server: asyncio.Server) -> None:
        there.append((tmp_path / "s").exists())
        close(server)

    monkeypatch.setattr(asyncio.Server, "close", seen)

    async def run() -> None:
        async with ControlServer(Plugin(), tmp_path / "s"):
            pass

    asyncio.run(run())
    assert there == [False]


def test_a_link_is_no_stale_socket(tmp_path: Path) -> None:
    """A symbolic link is refused, also one to a stale socket or to nothing, and stays."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "stale"))
    for target in ("stale", "nothing"):
        path.symlink_to(target)
        with pytest.raises(ControlError, match="no socket"):
            asyncio.run(ControlServer(Plugin(), path).start())
        assert path.is_symlink()
        path.unlink()
    assert (tmp_path / "stale").exists()


def test_a_path_that_is_too_long_is_told(tmp_path: Path) -> None:
    """What no errno says, a sentence says."""
    with pytest.raises(ControlError, match="too long"):
        asyncio.run(ControlServer(Plugin(), tmp_path / ("x" * 200)).start())


def test_closing_waits_for_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A caller that says nothing and a call that does not end are cut off, without a word in the log."""

    class Busy(Plugin):
        async def retry_all_once(self) -> RetryReport:
            begun.set()
            await asyncio.sleep(3600)
            raise AssertionError

    begun = asyncio.Event()

    async def run() -> None:
        async with asyncio.timeout(10):
            async with ControlServer(Busy(), tmp_path / "s"):
                connections = [await asyncio.open_unix_connection(str(tmp_path / "s")) for _ in range(2)]
                connections[0][1].write(b'{"call": "retry_all"}\n')
                await begun.wait()
                assert (await ask(tmp_path / "s", b'{"call": "snapshot"}\n'))[0]["ok"] is True
            for reader, writer in connections:
                assert await reader.read() == b""
                writer.close()

    asyncio.run(run())
    assert caplog.records == []
