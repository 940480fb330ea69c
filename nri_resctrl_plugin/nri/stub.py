"""The plugin's end of NRI: connect, register, serve, connect again.

Owns: identity, backoff, the life of a connection. Must not know: what the handler does with what it is told.
"""

from __future__ import annotations

from nri_resctrl_plugin.nri.handler import NriHandler

__all__ = ["NriHandler"]
