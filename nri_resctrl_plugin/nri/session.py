"""One connection to a runtime, from registering to its end.

Owns: the handshake and its time limits, and how the connection ended. Must not know: what comes after it, or
the meaning of events.

Rules:
    1. The plugin's service stands ready before it registers: Configure can arrive before the answer.
    2. RegisterPlugin is called once; a refusal ends the connection, which the runtime would leave open and
       dead.
    3. A Synchronize that was answered too late ends the connection: a runtime before NRI 0.7 never tells
       such a plugin anything again, and does not hang up either.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any, Final, NoReturn

import structlog
from attrs import field, frozen
from grpclib.exceptions import GRPCError, StreamTerminatedError

from nri_resctrl_plugin.nri import api, mux, transport
from nri_resctrl_plugin.nri.errors import (
    ConnectionLostError,
    HandshakeError,
    InvalidIdentityError,
    RegistrationError,
)
from nri_resctrl_plugin.nri.service import LATE, SYNCHRONIZE, PluginService
from nri_resctrl_plugin.nri.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from attrs import Attribute
    from structlog.typing import FilteringBoundLogger

    from nri_resctrl_plugin.nri.delivery import Delivery
    from nri_resctrl_plugin.nri.handler import NriHandler
    from nri_resctrl_plugin.nri.messages import RuntimeInfo

__all__ = ["ConfigureFailed", "Handshake", "Identity", "Session"]

_NRI_VERSION: Final = "v0.12.2"
_NAME: Final = re.compile(r"[A-Za-z0-9_.+-]+")
_INDEX: Final = re.compile(r"[0-9]{2}")


@frozen
class Identity:
    """How a plugin registers. The runtime calls plugins in the order of their indexes, read as text.

    Attributes:
        name: Letters, digits and `_.+-`.
        idx: Exactly two digits.

    Raises:
        InvalidIdentityError: Either is not of that form.
    """

    name: str = field()
    idx: str = field()

    @name.validator
    def _check_name(self, _: Attribute[str], value: str) -> None:
        if not _NAME.fullmatch(value):
            raise InvalidIdentityError(
                f"plugin name {value!r}: at least one character, and only letters, digits and _ . + -"
            )

    @idx.validator
    def _check_idx(self, _: Attribute[str], value: str) -> None:
        if not _INDEX.fullmatch(value):
            raise InvalidIdentityError(f"plugin index {value!r}: exactly two digits, such as 05 or 90")


@frozen(kw_only=True)
class Handshake:
    """How long each step may take, in seconds.

    Attributes:
        connect: Until the socket is connected.
        register: Until RegisterPlugin is answered. Runtimes register one plugin after another, and a silent
            one before us holds them up for 5 s.
        configure: From then until Configure arrives.
        notice: From then until it is worth a warning that no Synchronize has come. There is no limit: a
            runtime first waits for what it has in hand, which can be a whole termination grace period.
    """

    connect: float = 5.0
    register: float = 10.0
    configure: float = 10.0
    notice: float = 60.0


class ConfigureFailed(Exception):  # noqa: N818 - a messenger, not an error of its own
    """What a handler's `configure` raised.

    Attributes:
        error: That.
    """

    def __init__(self, error: BaseException) -> None:
        self.error = error
        super().__init__(str(error))


class Session:
    """One connection.

    Args:
        trunk: The connection, fresh.
        identity: How to register.
        handler: What is called.
        delivery: The line that calls it; it outlives the connection.
        handshake: Time limits.
        on_configured: Called with the runtime's identity.
        on_synchronized: Called when the list was answered in time.

    Attributes:
        dropped_for_lateness: The connection was ended because a Synchronize was answered too late.
    """

    def __init__(  # noqa: PLR0913 - two things heard from it beside what it is made of
        self,
        trunk: transport.Trunk,
        identity: Identity,
        handler: NriHandler,
        delivery: Delivery,
        *,
        handshake: Handshake,
        on_configured: Callable[[RuntimeInfo], None],
        on_synchronized: Callable[[], None],
    ) -> None:
        self._trunk = trunk
        self._identity = identity
        self._handshake = handshake
        self._on_configured = on_configured
        self._on_synchronized = on_synchronized
        self._configured = asyncio.Event()
        self._failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._service = PluginService(
            handler, delivery, on_configure=self._heard_configure, on_failure=self._heard_failure
        )
        self._server = trunk.serve(mux.PLUGIN_CONN, [self._service], late=LATE, answered=self._answered)
        self._runtime = transport.stub(api.RuntimeStub, trunk.channel(mux.RUNTIME_CONN))
        self._sync_began: float | None = None
        self._synchronized_at: float | None = None
        self.dropped_for_lateness: bool = False
        self._log: FilteringBoundLogger = structlog.get_logger("nri_resctrl_plugin.nri.session")

    @property
    def kicked(self) -> bool:
        """Whether the connection ended while the runtime waited for an answer."""
        return self.dropped_for_lateness or self._server.in_flight > 0

    @property
    def settled_for(self) -> float:
        """Seconds since the Synchronize; 0 where there was none."""
        if self._synchronized_at is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._synchronized_at

    async def run(self) -> NoReturn:
        """Register and serve until the connection ends.

        Raises:
            ConnectionLostError: It ended, in whatever way; the message says which.
            ConfigureFailed: The handler could not be configured.
        """
        reading = asyncio.create_task(self._trunk.run())
        notice: asyncio.TimerHandle | None = None
        try:
            await self._register()
            await self._hear_of_configure(reading)
            notice = asyncio.get_running_loop().call_later(self._handshake.notice, self._no_list_yet)
            both: set[asyncio.Future[Any]] = {reading, self._failure}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if notice is not None:
                notice.cancel()
            await self._trunk.close()
            with contextlib.suppress(Exception):
                await reading
            self._service.release_list(valid=False)
        if self._failure.done():
            raise ConfigureFailed(self._failure.result())
        if self.dropped_for_lateness:
            raise ConnectionLostError("a Synchronize was answered too late, so the plugin hung up")
        raise ConnectionLostError(_ending(reading)) from reading.exception()

    async def _register(self) -> None:
        request = api.RegisterPluginRequest(
            plugin_name=self._identity.name, plugin_idx=self._identity.idx, NRI_version=_NRI_VERSION
        )
        try:
            await self._runtime.register_plugin(request, timeout=self._handshake.register)
        except GRPCError as error:
            raise RegistrationError(
                f"the runtime does not register {self._identity.idx}-{self._identity.name}: {error.message}"
            ) from error
        except StreamTerminatedError as error:
            raise HandshakeError("the connection ended before the plugin was registered") from error

    async def _hear_of_configure(self, reading: asyncio.Task[None]) -> None:
        configured = asyncio.create_task(self._configured.wait())
        try:
            done, _ = await asyncio.wait(
                {configured, reading},
                timeout=self._handshake.configure,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            configured.cancel()
        if not done:
            raise HandshakeError(f"no Configure within {self._handshake.configure:g} s of registering")

    def _heard_configure(self, runtime: RuntimeInfo) -> None:
        self._server.budget = runtime.request_timeout
        self._log.info(
            "configured", runtime=runtime.name, version=runtime.version, nri_version=runtime.nri_version
        )
        self._configured.set()
        self._on_configured(runtime)

    def _heard_failure(self, error: BaseException) -> None:
        if not self._failure.done():
            self._failure.set_result(error)

    def _answered(self, route: str, took: float) -> None:
        """Watch over the answers to Synchronize: all its parts together have one request timeout."""
        if route != SYNCHRONIZE:
            return
        now = asyncio.get_running_loop().time()
        if self._sync_began is None:
            self._sync_began = now - took
        if not self._service.list_is_whole:
            return
        total, self._sync_began = now - self._sync_began, None
        allowed = self._server.budget
        if allowed is not None and total > allowed:
            self._log.warning("synchronize_answered_late", seconds=round(total, 3), allowed=allowed)
            self.dropped_for_lateness = True
            self._service.release_list(valid=False)
            self._trunk.spawn(self._trunk.close())
            return
        self._synchronized_at = now
        self._service.release_list(valid=True)
        self._on_synchronized()

    def _no_list_yet(self) -> None:
        if self._synchronized_at is None:
            self._log.warning(
                "no_synchronize_yet",
                seconds=self._handshake.notice,
                hint="the runtime may be waiting for a pod that terminates, or it has forgotten the plugin",
            )


def _ending(reading: asyncio.Task[None]) -> str:
    match reading.exception():
        case None:
            return "the runtime closed the connection"
        case WireError() as error:
            return f"the connection broke off: {error}"
        case error:
            return f"the connection failed: {error}"
