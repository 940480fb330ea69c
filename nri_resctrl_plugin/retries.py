"""Trying again what was refused or is incomplete: only ever because somebody calls.

Owns: the rules of the three `retry_*` calls. Must not know: NRI, threads, when to call.

Rules:
    1. A retry joins an action of its kind that is already under way and shares its outcome; no second mkdir.
    2. What is already done is returned and nothing is told.
    3. A pass tries orphans first, since they free RMIDs, and then what the startup left of stale groups; then
       failed groups, up to the first CapacityError; then every partial container. One bad item never ends it.
    4. Passes do not overlap: a second call joins the pass that runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import define, field

from nri_resctrl_plugin.errors import ContainerNotFoundError, PluginClosedError, PodNotFoundError
from nri_resctrl_plugin.events import Exists
from nri_resctrl_plugin.jobs import Deletion
from nri_resctrl_plugin.joining import Joined
from nri_resctrl_plugin.model import ContainerId, ContainerState, PodUid
from nri_resctrl_plugin.pods import ContainerRetried, GroupRetried, OrphanRetried
from nri_resctrl_plugin.reports import RetryFailure, RetryReport, RetrySubject
from resctrl import CapacityError, FsProvider, NotMountedError

if TYPE_CHECKING:
    from pathlib import Path

    from nri_resctrl_plugin.driver import Driver

__all__ = ["Retries"]

P = TypeVar("P", bound=FsProvider)


@define
class _Tally:
    """A report being made."""

    orphans_deleted: int = 0
    orphans_kept: int = 0
    groups_created: int = 0
    groups_failed: int = 0
    groups_untried: int = 0
    capacity_exhausted: bool = False
    containers_reconciled: int = 0
    containers_partial: int = 0
    failures: list[RetryFailure] = field(factory=list)

    def fail(self, subject: RetrySubject, name: str, error: Exception) -> None:
        self.failures.append(RetryFailure(subject, name, error))

    def report(self) -> RetryReport:
        return RetryReport(
            orphans_deleted=self.orphans_deleted,
            orphans_kept=self.orphans_kept,
            groups_created=self.groups_created,
            groups_failed=self.groups_failed,
            groups_untried=self.groups_untried,
            capacity_exhausted=self.capacity_exhausted,
            containers_reconciled=self.containers_reconciled,
            containers_partial=self.containers_partial,
            failures=tuple(self.failures),
        )


class Retries(Generic[P]):
    """The retry calls over one driver.

    Attributes:
        passes: The passes of `all_once`, one at a time.
    """

    def __init__(self, driver: Driver[P]) -> None:
        self._driver = driver
        self.passes: Joined[RetryReport] = Joined(self._make_pass, "resctrl retry pass")

    async def group(self, pod_uid: PodUid) -> Exists:
        """Try a pod's group again; see `ResctrlPlugin.retry_group_creation`."""
        driver, table = self._driver, self._driver.table
        if driver.closed:
            raise PluginClosedError
        if not table.knows_pod(pod_uid):
            raise PodNotFoundError(pod_uid)
        state = table.group_state(pod_uid)
        if isinstance(state, Exists):
            return state
        answer = driver.waiters.creation(pod_uid)
        if not table.creation_pending(pod_uid):
            driver.take(GroupRetried(pod_uid))
        outcome = await answer
        if isinstance(outcome, Exception):
            raise outcome.with_traceback(None)  # one error may answer many: it must not gather frames
        return outcome

    async def container(self, container_id: ContainerId) -> ContainerState:
        """Try a container again; see `ResctrlPlugin.retry_container_reconcile`."""
        driver, table = self._driver, self._driver.table
        if driver.closed:
            raise PluginClosedError
        state = table.container_state(container_id)
        if state is None:
            raise ContainerNotFoundError(container_id)
        if state is not ContainerState.PARTIAL:
            return state
        pending = table.attempt_pending(container_id)
        pod_uid = table.container_pod(container_id)
        if not pending and (pod_uid is None or not isinstance(table.group_state(pod_uid), Exists)):
            return state  # there is no group to put it into, and making one is another call
        answer = driver.waiters.attempt(container_id, collects=True)
        if not pending:
            driver.take(ContainerRetried(container_id))
        outcome = await answer
        if isinstance(outcome, Exception):
            raise outcome.with_traceback(None)  # one error may answer many: it must not gather frames
        return outcome

    async def all_once(self) -> RetryReport:
        """Make one pass, or join the one that runs; see `ResctrlPlugin.retry_all_once`."""
        return await self.passes.run()

    async def _make_pass(self) -> RetryReport:
        tally = _Tally()
        await self._retry_orphans(tally)
        await self._retry_startup(tally)
        await self._retry_groups(tally)
        await self._retry_containers(tally)
        return tally.report()

    async def _retry_orphans(self, tally: _Tally) -> None:
        driver = self._driver
        for pod_uid in driver.table.orphans():
            if driver.closed or pod_uid not in driver.table.orphans():
                continue  # the pod is back meanwhile, and its group is wanted again
            answer = driver.waiters.deletion(pod_uid)
            driver.take(OrphanRetried(pod_uid))
            outcome = await answer
            end = Deletion(error=outcome) if isinstance(outcome, Exception) else outcome
            tally.orphans_deleted += end.removed
            if end.error is not None:
                tally.orphans_kept += len(end.left)
                tally.fail(RetrySubject.ORPHAN, pod_uid, end.error)

    async def _retry_startup(self, tally: _Tally) -> None:
        """Do what the startup could not.

        It is urgent, so that no pod that is not known yet has a group when the worker comes to it.
        """
        driver, table = self._driver, self._driver.table
        jobs = driver.jobs
        if driver.closed or not jobs.owes_startup:
            return
        living = {each.pod_uid: table.group_state(each.pod_uid) for each in table.sandboxes()}
        pods: dict[PodUid, tuple[Path, ...]] = dict.fromkeys(table.orphans(), ())  # they had their turn
        if driver.config.startup_policy == "adopt":
            pods.update(dict.fromkeys(driver.resting.pods(), ()))
        pods.update(
            (uid, (state.path, *state.others) if isinstance(state, Exists) else ())
            for uid, state in living.items()
        )
        result = await driver.look(lambda: jobs.start_up_again(pods), urgent=True)
        if isinstance(result, Exception):
            return  # the plugin is closed
        if result.report is not None:
            tally.orphans_deleted += result.report.removed
            tally.orphans_kept += result.report.removal_failures
            for failure in result.report.failures:
                tally.fail(RetrySubject.ORPHAN, str(failure.path), failure)
        if result.sweep_error is not None and not isinstance(result.sweep_error, NotMountedError):
            tally.fail(RetrySubject.ORPHAN, str(driver.resctrl.config.root), result.sweep_error)

    async def _retry_groups(self, tally: _Tally) -> None:
        for pod_uid in self._driver.table.failed_pods():
            if tally.capacity_exhausted:
                tally.groups_untried += 1
                continue
            try:
                await self.group(pod_uid)
            except CapacityError as error:
                tally.capacity_exhausted = True
                tally.groups_failed += 1
                tally.fail(RetrySubject.GROUP, pod_uid, error)
            except (PodNotFoundError, PluginClosedError):
                tally.groups_untried += 1
            except Exception as error:  # noqa: BLE001 - one bad group must not keep the others from their turn
                tally.groups_failed += 1
                tally.fail(RetrySubject.GROUP, pod_uid, error)
            else:
                tally.groups_created += 1

    async def _retry_containers(self, tally: _Tally) -> None:
        for container_id in self._driver.table.partial_containers():
            try:
                state = await self.container(container_id)
            except (ContainerNotFoundError, PodNotFoundError, PluginClosedError):
                continue  # it counts nowhere any more
            except Exception as error:  # noqa: BLE001 - one bad container must not keep the others from their turn
                tally.containers_partial += 1
                tally.fail(RetrySubject.CONTAINER, container_id, error)
                continue
            if state is ContainerState.RECONCILED:
                tally.containers_reconciled += 1
            elif state is ContainerState.PARTIAL:
                tally.containers_partial += 1
