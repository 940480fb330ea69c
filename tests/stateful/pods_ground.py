"""What the pod table never sees: groups on a disk, threads in them, and what other people do to both.

It carries out the table's work as an honest shell on a kernel would, well or badly, and answers with the
completion fact. Other hands remove groups, move threads to another class or take them out of a group, and
end containers and sandboxes without a word; so what is told and what is there differ, until an audit.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field

from nri_resctrl_plugin.model import ContainerId, PodUid
from nri_resctrl_plugin.pods import (
    Completion,
    CreateGroup,
    DeleteGroup,
    Finding,
    GroupCreated,
    GroupDeleted,
    GroupKept,
    GroupRefused,
    Inspect,
    PodInspected,
    Reconcile,
    TasksReconciled,
    Work,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CLASSES", "ROOT", "Ground", "Threads"]

ROOT = Path("/groups")
CLASSES = ("", "gold", "lead")
"""Names of control groups; "" is the root itself."""


@define(eq=False)
class Threads:
    """The threads of one container, from its first word to its end.

    Attributes:
        group_class: The control group that they are in.
        inside: The monitoring group that they were last put into.
        astray: Some of them are not there.
        ended: There are none any more, and their cgroup is gone.
    """

    group_class: str = ""
    inside: Path | None = None
    astray: bool = True
    ended: bool = False

    def change_class(self, group_class: str) -> None:
        """Somebody moves them into another control group: the kernel takes them out of their group."""
        if group_class != self.group_class:
            self.group_class, self.astray = group_class, True

    def are_home(self, groups: set[Path]) -> bool:
        """Whether all of them are in a group that is there and of their class."""
        return not self.astray and self.inside in groups and _class_of(self.inside) == self.group_class


@define(eq=False)
class Ground:
    """The groups that are really there, by pod."""

    groups: dict[PodUid, set[Path]] = field(factory=dict)
    _made: int = 0

    def of(self, pod_uid: PodUid) -> set[Path]:
        """The groups of a pod that are really there."""
        return self.groups.get(pod_uid, set())

    # --- the shell ---

    def carry_out(
        self, work: Work, threads: Mapping[ContainerId, Threads], *, good: bool, variant: int
    ) -> Completion:
        """Carry out an action.

        Args:
            work: The action.
            threads: Those of the pod's containers.
            good: Whether it ends well.
            variant: Which of the ways to end so.

        Returns:
            The truth about how it ended.
        """
        real = self.groups.setdefault(work.pod_uid, set())
        match work:
            case CreateGroup(pod_uid):
                return self._create(pod_uid, real, good=good, variant=variant)
            case DeleteGroup(pod_uid):
                if good:
                    real.clear()
                    return GroupDeleted(pod_uid)
                if real and variant % 2:  # some of them could be removed
                    real.intersection_update({sorted(real)[variant % len(real)]})
                    return GroupKept(pod_uid, tuple(real) if variant % 4 == 1 else None)
                return GroupKept(pod_uid)
            case Reconcile():
                return self._reconcile(work, real, threads, good=good, variant=variant)
            case Inspect():
                return self._inspect(work, real, threads, good=good, variant=variant)

    def _create(self, pod_uid: PodUid, real: set[Path], *, good: bool, variant: int) -> Completion:
        if not good:
            return GroupRefused(pod_uid, f"no {self._made}")
        found = [path for path in real if not _class_of(path)]
        path = found[0] if found else self._make(pod_uid, "")
        others = sorted(real - {path}) if variant % 2 else []  # a shell that adopts tells what it found
        return GroupCreated(pod_uid, path, tuple(others))

    def _make(self, pod_uid: PodUid, group_class: str) -> Path:
        self._made += 1
        path = ROOT / group_class / f"{pod_uid}.{self._made}"  # no two are the same, so an old one shows
        self.of(pod_uid).add(path)
        return path

    def _reconcile(
        self,
        work: Reconcile,
        real: set[Path],
        threads: Mapping[ContainerId, Threads],
        *,
        good: bool,
        variant: int,
    ) -> Completion:
        fails_at_once = not good and variant % 2 == 0
        mine = threads.get(work.container_id)
        if mine is None or mine.ended or fails_at_once or work.path not in real:
            return TasksReconciled(work.pod_uid, work.container_id, complete=False)
        groups = [path for path in (work.path, *work.others) if path in real]
        alone = work.movable - {each.inside for each in threads.values() if each is not mine}
        fitting = [path for path in groups if _class_of(path) == mine.group_class]
        spare = [path for path in groups if path in alone]
        if fitting:
            home = fitting[0]
        elif spare:
            home = self._make(work.pod_uid, mine.group_class)
            real.discard(spare[0])
            groups[groups.index(spare[0])] = home
        else:
            home = self._make(work.pod_uid, mine.group_class)
            groups.append(home)
        mine.inside, mine.astray = home, not good and variant % 3 > 0  # it may fail when all is done
        told = tuple(groups) if variant % 3 or groups != [work.path, *work.others] else None
        homes = frozenset({home}) if good or variant % 5 == 1 else frozenset[Path]()
        return TasksReconciled(work.pod_uid, work.container_id, good, told, homes)

    def _inspect(
        self,
        work: Inspect,
        real: set[Path],
        threads: Mapping[ContainerId, Threads],
        *,
        good: bool,
        variant: int,
    ) -> Completion:
        main, *others = work.groups
        if not good:
            return PodInspected(work.pod_uid, ())
        findings = []
        for container_id in (each.container_id for each in work.containers):
            each = threads.get(container_id)
            if each is None:
                finding = Finding.UNKNOWN
            elif each.ended:
                finding = Finding.GONE
            else:
                astray = Finding.ASTRAY_AGAIN if variant % 7 == 6 else Finding.ASTRAY
                finding = Finding.COMPLETE if each.are_home(real) else astray
            findings.append((container_id, finding))
        left = tuple(path for path in others if path in real)
        told = left if variant % 2 or len(left) < len(others) else None
        return PodInspected(work.pod_uid, tuple(findings), main not in real, told, variant % 5 > 2)

    def take_word(self, fact: Completion, known: list[Path]) -> None:
        """Become what a completion tells: a shell does not lie, even where chance made it up.

        Args:
            fact: The completion of what is in flight.
            known: The pod's groups as completions told so far, the main one first.
        """
        real = self.groups.setdefault(fact.pod_uid, set())
        match fact:
            case GroupCreated(_, path, others):
                real.update({path, *others})
            case GroupDeleted():
                real.clear()
            case TasksReconciled(groups=groups) if groups:
                real.clear()
                real.update(groups)
            case PodInspected(_, _, lost, others):
                real.intersection_update(known if others is None else {known[0], *others})
                real.difference_update(known[:1] if lost else [])
            case _:
                pass


def _class_of(path: Path) -> str:
    return "" if path.parent == ROOT else path.parent.name
