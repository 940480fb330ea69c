"""Boots guests for tests that ask for one, and only in a session that was told to: `pytest --require=kernel`.

A session that requires the lane and cannot have it fails; one that does not require it skips, also where it
could run, because emulation is slow and one guest takes both cores of a small machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from tests.kernel.image import find_image
from tests.kernel.vm import GuestRun, kernel_lane_missing, run_guest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kernel.guest import GuestConfig
    from tests.kernel.image import Image


def _is_required(config: pytest.Config) -> bool:
    return "kernel" in (config.getoption("--require", default=None) or ())


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the guests' tests out of a session that neither requires nor names them: no skips to read."""
    if collection_path.name != "test_guest.py" or _is_required(config):
        return None
    named = any("test_guest.py" in argument for argument in config.invocation_params.args)
    return None if named else True


class Boot(Protocol):
    """Runs one line for bash in a fresh guest, under a limit that suits a test."""

    def __call__(
        self,
        line: str,
        guest: GuestConfig | None = None,
        *,
        limit: float = 60.0,
        job: Path | None = None,
        on_output: Callable[[bytes], object] | None = None,
    ) -> GuestRun:
        """Return what came of it."""
        ...


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest) -> Image:
    """The image to boot; the one gate of every test that needs a guest."""
    if not _is_required(request.config):
        pytest.skip("boots guests: run with --require=kernel")
    reason = kernel_lane_missing()
    if reason is not None:
        pytest.fail(f"--require=kernel: {reason}")
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
        limit: float = 60.0,
        job: Path | None = None,
        on_output: Callable[[bytes], object] | None = None,
    ) -> GuestRun:
        return run_guest([line], guest, limit=limit, job=job, image=image, on_output=on_output)

    return run
