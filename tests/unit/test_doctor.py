"""The doctor: what it says of machines of every kind, and that each broken rung comes with its mend."""

from __future__ import annotations

import errno
import math
import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nri_resctrl_plugin.doctor import Level
from nri_resctrl_plugin.doctor.host import call, connect
from nri_resctrl_plugin.doctor.runtime import CONTAINERD_DROP_IN, CRIO_DROP_IN
from resctrl import ResctrlConfig
from resctrl.testing import FakeFs, FaultyFs
from resctrl.testing.fake_fs import Privilege
from tests.unit.fakes import MON, ROOT
from tests.unit.machines import (
    ALL_CAPABILITIES,
    ALLOCATION_FLAGS,
    AMD,
    CGROUP1,
    CGROUP2,
    HYBRID,
    INTEL,
    MONITORING_FLAGS,
    SKYLAKE,
    Machine,
)

if TYPE_CHECKING:
    from nri_resctrl_plugin.doctor import Diagnosis, Finding

UUID = "6f1c2b5e-0c4f-4a53-9a0e-2f1f3f1f5a77"
WITHOUT_DAC = f"{int(ALL_CAPABILITIES, 16) & ~2:016x}"
WITHOUT_ADMIN = f"{int(ALL_CAPABILITIES, 16) & ~(1 << 21):016x}"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A healthy node."""
    return Machine(tmp_path)


def assert_told(finding: Finding, level: Level, *words: str) -> None:
    """Check the level, that each word is said, and that what is not well has its meaning and its mend."""
    text = "\n".join([finding.found, finding.meaning, *finding.fix])
    assert finding.level is level, text
    assert [word for word in words if word not in text] == [], text
    if level in {Level.WARN, Level.FAIL}:
        assert finding.meaning.endswith(".")
        assert finding.fix


def broken(diagnosis: Diagnosis) -> set[str]:
    """Return the rungs that are not well."""
    return {each.rung for each in diagnosis.findings if each.level is not Level.OK}


class Assigning(FakeFs):
    """A machine whose counters are assigned one by one."""

    def __init__(self, mode: str, available: str) -> None:
        super().__init__(limbo=1.0)
        self._more = {"mbm_assign_mode": mode, "available_mbm_cntrs": available}

    def read_child_files(self, path: Path) -> list[str]:
        """List them too."""
        names = super().read_child_files(path)
        return sorted([*names, *self._more]) if path.name == "L3_MON" else names

    def read_text(self, path: Path) -> str:
        """Return their texts."""
        return self._more.get(path.name) or super().read_text(path)


class TestWhole:
    """The ladder."""

    def test_a_healthy_node(self, machine: Machine) -> None:
        """Every rung is well, none asks for anything, and the machine is usable."""
        diagnosis = machine.diagnosis(with_probe=True)
        assert broken(diagnosis) == set()
        assert diagnosis.usable
        assert all(not each.meaning and not each.fix for each in diagnosis.findings)
        assert [each.rung for each in diagnosis.findings] == [
            "platform", "virtualisation", "processor", "kernel", "boot", "mount", "features", "rmids",
            "permission", "confinement", "user-namespace", "pid-namespace", "probe", "cgroups", "packages",
            "nri", "runtime", "neighbours",
        ]  # fmt: skip

    def test_the_library_alone(self, machine: Machine) -> None:
        """Without a runtime the library can be used: the rungs of the runtime are left out."""
        machine.without_runtime()
        assert set(machine.diagnosis().failed) == {"nri", "runtime"}
        diagnosis = machine.diagnosis(library=True)
        assert diagnosis.usable
        assert not {"nri", "runtime", "packages"} & {each.rung for each in diagnosis.findings}

    def test_a_warning_leaves_it_usable(self, machine: Machine) -> None:
        """Something to know is no obstacle."""
        machine.write("proc/self/mountinfo", CGROUP1)
        diagnosis = machine.diagnosis()
        assert broken(diagnosis) == {"cgroups"}
        assert diagnosis.usable

    def test_as_json(self, machine: Machine) -> None:
        """The JSON has every rung with its level, and says whether the machine is usable."""
        machine.without_runtime()
        told = machine.diagnosis().as_json()
        assert (told["schema"], told["usable"], told["failed"]) == (1, False, ["nri", "runtime"])
        rungs = told["rungs"]
        assert isinstance(rungs, list)
        assert {"rung": "kernel", "level": "ok", "found": "resctrl is in /proc/filesystems", "meaning": "",
                "fix": []} in rungs  # fmt: skip

    def test_an_unsupported_kernel_breaks_no_more_than_it_must(self, machine: Machine) -> None:
        """Without resctrl the kernel's rung fails; those that stand on it are skipped, the others judged."""
        machine.resctrl(FakeFs(supported=False))
        machine.config("# CONFIG_X86_CPU_RESCTRL is not set\n")
        levels = machine.levels(with_probe=True)
        assert levels["kernel"] is Level.FAIL
        skipped = {rung for rung, level in levels.items() if level is Level.SKIP}
        assert skipped == {"mount", "features", "rmids", "probe"}
        assert machine.diagnosis().failed == ("kernel",)

    def test_what_cannot_be_told_is_no_success(self, machine: Machine) -> None:
        """A rung that meets an error says so, and the machine is not called usable."""
        faulty = FaultyFs(FakeFs())
        machine.resctrl(faulty)
        faulty.fail("read_text", errno.EIO, times=math.inf, path=ROOT / "info/L3_MON/num_rmids")
        finding = machine.finding("rmids")
        assert_told(finding, Level.FAIL, "EIO")
        assert not machine.diagnosis().usable


class TestMachine:
    """Architecture, hypervisor, processor."""

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"system": "Darwin"}, ["Darwin", "resctrl is a part of Linux"]),
            ({"release": "4.9.0-19-amd64"}, ["4.9.0", "boot Linux 4.14"]),
        ],
    )
    def test_a_platform_that_never_will(
        self, machine: Machine, changes: dict[str, str], words: list[str]
    ) -> None:
        """Another system, and a kernel older than monitoring groups, are told apart."""
        machine.set(**changes)
        assert_told(machine.finding("platform"), Level.FAIL, *words)

    def test_another_architecture(self, machine: Machine) -> None:
        """Where Linux has no resctrl for the architecture that is said; a kernel that has it is believed."""
        machine.set(machine="ppc64le")
        assert_told(machine.finding("platform"), Level.OK)
        machine.resctrl(FakeFs(supported=False))
        assert_told(machine.finding("platform"), Level.FAIL, "ppc64le", "x86")

    @pytest.mark.parametrize(
        ("files", "named"),
        [
            ({}, "its maker is not told"),
            ({"sys_vendor": "QEMU\n", "product_name": "Standard PC\n"}, "QEMU Standard PC"),
            ({"sys_vendor": "Amazon EC2\n", "product_name": "m5.large\n"}, "Amazon EC2 m5.large"),
        ],
    )
    def test_a_virtual_machine(self, machine: Machine, files: dict[str, str], named: str) -> None:
        """A hypervisor that hides the counters is named, and is why the processor fails."""
        machine.resctrl(FakeFs(supported=False))
        machine.cpu(AMD, "fpu hypervisor")
        for name, text in files.items():
            machine.write(f"sys/class/dmi/id/{name}", text)
        assert_told(machine.finding("virtualisation"), Level.WARN, named, "bare-metal")
        assert_told(machine.finding("processor"), Level.FAIL, "The hypervisor hides them", "bare-metal")

    def test_a_virtual_machine_that_can(self, machine: Machine) -> None:
        """A hypervisor that hands the counters on is no obstacle."""
        machine.cpu(INTEL, f"hypervisor {MONITORING_FLAGS}")
        assert_told(machine.finding("virtualisation"), Level.OK, "all the same")

    def test_bare_metal_of_a_cloud(self, machine: Machine) -> None:
        """A machine that bears a cloud's name is virtual only where its processor says so."""
        machine.write("sys/class/dmi/id/sys_vendor", "Amazon EC2\n")
        machine.write("sys/class/dmi/id/product_name", "m7i.metal-24xl\n")
        assert_told(machine.finding("virtualisation"), Level.OK, "no hypervisor")
        machine.write("sys/class/dmi/id/product_name", "Google Compute Engine\n")
        assert_told(machine.finding("virtualisation"), Level.OK, "no hypervisor")
        machine.write("sys/class/dmi/id/product_name", "m7i.metal-24xl\n")
        machine.set(machine="aarch64")
        machine.cpu({}, "")
        machine.resctrl(FakeFs(supported=False))
        assert_told(machine.finding("virtualisation"), Level.OK, "no hypervisor")
        machine.write("sys/class/dmi/id/product_name", "m7g.large\n")
        assert_told(machine.finding("virtualisation"), Level.WARN, "m7g.large")

    @pytest.mark.parametrize(
        ("file", "text"),
        [
            ("sys/hypervisor/type", "xen\n"),
            ("proc/device-tree/hypervisor/compatible", "linux,kvm\0"),
        ],
    )
    def test_other_signs_of_a_hypervisor(self, machine: Machine, file: str, text: str) -> None:
        """Xen and a device tree tell in their own places."""
        machine.resctrl(FakeFs(supported=False))
        machine.write(file, text)
        assert_told(machine.finding("virtualisation"), Level.WARN, text.strip("\0\n"))

    @pytest.mark.parametrize("identity", [INTEL, AMD])
    def test_a_processor_that_counts(self, machine: Machine, identity: dict[str, str]) -> None:
        """Intel and AMD have the same flags."""
        machine.cpu(identity, MONITORING_FLAGS)
        assert_told(machine.finding("processor"), Level.OK, identity["model name"], "mbm_local_bytes")

    def test_a_processor_that_counts_a_part(self, machine: Machine) -> None:
        """What will be missing is said."""
        machine.cpu(INTEL, "cqm cqm_llc cqm_occup_llc")
        assert_told(machine.finding("processor"), Level.WARN, "no mbm_total_bytes and no mbm_local_bytes")

    def test_a_processor_that_allocates_alone(self, machine: Machine) -> None:
        """Allocation is not monitoring."""
        machine.resctrl(FakeFs(monitoring=False))
        machine.cpu(INTEL, ALLOCATION_FLAGS)
        assert_told(machine.finding("processor"), Level.FAIL, "can allocate (cat_l3, mba, rdt_a)", "firmware")

    def test_a_processor_that_can_nothing(self, machine: Machine) -> None:
        """On bare metal the firmware's setup is where to look."""
        machine.resctrl(FakeFs(supported=False))
        machine.cpu(AMD, "fpu vme")
        finding = machine.finding("processor")
        assert_told(finding, Level.FAIL, "none of the flags cqm_occup_llc", "firmware", "EPYC from 7002")

    def test_the_kernel_knows_better_than_the_flags(self, machine: Machine) -> None:
        """A kernel that counts is believed."""
        machine.cpu(AMD, "fpu vme")
        assert_told(machine.finding("processor"), Level.OK, "the kernel counts")

    def test_an_arm_machine(self, machine: Machine) -> None:
        """Arm has no flags for it: the firmware's table tells, until the kernel does."""
        machine.set(machine="aarch64")
        machine.cpu({}, "")
        assert_told(machine.finding("processor"), Level.OK, "the kernel found MPAM")
        machine.resctrl(FakeFs(supported=False))
        assert_told(machine.finding("processor"), Level.WARN, "dmesg")
        machine.write("sys/firmware/acpi/tables/FACP", "")
        assert_told(machine.finding("processor"), Level.FAIL, "no ACPI table MPAM")
        machine.write("sys/firmware/acpi/tables/MPAM", "")
        assert_told(machine.finding("processor"), Level.OK, "describes MPAM")


class TestKernel:
    """Configuration and boot options."""

    @pytest.mark.parametrize("place", ["boot/config-6.12.9", "lib/modules/6.12.9/config"])
    def test_built_without(self, machine: Machine, place: str) -> None:
        """A kernel without the option is told by its configuration, wherever that is; the option is named."""
        machine.resctrl(FakeFs(supported=False))
        machine.config(None)
        machine.write(place, "CONFIG_X86=y\n# CONFIG_X86_CPU_RESCTRL is not set\n")
        assert_told(
            machine.finding("kernel"), Level.FAIL, "built without CONFIG_X86_CPU_RESCTRL=y", "boot a kernel"
        )

    def test_built_with_it_and_nothing_found(self, machine: Machine) -> None:
        """A kernel that could, and found nothing, sends to the other rungs, not to another kernel."""
        machine.resctrl(FakeFs(supported=False))
        finding = machine.finding("kernel")
        assert_told(finding, Level.FAIL, "although it is built with CONFIG_X86_CPU_RESCTRL", "dmesg")
        assert "boot a kernel" not in "".join(finding.fix)

    @pytest.mark.parametrize("broken_gzip", [b"", b"no gzip", b"\x1f\x8b\x08\x00"])
    def test_a_configuration_that_cannot_be_read(self, machine: Machine, broken_gzip: bytes) -> None:
        """Then both causes are named."""
        machine.resctrl(FakeFs(supported=False))
        (machine.root / "proc/config.gz").write_bytes(broken_gzip)
        assert_told(machine.finding("kernel"), Level.FAIL, "not to be seen", "CONFIG_X86_CPU_RESCTRL=y")

    def test_arm_needs_two_options(self, machine: Machine) -> None:
        """On Arm both the architecture's option and resctrl's own are needed."""
        machine.resctrl(FakeFs(supported=False))
        machine.set(machine="aarch64")
        machine.config("CONFIG_ARM64_MPAM=y\n")
        assert_told(
            machine.finding("kernel"), Level.FAIL, "without CONFIG_ARM64_MPAM=y and CONFIG_RESCTRL_FS=y"
        )
        machine.config("CONFIG_ARM64_MPAM=y\nCONFIG_RESCTRL_FS=y\n")
        assert_told(machine.finding("kernel"), Level.FAIL, "although it is built with")

    @pytest.mark.parametrize(
        ("options", "level", "words"),
        [
            ("quiet", Level.OK, []),
            ("rdt=!l3cat,!mba", Level.OK, []),
            ("rdt=cmt,mbmtotal", Level.OK, []),
            ("rdt=!cmt", Level.WARN, ["turns llc_occupancy off", "remove !cmt"]),
            ("rdt=!cmt,!mbmtotal,!mbmlocal", Level.FAIL, ["remove !cmt,!mbmtotal,!mbmlocal", "update-grub"]),
            ("rdt=!cmt", Level.WARN, ["grubby --update-kernel=ALL --remove-args='rdt=!cmt'"]),
            (
                "rdt=!cmt,!mba rdt=l3cat",
                Level.WARN,
                ["--remove-args='rdt=!cmt,!mba rdt=l3cat' --args='rdt=!mba,l3cat'"],
            ),
            ("rdt=!cmt,!mbmtotal rdt=!mbmlocal", Level.FAIL, ["reboot"]),
            # What is forced on stays on, whatever else is said (kernel: rdt_cpu_has).
            ("rdt=!cmt,!mbmtotal,!mbmlocal rdt=cmt", Level.WARN, ["mbm_total_bytes, mbm_local_bytes off"]),
        ],
    )
    def test_boot_options(self, machine: Machine, options: str, level: Level, words: list[str]) -> None:
        """Options that turn monitoring off, in part or whole, are named with the way to remove them."""
        machine.write("proc/cmdline", f"ro {options}\n")
        assert_told(machine.finding("boot"), level, *words)

    def test_an_erratum(self, machine: Machine) -> None:
        """The first Xeon Scalable has its monitoring left off by Linux, and an option turns it on."""
        machine.resctrl(FakeFs(monitoring=False))
        machine.cpu(SKYLAKE, MONITORING_FLAGS)
        assert_told(machine.finding("boot"), Level.FAIL, "errata", "add rdt=cmt,mbmtotal,mbmlocal")
        assert_told(machine.finding("boot"), Level.FAIL, "ALL --args='rdt=cmt,mbmtotal,mbmlocal'")
        machine.write("proc/cmdline", "ro rdt=cmt,mbmtotal,mbmlocal\n")
        assert_told(machine.finding("boot"), Level.OK)
        machine.write("proc/cmdline", "ro\n")
        machine.cpu({**SKYLAKE, "stepping": "7"}, MONITORING_FLAGS)
        assert_told(machine.finding("boot"), Level.OK)

    def test_mpam_turned_off(self, machine: Machine) -> None:
        """Arm has an option of its own."""
        machine.set(machine="aarch64")
        machine.write("proc/cmdline", "ro rdt=!cmt,!mbmtotal,!mbmlocal\n")
        assert_told(machine.finding("boot"), Level.OK)
        machine.write("proc/cmdline", "ro arm64.nompam\n")
        assert_told(
            machine.finding("boot"),
            Level.FAIL,
            "remove arm64.nompam",
            "ALL --remove-args='arm64.nompam'",
            "reboot",
        )

    def test_a_command_line_that_cannot_be_read(self, machine: Machine) -> None:
        """Is a warning: what is not seen is not excluded."""
        machine.remove("proc/cmdline")
        assert_told(machine.finding("boot"), Level.WARN, "rdt=")


class TestGroups:
    """Mount, features, RMIDs."""

    def test_unmounted(self, machine: Machine) -> None:
        """The mount command, the line for each boot, and the plugin's own way."""
        machine.resctrl(FakeFs(mounted=False))
        finding = machine.finding("mount")
        assert_told(
            finding, Level.FAIL, "mount -t resctrl resctrl /sys/fs/resctrl", "/etc/fstab", "--auto-mount"
        )
        levels = machine.levels(with_probe=True)
        assert {levels[rung] for rung in ("features", "rmids", "probe")} == {Level.SKIP}
        machine.status(capabilities=WITHOUT_ADMIN)
        assert_told(machine.finding("mount"), Level.FAIL, "no CAP_SYS_ADMIN")

    def test_mounted_elsewhere(self, machine: Machine) -> None:
        """The place is named, and the flag that takes it."""
        fs = FakeFs(mounted=False)
        fs.create_dir(Path("/mnt"))
        fs.mount(Path("/mnt"))
        machine.resctrl(fs)
        assert_told(machine.finding("mount"), Level.FAIL, "mounted at /mnt", "--resctrl-root /mnt")

    def test_mounted_on_the_host_alone(self, machine: Machine) -> None:
        """In a pod without the volume, the volume is the mend."""
        machine.resctrl(FakeFs(mounted=False))
        machine.write("proc/1/mountinfo", "40 20 0:40 / /sys/fs/resctrl rw - resctrl resctrl rw\n")
        assert_told(machine.finding("mount"), Level.FAIL, "on the host", "hostPath: {path: /sys/fs/resctrl")

    def test_read_only(self, machine: Machine) -> None:
        """A read-only mount is told as that, and permission points to it."""
        fs = FakeFs()
        fs.remount(read_only=True)
        machine.resctrl(fs)
        assert_told(machine.finding("mount"), Level.FAIL, "read-only", "remount,rw", "readOnly")
        assert_told(machine.finding("permission"), Level.FAIL, "see mount")

    def test_monitoring_alone(self, machine: Machine) -> None:
        """A machine that only monitors is all that is needed."""
        machine.resctrl(FakeFs(allocation=False, limbo=1.0))
        assert broken(machine.diagnosis()) == set()

    def test_allocation_alone(self, machine: Machine) -> None:
        """A machine that only allocates fails at its features; there are no RMIDs to count."""
        machine.resctrl(FakeFs(monitoring=False))
        assert_told(machine.finding("features"), Level.FAIL, "no L3_MON", "not monitored")
        assert machine.finding("rmids").level is Level.SKIP

    def test_a_feature_is_missing(self, machine: Machine) -> None:
        """What there will not be is said."""
        machine.resctrl(FakeFs(limbo=0.0))  # a processor without llc_occupancy
        assert_told(machine.finding("features"), Level.WARN, "There is no llc_occupancy")

    def test_counters_that_are_assigned_one_by_one(self, machine: Machine) -> None:
        """Where none is left, further groups will read Unassigned: a warning with the way out."""
        machine.resctrl(Assigning("[mbm_event]\ndefault\n", "0=4;1=0\n"))
        assert_told(machine.finding("features"), Level.WARN, "domain 1", "Unassigned", "mbm_assign_mode")
        machine.resctrl(Assigning("[mbm_event]\ndefault\n", "0=4;1=2\n"))
        assert_told(machine.finding("features"), Level.OK)
        machine.resctrl(Assigning("mbm_event\n[default]\n", "0=4;1=0\n"))
        assert_told(machine.finding("features"), Level.OK)

    def test_rmids_are_left(self, machine: Machine) -> None:
        """How many more groups can be made is a number."""
        machine.host.resctrl.create_group("a")
        assert_told(machine.finding("rmids"), Level.OK, "62 of 64 free")

    def test_rmids_are_exhausted(self, machine: Machine) -> None:
        """Who has them is told, and how to get some back."""
        fs = FakeFs(num_rmids=4, limbo=1.0)
        machine.resctrl(fs)
        machine.host.resctrl.create_group("a")
        fs.create_dir(MON / "foreign")
        fs.create_dir(ROOT / "gold")
        finding = machine.finding("rmids")
        assert_told(finding, Level.FAIL, "all 4 are taken: 1 by groups named pod_..., 2 by other groups")
        assert_told(finding, Level.FAIL, "cleanup --dry-run", f"{MON}/foreign", f"{ROOT}/gold")
        assert machine.finding("probe", with_probe=True).level is Level.FAIL

    def test_there_are_no_rmids(self, machine: Machine) -> None:
        """A machine that counts and gives no RMID is not told to tidy up."""

        class Empty(FakeFs):
            def read_text(self, path: Path) -> str:
                return "0\n" if path.name == "num_rmids" else super().read_text(path)

        machine.resctrl(Empty())
        finding = machine.finding("rmids")
        assert_told(finding, Level.FAIL, "num_rmids is 0", "see processor and boot")
        assert "rmdir" not in "".join(finding.fix)

    def test_the_probe(self, machine: Machine) -> None:
        """It makes a group and removes it; without being asked it makes none."""
        assert "probe" not in machine.levels()
        fs = machine.host.resctrl.fs
        assert_told(machine.finding("probe", with_probe=True), Level.OK, "pod_doctor-probe")
        assert fs.read_child_dirs(MON) == []

    @pytest.mark.parametrize(
        ("number", "level", "words"),
        [
            (errno.EBUSY, Level.WARN, ["try again in some seconds"]),
            (errno.ENOSPC, Level.FAIL, ["ENOSPC"]),
            (errno.EACCES, Level.FAIL, ["see permission and confinement"]),
            (errno.EIO, Level.FAIL, ["EIO"]),
        ],
    )
    def test_the_probe_fails(self, machine: Machine, number: int, level: Level, words: list[str]) -> None:
        """Limbo passes and is a warning; what does not pass is a failure."""
        faulty = FaultyFs(FakeFs(limbo=1.0))
        machine.resctrl(faulty)
        faulty.fail("create_dir", number)
        assert_told(machine.finding("probe", with_probe=True), level, *words)


class TestAccess:
    """User, capabilities, security modules, namespaces."""

    def test_not_root(self, machine: Machine) -> None:
        """Any other user is told so, and how to become root."""
        machine.status(uid=1000, capabilities="0")
        machine.resctrl(FakeFs(privilege=Privilege.USER))
        assert_told(machine.finding("permission"), Level.FAIL, "effective user 1000", "sudo", "runAsUser: 0")

    def test_root_without_the_capability(self, machine: Machine) -> None:
        """Root without CAP_DAC_OVERRIDE cannot make groups, and nothing else on the way would say it."""
        machine.status(capabilities=WITHOUT_DAC)
        machine.resctrl(FakeFs(privilege=Privilege.NO_DAC_OVERRIDE, limbo=1.0))
        assert_told(machine.finding("permission"), Level.FAIL, "add: [DAC_OVERRIDE]", "CapabilityBoundingSet")
        assert machine.finding("mount").level is Level.OK
        assert machine.finding("probe", with_probe=True).level is Level.FAIL

    @pytest.mark.parametrize(
        ("label", "mend"),
        [
            ("cri-containerd.apparmor.d (enforce)\n", "appArmorProfile: {type: Unconfined}"),
            ("system_u:system_r:container_t:s0:c1,c2\0", "seLinuxOptions: {type: spc_t}"),
        ],
    )
    def test_confined(self, machine: Machine, label: str, mend: str) -> None:
        """AppArmor and SELinux have different mends; who may write in spite of it is left in peace."""
        machine.write("proc/self/attr/current", label)
        assert_told(machine.finding("confinement"), Level.OK, "lets it write")
        machine.resctrl(FakeFs(privilege=Privilege.USER))
        assert_told(machine.finding("confinement"), Level.FAIL, mend)
        assert_told(machine.finding("permission"), Level.FAIL, "see mount and confinement")
        machine.resctrl(FakeFs(mounted=False))
        assert_told(machine.finding("confinement"), Level.WARN, mend)

    @pytest.mark.parametrize(
        "label",
        ["unconfined\n", "system_u:system_r:spc_t:s0\0", "unconfined_u:unconfined_r:unconfined_t:s0\0",
         "docker-default (complain)\n", ""],
    )  # fmt: skip
    def test_not_confined(self, machine: Machine, label: str) -> None:
        """Labels that forbid nothing are no obstacle, even where nothing can be written."""
        machine.resctrl(FakeFs(privilege=Privilege.USER))
        machine.write("proc/self/attr/current", label)
        assert machine.finding("confinement").level is Level.OK

    def test_apparmor_beside_selinux(self, machine: Machine) -> None:
        """AppArmor's own place goes before the shared one."""
        machine.resctrl(FakeFs(privilege=Privilege.USER))
        machine.write("proc/self/attr/current", "unconfined\n")
        machine.write("proc/self/attr/apparmor/current", "cri-containerd.apparmor.d (enforce)\n")
        assert machine.finding("confinement").level is Level.FAIL

    def test_a_user_namespace(self, machine: Machine) -> None:
        """Root of another user namespace is not root for resctrl."""
        machine.namespaces(user="user:[4026532645]")
        machine.write("proc/self/uid_map", "0 100000 65536\n")
        assert_told(machine.finding("user-namespace"), Level.FAIL, "4026532645", "hostUsers: false")
        machine.write("proc/self/uid_map", "         0          0 4294967295\n")
        assert machine.finding("user-namespace").level is Level.FAIL, "a map of everything is still a map"
        machine.write("proc/self/uid_map", "0 100000 65536\n")
        machine.remove("proc/self/ns/user")
        assert_told(machine.finding("user-namespace"), Level.FAIL, "100000")
        machine.write("proc/self/uid_map", "         0          0 4294967295\n")
        assert machine.finding("user-namespace").level is Level.OK

    def test_a_pid_namespace(self, machine: Machine) -> None:
        """In a namespace of its own the plugin sees no thread of a pod; the library sees those of its own."""
        machine.namespaces(pid="pid:[4026532700]")
        machine.without_runtime()
        assert_told(machine.finding("pid-namespace"), Level.FAIL, "hostPID: true")
        assert_told(machine.finding("pid-namespace", library=True), Level.WARN, "threads of this namespace")
        assert machine.finding("runtime").level is Level.WARN

    def test_a_node_that_is_a_container(self, machine: Machine) -> None:
        """Where the runtime is in the same PID namespace it will do."""
        machine.namespaces(pid="pid:[4026532700]")
        assert_told(machine.finding("pid-namespace"), Level.WARN, "kind")

    def test_a_pid_namespace_that_cannot_be_told(self, machine: Machine) -> None:
        """Is a warning."""
        machine.remove("proc/self/ns/pid")
        assert_told(machine.finding("pid-namespace"), Level.WARN, "pid:[4026531836]")


class TestCgroups:
    """Version 1, both, version 2, a part, none."""

    @pytest.mark.parametrize(
        ("mounts", "level", "words"),
        [
            (CGROUP2, Level.OK, ["v2 at /sys/fs/cgroup"]),
            (HYBRID, Level.OK, ["v1 and v2 side by side"]),
            (CGROUP1, Level.WARN, ["v1", "systemd.unified_cgroup_hierarchy=1"]),
            ("", Level.FAIL, ["none is mounted", "hostPath", "NRI_RESCTRL_CGROUP_ROOT"]),
        ],
    )
    def test_versions(self, machine: Machine, mounts: str, level: Level, words: list[str]) -> None:
        """Each is told apart; only none at all is an obstacle."""
        machine.write("proc/self/mountinfo", mounts)
        assert_told(machine.finding("cgroups"), level, *words)

    def test_the_library_needs_none(self, machine: Machine) -> None:
        """For the library alone that is a warning."""
        machine.write("proc/self/mountinfo", "")
        assert_told(machine.finding("cgroups", library=True), Level.WARN, "the library alone does without")

    def test_a_part(self, machine: Machine) -> None:
        """A cgroup namespace of its own shows a part, in which pods are not."""
        machine.write("sys/fs/cgroup/cgroup.type", "domain\n")
        assert_told(machine.finding("cgroups"), Level.WARN, "only a part", "hostPath")

    def test_another_root(self, machine: Machine) -> None:
        """In a pod the host's hierarchy can stand elsewhere."""
        machine.set(cgroup_root=Path("/host/cgroup"))
        assert machine.finding("cgroups").level is Level.FAIL
        machine.write("proc/self/mountinfo", CGROUP2.replace("/sys/fs/cgroup", "/host/cgroup"))
        assert_told(machine.finding("cgroups"), Level.OK, "/host/cgroup")


class TestRuntime:
    """Packages, NRI, the runtime and its version."""

    def test_a_package_is_missing(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the extra's packages the plugin cannot run, and the command that brings them is told."""
        monkeypatch.setattr(
            "nri_resctrl_plugin.doctor.runtime.find_spec",
            lambda name: None if name == "grpclib" else object(),
        )
        assert_told(machine.finding("packages"), Level.FAIL, "grpclib", "pip install 'resctrl[nri]'")

    def test_no_socket_and_no_runtime(self, machine: Machine) -> None:
        """Then both runtimes' files are shown, and what a pod needs."""
        machine.without_runtime()
        finding = machine.finding("nri")
        drop_ins = [
            *CONTAINERD_DROP_IN.format(version=2, socket="/var/run/nri/nri.sock").splitlines(),
            *CRIO_DROP_IN.splitlines(),
        ]
        assert_told(
            finding, Level.FAIL, "/etc/containerd/conf.d/nri.toml", "imports = ", "10-nri.conf", *drop_ins
        )
        assert_told(finding, Level.FAIL, "in a pod: give the container the host's directory /var/run/nri")
        assert_told(machine.finding("runtime"), Level.FAIL, "neither containerd nor CRI-O")

    @pytest.mark.parametrize(
        ("name", "answer", "shown", "hidden"),
        [
            (
                "containerd",
                "containerd github.com/containerd/containerd 1.7.24~ds1 x\n",
                "version = 2",
                "crio",
            ),
            (
                "containerd",
                "containerd github.com/containerd/containerd/v2 v2.1.0 x\n",
                "version = 3",
                "crio",
            ),
            ("crio", "crio version 1.36.1\nGitCommit: x\n", "enable_nri = true", "containerd"),
        ],
    )
    def test_nri_is_turned_off(
        self, machine: Machine, name: str, answer: str, shown: str, hidden: str
    ) -> None:
        """Of the runtime that runs, the file that turns NRI on is shown, and of no other."""
        machine.without_runtime()
        machine.process(99, name, answer)
        finding = machine.finding("nri")
        assert_told(finding, Level.FAIL, "runs, but does not offer NRI", shown, f"systemctl restart {name}")
        assert hidden not in "\n".join(finding.fix[:-1])

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (PermissionError(errno.EACCES, "Permission denied"), ["may not be used", "run as root"]),
            (TimeoutError("timed out"), ["does not answer: timed out"]),
        ],
    )
    def test_a_socket_that_does_not_take_us(self, machine: Machine, error: OSError, words: list[str]) -> None:
        """No permission and no answer are told apart."""
        machine.refuse(error)
        assert_told(machine.finding("nri"), Level.FAIL, *words)

    def test_a_socket_that_refuses(self, machine: Machine, tmp_path: Path) -> None:
        """A stale socket, and a file that is none, refuse with the same errno and are told apart."""
        directory = tmp_path / "var/run/nri"
        directory.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(directory / "nri.sock"))  # closed below: nobody listens, and the file stays
        machine.set(connect=connect)
        assert_told(machine.finding("nri"), Level.FAIL, "nobody listens", "systemctl restart containerd")
        (directory / "nri.sock").unlink()
        (directory / "nri.sock").write_text("")
        assert_told(machine.finding("nri"), Level.FAIL, "is no socket", "rm /var/run/nri/nri.sock")

    def test_a_real_socket_that_listens(self, machine: Machine, tmp_path: Path) -> None:
        """The connection is made, and closed at once: the runtime's side reads its end."""
        path = tmp_path / "nri.sock"
        machine.set(connect=connect, nri_socket=Path("/nri.sock"))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            assert_told(machine.finding("nri"), Level.OK, "listens at /nri.sock")
            taken, _ = listener.accept()
            taken.settimeout(5)
            assert taken.recv(1) == b""
            taken.close()

    @pytest.mark.parametrize(
        ("name", "answer", "level", "words"),
        [
            (
                "containerd",
                "containerd containerd.io 1.6.20 x\n",
                Level.FAIL,
                ["containerd 1.6.20", "1.7 or newer"],
            ),
            ("containerd", "containerd github.com/k3s-io/containerd v1.7.23-k3s2\n", Level.OK, ["1.7.23"]),
            ("crio", "crio version 1.25.1\n", Level.FAIL, ["CRI-O 1.25.1", "1.26 or newer"]),
            ("crio", "crio version 1.35.2\n", Level.WARN, ["CRI-O 1.35.2", "1.36 or newer"]),
            ("crio", "crio version 1.36.0\n", Level.OK, ["CRI-O 1.36.0"]),
            ("crio", "hello\n", Level.WARN, ["says 'hello"]),
            ("crio", subprocess.TimeoutExpired("crio", 15.0), Level.WARN, ["does not tell"]),
            ("containerd", FileNotFoundError(2, "No such file"), Level.WARN, ["does not tell"]),
        ],
    )
    def test_versions(
        self, machine: Machine, name: str, answer: str | Exception, level: Level, words: list[str]
    ) -> None:
        """Too old fails, old in a way that can be lived with warns, unknown warns."""
        machine.remove("proc/812")
        machine.process(99, name, answer)
        assert_told(machine.finding("runtime"), level, *words)

    @pytest.mark.parametrize(("uid", "mnt"), [(1000, "mnt:[4026531841]"), (0, "mnt:[4026532800]")])
    def test_a_stranger_is_never_run(self, machine: Machine, uid: int, mnt: str) -> None:
        """A process can call itself what it likes: what is not root's, or is in a container, is not run."""
        machine.remove("proc/812")
        machine.process(99, "containerd", AssertionError("it was run"), uid=uid, mnt=mnt)
        assert_told(machine.finding("runtime"), Level.WARN, "is not asked")

    def test_namespaces_that_cannot_be_told(self, machine: Machine) -> None:
        """Two namespaces that are both unknown are not the same one."""
        machine.remove("proc/self/ns/mnt")
        machine.remove("proc/812/ns/mnt")
        assert_told(machine.finding("runtime"), Level.WARN, "is not asked")

    def test_the_hosts_runtime_seen_from_a_pod(self, machine: Machine) -> None:
        """With hostPID the runtime is in the mount namespace of process 1, not in ours."""
        machine.namespaces(mnt="mnt:[4026532900]")
        assert machine.finding("runtime").level is Level.WARN
        machine.namespaces("1", mnt="mnt:[4026531841]")
        assert_told(machine.finding("runtime"), Level.OK, "containerd 2.0.5")

    def test_the_real_one_among_strangers(self, machine: Machine) -> None:
        """A stranger of the same name does not hide the runtime."""
        machine.process(100, "containerd", "", uid=1000)
        machine.process(9000, "containerd", "", uid=1000)
        assert_told(machine.finding("runtime"), Level.OK, "containerd 2.0.5")

    def test_an_unknown_runtime(self, machine: Machine) -> None:
        """Whoever listens for plugins may be one."""
        machine.remove("proc/812")
        assert_told(machine.finding("runtime"), Level.WARN, "one listens for plugins")


class TestNeighbours:
    """Other monitors."""

    @pytest.mark.parametrize(
        ("name", "maker"),
        [
            (UUID, "nri-resctrl-mon"),
            (UUID.replace("-", ""), "nri-resctrl-mon"),
            ("cadvisor-7", "of cAdvisor"),
            ("pod_x", "of this plugin, with another prefix"),
        ],
    )
    def test_groups_of_another_monitor(self, machine: Machine, name: str, maker: str) -> None:
        """Who makes such groups is named, and one of them."""
        machine.resctrl(FakeFs(limbo=1.0), group_prefix="ours_")
        machine.host.resctrl.fs.create_dir(MON / name)
        assert_told(machine.finding("neighbours"), Level.WARN, maker, str(MON / name), "1 group")

    def test_groups_that_nobody_knows(self, machine: Machine) -> None:
        """Control groups and groups of unknown purpose are counted, no more."""
        machine.host.resctrl.fs.create_dir(ROOT / "gold")
        machine.host.resctrl.create_group("mine")
        assert_told(machine.finding("neighbours"), Level.OK, "its 1 groups")

    def test_a_process_of_another_monitor(self, machine: Machine) -> None:
        """Monitors that leave no groups are known by their processes, also where resctrl is not mounted."""
        machine.process(55, "pqos")
        machine.resctrl(FakeFs(mounted=False))
        assert_told(machine.finding("neighbours"), Level.WARN, "process 55 is pqos")


class TestHost:
    """The doctor's hands."""

    def test_call(self, tmp_path: Path) -> None:
        """A program is asked for its version, in an environment of its own; one that fails is an error."""
        program = tmp_path / "program"
        program.write_text('#!/bin/sh\necho "$1 $HOME."; exit ${FAIL:-0}\n')
        program.chmod(stat.S_IRWXU)
        assert call(program) == "--version .\n"
        with pytest.raises(OSError, match="No such file"):
            call(tmp_path / "none")
        with pytest.raises(subprocess.CalledProcessError):
            call(Path("/bin/false"))

    def test_this_machine(self) -> None:
        """On the machine that runs this test every rung says something, and none cannot be told."""
        from nri_resctrl_plugin.doctor import Host, diagnose  # noqa: PLC0415 - the real one, for once
        from resctrl import FsProvider, RealFs, Resctrl  # noqa: PLC0415

        resctrl: Resctrl[FsProvider] = Resctrl.with_provider(RealFs(), ResctrlConfig())
        diagnosis = diagnose(Host(resctrl=resctrl))
        assert all(each.found for each in diagnosis.findings)
        assert not [each for each in diagnosis.findings if each.meaning == "It cannot be told."]
        assert sys.platform == "linux"
        assert os.uname().release in diagnosis.findings[0].found
        assert re.match(r"Linux \d", diagnosis.findings[0].found)
