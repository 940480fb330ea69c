"""How the program is connected to a runtime, and what it hears of the connection.

Owns: who we are, the way in. Must not know: what the plugin decides, how the program ends.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define

from nri_resctrl_plugin.cli.exits import Exit, Stop
from nri_resctrl_plugin.nri.ahead import Ahead
from nri_resctrl_plugin.nri.errors import InvalidIdentityError
from nri_resctrl_plugin.nri.session import Identity
from nri_resctrl_plugin.nri.stub import DEFAULT_SOCKET, Link, LinkState, NriStub

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

    from nri_resctrl_plugin.nri.handler import NriHandler

__all__ = ["RuntimeLink", "runtime_link", "speak_ahead"]


def speak_ahead(environment: Mapping[str, str]) -> Ahead | None:
    """Register with the runtime that launched us, if one did."""
    inherited = environment.get("NRI_PLUGIN_SOCKET") or None
    if inherited is None:
        return None
    if not inherited.isdecimal():
        raise Stop(Exit.USAGE, f"NRI_PLUGIN_SOCKET is {inherited!r}, not the number of a file descriptor")
    ahead = Ahead(int(inherited), *_names(environment))
    try:
        ahead.begin()
    except OSError as error:
        why = f"descriptor {inherited} is no connection to a runtime: {error.strerror}"
        raise Stop(Exit.LOST, why) from error
    return ahead


def _names(environment: Mapping[str, str]) -> tuple[str, str]:
    """Return name and index as a runtime tells them, or the defaults."""
    return environment.get("NRI_PLUGIN_NAME") or "resctrl", environment.get("NRI_PLUGIN_IDX") or "10"


def runtime_link(options: Namespace, environment: Mapping[str, str], ahead: Ahead | None) -> RuntimeLink:
    """Read who we are and how to connect: a launched plugin is told both by the runtime."""
    name, idx = _names(environment)
    try:
        identity = Identity(options.name or name, options.idx or idx)
    except InvalidIdentityError as error:
        raise Stop(Exit.USAGE, str(error)) from error
    return RuntimeLink(
        identity,
        Path(options.socket_path) if options.socket_path else DEFAULT_SOCKET,
        ahead,
        reconnect=not options.exit_on_disconnect,
        served=ahead is not None and ahead.settings(0.0) is not None,
    )


@define
class RuntimeLink:
    """The connection: how it is made, and what was heard of it.

    Attributes:
        identity: Who registers.
        path: Where the runtime listens.
        ahead: Who has spoken on the connection that the runtime made itself, if it did.
        reconnect: Whether another one follows.
        served: Whether a runtime has ever configured us.
        reason: Why there is no connection.
        synchronized: The runtime told what exists, and events follow.
    """

    identity: Identity
    path: Path
    ahead: Ahead | None
    reconnect: bool
    served: bool = False
    reason: str = ""
    synchronized: bool = False

    @property
    def obstacle(self) -> str | None:
        """Why no events come, or None where they do."""
        if self.synchronized:
            return None
        return f"no runtime has told yet what exists{f': {self.reason}' if self.reason else ''}"

    def stub(self, handler: NriHandler) -> NriStub:
        """Make the connection's keeper."""
        return NriStub(
            handler,
            name=self.identity.name,
            idx=self.identity.idx,
            socket_path=self.path,
            ahead=self.ahead,
            reconnect=self.reconnect,
            on_link=self._heard,
        )

    def _heard(self, news: Link) -> None:
        self.served = self.served or news.state is not LinkState.DOWN
        self.synchronized = news.state is LinkState.SYNCHRONIZED
        self.reason = news.reason
