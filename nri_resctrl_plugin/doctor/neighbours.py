"""The highest rung: who else monitors this machine.

Owns: how other monitors are told by their groups and processes. Must not know: what they do with them.

A thread has one RMID, so it is counted in one group: two monitors take threads away from each other.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from nri_resctrl_plugin.doctor.findings import ok, warn

if TYPE_CHECKING:
    from nri_resctrl_plugin.doctor.findings import Finding
    from nri_resctrl_plugin.doctor.host import Host
    from resctrl import ResctrlGroup

__all__ = ["neighbours"]

_UUID: Final = re.compile(r"[0-9a-f]{8}(-?)[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}")
_DEFAULT_PREFIX: Final = "pod_"
_PROCESSES: Final = ("pqos", "nri-resctrl-mon")


def _maker(group: ResctrlGroup) -> str | None:
    """Return who names its groups like this, or None."""
    name = group.name or group.control_group
    if _UUID.fullmatch(name):
        return "named by a pod's uid (nri-resctrl-mon does that)"
    if name.startswith("cadvisor"):
        return "of cAdvisor"
    if name.startswith(_DEFAULT_PREFIX):
        return "of this plugin, with another prefix"
    return None


def neighbours(host: Host) -> Finding:
    """Tell whether somebody else is monitoring here."""
    rung = "neighbours"
    mounted = host.resctrl.detect_support().mounted
    groups = [group for group in host.resctrl.list_groups() if not group.ours] if mounted else []
    signs: dict[str, list[str]] = {}
    for group in groups:
        maker = _maker(group)
        if maker is not None:
            signs.setdefault(maker, []).append(str(group.path))
    seen = [
        f"{len(paths)} {'group' if len(paths) == 1 else 'groups'} {maker}: {paths[0]}"
        for maker, paths in signs.items()
    ]
    seen += [f"process {each.pid} is {each.name}" for each in host.processes(*_PROCESSES)]
    if seen:
        return warn(
            rung,
            "; ".join(seen),
            "A thread is counted in one group: two monitors take threads away from each other.",
            "let one monitor run on a node; groups that one has left go with rmdir",
        )
    if groups:
        return ok(rung, f"no other monitor is known by its {len(groups)} groups")
    return ok(rung, "no other monitor")
