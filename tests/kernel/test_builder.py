"""The builder without a build: hooks, hashes, the cache, the archive, prebuilt images, tools."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kernel import build, debian
from tests.kernel.build import missing_tools, refused_options
from tests.kernel.cpio import character_device, directory, first_root, newc, regular
from tests.kernel.errors import (
    BuildError,
    HookError,
    MissingToolsError,
    NoImageError,
    NotRootError,
    PackageError,
    StaleImageError,
)
from tests.kernel.hooks import HOOKS, Hook, Place, apply_hooks, install_model
from tests.kernel.image import (
    HERE,
    PREBUILT,
    SOURCES,
    cache_directory,
    find_image,
    hooks_digest,
    image_key,
    initramfs,
    is_static_program,
    kernel_release,
    sha256,
    source_digests,
)


def elf(*kinds: int) -> bytes:
    """Return a 64-bit ELF head with program headers of these kinds."""
    head = bytearray(64)
    head[:5] = b"\x7fELF\x02"
    struct.pack_into("<Q", head, 0x20, 64)
    struct.pack_into("<HH", head, 0x36, 56, len(kinds))
    return bytes(head) + b"".join(struct.pack("<I52x", kind) for kind in kinds)


def bzimage(release: str = "6.12.1-test") -> bytes:
    """Return the head of a bzImage of this release."""
    head = bytearray(0x400)
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x20E, 0x300 - 0x200)
    text = f"{release} (resctrl@tests) #1".encode()
    head[0x300 : 0x300 + len(text)] = text
    return bytes(head)


def kernel_tree(top: Path) -> Path:
    """Make a tree in which each hook finds its place once."""
    for hook in HOOKS:
        file = top / hook.file
        file.parent.mkdir(parents=True, exist_ok=True)
        before = file.read_text(encoding="utf-8") if file.exists() else "/* first line */\n"
        file.write_text(f"{before}{hook.anchor}/* more */\n", encoding="utf-8")
    return top


def contents(top: Path) -> dict[Path, bytes]:
    """Return every file below a directory."""
    return {path: path.read_bytes() for path in top.rglob("*") if path.is_file()}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache that has a static busybox and nothing else."""
    directory = tmp_path / "cache" / "kernel"
    directory.mkdir(parents=True)
    (directory / "busybox").write_bytes(elf(1))
    return directory


@pytest.fixture
def environ(cache: Path) -> dict[str, str]:
    """An environment that names the cache."""
    return {"RESCTRL_CACHE": str(cache.parent)}


def put_image(directory: Path, **changes: object) -> Path:
    """Put an image of this checkout's sources somewhere, its record altered by the changes."""
    directory.mkdir(parents=True)
    kernel = bzimage()
    (directory / "bzImage").write_bytes(kernel)
    record = {
        "sources": source_digests(), "package": "p", "version": "6.12.1-1", "bzimage": sha256(kernel),
        **changes,
    }  # fmt: skip
    (directory / "image.json").write_text(json.dumps(record), encoding="utf-8")
    return directory / "bzImage"


class TestHooks:
    """Each hook finds its place exactly once, or nothing is touched."""

    def test_all(self, tmp_path: Path) -> None:
        """Five hooks in four files, each text in its place once, and the rest of the files as it was."""
        tree = kernel_tree(tmp_path)
        before = contents(tree)
        apply_hooks(tree)
        after = contents(tree)
        assert (len(HOOKS), len(after)) == (5, 4)
        for hook in HOOKS:
            text = (tree / hook.file).read_text(encoding="utf-8")
            together = {
                Place.BEFORE: hook.text + hook.anchor,
                Place.AFTER: hook.anchor + hook.text,
                Place.INSTEAD: hook.text,
            }[hook.place]
            assert text.count(together) == 1
        for hook in HOOKS:
            file = tree / hook.file
            back = hook.anchor if hook.place is Place.INSTEAD else ""
            file.write_text(file.read_text(encoding="utf-8").replace(hook.text, back), encoding="utf-8")
        assert contents(tree) == before, "without the hooks' texts it is the tree that it was"

    @pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.name)
    @pytest.mark.parametrize(("change", "matches"), [("gone", 0), ("twice", 2), ("absent", 0)])
    def test_not_once(self, tmp_path: Path, hook: Hook, change: str, matches: int) -> None:
        """A place that is gone or there twice, or a file that is absent: an error names hook and file."""
        tree = kernel_tree(tmp_path)
        file = tree / hook.file
        text = file.read_text(encoding="utf-8")
        if change == "gone":
            file.write_text(text.replace(hook.anchor, hook.anchor.swapcase()), encoding="utf-8")
        elif change == "twice":
            file.write_text(text + hook.anchor, encoding="utf-8")
        else:
            file.unlink()
        before = contents(tree)
        with pytest.raises(HookError) as caught:
            apply_hooks(tree)
        assert caught.value.file == file
        assert caught.value.matches == matches
        # Where a whole file is absent, the first hook that wants it is the one that is named.
        assert caught.value.hook == next(h.name for h in HOOKS if h.file == hook.file) or change != "absent"
        assert (caught.value.hook == hook.name) or change == "absent"
        assert str(file) in str(caught.value)
        assert contents(tree) == before, "nothing is written when one hook fails"

    def test_twice_applied(self, tmp_path: Path) -> None:
        """A tree that has the hooks is refused, not hooked again."""
        tree = kernel_tree(tmp_path)
        apply_hooks(tree)
        before = contents(tree)
        with pytest.raises(HookError, match="already there"):
            apply_hooks(tree)
        assert contents(tree) == before

    def test_model(self, tmp_path: Path) -> None:
        """The model's files are copied to where the hooks expect them."""
        tree = kernel_tree(tmp_path)
        install_model(tree, [HERE / name for name in SOURCES if name.startswith("model/")])
        for name in ("fakerdt.c", "fakerdt.h"):
            copy = tree / "arch/x86/kernel/cpu/resctrl" / name
            assert copy.read_bytes() == (HERE / "model" / name).read_bytes()

    def test_licence(self) -> None:
        """The model's files say their licence, and its text stands beside them."""
        for name in ("fakerdt.c", "fakerdt.h"):
            first = (HERE / "model" / name).read_text(encoding="utf-8").splitlines()[0]
            assert "SPDX-License-Identifier: GPL-2.0-only" in first
        text = (HERE / "model/LICENSES/GPL-2.0-only.txt").read_text(encoding="utf-8")
        assert "GNU GENERAL PUBLIC LICENSE" in text
        assert "Version 2, June 1991" in text


class TestKey:
    """Images are cached by what they are made of."""

    def copy(self, to: Path) -> Path:
        """Copy the sources."""
        for name in SOURCES:
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(HERE / name, to / name)
        return to

    def test_stable(self, tmp_path: Path) -> None:
        """The same sources and version give the same key, wherever they stand."""
        assert image_key(source_digests(self.copy(tmp_path)), "1") == image_key(source_digests(), "1")

    @pytest.mark.parametrize("name", SOURCES)
    def test_source(self, tmp_path: Path, name: str) -> None:
        """One byte more in any source gives another key."""
        copy = self.copy(tmp_path)
        (copy / name).write_bytes((copy / name).read_bytes() + b"\n")
        assert image_key(source_digests(copy), "1") != image_key(source_digests(), "1")

    @pytest.mark.parametrize(
        "changed",
        [
            dataclasses.replace(HOOKS[0], name="other"),
            dataclasses.replace(HOOKS[0], file="other"),
            dataclasses.replace(HOOKS[0], anchor="other"),
            dataclasses.replace(HOOKS[0], text="other"),
            dataclasses.replace(HOOKS[0], place=Place.BEFORE),
        ],
    )
    def test_hook(self, changed: Hook) -> None:
        """Anything else in a hook, or another order, gives another key."""
        assert hooks_digest([changed, *HOOKS[1:]]) != hooks_digest()
        assert hooks_digest([*HOOKS[1:], HOOKS[0]]) != hooks_digest()

    def test_version(self) -> None:
        """Another package version gives another key."""
        assert image_key(source_digests(), "6.12.1-1") != image_key(source_digests(), "6.12.2-1")


class TestArchive:
    """The first root, as a newc archive."""

    def test_bytes(self) -> None:
        """The format, field by field: magic, 13 numbers, name and data padded to 4, trailer, padding."""
        archive = newc([regular("a", b"hello", 0o640)])
        # inode 1, mode 100640, root, 1 link, time 0, 5 bytes, devices 0, name of 2 bytes, no checksum
        fields = [1, 0o100640, 0, 0, 1, 0, 5, 0, 0, 0, 0, 2, 0]
        record = b"070701" + b"".join(b"%08X" % field for field in fields) + b"a\0" + b"hello\0\0\0"
        zeros = [b"0" * count for count in (32, 48, 8)]
        trailer = b"070701%b00000001%b0000000B%bTRAILER!!!\0" % tuple(zeros)
        assert archive[:120] == record
        assert archive[120 : 120 + len(trailer)] == trailer
        assert archive[120 + len(trailer) :].strip(b"\0") == b""
        assert len(archive) == 512

    def test_device(self) -> None:
        """A device node has its type, and its numbers where the kernel reads them."""
        archive = newc([character_device("console", 5, 1)])
        assert int(archive[14:22], 16) == stat.S_IFCHR | 0o600
        assert (int(archive[78:86], 16), int(archive[86:94], 16)) == (5, 1)

    @pytest.mark.parametrize("names", [["/a"], [""], ["a", "a"]])
    def test_names(self, names: list[str]) -> None:
        """A name that is absolute, empty or taken is refused."""
        with pytest.raises(ValueError, match="archive entry"):
            newc(regular(name, b"") for name in names)

    def test_same_bytes(self) -> None:
        """The same input gives the same archive; another script gives another."""
        assert first_root(b"b", b"i", b"s") == first_root(b"b", b"i", b"s")
        assert first_root(b"b", b"i", b"s") != first_root(b"b", b"i", b"t")

    def test_other_reader(self, tmp_path: Path) -> None:
        """A cpio that is not ours lists and unpacks it."""
        reader = shutil.which("cpio") or shutil.which("busybox")
        if reader is None:
            pytest.skip("neither cpio nor busybox is installed")
        command = [reader] if reader.endswith("cpio") else [reader, "cpio"]
        archive = newc([directory("d"), regular("d/one", b"1" * 4097, 0o755), regular("two", b"")])
        listed = subprocess.run([*command, "-t"], input=archive, capture_output=True, check=True)
        assert listed.stdout.split() == [b"d", b"d/one", b"two"]
        subprocess.run([*command, "-i"], input=archive, capture_output=True, check=True, cwd=tmp_path)
        assert (tmp_path / "d/one").read_bytes() == b"1" * 4097
        assert stat.S_IMODE((tmp_path / "d/one").stat().st_mode) == 0o755
        assert (tmp_path / "two").read_bytes() == b""

    def test_cached_by_content(self, cache: Path, environ: dict[str, str], tmp_path: Path) -> None:
        """The first root is written once; another busybox or script gives another file."""
        put_image(cache / "one")
        image = find_image(environ)
        if image.busybox != cache / "busybox":
            image = dataclasses.replace(image, busybox=cache / "busybox")
        first = initramfs(image, environ)
        written = first.stat().st_mtime_ns
        assert initramfs(image, environ) == first
        assert first.stat().st_mtime_ns == written
        for name in ("guest-init", "guest-stage2"):
            shutil.copyfile(HERE / name, tmp_path / name)
        (tmp_path / "guest-init").write_text("other", encoding="utf-8")
        assert initramfs(image, environ, tmp_path) != first
        assert sorted(cache.glob("*.new-*")) == []


class TestFindImage:
    """Which image is booted."""

    def test_cache_directory(self, tmp_path: Path) -> None:
        """The cache is in the checkout unless the environment names another place."""
        assert cache_directory({}) == HERE.parents[1] / ".cache/kernel"
        assert cache_directory({"RESCTRL_CACHE": str(tmp_path)}) == tmp_path / "kernel"

    def test_none(self, environ: dict[str, str]) -> None:
        """Without an image the error says how to get one."""
        with pytest.raises(NoImageError, match=r"python -m tests\.kernel\.build"):
            find_image(environ)

    def test_built(self, cache: Path, environ: dict[str, str]) -> None:
        """The newest intact image of our sources is taken; others are passed over."""
        old = put_image(cache / "old")
        new = put_image(cache / "new", version="6.12.2-1")
        put_image(cache / "foreign", sources={**source_digests(), "fakerdt.c": "0"})
        put_image(cache / "broken").write_bytes(bzimage() + b"x")
        (put_image(cache / "unreadable").parent / "image.json").write_text("{", encoding="utf-8")
        for number, name in enumerate(["old", "new", "foreign", "broken", "unreadable"]):
            os.utime(cache / name / "image.json", (number, number))
        image = find_image(environ)
        assert (image.bzimage, image.release) == (new, "6.12.1-test")
        assert image.origin == "built from p 6.12.2-1"
        shutil.rmtree(new.parent)
        assert find_image(environ).bzimage == old

    def test_no_busybox(self, cache: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a static busybox there is nothing to boot into; a dynamic one does not count."""
        put_image(cache / "one")
        monkeypatch.setattr(shutil, "which", lambda *_args, **_more: None)
        assert find_image(environ).busybox == cache / "busybox"
        (cache / "busybox").write_bytes(elf(1, 3))
        with pytest.raises(NoImageError, match="busybox-static"):
            find_image(environ)

    @pytest.mark.parametrize("whole_directory", [True, False])
    def test_prebuilt_recorded(self, environ: dict[str, str], tmp_path: Path, whole_directory: bool) -> None:
        """A prebuilt image, named as file or directory, is taken if its record names our sources."""
        file = put_image(tmp_path / "given")
        environ[PREBUILT] = str(file.parent if whole_directory else file)
        image = find_image(environ)
        assert image.bzimage == file
        assert image.origin == f"prebuilt {file}, recorded sources are this checkout's"

    def test_prebuilt_stale(self, environ: dict[str, str], tmp_path: Path) -> None:
        """A record of other sources, or of another file, is refused by name."""
        digests = source_digests()
        file = put_image(tmp_path / "given", sources={**digests, "fakerdt.h": "0", "hooks": "0"})
        environ[PREBUILT] = str(file)
        with pytest.raises(StaleImageError, match=r"fakerdt\.h, hooks differ"):
            find_image(environ)
        file = put_image(tmp_path / "other", bzimage="0")
        environ[PREBUILT] = str(file)
        with pytest.raises(StaleImageError, match="is not the file"):
            find_image(environ)

    def test_prebuilt_beside_sources(self, environ: dict[str, str], tmp_path: Path) -> None:
        """Without a record, the sources beside it must all be there and be ours, byte for byte."""
        (tmp_path / "bzImage").write_bytes(bzimage())
        for name in SOURCES:
            shutil.copyfile(HERE / name, tmp_path / Path(name).name)
        environ[PREBUILT] = str(tmp_path)
        origin = find_image(environ).origin
        assert origin == (
            f"prebuilt {tmp_path / 'bzImage'}, the sources beside it are this checkout's, "
            "hooks UNVERIFIED: nothing beside it says which were built in"
        )
        for name in SOURCES:
            file = tmp_path / Path(name).name
            good = file.read_bytes()
            file.write_bytes(good + b" ")
            with pytest.raises(StaleImageError, match=f"{file.name} differ"):
                find_image(environ)
            file.unlink()
            with pytest.raises(StaleImageError, match=f"{file.name} differ"):
                find_image(environ)
            file.write_bytes(good)
        find_image(environ)

    def test_prebuilt_alone(self, environ: dict[str, str], tmp_path: Path) -> None:
        """With nothing beside it the image is taken, and its origin says that nothing is known."""
        (tmp_path / "bzImage").write_bytes(bzimage())
        environ[PREBUILT] = str(tmp_path)
        assert "UNVERIFIED" in find_image(environ).origin

    def test_prebuilt_nonsense(self, environ: dict[str, str], tmp_path: Path) -> None:
        """A path that is no kernel is refused, whatever the cache holds."""
        environ[PREBUILT] = str(tmp_path)
        with pytest.raises(NoImageError, match="cannot read"):
            find_image(environ)
        (tmp_path / "bzImage").write_bytes(b"text" * 1000)
        with pytest.raises(NoImageError, match="not a bzImage"):
            find_image(environ)

    def test_release(self, tmp_path: Path) -> None:
        """The release is the first word of the kernel's version string."""
        (tmp_path / "k").write_bytes(bzimage("6.12.117"))
        assert kernel_release(tmp_path / "k") == "6.12.117"

    def test_static(self) -> None:
        """A program that names a loader is dynamic; what is no ELF program is not static."""
        assert is_static_program(elf(1, 1))
        assert not is_static_program(elf(1, 3))
        assert not is_static_program(b"#!/bin/sh\n")
        assert not is_static_program(Path(sys.executable).resolve().read_bytes())


class TestBuild:
    """The builder's own steps."""

    def test_refused_options(self) -> None:
        """An option that Kconfig dropped is named; one that is off, or not offered, counts as off."""
        fragment = "# words\nCONFIG_A=y\nCONFIG_B=8\n# CONFIG_C is not set\n# CONFIG_D is not set\n"
        assert refused_options(fragment, "CONFIG_A=y\nCONFIG_B=8\n# CONFIG_C is not set\n") == []
        assert refused_options(fragment, "CONFIG_A=m\nCONFIG_B=8\nCONFIG_C=y\n") == [
            "CONFIG_A=y", "# CONFIG_C is not set",
        ]  # fmt: skip

    def test_missing_tools(self, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Missing programs are named with the packages that bring them, before anything is begun."""
        monkeypatch.setenv("PATH", str(tmp_path))
        missing = missing_tools()
        assert missing.items() >= {"gcc": "gcc", "xz": "xz-utils", "bison": "bison"}.items()
        with pytest.raises(MissingToolsError, match="apt-get install") as caught:
            build.build_image("6.12.1-1", cache, jobs=1)
        assert {"gcc", "xz-utils"} <= set(caught.value.packages)
        assert [path.name for path in cache.iterdir()] == ["busybox"]

    def test_not_debian(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Without apt the error says so."""
        monkeypatch.setenv("PATH", str(tmp_path))
        assert debian.installed_version("gcc") is None
        with pytest.raises(PackageError, match="not a Debian system"):
            debian.candidate_version("gcc")

    def test_install_needs_root(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only root installs; to install nothing needs nobody."""
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        debian.install([])
        with pytest.raises(NotRootError, match="only root can install gcc"):
            debian.install(["gcc"])
        with pytest.raises(NotRootError):
            debian.refresh_lists()

    @pytest.mark.parametrize("missing", ["strace", "qemu-system-x86_64"])
    def test_install_brings_what_guests_use(self, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
        """Where all else is there, also the image: a guest runs this machine's strace, and QEMU runs it."""
        installed: list[str] = []
        monkeypatch.setattr(shutil, "which", lambda name: None if name == missing else f"/usr/bin/{name}")
        monkeypatch.setattr(debian, "install", installed.extend)
        monkeypatch.setattr(build, "package_version", lambda: "6.12.1-1")
        build._install_what_is_missing({PREBUILT: "/given"})
        assert installed == [missing.removesuffix("_64")]

    def test_step_failure(self, tmp_path: Path) -> None:
        """A failing step is named, with the end of its output."""
        with pytest.raises(BuildError, match=r"(?s)^shaping: status 3\n.*too hot$") as caught:
            build._step("shaping", ["sh", "-c", "echo too hot; exit 3"], tmp_path, tmp_path / "log")
        assert caught.value.step == "shaping"

    def test_step_limit(self, tmp_path: Path) -> None:
        """At its limit a step is ended with everything that it started."""
        script = f"sleep 1000 & echo $! > {tmp_path}/child; wait"
        with pytest.raises(BuildError, match="no end within 0 s"):
            build._step("waiting", ["sh", "-c", script], tmp_path, tmp_path / "log", limit=0.4)
        child = Path("/proc", (tmp_path / "child").read_text(encoding="ascii").strip())
        deadline = time.monotonic() + 10
        while child.exists() and "Z" not in (child / "stat").read_text(encoding="ascii"):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    @pytest.fixture
    def without_compiler(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The builder with the long parts replaced: what would be compiled is noted."""
        compiled: list[str] = []

        def compile_nothing(version: str, work: Path, log: Path, jobs: int) -> tuple[bytes, bytes]:
            compiled.append(version)
            log.write_text("log\n", encoding="utf-8")
            if version == "bad":
                raise BuildError("compiling", "status 2")
            return bzimage(), b"CONFIG_A=y\n"

        monkeypatch.setattr(build, "_compile", compile_nothing)
        monkeypatch.setattr(build, "missing_tools", dict)
        return compiled

    def test_cache_hit(
        self, without_compiler: list[str], environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A version is built once; a new one is built anew and then preferred; leftovers are removed."""
        versions = ["6.12.1-1"]
        monkeypatch.setattr(build, "package_version", lambda: versions[-1])
        left = cache_directory(environ) / "work-1"
        left.mkdir()
        first = build.ensure_image(environ, install=False, jobs=1)
        assert build.ensure_image(environ, install=False, jobs=1) == first
        assert without_compiler == ["6.12.1-1"]
        versions.append("6.12.2-1")
        second = build.ensure_image(environ, install=False, jobs=1)
        assert without_compiler == versions
        assert second.bzimage != first.bzimage
        assert not left.exists()
        assert sorted(path.name for path in second.bzimage.parent.iterdir()) == [
            "bzImage", "image.json", "kernel.config",
        ]  # fmt: skip

    def test_apt_does_not_know(
        self, without_compiler: list[str], environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without apt's lists a cached image of our sources serves; without one the error is apt's."""

        def unknown() -> str:
            raise PackageError("apt knows no package")

        monkeypatch.setattr(build, "package_version", unknown)
        with pytest.raises(PackageError):
            build.ensure_image(environ, install=False, jobs=1)
        put_image(cache_directory(environ) / "one")
        build.ensure_image(environ, install=False, jobs=1)
        assert without_compiler == []

    def test_prebuilt_is_not_built(
        self, without_compiler: list[str], environ: dict[str, str], tmp_path: Path
    ) -> None:
        """A prebuilt image needs no build and no package."""
        file = put_image(tmp_path / "given")
        image = build.ensure_image({**environ, PREBUILT: str(file)}, install=False, jobs=1)
        assert (image.bzimage, without_compiler) == (file, [])

    def test_failed_build(
        self, without_compiler: list[str], environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After a failure the log stays, and nothing that looks like an image."""
        monkeypatch.setattr(build, "package_version", lambda: "bad")
        with pytest.raises(BuildError):
            build.ensure_image(environ, install=False, jobs=1)
        names = {path.name for path in cache_directory(environ).iterdir()}
        assert names == {"busybox", "lock", "build-failed.log"}

    def test_command(
        self,
        without_compiler: list[str],
        environ: dict[str, str],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """The command prints the image's path, or its key; an error is one line and status 1."""
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv(PREBUILT, raising=False)
        monkeypatch.setattr(build, "package_version", lambda: "6.12.1-1")
        assert build.main(["--print-key"]) == 0
        key = capsys.readouterr().out.strip()
        assert build.main([]) == 0
        printed = capsys.readouterr()
        assert Path(printed.out.strip()) == cache_directory(environ) / key / "bzImage"
        assert "Linux 6.12.1-test, built from linux-source-6.12 6.12.1-1" in printed.err
        monkeypatch.setattr(build, "package_version", lambda: "bad")
        assert build.main([]) == 1
        assert capsys.readouterr().err == "build: compiling: status 2\n"
