"""Seeing whether pods are as they are believed to be: who is astray, which group is lost, which pod is gone.

Owns: what an audit reads, in which order, and what each sight means. Must not know: the pod table's rows,
what is done about a finding. It blocks, and changes nothing: it is work for the worker.

Rules:
    1. A container's threads are listed first and the groups read after that: what is born in between belongs
       to a group already, while the other way round each of those would look astray.
    2. What looks astray is listed once more: it may have died in between. Nothing else is listed twice, and
       the root's `tasks` are never read. A thread is looked up in /proc only if it takes the place of one
       that looked astray and died: a child of that one is in no group either, whatever its parent's end.
    3. Each group is read once, and none where nothing can depend on it: then it is enough that it is there.
       One that reads as gone is lost only if its directory is gone too.
    4. Gone needs a witness. A listing without threads, and an answer that cannot be had, say nothing.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from attrs import define, field, frozen

from nri_resctrl_plugin.cgroups import CgroupWitness, PidSource
from nri_resctrl_plugin.model import ContainerId
from nri_resctrl_plugin.pods import Finding
from nri_resctrl_plugin.presence import may_be_there
from resctrl import FsProvider, GroupNotFoundError, Resctrl, ResctrlError, Tid

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from nri_resctrl_plugin.model import ContainerCgroup, SandboxId
    from nri_resctrl_plugin.pods import Inspect, InspectedContainer, LiveSandbox

__all__ = ["Inspection", "ended_sandboxes", "gone_containers", "inspect", "meet"]

P = TypeVar("P", bound=FsProvider)
T = TypeVar("T")

_GENERATIONS: Final = 5
"""How often those that died before they could be looked up are followed to their successors."""

_SETTLED: Final = frozenset({Finding.COMPLETE, Finding.GONE})
"""What is found of a container that needs no group but those that its threads are in."""


@frozen
class Inspection:
    """What an inspection of one pod saw.

    Attributes:
        findings: What was found of each container.
        lost: The main group is not there any more.
        given_up: It is lost, and need not be made once more.
        others: The further groups that are there.
        unused: Further groups that hold no thread though all containers were found complete: nobody's.
        astray: The threads that were astray.
        unsure: Threads died faster than they could be looked up; each that could be was inside.
        failures: What could not be seen, and why: a container, or None for the groups.
    """

    findings: tuple[tuple[ContainerId, Finding], ...] = ()
    lost: bool = False
    given_up: bool = False
    others: tuple[Path, ...] = ()
    unused: tuple[Path, ...] = ()
    astray: frozenset[Tid] = frozenset()
    unsure: bool = False
    failures: tuple[tuple[ContainerId | None, Exception], ...] = ()


def inspect(
    resctrl: Resctrl[P], source: PidSource, asked: Inspect, given_up: frozenset[Tid | Path] = frozenset()
) -> Inspection:
    """Look at a pod's groups and at the threads of its containers; raises nothing.

    Args:
        resctrl: Where the groups are.
        source: Lists threads; says which cgroups are gone if it is a `CgroupWitness` too.
        asked: The groups, the main one first, and the containers.
        given_up: Threads whose container is ASTRAY_AGAIN if they are astray, and groups that are given up if
            they are lost.
    """
    look = _Look(resctrl, source, asked.groups, given_up)
    listed = {each: look.threads_of(each) for each in asked.containers}
    try:
        groups = _members(resctrl, asked.groups, read=any(listed.values()))
    except ResctrlError as error:
        look.failures.append((None, error))
        groups = dict.fromkeys(asked.groups, frozenset())
        listed = {}
    look.inside = frozenset[Tid]().union(*groups.values())
    for each, threads in listed.items():
        if threads:
            look.judge(each, threads - look.inside)
    main, *others = asked.groups
    all_well = main in groups and bool(look.inside) and _SETTLED.issuperset(look.findings.values())
    return Inspection(
        findings=tuple(look.findings.items()),
        lost=main not in groups,
        given_up=main not in groups and main in given_up,
        others=tuple(group for group in others if group in groups),
        unused=tuple(group for group in others if all_well and groups.get(group) == frozenset()),
        astray=frozenset(look.astray),
        unsure=look.unsure,
        failures=tuple(look.failures),
    )


def meet(source: PidSource, sandboxes: Iterable[LiveSandbox]) -> None:
    """See where sandboxes and their containers are, so that they can be missed later; raises nothing."""
    for sandbox in sandboxes:
        for cgroup in (sandbox.cgroup, *sandbox.containers):
            with suppress(Exception):
                if cgroup is not None:
                    _is_gone(source, cgroup)


def ended_sandboxes(
    source: PidSource, sandboxes: Iterable[LiveSandbox], unseen: Collection[ContainerCgroup]
) -> list[SandboxId]:
    """Return which sandboxes are surely gone, with all their containers, though no event told.

    Args:
        source: As for `inspect`; one that is no witness finds nothing gone.
        sandboxes: Those that live as far as events told.
        unseen: Cgroups that are to be looked at in any case: only what was seen can be missed later.
    """
    ended = []
    for sandbox in sandboxes:
        gone = sandbox.cgroup is not None and _is_gone(source, sandbox.cgroup)
        answers = [_is_gone(source, each) for each in sandbox.containers if gone or each in unseen]
        if gone and all(answers):
            ended.append(sandbox.sandbox_id)
    return ended


def gone_containers(
    source: PidSource, containers: Mapping[ContainerId, ContainerCgroup]
) -> list[ContainerId]:
    """Return which of these containers are surely gone; a source that is no witness finds none."""
    return [container_id for container_id, cgroup in containers.items() if _is_gone(source, cgroup)]


def _members(resctrl: Resctrl[P], groups: Iterable[Path], *, read: bool) -> dict[Path, frozenset[Tid]]:
    """Return the groups that are there and, if wanted, who is in each.

    Raises:
        ResctrlError: One cannot be read.
    """
    found: dict[Path, frozenset[Tid]] = {}
    for group in groups:
        try:
            if read:
                found[group] = frozenset(resctrl.list_group_tasks(group))
            elif may_be_there(resctrl, group):
                found[group] = frozenset()
        except GroupNotFoundError:
            if may_be_there(resctrl, group):
                raise
    return found


@define
class _Look(Generic[P]):
    """What was seen of the containers so far."""

    resctrl: Resctrl[P]
    source: PidSource
    groups: tuple[Path, ...]
    given_up: frozenset[Tid | Path]
    inside: frozenset[Tid] = frozenset()
    findings: dict[ContainerId, Finding] = field(factory=dict)
    astray: set[Tid] = field(factory=set)
    unsure: bool = False
    failures: list[tuple[ContainerId | None, Exception]] = field(factory=list)

    def threads_of(self, container: InspectedContainer) -> frozenset[Tid]:
        """List a container's threads; that there are none is a finding."""
        threads = self._list(container)
        gone = threads is not None and not threads and self._ask(container, partial(_is_gone, self.source))
        self.findings[container.container_id] = Finding.GONE if gone else Finding.UNKNOWN
        return threads or frozenset()

    def judge(self, container: InspectedContainer, outside: frozenset[Tid]) -> None:
        """Say what it means that these threads were in none of the groups."""
        again = self._list(container) if outside else None
        astray = outside & again if again else frozenset[Tid]()
        if again and not astray:
            self._judge_successors(container, again - self.inside)
        elif astray:
            self._found_astray(container, astray)
        elif not outside:
            self.findings[container.container_id] = Finding.COMPLETE

    def _judge_successors(self, container: InspectedContainer, born: frozenset[Tid] | None) -> None:
        """Say what it means that these threads were born after the groups were read; more may follow them."""
        sure: set[Tid] = set()
        for _ in range(_GENERATIONS):
            if born is None:
                return
            # The newest first: they have the most of their lives before them.
            seen = {tid: self._is_inside(tid) for tid in sorted(born, reverse=True)}
            astray = {tid for tid, inside in seen.items() if inside is False}
            if astray:
                self._found_astray(container, astray)
                return
            if None not in seen.values():
                self.findings[container.container_id] = Finding.COMPLETE
                return
            sure.update(tid for tid, inside in seen.items() if inside)
            again = self._list(container)
            born = again - self.inside - sure if again else None
        self.unsure = True
        if sure:  # it forks faster than it can be followed, and each that could be asked was inside
            self.findings[container.container_id] = Finding.COMPLETE

    def _is_inside(self, tid: Tid) -> bool | None:
        """Tell whether a thread is in a group of the pod; None where it is gone, or that cannot be told."""
        try:
            where = self.resctrl.task_groups(tid)
        except ResctrlError:
            return None
        if where is None:
            return None
        control = self.resctrl.config.root / where.control_group
        return control / "mon_groups" / where.mon_group in self.groups

    def _found_astray(self, container: InspectedContainer, threads: Collection[Tid]) -> None:
        again = not self.given_up.isdisjoint(threads)
        self.findings[container.container_id] = Finding.ASTRAY_AGAIN if again else Finding.ASTRAY
        self.astray.update(threads)

    def _list(self, container: InspectedContainer) -> frozenset[Tid] | None:
        """List threads; None where that fails."""
        return self._ask(container, lambda cgroup: frozenset(self.source.thread_ids(cgroup)))

    def _ask(self, container: InspectedContainer, question: Callable[[ContainerCgroup], T]) -> T | None:
        """Ask the source of threads; None where that fails, and what failed is kept."""
        try:
            return question(container.cgroup)
        except Exception as error:  # noqa: BLE001 - one that cannot be seen must not hide the others
            self.failures.append((container.container_id, error))
            return None


def _is_gone(source: PidSource, cgroup: ContainerCgroup) -> bool:
    return isinstance(source, CgroupWitness) and source.is_gone(cgroup)
