"""The runner's promises and every knob of a guest, each proven by a boot."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from tests.kernel import probe
from tests.kernel.guest import MODEL_PARAMETERS, CounterFault, GuestConfig
from tests.kernel.vm import NO_RESULT

if TYPE_CHECKING:
    from tests.kernel.conftest import Boot
    from tests.kernel.image import Image

CHECKOUT = Path(__file__).resolve().parents[2]
MOUNT = "set -e; mount -t resctrl resctrl /sys/fs/resctrl; cd /sys/fs/resctrl; "
# Without plugins whose import takes an emulated machine longer than these tests.
PROBE = "python -m tests.kernel.probe -q -p no:hypothesispytest -p no:pytest_cov"
# Prints how many groups could be made, then the kernel's own words for the refusal.
FILL = """
fill() {
    n=0
    while [ $n -lt 600 ] && word=$(mkdir "$1$n" 2>&1); do n=$((n + 1)); done
    echo "$n ${word##*: }"
}
"""


def processes_with(word: str) -> list[int]:
    """Return the processes whose command line has the word in it, this one left out."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            line = (directory / "cmdline").read_bytes()
        except OSError:
            continue
        if word.encode() in line and int(directory.name) != os.getpid():
            found.append(int(directory.name))
    return found


def wait_until_gone(word: str, limit: float = 10.0) -> None:
    """Wait until no process has the word in its command line."""
    deadline = time.monotonic() + limit
    while processes_with(word):
        assert time.monotonic() < deadline, f"still there: {processes_with(word)}"
        time.sleep(0.02)


class TestRunner:
    """`run_guest`: status, output, limit, and what host and guest share."""

    @pytest.mark.parametrize(("line", "status"), [("exit 7", 7), ("kill -9 $$", 137)])
    def test_status(self, boot: Boot, line: str, status: int) -> None:
        """The command's exit status is conveyed as it is."""
        run = boot(line)
        assert (run.status, run.exit_status, run.reason) == (status, status, "")

    def test_output_is_exact(self, boot: Boot) -> None:
        """Standard output and standard error arrive apart, complete and byte for byte."""
        run = boot(
            'for i in $(seq 0 255); do printf "\\\\x$(printf %02x $i)"; done; '
            "seq 20000 | tee /dev/stderr | sha256sum > /run/sum; cat /run/sum >&2"
        )
        numbers = "".join(f"{number}\n" for number in range(1, 20001)).encode()
        assert run.output == bytes(range(256))
        assert run.errors == numbers + hashlib.sha256(numbers).hexdigest().encode() + b"  -\n"

    def test_output_streams(self, boot: Boot, tmp_path: Path) -> None:
        """Output is handed on while the command runs: it waits for the reader's answer to its first line."""
        seen = bytearray()

        def answer(chunk: bytes) -> None:
            seen.extend(chunk)
            if b"ready\n" in seen:
                (tmp_path / "go").touch()

        run = boot(
            "echo ready; until [ -e /vmjob/go ]; do sleep 0.05; done; echo done",
            job=tmp_path,
            on_output=answer,
            limit=30,
        )
        assert (run.status, bytes(seen)) == (0, b"ready\ndone\n")

    def test_failing_reader_ends_the_run(self, boot: Boot) -> None:
        """A reader's own error ends the guest at once and is raised to the caller."""

        def refuse(_chunk: bytes) -> None:
            raise ValueError("no more")

        began = time.monotonic()
        with pytest.raises(ValueError, match="no more"):
            boot("echo one; sleep 1000", on_output=refuse)
        assert time.monotonic() - began < 30

    def test_limit(self, boot: Boot, tmp_path: Path, enough: float) -> None:
        """A guest that hangs is ended at the limit: no result, no process; what was said is kept."""
        run = boot("echo begun; sleep 1000", limit=enough, job=tmp_path)
        assert (run.status, run.exit_status, run.reason) == (None, NO_RESULT, f"no end within {enough:g} s")
        assert run.output == b"begun\n"
        assert enough <= run.seconds < enough + 5
        assert processes_with(str(tmp_path)) == []

    def test_guest_that_stops_early(self, boot: Boot) -> None:
        """A machine that goes down without telling a status is no result, whatever QEMU's own status."""
        run = boot("/.vm/busybox poweroff -f; sleep 1000")
        assert run.exit_status == NO_RESULT
        assert run.reason == "QEMU ended with status 0"

    def test_panic(self, boot: Boot) -> None:
        """A kernel that panics ends the run at once, as no result, and the console says why."""
        run = boot("true", GuestConfig(append=("rdinit=/nothing", "root=/dev/none")))
        assert run.exit_status == NO_RESULT
        assert "Kernel panic" in run.console
        assert run.seconds < 30

    def test_host_is_read_only(self, boot: Boot, tmp_path: Path) -> None:
        """The guest writes where it likes, in the checkout too, and the host's files stay as they are."""
        victim = tmp_path / "victim"
        victim.write_text("host", encoding="utf-8")
        new = CHECKOUT / "tests/kernel/written-by-the-guest"
        run = boot(
            f"set -e; echo guest > {victim}; cat {victim}; touch {new}; rm -r /etc; ls -d {new}; "
            "mount -o remount,rw / ; touch /after-remount"
        )
        assert (run.status, run.output) == (0, f"guest\n{new}\n".encode())
        assert victim.read_text(encoding="utf-8") == "host"
        assert Path("/etc").is_dir()
        assert not new.exists()
        assert not Path("/after-remount").exists()

    def test_job_directory(self, boot: Boot, tmp_path: Path) -> None:
        """Files pass both ways through the job directory, and only the command's own stay in it."""
        (tmp_path / "in").write_text("ping", encoding="utf-8")
        run = boot('cat /vmjob/in; echo pong > "$VMJOB/out"', job=tmp_path)
        assert (run.status, run.output) == (0, b"ping")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
        assert (tmp_path / "out").read_text(encoding="utf-8") == "pong\n"

    def test_same_paths(self, boot: Boot) -> None:
        """Current directory, checkout and virtual environment are those of the host."""
        run = boot("pwd; python -c 'import sys, tests.kernel; print(sys.prefix, tests.kernel.__file__)'")
        assert run.text.split() == [str(Path.cwd()), sys.prefix, str(CHECKOUT / "tests/kernel/__init__.py")]

    def test_orphans_are_reaped(self, boot: Boot) -> None:
        """Process 1 reaps what is left to it: an orphan does not stay a zombie."""
        run = boot(
            "(sh -c 'echo $$ > /run/orphan; exec sleep 0.1' &); until [ -s /run/orphan ]; do :; done; "
            "for i in $(seq 100); do [ -e /proc/$(cat /run/orphan) ] || exit 0; sleep 0.1; done; exit 1"
        )
        assert run.status == 0

    def test_cgroups(self, boot: Boot) -> None:
        """Version 2 cgroups are mounted, with the controllers of a container runtime on for children."""
        run = boot("mkdir /sys/fs/cgroup/x; cat /sys/fs/cgroup/x/cgroup.controllers; cat /proc/self/cgroup")
        controllers, own = run.text.splitlines()
        assert {"cpu", "cpuset", "memory", "pids"} <= set(controllers.split())
        assert own == "0::/"


class TestCommand:
    """`python -m tests.kernel.vm` as a user or CI runs it."""

    @staticmethod
    def start(temporary: Path, *arguments: str) -> subprocess.Popen[bytes]:
        """Begin a run whose temporary files go to a new directory."""
        temporary.mkdir()
        return subprocess.Popen(
            [sys.executable, "-m", "tests.kernel.vm", *arguments],
            cwd=CHECKOUT,
            env={**os.environ, "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def test_options(self, image: Image, tmp_path: Path) -> None:
        """Sizes reach the guest, both streams and the status reach the caller, and nothing is left behind."""
        command = self.start(
            tmp_path / "tmp", "-A", "fakerdt.num_rmid=16 fakerdt.num_closid=2",
            "--smp", "4", "--sockets", "2", "--memory", "256", "--", "bash", "-c", MOUNT
            + "cat info/L3_MON/num_rmids info/L3/num_closids; ls mon_data; nproc; echo word >&2; exit 3",
        )  # fmt: skip
        output, errors = command.communicate(timeout=60)
        assert (command.returncode, output.split()) == (3, [b"16", b"2", b"mon_L3_00", b"mon_L3_01", b"4"])
        assert errors.startswith(b"word\n")
        assert b"vm: status 3; " in errors
        assert image.origin.encode() in errors
        assert list((tmp_path / "tmp").iterdir()) == []

    def test_limit(self, image: Image, tmp_path: Path, enough: float) -> None:
        """At the limit the status is 125, and the console tells how far the guest came."""
        command = self.start(tmp_path / "tmp", "--timeout", str(enough), "--", "sleep", "1000")
        _, errors = command.communicate(timeout=60)
        assert command.returncode == NO_RESULT
        assert b"vm: no result: no end within" in errors
        assert b"vm: job starts at" in errors
        assert list((tmp_path / "tmp").iterdir()) == []

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
    def test_killed_runner_takes_qemu_along(self, image: Image, tmp_path: Path, number: int) -> None:
        """However the runner is ended, its QEMU ends too; unless it was SIGKILL, no file stays either."""
        temporary = tmp_path / "tmp"
        command = self.start(temporary, "--", "echo up; sleep 1000")
        assert command.stdout is not None
        assert command.stdout.readline() == b"up\n"
        # The runner, and QEMU, whose job directory lies in the runner's temporary directory.
        assert len(processes_with(f"{temporary}/")) == 1
        command.send_signal(number)
        command.communicate(timeout=20)
        wait_until_gone(f"{temporary}/")
        assert command.returncode != 0
        if number != signal.SIGKILL:
            assert list(temporary.iterdir()) == []

    def test_closed_output(self, image: Image, tmp_path: Path) -> None:
        """A reader that goes away ends the guest: `... | head -1` does not wait for the limit."""
        command = self.start(tmp_path / "tmp", "--timeout", "100", "--", "yes; sleep 1000")
        assert command.stdout is not None
        command.stdout.read(2)
        command.stdout.close()
        assert command.wait(timeout=50) == NO_RESULT
        wait_until_gone(f"{tmp_path}/")
        assert command.stderr is not None
        command.stderr.close()


class TestMachines:
    """Each knob of `GuestConfig`."""

    @pytest.mark.parametrize(
        ("guest", "features"),
        [
            (GuestConfig(), ["llc_occupancy", "mbm_total_bytes", "mbm_local_bytes"]),
            (
                GuestConfig(
                    num_rmids=12, num_closids=6, cbm_len=20, mba=False, sockets=2, memory_mib=256,
                    llc_occupancy=False,
                ),
                ["mbm_total_bytes", "mbm_local_bytes"],
            ),
            (GuestConfig(cpus=4, sockets=4, mbm_total=False), ["llc_occupancy", "mbm_local_bytes"]),
            (GuestConfig(num_closids=2, cpus=1, mbm_local=False, mbm_total=False), ["llc_occupancy"]),
        ],
        ids=["as-it-is", "other-sizes", "four-processors", "one-processor"],
    )  # fmt: skip
    def test_sizes(self, boot: Boot, guest: GuestConfig, features: list[str]) -> None:
        """Each size is as configured, each socket an L3 domain in every group, and full is ENOSPC.

        One CLOSID and one RMID are the default group's, and a control group takes one of each.
        """
        run = boot(
            MOUNT + FILL + "grep MemTotal /proc/meminfo; mkdir c; "
            "cat info/L3_MON/num_rmids info/L3/num_closids info/L3/cbm_mask; nproc; "
            "echo $(ls info); echo $(cat info/L3_MON/mon_features); echo $(ls mon_data/mon_L3_00); "
            "echo $(ls c/mon_data); sed 's/^ *//' c/schemata; "
            "fill d; fill mon_groups/g; cat info/last_cmd_status",
            guest,
        )
        domains = range(guest.sockets)
        mask = f"{(1 << guest.cbm_len) - 1:x}"
        memory, *said = run.text.splitlines()
        rates = [f"MB:{';'.join(f'{each}=100' for each in domains)}"] if guest.mba else []
        assert said == [
            str(guest.num_rmids), str(guest.num_closids), mask, str(guest.cpus),
            "L3 L3_MON MB last_cmd_status" if guest.mba else "L3 L3_MON last_cmd_status",
            " ".join(features), " ".join(sorted(features)), " ".join(f"mon_L3_{each:02}" for each in domains),
            *rates, f"L3:{';'.join(f'{each}={mask}' for each in domains)}",
            f"{guest.num_closids - 2} No space left on device",
            f"{guest.num_rmids - guest.num_closids} No space left on device",
            "Out of CLOSIDs", "Out of RMIDs",
        ]  # fmt: skip
        (kib,) = re.findall(r"\d+", memory)
        assert guest.memory_mib - 60 < int(kib) / 1024 <= guest.memory_mib

    @pytest.mark.parametrize(
        ("fault", "words"), [(CounterFault.UNAVAILABLE, "Unavailable"), (CounterFault.ERROR, "Error")]
    )
    def test_counter_faults(self, boot: Boot, fault: CounterFault, words: str) -> None:
        """Counters read as the hardware's refusal from boot on; the fault can be turned off while running."""
        read = "cat mon_data/mon_L3_00/*; "
        run = boot(MOUNT + f"{read} echo 0 > {MODEL_PARAMETERS}/fail; {read}", GuestConfig(counters=fault))
        before, after = run.text.split()[:3], run.text.split()[3:]
        assert before == [words] * 3
        assert [value for value in after if value.isdigit()] == after
        assert len(after) == 3

    def test_no_limbo_without_occupancy(self, boot: Boot) -> None:
        """Without llc_occupancy a freed RMID is free at once."""
        run = boot(
            MOUNT + FILL + "fill mon_groups/g; rmdir mon_groups/g0; mkdir mon_groups/again; echo made",
            GuestConfig(llc_occupancy=False),
        )
        assert run.text.splitlines()[-1] == "made"

    def test_endless_limbo(self, boot: Boot) -> None:
        """With endless limbo a freed RMID stays away, mkdir is EBUSY, until the knob is turned back."""
        run = boot(
            MOUNT + FILL + "fill mon_groups/g; rmdir mon_groups/g0; end=$(($(date +%s) + 4)); "
            "while [ $(date +%s) -lt $end ]; do fill mon_groups/h; sleep 0.2; done | uniq; "
            f"echo 0 > {MODEL_PARAMETERS}/stuck; "
            "until mkdir mon_groups/h 2>/dev/null; do sleep 0.1; done; echo back",
            GuestConfig(endless_limbo=True),
        )
        assert run.text.splitlines() == ["7 No space left on device", "0 Device or resource busy", "back"]

    @pytest.mark.parametrize(("decay_ms", "sunk"), [(1, True), (600_000, False)])
    def test_decay(self, boot: Boot, decay_ms: int, sunk: bool) -> None:
        """A group's occupancy sinks in the configured time after its last run."""
        run = boot(
            MOUNT + "mkdir mon_groups/g; (echo 0 > mon_groups/g/tasks; for i in $(seq 20000); do :; done); "
            "sleep 0.5; cat mon_groups/g/mon_data/mon_L3_00/{llc_occupancy,mbm_total_bytes}",
            GuestConfig(decay_ms=decay_ms),
        )
        assert run.status == 0, (run.reason, run.errors, run.console[-1000:])
        occupancy, traffic = map(int, run.text.split())
        assert traffic > 0, "the group ran"
        assert (occupancy == 0) is sunk

    def test_without_rdt(self, boot: Boot) -> None:
        """A processor without RDT: no resctrl in /proc/filesystems, no directory, and mounting fails."""
        run = boot(
            "grep -c resctrl /proc/filesystems; ls -d /sys/fs/resctrl; "
            "mount -t resctrl resctrl /sys/fs/resctrl",
            GuestConfig.without_rdt(),
        )
        assert (run.status, run.output) == (32, b"0\n")
        assert run.errors.count(b"/sys/fs/resctrl") == 2

    def test_monitoring_only(self, boot: Boot) -> None:
        """A machine that only counts: monitoring groups are made, control groups are EPERM."""
        run = boot(MOUNT + FILL + "fill c; fill mon_groups/g; ls -1 info", GuestConfig.monitoring_only())
        assert run.text.splitlines() == [
            "0 Operation not permitted", "7 No space left on device", "L3_MON", "last_cmd_status",
        ]  # fmt: skip

    def test_allocation_only(self, boot: Boot) -> None:
        """A machine that only allocates: control groups are made, and nothing of monitoring is there."""
        run = boot(
            MOUNT + FILL + "fill c; ls -d mon* c0/mon* info/*MON || :; ls -1 info",
            GuestConfig.allocation_only(),
        )
        assert run.text.splitlines() == ["3 No space left on device", "L3", "MB", "last_cmd_status"]

    def test_appended_words_win(self, boot: Boot) -> None:
        """Words of the caller come last on the kernel command line, so they override the configured ones."""
        run = boot(MOUNT + "cat info/L3_MON/num_rmids", GuestConfig(append=("fakerdt.num_rmid=5",)))
        assert run.text == "5\n"

    def test_groups_are_counted_by_the_scheduler(self, boot: Boot) -> None:
        """The model follows the scheduler: a group that runs counts traffic, one that sleeps hardly any."""
        run = boot(
            MOUNT + "mkdir mon_groups/{busy,idle}; "
            "sleep 1000 & until grep -q '(sleep) S' /proc/$!/stat; do :; done; "
            "echo $! > mon_groups/idle/tasks; "
            "(echo 0 > mon_groups/busy/tasks; cat /proc/self/cpu_resctrl_groups; "
            "for i in $(seq 50000); do :; done); "
            "cat mon_groups/{busy,idle}/mon_data/mon_L3_00/mbm_total_bytes"
        )
        *groups, busy, idle = run.text.split()
        assert groups == ["res:/", "mon:busy"]
        assert int(busy) > 50_000_000
        assert int(idle) < int(busy) / 10


@pytest.mark.timeout(300)
class TestProbe:
    """`python -m tests.kernel.probe`, which runs pytest inside the guest."""

    def test_pytest_in_the_guest(self, boot: Boot, tmp_path: Path) -> None:
        """A pytest run finds resctrl mounted; its status, output and report come back; no file is left."""
        tests = tmp_path / "suite"
        tests.mkdir()
        (tests / "test_inside.py").write_text(
            "import os, tempfile\n"
            "def test_mounted(tmp_path):\n"
            "    os.mkdir('/sys/fs/resctrl/mon_groups/g')\n"
            "    assert str(tmp_path).startswith('/run/tmp/')\n"
            "def test_red():\n    assert os.path.exists('/sys/fs/resctrl/mon_groups/absent')\n",
            encoding="utf-8",
        )
        job = tmp_path / "job"
        job.mkdir()
        assert probe.main(["--compile", str(tests)]) == 0
        shutil.rmtree(tests / "__pycache__")
        run = boot(f"{PROBE} {tests}", job=job, limit=240)
        assert run.status == 1, run.text + run.errors.decode()
        assert "1 failed, 1 passed" in run.text
        suite = ET.parse(job / "junit.xml").getroot().find("testsuite")  # noqa: S314 - our own report
        assert suite is not None
        assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
        assert [path.name for path in tests.iterdir()] == ["test_inside.py"]
        assert b"resctrl mounted at /sys/fs/resctrl" in run.errors
