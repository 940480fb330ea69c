"""An NRI plugin that keeps one resctrl monitoring group per Kubernetes pod, and tells how complete it is.

`ResctrlPlugin` is the whole of it: `await plugin.run()` serves a runtime; `events()`, `subscribe` and
`snapshot()` tell an agent which group belongs to which pod; the `retry_*` calls try again what was refused;
`audit_once()` sees whether all is as it is believed to be.

Names are loaded when they are first used: the program must be able to print its version, or that a package is
missing, without the whole of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nri_resctrl_plugin.cgroups import CgroupPidSource, CgroupWitness, PidSource
    from nri_resctrl_plugin.config import ResctrlPluginConfig
    from nri_resctrl_plugin.errors import (
        BudgetExceededError,
        CgroupError,
        CgroupPathError,
        ConfigError,
        ContainerNotFoundError,
        PluginClosedError,
        PluginError,
        PodNotFoundError,
    )
    from nri_resctrl_plugin.events import (
        Exists,
        Failed,
        PodResctrlAddOrUpdate,
        PodResctrlEvent,
        PodResctrlRemoved,
        ResctrlGroupState,
    )
    from nri_resctrl_plugin.hub import EventRecord, EventStream
    from nri_resctrl_plugin.model import ContainerCgroup, ContainerId, ContainerState, PodUid, SandboxId
    from nri_resctrl_plugin.plugin import ResctrlPlugin
    from nri_resctrl_plugin.reports import AuditReport, RetryFailure, RetryReport, RetrySubject

__all__ = [
    "AuditReport",
    "BudgetExceededError",
    "CgroupError",
    "CgroupPathError",
    "CgroupPidSource",
    "CgroupWitness",
    "ConfigError",
    "ContainerCgroup",
    "ContainerId",
    "ContainerNotFoundError",
    "ContainerState",
    "EventRecord",
    "EventStream",
    "Exists",
    "Failed",
    "PidSource",
    "PluginClosedError",
    "PluginError",
    "PodNotFoundError",
    "PodResctrlAddOrUpdate",
    "PodResctrlEvent",
    "PodResctrlRemoved",
    "PodUid",
    "ResctrlGroupState",
    "ResctrlPlugin",
    "ResctrlPluginConfig",
    "RetryFailure",
    "RetryReport",
    "RetrySubject",
    "SandboxId",
]

_HOME: Final = {
    "AuditReport": "reports",
    "BudgetExceededError": "errors",
    "CgroupError": "errors",
    "CgroupPathError": "errors",
    "CgroupPidSource": "cgroups",
    "CgroupWitness": "cgroups",
    "ConfigError": "errors",
    "ContainerCgroup": "model",
    "ContainerId": "model",
    "ContainerNotFoundError": "errors",
    "ContainerState": "model",
    "EventRecord": "hub",
    "EventStream": "hub",
    "Exists": "events",
    "Failed": "events",
    "PidSource": "cgroups",
    "PluginClosedError": "errors",
    "PluginError": "errors",
    "PodNotFoundError": "errors",
    "PodResctrlAddOrUpdate": "events",
    "PodResctrlEvent": "events",
    "PodResctrlRemoved": "events",
    "PodUid": "model",
    "ResctrlGroupState": "events",
    "ResctrlPlugin": "plugin",
    "ResctrlPluginConfig": "config",
    "RetryFailure": "reports",
    "RetryReport": "reports",
    "RetrySubject": "reports",
    "SandboxId": "model",
}
"""In which module a name is at home."""

if not TYPE_CHECKING:  # a checker sees the imports above, and refuses what is not among them

    def __getattr__(name: str) -> object:
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
