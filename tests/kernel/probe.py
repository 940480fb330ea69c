"""Runs pytest inside the guest: `python -m tests.kernel.vm --job DIR -- python -m tests.kernel.probe PATH`.

Owns: what a pytest run needs in the guest: resctrl mounted, cgroup v2 there, files in memory, the report in
the job directory. Must not know: what is tested. Standard library only.

Rules:
    1. It refuses to run anywhere but in the guest: it mounts resctrl, and a host's is not ours to touch.
    2. What pytest leaves goes to memory, except the report and Hypothesis' examples: those go to the job
       directory, because they are wanted after the guest is gone.
    3. The exit status is pytest's.

On the host, before: `python -m tests.kernel.probe --compile PATH` collects the tests once and so leaves every
module compiled the way pytest wants it (with its own assertions). In the guest that costs 20 seconds a boot.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.kernel.guest import MODEL_PARAMETERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["CANNOT_RUN", "main", "obstacle", "prepared_environment", "pytest_command"]

CANNOT_RUN: Final = 4
"""Exit status when pytest was not begun: pytest's own for wrong usage."""
_RESCTRL: Final = "/sys/fs/resctrl"
_JOB: Final = "/vmjob"
_TIMEOUT: Final = 600
"""Seconds for one test: emulated, Python is 20 to 25 times slower than the project's limit is made for."""


def obstacle(root: Path = Path("/")) -> str | None:
    """Return why pytest cannot be run here, or None.

    Args:
        root: Where the file system begins; for tests.
    """
    if not (root / MODEL_PARAMETERS.lstrip("/")).is_dir():
        return "this is not the guest: the kernel has no software RDT model"
    if not (root / "sys/fs/cgroup/cgroup.controllers").is_file():
        return "cgroup v2 is not mounted at /sys/fs/cgroup"
    if not (root / _JOB.lstrip("/")).is_dir():
        return f"there is no job directory {_JOB}"
    return None


def prepared_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return pytest's environment."""
    return {
        **environ,
        "HYPOTHESIS_STORAGE_DIRECTORY": f"{_JOB}/hypothesis",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": "/run/tmp",
    }


def pytest_command(arguments: Sequence[str], junit: str) -> list[str]:
    """Return the command; what the caller says comes last and wins."""
    return [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-o",
        f"timeout={_TIMEOUT}",
        f"--junit-xml={_JOB}/{junit}",
        *arguments,
    ]


def _compile(arguments: Sequence[str]) -> int:
    """Collect the tests with writing of bytecode on; return pytest's status, after its words if not 0."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--collect-only", *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)
    return done.returncode


def _is_mounted() -> bool:
    """Tell whether resctrl is mounted where it belongs, by what mountinfo says."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[4] == _RESCTRL and after.split()[0] == "resctrl":
            return True
    return False


def _mount() -> str:
    """Mount resctrl unless that is done; return what was found, for the log."""
    if "\tresctrl\n" not in Path("/proc/filesystems").read_text(encoding="utf-8"):
        return "this machine has no RDT, nothing to mount"
    if _is_mounted():
        return "resctrl was mounted"
    subprocess.run(["mount", "-t", "resctrl", "resctrl", _RESCTRL], check=True)
    return f"resctrl mounted at {_RESCTRL}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run pytest in the guest; what is no option of this script goes to pytest. Return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernel.probe", description=main.__doc__)
    parser.add_argument(
        "--compile", action="store_true", help="on the host: compile for the guest, run nothing"
    )
    parser.add_argument("--unmounted", action="store_true", help="leave mounting resctrl to the tests")
    parser.add_argument("--junit", default="junit.xml", help=f"name of the report in {_JOB}")
    options, rest = parser.parse_known_args(arguments)
    if options.compile:
        return _compile(rest)
    why = obstacle()
    if why is not None:
        sys.stderr.write(f"probe: {why}\n")
        return CANNOT_RUN
    state = "resctrl is left unmounted" if options.unmounted else _mount()
    sys.stderr.write(f"probe: Linux {os.uname().release}, {os.cpu_count()} processors, {state}\n")
    sys.stderr.flush()
    return subprocess.run(
        pytest_command(rest, options.junit), env=prepared_environment(os.environ), check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
