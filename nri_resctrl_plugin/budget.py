"""How many groups of ours there may be, so that RMIDs are left to others.

Owns: the one way to make a group within the limit. Must not know: why a group is wanted.

Rules:
    1. What counts is what is on disk, of whichever pod and below whichever control group.
    2. A group that is there already is no new one: it is found, whatever the limit.
    3. Without a limit nothing is counted, so nothing is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from nri_resctrl_plugin.errors import BudgetExceededError
from resctrl import FsProvider

if TYPE_CHECKING:
    from pathlib import Path

    from resctrl import Resctrl

__all__ = ["create_within"]

P = TypeVar("P", bound=FsProvider)


def create_within(resctrl: Resctrl[P], pod_uid: str, control_group: str = "", *, max_groups: int) -> Path:
    """Make the group of a pod, or find it made.

    Args:
        resctrl: Where.
        pod_uid: The pod.
        control_group: The control group to make it below; "" is the default group.
        max_groups: How many groups of ours there may be then; 0: any number.

    Returns:
        Its directory.

    Raises:
        BudgetExceededError: There are as many already.
        resctrl.ResctrlError: As `Resctrl.create_group` and `Resctrl.capacity` say.
    """
    if max_groups:
        there = [group.path for group in resctrl.list_groups() if group.ours]
        path = resctrl.group_path(pod_uid, control_group)
        if path not in there and len(there) >= max_groups:
            raise BudgetExceededError(path, len(there), max_groups)
    return resctrl.create_group(pod_uid, control_group)
