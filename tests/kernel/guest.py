"""What machine a guest is: its processors, its RDT sizes, its faults.

Owns: `GuestConfig` and the kernel command line it renders. Must not know: how QEMU is started.

Rules:
    1. Everything that differs between two guests stands here; the image is one and the same.
    2. What the kernel or the model could not honour is refused here: a wish that is silently cut to size
       would make a test about another machine than it says.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

__all__ = ["MODEL_PARAMETERS", "CounterFault", "GuestConfig"]

MODEL_PARAMETERS: Final = "/sys/module/fakerdt/parameters"
"""In the guest: its parameters; stuck, fail, decay_ms, occ_bytes, bytes_per_us can be turned there."""

_MAX_RMIDS: Final = 512  # MAX_RMID in model/fakerdt.c
_MAX_CLOSIDS: Final = 32  # closid_free_map is an int: kernel 6.12, rdtgroup.c, closid_init()
_MAX_MASK_BITS: Final = 32  # CPUID 0x10.1 EAX has five bits for the length minus one
_MAX_CPUS: Final = 8  # CONFIG_NR_CPUS in resctrl-guest.config
_MIN_MEMORY: Final = 128


class CounterFault(IntEnum):
    """What reading a counter gives; the values are those of the model's `fail`."""

    NONE = 0
    UNAVAILABLE = 1
    ERROR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestConfig:
    """One guest machine.

    Attributes:
        num_rmids: RMIDs, the default group's counted; 0 is a machine without monitoring.
        num_closids: CLOSIDs, the default group's counted; 0 is a machine without allocation.
        cbm_len: Bits of a cache mask.
        mba: Memory bandwidth allocation is there.
        llc_occupancy: The event is there. Without it freed RMIDs rest in no limbo.
        mbm_total: The event mbm_total_bytes is there.
        mbm_local: The event mbm_local_bytes is there.
        counters: What reading a counter gives.
        endless_limbo: The occupancy of a freed RMID never sinks, so it never comes back.
        decay_ms: How long after its last run a group's occupancy has sunk to 0, milliseconds.
        cpus: Virtual processors.
        sockets: Processor packages; each has its own L3, which makes as many domains.
        memory_mib: Memory, MiB.
        append: More words for the kernel command line; they come last and therefore win.
    """

    num_rmids: int = 8
    num_closids: int = 4
    cbm_len: int = 12
    mba: bool = True
    llc_occupancy: bool = True
    mbm_total: bool = True
    mbm_local: bool = True
    counters: CounterFault = CounterFault.NONE
    endless_limbo: bool = False
    decay_ms: int = 2000
    cpus: int = 2
    sockets: int = 1
    memory_mib: int = 512
    append: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        limits = {
            "num_rmids": (0, _MAX_RMIDS),
            "num_closids": (0, _MAX_CLOSIDS),
            "cbm_len": (1, _MAX_MASK_BITS),
            "decay_ms": (1, 3_600_000),
            "cpus": (1, _MAX_CPUS),
            "sockets": (1, self.cpus),
            "memory_mib": (_MIN_MEMORY, 1 << 20),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, not within {low}..{high}")
        if self.cpus % self.sockets:
            raise ValueError(f"{self.cpus} processors do not divide by {self.sockets} sockets")
        for word in self.append:
            if not word or any(character.isspace() or not character.isprintable() for character in word):
                raise ValueError(f"not one word of a kernel command line: {word!r}")

    @classmethod
    def without_rdt(cls) -> GuestConfig:
        """Return a machine whose processor has no RDT: /sys/fs/resctrl is absent."""
        return cls(num_rmids=0, num_closids=0)

    @classmethod
    def monitoring_only(cls) -> GuestConfig:
        """Return a machine that counts but allocates nothing: no control groups."""
        return cls(num_closids=0)

    @classmethod
    def allocation_only(cls) -> GuestConfig:
        """Return a machine that allocates but counts nothing: no mon_groups, no mon_data."""
        return cls(num_rmids=0)

    @classmethod
    def two_domains(cls) -> GuestConfig:
        """Return a machine with two L3 caches: mon_L3_00 and mon_L3_01."""
        return cls(sockets=2)

    def kernel_command_line(self) -> str:
        """Return the kernel's command line.

        `panic=-1` reboots at once, which QEMU turns into an exit: a dead guest ends its run, and so does one
        that is only hurt (`oops=panic`), before it hangs or answers out of ruined memory.
        """
        off = [
            name
            for name, there in (
                ("cmt", self.llc_occupancy),
                ("mbmtotal", self.mbm_total),
                ("mbmlocal", self.mbm_local),
            )
            if not there
        ]
        words = [
            "console=ttyS0",
            "panic=-1",
            "oops=panic",
            "quiet",
            f"fakerdt.num_rmid={self.num_rmids}",
            f"fakerdt.num_closid={self.num_closids}",
            f"fakerdt.cbm_len={self.cbm_len}",
            f"fakerdt.mba={int(self.mba)}",
            f"fakerdt.fail={int(self.counters)}",
            f"fakerdt.stuck={int(self.endless_limbo)}",
            f"fakerdt.decay_ms={self.decay_ms}",
        ]
        if off:
            words.append("rdt=" + ",".join(f"!{name}" for name in off))
        return " ".join([*words, *self.append])
