"""An NRI plugin that keeps one resctrl monitoring group per Kubernetes pod, and tells how complete it is.

`ResctrlPlugin` is the whole of it: `await plugin.run()` serves a runtime; `events()`, `subscribe` and
`snapshot()` tell an agent which group belongs to which pod; the `retry_*` calls try again what was refused.
"""

from __future__ import annotations

from nri_resctrl_plugin.cgroups import CgroupPidSource, PidSource
from nri_resctrl_plugin.config import ResctrlPluginConfig
from nri_resctrl_plugin.errors import (
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
from nri_resctrl_plugin.reports import RetryFailure, RetryReport, RetrySubject

__all__ = [
    "CgroupError",
    "CgroupPathError",
    "CgroupPidSource",
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
