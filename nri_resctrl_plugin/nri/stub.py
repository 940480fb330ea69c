"""The plugin's end of NRI: connect, register, serve, connect again.

Owns: the life of a plugin across connections. Must not know: what the handler does with what it is told.

Rules:
    1. Only `close`, a handler that cannot be configured, or the end of an inherited connection ends `run`;
       whatever else happens to a connection, another one follows.
    2. Each connection begins with nothing: no parts of lists, no streams. What lasts is the handler's.
    3. A wait follows every connection, longer each time until one has lasted.
    4. The same obstacle is told once as a warning, then only in debug records.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import structlog
from attrs import frozen

from nri_resctrl_plugin.nri.ahead import Said
from nri_resctrl_plugin.nri.backoff import Backoff, Waits
from nri_resctrl_plugin.nri.delivery import Delivery
from nri_resctrl_plugin.nri.errors import ConnectionLostError, NriError, UnreachableError
from nri_resctrl_plugin.nri.handler import NriHandler
from nri_resctrl_plugin.nri.messages import RuntimeInfo
from nri_resctrl_plugin.nri.session import ConfigureFailed, Handshake, Identity, Session
from nri_resctrl_plugin.nri.transport import Trunk

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from nri_resctrl_plugin.nri.ahead import Ahead

__all__ = ["DEFAULT_SOCKET", "Backoff", "Handshake", "Link", "LinkState", "NriHandler", "NriStub"]

DEFAULT_SOCKET: Final = Path("/var/run/nri/nri.sock")
"""Where containerd and CRI-O listen."""

_DEFAULT_BACKOFF: Final = Backoff()
_DEFAULT_HANDSHAKE: Final = Handshake()


class LinkState(Enum):
    """What has become of the connection."""

    CONFIGURED = "configured"
    """The runtime told who it is."""
    SYNCHRONIZED = "synchronized"
    """The runtime told what exists; events follow."""
    DOWN = "down"
    """There is no connection."""


@frozen
class Link:
    """News of the connection.

    Attributes:
        state: What it is now.
        runtime: Who is at the other end; None where the connection is down.
        reason: Why it is down.
        retry_in: Seconds until the next attempt; None where there will be none, and while it is up.
    """

    state: LinkState
    runtime: RuntimeInfo | None = None
    reason: str = ""
    retry_in: float | None = None


def _ignore(_: Link) -> None:
    """Nobody listens."""


class NriStub:
    """Keeps a handler connected to a runtime.

    Args:
        handler: What is called.
        name: Name of the plugin.
        idx: Its index, two digits.
        socket_path: Where the runtime listens.
        fd: An inherited connection, for a plugin that the runtime launched itself. It cannot be made again,
            so `run` returns at its end.
        ahead: Who has spoken on an inherited connection already; in the place of `fd`.
        backoff: How long to wait before connecting again.
        reconnect: False: `run` raises at the first obstacle or the end of the connection.
        on_link: Called with each change of the connection.
        handshake: Time limits of connecting.

    Raises:
        InvalidIdentityError: The name or the index is one that every runtime refuses.
    """

    def __init__(  # noqa: PLR0913 - all but the handler by keyword
        self,
        handler: NriHandler,
        *,
        name: str,
        idx: str,
        socket_path: Path = DEFAULT_SOCKET,
        fd: int | None = None,
        ahead: Ahead | None = None,
        backoff: Backoff = _DEFAULT_BACKOFF,
        reconnect: bool = True,
        on_link: Callable[[Link], None] = _ignore,
        handshake: Handshake = _DEFAULT_HANDSHAKE,
    ) -> None:
        self._handler = handler
        self._identity = Identity(name, idx)
        self._socket_path = socket_path
        self._fd = ahead.fd if ahead is not None else fd
        self._ahead = ahead
        self._waits = Waits(backoff)
        self._reconnect = reconnect
        self._on_link = on_link
        self._handshake = handshake
        self._delivery = Delivery()
        self._links: asyncio.Task[None] | None = None
        self._finished = asyncio.Event()
        self._closed = False
        self._runtime: RuntimeInfo | None = None
        self._obstacle = ""
        self._log: FilteringBoundLogger = structlog.get_logger("nri_resctrl_plugin.nri.stub")

    async def run(self) -> None:
        """Connect, register and serve, again and again, until `close`.

        With an inherited connection it returns at that connection's end, when everything told has been
        handled.

        Raises:
            Exception: What the handler's `configure` raised.
            UnreachableError: With reconnect=False: nobody listens.
            ConnectionLostError: With reconnect=False: the connection ended, or never got to its Configure.
        """
        if self._closed:
            return
        deliver = asyncio.create_task(self._delivery.run())
        self._links = asyncio.create_task(self._inherited() if self._fd is not None else self._dialled())
        try:
            await asyncio.wait({self._links})
            if not self._links.cancelled():
                self._links.result()  # raises what ended it
                await self._delivery.drained()
        finally:
            for task in (self._links, deliver):
                task.cancel()
            await asyncio.wait({self._links, deliver})
            self._finished.set()

    async def close(self) -> None:
        """End `run`: close the connection, drop what waits for the handler, and return when `run` is over."""
        self._closed = True
        if self._links is None:
            return
        self._links.cancel()
        await self._finished.wait()

    async def _inherited(self) -> None:
        """Serve the one connection that there is."""
        assert self._fd is not None  # noqa: S101 - tells the type checker what `run` has found out
        said = self._ahead.take() if self._ahead is not None else Said()
        try:
            trunk = await Trunk.inherit(self._fd, said)
        except OSError as error:
            raise UnreachableError(f"descriptor {self._fd} is no connection to a runtime: {error}") from error
        try:
            await self._serve(self._session(trunk))
        except ConnectionLostError as error:
            self._log.info("connection_ended", reason=str(error))
            self._on_link(Link(LinkState.DOWN, reason=str(error)))

    async def _dialled(self) -> NoReturn:
        """Serve one connection after another."""
        while True:
            session: Session | None = None
            try:
                session = self._session(await self._connect())
                await self._serve(session)
            except (UnreachableError, ConnectionLostError) as error:
                if not self._reconnect:
                    self._on_link(Link(LinkState.DOWN, reason=str(error)))
                    raise
                kicked = session is not None and session.kicked
                settled_for = session.settled_for if session is not None else 0.0
                wait = self._waits.next(kicked=kicked, settled_for=settled_for)
                self._tell(error, wait, kicked=kicked)
                await asyncio.sleep(wait)

    async def _serve(self, session: Session) -> NoReturn:
        try:
            await session.run()
        except ConfigureFailed as failed:
            raise failed.error from None

    def _session(self, trunk: Trunk) -> Session:
        return Session(
            trunk,
            self._identity,
            self._handler,
            self._delivery,
            handshake=self._handshake,
            on_configured=self._heard_configured,
            on_synchronized=self._heard_synchronized,
        )

    async def _connect(self) -> Trunk:
        path = self._socket_path
        try:
            async with asyncio.timeout(self._handshake.connect):
                return await Trunk.connect(path)
        except FileNotFoundError as error:
            raise UnreachableError(
                f"no socket at {path}: no runtime with NRI enabled runs here (or the socket was mounted as a "
                "file: mount its directory)"
            ) from error
        except ConnectionRefusedError as error:
            raise UnreachableError(f"nobody listens at {path}: the runtime is not running") from error
        except PermissionError as error:
            raise UnreachableError(f"{path} may not be used: run as root") from error
        except TimeoutError as error:
            raise UnreachableError(f"{path} does not take connections") from error
        except OSError as error:
            raise UnreachableError(f"cannot connect to {path}: {error}") from error

    def _heard_configured(self, runtime: RuntimeInfo) -> None:
        self._obstacle = ""
        self._runtime = runtime
        self._on_link(Link(LinkState.CONFIGURED, runtime))

    def _heard_synchronized(self) -> None:
        self._on_link(Link(LinkState.SYNCHRONIZED, self._runtime))

    def _tell(self, error: NriError, wait: float, *, kicked: bool) -> None:
        """Log an obstacle: new ones as a warning."""
        reason = str(error)
        log = self._log.debug if reason == self._obstacle else self._log.warning
        log("not_connected", reason=reason, kicked=kicked, retry_in=round(wait, 2))
        self._obstacle = reason
        self._on_link(Link(LinkState.DOWN, reason=reason, retry_in=wait))
