"""The rungs of access: may this process make groups and move other users' threads, and does it see them.

Owns: user, capabilities, security modules and namespaces. Must not know: runtimes, groups' names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nri_resctrl_plugin.doctor.findings import fail, ok, warn

if TYPE_CHECKING:
    from nri_resctrl_plugin.doctor.findings import Finding
    from nri_resctrl_plugin.doctor.host import Host

__all__ = ["INITIAL_PID", "INITIAL_USER", "confinement", "permission", "pid_namespace", "user_namespace"]

INITIAL_USER: Final = "user:[4026531837]"
INITIAL_PID: Final = "pid:[4026531836]"
"""The namespaces that the kernel makes at boot always have these numbers (include/linux/proc_ns.h)."""

_DAC_OVERRIDE: Final = 1 << 1
_WHOLE_MAP: Final = ["0", "0", "4294967295"]
_FREE_TYPES: Final = ("unconfined", "spc_t", "init_t", "initrc_t", "kernel_t", "sysadm_t")


def permission(host: Host) -> Finding:
    """Tell whether this user may make groups and move threads."""
    rung = "permission"
    users = (host.status("Uid") or "").split()
    capabilities = int(host.status("CapEff") or "0", 16)
    if users[1:2] != ["0"]:
        return fail(
            rung,
            f"effective user {users[1] if len(users) > 1 else 'unknown'}",
            "Only root may make groups, and move threads that are not its own.",
            "run it with sudo, or as a service of root; in a pod: securityContext: {runAsUser: 0}",
        )
    if not capabilities & _DAC_OVERRIDE:
        return fail(
            rung,
            "root without CAP_DAC_OVERRIDE",
            "The directories of resctrl have mode 0555: without it mkdir is refused even to root.",
            "in a pod:    securityContext: {capabilities: {add: [DAC_OVERRIDE]}}",
            "in a unit:   CapabilityBoundingSet=CAP_DAC_OVERRIDE",
        )
    support = host.resctrl.detect_support()
    if support.mounted and not support.writable:
        return fail(
            rung,
            f"root with CAP_DAC_OVERRIDE, and {host.resctrl.config.root}/tasks cannot be opened for writing",
            "The mount is read-only, or a security module forbids it.",
            "see mount and confinement",
        )
    return ok(rung, "root with CAP_DAC_OVERRIDE")


def confinement(host: Host) -> Finding:
    """Tell whether AppArmor or SELinux keeps this process from writing."""
    rung = "confinement"
    label = host.text("/proc/self/attr/apparmor/current") or host.text("/proc/self/attr/current") or ""
    label = label.strip("\0\n ")
    kind = label.split(":")[2] if label.count(":") >= 2 else label  # noqa: PLR2004 - user:role:type[:level]
    if not label or kind.startswith(_FREE_TYPES) or label.endswith("(complain)"):
        return ok(rung, f"not confined ({label})" if label else "neither AppArmor nor SELinux confines it")
    support = host.resctrl.detect_support()
    if support.mounted and support.writable:
        return ok(rung, f"confined by {label}, which lets it write")
    if ":" in label:
        mend = "in a pod:    securityContext: {seLinuxOptions: {type: spc_t}}"
    else:
        mend = "in a pod:    securityContext: {appArmorProfile: {type: Unconfined}}    (Kubernetes 1.30)"
    judge = fail if support.mounted else warn
    return judge(
        rung,
        f"confined by {label}",
        "The default profiles of container runtimes forbid to write below /sys/fs/resctrl.",
        mend,
    )


def user_namespace(host: Host) -> Finding:
    """Tell whether root here is root for resctrl."""
    rung = "user-namespace"
    namespace = host.namespace("user")
    mapped = (host.text("/proc/self/uid_map") or "").split()
    if namespace == INITIAL_USER or (namespace is None and mapped in ([], _WHOLE_MAP)):
        return ok(rung, "the initial one")
    return fail(
        rung,
        f"not the initial one ({namespace or ' '.join(mapped)})",
        "The kernel lets root of the initial user namespace alone move other users' threads.",
        "in a pod: remove hostUsers: false; elsewhere: no rootless container, no unshare --user",
    )


def pid_namespace(host: Host, *, library: bool = False) -> Finding:
    """Tell whether the threads of the machine can be seen."""
    rung = "pid-namespace"
    namespace = host.namespace("pid")
    if namespace == INITIAL_PID:
        return ok(rung, "the initial one")
    if namespace is None:
        return warn(
            rung,
            "it cannot be told which",
            "Outside of the initial one, threads of others are not seen.",
            f"readlink /proc/self/ns/pid    must say {INITIAL_PID}",
        )
    mend = "in a pod: hostPID: true; with docker: --pid=host"
    found = f"not the initial one ({namespace})"
    if library:
        return warn(rung, found, "Only threads of this namespace can be moved.", mend)
    if any(host.processes("containerd", "crio")):
        return warn(
            rung,
            f"{found}, but the runtime is in it too",
            "That will do where the whole node is a container, as with kind.",
            mend,
        )
    return fail(
        rung,
        found,
        "Threads of pods are not seen: cgroup files list them as 0, and there is nothing to assign.",
        mend,
    )
