"""What one pass of retries, or one audit, did, as values.

Owns: the shape of the reports. Must not know: how a pass is made.
"""

from __future__ import annotations

from enum import Enum

from attrs import field, frozen

__all__ = ["AuditReport", "RetryFailure", "RetryReport", "RetrySubject"]


class RetrySubject(Enum):
    """What was tried again, or looked at."""

    ORPHAN = "orphan"
    """A group without a pod that could not be deleted; its id is the uid of the gone pod, and where an
    earlier plugin left it the directory that could not be removed, or looked into."""
    GROUP = "group"
    """A pod's group; its id is the pod's uid."""
    CONTAINER = "container"
    """One container's threads; its id is the container's."""


@frozen
class RetryFailure:
    """One thing that failed, again or in an audit.

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
        orphans_deleted: Groups of gone pods that are deleted now, and stale ones that the startup left.
        orphans_kept: Those that still cannot be deleted.
        groups_created: Failed groups that exist now.
        groups_failed: Those that were tried and failed again.
        groups_untried: Those left for a later pass, because capacity ran out or the pod went away.
        capacity_exhausted: Group creation ended at a CapacityError (RmidsBusyError included).
        containers_reconciled: Partial containers that are reconciled now.
        containers_partial: Those that still are not: also where the group is Failed and nothing was tried.
        failures: Every error, in the order of trying, one for each orphaned pod. A container that does not
            converge is no error.
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


@frozen(kw_only=True)
class AuditReport:
    """What `audit_once` saw and did. A pod or container that it looked at several times counts once.

    Attributes:
        pods: Pods whose group and containers were looked at.
        containers: Their containers that were looked at.
        containers_astray: Those of them with live threads in no group of their pod.
        threads_astray: How many threads that were, each counted once.
        containers_reconciled: Containers that are reconciled when the audit ends: those astray whose threads
            were assigned, and partial ones that turned out to be complete.
        containers_dropped: Containers whose cgroup is gone though no event told.
        groups_recreated: Groups that somebody had removed and that exist again.
        pods_dropped: Pods whose sandboxes and containers are all gone though no event told.
        groups_deleted: Groups of these that were deleted, and further groups of living pods without a thread.
        failures: Every error, in the order of looking. A container that does not converge is no error.
    """

    pods: int = 0
    containers: int = 0
    containers_astray: int = 0
    threads_astray: int = 0
    containers_reconciled: int = 0
    containers_dropped: int = 0
    groups_recreated: int = 0
    pods_dropped: int = 0
    groups_deleted: int = 0
    failures: tuple[RetryFailure, ...] = ()

    @property
    def found_something(self) -> bool:
        """Whether anything was not as it was believed to be, or could not be seen."""
        return self != AuditReport(pods=self.pods, containers=self.containers)
