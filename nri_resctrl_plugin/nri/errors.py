"""What can go wrong between a plugin and the runtime, as types.

Owns: the names. Must not know: when they are raised. Bytes that make no sense are `wire.WireError`.
"""

from __future__ import annotations

__all__ = [
    "ConnectionLostError",
    "HandshakeError",
    "InvalidIdentityError",
    "NriError",
    "RegistrationError",
    "UnreachableError",
]


class NriError(Exception):
    """Base of what the stub raises."""


class InvalidIdentityError(NriError, ValueError):
    """A plugin name or index that every runtime refuses."""


class UnreachableError(NriError):
    """Nobody listens at the socket: no runtime, NRI switched off in it, or another path."""


class ConnectionLostError(NriError):
    """The connection ended; the runtime went away, or it dropped the plugin."""


class HandshakeError(ConnectionLostError):
    """The runtime did not do its part between connecting and Configure."""


class RegistrationError(HandshakeError):
    """The runtime refused to register the plugin. It leaves the connection open and dead, so it is closed."""
