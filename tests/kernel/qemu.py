"""The QEMU that boots a guest, and its command line.

Owns: where QEMU is, what it is told. Must not know: what runs in the guest, or how long.

Rules:
    1. Stock QEMU, software emulation: no rights, no /dev/kvm, no RDT hardware is asked for.
    2. The host's tree is read-only in QEMU itself, not only by the guest's good will.
    3. Two channels lead out: the serial ports, and the job directory.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.kernel import debian
from tests.kernel.errors import MissingQemuError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kernel.guest import GuestConfig

__all__ = ["QEMU", "QEMU_PACKAGE", "Wiring", "command_line", "find_qemu", "install_qemu"]

QEMU: Final = "qemu-system-x86_64"
QEMU_PACKAGE: Final = "qemu-system-x86"


def find_qemu() -> str:
    """Return the path of QEMU.

    Raises:
        MissingQemuError: It is not installed; the error names the Debian package.
    """
    path = shutil.which(QEMU)
    if path is None:
        raise MissingQemuError(QEMU, QEMU_PACKAGE)
    return path


def install_qemu() -> None:
    """Install QEMU with apt where it is missing; for CI, where root runs.

    Raises:
        NotRootError: Not run by root.
        PackageError: apt is absent or refused.
    """
    if shutil.which(QEMU) is None:
        debian.install([QEMU_PACKAGE])


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """What QEMU is connected to.

    Attributes:
        bzimage: The kernel.
        initramfs: The first root.
        job: The job directory, the only thing of the host that the guest can change.
        console: File for the guest's console.
        output: Descriptor that gets the job's standard output; QEMU inherits it.
        errors: Descriptor that gets the job's standard error; QEMU inherits it.
    """

    bzimage: Path
    initramfs: Path
    job: Path
    console: Path
    output: int
    errors: int


def _value(path: object) -> str:
    """Return a path as the value of a QEMU option: a comma is said by two."""
    return str(path).replace(",", ",,")


def command_line(program: str, guest: GuestConfig, wiring: Wiring, *, kvm: bool = False) -> list[str]:
    """Return QEMU's arguments.

    The processor is a Nehalem: younger models meet the kernel's errata tables (kernel 6.12, resctrl/core.c,
    check_quirks), which turn parts of RDT off.
    """
    smp = f"{guest.cpus},sockets={guest.sockets},cores={guest.cpus // guest.sockets},threads=1"
    ports: list[str] = []
    for number, descriptor in enumerate((wiring.output, wiring.errors), start=1):
        ports += ["-add-fd", f"fd={descriptor},set={number}"]
        # append: without it QEMU would truncate, which a pipe refuses.
        ports += ["-chardev", f"file,id=out{number},path=/dev/fdset/{number},append=on"]
    # fmt: off
    return [
        program,
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        "-M", "q35",
        "-accel", "kvm" if kvm else "tcg,thread=multi",
        "-cpu", "Nehalem",
        "-smp", smp,
        "-m", str(guest.memory_mib),
        "-kernel", str(wiring.bzimage),
        "-initrd", str(wiring.initramfs),
        "-append", guest.kernel_command_line(),
        *ports,
        "-serial", f"file:{_value(wiring.console)}",
        "-serial", "chardev:out1",
        "-serial", "chardev:out2",
        "-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
        "-device", "virtio-9p-pci,fsdev=root,mount_tag=hostroot",
        "-fsdev", f"local,id=job,path={_value(wiring.job)},security_model=none,multidevs=remap",
        "-device", "virtio-9p-pci,fsdev=job,mount_tag=job",
    ]
    # fmt: on
