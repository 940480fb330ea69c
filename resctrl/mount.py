"""Whether resctrl is there, and mounting it.

Owns: the reading of /proc/self/mountinfo and /proc/filesystems, and what to make of a refused mount(2).
Must not know: groups.

Rules:
    1. Mounted is what mountinfo says. The directory /sys/fs/resctrl exists on every kernel that knows
       resctrl, mounted or not, so its existence proves nothing.
    2. There is one resctrl for the whole machine: where it is mounted already, mount(2) says EBUSY. That is
       success if it turns out to be mounted where it is wanted, and a plain error otherwise.
    3. All reading goes through the provider.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import frozen

from resctrl.errors import NotMountedError, Operation, UnsupportedError, translate
from resctrl.model import SupportInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resctrl.fs import FsProvider

__all__ = ["MountEntry", "detect_support", "ensure_mounted", "is_mounted", "mount_at", "parse_mountinfo"]

_MOUNTINFO: Final = Path("/proc/self/mountinfo")
_FILESYSTEMS: Final = Path("/proc/filesystems")
_FS_TYPE: Final = "resctrl"
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
_FIELDS_BEFORE_OPTIONAL: Final = 6
_FIELDS_AFTER_SEPARATOR: Final = 3


@frozen
class MountEntry:
    """One line of mountinfo, as far as it matters here.

    Attributes:
        root: The directory of the file system that is the root of this mount; `/` unless it is a bind mount
            of a part.
        mount_point: Where it is mounted, in the reader's root.
        fs_type: Type of the file system.
        options: Of this mount.
        fs_options: Of the file system, wherever it is mounted.
    """

    root: str
    mount_point: Path
    fs_type: str
    options: tuple[str, ...] = ()
    fs_options: tuple[str, ...] = ()


def _unescape(field: str) -> str:
    r"""Undo the kernel's octal escapes (\040 space, \011 tab, \012 newline, \134 backslash)."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)


def parse_mountinfo(text: str) -> Iterator[MountEntry]:
    """Yield the mounts that /proc/self/mountinfo lists, in its order; lines of another shape are skipped.

    Source: Documentation/filesystems/proc.rst, 3.5. The number of optional fields before the ` - ` varies.
    """
    for line in text.split("\n"):
        # The kernel escapes every space inside a field, so a bare " - " can only be the separator.
        left, separator, right = line.partition(" - ")
        before, after = left.split(" "), right.split(" ")
        if not separator or len(before) < _FIELDS_BEFORE_OPTIONAL or len(after) < _FIELDS_AFTER_SEPARATOR:
            continue
        yield MountEntry(
            _unescape(before[3]),
            Path(_unescape(before[4])),
            _unescape(after[0]),
            tuple(_unescape(before[5]).split(",")),
            tuple(_unescape(after[2]).split(",")),
        )


def _resctrl_mounts(fs: FsProvider) -> dict[Path, MountEntry]:
    """Return where a whole resctrl can be reached; what another mount covers is left out."""
    top: dict[Path, MountEntry] = {}
    for entry in parse_mountinfo(fs.read_text(_MOUNTINFO)):
        top[entry.mount_point] = entry  # a later mount on the same directory hides the earlier one
    return {point: entry for point, entry in top.items() if entry.fs_type == _FS_TYPE and entry.root == "/"}


def _kernel_knows_resctrl(fs: FsProvider) -> bool:
    return any(line.split("\t")[-1] == _FS_TYPE for line in fs.read_text(_FILESYSTEMS).splitlines())


def mount_at(fs: FsProvider, root: Path) -> MountEntry | None:
    """Return how resctrl is mounted at `root`, or None where it is not.

    Raises:
        OSError: mountinfo cannot be read.
    """
    return _resctrl_mounts(fs).get(root)


def is_mounted(fs: FsProvider, root: Path) -> bool:
    """Tell whether resctrl is mounted at `root`.

    Raises:
        ResctrlError: mountinfo cannot be read.
    """
    with translate(Operation.DETECT, _MOUNTINFO):
        return root in _resctrl_mounts(fs)


def detect_support(fs: FsProvider, root: Path) -> SupportInfo:
    """Find out what this machine offers; nothing is changed.

    Raises:
        ResctrlError: /proc cannot be read.
    """
    with translate(Operation.DETECT, _MOUNTINFO):
        mounts = list(_resctrl_mounts(fs))
    with translate(Operation.DETECT, _FILESYSTEMS):
        kernel_support = _kernel_knows_resctrl(fs)
    mounted = root in mounts
    with translate(Operation.DETECT, root):
        return SupportInfo(
            kernel_support=kernel_support,
            mount_point=root if mounted else (mounts[0] if mounts else None),
            mounted=mounted,
            writable=mounted and _writable(fs, root / "tasks"),
            monitoring=mounted and fs.exists(root / "info" / "L3_MON"),
        )


def _writable(fs: FsProvider, path: Path) -> bool:
    try:
        return fs.can_open_for_write(path)
    except FileNotFoundError:  # unmounted since mountinfo was read
        return False


def not_mounted(
    support: SupportInfo, operation: Operation, root: Path, number: int | None = None
) -> NotMountedError:
    """Return the error for a root without resctrl, with the hint that fits what was found."""
    hint: str | None = None
    if support.mount_point is not None:
        hint = (
            f"it is mounted at {str(support.mount_point)!r}, and can be mounted only once: use that as root"
        )
    elif not support.kernel_support:
        hint = "this kernel or processor has no resctrl at all (see /proc/filesystems)"
    elif number == errno.EBUSY:
        hint = "it is mounted where this process cannot see it, in another mount namespace"
    return NotMountedError(operation, root, errno=number, hint=hint)


def ensure_mounted(fs: FsProvider, root: Path, *, auto_mount: bool) -> None:
    """Make sure that resctrl is mounted at `root`.

    Args:
        fs: The provider.
        root: Where it must be mounted; made if it is absent and `auto_mount` is set.
        auto_mount: Mount it where it is not. A mount made in a private mount namespace keeps everybody else
            out while it lives, and destroys all groups when it ends.

    Raises:
        NotMountedError: It is not mounted there, and may not or cannot be.
        UnsupportedError: This kernel or processor has no resctrl.
        NoPermissionError: The caller may not mount.
    """
    support = detect_support(fs, root)
    if support.mounted:
        return
    if not auto_mount:
        raise not_mounted(support, Operation.MOUNT, root)
    if not support.kernel_support:
        raise UnsupportedError(Operation.MOUNT, root, detail="resctrl is not in /proc/filesystems")
    refusal: OSError | None = None
    with translate(Operation.MOUNT, root):
        _make_mount_point(fs, root)
        try:
            fs.mount_resctrl(root)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            refusal = error
    support = detect_support(fs, root)
    if not support.mounted:
        raise not_mounted(
            support, Operation.MOUNT, root, errno.EBUSY if refusal is not None else None
        ) from refusal


def _make_mount_point(fs: FsProvider, root: Path) -> None:
    if fs.exists(root):
        return
    try:
        fs.create_dir(root)
    except FileExistsError:
        return
