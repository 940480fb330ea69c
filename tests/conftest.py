"""What every test session has: the worlds, the lanes that must not be skipped, the profiles of hypothesis.

A lane is a kind of machine: `tests/lanes.py` names them. Where a machine cannot run a lane, its tests are
skipped with the reason; `--require=NAME[,NAME]` makes that a failure, and also a session in which not as many
tests of the lane passed as docs/runbooks/lanes.md says: no lane is green for having done nothing.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

from tests.lanes import LANES, expected, lane_of, machine_of, needs_of, reason_of, skips_of, world_of
from tests.worlds import WORLDS, Machine, Site, World, WorldMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_passed: Final = pytest.StashKey[Counter[str]]()
_lane: Final = pytest.StashKey[str]()


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    unknown = sorted(set(names) - set(LANES))
    if unknown:
        raise pytest.UsageError(f"--require: no lane {unknown}; there are {', '.join(LANES)}")
    return names


def _world_names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    unknown = sorted(set(names) - set(WORLDS))
    if unknown:
        raise pytest.UsageError(f"--world: no world {unknown}; there are {', '.join(WORLDS)}")
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
    parser.addoption(
        "--world",
        type=_world_names,
        default=[],
        metavar="NAME[,NAME]",
        help=f"worlds for the scenarios, of {', '.join(WORLDS)}; else the fake, and the hardware if required",
    )
    parser.addoption(
        "--machine",
        choices=["any", *(machine.value for machine in Machine)],
        default=Machine.FULL.value,
        help="which machine the guest of the kernel world is: scenarios about others are left out",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marks known, and begin to count."""
    config.addinivalue_line("markers", "needs(*capabilities): what a scenario needs of its world")
    config.addinivalue_line(
        "markers", "machine(machine): the machine that a scenario is about, if not a full one"
    )
    config.stash[_passed] = Counter()
    # A shell lets what it begins in the background ignore it (POSIX); what tests start would too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.pluginmanager.hasplugin("hypothesispytest"):
        _load_hypothesis_profile()


def _load_hypothesis_profile() -> None:
    # Imported here: an emulated machine that runs scenarios alone is spared the 6 seconds that it takes.
    from hypothesis import HealthCheck, settings  # noqa: PLC0415 - see above

    settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("ci", settings.get_profile("default"), max_examples=200)
    # A CI machine would search the same every night: hypothesis derandomizes there.
    settings.register_profile(
        "full",
        settings.get_profile("default"),
        max_examples=2000,
        stateful_step_count=40,
        derandomize=False,
        print_blob=True,
    )
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note to which lane each test belongs, and leave out what another guest runs."""
    here = config.getoption("--machine")
    elsewhere = []
    for item in items:
        lane = lane_of(item)
        if lane is not None:
            item.stash[_lane] = lane
        if world_of(item) == "kernel" and here not in {"any", machine_of(item).value}:
            elsewhere.append(item)
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if item not in elsewhere]


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
    missing = _shortfalls_of(config)
    if missing and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which required lane did not run."""
    if not config.option.collectonly:
        for text in _shortfalls_of(config):
            terminalreporter.write_line(text, red=True)


def _shortfalls_of(config: pytest.Config) -> list[str]:
    required = config.getoption("--require")
    passed = config.stash[_passed]
    return shortfalls(required, passed, expected()) if required else []


def shortfalls(required: list[str], passed: Mapping[str, int], wanted: Mapping[str, int]) -> list[str]:
    """Return what to say of the required lanes that were not run, or not whole."""
    return [
        f"--require={lane}: {passed[lane]} tests passed in this lane, but {wanted.get(lane, 'no number')} is "
        "what docs/runbooks/lanes.md says"
        for lane in required
        if passed[lane] != wanted.get(lane)
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let each scenario be a test of each world of this session."""
    if "world" in metafunc.fixturenames:
        metafunc.parametrize("world", _worlds(metafunc.config), indirect=True)


def _worlds(config: pytest.Config) -> list[str]:
    """Return the worlds of a session: those named, else the fake and the hardware where it is required."""
    named: list[str] = config.getoption("--world")
    required: list[str] = config.getoption("--require")
    return named or ["fake", *(["hardware"] if "hardware" in required else [])]


@pytest.fixture(scope="session")
def sites() -> Iterator[Callable[[str], Site]]:
    """Where worlds are made: one site of each kind, made when it is first asked for."""
    made: dict[str, Site] = {}

    with ExitStack() as stack:

        def site(name: str) -> Site:
            if name not in made:
                made[name] = WORLDS[name]()
                stack.callback(made[name].close)
            return made[name]

        yield site


@pytest.fixture
def world(request: pytest.FixtureRequest, sites: Callable[[str], Site]) -> Iterator[World]:
    """A machine to run a scenario on: each of the session's worlds in turn."""
    name: str = request.param
    for lacking in skips_of(request.node):
        pytest.skip(reason_of(name, lacking))
    try:
        here = sites(name).world(machine_of(request.node))
    except WorldMissing as missing:
        pytest.fail(f"no world {name!r} here: {missing}", pytrace=False)
    try:
        for capability in here.lacks & needs_of(request.node):
            pytest.skip(reason_of(name, capability))
        yield here
    finally:
        here.close()
