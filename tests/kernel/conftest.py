"""Boots guests for tests that ask for one, and only in a session that was told to: `pytest --require=kernel`.

A session that requires the lane and cannot have it fails. One that names it, or a file of it, runs that, or
skips with the reason. Any other leaves it out, also where it could run, because emulation is slow and one
guest takes both cores of a small machine.
"""

from __future__ import annotations

import compileall
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import pytest

from tests.kernel import probe
from tests.kernel.image import find_image
from tests.kernel.jobs import JOBS, Outcome
from tests.kernel.vm import GuestRun, kernel_lane_missing, run_guest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kernel.guest import GuestConfig
    from tests.kernel.image import Image


_GUEST_TESTS: Final = frozenset(
    {
        "test_assigning.py",
        "test_fidelity.py",
        "test_guest.py",
        "test_privileges.py",
        "test_scenarios.py",
        "test_tools.py",
    }
)
_HERE: Final = Path(__file__).parents[2]
_AT_ONCE: Final = 2
"""Guests that run side by side: a job keeps one processor busy."""


def _is_required(config: pytest.Config) -> bool:
    return "kernel" in (config.getoption("--require", default=None) or ())


def _is_named(config: pytest.Config) -> bool:
    arguments = [str(argument) for argument in config.invocation_params.args]
    if any(argument.rstrip("/").endswith("tests/kernel") for argument in arguments):
        return True
    return any(f"kernel/{name}" in argument for argument in arguments for name in _GUEST_TESTS)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the guests' tests out of a session that neither requires nor names them: no skips to read."""
    if collection_path.name not in _GUEST_TESTS or _is_required(config) or _is_named(config):
        return None
    return True


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", "jobs(*names): which jobs of tests/kernel/jobs.py a test waits for")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests that wait for jobs come last: the others boot their guests meanwhile."""
    items.sort(key=lambda item: item.get_closest_marker("jobs") is not None)


class Boot(Protocol):
    """Runs one line for bash in a fresh guest, under a limit that suits a test."""

    def __call__(
        self,
        line: str,
        guest: GuestConfig | None = None,
        *,
        limit: float = 100.0,
        job: Path | None = None,
        on_output: Callable[[bytes], object] | None = None,
    ) -> GuestRun:
        """Return what came of it."""
        ...


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest) -> Image:
    """The image to boot; the one gate of every test that needs a guest."""
    required = _is_required(request.config)
    if not required and not _is_named(request.config):
        pytest.skip("boots guests: name its file, or run the whole lane with --require=kernel")
    reason = kernel_lane_missing()
    if reason is not None and required:
        pytest.fail(f"--require=kernel: {reason}")
    if reason is not None:
        pytest.skip(f"no kernel lane: {reason}")
    return find_image()


@pytest.fixture(scope="session")
def enough(image: Image) -> float:
    """Seconds within which a guest surely runs its command: several times what one boot takes just now."""
    return 3.0 + 4.0 * run_guest(["true"], image=image).seconds


@pytest.fixture
def boot(image: Image) -> Boot:
    """The way to a guest."""

    def run(
        line: str,
        guest: GuestConfig | None = None,
        *,
        limit: float = 100.0,
        job: Path | None = None,
        on_output: Callable[[bytes], object] | None = None,
    ) -> GuestRun:
        return run_guest([line], guest, limit=limit, job=job, image=image, on_output=on_output)

    return run


@pytest.fixture(scope="session")
def compiled(image: Image) -> None:
    """What the jobs import, compiled here, because in a guest that takes its time each boot."""
    for package in ("resctrl", "nri_resctrl_plugin", "tests/worlds", "tests/kernel"):
        compileall.compile_dir(_HERE / package, quiet=2)
    assert probe.main(["--compile", "tests/scenarios", "--world=kernel", "--machine=any"]) == 0


@pytest.fixture(scope="session", autouse=True)
def begun(request: pytest.FixtureRequest) -> None:
    """Begin the jobs that this session waits for before its first test, if there are any."""
    waits = any(item.get_closest_marker("jobs") is not None for item in request.session.items)
    if waits and kernel_lane_missing() is None:
        request.getfixturevalue("outcome_of")


@pytest.fixture(scope="session")
def outcome_of(
    image: Image, compiled: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Outcome]]:
    """What came of a job: all jobs that this session waits for are begun at once, some side by side."""
    wanted = {
        name for item in request.session.items for mark in item.iter_markers("jobs") for name in mark.args
    }

    # Here and not in the threads: pytest's factory is not made for two at once.
    directories = {name: tmp_path_factory.mktemp(name) for name in wanted}

    def do(name: str) -> Outcome:
        job, directory = JOBS[name], directories[name]
        run = run_guest(job.command, job.guest, limit=job.limit, job=directory, cwd=_HERE, image=image)
        return Outcome(run, directory)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        futures: dict[str, Future[Outcome]] = {name: pool.submit(do, name) for name in JOBS if name in wanted}
        yield lambda name: futures[name].result()
        pool.shutdown(cancel_futures=True)
