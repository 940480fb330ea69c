"""The rungs of the kernel: is resctrl built in, and do boot options leave it alone.

Owns: the kernel's configuration and its command line. Must not know: the mount, groups.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from nri_resctrl_plugin.doctor.findings import fail, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from nri_resctrl_plugin.doctor.findings import Finding
    from nri_resctrl_plugin.doctor.host import Host

__all__ = ["boot", "kernel"]

_X86_OPTIONS: Final = (
    "X86_CPU_RESCTRL",
    # What it was called before Linux 5.1, newest first.
    "X86_RESCTRL",
    "RESCTRL",
    "INTEL_RDT",
)
_ARM_OPTIONS: Final = ("ARM64_MPAM", "RESCTRL_FS")

_EVENT_OF_WORD: Final[Mapping[str, str]] = MappingProxyType(
    {"cmt": "llc_occupancy", "mbmtotal": "mbm_total_bytes", "mbmlocal": "mbm_local_bytes"}
)
"""What each word of the boot option `rdt=` stands for (kernel: rdt_options)."""

_SKYLAKE_SERVER: Final = ("GenuineIntel", "6", "85")
_LAST_BAD_STEPPING: Final = 4


def _reboot_with(*, without: Sequence[str] = (), added: str = "") -> Iterator[str]:
    """Yield how words leave and join the command line. Fedora's and RHEL's grub2-mkconfig leaves it alone."""
    changes = [f"--remove-args='{' '.join(without)}'"] if without else []
    changes += [f"--args='{added}'"] if added else []
    yield "Debian, Ubuntu: it is GRUB_CMDLINE_LINUX in /etc/default/grub; after the change: update-grub"
    yield f"Fedora, RHEL: grubby --update-kernel=ALL {' '.join(changes)}"
    yield "and reboot"


def kernel(host: Host) -> Finding:
    """Tell whether the kernel has resctrl, and if not, whether it could."""
    rung = "kernel"
    if host.resctrl.detect_support().kernel_support:
        return ok(rung, "resctrl is in /proc/filesystems")
    found = "no resctrl in /proc/filesystems"
    options = _ARM_OPTIONS if host.is_arm else _X86_OPTIONS
    wanted = " and ".join(f"CONFIG_{name}=y" for name in (_ARM_OPTIONS if host.is_arm else options[:1]))
    config = _config(host)
    if config is None:
        return fail(
            rung,
            f"{found}; its configuration is not to be seen here",
            "The kernel was built without resctrl, or found nothing on this machine that it could use.",
            f"boot a kernel with {wanted} (as of Debian, Ubuntu, Fedora and RHEL); mend the other rungs",
        )
    has = [f"CONFIG_{name}" for name in options if f"CONFIG_{name}=y" in config.split()]
    if (host.is_arm and len(has) < len(options)) or not has:
        return fail(
            rung,
            f"{found}, and it is built without {wanted}",
            "This kernel has no resctrl, whatever the processor can do.",
            f"boot a kernel that is built with {wanted} (those of Debian, Ubuntu, Fedora and RHEL are)",
        )
    return fail(
        rung,
        f"{found}, although it is built with {' and '.join(has)}",
        "The kernel found nothing on this machine that it could use: see the rungs around this one.",
        "dmesg | grep -i -E 'resctrl|mpam'    tells what it found",
    )


def _config(host: Host) -> str | None:
    """Return the kernel's configuration from wherever a distribution leaves it."""
    release = host.release
    text = host.unzipped("/proc/config.gz")
    for path in (
        f"/boot/config-{release}",
        f"/lib/modules/{release}/config",
        f"/usr/lib/modules/{release}/config",
    ):
        text = text if text is not None else host.text(path)
    return text


def boot(host: Host) -> Finding:
    """Tell whether the command line, or an erratum, keeps monitoring off."""
    rung = "boot"
    line = host.text("/proc/cmdline")
    if line is None:
        return warn(
            rung,
            "the kernel's command line cannot be read",
            "Options that turn monitoring off go unseen.",
            "look into /proc/cmdline yourself for rdt= (x86) or arm64.nompam",
        )
    words = line.split()
    if host.is_arm:
        if "arm64.nompam" not in words:
            return ok(rung, "no option turns MPAM off")
        return fail(
            rung,
            "booted with arm64.nompam",
            "MPAM is turned off.",
            "remove arm64.nompam from the command line;",
            *_reboot_with(without=["arm64.nompam"]),
        )
    options = [word for word in words if word.startswith("rdt=")]
    given = [each for option in options for each in option.removeprefix("rdt=").split(",")]
    forced = {each for each in given if not each.startswith("!")}
    off = [word for word in _EVENT_OF_WORD if f"!{word}" in given and word not in forced]
    if off:
        events = [_EVENT_OF_WORD[word] for word in off]
        found = f"booted with {' '.join(options)}"
        meaning = f"That turns {', '.join(events)} off."
        kept = ",".join(each for each in given if each.removeprefix("!") not in off)
        mend = (
            f"remove {','.join(f'!{word}' for word in off)} from the command line;",
            *_reboot_with(without=options, added=f"rdt={kept}" if kept else ""),
        )
        judge = fail if len(off) == len(_EVENT_OF_WORD) else warn
        return judge(rung, found, meaning, *mend)
    erratum = [word for word in _forced_off(host) if word not in forced]
    if erratum and not host.resctrl.detect_support().monitoring:
        return fail(
            rung,
            "an early Xeon Scalable (stepping 4 or less), and no rdt= option",
            "Linux leaves monitoring off on this stepping, because of the processor's errata.",
            f"add rdt={','.join(erratum)} to the command line, if numbers of limited accuracy will do;",
            *_reboot_with(added=f"rdt={','.join(erratum)}"),
        )
    return ok(rung, "no option turns monitoring off")


def _forced_off(host: Host) -> Iterator[str]:
    """Yield the words that the kernel itself turns off on this processor (__check_quirks_intel)."""
    cpu = host.cpu
    identity = tuple(cpu.get(key, "") for key in ("vendor_id", "cpu family", "model"))
    stepping = cpu.get("stepping", "")
    if identity == _SKYLAKE_SERVER and stepping.isdecimal() and int(stepping) <= _LAST_BAD_STEPPING:
        yield from _EVENT_OF_WORD
