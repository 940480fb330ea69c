"""The control socket of a deployed plugin: retries and the snapshot as JSON lines over a unix socket.

Owns: the socket file, the line protocol, its limits. Must not know: how a retry is made, who else listens.

Rules:
    1. The socket's file is made with mode 0600: access to it is control over the plugin.
    2. One request is one line, answered by one line, in order. A bad line is answered, never fatal; one that
       is longer than the limit ends its connection.
    3. Nothing grows: lines, connections and idle time are bounded. Closing waits for nobody.
    4. A socket file that nobody serves any more is replaced; one that is served is an error. Only the file
       that this server made is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
from typing import TYPE_CHECKING, Final, Protocol, Self

import structlog

from nri_resctrl_plugin.errors import PluginError
from nri_resctrl_plugin.jsonl import payload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from nri_resctrl_plugin.events import Exists, PodResctrlAddOrUpdate
    from nri_resctrl_plugin.model import ContainerState, PodUid
    from nri_resctrl_plugin.reports import AuditReport, RetryReport

__all__ = ["ControlError", "ControlServer", "Controlled"]

LINE_LIMIT: Final = 64 * 1024
"""Bytes of a request at most."""

CONNECTION_LIMIT: Final = 16
"""Connections at a time; one more is closed at once."""

IDLE_LIMIT: Final = 300.0
"""Seconds after which a silent connection is closed."""

LOCK_LIMIT: Final = 1.0
"""Seconds that a start waits for another one in the same directory."""


class ControlError(PluginError):
    """The control socket cannot be opened."""


class Controlled(Protocol):
    """What the socket gives access to: the plugin."""

    async def retry_group_creation(self, pod_uid: str) -> Exists:
        """Try a pod's group once more."""
        ...

    async def retry_container_reconcile(self, container_id: str) -> ContainerState:
        """Try a container once more."""
        ...

    async def retry_all_once(self) -> RetryReport:
        """Try everything once more."""
        ...

    async def audit_once(self) -> AuditReport:
        """Look whether everything is as it is believed to be."""
        ...

    def snapshot(self) -> dict[PodUid, PodResctrlAddOrUpdate]:
        """Return the state of every live pod."""
        ...


class ControlServer:
    """Serves the calls `retry_group`, `retry_container`, `retry_all`, `audit` and `snapshot`.

    A request is `{"call": "retry_group", "pod_uid": "..."}`, `{"call": "retry_container", "container_id":
    "..."}`, `{"call": "retry_all"}`, `{"call": "audit"}` or `{"call": "snapshot"}`. The answer is
    `{"ok": true, "result": ...}` or `{"ok": false, "error": <class name>, "message": ...}`.

    Args:
        plugin: Whom to ask.
        path: Where the socket is made.
    """

    def __init__(self, plugin: Controlled, path: Path) -> None:
        self._plugin = plugin
        self._path = path
        self._server: asyncio.Server | None = None
        self._made: tuple[int, int] | None = None
        self._served: set[asyncio.Task[None]] = set()
        self._log: FilteringBoundLogger = structlog.get_logger("nri_resctrl_plugin.control")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Open the socket.

        Raises:
            ControlError: The path is taken, by another plugin or another kind of file, or cannot be made.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            async with _alone(self._path.parent):
                self._clear_stale()
                # bind(2) makes the file with the socket's own mode (net/unix/af_unix.c, unix_bind_bsd).
                os.fchmod(listener.fileno(), 0o600)
                listener.bind(str(self._path))
                self._made = _identity(self._path)
                self._server = await asyncio.start_unix_server(self._accept, sock=listener, limit=LINE_LIMIT)
        except OSError as error:
            listener.close()
            why = errno.errorcode.get(error.errno or 0) or str(error)
            raise ControlError(f"cannot open the control socket at {str(self._path)!r}: {why}") from error
        except ControlError:
            listener.close()
            raise

    async def close(self) -> None:
        """Close the socket and what is connected to it, and remove its file. Closing twice is no error."""
        server, self._server = self._server, None
        if server is None:
            return
        with contextlib.suppress(OSError):
            # Before nobody listens: the next plugin would take the file for a stale one and make its own.
            if _identity(self._path) == self._made:
                self._path.unlink()
        server.close()
        served = tuple(self._served)
        for task in served:
            task.cancel()
        await asyncio.gather(*served, return_exceptions=True)

    def _clear_stale(self) -> None:
        """Remove a socket file that nobody listens on."""
        try:
            mode = self._path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise ControlError(f"{str(self._path)!r} exists and is no socket: choose another --control path")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(self._path))
            except ConnectionRefusedError:
                self._path.unlink()
                return
        raise ControlError(
            f"{str(self._path)!r} is served by another process: stop it, or choose another path"
        )

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._served) >= CONNECTION_LIMIT:
            writer.close()
            return
        # A task of our own: that of asyncio's streams complains, before Python 3.12, when it is cancelled.
        task = asyncio.create_task(self._serve(reader, writer), name="control")
        self._served.add(task)
        task.add_done_callback(self._served.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (answer := await self._answer(reader)) is not None:
                writer.write(json.dumps(answer, separators=(",", ":")).encode() + b"\n")
                await asyncio.wait_for(writer.drain(), IDLE_LIMIT)
            writer.close()
            await asyncio.wait_for(writer.wait_closed(), IDLE_LIMIT)
        except (OSError, TimeoutError):
            pass  # the other side is gone or asleep; it may connect again
        finally:
            # Closing alone keeps the descriptor until everything is read, which may be never.
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> Mapping[str, object] | None:
        """Read one request and return its answer; None ends the connection."""
        try:
            line = await asyncio.wait_for(reader.readline(), IDLE_LIMIT)
        except ValueError:  # the line is longer than the limit: where the next one begins is unknown
            return None
        if not line:
            return None
        try:
            return {"ok": True, "result": await self._call(_request(line))}
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets it as an answer
            self._log.info("control_refused", error=str(error))
            return {"ok": False, "error": type(error).__name__, "message": str(error)}

    async def _call(self, request: Mapping[str, object]) -> object:
        match request:
            case {"call": "retry_group", "pod_uid": str(pod_uid), **rest} if not rest:
                return payload(await self._plugin.retry_group_creation(pod_uid))
            case {"call": "retry_container", "container_id": str(container_id), **rest} if not rest:
                return payload(await self._plugin.retry_container_reconcile(container_id))
            case {"call": "retry_all", **rest} if not rest:
                return payload(await self._plugin.retry_all_once())
            case {"call": "audit", **rest} if not rest:
                return payload(await self._plugin.audit_once())
            case {"call": "snapshot", **rest} if not rest:
                return {uid: payload(event) for uid, event in self._plugin.snapshot().items()}
            case _:
                raise ValueError(
                    'expected {"call": "retry_group", "pod_uid": ...}, {"call": "retry_container", '
                    '"container_id": ...}, {"call": "retry_all"}, {"call": "audit"} or {"call": "snapshot"}'
                )


@contextlib.asynccontextmanager
async def _alone(directory: Path) -> AsyncIterator[None]:
    """Keep other starts out until the socket is served: until then they would take it for a stale one.

    Whoever may read the directory can hold its lock, so that it is waited for, but not for ever.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOCK_LIMIT):
                while not _locked(descriptor):  # noqa: ASYNC110 - waiting in flock(2) would block the loop
                    await asyncio.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks
    return True


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _request(line: bytes) -> Mapping[str, object]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the request is not JSON: {error}") from error
    if not isinstance(request, dict):
        raise TypeError("the request is not a JSON object")
    return request
