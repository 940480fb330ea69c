"""The guest image: what it is made of, where it is cached, and whether one at hand belongs to this checkout.

Owns: content hashes, the cache's layout, the check of prebuilt images, the initramfs. Must not know: how a
kernel is compiled (build.py) or booted (vm.py).

Rules:
    1. An image counts only if it was made from these sources: config, model and hooks, compared by content.
    2. The initramfs is no part of that: it is made here, from the scripts beside this file, in a moment.
    3. Whatever appears in the cache appears whole, by rename.

Cache (`RESCTRL_CACHE`, default `.cache/` in the checkout), all below `kernel/`:
    <key>/{bzImage,image.json,kernel.config}   one image; the key is a hash of sources and package version
    initramfs-<hash>.gz                        the first root, by the hash of its content
    busybox                                    a static busybox, where the machine has none
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.kernel.cpio import first_root
from tests.kernel.errors import NoImageError, StaleImageError
from tests.kernel.hooks import HOOKS, Hook

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "HERE",
    "PREBUILT",
    "SOURCES",
    "Image",
    "cache_directory",
    "find_image",
    "find_static_busybox",
    "hooks_digest",
    "image_key",
    "initramfs",
    "is_static_program",
    "kernel_release",
    "publish",
    "sha256",
    "source_digests",
]

HERE: Final = Path(__file__).resolve().parent
PREBUILT: Final = "RESCTRL_KERNEL_IMAGE"
"""Environment variable: a bzImage, or a directory that holds one, to be used instead of an own build."""
SOURCES: Final = ("resctrl-guest.config", "model/fakerdt.c", "model/fakerdt.h")
"""What goes into the bzImage beside Debian's source, relative to this directory."""

_PT_INTERP: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A kernel to boot.

    Attributes:
        bzimage: The kernel.
        busybox: A static busybox for the first root.
        release: The kernel's own version string.
        origin: Where it comes from and what is known about its sources; for people and logs.
    """

    bzimage: Path
    busybox: Path
    release: str
    origin: str


def sha256(data: bytes) -> str:
    """Return the hash that everything here goes by, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def hooks_digest(hooks: Sequence[Hook] = HOOKS) -> str:
    """Return a hash over everything that the hooks say."""
    rows = [[hook.name, hook.file, hook.anchor, hook.place.value, hook.text] for hook in hooks]
    return sha256(json.dumps(rows).encode())


def source_digests(sources: Path = HERE, hooks: Sequence[Hook] = HOOKS) -> dict[str, str]:
    """Return the content hash of each source of an image, by file name, and that of the hooks."""
    digests = {Path(name).name: sha256((sources / name).read_bytes()) for name in SOURCES}
    return {**digests, "hooks": hooks_digest(hooks)}


def image_key(digests: Mapping[str, str], version: str) -> str:
    """Return the name under which an image of these sources and this package version is cached."""
    return sha256(json.dumps([dict(digests), version], sort_keys=True).encode())[:24]


def cache_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory for images and what belongs to them; it need not exist yet."""
    root = environ.get("RESCTRL_CACHE")
    return (Path(root).resolve() if root else HERE.parents[1] / ".cache") / "kernel"


def publish(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file so that it is there whole or not at all, whoever else writes it."""
    new = path.with_name(f"{path.name}.new-{os.getpid()}")
    new.write_bytes(data)
    new.chmod(mode)
    new.rename(path)


def kernel_release(bzimage: Path) -> str:
    """Return the version string of a bzImage (kernel: Documentation/arch/x86/boot.rst, kernel_version).

    Raises:
        NoImageError: The file is not a bzImage, or cannot be read.
    """
    try:
        head = bzimage.read_bytes()[: 1 << 16]
    except OSError as error:
        raise NoImageError(f"cannot read {bzimage}: {error.strerror}") from error
    if head[0x202:0x206] != b"HdrS":
        raise NoImageError(f"{bzimage} is not a bzImage")
    start = struct.unpack_from("<H", head, 0x20E)[0] + 0x200
    return head[start : start + 256].split(b"\0")[0].split(b" ")[0].decode("ascii", "replace")


def is_static_program(data: bytes) -> bool:
    """Tell whether this is a 64-bit ELF program that asks for no loader."""
    if data[:5] != b"\x7fELF\x02":
        return False
    (offset,) = struct.unpack_from("<Q", data, 0x20)
    size, count = struct.unpack_from("<HH", data, 0x36)
    kinds = [struct.unpack_from("<I", data, offset + number * size)[0] for number in range(count)]
    return _PT_INTERP not in kinds


def find_static_busybox(cache: Path) -> Path | None:
    """Return a static busybox of this machine or of the cache, or None."""
    installed = shutil.which("busybox", path="/bin:/usr/bin")
    for path in ([Path(installed)] if installed else []) + [cache / "busybox"]:
        if path.is_file() and is_static_program(path.read_bytes()):
            return path
    return None


def _same_sources(recorded: Mapping[str, object], what: str) -> None:
    """Raise StaleImageError, naming what differs, unless these are the digests of our sources."""
    ours = source_digests()
    differing = sorted(name for name in {*ours, *recorded} if recorded.get(name) != ours.get(name))
    if differing:
        raise StaleImageError(
            f"{what} was made from other sources than this checkout's: {', '.join(differing)} differ"
        )


def _record_of(directory: Path) -> dict[str, object] | None:
    try:
        record = json.loads((directory / "image.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("sources"), dict) else None


def _is_intact(bzimage: Path, record: Mapping[str, object]) -> bool:
    return bzimage.is_file() and sha256(bzimage.read_bytes()) == record.get("bzimage")


def _prebuilt(path: Path) -> tuple[Path, str]:
    """Return a prebuilt kernel and what is known about it, or raise StaleImageError or NoImageError."""
    bzimage = path / "bzImage" if path.is_dir() else path
    kernel_release(bzimage)
    directory = bzimage.parent
    record = _record_of(directory)
    if record is not None:
        recorded = record["sources"]
        assert isinstance(recorded, dict)
        _same_sources(recorded, str(bzimage))
        if not _is_intact(bzimage, record):
            raise StaleImageError(f"{bzimage} is not the file that {directory / 'image.json'} speaks of")
        return bzimage, f"prebuilt {bzimage}, recorded sources are this checkout's"
    beside = {Path(name).name: directory / Path(name).name for name in SOURCES}
    if not any(file.exists() for file in beside.values()):
        return bzimage, f"prebuilt {bzimage}, UNVERIFIED: nothing beside it says what it was made from"
    found = {name: sha256(file.read_bytes()) for name, file in beside.items() if file.is_file()}
    # Such a directory keeps no hooks: they are taken as given, the rest must agree byte for byte.
    _same_sources({**found, "hooks": hooks_digest()}, str(bzimage))
    return bzimage, (
        f"prebuilt {bzimage}, the sources beside it are this checkout's, "
        "hooks UNVERIFIED: nothing beside it says which were built in"
    )


def _built(cache: Path) -> tuple[Path, str]:
    """Return the newest cached kernel of our sources, or raise NoImageError."""
    ours = source_digests()
    fitting: list[tuple[float, Path, dict[str, object]]] = []
    for file in cache.glob("*/image.json"):
        record = _record_of(file.parent)
        bzimage = file.with_name("bzImage")
        if record is not None and record["sources"] == ours and _is_intact(bzimage, record):
            fitting.append((file.stat().st_mtime, bzimage, record))
    if not fitting:
        raise NoImageError(
            f"no guest image of this checkout's sources in {cache}: run python -m tests.kernel.build, "
            f"or name a prebuilt one in {PREBUILT}"
        )
    _, bzimage, record = max(fitting, key=lambda row: row[0])
    return bzimage, f"built from {record.get('package')} {record.get('version')}"


def find_image(environ: Mapping[str, str] = os.environ) -> Image:
    """Return the image to boot: the prebuilt one where one is named, otherwise one of the cache.

    Raises:
        NoImageError: There is none, or no static busybox to go with it.
        StaleImageError: The prebuilt one was made from other sources.
    """
    cache = cache_directory(environ)
    named = environ.get(PREBUILT)
    bzimage, origin = _prebuilt(Path(named).resolve()) if named else _built(cache)
    busybox = find_static_busybox(cache)
    if busybox is None:
        raise NoImageError(
            "no static busybox: install busybox-static, or let python -m tests.kernel.build fetch it"
        )
    return Image(bzimage=bzimage, busybox=busybox, release=kernel_release(bzimage), origin=origin)


def initramfs(image: Image, environ: Mapping[str, str] = os.environ, sources: Path = HERE) -> Path:
    """Return the file of the guest's first root, made now unless the cache has one of the same content."""
    scripts = [(sources / name).read_bytes() for name in ("guest-init", "guest-stage2")]
    archive = first_root(image.busybox.read_bytes(), *scripts)
    path = cache_directory(environ) / f"initramfs-{sha256(archive)[:24]}.gz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        publish(path, gzip.compress(archive, mtime=0))
    return path
