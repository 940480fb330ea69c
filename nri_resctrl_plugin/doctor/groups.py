"""The rungs of resctrl itself: mounted, able to count, with RMIDs to give.

Owns: what the mount, `info/` and the number of groups mean for a monitor. Must not know: pods, runtimes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nri_resctrl_plugin.doctor.findings import fail, ok, skip, warn
from nri_resctrl_plugin.doctor.machine import EVENT_OF_FLAG
from resctrl import CapacityError, NoPermissionError, ResctrlError, RmidsBusyError, UnsupportedError

if TYPE_CHECKING:
    from nri_resctrl_plugin.doctor.findings import Finding
    from nri_resctrl_plugin.doctor.host import Host
    from resctrl import MonitoringInfo

__all__ = ["features", "mount", "probe", "rmids"]

_PROBE: Final = "doctor-probe"
_SHOWN: Final = 5
_UNMOUNTED: Final = "resctrl is not mounted"
_BLIND: Final = "this machine cannot monitor"
_MAY_MOUNT: Final = 1 << 21
"""CAP_SYS_ADMIN."""


def mount(host: Host) -> Finding:
    """Tell whether resctrl is mounted where it is wanted."""
    rung, root = "mount", host.resctrl.config.root
    support = host.resctrl.detect_support()
    if support.mounted:
        told = host.resctrl.info().mount
        if told.read_only:
            return fail(
                rung,
                f"mounted read-only at {root}",
                "No group can be made.",
                f"mount -o remount,rw {root}    (in a pod: the volume mount must not be readOnly)",
            )
        options = f", options {','.join(told.options)}" if told.options else ""
        return ok(rung, f"mounted at {root}{options}")
    if not support.kernel_support:
        return skip(rung, "this kernel has nothing to mount")
    if support.mount_point is not None:
        return fail(
            rung,
            f"mounted at {support.mount_point}, not at {root}",
            "It can be mounted only once.",
            f"give --resctrl-root {support.mount_point}, or unmount it there and mount it at {root}",
        )
    if _elsewhere(host):
        return fail(
            rung,
            f"mounted on the host, but not to be seen here at {root}",
            "This process is in a mount namespace of its own.",
            "in a pod give the container the host's directory:",
            "    volumes:",
            f"      - {{name: resctrl, hostPath: {{path: {root}, type: Directory}}}}",
            "    volumeMounts:",
            f"      - {{name: resctrl, mountPath: {root}}}",
        )
    mend = [
        f"mount -t resctrl resctrl {root}",
        f"at each boot, in /etc/fstab:    resctrl {root} resctrl defaults 0 0",
    ]
    if int(host.status("CapEff") or "0", 16) & _MAY_MOUNT:
        mend.append("or let the plugin do it: nri-resctrl-plugin run --auto-mount")
    else:
        mend.append("this process may not do it: it has no CAP_SYS_ADMIN")
    return fail(rung, f"not mounted at {root}", "Without the mount there are no groups.", *mend)


def _elsewhere(host: Host) -> bool:
    """Tell whether process 1 sees a resctrl."""
    lines = (host.text("/proc/1/mountinfo") or "").splitlines()
    return any(line.partition(" - ")[2].split(" ")[0] == "resctrl" for line in lines)


def features(host: Host) -> Finding:
    """Tell what can be counted."""
    rung = "features"
    if not host.resctrl.detect_support().mounted:
        return skip(rung, _UNMOUNTED)
    info = host.resctrl.info()
    if not info.monitoring:
        return fail(
            rung,
            f"nothing can be counted: {host.resctrl.config.root}/info has no L3_MON",
            "Cache and bandwidth can be allocated on this machine, but not monitored.",
            "see processor and boot: the flags cqm_*, and rdt=!cmt,!mbmtotal,!mbmlocal on the command line",
        )
    for one in info.monitoring.values():
        spent = sorted(domain for domain, free in (one.available_mbm_cntrs or {}).items() if free == 0)
        if spent and _is_assigned(one):
            return warn(
                rung,
                f"counters are assigned one by one, and none is free on domain {', '.join(map(str, spent))}",
                'The bandwidth of further groups reads "Unassigned".',
                f"echo default > {host.resctrl.config.root}/info/{one.name}/mbm_assign_mode",
            )
    missing = [event for event in EVENT_OF_FLAG.values() if event not in info.features]
    found = ", ".join(each for each in info.features if not each.endswith("_config")) or "no event"
    if missing:
        return warn(
            rung,
            found,
            f"There is no {' and no '.join(missing)}: not in the processor, or turned off at boot.",
            "see processor and boot; on Arm that is as it should be",
        )
    return ok(rung, found)


def _is_assigned(one: MonitoringInfo) -> bool:
    return one.mbm_assign_mode is not None and one.mbm_assign_mode.current == "mbm_event"


def rmids(host: Host) -> Finding:
    """Tell how many groups can be made."""
    rung = "rmids"
    support = host.resctrl.detect_support()
    if not support.mounted or not support.monitoring:
        return skip(rung, _BLIND if support.mounted else _UNMOUNTED)
    try:
        capacity = host.resctrl.capacity()
    except UnsupportedError as error:
        return fail(
            rung,
            str(error),
            "No pod can be monitored, whatever is tidied up.",
            "see processor and boot: the flags cqm_*, and rdt=!cmt,!mbmtotal,!mbmlocal on the command line",
        )
    if capacity.free:
        return ok(rung, f"{capacity.free} of {capacity.num_rmids} free: so many more groups can be made")
    others = [group for group in host.resctrl.list_groups() if not group.ours]
    examples = ", ".join(str(group.path) for group in others[:_SHOWN]) or "none"
    return fail(
        rung,
        f"all {capacity.num_rmids} are taken: {capacity.ours} by groups named "
        f"{host.resctrl.config.group_prefix}..., {len(others)} by other groups, 1 by the default group",
        "No further pod can be monitored.",
        "nri-resctrl-plugin cleanup --dry-run    lists groups of ours that a former run left",
        f"rmdir groups of others that nobody needs: {examples}",
    )


def probe(host: Host) -> Finding:
    """Make a group and remove it again: the only way to know."""
    rung = "probe"
    support = host.resctrl.detect_support()
    if not support.mounted or not support.monitoring:
        return skip(rung, _BLIND if support.mounted else _UNMOUNTED)
    try:
        group = host.resctrl.create_group(_PROBE)
        host.resctrl.delete_group(group)
    except RmidsBusyError as error:
        return warn(
            rung, str(error), "A group was removed just now; that passes.", "try again in some seconds"
        )
    except CapacityError as error:
        return fail(rung, str(error), "No further group can be made.", "see rmids")
    except NoPermissionError as error:
        return fail(rung, str(error), "Something forbids it.", "see permission and confinement")
    except ResctrlError as error:
        return fail(rung, str(error), "No group can be made.", error.hint or "the message is all there is")
    return ok(rung, f"made {group.name} and removed it")
