"""Who waits for what, and what they are answered.

Owns: the waiters of attempts, creations, deletions, inspections, of a pod at rest, and of single looks. Must
not know: how the work runs, or why they wait.

Rules:
    1. Whoever waits is answered at the very fact that ends the waiting, with the state of that moment.
    2. An answer is a value or an error as a value, never an exception that nobody might collect.
    3. What went away is an answer too: PodNotFoundError, ContainerNotFoundError. So is that the plugin is
       closed, to whoever waits then and to whoever would begin to wait after it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from attrs import define, field

from nri_resctrl_plugin.errors import ContainerNotFoundError, PluginClosedError, PodNotFoundError
from nri_resctrl_plugin.events import Exists
from nri_resctrl_plugin.jobs import Deletion
from nri_resctrl_plugin.model import PodUid

if TYPE_CHECKING:
    from nri_resctrl_plugin.inspection import Inspection
    from nri_resctrl_plugin.model import ContainerId, ContainerState
    from nri_resctrl_plugin.pods import PodTable

__all__ = ["Answer", "Waiters"]

K = TypeVar("K")
T = TypeVar("T")

Answer: TypeAlias = "asyncio.Future[T | Exception]"


@define
class _Waiting(Generic[T]):
    """Those who wait for one thing.

    Attributes:
        pod_uid: The pod that it is about.
        answers: One per waiter.
        error: The last failure while they wait.
        collects: One of them will raise or report the failure, so nobody need log it.
        outcome: What they are answered, where that is known from the beginning.
    """

    pod_uid: PodUid | None
    answers: list[Answer[T]] = field(factory=list)
    error: Exception | None = None
    collects: bool = False
    outcome: T | Exception | None = None

    def add(self) -> Answer[T]:
        answer: Answer[T] = asyncio.get_running_loop().create_future()
        if self.outcome is not None:
            answer.set_result(self.outcome)
        self.answers = [each for each in self.answers if not each.done()]  # who gave up is forgotten
        self.answers.append(answer)
        return answer

    def resolve(self, value: T | Exception) -> None:
        for answer in self.answers:
            if not answer.done():
                answer.set_result(value)


class Waiters:
    """Everybody who waits for something of one table."""

    def __init__(self, table: PodTable) -> None:
        self._table = table
        self._attempts: dict[ContainerId, _Waiting[ContainerState]] = {}
        self._creations: dict[PodUid, _Waiting[Exists]] = {}
        self._deletions: dict[PodUid, _Waiting[Deletion]] = {}
        self._inspections: dict[PodUid, _Waiting[Inspection]] = {}
        self._rests: dict[PodUid, _Waiting[bool]] = {}
        self._looks: set[asyncio.Future[Any]] = set()
        self._closed = False

    # --- to wait ---

    def attempt(self, container_id: ContainerId, *, collects: bool) -> Answer[ContainerState]:
        """Wait for the end of a container's attempt: one that is pending, or that the next fact begins.

        Args:
            container_id: The container.
            collects: The caller raises or reports the error that it may get.

        Returns:
            The state then, or the error: the hard failure of the reconcile, or what is not there any more.
        """
        waiting = self._of(self._attempts, container_id, self._table.container_pod(container_id))
        waiting.collects |= collects
        return waiting.add()

    def creation(self, pod_uid: PodUid) -> Answer[Exists]:
        """Wait for the end of a pod's group creation: the group, why it was refused, or PodNotFoundError."""
        return self._of(self._creations, pod_uid, pod_uid).add()

    def deletion(self, pod_uid: PodUid) -> Answer[Deletion]:
        """Wait for the end of the deletion that the next fact begins, now or after what is in flight.

        Returns:
            How it ended; an empty one where nothing was deleted.
        """
        return self._of(self._deletions, pod_uid, pod_uid).add()

    def inspection(self, pod_uid: PodUid) -> Answer[Inspection]:
        """Wait for the end of the inspection that the next fact begins: what it saw."""
        return self._of(self._inspections, pod_uid, pod_uid).add()

    def rest(self, pod_uid: PodUid) -> Answer[bool]:
        """Wait until no action of a pod is in flight; True then, whether or not the pod still lives."""
        return self._of(self._rests, pod_uid, pod_uid).add()

    def look(self) -> Answer[T]:
        """Wait for something that the caller resolves itself, unless the plugin is closed first."""
        answer: Answer[T] = asyncio.get_running_loop().create_future()
        if self._closed:
            answer.set_result(PluginClosedError())
        self._looks.add(answer)
        answer.add_done_callback(self._looks.discard)
        return answer

    def _of(self, kind: dict[K, _Waiting[T]], key: K, pod_uid: PodUid | None) -> _Waiting[T]:
        if self._closed:
            return _Waiting(pod_uid, outcome=PluginClosedError())
        return kind.setdefault(key, _Waiting(pod_uid))

    # --- to be told ---

    def attempt_failed(self, container_id: ContainerId, error: Exception | None) -> bool:
        """Take how an attempt ended; return whether somebody collects the error."""
        waiting = self._attempts.get(container_id)
        if waiting is None:
            return False
        waiting.error = error
        return waiting.collects

    def creation_failed(self, pod_uid: PodUid, error: Exception) -> bool:
        """Take why a creation was refused; return whether somebody collects it."""
        waiting = self._creations.get(pod_uid)
        if waiting is None:
            return False
        waiting.error = error
        return True

    def deletion_ended(self, pod_uid: PodUid, end: Deletion) -> bool:
        """Take how a deletion ended and answer who waits for it; return whether anybody does."""
        waiting = self._deletions.pop(pod_uid, None)
        if waiting is None:
            return False
        waiting.resolve(end)
        return True

    def inspection_ended(self, pod_uid: PodUid, seen: Inspection) -> None:
        """Take what an inspection saw and tell who waits for it."""
        waiting = self._inspections.pop(pod_uid, None)
        if waiting is not None:
            waiting.resolve(seen)

    def answer(self) -> None:
        """Answer everybody whose waiting has ended with the present state of the table."""
        for container_id, attempt in list(self._attempts.items()):
            if not self._table.attempt_pending(container_id):
                del self._attempts[container_id]
                attempt.resolve(self._end_of_attempt(container_id, attempt))
        for pod_uid, creation in list(self._creations.items()):
            if not self._table.creation_pending(pod_uid):  # nor is one of a pod that is gone
                del self._creations[pod_uid]
                creation.resolve(self._end_of_creation(pod_uid, creation))
        for pod_uid in [each for each in self._deletions if not self._table.busy(each)]:
            self._deletions.pop(pod_uid).resolve(Deletion())
        for pod_uid in [each for each in self._rests if not self._table.busy(each)]:
            self._rests.pop(pod_uid).resolve(value=True)

    def close(self) -> None:
        """Answer everybody with PluginClosedError."""
        self._closed = True
        closed = PluginClosedError()
        for kind in (self._attempts, self._creations, self._deletions, self._inspections, self._rests):
            for waiting in kind.values():
                waiting.resolve(closed)
            kind.clear()
        for look in tuple(self._looks):
            if not look.done():
                look.set_result(closed)

    def _end_of_attempt(
        self, container_id: ContainerId, attempt: _Waiting[ContainerState]
    ) -> ContainerState | Exception:
        state = self._table.container_state(container_id)
        if state is not None:
            return state if attempt.error is None else attempt.error
        if attempt.pod_uid is not None and not self._table.knows_pod(attempt.pod_uid):
            return PodNotFoundError(attempt.pod_uid)
        return ContainerNotFoundError(container_id)

    def _end_of_creation(self, pod_uid: PodUid, creation: _Waiting[Exists]) -> Exists | Exception:
        state = self._table.group_state(pod_uid)
        if isinstance(state, Exists):
            return state
        if creation.error is not None and self._table.knows_pod(pod_uid):
            return creation.error
        return PodNotFoundError(pod_uid)
