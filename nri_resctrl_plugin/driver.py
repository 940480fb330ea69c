"""Drives the pod table: facts in, its actions run on the worker, completions back in, waiters answered.

Owns: the table, what is in flight, who waits for it. Must not know: NRI, and why a fact came.

Rules:
    1. `take` is synchronous: when it returns, the table knows the fact and the audience was told. What takes
       time goes to the executor and comes back as a completion fact, on the event loop.
    2. All work passes the gate, which holds it until the startup is done.
    3. Work for a pod with a starting container is urgent, from the START until its attempt has ended.
    4. A hard failure is logged here, unless somebody waits who raises or reports it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Generic, TypeVar, assert_never

import structlog

from nri_resctrl_plugin.gate import Gate
from nri_resctrl_plugin.inspection import Inspection
from nri_resctrl_plugin.jobs import Deletion, Jobs
from nri_resctrl_plugin.pods import (
    CreateGroup,
    DeleteGroup,
    Emit,
    GroupCreated,
    GroupDeleted,
    GroupKept,
    GroupRefused,
    Inspect,
    PodInspected,
    PodTable,
    Reconcile,
    Synchronized,
    TasksReconciled,
)
from nri_resctrl_plugin.startup import Resting
from nri_resctrl_plugin.waiting import Waiters
from nri_resctrl_plugin.worker import Failure, Success
from resctrl import EmptyPidSetError, FsProvider, NotMountedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from nri_resctrl_plugin.cgroups import PidSource
    from nri_resctrl_plugin.config import ResctrlPluginConfig
    from nri_resctrl_plugin.hub import EventHub
    from nri_resctrl_plugin.model import ContainerId, PodUid
    from nri_resctrl_plugin.placement import Placed
    from nri_resctrl_plugin.pods import Action, ContainerStarted, Fact, Work
    from nri_resctrl_plugin.waiting import Answer
    from nri_resctrl_plugin.worker import Executor, Outcome
    from resctrl import Resctrl

__all__ = ["Driver"]

P = TypeVar("P", bound=FsProvider)
T = TypeVar("T")

LOOK_KEY: Final = "/"  # no pod's uid is that


class Driver(Generic[P]):
    """One pod table at work.

    Args:
        config: The plugin's settings.
        resctrl: Where groups are made.
        pid_source: Lists the threads of a container.
        executor: Where blocking work runs.
        hub: Who is told.
    """

    def __init__(
        self,
        config: ResctrlPluginConfig,
        resctrl: Resctrl[P],
        pid_source: PidSource,
        executor: Executor,
        hub: EventHub,
    ) -> None:
        self.config: ResctrlPluginConfig = config
        self.resctrl: Resctrl[P] = resctrl
        self.table: PodTable = PodTable()
        self.waiters: Waiters = Waiters(self.table)
        self._pid_source = pid_source
        self.jobs: Jobs[P] = Jobs(config, resctrl, pid_source)
        self._executor = executor
        self._hub = hub
        self._gate: Gate[P] = Gate(executor, self._opened)
        self.resting: Resting = Resting()
        self._starting: dict[ContainerId, PodUid] = {}
        self._at_rest: list[asyncio.Future[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self.closed: bool = False
        self._log: FilteringBoundLogger = structlog.get_logger("nri_resctrl_plugin")

    # --- facts in ---

    def take(self, fact: Fact) -> None:
        """Let a fact happen. After `close` it does nothing.

        Raises:
            RuntimeError: This is not the event loop of the first fact; nothing has happened.
        """
        if self.closed:
            return
        self._bind()
        self.resting.hear(fact)
        if isinstance(fact, Synchronized):
            self._gate.synchronized([pod.pod_uid for pod in (*fact.pods, *fact.resting)], self.jobs)
        actions = self.table.apply(fact)
        self._carry_out(actions)

    def take_start(self, fact: ContainerStarted) -> None:
        """Let a START happen: from now to the end of its attempt its pod's work goes first.

        Raises:
            RuntimeError: As for `take`.
        """
        if self.closed:
            return
        self._bind()
        actions = self.table.apply(fact)
        container_id = fact.container.container_id
        pod_uid = self.table.container_pod(container_id)
        if pod_uid is not None and self.table.attempt_pending(container_id):
            self._starting[container_id] = pod_uid
            self._executor.promote(pod_uid)
        self._carry_out(actions)

    def _bind(self) -> None:
        """Belong to the loop of the first fact: the table must not change on two of them."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError("this plugin belongs to another event loop: use one plugin per loop")

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Emit(event):
                    self._hub.emit(event)
                case CreateGroup() | DeleteGroup() | Reconcile() | Inspect():
                    if self._gate.lets_through(action, self.jobs):
                        self._submit(action)
                case _:
                    assert_never(action)
        self._answer()

    def reconfigure(
        self, config: ResctrlPluginConfig, resctrl: Resctrl[P], pid_source: PidSource | None
    ) -> None:
        """Change the settings; only while `untouched`. A pid source of None stays as it is."""
        self.config, self.resctrl = config, resctrl
        self._pid_source = pid_source if pid_source is not None else self._pid_source
        self.jobs = Jobs(config, resctrl, self._pid_source)

    # --- work out, completions in ---

    def _opened(self, held: list[Work]) -> None:
        for work in held:
            self._submit(work)
        self._answer()

    def _submit(self, work: Work) -> None:
        uid, jobs = work.pod_uid, self.jobs
        urgent = uid in self._starting.values()
        submit = self._executor.submit
        match work:
            case CreateGroup():
                own = self.table.sandboxes_of(uid)
                submit(uid, lambda: jobs.create(uid, own), lambda end: self._created(uid, end), urgent=urgent)
            case DeleteGroup():
                submit(uid, lambda: jobs.delete(work), lambda end: self._deleted(uid, end), urgent=urgent)
            case Reconcile():
                its = self.table.sandbox_of(work.container_id)
                submit(
                    uid,
                    lambda: jobs.reconcile(work, its),
                    lambda end: self._reconciled(work, end),
                    urgent=urgent,
                )
            case Inspect():
                submit(uid, lambda: jobs.inspect(work), lambda end: self._inspected(uid, end), urgent=urgent)
            case _:
                assert_never(work)

    def _created(self, pod_uid: PodUid, outcome: Outcome[GroupCreated]) -> None:
        match outcome:
            case Success(created):
                self._gate.mount_error = None
                self.take(created)
            case Failure(error):
                if isinstance(error, NotMountedError) and self._gate.mount_error is not None:
                    error = self._gate.mount_error  # says why it is not mounted
                collected = self.waiters.creation_failed(pod_uid, error)
                self.take(GroupRefused(pod_uid, str(error)))  # before the log, which may fail
                if not collected:
                    self._log.warning("group_refused", pod_uid=pod_uid, error=str(error))

    def _deleted(self, pod_uid: PodUid, outcome: Outcome[Deletion]) -> None:
        end = outcome.value if isinstance(outcome, Success) else Deletion(error=outcome.error)
        # Who waits is answered first: to a pod at rest, nothing was deleted.
        collected = self.waiters.deletion_ended(pod_uid, end)
        if end.error is None:
            self.take(GroupDeleted(pod_uid))
            return
        self.take(GroupKept(pod_uid, end.left))
        if not collected:
            paths = [str(each) for each in end.left]
            self._log.warning("group_kept", pod_uid=pod_uid, paths=paths, error=str(end.error))

    def _reconciled(self, asked: Reconcile, outcome: Outcome[Placed]) -> None:
        pod_uid, container_id = asked.pod_uid, asked.container_id
        match outcome:
            case Success(placed):
                error = placed.error
                fact = TasksReconciled(pod_uid, container_id, placed.complete, placed.groups, placed.homes)
            case Failure(error):
                fact = TasksReconciled(pod_uid, container_id, complete=False)
        if isinstance(error, EmptyPidSetError):
            error = None  # nothing runs in it (yet, or any more): partial, and no fault of anybody
        collected = self.waiters.attempt_failed(container_id, error)
        self.take(fact)  # before the log, which may fail
        if error is not None and not collected:
            self._log.warning(
                "reconcile_failed", container_id=container_id, pod_uid=pod_uid, error=str(error)
            )
        if fact.groups and fact.groups != (asked.path, *asked.others):
            self._log.info("pod_groups_changed", pod_uid=pod_uid, groups=[str(each) for each in fact.groups])

    def _inspected(self, pod_uid: PodUid, outcome: Outcome[Inspection]) -> None:
        match outcome:
            case Success(seen):
                fact = PodInspected(pod_uid, seen.findings, seen.lost, seen.others, seen.given_up)
            case Failure(error):
                seen = Inspection(failures=((None, error),))
                fact = PodInspected(pod_uid, ())
        self.waiters.inspection_ended(pod_uid, seen)
        self.take(fact)

    def look(self, work: Callable[[], T], *, urgent: bool = False) -> Answer[T]:
        """Let the worker look at something; if it is urgent, before anything that is asked for later.

        Returns:
            What it saw, or why it failed, as a value; PluginClosedError where the plugin is closed meanwhile.
        """
        answer: Answer[T] = self.waiters.look()

        def done(outcome: Outcome[T]) -> None:
            if not answer.done():
                answer.set_result(outcome.value if isinstance(outcome, Success) else outcome.error)

        self._executor.submit(LOOK_KEY, work, done, urgent=urgent)
        return answer

    # --- who waits ---

    async def attempt_ended(self, container_id: ContainerId, seconds: float) -> None:
        """Wait until no attempt of a container is pending, but no longer than so many seconds."""
        if self.closed or not self.table.attempt_pending(container_id):
            return
        answer = self.waiters.attempt(container_id, collects=False)
        try:
            done, _ = await asyncio.wait({answer}, timeout=seconds)
        finally:
            answer.cancel()
        if not done:
            self._log.info("start_goes_on_behind", container_id=container_id, seconds=seconds)

    async def settled(self) -> None:
        """Wait until nothing is in flight, or the plugin is closed."""
        while not (self.closed or self._idle):
            self._at_rest.append(asyncio.get_running_loop().create_future())
            await self._at_rest[-1]

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109 - the deadline of the worker
        """Take no more facts, answer everybody with PluginClosedError, let the running job end.

        Args:
            timeout: Seconds to wait for the job.
        """
        self.closed = True
        self.waiters.close()
        self._wake_resting()
        if await self._executor.close(timeout):
            self.jobs.close()
        else:
            self._log.warning("worker_left_behind", seconds=timeout)

    @property
    def untouched(self) -> bool:
        """Whether no work was begun, so that the settings may still change."""
        return self._gate.untouched and not self.closed

    @property
    def _idle(self) -> bool:
        return self.table.idle and not self._gate.opening

    def _answer(self) -> None:
        """Answer everybody whose waiting has ended with the present fact."""
        for container_id in [each for each in self._starting if not self.table.attempt_pending(each)]:
            del self._starting[container_id]
        self.waiters.answer()
        if self._idle:
            self._wake_resting()

    def _wake_resting(self) -> None:
        resting, self._at_rest = self._at_rest, []
        for answer in resting:
            if not answer.done():
                answer.set_result(None)
