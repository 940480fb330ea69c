"""Debian's packages: which version there is, one fetched and unpacked without installing it, some installed.

Owns: every call of apt and dpkg. Must not know: what the packages are for.

Rules:
    1. Fetching and unpacking need no root and change nothing outside the given directory.
    2. Installing happens only through `install`, only as root, and its callers only do it when asked to.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

from tests.kernel.errors import NotRootError, PackageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["candidate_version", "fetch_and_unpack", "install", "installed_version", "refresh_lists"]

_LIMIT: Final = 900.0
"""Seconds for one call of a package tool: a slow mirror is waited for, a hanging one is not."""


def _call(argv: Sequence[str], cwd: Path | None = None, extra: Mapping[str, str] | None = None) -> str:
    if shutil.which(argv[0]) is None:
        raise PackageError(f"{argv[0]} is not there: this is not a Debian system")
    environ = {**os.environ, "LC_ALL": "C", **(extra or {})}
    try:
        done = subprocess.run(
            argv,
            cwd=cwd,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PackageError(f"{' '.join(argv)}: no end within {_LIMIT:.0f} s") from error
    if done.returncode != 0:
        raise PackageError(f"{' '.join(argv)}: status {done.returncode}: {done.stderr.strip()[-600:]}")
    return done.stdout


def installed_version(package: str) -> str | None:
    """Return the version of an installed package, or None where it is not installed."""
    if shutil.which("dpkg-query") is None:
        return None
    try:
        answer = _call(["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", package])
    except PackageError:
        return None
    status, _, version = answer.partition(" ")
    return version if status == "installed" else None


def candidate_version(package: str) -> str:
    """Return the version that apt would fetch.

    Raises:
        PackageError: apt is absent, or does not know the package (its lists may be missing).
    """
    for line in _call(["apt-cache", "policy", package]).splitlines():
        key, _, value = line.strip().partition(": ")
        if key == "Candidate" and value != "(none)":
            return value
    raise PackageError(f"apt knows no package {package}: run apt-get update, on Debian 12 or 13")


def fetch_and_unpack(package: str, version: str, into: Path) -> Path:
    """Fetch one version of a package and unpack it into a private directory.

    Args:
        package: Its name.
        version: Exactly this version.
        into: An existing directory; nothing outside is touched.

    Returns:
        The directory that holds the package's tree.

    Raises:
        PackageError: apt or dpkg refused.
    """
    # The sandbox user of apt may not write into a private directory; without this it warns when run as root.
    _call(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", f"{package}={version}"], cwd=into)
    (archive,) = into.glob(f"{package}_*.deb")
    tree = into / package
    _call(["dpkg-deb", "-x", str(archive), str(tree)])
    archive.unlink()
    return tree


def refresh_lists() -> None:
    """Fetch apt's package lists anew.

    Raises:
        NotRootError: Not run by root.
        PackageError: apt is absent or refused.
    """
    if os.geteuid() != 0:
        raise NotRootError(["package lists"])
    _call(["apt-get", "-q", "update"])


def install(packages: Sequence[str]) -> None:
    """Install packages with apt, without what they only recommend. Does nothing where there are none.

    Raises:
        NotRootError: Not run by root.
        PackageError: apt is absent or refused.
    """
    if not packages:
        return
    if os.geteuid() != 0:
        raise NotRootError(packages)
    refresh_lists()
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    _call(["apt-get", "-q", "-y", "install", "--no-install-recommends", *packages], extra=quiet)
