"""Writes the archive a Linux kernel unpacks as its first root ("newc" cpio), the same bytes each time.

Owns: the format (kernel: Documentation/driver-api/early-userspace/buffer-format.rst) and what the guest's
first root holds. Must not know: where the archive is kept. Written in Python, so it needs neither the `cpio`
program nor root for device nodes.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Entry", "character_device", "directory", "first_root", "newc", "regular"]

_MAGIC: Final = b"070701"
_TRAILER: Final = "TRAILER!!!"
_BLOCK: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing in the archive; the owner is root and the time is 0.

    Attributes:
        name: Path without a leading slash. Its directory must stand before it.
        mode: Type and permission bits, as in `st_mode`.
        data: Content of a regular file.
        device: Major and minor number of a device node.
    """

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(name: str, permissions: int = 0o755) -> Entry:
    """Return an entry for a directory."""
    return Entry(name=name, mode=stat.S_IFDIR | permissions)


def regular(name: str, data: bytes, permissions: int = 0o644) -> Entry:
    """Return an entry for a file."""
    return Entry(name=name, mode=stat.S_IFREG | permissions, data=data)


def character_device(name: str, major: int, minor: int, permissions: int = 0o600) -> Entry:
    """Return an entry for a character device node."""
    return Entry(name=name, mode=stat.S_IFCHR | permissions, device=(major, minor))


def _padded(data: bytes, to: int = 4) -> bytes:
    return data + b"\0" * (-len(data) % to)


def _record(number: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    return _padded(_MAGIC + b"".join(b"%08X" % field for field in fields) + name) + _padded(entry.data)


def newc(entries: Iterable[Entry]) -> bytes:
    """Return the archive of the entries, in their order.

    Raises:
        ValueError: A name is absolute, empty, or taken twice.
    """
    names: set[str] = set()
    records: list[bytes] = []
    for number, entry in enumerate(entries, start=1):
        if not entry.name or entry.name.startswith("/") or entry.name in names:
            raise ValueError(f"not a name for an archive entry, or one taken twice: {entry.name!r}")
        names.add(entry.name)
        records.append(_record(number, entry))
    records.append(_record(0, Entry(name=_TRAILER, mode=0)))
    return _padded(b"".join(records), _BLOCK)


def first_root(busybox: bytes, init: bytes, stage2: bytes) -> bytes:
    """Return the archive of the guest's first root: a static busybox, the two scripts, their directories.

    The same input gives the same bytes, so that a cache can go by content.
    """
    return newc(
        [
            directory("bin"),
            regular("bin/busybox", busybox, 0o755),
            directory("dev"),
            character_device("dev/console", 5, 1),
            directory("proc"),
            directory("sys"),
            regular("init", init, 0o755),
            regular("stage2", stage2, 0o755),
        ]
    )
