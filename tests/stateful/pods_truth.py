"""What is true of pods, containers and groups after any facts, in another style than the table's.

No phases, no transitions: only sets of what lives, what completions told to be on disk, what is due and what
is to be told. It imports nothing of the rules and never asks the table.
"""

from __future__ import annotations

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
    Completion,
    Container,
    ContainerRemoved,
    ContainerRetried,
    ContainerStarted,
    ContainerStopped,
    CreateGroup,
    DeleteGroup,
    Fact,
    Finding,
    GroupCreated,
    GroupDeleted,
    GroupKept,
    GroupRefused,
    GroupRetried,
    Inspect,
    LiveSandbox,
    OrphanRetried,
    PodAudited,
    PodInspected,
    PodRef,
    PodRemoved,
    PodStarted,
    PodStopped,
    Reconcile,
    Synchronized,
    TasksReconciled,
    Work,
)
from tests.stateful.pods_ground import CLASSES, Ground, Threads

__all__ = ["Attempt", "Box", "PodsTruth"]


@define(eq=False)
class Attempt:
    """One reconcile that a container has coming; `first` if it is the one that its START was promised."""

    first: bool


@define(eq=False)
class Box:
    """The truth about one container. It counts once it is started and its pod is known."""

    word: Container
    threads: Threads
    homes: set[Path] = field(factory=set)  # the groups that completions told to hold threads of it
    counted: bool = False
    monitored: bool = False
    complete: bool = False
    over: bool = False
    attempt: Attempt | None = None

    def hear(self, word: Container) -> None:
        """Keep the newest word; who is heard of lives."""
        self.threads.ended = False
        self.word = evolve(word, sandbox_id=self.word.sandbox_id, started=word.started or self.word.started)


@define(eq=False)
class PodsTruth:
    """What lives, what is in flight, what is due, and what was told, as facts come in."""

    live: dict[SandboxId, PodUid] = field(factory=dict)
    ended: set[SandboxId] = field(factory=set)
    boxes: dict[ContainerId, Box] = field(factory=dict)
    outcome: dict[PodUid, bool] = field(factory=dict)  # of the live pod's creates: True once one succeeded
    known: dict[PodUid, list[Path]] = field(factory=dict)  # groups as completions told, the main one first
    words: dict[SandboxId, ContainerCgroup] = field(factory=dict)  # what was told of a sandbox's own cgroup
    ground: Ground = field(factory=Ground)
    vanished: set[SandboxId] = field(factory=set)  # live, as far as the runtime told, and yet not there
    pending: dict[PodUid, tuple[Work, Attempt | dict[ContainerId, Box] | None]] = field(factory=dict)
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

    # --- facts in ---

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
        box = self._box(word)
        box.hear(evolve(word, started=True))
        if box.over or box.word.sandbox_id not in self.live:
            return
        if not box.counted:
            self._count(box, first=True)
        elif self._lacking(box) and not word.runtime_monitored:
            box.attempt = Attempt(first=False)
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
            box = self._box(word)
            box.hear(word)
            if box.word.started and not box.over and not box.counted and box.word.sandbox_id in self.live:
                self._count(box, first=False)

    def _count(self, box: Box, *, first: bool) -> None:
        box.counted = True
        box.monitored = box.word.runtime_monitored
        if not box.monitored:
            box.attempt = Attempt(first)
        if box.monitored or not first:
            self._points.add(self.live[box.word.sandbox_id])

    def _uncount(self, box: Box) -> None:
        if box.counted:
            self._points.add(self.live[box.word.sandbox_id])
        box.counted = box.monitored = box.complete = False
        box.attempt = None

    def _lacking(self, box: Box) -> bool:
        return box.counted and not box.monitored and not box.complete and box.attempt is None

    def _retry_container(self, box: Box | None) -> None:
        if box is not None and self._lacking(box):
            box.attempt = Attempt(first=False)

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
            case DeleteGroup(), GroupKept(_, left):
                self.known[pod_uid] = [group for group in known if not left or group in left]
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

    def _attempted(self, fact: TasksReconciled, attempt: Attempt | None) -> None:
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

    def _looked(self, fact: PodInspected, asked_of: dict[ContainerId, Box], *, ours: bool) -> None:
        main, *others = self.known[fact.pod_uid]
        left = {*others} if fact.others is None else {*fact.others} - {main}
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
                case Finding.ASTRAY_AGAIN if box.complete:
                    box.complete = False
                    self._points.add(fact.pod_uid)
                case Finding.GONE:
                    self._uncount(box)
                    box.over = True
                case _:
                    pass
        if fact.lost and ours:
            self._lose(fact.pod_uid, given_up=fact.given_up)

    def _lose(self, pod_uid: PodUid, *, given_up: bool) -> None:
        """The main group is gone: it is made again, or the pod and its containers wait for a retry."""
        self.outcome[pod_uid] = False
        self._points.add(pod_uid)
        if not given_up:
            self.create_due.add(pod_uid)
        for box in self._boxes_of(pod_uid):
            if box.counted and not box.monitored and not box.attempt:
                box.complete, box.attempt = False, None if given_up else Attempt(first=False)

    def _go_astray(self, box: Box) -> None:
        if box.complete:
            self._points.add(self.live[box.word.sandbox_id])
        box.complete, box.attempt = False, Attempt(first=False)

    def _box(self, word: Container) -> Box:
        """The container of a word; a new one begins in the control group that its pid stands for."""
        group_class = CLASSES[word.cgroup.pid % len(CLASSES)]
        return self.boxes.setdefault(word.container_id, Box(word, Threads(group_class)))

    def _lives(self, pod_uid: PodUid) -> bool:
        return pod_uid in self.live.values()

    def _boxes_in(self, sandbox_id: SandboxId) -> list[Box]:
        return [box for box in self.boxes.values() if box.word.sandbox_id == sandbox_id]

    def _boxes_of(self, pod_uid: PodUid) -> list[Box]:
        return [box for box in self.boxes.values() if self.live.get(box.word.sandbox_id) == pod_uid]

    # --- the words for it ---

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

    def _sandbox(self, sandbox_id: SandboxId) -> LiveSandbox:
        boxes = [box for box in self._boxes_in(sandbox_id) if not box.over]
        cgroups = tuple(box.word.cgroup for box in boxes)
        return LiveSandbox(sandbox_id, self.live[sandbox_id], self.words.get(sandbox_id), cgroups)

    def _state(self, box: Box) -> ContainerState | None:
        if box.over:
            return None
        if box.word.sandbox_id not in self.live:
            return ContainerState.NO_POD
        if not box.counted:
            return ContainerState.CREATED
        if box.monitored:
            return ContainerState.RUNTIME_MONITORED
        return ContainerState.RECONCILED if box.complete else ContainerState.PARTIAL
