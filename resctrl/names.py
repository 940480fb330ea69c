"""The names of groups: from a pod's uid to a directory, which directories are ours, where each kind stands.

Owns: the naming rule. Must not know: the file system.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from resctrl.errors import InvalidGroupError

if TYPE_CHECKING:
    from pathlib import Path

    from resctrl.errors import Operation
    from resctrl.model import ResctrlConfig

__all__ = ["KERNEL_DIRS", "MON_GROUPS", "control_dir", "group_name", "require_group", "require_ours"]

MON_GROUPS: Final = "mon_groups"
"""The directory that holds the monitoring groups of a control group."""

KERNEL_DIRS: Final = frozenset({"info", "mon_data", MON_GROUPS})
"""The directories at the root that are no groups."""

_NO_NAMES: Final = KERNEL_DIRS | {".", ".."}
_CONTROL_HINT: Final = "it is the name of a directory at the root, or '' for the default group"
_GROUP_HINT: Final = "Resctrl.list_groups() tells which groups there are"
_VERBATIM: Final = re.compile(r"(?!h-)[A-Za-z0-9_-]{1,63}")
_HASH_DIGITS: Final = 32


def group_name(prefix: str, pod_uid: str) -> str:
    """Return the name of a pod's group.

    A uid of up to 63 letters, digits, `_` and `-` is used as it is; anything else, and anything that begins
    with `h-`, is replaced by `h-` and the first 32 hex digits of its SHA-256, so that two uids never share a
    name.
    """
    name = prefix + pod_uid
    if _VERBATIM.fullmatch(pod_uid) and name != MON_GROUPS:  # the kernel allows no group of that name
        return name
    import hashlib  # noqa: PLC0415 - brings OpenSSL along, 3 MB, and no uid of a kubelet needs it

    digest = hashlib.sha256(pod_uid.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{prefix}h-{digest[:_HASH_DIGITS]}"


def control_dir(root: Path, control_group: str, operation: Operation) -> Path:
    """Return the directory of a control group; "" is the default group, whose directory is the root.

    Raises:
        InvalidGroupError: No control group can have that name: it is more than one component, or the kernel's
            own.
    """
    if "/" in control_group or "\0" in control_group or control_group in _NO_NAMES:
        raise InvalidGroupError(
            operation, root, detail=f"{control_group!r} is no name of a control group", hint=_CONTROL_HINT
        )
    return root / control_group


def require_ours(config: ResctrlConfig, operation: Operation, group: Path) -> None:
    """Refuse a path that is no `<root>[/<control group>]/mon_groups/<prefix>...`.

    Raises:
        InvalidGroupError: It is anything else.
    """
    holder = group.parent
    below_root = config.root in (holder.parent, holder.parent.parent)
    if not (below_root and holder.name == MON_GROUPS and group.name.startswith(config.group_prefix)):
        detail = f"not a group named {config.group_prefix!r}... in a mon_groups below {str(config.root)!r}"
        raise InvalidGroupError(operation, group, detail=detail)
    if ".." in group.parts:
        raise InvalidGroupError(operation, group, detail="the path contains '..'")


def require_group(root: Path, operation: Operation, group: Path) -> None:
    """Refuse a path at which no group can stand, whosever it is; the root itself is the default group.

    Raises:
        InvalidGroupError: It is elsewhere, or one of the kernel's own directories.
    """
    holder = group.parent
    control = holder.parent if holder.name == MON_GROUPS else group
    stands = control == root or (control.parent == root and control.name not in _NO_NAMES)
    if not stands or ".." in group.parts or "\0" in str(group):
        detail = f"no group can stand there; the root of resctrl is {str(root)!r}"
        raise InvalidGroupError(operation, group, detail=detail, hint=_GROUP_HINT)
