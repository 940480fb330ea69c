"""The system calls of the fake: what the kernel answers before and around resctrl.

Owns: the walk to a file, permissions, mount points, held descriptors, /proc, the lock. Must not know: what
resctrl does inside (`resctrl.testing.kernel`), how a test drives its world.

It is long, a short method for each call: apart they would lose the order of checks that they share.

Rules:
    1. Checks stand in the order in which the VFS makes them: of several things wrong, the first is told.
    2. Each system call is atomic; between the chunks of one `write_all` other calls may come.
    3. What is not modelled raises NotImplementedError; nothing is pretended.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from resctrl.fs import WriteError
from resctrl.testing.nodes import FileSystem, Lookup, Node, Refusal, fail, lookup
from resctrl.testing.proc import filesystems, mountinfo, thread_dirs
from resctrl.testing.tasks_text import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from resctrl.fs import Reader
    from resctrl.testing.kernel import Kernel

__all__ = ["SYSFS_MOUNT_POINT", "Privilege", "Vfs"]

SYSFS_MOUNT_POINT: Final = Path("/sys/fs/resctrl")
"""The directory that the kernel keeps for resctrl."""

_MOUNTED: Final = frozenset({FileSystem.PROC, FileSystem.SYSFS})
"""What is mounted from the beginning, so that its root cannot be removed."""


class Privilege(Enum):
    """Who calls."""

    ROOT = "root"
    NO_DAC_OVERRIDE = "root without CAP_DAC_OVERRIDE"
    """May write files, may not make or remove groups at the root: those directories are 0555 (K95)."""
    USER = "user"
    """May read, and nothing else (K96)."""


class _FakeReader:
    """A file of the fake, held open."""

    def __init__(self, fs: Vfs, node: Node, path: Path) -> None:
        self._fs = fs
        self._node = node
        self._path = path
        self._open = True

    def read(self) -> str:
        """Return the whole text as it is now; OSError ENODEV once the group is gone (K93)."""
        if not self._open:
            raise ValueError("the reader is closed")
        return self._fs._read(self._node, self._path)  # noqa: SLF001 - the reader is part of the fake

    def read_page(self) -> str:
        """Return the first page of the text as it is now."""
        return self.read()[:PAGE_SIZE]

    def close(self) -> None:
        """Let the file go; the second time does nothing."""
        if self._open:
            self._open = False
            self._fs._let_go(self._node)  # noqa: SLF001 - as above

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Vfs:
    """An `FsProvider` over a tree of nodes and a resctrl kernel.

    Attributes:
        privilege: Who calls; may be changed at any time.
    """

    def __init__(
        self, kernel: Kernel, root: Path, *, supported: bool, privilege: Privilege, proc_groups: bool
    ) -> None:
        self.privilege = privilege
        self._kernel = kernel
        self._supported = supported
        self._read_only = False
        self._lock = threading.RLock()
        self._held: list[Node] = []
        self._mount_node: Node | None = None
        self._tree = self._base_tree(root)
        self._add_threads(proc_groups=proc_groups)

    # FsProvider

    def exists(self, path: Path) -> bool:
        """Tell whether something is there."""
        with self._lock:
            try:
                return lookup(self._tree, path).node is not None
            except (FileNotFoundError, NotADirectoryError):
                return False

    def create_dir(self, path: Path) -> None:
        """Call mkdir(2)."""
        with self._lock:
            found = lookup(self._tree, path)
            parent = found.parent
            if found.node is not None:
                fail(errno.EEXIST, path)
            if parent.fs in {FileSystem.MOUNT_POINT, FileSystem.PROC}:
                fail(errno.ENOENT, path)
            self._require_change(parent, path)
            with self._refusals(path):
                if parent.fs is FileSystem.RESCTRL:
                    self._kernel.mkdir(parent, found.name)
                elif parent.fs is FileSystem.SYSFS:
                    fail(errno.EPERM, path)
                else:
                    parent.add_dir(found.name)

    def remove_dir(self, path: Path) -> None:
        """Call rmdir(2)."""
        with self._lock:
            found = lookup(self._tree, path)
            if found.name == "..":
                fail(errno.ENOTEMPTY, path)
            if found.name == "":
                fail(errno.EBUSY, path)
            if self._read_only and found.parent.fs is FileSystem.RESCTRL:
                fail(errno.EROFS, path)
            node = self._present(found, path)
            self._require_change(found.parent, path)
            if not node.is_dir:
                fail(errno.ENOTDIR, path)
            if found.mount_point or (node.fs in _MOUNTED and node.fs is not found.parent.fs):
                fail(errno.EBUSY, path)
            with self._refusals(path):
                if found.parent.fs is FileSystem.RESCTRL:
                    self._kernel.rmdir(node)
                elif found.parent.fs is not FileSystem.PLAIN:
                    fail(errno.EPERM, path)
                elif node.entries:
                    fail(errno.ENOTEMPTY, path)
                else:
                    node.remove()

    def rename(self, source: Path, target: Path) -> None:
        """Give a directory another name or parent."""
        with self._lock:
            old, new = lookup(self._tree, source), lookup(self._tree, target)
            self._check_rename(old, new, source)
            node = self._present(old, source)
            if new.node is node:
                return
            with self._refusals(source):
                if old.parent.fs is FileSystem.RESCTRL:
                    self._kernel.rename(node, new.parent, new.name)
                elif old.parent.fs is FileSystem.PLAIN:
                    raise NotImplementedError(f"the fake does not rename {str(source)!r}")
                else:
                    fail(errno.EPERM, source)

    def read_text(self, path: Path) -> str:
        """Return the whole text of a file."""
        with self._lock:
            return self._read(self._file(path), path)

    def read_child_dirs(self, path: Path) -> list[str]:
        """Return the names of the child directories, sorted."""
        with self._lock:
            node = self._present(lookup(self._tree, path), path)
            if not node.is_dir:
                fail(errno.ENOTDIR, path)
            return sorted(name for name, child in node.entries.items() if child.is_dir)

    def read_child_files(self, path: Path) -> list[str]:
        """Return the names of the files in a directory, sorted."""
        with self._lock:
            node = self._present(lookup(self._tree, path), path)
            if not node.is_dir:
                fail(errno.ENOTDIR, path)
            return sorted(name for name, child in node.entries.items() if not child.is_dir)

    def identity(self, path: Path) -> int:
        """Return the inode number."""
        with self._lock:
            return self._find(path).number

    def can_open_for_write(self, path: Path) -> bool:
        """Open an existing file for writing and close it again."""
        with self._lock:
            try:
                self._writable_file(path)
            except OSError as error:
                if error.errno in {errno.EACCES, errno.EROFS}:
                    return False
                raise
            return True

    def mount_resctrl(self, target: Path) -> None:
        """Call mount(2)."""
        with self._lock:
            self._mount(target, self.privilege)

    def write_all(
        self,
        path: Path,
        chunks: Iterable[bytes],
        *,
        go_on: Callable[[WriteError], bool] | None = None,
    ) -> int:
        """Open an existing file once and give each chunk its own write(2)."""
        written = 0
        try:
            with self._lock:
                node, store = self._writable_file(path)
                self._held.append(node)
        except OSError as error:
            raise _write_error(error, 0) from error
        try:
            for chunk in chunks:  # unlocked: what makes the chunks may look at the fake, or change it
                try:
                    with self._lock, self._refusals(path):
                        if node.removed:
                            fail(errno.ENODEV, path)
                        store(chunk)
                except OSError as error:
                    failure = _write_error(error, written)
                    if go_on is None or not go_on(failure):
                        raise failure from error
                else:
                    written += 1
        finally:
            self._let_go(node)
        return written

    def open_reader(self, path: Path) -> Reader:
        """Open a file that will be read many times."""
        with self._lock:
            node = self._file(path)
            self._held.append(node)
            return _FakeReader(self, node, path)

    # Within

    def _base_tree(self, root: Path) -> Node:
        tree = Node("", FileSystem.PLAIN, children={})
        tree.add_dir("proc").fs = FileSystem.PROC
        proc_self = tree.entries["proc"].add_dir("self")
        proc_self.add_file("mountinfo", self._mountinfo)
        tree.entries["proc"].add_file("filesystems", self._filesystems)
        sys = tree.add_dir("sys")
        sys.fs = FileSystem.SYSFS
        sys_fs = sys.add_dir("fs")
        if self._supported:
            sys_fs.add_dir("resctrl").fs = FileSystem.MOUNT_POINT
        if root.is_relative_to(sys.path()):
            if root != SYSFS_MOUNT_POINT:
                raise ValueError(f"nothing but {SYSFS_MOUNT_POINT} is a mount point in sysfs")
            return tree
        node = tree
        for part in root.parts[1:]:
            node = node.entries.get(part) or node.add_dir(part)
        return tree

    def _add_threads(self, *, proc_groups: bool) -> None:
        """Let /proc tell of the threads."""
        proc, kernel = self._tree.entries["proc"], self._kernel
        proc.find = thread_dirs(proc, kernel.tasks.lives, kernel.proc_groups if proc_groups else None)
        if proc_groups:
            proc.entries["self"].add_file("cpu_resctrl_groups", lambda: kernel.proc_groups(kernel.own_tid()))

    def _filesystems(self) -> str:
        return filesystems(supported=self._supported)

    def _mountinfo(self) -> str:
        point = self._mount_node.path() if self._mount_node is not None else None
        return mountinfo(point, read_only=self._read_only)

    @contextmanager
    def _refusals(self, path: Path) -> Iterator[None]:
        try:
            yield
        except Refusal as refusal:
            number = refusal.number
            raise OSError(number, os.strerror(number), str(path)) from None

    def _find(self, path: Path) -> Node:
        return self._present(lookup(self._tree, path), path)

    def _present(self, found: Lookup, path: Path) -> Node:
        if found.node is None:
            fail(errno.ENOENT, path)
        return found.node

    def _require_change(self, directory: Node, path: Path) -> None:
        """Check that the caller may change the entries of a directory."""
        if self._read_only and directory.fs is FileSystem.RESCTRL:
            fail(errno.EROFS, path)
        self._require_mode(directory, path)

    def _require_mode(self, directory: Node, path: Path) -> None:
        if self.privilege is Privilege.ROOT:
            return
        if self.privilege is Privilege.USER or not directory.owner_writable:
            fail(errno.EACCES, path)

    def _check_rename(self, old: Lookup, new: Lookup, path: Path) -> None:
        """Answer as do_renameat2 does (K30)."""
        if _mount_of(old.parent) is not _mount_of(new.parent):
            fail(errno.EXDEV, path)
        if {old.name, new.name} & {"..", ""}:
            fail(errno.EBUSY, path)
        if self._read_only and old.parent.fs is FileSystem.RESCTRL:
            fail(errno.EROFS, path)
        node = self._present(old, path)
        if new.parent.fs is FileSystem.MOUNT_POINT:  # nothing can even be looked up there (empty_dir_lookup)
            fail(errno.ENOENT, path)
        if any(above is node for above in new.parent.ancestors()):
            fail(errno.EINVAL, path)
        if new.node is not None and any(above is new.node for above in old.parent.ancestors()):
            fail(errno.ENOTEMPTY, path)
        if new.node is not node:
            self._check_vfs_rename(old, node, new, path)

    def _check_vfs_rename(self, old: Lookup, node: Node, new: Lookup, path: Path) -> None:
        """Answer as vfs_rename does."""
        self._require_mode(old.parent, path)
        self._require_mode(new.parent, path)
        if new.node is not None and node.is_dir != new.node.is_dir:
            fail(errno.ENOTDIR if node.is_dir else errno.EISDIR, path)
        if node.is_dir and old.parent is not new.parent:
            self._require_mode(node, path)
        if old.mount_point or new.mount_point:
            fail(errno.EBUSY, path)

    def _file(self, path: Path) -> Node:
        node = self._find(path)
        if node.is_dir:
            fail(errno.EISDIR, path)
        return node

    def _writable_file(self, path: Path) -> tuple[Node, Callable[[bytes], None]]:
        node = self._file(path)
        if self._read_only and node.fs is FileSystem.RESCTRL:
            fail(errno.EROFS, path)
        if self.privilege is Privilege.USER or node.store is None:
            fail(errno.EACCES, path)  # even root may not write a 0444 file of kernfs (K94)
        return node, node.store

    def _read(self, node: Node, path: Path) -> str:
        with self._lock:
            if node.removed or node.show is None:
                fail(errno.ENODEV, path)
            with self._refusals(path):
                return node.show()

    def _let_go(self, node: Node) -> None:
        with self._lock:
            self._held.remove(node)

    def _mount(self, target: Path, privilege: Privilege) -> None:
        node = self._find(target)
        if privilege is Privilege.USER:
            fail(errno.EPERM, target)
        if not self._supported:
            fail(errno.ENODEV, target)
        with self._refusals(target):
            if not node.is_dir:  # noticed after the file system has been made, so EBUSY comes first (K82)
                self._kernel.mount()
                self._kernel.unmount()
                fail(errno.ENOTDIR, target)
            self._mount_at(node)

    def _mount_at(self, node: Node) -> None:
        root = self._kernel.mount()
        root.covers = node
        node.mounted = root
        self._mount_node = node


def _mount_of(node: Node) -> FileSystem:
    """Return which mount a node belongs to: the empty directory for resctrl is one of sysfs."""
    return FileSystem.SYSFS if node.fs is FileSystem.MOUNT_POINT else node.fs


def _write_error(error: OSError, written: int) -> WriteError:
    number = error.errno if error.errno is not None else errno.EIO
    return WriteError(number, os.strerror(number), str(error.filename), written)
