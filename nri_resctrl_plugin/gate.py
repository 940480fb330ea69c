"""Holds work back until the startup is done.

Owns: whether the startup has begun and ended, what waits for it, and why the mount failed. Must not know: the
pod table, what the startup does (`startup`), what becomes of the work.

Rules:
    1. Startup runs once, before any other work: the mount is ensured; and if the first fact of all that needs
       work is a Synchronize, stale groups are swept, or adopted. Work that comes meanwhile is held. A group
       that was made before any Synchronize must not be swept, so then there is no sweep at all.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import structlog

from nri_resctrl_plugin.startup import StartupResult, log_startup
from nri_resctrl_plugin.worker import Success
from resctrl import FsProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from structlog.typing import FilteringBoundLogger

    from nri_resctrl_plugin.jobs import Jobs
    from nri_resctrl_plugin.model import PodUid
    from nri_resctrl_plugin.pods import Work
    from nri_resctrl_plugin.worker import Executor, Outcome

__all__ = ["Gate"]

P = TypeVar("P", bound=FsProvider)

_KEY: Final = ""  # no pod's uid is empty


class _Phase(Enum):
    SHUT = auto()
    OPENING = auto()
    OPEN = auto()


class Gate(Generic[P]):
    """The startup of one plugin, and the work that waits for it.

    Args:
        executor: Where the startup runs.
        opened: Is given the work that was held, in its order, when the startup is done.

    Attributes:
        mount_error: Why resctrl was not usable at the startup, until a group could be made nevertheless.
    """

    def __init__(self, executor: Executor, opened: Callable[[list[Work]], None]) -> None:
        self.mount_error: Exception | None = None
        self._executor = executor
        self._opened = opened
        self._phase = _Phase.SHUT
        self._swept_or_skipped = False
        self._held: list[Work] = []
        self._log: FilteringBoundLogger = structlog.get_logger("nri_resctrl_plugin")

    @property
    def untouched(self) -> bool:
        """Whether the startup has not begun."""
        return self._phase is _Phase.SHUT

    @property
    def opening(self) -> bool:
        """Whether the startup is under way."""
        return self._phase is _Phase.OPENING

    def synchronized(self, listed: Collection[PodUid], jobs: Jobs[P]) -> None:
        """At the first Synchronize: start up, with sweep and adoption unless work was done before it."""
        if self._phase is _Phase.SHUT:
            self._begin(listed, jobs)
            self._swept_or_skipped = True
        elif not self._swept_or_skipped:
            self._swept_or_skipped = True
            self._log.info("startup_cleanup_skipped", reason="groups were made before the first Synchronize")

    def lets_through(self, work: Work, jobs: Jobs[P]) -> bool:
        """Return whether work may go on now; if not, it is held. The first work of all starts up."""
        if self._phase is _Phase.SHUT:
            self._begin(None, jobs)
        if self._phase is _Phase.OPEN:
            return True
        self._held.append(work)
        return False

    def _begin(self, listed: Collection[PodUid] | None, jobs: Jobs[P]) -> None:
        self._phase = _Phase.OPENING
        self._executor.submit(_KEY, lambda: jobs.start_up(listed), self._started_up, urgent=True)

    def _started_up(self, outcome: Outcome[StartupResult]) -> None:
        result = outcome.value if isinstance(outcome, Success) else StartupResult(outcome.error)
        self.mount_error = result.mount_error
        self._phase = _Phase.OPEN
        held, self._held = self._held, []
        self._opened(held)
        log_startup(self._log, result)  # last: it may fail, and then nothing would ever go on
