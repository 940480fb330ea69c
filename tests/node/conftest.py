"""The node lane's fixtures, and the one place where it is skipped.

On a node (`RESCTRL_NODE_SITE` names its file) the scenarios run here. Anywhere else they run in a guest that
is booted once, and here each is told as it ended there: `pytest tests/node --require=node`. The lane takes
minutes and both cores of a small machine, so it runs only where it is asked for, by `--require=node` or by
naming its tests. Asked and impossible is a skip with the reason; required and impossible is a failure.
"""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

import pytest

from tests.e2e.packages import Unobtainable
from tests.e2e.sweep import sweep_abandoned
from tests.kernel.errors import KernelLaneError
from tests.kernel.vm import kernel_lane_missing
from tests.node.in_guest import LIMIT, LaneRun, Replay, run_lane
from tests.node.node import Node
from tests.node.site import NodeSite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.node.program import Program

HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the lane out of a session that neither requires nor names it: no skips to read."""
    if collection_path.name == "test_lane.py" and NodeSite.is_here():
        return True  # it tests what this very session is a part of
    if collection_path.parent != HERE or not collection_path.name.startswith("test_"):
        return None
    named = any("tests/node" in it or it == "node" for it in config.invocation_params.args)
    return None if _is_required(config) or named else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the first test of the lane the time that the guest takes; it has a limit of its own."""
    for item in items:
        if HERE in item.path.parents and not NodeSite.is_here():
            item.add_marker(pytest.mark.timeout(LIMIT + 300))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a scenario in a loop of its own, or tell how it ended in the guest."""
    node = pyfuncitem.funcargs.get("node")
    if isinstance(node, Replay):
        node.tell(pyfuncitem)
        return True
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(scope="session")
def lane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LaneRun:
    """The lane, run in a guest: all of it, or what was selected of its node scenarios."""
    if (reason := kernel_lane_missing()) is not None:
        _impossible(request.config, reason)
    items = [it for it in request.session.items if isinstance(it, pytest.Function)]
    whole = any("lane" in it.fixturenames and "node" not in it.fixturenames for it in items)
    chosen = [it.nodeid for it in items if "node" in it.fixturenames and HERE in it.path.parents]
    try:
        return run_lane(tmp_path_factory.mktemp("lane"), node_tests=None if whole else chosen)
    except (KernelLaneError, Unobtainable) as error:
        _impossible(request.config, str(error))


class Record(Protocol):
    """Keeps a number for the report. pytest's own record_property warns with today's kind of junit.xml."""

    def __call__(self, name: str, value: float) -> None:
        """Keep it."""
        ...


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Keeps a number that a scenario measured, for the summary."""

    def keep(name: str, value: float) -> None:
        request.node.user_properties.append((name, value))

    return keep


@pytest.fixture(scope="session")
def machine() -> Iterator[Node]:
    """The node itself, with a containerd of our own; in the end nothing is left of it."""
    site = NodeSite.present()
    assert site is not None, "this is not a node"
    sweep_abandoned()
    node = Node(site)
    try:
        asyncio.run(node.containerd.start())
        yield node
    finally:
        left = node.close()
    assert not left, f"the lane left things behind: {left}"


@pytest.fixture
def node(request: pytest.FixtureRequest) -> Iterator[Node | Replay]:
    """The node, bare; away from one, what to tell of this test."""
    if not NodeSite.is_here():
        lane: LaneRun = request.getfixturevalue("lane")
        yield lane.replay(request.node.nodeid)
        return
    machine: Node = request.getfixturevalue("machine")
    yield machine
    asyncio.run(machine.restore())


@pytest.fixture
def program(request: pytest.FixtureRequest, node: Node | Replay) -> Iterator[Program | None]:
    """The installed program, not yet started. It ends with the test."""
    yield from _program(node, request.node.name)


@pytest.fixture(scope="module")
def serving(request: pytest.FixtureRequest) -> Iterator[Program | None]:
    """The installed program, started before the first test of a module that wants it."""
    if not NodeSite.is_here():
        yield None
        return
    for program in _program(request.getfixturevalue("machine"), "serving"):
        assert program is not None
        program.start()
        yield program


def _program(node: Node | Replay, name: str) -> Iterator[Program | None]:
    """Make the program of a node; in the end its log goes where a failed test shows it."""
    if isinstance(node, Replay):
        yield None
        return
    program = node.program(name.removeprefix("test_")[:24])
    try:
        yield program
    finally:
        program.close()


def _impossible(config: pytest.Config, reason: str) -> NoReturn:
    """Skip, or fail where the lane is required: the one place where either happens."""
    if _is_required(config):
        pytest.fail(f"--require=node: {reason}", pytrace=False)
    pytest.skip(f"no node lane: {reason}")


def _is_required(config: pytest.Config) -> bool:
    return "node" in (config.getoption("--require", default=None) or ())
