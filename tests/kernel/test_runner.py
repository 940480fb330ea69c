"""The runner without a guest: configurations, QEMU's command line, the job, why the lane can be missing."""

from __future__ import annotations

import dataclasses
import os
import platform
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests.kernel import probe, qemu, vm
from tests.kernel.errors import MissingQemuError, NotRootError
from tests.kernel.guest import CounterFault, GuestConfig
from tests.kernel.image import PREBUILT, Image
from tests.kernel.qemu import Wiring, command_line
from tests.kernel.vm import guest_environment, job_script, kernel_lane_missing

if TYPE_CHECKING:
    from collections.abc import Callable


def replace_numbers(numbers: dict[str, int]) -> GuestConfig:
    """Return the default machine with some of its numbers changed."""
    change: Callable[..., GuestConfig] = dataclasses.replace
    return change(GuestConfig(), **numbers)


class TestConfig:
    """`GuestConfig` renders a kernel command line, or refuses."""

    def test_default(self) -> None:
        """The default machine in full."""
        assert GuestConfig().kernel_command_line() == (
            "console=ttyS0 panic=-1 oops=panic quiet fakerdt.num_rmid=8 fakerdt.num_closid=4 "
            "fakerdt.cbm_len=12 "
            "fakerdt.mba=1 fakerdt.fail=0 fakerdt.stuck=0 fakerdt.decay_ms=2000"
        )

    @pytest.mark.parametrize(
        ("guest", "word"),
        [
            (GuestConfig(num_rmids=3), "fakerdt.num_rmid=3"),
            (GuestConfig(num_closids=2), "fakerdt.num_closid=2"),
            (GuestConfig(cbm_len=20), "fakerdt.cbm_len=20"),
            (GuestConfig(mba=False), "fakerdt.mba=0"),
            (GuestConfig(counters=CounterFault.UNAVAILABLE), "fakerdt.fail=1"),
            (GuestConfig(counters=CounterFault.ERROR), "fakerdt.fail=2"),
            (GuestConfig(endless_limbo=True), "fakerdt.stuck=1"),
            (GuestConfig(decay_ms=5), "fakerdt.decay_ms=5"),
            (GuestConfig(llc_occupancy=False), "rdt=!cmt"),
            (
                GuestConfig(llc_occupancy=False, mbm_total=False, mbm_local=False),
                "rdt=!cmt,!mbmtotal,!mbmlocal",
            ),
            (GuestConfig(append=("quiet", "x=1")), "x=1"),
            (GuestConfig.without_rdt(), "fakerdt.num_closid=0"),
            (GuestConfig.without_rdt(), "fakerdt.num_rmid=0"),
            (GuestConfig.monitoring_only(), "fakerdt.num_closid=0"),
            (GuestConfig.allocation_only(), "fakerdt.num_rmid=0"),
        ],
    )
    def test_knobs(self, guest: GuestConfig, word: str) -> None:
        """Each knob is a word of the command line that the default machine does not have."""
        assert word in guest.kernel_command_line().split()
        assert word not in GuestConfig().kernel_command_line().split()

    @pytest.mark.parametrize(
        "wish",
        [
            {"num_rmids": -1}, {"num_rmids": 513}, {"num_closids": 33}, {"cbm_len": 0}, {"cbm_len": 33},
            {"decay_ms": 0}, {"cpus": 0}, {"cpus": 9}, {"sockets": 0}, {"sockets": 4},
            {"cpus": 3, "sockets": 2}, {"memory_mib": 64},
        ],
        ids=str,
    )  # fmt: skip
    def test_refused(self, wish: dict[str, int]) -> None:
        """What the kernel or the model could not honour is refused, not cut to size."""
        with pytest.raises(ValueError, match=r"not within|divide"):
            replace_numbers(wish)

    @pytest.mark.parametrize("word", ["two words", "", "a\nb"])
    def test_refused_word(self, word: str) -> None:
        """A word of the caller's own is one word."""
        with pytest.raises(ValueError, match="not one word"):
            GuestConfig(append=(word,))


WIRING = Wiring(
    bzimage=Path("/k"), initramfs=Path("/i"), job=Path("/j,ob"), console=Path("/con,sole"), output=7, errors=8
)


class TestQemu:
    """QEMU's command line."""

    def test_host_is_read_only(self) -> None:
        """The host's tree is shared read-only by QEMU itself; the job directory alone is writable."""
        shares = [word for word in command_line("q", GuestConfig(), WIRING) if word.startswith("local,")]
        assert [
            ("readonly=on" in share, share.split(",id=")[1].split(",security")[0]) for share in shares
        ] == [
            (True, "root,path=/"),
            (False, "job,path=/j,,ob"),
        ]

    def test_accelerator(self) -> None:
        """Emulation unless KVM is asked for."""
        for kvm, accelerator in ((False, "tcg,thread=multi"), (True, "kvm")):
            words = command_line("q", GuestConfig(), WIRING, kvm=kvm)
            assert words[words.index("-accel") + 1] == accelerator

    def test_machine(self) -> None:
        """Processors, sockets, memory and kernel words are those of the configuration."""
        guest = GuestConfig(cpus=4, sockets=2, memory_mib=256)
        words = command_line("q", guest, WIRING)
        assert words[words.index("-smp") + 1] == "4,sockets=2,cores=2,threads=1"
        assert words[words.index("-m") + 1] == "256"
        assert words[words.index("-append") + 1] == guest.kernel_command_line()
        assert "file:/con,,sole" in words

    def test_missing(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A missing QEMU is an error that names the package; it is installed only by root."""
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(MissingQemuError, match="--no-install-recommends qemu-system-x86") as caught:
            qemu.find_qemu()
        assert caught.value.package == "qemu-system-x86"
        monkeypatch.setattr("os.geteuid", lambda: 1000)
        with pytest.raises(NotRootError):
            qemu.install_qemu()


class TestJob:
    """The script that carries a command into the guest."""

    def run(self, tmp_path: Path, command: list[str], **more: str) -> subprocess.CompletedProcess[str]:
        """Run the script on this machine."""
        script = job_script(command, tmp_path, more)
        return subprocess.run(["bash"], input=script, capture_output=True, text=True, check=False, env={})

    def test_line(self, tmp_path: Path) -> None:
        """One word is a line for bash, run in the directory, with the environment."""
        done = self.run(tmp_path, ['echo "$WORD"; pwd; exit 3'], WORD="two  words' \"$x")
        assert (done.returncode, done.stdout) == (3, f"two  words' \"$x\n{tmp_path}\n")

    def test_arguments(self, tmp_path: Path) -> None:
        """Several words are a program and its arguments, whatever is in them."""
        done = self.run(tmp_path, ["printf", "%s|", "a b", "$HOME", "'", ""])
        assert done.stdout == "a b|$HOME|'||"

    def test_no_directory(self, tmp_path: Path) -> None:
        """A directory that is not there is a status of its own; the command is not run."""
        assert self.run(tmp_path / "absent", ["echo x"]).returncode == 126

    def test_no_command(self, tmp_path: Path) -> None:
        """No command is an error."""
        with pytest.raises(ValueError, match="no command"):
            job_script([], tmp_path, {})

    def test_environment(self) -> None:
        """This Python comes first, bytecode is not written, temporary files go to memory."""
        environ = guest_environment()
        assert (
            subprocess.run(
                ["sh", "-c", "command -v python3"], env=environ, capture_output=True, text=True, check=True
            )
            .stdout.strip()
            .startswith(environ["PATH"].split(":")[0])
        )
        assert (environ["PYTHONDONTWRITEBYTECODE"], environ["TMPDIR"]) == ("1", "/run/tmp")


class TestMissing:
    """`kernel_lane_missing` gives the reason."""

    def test_architecture(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another processor cannot share its programs with the guest."""
        monkeypatch.setattr(platform, "machine", lambda: "aarch64")
        assert "not aarch64" in str(kernel_lane_missing())

    def test_qemu(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """QEMU is missing: the package is named."""
        monkeypatch.setenv("PATH", str(tmp_path))
        assert "qemu-system-x86" in str(kernel_lane_missing())

    def test_image(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """The image is missing: the way to it is named."""
        monkeypatch.setattr(vm, "find_qemu", lambda: "/q")
        monkeypatch.setenv("RESCTRL_CACHE", str(tmp_path))
        monkeypatch.delenv(PREBUILT, raising=False)
        assert "python -m tests.kernel.build" in str(kernel_lane_missing())

    def test_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With QEMU and an image there is no reason."""
        image = Image(bzimage=Path("/k"), busybox=Path("/b"), release="6.12", origin="test")
        monkeypatch.setattr(vm, "find_qemu", lambda: "/q")
        monkeypatch.setattr(vm, "find_image", lambda: image)
        assert kernel_lane_missing() is None

    def test_command(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        """Without QEMU the command's status is 125 and the package is named."""

        def missing() -> str:
            raise MissingQemuError("qemu", "qemu-system-x86")

        monkeypatch.setattr(vm, "find_qemu", missing)
        monkeypatch.setattr(vm, "find_image", lambda: None)
        monkeypatch.setattr(signal, "signal", lambda *_args: None)
        assert vm.main(["--", "true"]) == 125
        assert "qemu-system-x86" in capsys.readouterr().err

    def test_command_refuses(self, capsys: pytest.CaptureFixture[str]) -> None:
        """An impossible machine is wrong usage."""
        with pytest.raises(SystemExit) as caught:
            vm.main(["--smp", "3", "--sockets", "2", "--", "true"])
        assert caught.value.code == 2
        assert "do not divide" in capsys.readouterr().err


class TestRun:
    """What a run leaves behind where no guest came of it."""

    @pytest.mark.parametrize("failing", ["initramfs", "_with_parent"])
    def test_an_early_failure_keeps_no_pipe(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failing: str
    ) -> None:
        """All four ends are closed when the guest could not be started."""

        def refuse(*_: object) -> NoReturn:
            raise OSError("no space")

        monkeypatch.setattr(vm, "find_qemu", lambda: "/q")
        monkeypatch.setattr(vm, "initramfs", lambda _: tmp_path / "initramfs")
        monkeypatch.setattr(vm, failing, refuse)
        image = Image(bzimage=tmp_path / "b", busybox=tmp_path / "box", release="6", origin="here")
        before = os.listdir("/proc/self/fd")  # noqa: PTH208 - names that are only compared
        with pytest.raises(OSError, match="no space"):
            vm.run_guest(["true"], image=image)
        assert os.listdir("/proc/self/fd") == before  # noqa: PTH208

    def test_a_number_that_is_free_again_is_not_killed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who was waited for has no number any more: it may be that of another group."""
        killed: list[int] = []
        monkeypatch.setattr(os, "killpg", lambda group, _: killed.append(group))
        with subprocess.Popen(["/bin/true"], start_new_session=True) as process:
            process.wait()
            vm._kill(process)
        assert killed == []

    def test_one_that_goes_on_is_killed(self) -> None:
        """At its limit, with its whole group."""
        with subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True) as process:
            vm._kill(process)
        assert process.returncode == -signal.SIGKILL


class TestProbe:
    """`probe` outside a guest."""

    def test_only_in_the_guest(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Where the model is missing nothing is mounted and nothing is run."""
        assert "not the guest" in str(probe.obstacle(tmp_path))
        (tmp_path / "sys/module/fakerdt/parameters").mkdir(parents=True)
        assert "cgroup v2" in str(probe.obstacle(tmp_path))
        (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
        (tmp_path / "sys/fs/cgroup/cgroup.controllers").touch()
        assert "/vmjob" in str(probe.obstacle(tmp_path))
        (tmp_path / "vmjob").mkdir()
        assert probe.obstacle(tmp_path) is None
        if probe.obstacle() is not None:
            assert probe.main(["-q"]) == probe.CANNOT_RUN
            assert "probe: " in capsys.readouterr().err

    def test_compile(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        """On the host, collecting leaves compiled tests behind; what cannot be collected is an error."""
        (tmp_path / "test_one.py").write_text("def test_it():\n    assert 1\n", encoding="utf-8")
        assert probe.main(["--compile", str(tmp_path)]) == 0
        assert [path.name.split(".")[0] for path in tmp_path.glob("__pycache__/*.pyc")] == ["test_one"]
        (tmp_path / "test_two.py").write_text("import absent_module\n", encoding="utf-8")
        assert probe.main(["--compile", str(tmp_path)]) == 2
        assert "absent_module" in capfd.readouterr().err

    def test_command(self) -> None:
        """No cache, the report in the job directory, examples too, and the caller's words come last."""
        words = probe.pytest_command(["-k", "x"], "j.xml")
        assert words[1:5] == ["-m", "pytest", "-p", "no:cacheprovider"]
        assert words[-3:] == ["--junit-xml=/vmjob/j.xml", "-k", "x"]
        assert probe.prepared_environment({"A": "b", "TMPDIR": "/tmp"}) == {  # noqa: S108 - a value, not a file
            "A": "b",
            "HYPOTHESIS_STORAGE_DIRECTORY": "/vmjob/hypothesis",
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": "/run/tmp",
        }
