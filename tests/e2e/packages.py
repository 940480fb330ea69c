"""The programs of the containerd lane: found on this machine, or fetched with its own apt and unpacked.

Owns: where `containerd`, `runc`, a static `busybox` and the CRI's own proto come from, and the cache of
unpacked packages. Must not know: how containerd is configured or run.

Rules:
    1. What the machine has comes first: a program on PATH, then a package in the cache, then the candidate of
       the machine's own apt, and only where that is too old the next release, from sources derived from the
       machine's own.
    2. Nothing is installed: a package is unpacked into the cache, under its version, complete or not at all.
    3. A program counts only after it ran here and told a version that is new enough.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from attrs import frozen

from tests.e2e.apt import Apt, derive_sources, own_sources, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["OLDEST_CONTAINERD", "PackageStore", "Tools", "Unobtainable", "default_cache"]

OLDEST_CONTAINERD = (1, 7)
"""The first containerd with the NRI of today (v1alpha1 over ttrpc on one socket)."""

NEXT_RELEASE = {"bookworm": "trixie"}
"""Releases whose own containerd is too old, and the one after it. Debian 12 has containerd 1.6."""


class Unobtainable(Exception):  # noqa: N818 - it is a reason for a skip, not a fault
    """A program of the lane is neither here nor can it be had; the message says why."""


@frozen(kw_only=True)
class Tools:
    """The programs that the lane runs, each proven to run here.

    Attributes:
        containerd: The daemon, at least `OLDEST_CONTAINERD`.
        ctr: Its client; imports the image.
        shim: `containerd-shim-runc-v2`.
        runc: The OCI runtime.
        busybox: A static busybox; it is the whole user space of the lane's containers.
        containerd_version: As the daemon tells it, numbers only.
        origin: Where the daemon came from, for the report.
    """

    containerd: Path
    ctr: Path
    shim: Path
    runc: Path
    busybox: Path
    containerd_version: tuple[int, ...]
    origin: str


def default_cache() -> Path:
    """Return the cache directory: `RESCTRL_CACHE`, or `.cache` in the checkout."""
    named = os.environ.get("RESCTRL_CACHE")
    return Path(named).absolute() if named else Path(__file__).resolve().parents[2] / ".cache"


class PackageStore:
    """Finds and keeps the lane's programs."""

    def __init__(self, cache: Path) -> None:
        self._packages = cache / "packages"
        self._own: Apt | None = None
        self._next: Apt | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = self._own = self._next = None

    def tools(self) -> Tools:
        """Return every program of the lane.

        Raises:
            Unobtainable: One of them is not here and cannot be had.
        """
        found = shutil.which("containerd")
        if found and (version := _version_of(Path(found))) >= OLDEST_CONTAINERD:
            ctr, shim = shutil.which("ctr"), shutil.which("containerd-shim-runc-v2")
            if ctr and shim:
                containerd, origin = Path(found), "PATH"
                return self._tools(containerd, Path(ctr), Path(shim), version, origin)
        tree = self._tree(
            "containerd", lambda it: _version_of(it / "usr/bin/containerd") >= OLDEST_CONTAINERD
        )
        binaries = tree / "usr/bin"
        containerd = binaries / "containerd"
        version = _version_of(containerd)
        return self._tools(
            containerd,
            binaries / "ctr",
            binaries / "containerd-shim-runc-v2",
            version,
            f"package {tree.name}",
        )

    def cri_proto(self) -> Path:
        """Return the CRI's own api.proto (v1), from the package that ships its source.

        Raises:
            Unobtainable: There is no such package.
        """
        inside = Path("usr/share/gocode/src/k8s.io/cri-api/pkg/apis/runtime/v1/api.proto")
        package = "golang-github-kubernetes-cri-api-dev"
        return self._tree(package, lambda it: (it / inside).is_file()) / inside

    def _tools(self, containerd: Path, ctr: Path, shim: Path, version: tuple[int, ...], origin: str) -> Tools:
        return Tools(
            containerd=containerd,
            ctr=ctr,
            shim=shim,
            runc=self._runc(),
            busybox=self._busybox(),
            containerd_version=version,
            origin=origin,
        )

    def _runc(self) -> Path:
        found = shutil.which("runc")
        if found and _version_of(Path(found)):
            return Path(found)

        def program(tree: Path) -> Path:
            return next((it for it in (tree / "usr/sbin/runc", tree / "usr/bin/runc") if it.is_file()), tree)

        return program(self._tree("runc", lambda it: bool(_version_of(program(it)))))

    def _busybox(self) -> Path:
        found = shutil.which("busybox")
        if found and _is_static(Path(found)):
            return Path(found)

        def program(tree: Path) -> Path:
            return next((it for it in (tree / "bin/busybox", tree / "usr/bin/busybox") if it.is_file()), tree)

        return program(self._tree("busybox-static", lambda it: _is_static(program(it))))

    def _tree(self, package: str, fits: Callable[[Path], bool]) -> Path:
        """Return an unpacked tree that fits: cached, of this machine's release, or of the next."""
        for tree in self._cached(package):
            if fits(tree):
                return tree
        tried: list[str] = []
        try:
            for apt in self._apts(tried):
                version = apt.candidate(package)
                if version is None:
                    tried.append(f"{apt.name}: no package {package}{apt.complaint}")
                elif package == "containerd" and _numbers(version) < OLDEST_CONTAINERD:
                    tried.append(f"{apt.name}: {package} {version} is too old")
                elif fits(tree := self._unpack(apt.download(package, version))):
                    return tree
                else:
                    tried.append(f"{apt.name}: {package} {version} does not run here")
        except (OSError, subprocess.SubprocessError) as err:
            tried.append(str(err))
        raise Unobtainable(f"{package} is not here and cannot be had ({'; '.join(tried)})")

    def _cached(self, package: str) -> list[Path]:
        trees = [
            it for it in self._packages.glob(f"{package}_*") if it.is_dir() and ".partial" not in it.name
        ]
        return sorted(trees, key=lambda it: _numbers(it.name.split("_")[1]), reverse=True)

    def _unpack(self, archive: Path) -> Path:
        target = self._packages / archive.name.removesuffix(".deb")
        if target.is_dir():
            return target
        self._packages.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{target.name}.partial", dir=self._packages))
        try:
            run(["dpkg-deb", "-x", str(archive), str(partial)])
            partial.chmod(0o755)
            partial.rename(target)
        except OSError:
            if not target.is_dir():  # else another run was first, and its tree is as good
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return target

    def _apts(self, tried: list[str]) -> Iterator[Apt]:
        if not (shutil.which("apt-get") and shutil.which("apt-cache") and shutil.which("dpkg-deb")):
            tried.append("no apt on this machine")
            return
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="nri-e2e-apt-")
        if self._own is None:
            self._own = Apt(Path(self._scratch.name) / "own", "this release", None, None)
        yield self._own
        if self._next is None:
            release = _release()
            suite = NEXT_RELEASE.get(release)
            if suite is None:
                tried.append(f"no later release is known for {release or 'this machine'}")
                return
            sources = derive_sources(own_sources(), release, suite)
            if not sources:
                tried.append(f"apt has no source for {release} that could be turned to {suite}")
                return
            self._next = Apt(Path(self._scratch.name) / "next", suite, suite, sources)
        yield self._next


def _version_of(program: Path) -> tuple[int, ...]:
    """Run `program --version`; () where it does not run."""
    try:
        return _numbers(run([str(program), "--version"]))
    except (OSError, subprocess.SubprocessError):
        return ()


def _numbers(text: str) -> tuple[int, ...]:
    """Return the first dotted number in a text: (1, 7, 24) of "containerd ... 1.7.24~ds1"."""
    found = re.search(r"(?<![\w.])\d+(?:\.\d+)+", re.sub(r"^\d+(?::|%3a)", "", text))
    return tuple(int(it) for it in found[0].split(".")) if found else ()


def _is_static(program: Path) -> bool:
    """Tell whether a program runs and asks for no interpreter (an ELF without PT_INTERP)."""
    try:
        head = program.read_bytes()[:4096]
        subprocess.run([str(program), "true"], check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return False
    return head.startswith(b"\x7fELF") and b"/ld-" not in head and b"/ld." not in head


def _release() -> str:
    try:
        text = Path("/etc/os-release").read_text()
    except OSError:
        return ""
    found = re.search(r'^VERSION_CODENAME="?([\w-]+)"?$', text, re.MULTILINE)
    return found[1] if found else ""
