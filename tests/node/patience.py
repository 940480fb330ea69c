"""Waiting on a node, which may be emulated: long enough for a busy host, and not so often as to load it."""

from __future__ import annotations

from functools import partial
from typing import Final

from tests.e2e.waiting import until

__all__ = ["PATIENCE", "eventually"]

PATIENCE: Final = 90.0
"""Seconds to wait for what is no claim about time: an emulated machine may share its host with others."""

eventually: Final = partial(until, seconds=PATIENCE, every=0.1)
"""Waits for a named condition, as `until` does."""
