"""Runs one command in a fresh guest: `python -m tests.kernel.vm -- 'cat /proc/filesystems'`.

Owns: a guest from start to end: the job directory, the output, the limit, the exit status. Must not know:
what the command is for. Standard library only.

Rules:
    1. A run always ends: at its limit the whole process group is killed. A killed runner takes QEMU with it.
    2. A status is the command's own, told by the guest through the job directory. Everything else (limit,
       panic, QEMU's refusal) is "no result", exit status 125, with the reason: it is never taken for a pass.
    3. Output is handed on as it comes.
    4. Nothing is left behind but what the command wrote into a job directory that the caller gave.
    5. The guest has the host's tree, read-only, at the same paths: checkout, virtual environment, programs.
       What it writes elsewhere than /vmjob goes to its own memory and is gone with it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from tests.kernel.errors import KernelLaneError
from tests.kernel.guest import GuestConfig
from tests.kernel.image import Image, find_image, initramfs
from tests.kernel.qemu import Wiring, command_line, find_qemu, install_qemu

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["NO_RESULT", "GuestRun", "kernel_lane_missing", "main", "run_guest"]

NO_RESULT: Final = 125
"""Exit status of a run that has none: the same meaning as with env(1) and timeout(1)."""
JOB: Final = "/vmjob"
"""In the guest: the job directory."""
_CHUNK: Final = 65536
_LAST_WORDS: Final = 5.0
"""Seconds that the caller's sinks have after the guest's end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestRun:
    """What came of a run.

    Attributes:
        status: The command's exit status, or None where there is no result.
        reason: Why there is no result; empty where there is one.
        output: The command's standard output.
        errors: The command's standard error.
        console: The guest's console: kernel messages and the marks of start and end.
        seconds: Wall time from QEMU's start to its end.
        image: The image that was booted.
    """

    status: int | None
    reason: str
    output: bytes
    errors: bytes
    console: str
    seconds: float
    image: Image

    @property
    def exit_status(self) -> int:
        """The command's exit status, or 125 where there is no result."""
        return NO_RESULT if self.status is None else self.status

    @property
    def text(self) -> str:
        """The command's standard output as text."""
        return self.output.decode("utf-8", "replace")


def kernel_lane_missing() -> str | None:
    """Return why this machine cannot boot a guest now, in one sentence, or None where it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"the guest runs the host's programs, which must be Linux x86_64, not {platform.machine()}"
    try:
        find_qemu()
        find_image()
    except KernelLaneError as error:
        return str(error)
    return None


def guest_environment() -> dict[str, str]:
    """Return a command's environment in the guest: this Python first in PATH, temporary files in memory."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    variables = {
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PATH": f"{Path(sys.executable).parent}:{path}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TERM": "dumb",
        "TMPDIR": "/run/tmp",
        "VMJOB": JOB,
    }
    if sys.prefix != sys.base_prefix:
        variables["VIRTUAL_ENV"] = sys.prefix
    return variables


def job_script(command: Sequence[str], cwd: Path, environ: Mapping[str, str]) -> str:
    """Return the script that the guest runs.

    One word is a line for bash, several are a program and its arguments.
    """
    if not command:
        raise ValueError("no command")
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(environ.items())]
    lines.append(f"cd {shlex.quote(str(cwd))} || exit 126")
    lines.append(command[0] if len(command) == 1 else "exec " + shlex.join(command))
    return "\n".join(lines) + "\n"


@dataclass(slots=True)
class _Pump:
    """Reads one of the guest's streams to its end, keeps it and hands it on."""

    source: int
    sink: Callable[[bytes], object] | None
    kept: bytearray = field(default_factory=bytearray)
    failure: Exception | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        with open(self.source, "rb", buffering=0) as stream:  # noqa: PTH123 - a descriptor, not a path
            while chunk := stream.read(_CHUNK):
                self.kept += chunk
                if self.sink is not None and self.failure is None:
                    try:
                        self.sink(chunk)
                    except Exception as error:  # noqa: BLE001 - the reader's own error, raised by the runner
                        self.failure = error


def _with_parent(argv: list[str]) -> list[str]:
    """Let the kernel kill the program when its parent is gone, however that came."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise KernelLaneError("setpriv is not installed; it is in Debian's package util-linux")
    return [setpriv, "--pdeathsig", "KILL", "--", *argv]


def _wait(process: subprocess.Popen[bytes], pumps: Sequence[_Pump], limit: float) -> bool:
    """Wait for the end of the process, at most until the limit; tell whether it ended by itself."""
    deadline = time.monotonic() + limit
    while True:
        rest = deadline - time.monotonic()
        if rest <= 0:
            return False
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Short waits: a reader that failed must not have to wait for the limit.
            process.wait(min(rest, 0.2))
            return True
        for pump in pumps:
            if pump.failure is not None:
                raise pump.failure


def _kill(process: subprocess.Popen[bytes]) -> None:
    # Once it was waited for, its number may be another group's. QEMU starts no further process.
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def _pipes(number: int) -> Iterator[list[tuple[int, int]]]:
    """Yield pipes. In the end we keep the reading ends alone; where the body fails, none."""
    with contextlib.ExitStack() as reading, contextlib.ExitStack() as writing:
        ends = []
        for _ in range(number):
            end = os.pipe()
            reading.callback(os.close, end[0])
            writing.callback(os.close, end[1])
            ends.append(end)
        yield ends
        reading.pop_all()


def _status(job: Path) -> int | None:
    try:
        return int((job / "rc").read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return None


def run_guest(
    command: Sequence[str],
    guest: GuestConfig | None = None,
    *,
    limit: float = 120.0,
    job: Path | None = None,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
    image: Image | None = None,
    on_output: Callable[[bytes], object] | None = None,
    on_errors: Callable[[bytes], object] | None = None,
    kvm: bool = False,
) -> GuestRun:
    """Boot a guest, run one command in it, and wait for its end.

    Args:
        command: A program and its arguments, or one word: a line for bash.
        guest: The machine; the default one where None.
        limit: Wall seconds for everything, boot included.
        job: A directory that is /vmjob in the guest, for files in both directions; a temporary one if None.
        cwd: Where the command runs; the current directory where None.
        environ: Added to the command's environment.
        image: What to boot; `find_image()` where None.
        on_output: Called with each piece of standard output as it comes, from another thread.
        on_errors: Likewise for standard error.
        kvm: Use the host's processor instead of emulation. Untested.

    Returns:
        What came of it; look at `status` first.

    Raises:
        KernelLaneError: The lane cannot run here (QEMU or image missing).
    """
    guest = guest or GuestConfig()
    image = image or find_image()
    program = find_qemu()
    with tempfile.TemporaryDirectory(prefix="resctrl-guest-") as private:
        directory = job.resolve() if job is not None else Path(private, "job")
        directory.mkdir(exist_ok=True)
        (directory / "rc").unlink(missing_ok=True)
        script = job_script(command, cwd or Path.cwd(), {**guest_environment(), **(environ or {})})
        (directory / "cmd").write_text(script, encoding="utf-8")
        console, complaints = Path(private, "console"), Path(private, "qemu")
        with _pipes(2) as ends, complaints.open("wb") as sink:
            wiring = Wiring(
                bzimage=image.bzimage,
                initramfs=initramfs(image),
                job=directory,
                console=console,
                output=ends[0][1],
                errors=ends[1][1],
            )
            began = time.monotonic()
            process = subprocess.Popen(
                _with_parent(command_line(program, guest, wiring, kvm=kvm)),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                pass_fds=(wiring.output, wiring.errors),
                start_new_session=True,
            )
        pumps = [_Pump(ends[0][0], on_output), _Pump(ends[1][0], on_errors)]
        try:
            ended = _wait(process, pumps, limit)
        finally:
            _kill(process)
            for pump in pumps:
                # A sink that blocks must not keep the run from ending; what was read until then counts.
                pump.thread.join(_LAST_WORDS)
            status = _status(directory)
            for name in ("cmd", "rc"):
                (directory / name).unlink(missing_ok=True)
        for pump in pumps:
            if pump.failure is not None:
                raise pump.failure
        seconds = time.monotonic() - began
        reason = ""
        if status is None:
            said = complaints.read_text(encoding="utf-8", errors="replace").strip()
            how = f"QEMU ended with status {process.returncode}" if ended else f"no end within {limit:g} s"
            reason = f"{how}; {said}" if said else how
        return GuestRun(
            status=status,
            reason=reason,
            output=bytes(pumps[0].kept),
            errors=bytes(pumps[1].kept),
            console=console.read_text(encoding="utf-8", errors="replace") if console.exists() else "",
            seconds=seconds,
            image=image,
        )


def _forward(descriptor: int) -> Callable[[bytes], object]:
    """Return a sink that writes to a descriptor, without a buffer whose lock could outlive the run."""

    def write(chunk: bytes) -> None:
        while chunk:
            chunk = chunk[os.write(descriptor, chunk) :]

    return write


def _leave(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.kernel.vm",
        description="Run one command in a fresh guest with the kernel's own resctrl. The exit status is the "
        f"command's; {NO_RESULT} means that there is no result.",
    )
    parser.add_argument(
        "-A", "--append", default="", help="words for the kernel command line: 'fakerdt.num_rmid=16 rdt=!cmt'"
    )
    parser.add_argument("--smp", type=int, default=2, help="virtual processors (default: 2)")
    parser.add_argument(
        "--sockets", type=int, default=1, help="processor packages, each an L3 domain (default: 1)"
    )
    parser.add_argument("--memory", type=int, default=512, help="MiB (default: 512)")
    parser.add_argument(
        "--timeout", type=float, default=120.0, help="wall seconds for everything (default: 120)"
    )
    parser.add_argument("--job", type=Path, help=f"directory to share as {JOB}, writable")
    parser.add_argument("--kvm", action="store_true", help="use KVM instead of emulation (UNTESTED)")
    parser.add_argument(
        "--install", action="store_true", help="install QEMU with apt if missing (needs root)"
    )
    parser.add_argument("--verbose", action="store_true", help="print the guest's console at the end")
    parser.add_argument("command", nargs="+", help="a line for bash, or a program and its arguments")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command in a guest. Return its exit status, or 125."""
    parser = _parser()
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    try:
        guest = GuestConfig(
            cpus=options.smp,
            sockets=options.sockets,
            memory_mib=options.memory,
            append=tuple(options.append.split()),
        )
    except ValueError as error:
        parser.error(str(error))
    if options.kvm:
        sys.stderr.write("vm: KVM is untested\n")
    try:
        if options.install:
            install_qemu()
        run = run_guest(
            options.command,
            guest,
            limit=options.timeout,
            job=options.job,
            kvm=options.kvm,
            on_output=_forward(1),
            on_errors=_forward(2),
        )
    except (KernelLaneError, OSError) as error:
        sys.stderr.write(f"vm: {error}\n")
        return NO_RESULT
    if options.verbose or run.status is None:
        sys.stderr.write(run.console)
    result = f"no result: {run.reason}" if run.status is None else f"status {run.status}"
    sys.stderr.write(f"vm: {result}; {run.seconds:.1f} s; Linux {run.image.release}, {run.image.origin}\n")
    return run.exit_status


if __name__ == "__main__":
    sys.exit(main())
