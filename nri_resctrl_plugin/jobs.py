"""What the worker does for the pod table: each action as one blocking call.

Owns: how an action is carried out with the settings in force, and the groups that wait for adoption. Must not
know: the table, the event loop, who waits.

Rules:
    1. All of it runs on the worker, one call at a time: so nothing here needs a lock.
    2. A call is one action: at most one mkdir, the rmdirs of one pod, or one container.
    3. What goes wrong is raised, or is in the value where the value says more.
    4. A pod takes up its adopted groups when its own is made, or when it is looked at. As long as some wait,
       the startup is not done: those of a pod that has gone are stale.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import evolve, frozen

from nri_resctrl_plugin.budget import create_within
from nri_resctrl_plugin.cgroups import CgroupPidSource
from nri_resctrl_plugin.inspection import ended_sandboxes, gone_containers, inspect, meet
from nri_resctrl_plugin.placement import place
from nri_resctrl_plugin.pods import DeleteGroup, GroupCreated
from nri_resctrl_plugin.presence import may_be_there
from nri_resctrl_plugin.startup import start_up, sweep_and_adopt
from resctrl import FsProvider

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from nri_resctrl_plugin.cgroups import PidSource
    from nri_resctrl_plugin.config import ResctrlPluginConfig
    from nri_resctrl_plugin.inspection import Inspection
    from nri_resctrl_plugin.model import ContainerCgroup, ContainerId, PodUid, SandboxId
    from nri_resctrl_plugin.placement import Placed
    from nri_resctrl_plugin.pods import Inspect, LiveSandbox, Reconcile
    from nri_resctrl_plugin.startup import StartupResult
    from resctrl import Resctrl, Tid

__all__ = ["Deletion", "Jobs"]

P = TypeVar("P", bound=FsProvider)


@frozen
class Deletion:
    """How the deletion of a pod's groups ended.

    Attributes:
        removed: How many are gone now.
        left: Those that could not be removed.
        error: Why the first of them could not.
    """

    removed: int = 0
    left: tuple[Path, ...] = ()
    error: Exception | None = None


class Jobs(Generic[P]):
    """The calls, with given settings.

    Args:
        config: The plugin's settings.
        resctrl: Where groups are made.
        pid_source: Lists the threads of a container.

    Attributes:
        given_up: Threads that need not be put back once more, and groups that need not be made again: a word
            of the audit under way to its inspections.
    """

    def __init__(self, config: ResctrlPluginConfig, resctrl: Resctrl[P], pid_source: PidSource) -> None:
        self.given_up: frozenset[Tid | Path] = frozenset()
        self._config = config
        self._resctrl = resctrl
        self._source = pid_source
        self._adopted: dict[PodUid, tuple[Path, ...]] = {}
        self._owes_sweep = False

    @property
    def owes_startup(self) -> bool:
        """Whether the startup is not done; meant for the event loop, which may hear of it a little late."""
        return self._owes_sweep or bool(self._adopted)

    def start_up(self, listed: Collection[PodUid] | None) -> StartupResult:
        """Do what is due before the first group; raises nothing. See `startup.start_up`."""
        result = start_up(self._resctrl, self._config, listed)
        self._adopted = dict(result.adopted)
        self._owes_sweep = listed is not None and not result.is_whole
        return result

    def start_up_again(self, pods: Mapping[PodUid, Collection[Path]]) -> StartupResult:
        """Do what the startup could not; raises nothing. See `startup.sweep_and_adopt`."""
        result = sweep_and_adopt(self._resctrl, self._config, pods)
        self._owes_sweep = not result.is_whole
        if result.sweep_error is None:
            self._adopted = dict(result.adopted)
        return result

    def create(self, pod_uid: PodUid, sandboxes: Iterable[LiveSandbox] = ()) -> GroupCreated:
        """Make a pod's group, or find it; the groups that it was adopted with, the first time.

        Args:
            pod_uid: The pod.
            sandboxes: Its sandboxes, met now: a pod may end unheard before any audit looks at it.

        Raises:
            resctrl.ResctrlError: It cannot be made.
        """
        meet(self._source, sandboxes)
        adopted = [group for group in self._adopted.pop(pod_uid, ()) if may_be_there(self._resctrl, group)]
        if adopted:
            return GroupCreated(pod_uid, adopted[0], tuple(adopted[1:]))
        made = create_within(self._resctrl, pod_uid, max_groups=self._config.max_groups)
        return GroupCreated(pod_uid, made)

    def delete(self, asked: DeleteGroup) -> Deletion:
        """Remove all groups of a pod; raises nothing."""
        failures: dict[Path, Exception] = {}
        for group in (asked.path, *asked.others):
            try:
                self._resctrl.delete_group(group)
            except Exception as error:  # noqa: BLE001 - the others take an RMID each and are to go all the same
                failures[group] = error
        removed = 1 + len(asked.others) - len(failures)
        return Deletion(removed, tuple(failures), next(iter(failures.values()), None))

    def reconcile(self, asked: Reconcile, sandbox: LiveSandbox | None = None) -> Placed:
        """Put a container's threads into groups of its pod; see `placement.place`.

        Args:
            asked: What is wanted.
            sandbox: The container's, met now: one that joined a living pod was met by no creation.

        Raises:
            CgroupError: Its threads cannot be listed.
        """

        def make(control_group: str) -> Path:
            return create_within(
                self._resctrl, asked.pod_uid, control_group, max_groups=self._config.max_groups
            )

        if sandbox is not None:
            meet(self._source, [evolve(sandbox, containers=())])  # an attempt's listing meets each of these
        return place(
            self._resctrl,
            asked,
            lambda: self._source.thread_ids(asked.cgroup),
            self._config.max_reconcile_passes,
            make if self._config.class_placement else None,
        )

    def inspect(self, asked: Inspect) -> Inspection:
        """Look at a pod, see `inspection.inspect`, with groups of it that the table does not know yet.

        Groups that it does not use are given back: those in `unused` are gone now, and not in `others`.
        """
        new = [group for group in self._adopted.get(asked.pod_uid, ()) if group not in asked.groups]
        whole = evolve(asked, groups=(*asked.groups, *new))
        seen = inspect(self._resctrl, self._source, whole, self.given_up)
        self._adopted.pop(asked.pod_uid, None)
        return self._given_back(asked.pod_uid, seen) if seen.unused else seen

    def _given_back(self, pod_uid: PodUid, seen: Inspection) -> Inspection:
        """Remove what a pod does not use, and return what is there then."""
        end = self.delete(DeleteGroup(pod_uid, seen.unused[0], seen.unused[1:]))
        gone = tuple(group for group in seen.unused if group not in end.left)
        return evolve(
            seen,
            others=tuple(group for group in seen.others if group not in gone),
            unused=gone,
            failures=(*seen.failures, *([(None, end.error)] if end.error is not None else [])),
        )

    def close(self) -> None:
        """Let go of what is held open; only after the last job."""
        if isinstance(self._source, CgroupPidSource):
            self._source.close()

    def ended(self, sandboxes: Iterable[LiveSandbox], unseen: Collection[ContainerCgroup]) -> list[SandboxId]:
        """Return which sandboxes are gone unheard; see `inspection.ended_sandboxes`."""
        return ended_sandboxes(self._source, sandboxes, unseen)

    def gone(self, containers: Mapping[ContainerId, ContainerCgroup]) -> list[ContainerId]:
        """Return which containers are gone unheard; see `inspection.gone_containers`."""
        return gone_containers(self._source, containers)
