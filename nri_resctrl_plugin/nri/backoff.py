"""How long to wait before connecting again.

Owns: the arithmetic. Must not know: why a connection ended, beyond what it is told.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from attrs import field, frozen, validators

__all__ = ["Backoff", "Waits"]

_SYSTEM_RANDOM: Final = random.SystemRandom()


@frozen(kw_only=True)
class Backoff:
    """The rule for waiting. All times are in seconds.

    Reconnecting is not free for the node: while a runtime waits to synchronize a plugin, new pods queue
    behind.

    Attributes:
        first: The first wait; each further one is twice as long.
        limit: The longest wait.
        after_kick: The first wait where the runtime dropped the plugin during a call: it is likely to again.
        settled: A connection that lasted this long after its Synchronize starts the count anew.
        jitter: Part of each wait, from 0 to 1, that is left to chance, so that plugins do not come in step.
        chance: Gives numbers from 0 to 1.
    """

    first: float = field(default=0.5, validator=validators.gt(0))
    limit: float = field(default=30.0, validator=validators.gt(0))
    after_kick: float = field(default=5.0, validator=validators.gt(0))
    settled: float = field(default=60.0, validator=validators.ge(0))
    jitter: float = field(default=0.25, validator=[validators.ge(0), validators.le(1)])
    chance: Callable[[], float] = field(default=_SYSTEM_RANDOM.random, repr=False, eq=False)


class Waits:
    """The waits of one plugin, one after another."""

    def __init__(self, rule: Backoff) -> None:
        self._rule = rule
        self._next = rule.first

    def next(self, *, kicked: bool = False, settled_for: float = 0.0) -> float:
        """Return the seconds to wait now.

        Args:
            kicked: The runtime dropped the plugin while it waited for an answer.
            settled_for: Seconds that the connection lasted after its Synchronize; 0 where it never came to
                that.
        """
        rule = self._rule
        if settled_for > rule.settled:
            self._next = rule.first
        wait = min(max(self._next, rule.after_kick) if kicked else self._next, rule.limit)
        self._next = min(wait * 2, rule.limit)
        return wait * (1 - rule.jitter * rule.chance())
