"""What happens once per plugin, before any group is made: the mount, the sweep of stale groups, the adoption.

Owns: the steps, whether they are done, and their log records. Must not know: when they are due, events, what
becomes of a pod.

Rules:
    1. The sweep comes after the mount and only where the mount is there.
    2. A failure is logged and stops nothing: without a mount every group comes out Failed with that reason.
    3. A sweep leaves exactly one INFO record, `startup_cleanup`, with the five counters; and no event.
    4. Where groups are adopted, those of the pods that the runtime lists stay, wherever they stand, with
       their threads and counters; all others with our prefix go as ever. Without `cleanup_on_start` nothing
       goes, under either policy.
    5. What could not be done is owed to a retry. Groups were made by then: so under either policy those of
       living pods stay, and are adopted where the pod does not know them.
    6. A sandbox that is listed and rests may be a pod between two crashes, or one that was stopped. Where
       groups are adopted, its pod's stay until it is stopped, removed or not listed any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from attrs import field, frozen

from nri_resctrl_plugin.model import PodUid, SandboxId
from nri_resctrl_plugin.pods import PodRemoved, PodStopped, Synchronized
from resctrl import CleanupReport, FsProvider

if TYPE_CHECKING:
    from collections.abc import Collection

    from structlog.typing import FilteringBoundLogger

    from nri_resctrl_plugin.config import ResctrlPluginConfig
    from nri_resctrl_plugin.pods import Fact
    from resctrl import Resctrl

__all__ = ["Resting", "StartupResult", "log_startup", "start_up", "sweep_and_adopt"]

P = TypeVar("P", bound=FsProvider)


@frozen
class StartupResult:
    """How the startup ended.

    Attributes:
        mount_error: Why resctrl is not usable; then there was no sweep.
        sweep_error: Why the sweep, or the adoption, ended early.
        report: What the sweep did, if there was one.
        adopted: The groups of listed pods that were there: the one below the default group first.
    """

    mount_error: Exception | None = None
    sweep_error: Exception | None = None
    report: CleanupReport | None = None
    adopted: Mapping[PodUid, tuple[Path, ...]] = field(factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether everything was done."""
        failures = self.report.failures if self.report is not None else ()
        return self.mount_error is None and self.sweep_error is None and not failures


class Resting:
    """Which sandboxes rest, as far as facts told."""

    def __init__(self) -> None:
        self._sandboxes: dict[SandboxId, PodUid] = {}

    def hear(self, fact: Fact) -> None:
        """Take in a fact."""
        if isinstance(fact, Synchronized):
            self._sandboxes = {each.sandbox_id: each.pod_uid for each in fact.resting}
        elif isinstance(fact, PodStopped | PodRemoved):
            self._sandboxes.pop(fact.sandbox_id, None)

    def pods(self) -> frozenset[PodUid]:
        """Return their pods."""
        return frozenset(self._sandboxes.values())


def start_up(
    resctrl: Resctrl[P], config: ResctrlPluginConfig, listed: Collection[PodUid] | None
) -> StartupResult:
    """Ensure the mount, then sweep and adopt as the settings say; blocks, and raises nothing.

    Args:
        resctrl: Where the groups are.
        config: `auto_mount`, `cleanup_on_start`, `startup_policy` and `class_placement` count.
        listed: The pods of the first Synchronize, those that rest too; None where groups may be made already:
            then nothing is swept or adopted.
    """
    try:
        resctrl.ensure_mounted(auto_mount=config.auto_mount)
    except Exception as error:  # noqa: BLE001 - whatever it is, groups will come out Failed with it
        return StartupResult(mount_error=error)
    if listed is None:
        return StartupResult()
    pods = listed if config.startup_policy == "adopt" else ()
    return sweep_and_adopt(resctrl, config, dict.fromkeys(pods, ()))


def sweep_and_adopt(
    resctrl: Resctrl[P], config: ResctrlPluginConfig, pods: Mapping[PodUid, Collection[Path]]
) -> StartupResult:
    """Sweep all groups but those of some pods, and look which of these are there; blocks, raises nothing.

    Args:
        resctrl: Where the groups are.
        config: As for `start_up`.
        pods: Whose groups stay, and which of these the pod knows already.
    """
    report = None
    try:
        names = {resctrl.group_path(pod_uid).name: pod_uid for pod_uid in pods}
        if config.cleanup_on_start:
            report = resctrl.cleanup_all(below_control_groups=config.class_placement, keep=names)
        adopted: dict[PodUid, tuple[Path, ...]] = {}
        groups = resctrl.list_groups() if names else []
        for group in sorted(groups, key=lambda each: each.control_group):
            pod_uid = names.get(group.name)
            in_place = config.class_placement or not group.control_group
            if pod_uid is not None and in_place and group.path not in pods[pod_uid]:
                adopted[pod_uid] = (*adopted.get(pod_uid, ()), group.path)
        return StartupResult(report=report, adopted=adopted)
    except Exception as error:  # noqa: BLE001 - a failed sweep leaves stale groups and stops nothing
        return StartupResult(sweep_error=error, report=report)


def log_startup(log: FilteringBoundLogger, result: StartupResult) -> None:
    """Leave the records of a startup."""
    if result.mount_error is not None:
        log.error("startup_mount_failed", error=str(result.mount_error))
    if result.report is not None:
        log.info(
            "startup_cleanup",
            removed=result.report.removed,
            removal_failures=result.report.removal_failures,
            removal_race=result.report.removal_race,
            non_prefix_groups=result.report.non_prefix_groups,
            kept=result.report.kept,
        )
    if result.sweep_error is not None:
        log.error("startup_cleanup_failed", error=str(result.sweep_error))
    if result.adopted:
        groups = sum(len(paths) for paths in result.adopted.values())
        log.info("startup_adopted", pods=len(result.adopted), groups=groups)
