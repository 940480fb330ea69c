"""One fault at one call of one scenario, and what must hold when it has cleared.

Owns: the machine that fails once, the plugin that is asked at its end, the judgement. Must not know: which
faults are tried.

Rules:
    1. The raw observer judges: the fake's own tables and the runtime's words, nothing that the plugin keeps.
    2. The fault has cleared when the body leaves its plugin, and resctrl is mounted where it can be. Then one
       `retry_all_once` and one `audit_once` are made, and nothing else, before what is told is compared with
       what is there.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

import pytest
from attrs import define, field, frozen

from nri_resctrl_plugin import worker
from nri_resctrl_plugin.events import Exists, PodResctrlAddOrUpdate
from nri_resctrl_plugin.model import ContainerState
from nri_resctrl_plugin.nri.messages import Container, PodSandbox
from nri_resctrl_plugin.worker import Failure
from resctrl import Tid
from resctrl.testing import Call, FakeFs, FakePidSource, FaultyFs, RecordingFs
from tests.scenarios import scene
from tests.scenarios.scene import Scene
from tests.stateful.swept_bodies import Untyped, is_untyped
from tests.worlds import ContainerHandle, FakeWorld, Machine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Mapping

    from nri_resctrl_plugin import PodResctrlEvent
    from nri_resctrl_plugin.cgroups import PidSource
    from nri_resctrl_plugin.config import ResctrlPluginConfig
    from nri_resctrl_plugin.model import PodUid
    from nri_resctrl_plugin.worker import Outcome
    from tests.stateful.swept_bodies import Body
    from tests.worlds import World

__all__ = ["PARTS", "Fault", "Run", "run_with"]

T = TypeVar("T")

_SOON: Final = 0.3
_HANDLERS: Final = (
    "synchronize",
    "run_pod_sandbox",
    "stop_pod_sandbox",
    "remove_pod_sandbox",
    "start_container",
    "stop_container",
    "remove_container",
)
_COUNTED: Final = (ContainerState.PARTIAL, ContainerState.RECONCILED, ContainerState.RUNTIME_MONITORED)


@frozen
class Fault:
    """One call that fails.

    Attributes:
        operation: Which kind of call.
        nth: Which one of these, from 1.
        number: The errno.
    """

    operation: str
    nth: int
    number: int


@frozen
class End:
    """How one plugin ended.

    Attributes:
        words: What the runtime told it.
        told: What it told in the end.
        untold: The groups of ours that are there all the same.
        groups: How many groups of ours there are.
        limit: How many there may be; 0: any number.
    """

    words: list[object]
    told: dict[str, object]
    untold: frozenset[Path]
    groups: int
    limit: int


@define
class Run:
    """What came of one run.

    Attributes:
        wrong: What must not be, each in one sentence.
        ends: How each plugin that was judged ended.
        calls: Every call, the one that failed included.
        judging: Which of them, counted from 0, were made to judge.
        met: Whether the fault came to pass.
        strange: Every group that the body made itself.
        root: Where resctrl is mounted.
    """

    wrong: list[str] = field(factory=list)
    ends: list[End] = field(factory=list)
    calls: list[Call] = field(factory=list)
    judging: list[range] = field(factory=list)
    met: bool = False
    strange: set[Path] = field(factory=set)
    root: Path = Path()

    def places(self) -> Iterator[tuple[Call, int]]:
        """Return each call of the body itself, and which of its operation it is, from 1."""
        counts: Counter[str] = Counter()
        for number, call in enumerate(self.calls):
            counts[call.operation] += 1
            if not any(number in judging for judging in self.judging):
                yield call, counts[call.operation]

    def judged_by(self, clean: Run) -> list[str]:
        """Return what is wrong, the same body's run without a fault being as it must be."""
        wrong = list(self.wrong)
        same_way = True
        for end, as_must_be in zip(self.ends, clean.ends, strict=False):
            same_way = same_way and end.words == as_must_be.words
            if same_way and end.told != as_must_be.told:
                wrong.append(f"it ends with {end.told}, and without a fault with {as_must_be.told}")
            # Where the body took another way, what it came to is another truth.
            left = (
                as_must_be.untold if same_way else self.strange.union(*(each.untold for each in clean.ends))
            )
            if leaked := end.untold - left:
                wrong.append(f"leaked: {leaked}")
            if end.limit and end.groups > max(end.limit, as_must_be.groups):
                wrong.append(f"there are {end.groups} groups, and there may be {end.limit}")
        return wrong


class SweptWorld(FakeWorld):
    """A fake machine between a recorder and a fault.

    Attributes:
        faults: Where the fault is scripted.
        record: Every call, the one that fails included.
        run: What comes of it.
        containers: Every container that was made.
        holds: Whether the body stops the plugin's worker.
        has_resctrl: Whether there is something to mount.
    """

    def __init__(self, body: Body) -> None:
        super().__init__(body.machine)
        self.faults: FaultyFs[FakeFs] = FaultyFs(self.kernel)
        self.record = RecordingFs(self.faults)
        self.fs = self.record
        self.run = Run()
        self.holds = body.holds
        self.has_resctrl = body.machine is not Machine.WITHOUT_RESCTRL
        self.containers: dict[str, ContainerHandle] = {}

    def add_group(self, path: Path) -> None:
        """Make a group, and remember it."""
        super().add_group(path)
        self.run.strange.add(path)

    def _new_cgroup(self) -> ContainerHandle:
        handle = super()._new_cgroup()
        self.containers[handle.cgroups_path] = handle
        return handle


class Inline:
    """The plugin's worker on the event loop: the same order, and no thread to wait for."""

    def __init__(self) -> None:
        self._jobs: list[_Job] = []

    def submit(
        self, key: str, work: Callable[[], T], done: Callable[[Outcome[T]], None], *, urgent: bool
    ) -> None:
        """Take a job."""
        self._jobs.append(_Job(key, lambda: done(worker.attempt(work)), urgent=urgent))
        asyncio.get_running_loop().call_soon(self._next)

    def promote(self, key: str) -> None:
        """Mark the jobs of a key."""
        for job in self._jobs:
            job.urgent = job.urgent or job.key == key

    async def close(self, timeout: float) -> bool:  # noqa: ASYNC109 - the signature of Executor
        """Drop what waits."""
        self._jobs.clear()
        return timeout >= 0

    def _next(self) -> None:
        if self._jobs:
            job = next((job for job in self._jobs if job.urgent), self._jobs[0])
            self._jobs.remove(job)
            job.do()


@define(eq=False)
class _Job:
    key: str
    do: Callable[[], None]
    urgent: bool


class SweptScene(Scene):
    """A plugin that is judged when its body leaves it."""

    def __init__(
        self,
        world: World,
        config: ResctrlPluginConfig | None = None,
        *,
        prefix: str | None = None,
        source: PidSource | None = None,
    ) -> None:
        assert isinstance(world, SweptWorld)
        executor = None if world.holds else Inline()
        super().__init__(world, config, prefix=prefix, source=source, executor=executor)
        self.machine = world
        self.plugin._audits.moment = 0.0
        self._source = source
        self._words: list[object] = []
        self._uids: dict[str, str] = {}
        self._containers: dict[str, Container] = {}
        for name in _HANDLERS:
            setattr(self.plugin, name, self._hearing(name, getattr(self.plugin, name)))

    def _hearing(self, name: str, handler: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        """Note what the runtime says before the plugin hears it."""

        async def hear(*words: object) -> None:
            for word in words:
                for each in word if isinstance(word, list) else [word]:
                    self._words.append((name, getattr(each, "id", None)))
                    if isinstance(each, PodSandbox):
                        self._uids[each.id] = each.uid or each.id
                    elif isinstance(each, Container):
                        self._containers[each.id] = each
            await handler(*words)

        return hear

    async def __aexit__(self, *exc: object) -> None:
        begin = len(self.machine.record.calls)
        try:
            await self.settled()
            self.machine.run.wrong += self._misheard()
            self._clear()
            await self.plugin.retry_all_once()
            await self.plugin.audit_once()
            await self.settled()
            self.machine.run.wrong += self._judged()
            self.machine.run.ends.append(self._end())
        except Exception as error:
            raise Untyped(f"{error!r} at the end") from error
        finally:
            self.machine.run.judging.append(range(begin, len(self.machine.record.calls)))
            await super().__aexit__(*exc)

    def _clear(self) -> None:
        """Let everything be as on a machine without faults, whose threads are listed as they are."""
        self.faults.heal()
        if self.machine.run.met:  # else it waits for another plugin of the same body
            self.machine.faults.heal()
        self.machine.kernel.remount(read_only=False)
        self.machine.mount_state(mounted=self.machine.has_resctrl)
        self.machine.kernel.end_limbo()
        if isinstance(self._source, FakePidSource):
            for path, handle in self.machine.containers.items():
                self._source.follow(path, partial(self.machine.threads_of, handle))

    # What is there, and what is told of it

    def _on_disk(self) -> set[Path]:
        """Return the groups of ours, wherever they stand."""
        root, kernel = self.world.root, self.machine.kernel
        if not self.world.is_mounted() or not kernel.exists(root / "mon_groups"):
            return set()
        controls = [root, *(root / name for name in self.world.groups_in(root))]
        found = {
            control / "mon_groups" / name
            for control in controls
            for name in self.world.groups_in(control / "mon_groups")
        }
        return {group for group in found if group.name.startswith(self._prefix)}

    def _misheard(self) -> Iterator[str]:
        """Say what somebody believes wrongly who heard every event, now and while the fault lasts."""
        heard, snapshot = fold(self.told), self.plugin.snapshot()
        if heard != snapshot:
            yield f"what was told adds up to {heard}, and not to {snapshot}"

    def _judged(self) -> Iterator[str]:
        """Say what is wrong in the end."""
        snapshot = self.plugin.snapshot()
        yield from self._misheard()
        for record in self.logs:
            if record["event"] in {"event_failed", "subscriber_failed"}:
                yield f"a handler or a subscriber failed: {record}"
        there = self._on_disk()
        if missing := self._told_groups() - there:
            yield f"told and not there: {missing}"
        for event in snapshot.values():
            yield from self._judged_pod(event, there)

    def _judged_pod(self, event: PodResctrlAddOrUpdate, there: set[Path]) -> Iterator[str]:
        state, uid = event.group_state, event.pod_uid
        states = {name: self.plugin.container_state(name) for name in self._containers_of(uid)}
        counted = [name for name, found in states.items() if found in _COUNTED]
        if event.total_containers != len(counted):
            yield f"{uid} is told with {event.total_containers} containers and has {counted}"
        if not isinstance(state, Exists):
            if self._has_room(there):
                yield f"{uid} has no group though there is room: {state}"
            return
        inside = set[Tid]()
        for group in {state.path, *state.others} & there:
            inside |= self.machine.tasks_in(group)
        whole = [name for name in counted if states[name] is ContainerState.RECONCILED]
        if event.reconciled_containers != len(whole):
            yield f"{uid} is told with {event.reconciled_containers} whole containers and has {whole}"
        for name in counted:
            threads = self._threads_of(name)
            if name in whole and not threads <= inside:
                yield f"{name} is told reconciled, with {threads - inside} outside"
            missing = threads and states[name] is ContainerState.PARTIAL
            if missing and self._is_placeable(threads, there):
                yield f"{name} of {uid} is not reconciled though nothing is in the way"

    def _containers_of(self, uid: str) -> list[str]:
        return [name for name, each in self._containers.items() if self._uids.get(each.pod_sandbox_id) == uid]

    def _told_groups(self) -> set[Path]:
        """Return the groups of pods, as told."""
        states = [event.group_state for event in self.plugin.snapshot().values()]
        return {
            group for state in states if isinstance(state, Exists) for group in (state.path, *state.others)
        }

    def _end(self) -> End:
        """Return how it ends: of each pod all but where its groups stand, which a failed rename changes."""
        there = self._on_disk()
        told: dict[str, object] = {
            uid: (
                # Within a budget another pod may have been the first.
                self.config.max_groups or type(event.group_state).__name__,
                event.total_containers,
                self.config.max_groups or event.reconciled_containers,
            )
            for uid, event in self.plugin.snapshot().items()
        }
        untold = frozenset(there - self._told_groups())
        return End(self._words, told, untold, len(there), self.config.max_groups)

    def _threads_of(self, name: str) -> set[Tid]:
        """Return the threads of a container, as the machine knows them."""
        handle = self.machine.containers.get(self._containers[name].cgroups_path)
        return self.machine.threads_of(handle) if handle is not None else set()

    def _has_room(self, there: set[Path]) -> bool:
        """Tell whether nothing keeps the machine from another group."""
        limit, kernel = self.config.max_groups, self.machine.kernel
        if not self.world.is_mounted() or not kernel.exists(self.world.root / "mon_groups"):
            return False
        return kernel.free_rmids > 0 and (not limit or len(there) < limit)

    def _is_placeable(self, threads: set[Tid], there: set[Path]) -> bool:
        """Tell whether nothing keeps threads from groups of their pod."""
        if threads <= self.machine.tasks_in(self.world.root):
            return True
        return self.config.class_placement and self._has_room(there)


def fold(events: list[PodResctrlEvent]) -> dict[PodUid, PodResctrlAddOrUpdate]:
    """Return what somebody knows who heard every event."""
    known: dict[PodUid, PodResctrlAddOrUpdate] = {}
    for event in events:
        if isinstance(event, PodResctrlAddOrUpdate):
            known[event.pod_uid] = event
        else:
            known.pop(event.pod_uid, None)
    return known


PARTS: Final[Mapping[str, object]] = MappingProxyType({"Scene": SweptScene, "DEADLINE": _SOON, "ROUNDS": 2})
"""What bodies use instead of their own: a plugin that is judged, short waits, few rounds."""


def run_with(body: Body, fault: Fault | None = None) -> Run:
    """Run a body once, to its end or to where it cannot go on."""
    world = SweptWorld(body)
    if fault is not None:
        world.faults.before(fault.operation, partial(_fail, world.run, fault), nth=fault.nth)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(worker, "attempt", partial(_watched, world.run, worker.attempt))
        patched.setattr(scene, "DEADLINE", _SOON)
        try:
            body.run(world)
        except Untyped as error:
            world.run.wrong.append(f"untyped, to the caller: {error}")
        finally:
            world.faults.heal()
            world.close()
    world.run.calls, world.run.root = world.record.calls, world.root
    return world.run


def _fail(run: Run, fault: Fault, path: Path) -> None:
    run.met = True
    raise OSError(fault.number, os.strerror(fault.number), str(path))


def _watched(run: Run, attempt: Callable[[Callable[[], T]], Outcome[T]], work: Callable[[], T]) -> Outcome[T]:
    """Let the worker try something, and see what kinds of errors come of it."""
    outcome = attempt(work)
    run.wrong += [f"untyped, in the worker: {error!r}" for error in _errors_in(outcome) if _is_untold(error)]
    return outcome


def _errors_in(outcome: Outcome[object]) -> list[object]:
    if isinstance(outcome, Failure):
        return [outcome.error]
    value = outcome.value
    told = [getattr(value, name, None) for name in ("error", "mount_error", "sweep_error")]
    return [*told, *(error for _, error in getattr(value, "failures", ()))]


def _is_untold(error: object) -> bool:
    """Tell whether an error is none of the product's types, nor one that a body put there itself.

    What comes from the file system tells a path; what a body lets its source raise does not.
    """
    if not isinstance(error, Exception) or isinstance(error, AssertionError) or not is_untyped(error):
        return False
    return not (isinstance(error, OSError) and error.filename is None)
