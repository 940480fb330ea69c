"""The containerd lane's fixtures, and the one place where it is skipped.

The lane starts daemons as root, so it runs only when it is asked for: by `--require=containerd`, or by naming
its tests on the command line. Asked and impossible is a skip with the reason; required and impossible is a
failure.
"""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests.e2e.containerd import Containerd, View, obstacle
from tests.e2e.packages import PackageStore, Tools, Unobtainable, default_cache
from tests.e2e.sweep import sweep_abandoned

if TYPE_CHECKING:
    from collections.abc import Iterator

TRACES = (
    "/etc/containerd",
    "/etc/nri",
    "/opt/containerd",
    "/opt/nri",
    "/run/containerd",
    "/run/nri",
    "/run/runc",
    "/var/lib/containerd",
)
"""Where a containerd with default settings keeps things; ours may not add to them."""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function, each in a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(scope="session")
def store(pytestconfig: pytest.Config) -> Iterator[PackageStore]:
    """The packages, where the lane is asked for."""
    named = any("e2e" in str(it) for it in pytestconfig.invocation_params.args)
    if not named and not _required(pytestconfig):
        pytest.skip("the containerd lane runs where it is asked for: nox -s e2e_containerd")
    with PackageStore(default_cache()) as store:
        yield store


@pytest.fixture(scope="session")
def tools(pytestconfig: pytest.Config, store: PackageStore) -> Tools:
    """The programs of the lane, on a machine that can run them."""
    if (reason := obstacle()) is not None:
        _impossible(pytestconfig, reason)
    sweep_abandoned()
    try:
        return store.tools()
    except Unobtainable as err:
        _impossible(pytestconfig, str(err))


@pytest.fixture(scope="session")
def cri_proto(pytestconfig: pytest.Config, store: PackageStore) -> Path:
    """The CRI's own api.proto."""
    try:
        return store.cri_proto()
    except Unobtainable as err:
        _impossible(pytestconfig, str(err))


@pytest.fixture(scope="session")
def containerd(tools: Tools) -> Iterator[Containerd]:
    """One containerd for every test that needs no view of its own. Tests may kill it, and start it again."""
    yield from _started(tools, View.MACHINE)


@pytest.fixture(scope="session")
def sliced_containerd(tools: Tools) -> Iterator[Containerd]:
    """A containerd whose pods have systemd-shaped cgroups."""
    yield from _started(tools, View.SLICES)


@pytest.fixture(scope="session")
def literal_containerd(tools: Tools) -> Iterator[Containerd]:
    """A containerd whose pods have systemd-shaped parents that nobody expands."""
    yield from _started(tools, View.LITERAL)


@pytest.fixture(scope="session")
def unified_containerd(tools: Tools) -> Iterator[Containerd]:
    """A containerd that sees cgroup v2 alone."""
    yield from _started(tools, View.UNIFIED)


@pytest.fixture(params=list(View), ids=lambda view: view.value)
def viewed_containerd(request: pytest.FixtureRequest) -> Containerd:
    """Each of them in turn."""
    names = {
        View.MACHINE: "containerd",
        View.SLICES: "sliced_containerd",
        View.LITERAL: "literal_containerd",
        View.UNIFIED: "unified_containerd",
    }
    daemon: Containerd = request.getfixturevalue(names[request.param])
    return daemon


def _started(tools: Tools, view: View) -> Iterator[Containerd]:
    """Start a containerd, and fail unless in the end nothing is left of it."""
    before = _traces()
    containerd = Containerd(tools, view)
    try:
        asyncio.run(containerd.start())
        yield containerd
    finally:
        left = containerd.close()
        left += sorted(str(it) for it in _traces() - before)
    assert not left, f"the lane left things behind: {left}"


def _traces() -> set[Path]:
    return {path for it in TRACES for path in (Path(it), *Path(it).rglob("*")) if path.exists()}


def _required(config: pytest.Config) -> bool:
    return "containerd" in (config.getoption("--require", default=None) or ())


def _impossible(config: pytest.Config, reason: str) -> NoReturn:
    if _required(config):
        pytest.fail(f"--require=containerd, but: {reason}", pytrace=False)
    pytest.skip(f"no containerd lane: {reason}")
