"""Looking whether all is as it is believed to be, and mending what is not: only ever because somebody calls.

Owns: the rules of `audit_once`. Must not know: NRI, threads, what a finding changes (`pods`), when to call.

Rules:
    1. First the census, a small job per pod: sandboxes that are surely gone, with all their containers, are
       removed as if the runtime had told; so are containers that are gone and no inspection looks at. Not
       those of which more was told during the look, such as a START. Then each pod whose group Exists is
       inspected, and what turns out astray or lost is mended by the table's own ways before the next pod has
       its turn.
    2. A pod that is busy is waited for: what it is busy with may leave others of its containers unseen.
    3. A cgroup is looked at once, when the audit first meets it, so that it can be missed later; after that,
       those of containers are looked at only where their sandbox's is gone. Of a pod that ends before its
       first audit they were met by the job that made its group, of a sandbox that joined it later by the
       attempts of its containers.
    4. One bad item never ends an audit, and it raises nothing. Audits do not overlap: a second call joins.
    5. A thread that is astray again although it was put back twice is left there, and its container told as
       PARTIAL: somebody takes it out each time, and an audit that went on would only tell of it ever again.
       A main group that is lost again although it was made again twice leaves its pod Failed, as a failure.
    6. Where something was mended, or could not be told, it is looked at again after a moment, and once more
       after a longer one when that look finds all well: a fork that was under way while its parent was moved
       brings a child that is outside, and how long a fork takes depends on who else wants the processor. So
       is a container that no audit has found complete before, after the longer moment alone: it may have been
       placed just now.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from attrs import define, field

from nri_resctrl_plugin.errors import ContainerNotFoundError, PluginClosedError, PodNotFoundError
from nri_resctrl_plugin.events import Exists
from nri_resctrl_plugin.jobs import Deletion
from nri_resctrl_plugin.joining import Joined
from nri_resctrl_plugin.model import ContainerId, ContainerState, PodUid
from nri_resctrl_plugin.pods import LOST_AGAIN, ContainerStopped, Finding, PodAudited, PodRemoved
from nri_resctrl_plugin.reports import AuditReport, RetryFailure, RetrySubject
from resctrl import FsProvider, GroupNotFoundError, Operation, Tid

if TYPE_CHECKING:
    from nri_resctrl_plugin.driver import Driver
    from nri_resctrl_plugin.inspection import Inspection
    from nri_resctrl_plugin.model import ContainerCgroup
    from nri_resctrl_plugin.pods import LiveSandbox, PodTable

__all__ = ["Audits"]

P = TypeVar("P", bound=FsProvider)

_WENT_AWAY = (ContainerNotFoundError, PodNotFoundError, PluginClosedError)


_LOOKS: Final = 10
"""How often a pod is inspected at most in one audit."""

_TIMES: Final = 2
"""How often the same thread is put back, or group made again, in one audit: who undoes it each time outlasts
any audit."""

_QUIET_LOOKS: Final = 2
"""How many looks in a row must find all well once one has not."""

A_MOMENT: Final = 0.05
"""Seconds from a look to the next: the forks of all but very large processes take less."""

_LONGER: Final = 5
"""How many moments it is to the last look: a process may have to wait for the processor while it forks."""


@define
class _Tally:
    """A report being made: whatever is looked at several times counts once."""

    pods: set[PodUid] = field(factory=set)
    containers: set[ContainerId] = field(factory=set)
    containers_astray: set[ContainerId] = field(factory=set)
    threads_astray: Counter[Tid] = field(factory=Counter)
    containers_reconciled: set[ContainerId] = field(factory=set)
    containers_dropped: set[ContainerId] = field(factory=set)
    groups_lost: Counter[Path] = field(factory=Counter)
    groups_recreated: set[Path] = field(factory=set)
    pods_dropped: int = 0
    groups_deleted: int = 0
    failures: dict[tuple[RetrySubject, str], RetryFailure] = field(factory=dict)

    def fail(self, subject: RetrySubject, name: str, error: Exception) -> None:
        """Take an error, unless it says that its subject went away: that is no failure."""
        if not isinstance(error, _WENT_AWAY):
            self.failures.setdefault((subject, name), RetryFailure(subject, name, error))

    def see(self, pod_uid: PodUid, seen: Inspection) -> None:
        """Take what one look at a pod saw."""
        self.pods.add(pod_uid)
        for container_id, finding in seen.findings:
            self.containers.add(container_id)
            if finding in {Finding.ASTRAY, Finding.ASTRAY_AGAIN}:
                self.containers_astray.add(container_id)
            elif finding is Finding.GONE:
                self.containers_dropped.add(container_id)
        self.threads_astray.update(seen.astray)
        self.groups_deleted += len(seen.unused)
        for failed, error in seen.failures:
            if failed is None:
                self.fail(RetrySubject.GROUP, pod_uid, error)
            else:
                self.fail(RetrySubject.CONTAINER, failed, error)

    def given_up(self) -> frozenset[Tid | Path]:
        """Return what was mended so often that it is left alone when it is found once more."""
        found: list[tuple[Tid | Path, int]] = [*self.threads_astray.items(), *self.groups_lost.items()]
        return frozenset(each for each, times in found if times >= _TIMES)

    def report(self, table: PodTable) -> AuditReport:
        """Return the report; what was mended and is not so any more by now is not told as mended."""
        reconciled = [table.container_state(each) for each in self.containers_reconciled]
        groups = {group for told in table.snapshot().values() for group in told.groups}
        return AuditReport(
            pods=len(self.pods),
            containers=len(self.containers),
            containers_astray=len(self.containers_astray),
            threads_astray=len(self.threads_astray),
            containers_reconciled=reconciled.count(ContainerState.RECONCILED),
            containers_dropped=len(self.containers_dropped),
            groups_recreated=len(self.groups_recreated & groups),
            pods_dropped=self.pods_dropped,
            groups_deleted=self.groups_deleted,
            failures=tuple(self.failures.values()),
        )


class Audits(Generic[P]):
    """The audits of one driver.

    Args:
        driver: Has the table, and does the work.

    Attributes:
        passes: The passes of `once`, one at a time.
        moment: Seconds from one look at a pod to the next.
    """

    def __init__(self, driver: Driver[P]) -> None:
        self._driver = driver
        self.moment: float = A_MOMENT
        self._met: frozenset[ContainerCgroup] = frozenset()
        self._settled: set[ContainerId] = set()
        self.passes: Joined[AuditReport] = Joined(self._make, "resctrl audit")

    async def once(self) -> AuditReport:
        """Make one audit, or join the one that runs; see `ResctrlPlugin.audit_once`."""
        return await self.passes.run()

    async def _make(self) -> AuditReport:
        tally = _Tally()
        partial = frozenset(self._driver.table.partial_containers())
        await self._take_census(tally)
        owed = dict.fromkeys((each.pod_uid for each in self._driver.table.sandboxes()), 1)
        for look in range(_LOOKS):
            if look:
                await asyncio.sleep(self.moment * (1 if max(owed.values()) > 1 else _LONGER))
            for pod_uid in tuple(owed):
                wanted = await self._audit(pod_uid, partial, tally)
                owed[pod_uid] = max(owed[pod_uid] - 1, wanted)
                if not owed[pod_uid]:
                    del owed[pod_uid]
            if not owed:
                break
        self._settled &= tally.containers
        return tally.report(self._driver.table)

    # --- the census ---

    async def _take_census(self, tally: _Tally) -> None:
        by_pod: dict[PodUid, list[LiveSandbox]] = {}
        for sandbox in self._driver.table.sandboxes():
            by_pod.setdefault(sandbox.pod_uid, []).append(sandbox)
        for pod_uid, sandboxes in by_pod.items():
            await self._count(pod_uid, sandboxes, tally)
        self._met = frozenset(
            each for sandbox in self._driver.table.sandboxes() for each in sandbox.containers
        )

    async def _count(self, pod_uid: PodUid, sandboxes: list[LiveSandbox], tally: _Tally) -> None:
        driver = self._driver
        jobs = driver.jobs
        unmet = {each for sandbox in sandboxes for each in sandbox.containers} - self._met
        unwatched = driver.table.unwatched(pod_uid)
        seen = await driver.look(lambda: (jobs.ended(sandboxes, unmet), jobs.gone(unwatched)))
        if isinstance(seen, Exception):
            tally.fail(RetrySubject.GROUP, pod_uid, seen)
            return
        ended, gone = seen
        unchanged = {each.sandbox_id for each in driver.table.sandboxes_of(pod_uid) if each in sandboxes}
        for sandbox_id in ended:
            if sandbox_id not in unchanged:
                continue
            answer = driver.waiters.deletion(pod_uid)
            driver.take(PodRemoved(sandbox_id))
            tally.pods_dropped += not driver.table.knows_pod(pod_uid)
            outcome = await answer
            end = Deletion(error=outcome) if isinstance(outcome, Exception) else outcome
            tally.groups_deleted += end.removed
            if end.error is not None:
                tally.fail(RetrySubject.ORPHAN, pod_uid, end.error)
        for container_id in gone:
            if driver.table.unwatched(pod_uid).get(container_id) == unwatched[container_id]:
                driver.take(ContainerStopped(container_id))
                tally.containers_dropped.add(container_id)

    # --- one pod ---

    async def _audit(self, pod_uid: PodUid, partial: frozenset[ContainerId], tally: _Tally) -> int:
        """Look at a pod and mend it; return how many more looks must find all well."""
        driver, table = self._driver, self._driver.table
        while table.busy(pod_uid) and not driver.closed:
            await driver.waiters.rest(pod_uid)
        group = table.group_state(pod_uid)
        if driver.closed or not isinstance(group, Exists):
            return 0
        driver.jobs.given_up = tally.given_up()
        answer = driver.waiters.inspection(pod_uid)
        driver.take(PodAudited(pod_uid))
        seen = await answer
        if isinstance(seen, Exception):
            return 0  # the plugin is closed
        tally.see(pod_uid, seen)
        if seen.lost:
            tally.groups_lost[group.path] += 1
            await self._see_it_made(pod_uid, tally)
        if seen.given_up:
            hint = "find out who removes it, then try again"
            gone = GroupNotFoundError(Operation.CREATE_GROUP, group.path, detail=LOST_AGAIN, hint=hint)
            tally.fail(RetrySubject.GROUP, pod_uid, gone)
        tried = await self._see_them_mended(seen, partial, tally)
        there = table.group_state(pod_uid)
        if isinstance(there, Exists):
            tally.groups_recreated |= {*group.others}.difference(seen.others) & {there.path, *there.others}
        complete = {container_id for container_id, finding in seen.findings if finding is Finding.COMPLETE}
        unsettled, self._settled = not complete <= self._settled, self._settled | complete
        self._settled -= {container_id for container_id, _ in seen.findings} - complete
        return _QUIET_LOOKS if tried or seen.unsure else int(unsettled)

    async def _see_it_made(self, pod_uid: PodUid, tally: _Tally) -> None:
        """Wait for the group that takes the place of the lost one."""
        driver = self._driver
        if not driver.table.creation_pending(pod_uid):
            return
        outcome = await driver.waiters.creation(pod_uid)
        if isinstance(outcome, Exception):
            tally.fail(RetrySubject.GROUP, pod_uid, outcome)
        else:
            tally.groups_recreated.add(outcome.path)

    async def _see_them_mended(
        self, seen: Inspection, partial: frozenset[ContainerId], tally: _Tally
    ) -> bool:
        """Wait for the attempts that follow from the findings; return whether one went well or came short."""
        driver, tried = self._driver, False
        answers = {
            container_id: driver.waiters.attempt(container_id, collects=True)
            for container_id, _ in seen.findings
            if driver.table.attempt_pending(container_id)
        }
        for container_id, finding in seen.findings:
            outcome: ContainerState | Exception | None = driver.table.container_state(container_id)
            if container_id in answers:
                outcome = await answers[container_id]
            astray = container_id in answers or finding is Finding.ASTRAY
            if isinstance(outcome, Exception):
                tally.fail(RetrySubject.CONTAINER, container_id, outcome)
            else:
                tried = tried or astray
                if outcome is ContainerState.RECONCILED and (astray or container_id in partial):
                    tally.containers_reconciled.add(container_id)
        return tried
