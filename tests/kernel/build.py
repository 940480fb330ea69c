"""Makes the guest's kernel from Debian's source package: `python -m tests.kernel.build`.

Owns: the steps from package to bzImage, and the tools they need. Must not know: how a guest is booted.
Standard library only, so that it runs before any virtual environment exists.

Rules:
    1. Nothing is installed unless `--install` asks for it; without it, what is missing is named.
    2. One build at a time per cache; the second one waits and finds the first one's image.
    3. A build ends within its limit, and leaves only the image; after a failure also its log.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.kernel import debian
from tests.kernel.errors import BuildError, KernelLaneError, MissingToolsError, NoImageError, PackageError
from tests.kernel.hooks import apply_hooks, install_model
from tests.kernel.image import (
    HERE,
    PREBUILT,
    SOURCES,
    Image,
    cache_directory,
    find_image,
    find_static_busybox,
    image_key,
    initramfs,
    is_static_program,
    publish,
    sha256,
    source_digests,
)
from tests.kernel.qemu import QEMU, QEMU_PACKAGE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "PACKAGE",
    "build_image",
    "ensure_image",
    "main",
    "missing_tools",
    "package_version",
    "refused_options",
]

PACKAGE: Final = "linux-source-6.12"
_INSTALLED_SOURCE: Final = Path("/usr/src/linux-source-6.12.tar.xz")
_STEP_LIMIT: Final = 3600.0
"""Seconds for one build step. Compiling took 4 minutes on 2 free cores; a busy machine needs a multiple."""

_PROGRAMS: Final = {
    "gcc": "gcc",
    "make": "make",
    "bc": "bc",
    "flex": "flex",
    "bison": "bison",
    "xz": "xz-utils",
    "tar": "tar",
    "perl": "perl",
}
_HEADERS: Final = {"stdio.h": "libc6-dev", "libelf.h": "libelf-dev"}
_IN_USE: Final = {QEMU: QEMU_PACKAGE, "strace": "strace"}
"""What the lane's tests run, in a guest too: it sees the host's programs. Program -> Debian package."""


def missing_tools() -> dict[str, str]:
    """Return what a build lacks on this machine: program or header -> Debian package."""
    programs = {name: package for name, package in _PROGRAMS.items() if shutil.which(name) is None}
    headers = {
        name: package for name, package in _HEADERS.items() if not Path("/usr/include", name).is_file()
    }
    return {**programs, **headers}


def package_version() -> str:
    """Return the version of the source package that a build would use.

    Raises:
        PackageError: It is neither installed nor known to apt.
    """
    installed = debian.installed_version(PACKAGE) if _INSTALLED_SOURCE.is_file() else None
    return installed or debian.candidate_version(PACKAGE)


def refused_options(fragment: str, config: str) -> list[str]:
    """Return the lines of a kernel config fragment that the resulting config does not have.

    Kconfig drops silently what it does not know or whose dependencies are not met.
    """
    wanted = [
        line for line in fragment.splitlines() if re.match(r"CONFIG_\w+=|# CONFIG_\w+ is not set$", line)
    ]
    have = set(config.splitlines())
    # "is not set" also holds where the option is not even offered.
    offered = {line.split("=")[0] for line in have}
    return [
        line
        for line in wanted
        if line not in have and not (line.startswith("# ") and line.split()[1] not in offered)
    ]


def _say(text: str) -> None:
    sys.stderr.write(f"build: {text}\n")
    sys.stderr.flush()


def _step(name: str, argv: Sequence[str], cwd: Path, log: Path, limit: float = _STEP_LIMIT) -> None:
    """Run one step of a build, its output going to the log.

    Raises:
        BuildError: It failed, or was killed at its limit, with the whole process group.
    """
    _say(name)
    # A fixed identity: two builds by one compiler give the same kernel.
    environ = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C",
        "KBUILD_BUILD_USER": "resctrl",
        "KBUILD_BUILD_HOST": "tests",
        "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
    }
    with log.open("ab") as sink:
        sink.write(f"### {name}: {' '.join(argv)}\n".encode())
        sink.flush()
        process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            raise BuildError(name, f"no end within {limit:.0f} s") from None
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if status != 0:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        raise BuildError(name, f"status {status}\n" + "\n".join(tail))


def _source_archive(version: str, work: Path) -> Path:
    if _INSTALLED_SOURCE.is_file() and debian.installed_version(PACKAGE) == version:
        return _INSTALLED_SOURCE
    _say(f"fetching {PACKAGE} {version}")
    tree = debian.fetch_and_unpack(PACKAGE, version, work)
    return tree / "usr/src" / _INSTALLED_SOURCE.name


def _compile(version: str, work: Path, log: Path, jobs: int) -> tuple[bytes, bytes]:
    """Return the kernel and the config it was compiled with."""
    archive = _source_archive(version, work)
    _step("unpacking", ["tar", "-xf", str(archive), "--no-same-owner"], work, log)
    (tree,) = (path for path in work.glob("linux-source-*") if (path / "Makefile").is_file())
    apply_hooks(tree)
    install_model(tree, [HERE / name for name in SOURCES if name.startswith("model/")])
    fragment = HERE / "resctrl-guest.config"
    _step("configuring", ["make", f"KCONFIG_ALLCONFIG={fragment}", "allnoconfig"], tree, log)
    config = (tree / ".config").read_bytes()
    refused = refused_options(fragment.read_text(encoding="utf-8"), config.decode())
    if refused:
        raise BuildError("configuring", f"the kernel did not take: {', '.join(refused)}")
    _step(f"compiling with {jobs} jobs", ["make", f"-j{jobs}", "bzImage"], tree, log)
    return (tree / "arch/x86/boot/bzImage").read_bytes(), config


@contextlib.contextmanager
def _only_builder(cache: Path) -> Iterator[None]:
    """Hold the cache's lock. Work directories found meanwhile belong to builds that were killed."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in cache.glob("work-*"):
            shutil.rmtree(left)
        yield


def build_image(version: str, cache: Path, *, jobs: int) -> Path:
    """Build the kernel of our sources and one package version, and put it into the cache.

    Args:
        version: Version of the source package.
        cache: The cache directory; the work needs 2.5 GB in it for a while.
        jobs: Compile steps at once.

    Returns:
        The image's directory in the cache.

    Raises:
        MissingToolsError: A tool is not there; nothing was begun.
        HookError: The source is not what the hooks were written for.
        PackageError: The package could not be fetched.
        BuildError: A step failed; the log stays in the cache as build-failed.log.
    """
    missing = missing_tools()
    if missing:
        raise MissingToolsError(sorted(missing), sorted(set(missing.values())))
    digests = source_digests()
    key = image_key(digests, version)
    work = cache / f"work-{os.getpid()}"
    work.mkdir()
    log = work / "build.log"
    began = time.monotonic()
    try:
        kernel, config = _compile(version, work, log, jobs)
        record = {
            "sources": digests,
            "package": PACKAGE,
            "version": version,
            "bzimage": sha256(kernel),
            "seconds": round(time.monotonic() - began),
        }
        whole = work / "image"
        whole.mkdir()
        (whole / "bzImage").write_bytes(kernel)
        (whole / "kernel.config").write_bytes(config)
        (whole / "image.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        directory = cache / key
        if directory.exists():
            shutil.rmtree(directory)
        whole.rename(directory)
    except BuildError:
        shutil.copyfile(log, cache / "build-failed.log")
        raise
    finally:
        shutil.rmtree(work)
    return directory


def _ensure_busybox(cache: Path) -> None:
    if find_static_busybox(cache) is not None:
        return
    work = cache / f"work-{os.getpid()}"
    work.mkdir()
    try:
        version = debian.candidate_version("busybox-static")
        _say(f"fetching busybox-static {version}")
        tree = debian.fetch_and_unpack("busybox-static", version, work)
        (program,) = (path for path in tree.rglob("bin/busybox") if not path.is_symlink())
        data = program.read_bytes()
        if not is_static_program(data):
            raise PackageError(f"busybox of busybox-static {version} is not static")
        publish(cache / "busybox", data, 0o755)
    finally:
        shutil.rmtree(work)


def _install_what_is_missing(environ: Mapping[str, str]) -> None:
    """Install what the tests run, the build tools unless an image is named, and get missing package lists."""
    wanted = set() if environ.get(PREBUILT) else set(missing_tools().values())
    wanted.update(package for program, package in _IN_USE.items() if shutil.which(program) is None)
    if wanted:
        _say(f"installing {' '.join(sorted(wanted))}")
    debian.install(sorted(wanted))
    try:
        package_version()
    except PackageError:
        debian.refresh_lists()


def _cached(environ: Mapping[str, str]) -> Image | None:
    try:
        return find_image(environ)
    except NoImageError:
        return None


def ensure_image(environ: Mapping[str, str] = os.environ, *, install: bool, jobs: int) -> Image:
    """Return the image to boot, after building it unless the cache or a prebuilt one serves.

    Args:
        environ: Where the cache and a prebuilt image are named.
        install: Missing packages may be installed (needs root).
        jobs: Compile steps at once.

    Raises:
        KernelLaneError: See `build_image` and `find_image`.
    """
    cache = cache_directory(environ)
    if install:
        _install_what_is_missing(environ)
    with _only_builder(cache):
        _ensure_busybox(cache)
        if not environ.get(PREBUILT):
            try:
                version = package_version()
            except PackageError:
                # Without apt's lists an image of our sources is as good as any.
                if _cached(environ) is None:
                    raise
            else:
                if not (cache / image_key(source_digests(), version) / "image.json").is_file():
                    build_image(version, cache, jobs=jobs)
        image = find_image(environ)
        initramfs(image, environ)
    return image


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, or find what was built; tell where it is. Return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernel.build", description=main.__doc__)
    parser.add_argument(
        "--install", action="store_true", help="install missing packages with apt (needs root)"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compile steps at once")
    parser.add_argument("--print-key", action="store_true", help="print the image's cache key, build nothing")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        if options.print_key:
            sys.stdout.write(image_key(source_digests(), package_version()) + "\n")
            return 0
        image = ensure_image(install=options.install, jobs=options.jobs)
    except KernelLaneError as error:
        _say(str(error))
        return 1
    _say(f"Linux {image.release}, {image.origin}; {time.monotonic() - began:.1f} s")
    sys.stdout.write(f"{image.bzimage}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
