"""What happens once per plugin, before any group is made: the mount, and the sweep of stale groups.

Owns: the two steps and their log records. Must not know: when they are due, pods, events.

Rules:
    1. The sweep comes after the mount and only where the mount is there.
    2. A failure is logged and stops nothing: without a mount every group comes out Failed with that reason.
    3. A sweep leaves exactly one INFO record, `startup_cleanup`, with the four counters; and no event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from attrs import frozen

from resctrl import CleanupReport, FsProvider

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from resctrl import Resctrl

__all__ = ["StartupResult", "log_startup", "start_up"]

P = TypeVar("P", bound=FsProvider)


@frozen
class StartupResult:
    """How the startup ended.

    Attributes:
        mount_error: Why resctrl is not usable; then there was no sweep.
        sweep_error: Why the sweep ended early.
        report: What the sweep did, if there was one.
    """

    mount_error: Exception | None = None
    sweep_error: Exception | None = None
    report: CleanupReport | None = None


def start_up(resctrl: Resctrl[P], *, auto_mount: bool, sweep: bool) -> StartupResult:
    """Ensure the mount, then sweep; blocks, and raises nothing."""
    try:
        resctrl.ensure_mounted(auto_mount=auto_mount)
    except Exception as error:  # noqa: BLE001 - whatever it is, groups will come out Failed with it
        return StartupResult(mount_error=error)
    try:
        return StartupResult(report=resctrl.cleanup_all() if sweep else None)
    except Exception as error:  # noqa: BLE001 - a failed sweep leaves stale groups and stops nothing
        return StartupResult(sweep_error=error)


def log_startup(log: FilteringBoundLogger, result: StartupResult) -> None:
    """Leave the records of a startup."""
    if result.mount_error is not None:
        log.error("startup_mount_failed", error=str(result.mount_error))
    if result.sweep_error is not None:
        log.error("startup_cleanup_failed", error=str(result.sweep_error))
    if result.report is not None:
        log.info(
            "startup_cleanup",
            removed=result.report.removed,
            removal_failures=result.report.removal_failures,
            removal_race=result.report.removal_race,
            non_prefix_groups=result.report.non_prefix_groups,
        )
