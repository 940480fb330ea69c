"""What one pass of retries did, as values.

Owns: the shape of the report. Must not know: how the pass is made.
"""

from __future__ import annotations

from enum import Enum

from attrs import field, frozen

__all__ = ["RetryFailure", "RetryReport", "RetrySubject"]


class RetrySubject(Enum):
    """What was tried again."""

    ORPHAN = "orphan"
    """A group whose pod is gone and whose deletion failed; its id is the pod's uid."""
    GROUP = "group"
    """A pod's group; its id is the pod's uid."""
    CONTAINER = "container"
    """One container's threads; its id is the container's."""


@frozen
class RetryFailure:
    """One thing that failed again.

    Attributes:
        subject: What kind of thing.
        id: Which one.
        error: Why.
    """

    subject: RetrySubject
    id: str
    error: Exception = field(eq=False)


@frozen(kw_only=True)
class RetryReport:
    """What `retry_all_once` did.

    Attributes:
        orphans_deleted: Groups of gone pods that are deleted now.
        orphans_kept: Those that still cannot be deleted.
        groups_created: Failed groups that exist now.
        groups_failed: Those that were tried and failed again.
        groups_untried: Those left for a later pass, because capacity ran out or the pod went away.
        capacity_exhausted: Group creation ended at a CapacityError (RmidsBusyError included).
        containers_reconciled: Partial containers that are reconciled now.
        containers_partial: Those that still are not: also where the group is Failed and nothing was tried.
        failures: Every error, in the order of trying. A container that does not converge is no error.
    """

    orphans_deleted: int = 0
    orphans_kept: int = 0
    groups_created: int = 0
    groups_failed: int = 0
    groups_untried: int = 0
    capacity_exhausted: bool = False
    containers_reconciled: int = 0
    containers_partial: int = 0
    failures: tuple[RetryFailure, ...] = ()
