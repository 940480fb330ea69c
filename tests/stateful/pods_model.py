"""The world around a `PodTable`, and the truth it must agree with.

The world carries out the table's actions on a disk, in whatever order and with whatever outcome the test
wants, and it judges each answer of the table: the due actions and events are derived afresh after each fact
from what `PodsTruth` holds true. It never looks inside the table.

What it holds against the table:

1. At most one action is in flight per pod, and what is asked for is exactly what is due: one create for each
   appearance, one delete after the end, one reconcile for each start, listing, repeated start or retry. So
   nothing refused or partial is tried again by itself, and no first attempt needs a retry.
2. What is told is exactly what is to be told: nothing before the first outcome, no state twice in a row,
   Removed once for a pod that was told, silence where a retry changed nothing.
3. A consumer who replays the events holds `snapshot()`.
4. Every question is answered with the truth.
5. What is told of groups is what completions told of them, each change once; an inspection is asked for where
   an audit may have one, and of all that it is about.
6. At rest no group is leaked, every live pod has its group or is Failed, no live pod's group was deleted
   without being made again, all counters are true, and no attempt waits.
7. After retries, a census and an audit in which all goes well, what is told is what is there: no group was
   removed unnoticed, no thread is astray, and nothing counts that has ended.
"""

from __future__ import annotations

from collections import Counter

from attrs import define, field

from nri_resctrl_plugin.events import Failed, PodResctrlEvent, PodResctrlRemoved
from nri_resctrl_plugin.model import ContainerId, ContainerState, PodUid, SandboxId
from nri_resctrl_plugin.pods import (
    Action,
    ContainerRetried,
    CreateGroup,
    DeleteGroup,
    Emit,
    Fact,
    GroupRetried,
    Inspect,
    InspectedContainer,
    OrphanRetried,
    PodAudited,
    PodRemoved,
    PodTable,
    Reconcile,
    Work,
)
from tests.stateful.pods_ground import Threads
from tests.stateful.pods_truth import Attempt, Box, PodsTruth

__all__ = ["PodsWorld"]


@define(eq=False)
class PodsWorld(PodsTruth):
    """Feeds a table, carries out its actions, and fails with an AssertionError where it is wrong.

    Args:
        table: The table, fresh.
    """

    table: PodTable = field(kw_only=True)

    # --- what a test does ---

    def feed(self, fact: Fact) -> None:
        """Let something happen, and judge what the table makes of it."""
        self._points, self._expected = set(), []
        self._happen(fact)
        actions = self.table.apply(fact)
        self._judge_work([action for action in actions if not isinstance(action, Emit)])
        self._judge_events([action.event for action in actions if isinstance(action, Emit)])
        self._judge_answers()
        if not self.pending:
            self._judge_rest()

    def finish(self, pod_uid: PodUid, *, good: bool, variant: int = 0) -> None:
        """Carry out the action that is in flight for a pod, well or badly, in one of several ways."""
        threads = {box.word.container_id: box.threads for box in self._boxes_of(pod_uid)}
        self.feed(self.ground.carry_out(self.pending[pod_uid][0], threads, good=good, variant=variant))

    def drain(self) -> None:
        """Carry out everything well until nothing is in flight."""
        for _ in range(100):
            if not self.pending:
                return
            self.finish(min(self.pending), good=True)
        raise AssertionError("the table never comes to rest")

    def vanish(self, sandbox_id: SandboxId) -> None:
        """Let a sandbox and its containers end without a word."""
        if sandbox_id in self.live:
            self.vanished.add(sandbox_id)
            for box in self._boxes_in(sandbox_id):
                box.threads.ended = True

    def lose_group(self, pod_uid: PodUid, which: int) -> None:
        """Let somebody remove one of a pod's groups: its threads are in no group then."""
        real = sorted(self.ground.of(pod_uid))
        self.ground.of(pod_uid).difference_update(real[which : which + 1])

    def meddle(self, container_id: ContainerId, group_class: str | None, *, ends: bool) -> None:
        """Let threads of a container be moved to another class, or out of their group; or end unnoticed."""
        threads = self.boxes[container_id].threads if container_id in self.boxes else Threads()
        if group_class is None:
            threads.astray = True
        else:
            threads.change_class(group_class)
        threads.ended |= ends

    def take_census(self) -> None:
        """Drop what the table believes to live and is not there, as an audit does."""
        for sandbox in self.table.sandboxes():
            if sandbox.sandbox_id in self.vanished:
                self.feed(PodRemoved(sandbox.sandbox_id))

    def reach_truth(self) -> None:
        """Retry and audit with all going well; then what is told must be what is there."""
        self.take_census()
        self.drain()
        for orphan in self.table.orphans():
            self.feed(OrphanRetried(orphan))
        for failed in self.table.failed_pods():
            self.feed(GroupRetried(failed))
        self.drain()
        for partial in self.table.partial_containers():
            self.feed(ContainerRetried(partial))
        self.drain()
        for pod_uid in sorted({*self.live.values()}):
            self.feed(PodAudited(pod_uid))
        self.drain()
        self._judge_ground()

    # --- the judgement ---

    def _judge_work(self, works: list[Action]) -> None:
        """What is asked for is exactly what is due, and never beside another action of the pod."""
        asked = {}
        for work in works:
            assert not isinstance(work, Emit)
            assert work.pod_uid not in asked, f"two actions at once: {works}"
            assert work.pod_uid not in self.pending, f"{work} while {self.pending[work.pod_uid]} is in flight"
            asked[work.pod_uid] = work
        for pod_uid in {*self.live.values(), *self.delete_due, *asked} - self.pending.keys():
            self._judge_work_of(pod_uid, asked.get(pod_uid))

    def _judge_work_of(self, pod_uid: PodUid, work: Work | None) -> None:
        asked_of: Attempt | dict[ContainerId, Box] | None = None
        if not self._lives(pod_uid):
            groups = self.known.get(pod_uid, [])
            due = DeleteGroup(pod_uid, groups[0], tuple(groups[1:])) if groups else None
            assert work == (due if pod_uid in self.delete_due else None), f"gone, but {work}"
            self.delete_due.discard(pod_uid)
        elif pod_uid in self.create_due:
            assert work == CreateGroup(pod_uid), f"a create is due, not {work}"
            self.create_due.discard(pod_uid)
            self.bereft.discard(pod_uid)
        elif pod_uid in self.inspect_due:
            asked_of = self._judge_inspection(pod_uid, work)
            self.inspect_due.discard(pod_uid)
        else:
            waiting = [box for box in self._boxes_of(pod_uid) if box.attempt]
            if self.outcome[pod_uid] and waiting:
                promised = [box for box in waiting if box.attempt and box.attempt.first] or waiting
                due_now = [self._reconcile(pod_uid, box) for box in promised]
                assert work in due_now, f"one of {due_now} is due, not {work}"
                asked_of = promised[due_now.index(work)].attempt
            else:
                assert work is None, f"nothing is due, but {work}"
                for box in waiting:  # the group is Failed: a refused group is nobody's to wait for
                    if box.attempt and box.attempt.first:
                        self._points.add(pod_uid)
                    box.attempt = None
        if work is not None:
            self.pending[pod_uid] = (work, asked_of)

    def _judge_inspection(self, pod_uid: PodUid, work: Work | None) -> dict[ContainerId, Box]:
        boxes = [box for box in self._boxes_of(pod_uid) if box.counted and not box.monitored]
        due = Counter(InspectedContainer(box.word.container_id, box.word.cgroup) for box in boxes)
        assert isinstance(work, Inspect), f"an inspection is due, not {work}"
        assert (list(work.groups), Counter(work.containers)) == (self.known[pod_uid], due)
        return {box.word.container_id: box for box in boxes}

    def _reconcile(self, pod_uid: PodUid, box: Box) -> Reconcile:
        main, *others = self.known[pod_uid]
        occupied = [other.homes for other in self._boxes_of(pod_uid) if other.counted and other is not box]
        movable = frozenset(self.known[pod_uid]).difference(*occupied)
        return Reconcile(pod_uid, box.word.container_id, main, box.word.cgroup, tuple(others), movable)

    def _judge_events(self, events: list[PodResctrlEvent]) -> None:
        """What is told is exactly what is to be told; a consumer can keep books by it."""
        for pod_uid in self._points:
            state = self._truth(pod_uid)
            if state is not None and state != self.held.get(pod_uid):
                self._expected.append(state)
        assert Counter(events) == Counter(self._expected), f"told {events}, not {self._expected}"
        for event in events:
            if isinstance(event, PodResctrlRemoved):
                assert self.held.pop(event.pod_uid, None), f"removed, but never told: {event}"
            else:
                assert event != self.held.get(event.pod_uid), f"told twice: {event}"
                assert event.pod_uid in self.outcome, f"told before an outcome: {event}"
                self.held[event.pod_uid] = event
        assert self.table.snapshot() == self.held, "the snapshot is not what a consumer holds"

    def _judge_answers(self) -> None:
        """The table's answers are the truth."""
        table = self.table
        assert table.idle == (not self.pending)
        lives = set(self.live.values())
        for pod_uid in {*lives, *self.known, *self.pending}:
            work = self.pending.get(pod_uid, (None,))[0]
            creating = isinstance(work, CreateGroup)
            assert table.busy(pod_uid) == (work is not None)
            assert table.knows_pod(pod_uid) == (pod_uid in lives)
            own = [each for each in table.sandboxes() if each.pod_uid == pod_uid]
            assert Counter(table.sandboxes_of(pod_uid)) == Counter(own)
            failed = self.outcome.get(pod_uid) is False
            assert table.unwatched(pod_uid) == {
                box.word.container_id: box.word.cgroup
                for box in self._boxes_of(pod_uid)
                if box.counted and (failed or box.monitored)
            }
            assert table.group_state(pod_uid) == self._group(pod_uid)
            assert table.creation_pending(pod_uid) == (
                pod_uid in lives and (creating or pod_uid in self.create_due)
            )
        assert Counter(table.failed_pods()) == Counter(uid for uid in lives if self.outcome.get(uid) is False)
        assert Counter(table.orphans()) == Counter(self.orphans)
        assert Counter(table.sandboxes()) == Counter(map(self._sandbox, self.live))
        states = {container_id: self._state(box) for container_id, box in self.boxes.items()}
        for container_id, box in self.boxes.items():
            state = states[container_id]
            adrift = state in {None, ContainerState.NO_POD}
            assert table.container_state(container_id) == state
            assert table.container_pod(container_id) == (None if adrift else self.live[box.word.sandbox_id])
            assert table.attempt_pending(container_id) == (box.attempt is not None)
        partial = [container_id for container_id, state in states.items() if state is ContainerState.PARTIAL]
        assert Counter(table.partial_containers()) == Counter(partial)

    def _judge_rest(self) -> None:
        """With nothing in flight: no leak, no live pod without its group, and every counter told is true."""
        lives = set(self.live.values())
        assert self.known.keys() <= lives | self.orphans, "a group leaked"
        for pod_uid, groups in self.ground.groups.items():
            assert groups <= {*self.known.get(pod_uid, [])}, "a group is there and nobody knows it"
        assert not self.bereft, "a live pod's group was deleted and not made again"
        assert self.held.keys() == lives, "what is told is not what lives"
        for pod_uid in lives:
            assert pod_uid in self.known or isinstance(self.held[pod_uid].group_state, Failed)
            assert self.held[pod_uid] == self._truth(pod_uid), "counters are not the truth"
        assert not any(box.attempt for box in self.boxes.values()), "an attempt waits for nothing"

    def _judge_ground(self) -> None:
        """After an audit: what is told is what is there."""
        assert not self.vanished, "a pod is told that is not there"
        for pod_uid in {*self.live.values()}:
            real = self.ground.of(pod_uid)
            assert set(self.known[pod_uid]) == real, "groups are told that are not there"
            for box in self._boxes_of(pod_uid):
                if box.counted and not box.monitored:
                    assert not box.threads.ended, "a container counts that is not there"
                    assert box.complete, "a container is partial and nobody tries"
                    assert box.threads.are_home(real), "threads are astray and nobody looks"
