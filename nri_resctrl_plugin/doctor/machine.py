"""The lowest rungs: what kind of machine it is.

Owns: architecture, virtualisation, and what the processor says it can count. Must not know: the kernel's
configuration, groups.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from nri_resctrl_plugin.doctor.findings import fail, ok, warn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nri_resctrl_plugin.doctor.findings import Finding
    from nri_resctrl_plugin.doctor.host import Host

__all__ = ["EVENT_OF_FLAG", "is_virtual", "platform", "processor", "virtualisation"]

_OLDEST: Final = (4, 14)
"""The first Linux with mon_groups and mon_data on its resctrl."""

EVENT_OF_FLAG: Final[Mapping[str, str]] = MappingProxyType(
    {
        "cqm_occup_llc": "llc_occupancy",
        "cqm_mbm_total": "mbm_total_bytes",
        "cqm_mbm_local": "mbm_local_bytes",
    }
)
"""What each flag of /proc/cpuinfo lets the processor count (Linux, arch/x86/include/asm/cpufeatures.h)."""

_ALLOCATES: Final = frozenset({"rdt_a", "cat_l3", "cat_l2", "mba"})
_HYPERVISORS: Final = (
    "QEMU", "KVM", "VMware", "VirtualBox", "innotek", "Xen", "Google Compute Engine", "OpenStack",
    "Parallels", "Bochs", "Amazon EC2", "Virtual Machine", "Nutanix", "RHEV", "oVirt", "Alibaba Cloud ECS",
)  # fmt: skip
_METAL: Final = ".metal"
_BARE_METAL: Final = (
    "use a machine without a hypervisor: in a cloud a bare-metal type, such as m7i.metal-24xl"
)


def platform(host: Host) -> Finding:
    """Tell whether resctrl exists for such a machine at all."""
    rung = "platform"
    found = f"{host.system} {host.release} on {host.machine}"
    if host.system != "Linux":
        return fail(rung, found, "resctrl is a part of Linux.", "run it on a Linux machine")
    match = re.match(r"(\d+)\.(\d+)", host.release)
    if match is not None and (int(match[1]), int(match[2])) < _OLDEST:
        return fail(
            rung,
            found,
            "Linux has had monitoring groups since 4.14.",
            "boot Linux 4.14 or newer; 6.7 or newer is best, where threads are moved in lists",
        )
    if not (host.is_x86 or host.is_arm or host.resctrl.detect_support().kernel_support):
        return fail(
            rung,
            found,
            "Linux has resctrl for x86 (Intel RDT, AMD QoS) and for 64-bit Arm (MPAM); this kernel has none.",
            "use such a machine",
        )
    return ok(rung, found)


def is_virtual(host: Host) -> str | None:
    """Return what is known of the hypervisor, or None on bare metal."""
    vendor, product = (
        (host.text(f"/sys/class/dmi/id/{name}") or "").strip() for name in ("sys_vendor", "product_name")
    )
    described = " ".join(dict.fromkeys(word for word in (vendor, product) if word))
    xen = (host.text("/sys/hypervisor/type") or "").strip()
    device_tree = (host.text("/proc/device-tree/hypervisor/compatible") or "").strip("\0\n")
    known = any(word in described for word in _HYPERVISORS) and _METAL not in product
    # On x86 the flag decides: machines of a cloud bear its name whether or not there is a hypervisor.
    if "hypervisor" in host.cpu_flags or (not host.is_x86 and known) or xen or device_tree:
        return described or xen or device_tree or "its maker is not told"
    return None


def virtualisation(host: Host) -> Finding:
    """Tell whether a hypervisor stands between us and the counters."""
    rung = "virtualisation"
    described = is_virtual(host)
    if described is None:
        return ok(rung, "no hypervisor")
    found = f"a virtual machine ({described})"
    if host.resctrl.detect_support().kernel_support:
        return ok(rung, f"{found}, and its kernel has resctrl all the same")
    return warn(
        rung,
        found,
        "Hypervisors rarely hand cache and bandwidth monitoring on to their guests.",
        _BARE_METAL,
    )


def processor(host: Host) -> Finding:
    """Tell what the processor can count."""
    if host.is_arm:
        return _arm(host)
    rung = "processor"
    name = host.cpu.get("model name", host.cpu.get("vendor_id", "unknown"))
    events = [event for flag, event in EVENT_OF_FLAG.items() if flag in host.cpu_flags]
    if len(events) == len(EVENT_OF_FLAG):
        return ok(rung, f"{name}: counts {', '.join(events)}")
    if events:
        missing = [event for event in EVENT_OF_FLAG.values() if event not in events]
        return warn(
            rung,
            f"{name}: counts {', '.join(events)} alone",
            f"There will be no {' and no '.join(missing)}.",
            "nothing to do: it is a matter of the processor",
        )
    if host.resctrl.detect_support().monitoring:
        return ok(rung, f"{name}: tells nothing, but the kernel counts")
    flags = ", ".join(EVENT_OF_FLAG)
    allocates = sorted(_ALLOCATES & host.cpu_flags)
    if allocates:
        found = f"{name}: can allocate ({', '.join(allocates)}), has none of {flags}"
    else:
        found = f"{name}: has none of the flags {flags}"
    if is_virtual(host) is not None:
        return fail(
            rung, found, "The hypervisor hides them, or the processor below it has none.", _BARE_METAL
        )
    return fail(
        rung,
        found,
        "It cannot count per group, or the firmware has turned that off.",
        "look for RDT, CMT or MBM (Intel), QoS monitoring (AMD) in the firmware's setup",
        "processors that have it: Intel Xeon from E5 v4 on, AMD EPYC from 7002 on",
    )


def _arm(host: Host) -> Finding:
    """Tell whether an Arm machine's firmware describes MPAM; the processor's flags do not tell."""
    rung = "processor"
    table, tables = "/sys/firmware/acpi/tables/MPAM", "/sys/firmware/acpi/tables"
    if host.resctrl.detect_support().kernel_support:
        return ok(rung, "Arm: the kernel found MPAM")
    if host.there(table):
        return ok(rung, "Arm: the firmware describes MPAM")
    meaning = "MPAM needs the firmware to say where its controls are."
    if not host.there(tables):
        return warn(
            rung,
            "Arm: no ACPI tables, so MPAM can neither be seen nor excluded",
            meaning,
            "dmesg | grep -i mpam    tells whether the kernel found it",
        )
    return fail(
        rung,
        "Arm: the firmware has no ACPI table MPAM",
        meaning,
        "ask the maker for a firmware with MPAM, or use a machine that has it",
    )
