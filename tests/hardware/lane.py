"""Runs the hardware lane on this machine: `python -m tests.hardware.lane --artifacts DIR --prefix P_`.

Owns: the order of the steps, and that the machine is left as it was found. Must not know: what a scenario
claims. It runs on a rack with RDT and, unchanged, in the guest with the software model.

Rules:
    1. A machine that cannot run the lane is a failure here, with its reason in the summary: whoever starts
       the lane has asked the probe before.
    2. Every group of this run begins with the prefix, and nobody else's may. In the end they are removed,
       whatever happened; nothing else is. resctrl is unmounted only if the lane mounted it and no group of
       anybody is left.
    3. Each step is a pytest of its own and must have run: it is called with `--require`. A failed step does
       not keep the next from running.
    4. Artifacts are written whatever happened: reports, the resctrl tree and last_cmd_status before and after
       the removal, dmesg, the plugin's logs and events, and summary.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from attrs import field, frozen

from resctrl import Resctrl, ResctrlConfig
from tests.e2e.packages import PackageStore, Unobtainable, default_cache
from tests.e2e.sweep import sweep_abandoned
from tests.hardware import probe
from tests.hardware.evidence import gather
from tests.hardware.results import Step, read_cases, summary
from tests.node.site import SITE_FILE, NodeSite
from tests.worlds import RUN_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["STEPS", "Lane", "main"]

ROOT: Final = Path("/sys/fs/resctrl")
STEPS: Final = ("scenarios", "node")
CHECKOUT: Final = Path(__file__).resolve().parents[2]
_PREFIX: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{2,40}_")
"""What a prefix looks like: long enough to be nobody else's, and the end of a word."""
_ENDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""A keyboard, a cancelled job, a lost connection: each ends in the teardown."""
_TEST_SECONDS: Final = 900
"""For one test: emulated, Python is 20 to 25 times slower than the project's limit is made for."""


@frozen
class Lane:
    """One run.

    Attributes:
        artifacts: Where everything is left.
        prefix: Begins the name of each group of this run.
        steps: What is run.
        node_tests: The node scenarios to run, as pytest names them; all if empty.
        root: Where resctrl is, or will be, mounted.
        remarks: What the summary says besides.
    """

    artifacts: Path
    prefix: str
    steps: Sequence[str] = STEPS
    node_tests: Sequence[str] = ()
    root: Path = ROOT
    remarks: list[str] = field(factory=list)

    def run(self) -> int:
        """Run it all. Return 0 only if every step ran and nothing failed."""
        began = time.monotonic()
        self.artifacts.mkdir(parents=True, exist_ok=True)
        self.remarks.append(f"Linux {os.uname().release}, Python {platform.python_version()}")
        steps: list[Step] = []
        problem: str | None = "interrupted"  # until the end is reached, whichever way it is left
        try:
            obstacle = self._obstacle()
            if obstacle is None:
                with self._left_as_found() as directory:
                    steps.extend(self._step(name, directory) for name in self.steps)
                problem = self._leftovers()
            else:
                problem = obstacle
        except Unobtainable as missing:
            problem = str(missing)
        except Exception as error:  # noqa: BLE001 - whatever it is, the summary must tell it
            problem = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        finally:
            good = problem is None and len(steps) > 0 and all(step.passed for step in steps)
            self._tell(steps, problem, good=good, seconds=time.monotonic() - began)
        return 0 if good else 1

    def _tell(self, steps: Sequence[Step], problem: str | None, *, good: bool, seconds: float) -> None:
        remarks = [*([f"**{problem}**"] if problem is not None else []), *self.remarks]
        remarks.append(f"{seconds:.0f} s, prefix `{self.prefix}`")
        page = summary(f"Hardware lane: {'passed' if good else 'FAILED'}", steps, remarks)
        (self.artifacts / "summary.md").write_text(page, encoding="utf-8")
        _say(page)

    # --- the steps ---

    def _step(self, name: str, directory: Path) -> Step:
        if name == "scenarios":
            scenarios = ["tests/scenarios", "--world=hardware", "--require=hardware"]
            return self._pytest(name, scenarios, {RUN_PREFIX: self.prefix})
        with PackageStore(default_cache()) as store:
            site = NodeSite(tools=store.tools(), run=self.prefix, resctrl_root=self.root, directory=directory)
        file = directory / "site.json"
        site.save(file)
        self.remarks.append(
            f"containerd {'.'.join(str(it) for it in site.tools.containerd_version)} ({site.tools.origin})"
        )
        # A part of the lane is never the whole that `--require` asks for.
        chosen = self.node_tests or ["tests/node", "--require=node"]
        return self._pytest(name, chosen, {SITE_FILE: str(file)})

    def _pytest(self, name: str, arguments: Sequence[str], environ: Mapping[str, str]) -> Step:
        """Run pytest; its output is shown as it comes and kept."""
        junit = self.artifacts / f"{name}.xml"
        junit.unlink(missing_ok=True)
        command = [
            *(sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider"),
            *("-o", "console_output_style=times", "-o", f"timeout={_TEST_SECONDS}"),
            *(f"--junit-xml={junit}", *arguments),
        ]
        _say(f"lane: {name}: {' '.join(arguments)}\n")
        process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environ},  # who waits sees how far it is
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        try:
            with (self.artifacts / f"{name}.log").open("wb", buffering=0) as log:
                for line in process.stdout:
                    log.write(line)
                    sys.stdout.buffer.write(line)
                    sys.stdout.flush()
            status = process.wait()
        finally:
            if process.poll() is None:
                # Interrupted: pytest gets the time to end what it started.
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(60.0)
                process.kill()
                process.wait()
        return Step(name=name, status=status, cases=read_cases(junit))

    # --- the machine ---

    @contextlib.contextmanager
    def _left_as_found(self) -> Iterator[Path]:
        """Mount resctrl if need be, give a directory, and undo in the end all that the run did."""
        mounted_here = self._mount()
        try:
            with contextlib.ExitStack() as undo:  # the last first, each whatever came of those before
                directory = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="resctrl-lane-")))
                undo.callback(gather, self.root, directory, self.artifacts, "after-removal")
                undo.callback(self._remove_groups)
                undo.callback(sweep_abandoned)
                undo.callback(gather, self.root, directory, self.artifacts, "before-removal")
                yield directory
        finally:
            if mounted_here:
                self._unmount()

    def _mount(self) -> bool:
        """Let the library mount resctrl where nobody has, and look at what came of it."""
        if probe.resctrl_mount() is not None:
            self.remarks.append("resctrl was mounted and stays so")
            return False
        Resctrl(ResctrlConfig(root=self.root, group_prefix=self.prefix)).ensure_mounted(auto_mount=True)
        if probe.resctrl_mount() != self.root:
            raise RuntimeError(f"the library says that it mounted {self.root}; mountinfo does not")
        self.remarks.append("resctrl was not mounted: the library mounted it")
        return True

    def _unmount(self) -> None:
        others = [path for directory in self._directories() for path in _groups_in(directory)]
        if others:  # somebody came to use the mount: it would take their groups away
            self.remarks.append(f"resctrl stays mounted: {others[0]} is there")
            return
        subprocess.run(["umount", self.root], check=True, timeout=60)
        self.remarks.append("the lane unmounted it again")

    def _obstacle(self) -> str | None:
        """Return why nothing can be run."""
        mount = probe.resctrl_mount()
        if mount not in {None, self.root}:
            return (
                f"resctrl is mounted at {mount}, but can be only once, and the lane needs it at {self.root}"
            )
        found = self._groups()
        taken = f"the prefix {self.prefix} is taken: {found[0]} is there" if found else None
        return probe.obstacle() or taken

    def _leftovers(self) -> str | None:
        left = [str(path) for path in self._groups()]
        return f"groups of this run are left: {', '.join(left)}" if left else None

    def _remove_groups(self) -> None:
        found = self._groups()
        for path in found:
            with contextlib.suppress(OSError):  # what is left is told by `_leftovers`
                path.rmdir()
        self.remarks.append(f"{len(found)} groups of this run were left to the teardown")

    def _groups(self) -> list[Path]:
        """Return the groups of this run, wherever they stand; those below a control group come before it."""
        return [it for at in self._directories() for it in _groups_in(at) if it.name.startswith(self.prefix)]

    def _directories(self) -> list[Path]:
        below = [path / "mon_groups" for path in _groups_in(self.root)]
        return [*below, self.root / "mon_groups", self.root]


def _groups_in(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    own = {"info", "mon_data", "mon_groups"}
    return sorted(it for it in directory.iterdir() if it.is_dir() and it.name not in own)


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _leave(number: int, _frame: object) -> NoReturn:
    for other in _ENDS:  # whoever asks again does not cut the teardown short
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def _prefix(text: str) -> str:
    if not _PREFIX.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not 3 to 41 letters, digits or dashes, and a _")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the lane. Return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.hardware.lane", description=main.__doc__)
    parser.add_argument("--artifacts", type=Path, required=True, help="directory for everything that is left")
    parser.add_argument(
        "--prefix", type=_prefix, required=True, help="begins each group's name; unique to the run, ends in _"
    )
    parser.add_argument("--step", choices=STEPS, action="append", help="run only this; may be repeated")
    parser.add_argument(
        "--node-test", action="append", default=[], metavar="ID", help="run only this node scenario"
    )
    options = parser.parse_args(arguments)
    for number in _ENDS:
        signal.signal(number, _leave)
    return Lane(options.artifacts.absolute(), options.prefix, options.step or STEPS, options.node_test).run()


if __name__ == "__main__":
    sys.exit(main())
