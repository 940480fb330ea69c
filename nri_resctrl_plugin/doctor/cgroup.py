"""The rung of cgroups: where the threads of containers are listed.

Owns: what the mounted hierarchies mean for listing threads. Must not know: containers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nri_resctrl_plugin.cgroup_mounts import parse_mountinfo
from nri_resctrl_plugin.doctor.findings import fail, ok, warn

if TYPE_CHECKING:
    from nri_resctrl_plugin.doctor.findings import Finding
    from nri_resctrl_plugin.doctor.host import Host

__all__ = ["cgroups"]


def cgroups(host: Host, *, library: bool = False) -> Finding:
    """Tell which version is mounted, and whether all of it can be seen."""
    rung, root = "cgroups", host.cgroup_root
    found = list(parse_mountinfo(host.text("/proc/self/mountinfo") or "", str(root)))
    unified = [each for each in found if not each.controllers]
    if not found:
        judge = warn if library else fail
        return judge(
            rung,
            f"none is mounted at {root}",
            "The threads of containers are listed there; the library alone does without.",
            "mount -t cgroup2 none /sys/fs/cgroup",
            "in a pod: give the container the host's /sys/fs/cgroup by a hostPath volume, and set",
            "    NRI_RESCTRL_CGROUP_ROOT if it stands elsewhere in the pod",
        )
    if any(
        host.there(f"{each.mount_point}/cgroup.type") for each in unified
    ):  # the true root has no such file
        return warn(
            rung,
            f"v2 at {root}, and only a part of it",
            "Only containers below that part can be listed.",
            "in a pod: give the container the host's /sys/fs/cgroup by a hostPath volume",
            "    (where the whole node is a container, as with kind, this is as it should be)",
        )
    if len(unified) == len(found):
        return ok(rung, f"v2 at {root}")
    version = "v1 and v2 side by side" if unified else "v1"
    if unified:
        return ok(rung, f"{version} below {root}")
    return warn(
        rung,
        f"{version} below {root}",
        "It works; but today's Kubernetes and systemd are giving v1 up.",
        "boot with systemd.unified_cgroup_hierarchy=1",
    )
