"""The world around a `PodTable`, and the truth it must agree with.

The world carries out the table's actions on a disk, in whatever order and with whatever outcome the test
wants, and it judges each answer of the table. It is written in another style than the table: no phases, no
transitions; only sets of what lives, what is on disk, what is due and what was told, from which the due
actions and events are derived afresh after each fact. It imports nothing of the rules and never looks inside
the table.

What it holds against the table:

1. At most one action is in flight per pod, and what is asked for is exactly what is due: one create for each
   appearance, one delete after the end, one reconcile for each start, listing, repeated start or retry. So
   nothing refused or partial is tried again by itself, and no first attempt needs a retry.
2. What is told is exactly what is to be told: nothing before the first outcome, no state twice in a row,
   Removed once for a pod that was told, silence where a retry changed nothing.
3. A consumer who replays the events holds `snapshot()`.
4. Every question is answered with the truth.
5. What is told of groups is what completions told of them, each change once; an inspection is asked for where
   an audit may have one, of all that it is about; no attempt waits while its container is looked at in vain.
6. At rest no group is leaked, every live pod has its group or is Failed, no live pod's group was deleted
   without being made again, all counters are true, and no attempt waits.
7. After retries, a census and an audit in which all goes well, what is told is what is there: no group was
   removed unnoticed, no thread is astray, and nothing counts that has ended.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from attrs import define, evolve, field

from nri_resctrl_plugin.events import (
    Exists,
    Failed,
    PodResctrlAddOrUpdate,
    PodResctrlEvent,
    PodResctrlRemoved,
    ResctrlGroupState,
)
from nri_resctrl_plugin.model import ContainerCgroup, ContainerId, ContainerState, PodUid, SandboxId
from nri_resctrl_plugin.pods import (
    Action,
    Completion,
    Container,
    ContainerRemoved,
    ContainerRetried,
    ContainerStarted,
    ContainerStopped,
    CreateGroup,
    DeleteGroup,
    Emit,
    Fact,
    Finding,
    GroupCreated,
    GroupDeleted,
    GroupKept,
    GroupRefused,
    GroupRetried,
    Inspect,
    InspectedContainer,
    LiveSandbox,
    OrphanRetried,
    PodAudited,
    PodInspected,
    PodRef,
    PodRemoved,
    PodStarted,
    PodStopped,
    PodTable,
    Reconcile,
    Synchronized,
    TasksReconciled,
    Work,
)
from tests.stateful.pods_ground import Ground, Threads

__all__ = ["PodsWorld"]


@define(eq=False)
class _Attempt:
    """One reconcile that a container has coming; `first` if it is the one that its START was promised."""

    first: bool


@define(eq=False)
class _Box:
    """The truth about one container. It counts once it is started and its pod is known."""

    word: Container
    threads: Threads = field(factory=Threads)
    homes: set[Path] = field(factory=set)  # the groups that completions told to hold threads of it
    counted: bool = False
    monitored: bool = False
    complete: bool = False
    over: bool = False
    attempt: _Attempt | None = None

    def hear(self, word: Container) -> None:
        """Keep the newest word; who is heard of lives."""
        self.threads.ended = False
        self.word = evolve(word, sandbox_id=self.word.sandbox_id, started=word.started or self.word.started)


@define(eq=False)
class PodsWorld:
    """Feeds a table, carries out its actions, and fails with an AssertionError where it is wrong."""

    table: PodTable
    live: dict[SandboxId, PodUid] = field(factory=dict)
    ended: set[SandboxId] = field(factory=set)
    boxes: dict[ContainerId, _Box] = field(factory=dict)
    outcome: dict[PodUid, bool] = field(factory=dict)  # of the live pod's creates: True once one succeeded
    known: dict[PodUid, list[Path]] = field(factory=dict)  # groups as completions told, the main one first
    words: dict[SandboxId, ContainerCgroup] = field(factory=dict)  # what was told of a sandbox's own cgroup
    ground: Ground = field(factory=Ground)
    vanished: set[SandboxId] = field(factory=set)  # live, as far as the runtime told, and yet not there
    pending: dict[PodUid, tuple[Work, _Attempt | dict[ContainerId, _Box] | None]] = field(factory=dict)
    create_due: set[PodUid] = field(factory=set)
    delete_due: set[PodUid] = field(factory=set)
    orphans: set[PodUid] = field(factory=set)
    held: dict[PodUid, PodResctrlAddOrUpdate] = field(factory=dict)  # what a consumer of all events holds
    bereft: set[PodUid] = field(
        factory=set
    )  # live pods whose group was deleted under them: a create must follow
    inspect_due: set[PodUid] = field(factory=set)
    _points: set[PodUid] = field(factory=set)
    _expected: list[PodResctrlEvent] = field(factory=list)

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
        for pod_uid in self.table.inspectable_pods():
            self.feed(PodAudited(pod_uid))
        self.drain()
        self._judge_ground()

    # --- the truth ---

    def _happen(self, fact: Fact) -> None:  # noqa: C901, PLR0912 - one arm per fact
        match fact:
            case PodStarted(pod):
                self._run(pod)
            case PodStopped(sandbox_id):
                self._end(sandbox_id)
                self.ended.add(sandbox_id)
            case PodRemoved(sandbox_id):
                self._end(sandbox_id)
                self.ended.discard(sandbox_id)
                self.words.pop(sandbox_id, None)
            case ContainerStarted(word, pod):
                self._start(word, pod)
            case ContainerStopped(container_id) if container_id in self.boxes:
                box = self.boxes[container_id]
                self._uncount(box)
                box.over = True
            case ContainerRemoved(container_id) if container_id in self.boxes:
                self._uncount(self.boxes.pop(container_id))
            case Synchronized(pods, words):
                self.words = {
                    sandbox: word
                    for sandbox, word in self.words.items()
                    if sandbox in {p.sandbox_id for p in pods}
                }
                for pod in pods:
                    self._hear(pod)
                self._synchronize({pod.sandbox_id: pod.pod_uid for pod in pods}, words)
            case GroupRetried(pod_uid):
                self._retry_group(pod_uid)
            case ContainerRetried(container_id):
                self._retry_container(self.boxes.get(container_id))
            case OrphanRetried(pod_uid) if pod_uid in self.orphans:
                self.orphans.discard(pod_uid)
                self.delete_due.add(pod_uid)
            case PodAudited(pod_uid):
                if self.outcome.get(pod_uid) and pod_uid not in self.pending:
                    self.inspect_due.add(pod_uid)
            case ContainerStopped() | ContainerRemoved() | OrphanRetried():
                pass  # of nothing that is known
            case _:
                self._complete(fact)

    def _run(self, pod: PodRef) -> None:
        self._hear(pod)
        if pod.sandbox_id in self.live:
            return
        self.ended.discard(pod.sandbox_id)
        self._appear(pod.sandbox_id, pod.pod_uid)

    def _hear(self, pod: PodRef) -> None:
        self.vanished.discard(pod.sandbox_id)
        if pod.cgroup:
            old = self.words.get(pod.sandbox_id, pod.cgroup)
            self.words[pod.sandbox_id] = ContainerCgroup(
                cgroups_path=pod.cgroup.cgroups_path or old.cgroups_path,
                cgroup_parent=pod.cgroup.cgroup_parent or old.cgroup_parent,
                pid=pod.cgroup.pid or old.pid,
            )

    def _appear(self, sandbox_id: SandboxId, pod_uid: PodUid) -> None:
        if pod_uid not in self.live.values():
            self.create_due.add(pod_uid)
            self.delete_due.discard(pod_uid)
            self.orphans.discard(pod_uid)
        self.live[sandbox_id] = pod_uid
        for box in self._boxes_in(sandbox_id):
            if box.word.started and not box.over:
                self._count(box, first=True)

    def _end(self, sandbox_id: SandboxId) -> None:
        for box in self._boxes_in(sandbox_id):
            self._uncount(box)
            del self.boxes[box.word.container_id]
        self.vanished.discard(sandbox_id)
        pod_uid = self.live.pop(sandbox_id, None)
        if pod_uid is not None and pod_uid not in self.live.values():
            self.create_due.discard(pod_uid)
            self.delete_due.add(pod_uid)
            self.outcome.pop(pod_uid, None)
            self.bereft.discard(pod_uid)
            if pod_uid in self.held:
                self._expected.append(PodResctrlRemoved(pod_uid))

    def _start(self, word: Container, pod: PodRef | None) -> None:
        known = self.boxes.get(word.container_id)
        if (known.word.sandbox_id if known else word.sandbox_id) in self.ended:
            return
        if pod and pod.sandbox_id not in self.ended:
            self._run(pod)
        elif pod:
            self._hear(pod)
        box = self.boxes.setdefault(word.container_id, _Box(word))
        box.hear(evolve(word, started=True))
        if box.over or box.word.sandbox_id not in self.live:
            return
        if not box.counted:
            self._count(box, first=True)
        elif self._lacking(box) and not word.runtime_monitored:
            box.attempt = _Attempt(first=False)
            self._retry_group(self.live[box.word.sandbox_id])

    def _synchronize(self, listed: dict[SandboxId, PodUid], words: tuple[Container, ...]) -> None:
        self.ended.intersection_update(listed)
        for container_id in self.boxes.keys() - {word.container_id for word in words}:
            self._uncount(self.boxes.pop(container_id))
        vanished = self.live.keys() - listed.keys()
        for sandbox_id in listed.keys() - self.live.keys() - self.ended:
            self._appear(sandbox_id, listed[sandbox_id])
        for sandbox_id in vanished:
            self._end(sandbox_id)
        for word in words:
            known = self.boxes.get(word.container_id)
            if (known.word.sandbox_id if known else word.sandbox_id) in self.ended:
                continue
            box = self.boxes.setdefault(word.container_id, _Box(word))
            box.hear(word)
            if box.word.started and not box.over and not box.counted and box.word.sandbox_id in self.live:
                self._count(box, first=False)

    def _count(self, box: _Box, *, first: bool) -> None:
        box.counted = True
        box.monitored = box.word.runtime_monitored
        if not box.monitored:
            box.attempt = _Attempt(first)
        if box.monitored or not first:
            self._points.add(self.live[box.word.sandbox_id])

    def _uncount(self, box: _Box) -> None:
        if box.counted:
            self._points.add(self.live[box.word.sandbox_id])
        box.counted = box.monitored = box.complete = False
        box.attempt = None

    def _lacking(self, box: _Box) -> bool:
        return box.counted and not box.monitored and not box.complete and box.attempt is None

    def _retry_container(self, box: _Box | None) -> None:
        if box is not None and self._lacking(box):
            box.attempt = _Attempt(first=False)

    def _retry_group(self, pod_uid: PodUid) -> None:
        if self.outcome.get(pod_uid) is False and pod_uid not in self.pending:
            self.create_due.add(pod_uid)

    def _complete(self, fact: Completion) -> None:  # noqa: C901 - one arm per pair of action and end
        work, asked_of = self.pending.get(fact.pod_uid, (None, None))
        pod_uid, known = fact.pod_uid, self.known.get(fact.pod_uid, [])
        ours = self._lives(pod_uid) and pod_uid not in self.create_due
        match work, fact:
            case CreateGroup(), GroupCreated(_, path, others):
                self._know(pod_uid, path, {*others, *known})
                if ours:
                    self.outcome[pod_uid] = True
                    self._points.add(pod_uid)
            case CreateGroup(), GroupRefused():
                if ours and pod_uid not in self.outcome:
                    self.outcome[pod_uid] = False
                    self._points.add(pod_uid)
            case DeleteGroup(), GroupDeleted():
                del self.known[pod_uid]
                if self._lives(pod_uid):
                    self.bereft.add(pod_uid)
            case DeleteGroup(), GroupKept():
                if not self._lives(pod_uid):
                    self.orphans.add(pod_uid)
                    self.delete_due.discard(pod_uid)
            case Reconcile(container_id=asked), TasksReconciled(container_id=answered) if asked == answered:
                assert not isinstance(asked_of, dict)
                self._attempted(fact, asked_of)
            case Inspect(), PodInspected():
                assert isinstance(asked_of, dict)
                self._looked(fact, asked_of, ours=ours)
            case _:
                return
        self.ground.take_word(fact, known)
        del self.pending[pod_uid]

    def _know(self, pod_uid: PodUid, main: Path | None, others: set[Path]) -> None:
        """Take in which groups there are; a change is to be told while the group Exists."""
        old = self.known.pop(pod_uid, [])
        new = [main, *sorted(others - {main})] if main else sorted(others)
        if new:
            self.known[pod_uid] = new
        if new != old and self.outcome.get(pod_uid):
            self._points.add(pod_uid)
        for box in self._boxes_of(pod_uid):
            box.homes.intersection_update(new)

    def _attempted(self, fact: TasksReconciled, attempt: _Attempt | None) -> None:
        if fact.groups:
            self._know(fact.pod_uid, fact.groups[0], {*fact.groups[1:]})
        box = self.boxes.get(fact.container_id)
        if box is None:
            return
        if box in self._boxes_of(fact.pod_uid):
            told = fact.homes.intersection(self.known[fact.pod_uid])
            box.homes = {*told} if fact.complete else box.homes | told
        if attempt and box.attempt is attempt:
            box.attempt, box.complete = None, fact.complete
            if fact.complete or attempt.first:
                self._points.add(fact.pod_uid)

    def _looked(self, fact: PodInspected, asked_of: dict[ContainerId, _Box], *, ours: bool) -> None:
        main, *others = self.known[fact.pod_uid]
        left = {*others} if fact.others is None else {*others} & {*fact.others}
        self._know(fact.pod_uid, None if fact.lost else main, left)
        for container_id, finding in fact.findings:
            box = asked_of.get(container_id)
            if box is None or box.attempt or not box.counted:
                continue  # it went, or somebody asked for an attempt meanwhile
            match finding:
                case Finding.COMPLETE if not box.complete:
                    box.complete = True
                    self._points.add(fact.pod_uid)
                case Finding.ASTRAY:
                    self._go_astray(box)
                case Finding.GONE:
                    self._uncount(box)
                    box.over = True
                case _:
                    pass
        if fact.lost and ours:
            self.outcome[fact.pod_uid] = False
            self.create_due.add(fact.pod_uid)
            self._points.add(fact.pod_uid)
            for box in self._boxes_of(fact.pod_uid):
                if box.counted and not box.monitored and not box.attempt:
                    self._go_astray(box)

    def _go_astray(self, box: _Box) -> None:
        if box.complete:
            self._points.add(self.live[box.word.sandbox_id])
        box.complete, box.attempt = False, _Attempt(first=False)

    def _lives(self, pod_uid: PodUid) -> bool:
        return pod_uid in self.live.values()

    def _boxes_in(self, sandbox_id: SandboxId) -> list[_Box]:
        return [box for box in self.boxes.values() if box.word.sandbox_id == sandbox_id]

    def _boxes_of(self, pod_uid: PodUid) -> list[_Box]:
        return [box for box in self.boxes.values() if self.live.get(box.word.sandbox_id) == pod_uid]

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
        asked_of: _Attempt | dict[ContainerId, _Box] | None = None
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

    def _judge_inspection(self, pod_uid: PodUid, work: Work | None) -> dict[ContainerId, _Box]:
        boxes = [box for box in self._boxes_of(pod_uid) if box.counted and not box.monitored]
        due = Counter(InspectedContainer(box.word.container_id, box.word.cgroup) for box in boxes)
        assert isinstance(work, Inspect), f"an inspection is due, not {work}"
        assert (list(work.groups), Counter(work.containers)) == (self.known[pod_uid], due)
        return {box.word.container_id: box for box in boxes}

    def _reconcile(self, pod_uid: PodUid, box: _Box) -> Reconcile:
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

    def _truth(self, pod_uid: PodUid) -> PodResctrlAddOrUpdate | None:
        group = self._group(pod_uid)
        if group is None:
            return None
        boxes = self._boxes_of(pod_uid)
        return PodResctrlAddOrUpdate(
            pod_uid, group, sum(box.counted for box in boxes), sum(box.complete for box in boxes)
        )

    def _group(self, pod_uid: PodUid) -> ResctrlGroupState | None:
        match self.outcome.get(pod_uid):
            case None:
                return None
            case True:
                main, *others = self.known[pod_uid]
                return Exists(main, tuple(others))
            case _:
                return Failed()

    def _judge_answers(self) -> None:
        """The table's answers are the truth."""
        table = self.table
        assert table.idle == (not self.pending)
        lives = set(self.live.values())
        for pod_uid in {*lives, *self.known, *self.pending}:
            work = self.pending.get(pod_uid, (None,))[0]
            creating = isinstance(work, CreateGroup)
            assert table.inspection_pending(pod_uid) == isinstance(work, Inspect)
            assert (pod_uid in table.inspectable_pods()) == bool(self.outcome.get(pod_uid) and work is None)
            assert table.knows_pod(pod_uid) == (pod_uid in lives)
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

    def _sandbox(self, sandbox_id: SandboxId) -> LiveSandbox:
        boxes = [box for box in self._boxes_in(sandbox_id) if not box.over]
        cgroups = tuple(box.word.cgroup for box in boxes)
        return LiveSandbox(sandbox_id, self.live[sandbox_id], self.words.get(sandbox_id), cgroups)

    def _state(self, box: _Box) -> ContainerState | None:
        if box.over:
            return None
        if box.word.sandbox_id not in self.live:
            return ContainerState.NO_POD
        if not box.counted:
            return ContainerState.CREATED
        if box.monitored:
            return ContainerState.RUNTIME_MONITORED
        return ContainerState.RECONCILED if box.complete else ContainerState.PARTIAL

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
