"""What can keep the kernel lane from running, each with the one thing to do about it.

Owns: the exception hierarchy. Must not know: how anything is built or booted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = [
    "BuildError",
    "HookError",
    "KernelLaneError",
    "MissingQemuError",
    "MissingToolsError",
    "NoImageError",
    "NotRootError",
    "PackageError",
    "StaleImageError",
]


class KernelLaneError(Exception):
    """Base of everything that this package raises on purpose."""


class HookError(KernelLaneError):
    """A hook did not find its place exactly once: this is not the source tree it was written for.

    Attributes:
        hook: Name of the hook.
        file: The file that was searched.
        matches: How often its place was found; 0 also where the file is absent or already has the hook.
    """

    def __init__(self, hook: str, file: Path, matches: int, why: str) -> None:
        super().__init__(f"hook {hook!r} in {file}: {why}")
        self.hook = hook
        self.file = file
        self.matches = matches


class MissingToolsError(KernelLaneError):
    """Programs or headers that a build needs are not there.

    Attributes:
        packages: The Debian packages that bring them.
    """

    def __init__(self, missing: Sequence[str], packages: Sequence[str]) -> None:
        super().__init__(
            f"missing for the build: {', '.join(missing)}; "
            f"apt-get install --no-install-recommends {' '.join(packages)}, "
            "or as root: python -m tests.kernel.build --install"
        )
        self.packages = tuple(packages)


class MissingQemuError(KernelLaneError):
    """QEMU is not there.

    Attributes:
        package: The Debian package that brings it.
    """

    def __init__(self, program: str, package: str) -> None:
        super().__init__(
            f"{program} is not installed; apt-get install --no-install-recommends {package}, "
            "or as root: python -m tests.kernel.build --install"
        )
        self.package = package


class NotRootError(KernelLaneError):
    """Packages were to be installed by a user who may not."""

    def __init__(self, packages: Sequence[str]) -> None:
        super().__init__(f"only root can install {' '.join(packages)}")


class PackageError(KernelLaneError):
    """Debian's package tools are absent, or refused."""


class BuildError(KernelLaneError):
    """A step of the build failed, or took longer than its limit.

    Attributes:
        step: The step, as in the build log.
    """

    def __init__(self, step: str, why: str) -> None:
        super().__init__(f"{step}: {why}")
        self.step = step


class NoImageError(KernelLaneError):
    """There is no guest image for the sources of this checkout."""


class StaleImageError(KernelLaneError):
    """A prebuilt image was made from other sources than those of this checkout."""
