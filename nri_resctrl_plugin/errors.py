"""Errors of the plugin's own calls. Those of resctrl itself are `resctrl.ResctrlError`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from resctrl.errors import CapacityError, Operation

if TYPE_CHECKING:
    from pathlib import Path

    from nri_resctrl_plugin.model import ContainerId, PodUid

__all__ = [
    "BudgetExceededError",
    "CgroupError",
    "CgroupPathError",
    "ConfigError",
    "ContainerNotFoundError",
    "PluginClosedError",
    "PluginError",
    "PodNotFoundError",
]


class PluginError(Exception):
    """Base of the plugin's errors."""


class BudgetExceededError(PluginError, CapacityError):
    """There are as many groups of ours as `max_groups` allows. It lasts until one of them is deleted.

    Attributes:
        groups: How many there are.
        max_groups: How many there may be.
    """

    default_hint: ClassVar[str | None] = "raise max_groups, or select fewer pods"

    def __init__(self, path: Path, groups: int, max_groups: int) -> None:
        self.groups = groups
        self.max_groups = max_groups
        detail = f"{groups} groups of ours are there, and max_groups is {max_groups}"
        super().__init__(Operation.CREATE_GROUP, path, detail=detail)


class PodNotFoundError(PluginError, LookupError):
    """The pod is not known, or went away while the call was waiting."""

    def __init__(self, pod_uid: PodUid) -> None:
        self.pod_uid = pod_uid
        super().__init__(f"no pod with uid {pod_uid!r} is known (it may just have been removed)")


class ContainerNotFoundError(PluginError, LookupError):
    """The container is not known, or went away while the call was waiting."""

    def __init__(self, container_id: ContainerId) -> None:
        self.container_id = container_id
        super().__init__(f"no container {container_id!r} is known (it may just have stopped)")


class ConfigError(PluginError, ValueError):
    """A configuration that cannot be used; the message names the key, the place and the mend."""


class PluginClosedError(PluginError):
    """The plugin was closed before or while the call was waiting."""

    def __init__(self) -> None:
        super().__init__("the plugin is closed")


class CgroupError(PluginError):
    """The threads of a container could not be listed. A container that is gone is no error: it has none."""


class CgroupPathError(CgroupError, ValueError):
    """A cgroup path that is never looked at: it is malformed, or would lead out of the container's cgroup.

    Attributes:
        cgroups_path: As the runtime named it.
    """

    def __init__(self, cgroups_path: str, why: str) -> None:
        self.cgroups_path = cgroups_path
        super().__init__(f"refusing the cgroup path {cgroups_path[:200]!r}: {why}")
