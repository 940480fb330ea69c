"""Every check of this project, by name: `nox` runs the default ones, `nox -l` lists them all.

Default: lint, typing, tests, docs. On demand: searches; the lanes e2e_containerd, e2e_kernel, e2e_node,
e2e_hardware; demo, proto, build, single_file. What follows `--` goes to pytest (for e2e_hardware: to the
lane's script). Without it a lane's session demands the whole lane (`--require=NAME`): who asks for it gets it
run, or red.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "typing", "tests", "docs"]
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = False

PROJECT = nox.project.load_toml("pyproject.toml")
OLDEST, NEWEST = 11, 20
PURE_MODULES = (
    "resctrl/errors.py",
    "nri_resctrl_plugin/pods*.py",
    "nri_resctrl_plugin/nri/mux.py",
    "nri_resctrl_plugin/nri/ttrpc.py",
    "nri_resctrl_plugin/nri/envelope.py",
    "nri_resctrl_plugin/nri/wire.py",
)

SEARCHES = "tests/stateful"
"""The state machines, and the sweeps of every mutant and every fault."""

WORKERS = str(2 * len(os.sched_getaffinity(0)))
"""Processes that run tests side by side: many a test waits, for a child or for a clock."""


def _runs(program: str) -> bool:
    """Tell whether an interpreter starts: a version manager's shim can be on PATH and refuse to."""
    try:
        return (
            subprocess.run([program, "-c", ""], capture_output=True, check=False, timeout=20).returncode == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def _interpreters() -> list[str]:
    """Return the versions from 3.11 on that this machine can start, oldest first."""
    found = []
    for minor in range(OLDEST, NEWEST):
        name = f"python3.{minor}"
        on_path = shutil.which(name)
        if on_path is not None and _runs(on_path):
            found.append(f"3.{minor}")
            continue
        for candidate in sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/{name}")):
            if _runs(str(candidate)):
                os.environ["PATH"] = f"{candidate.parent}{os.pathsep}{os.environ['PATH']}"
                found.append(f"3.{minor}")
                break
    return found


PYTHONS = _interpreters() or ["3.11"]


def _group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, name))


def _run_lane(session: nox.Session, name: str, directory: str) -> None:
    """Run the tests of a lane: all of them, or else it fails, unless arguments say otherwise."""
    session.run("pytest", directory, *(session.posargs or [f"--require={name}"]))


@nox.session
def lint(session: nox.Session) -> None:
    """Check format, style and the direction of imports."""
    session.install("-e", ".[nri,metrics]", *_group("lint"))
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("lint-imports", "--no-cache")


@nox.session
def typing(session: nox.Session) -> None:
    """Check types: mypy strict on packages and tests, and every public name typed."""
    session.install("-e", ".[nri,metrics]", *_group("typing"))
    session.run("mypy", "-p", "resctrl", "-p", "nri_resctrl_plugin")
    session.run("mypy", "tests", "noxfile.py", "benchmarks", "docs")
    for package in ("resctrl", "nri_resctrl_plugin"):
        report = session.run(
            "pyright", "--outputjson", "--ignoreexternal", "--verifytypes", package,
            silent=True, success_codes=[0, 1],
        )  # fmt: skip
        _require_complete_types(session, package, str(report))


def _require_complete_types(session: nox.Session, package: str, report: str) -> None:
    """Fail unless each public name of our own has a known type; generated code is not ours."""
    symbols = json.loads(report[report.index("{") :])["typeCompleteness"]["symbols"]
    ours = [
        s
        for s in symbols
        if s["isExported"] and s["name"].startswith(package) and ".api.gen" not in s["name"]
    ]
    unknown = [s["name"] for s in ours if not s["isTypeKnown"]]
    if not ours or unknown:
        session.error(f"{package}: {len(unknown)} of {len(ours)} public names lack a type: {unknown[:20]}")
    session.log(f"{package}: {len(ours)} public names, every type known")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run what needs no special machine: the oldest Python measures coverage, the newest searches."""
    session.install("-e", ".[nri,metrics]", *_group("test"))
    pytest = ["pytest", "-n", WORKERS, "--dist=loadgroup", *session.posargs]
    profile: dict[str, str | None] = {}
    if session.python != PYTHONS[-1]:
        pytest.append(f"--ignore={SEARCHES}")
        profile["HYPOTHESIS_PROFILE"] = "default"
    if session.python != PYTHONS[0]:
        session.run(*pytest, env=profile)
        return
    session.install(*_group("proto"))  # the committed wire code is compared with a fresh one
    session.run("coverage", "erase")
    session.run(*pytest, "--cov", "--cov-report=", env=profile)
    if not session.posargs:
        session.run("coverage", "report", "--fail-under=95")
        session.run("coverage", "report", f"--include={','.join(PURE_MODULES)}", "--fail-under=100")


@nox.session
def searches(session: nox.Session) -> None:
    """Search at full size: 2,000 runs of 40 steps of each machine, and every errno at every call."""
    session.install("-e", ".[nri,metrics]", *_group("test"))
    pytest = ("pytest", "-n", "auto", "--dist=loadgroup", SEARCHES, *session.posargs)
    session.run(*pytest, env={"HYPOTHESIS_PROFILE": "full"})


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site without a warning, run the examples and commands of the pages, and follow links."""
    session.install("-e", ".[nri,metrics]", *_group("test"), *_group("docs"))
    session.run("sphinx-build", "-n", "-W", "--keep-going", "-q", "-c", "docs", ".", "build/site")
    session.run(
        "pytest",
        "-q",
        "--doctest-glob=*.md",
        "--doctest-modules",
        "--ignore=docs/examples",
        "README.md",
        "docs",
        "resctrl",
        "tests/docs",
        env={"RESCTRL_NEWCOMER": "1"},  # type what the pages tell to type, in a fresh checkout
    )


@nox.session
def e2e_containerd(session: nox.Session) -> None:
    """Run the plugin under a real containerd; root only."""
    session.install("-e", ".[nri,metrics]", *_group("test"))
    _run_lane(session, "containerd", "tests/e2e")


@nox.session
def e2e_kernel(session: nox.Session) -> None:
    """Run the scenarios on the kernel's own resctrl, in a guest whose image is made from packages, once."""
    session.install("-e", ".[nri,metrics]", *_group("test"))
    session.run("python", "-m", "tests.kernel.build", "--install")
    _run_lane(session, "kernel", "tests/kernel")


@nox.session
def e2e_node(session: nox.Session) -> None:
    """Run a whole node in one guest: containerd, runc, NRI, the installed program, the kernel's resctrl."""
    session.install("-e", ".[nri,metrics]", *_group("test"))
    session.run("python", "-m", "tests.kernel.build", "--install")
    _run_lane(session, "node", "tests/node")


@nox.session
def e2e_hardware(session: nox.Session) -> None:
    """Run the same bodies on this machine's RDT; its runbook says what is touched and what never is."""
    session.install("-e", ".[nri,metrics]", *_group("test"))
    session.run("python", "-m", "tests.hardware.lane", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Show the main job on the embedded default: no root, no RDT, no containerd."""
    session.install("-e", ".[nri,metrics]")
    session.run("nri-resctrl-plugin", "demo", *session.posargs)


@nox.session
def proto(session: nox.Session) -> None:
    """Generate the wire code anew from the trimmed .proto files."""
    session.install(*_group("proto"))
    session.run("python", "tools/generate_proto.py")


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel and the source distribution."""
    session.install(*_group("build"))
    session.run("python", "-m", "build", "--outdir", "dist")


@nox.session(python=PYTHONS)
def single_file(session: nox.Session) -> None:
    """Build the program as one executable file for this Python; `-- --python PATH` names the interpreter."""
    session.install(".[nri,metrics]", *_group("build"))
    target = f"dist/10-resctrl-python{session.python}"
    session.run("python", "tools/build_single_file.py", target, *session.posargs)
    session.run(target, "--version", external=True)
