"""What every test session has: the worlds, the lanes that must not be skipped, the profiles of hypothesis.

A lane is a kind of machine: `fake`, `kernel`, `containerd`, `hardware`. Where a machine cannot run a lane,
its tests are skipped with the reason; `--require=NAME[,NAME]` makes that a failure, and also a session in
which too few tests of the lane passed: a lane that tested nothing is not green.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, settings

from tests.worlds import WORLDS, Capability, World, WorldMissing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LANES: Final = {"fake": 50, "kernel": 1, "containerd": 1, "hardware": 50}
"""How many tests of a required lane must have passed at least."""

_DIRECTORIES: Final = {"e2e": "containerd", "kernel": "kernel"}
_passed: Final = pytest.StashKey[dict[str, int]]()
_lane: Final = pytest.StashKey[str]()

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), max_examples=300)
settings.register_profile("full", settings.get_profile("default"), max_examples=2000, stateful_step_count=40)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    unknown = sorted(set(names) - set(LANES))
    if unknown:
        raise pytest.UsageError(f"--require: no lane {unknown}; there are {', '.join(LANES)}")
    return names


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --require."""
    parser.addoption(
        "--require",
        type=_names,
        default=[],
        metavar="NAME[,NAME]",
        help=f"lanes that must run, of {', '.join(LANES)}: a skip of one is a failure",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marks known, and begin to count."""
    config.addinivalue_line("markers", "needs(*capabilities): what a scenario needs of its world")
    config.stash[_passed] = dict.fromkeys(LANES, 0)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note to which lane each test belongs."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        world = callspec.params.get("world") if callspec is not None else None
        lane = world or _lane_of(item.path.relative_to(config.rootpath))
        if lane is not None:
            item.stash[_lane] = lane


def _lane_of(path: Path) -> str | None:
    return next((_DIRECTORIES[part] for part in path.parts if part in _DIRECTORIES), None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Count what passed in each lane."""
    report = yield
    lane = item.stash.get(_lane, None)
    if lane is not None and report.when == "call" and report.passed:  # type: ignore[attr-defined]
        item.config.stash[_passed][lane] += 1
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a session that was to run a lane and did not."""
    config = session.config
    if config.option.collectonly or hasattr(config, "workerinput"):
        return
    missing = shortfalls(config.getoption("--require"), config.stash[_passed])
    if missing and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which required lane did not run."""
    for text in shortfalls(config.getoption("--require"), config.stash[_passed]):
        terminalreporter.write_line(text, red=True)


def shortfalls(required: list[str], passed: dict[str, int]) -> list[str]:
    """Return what to say of the required lanes that were not run."""
    return [
        f"--require={lane}: {passed[lane]} tests passed in this lane, at least {LANES[lane]} must"
        for lane in required
        if passed[lane] < LANES[lane]
    ]


@pytest.fixture(params=sorted(WORLDS))
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A machine to run a scenario on: each of the worlds in turn."""
    name: str = request.param
    try:
        machine = WORLDS[name]()
    except WorldMissing as missing:
        if name in request.config.getoption("--require"):
            pytest.fail(f"--require={name}, but: {missing}", pytrace=False)
        pytest.skip(f"no world {name!r}: {missing}")
    try:
        for mark in request.node.iter_markers("needs"):
            for capability in mark.args:
                _require_capability(machine, capability)
        yield machine
    finally:
        machine.close()


def _require_capability(machine: World, capability: Capability) -> None:
    if capability in machine.lacks:
        pytest.skip(f"the world {machine.name!r} cannot do this: {capability.value}")
