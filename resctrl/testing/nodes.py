"""Directories and files, and how a path is walked.

Owns: the tree, the walk, the mount crossing. Must not know: what resctrl does with its nodes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from enum import Enum
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FileSystem", "Lookup", "Node", "Refusal", "fail", "lookup", "refuse"]

_PATH_MAX: Final = 4096


class FileSystem(Enum):
    """Which file system a node belongs to."""

    PLAIN = "plain"
    SYSFS = "sysfs"
    MOUNT_POINT = "sysfs mount point"
    """The always empty directory that sysfs keeps for a file system to be mounted on."""
    PROC = "proc"
    RESCTRL = "resctrl"


@define(eq=False)
class Node:
    """A directory (it has children) or a file (it has none).

    Attributes:
        name: Its name in the parent.
        fs: The file system it belongs to.
        parent: The directory it stands in, or None for a root.
        children: Its entries, or None for a file.
        owner_writable: For a directory, whether its owner may change it by mode (0755) or not (0555).
        show: Returns a file's text.
        store: Takes one write(2) to a file; None for a file of mode 0444.
        owner: What the owner of the node finds it by (kernfs's priv).
        removed: Taken out of the tree; who holds it open gets ENODEV.
        mounted: The root of what is mounted here.
        covers: For the root of a mounted file system, the node it is mounted on.
        number: Its inode number: no other node of this root has or had it (K99).
        numbers: Where those come from.
        find: Makes an entry of a directory that is not kept in `children`, or returns None.
    """

    name: str
    fs: FileSystem
    parent: Node | None = None
    children: dict[str, Node] | None = None
    owner_writable: bool = True
    show: Callable[[], str] | None = None
    store: Callable[[bytes], None] | None = None
    owner: object = None
    removed: bool = False
    mounted: Node | None = None
    covers: Node | None = field(default=None, repr=False)
    number: int = field(init=False)
    numbers: count[int] = field(init=False, repr=False)
    find: Callable[[str], Node | None] | None = field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        self.numbers = self.parent.numbers if self.parent is not None else count(1)
        self.number = next(self.numbers)

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return self.children is not None

    @property
    def entries(self) -> dict[str, Node]:
        """The children of a directory."""
        if self.children is None:
            raise TypeError(f"{self.name!r} is a file")
        return self.children

    def entry(self, name: str) -> Node | None:
        """Return what has a name in a directory."""
        child = self.entries.get(name)
        return self.find(name) if child is None and self.find is not None else child

    def add_dir(self, name: str, *, owner_writable: bool = True, owner: object = None) -> Node:
        """Make a directory in this one."""
        node = Node(name, self.fs, self, {}, owner_writable=owner_writable, owner=owner)
        self.entries[name] = node
        return node

    def add_file(
        self, name: str, show: Callable[[], str], store: Callable[[bytes], None] | None = None
    ) -> Node:
        """Make a file in this directory."""
        node = Node(name, self.fs, self, show=show, store=store)
        self.entries[name] = node
        return node

    def remove(self) -> None:
        """Take the node and everything below it out of the tree."""
        if self.parent is not None:
            del self.parent.entries[self.name]
        for node in self.walk():
            node.removed = True

    def walk(self) -> Iterator[Node]:
        """Yield the node and everything below it."""
        yield self
        for child in list((self.children or {}).values()):
            yield from child.walk()

    def ancestors(self) -> Iterator[Node]:
        """Yield the node and what it stands in, up to the root of its file system."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent

    def path(self) -> Path:
        """Return the absolute path."""
        node = self.covers if self.covers is not None else self
        return node.parent.path() / node.name if node.parent is not None else Path("/")


@define(frozen=True)
class Lookup:
    """What a path led to.

    Attributes:
        parent: The directory that the last component was looked up in; `/` is its own.
        name: The last component ("" for `/`, ".." stays as it is).
        node: What is there, across a mount; None if nothing is.
    """

    parent: Node
    name: str
    node: Node | None

    @property
    def mount_point(self) -> bool:
        """Whether something is mounted exactly here."""
        return self.node is not None and self.node.covers is not None


class Refusal(Exception):  # noqa: N818 - it becomes an OSError as soon as the path is known
    """An errno on its way out to the system call.

    Attributes:
        number: The errno.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


def refuse(number: int) -> NoReturn:
    """Answer with an errno."""
    raise Refusal(number)


def fail(number: int, path: Path) -> NoReturn:
    """Raise the `OSError` of an errno, as the system call on `path` would."""
    raise OSError(number, os.strerror(number), str(path))


def _cross(node: Node) -> Node:
    while node.mounted is not None:
        node = node.mounted
    return node


def _up(node: Node) -> Node:
    below = node.covers if node.covers is not None else node
    return below.parent if below.parent is not None else node


def lookup(root: Node, path: Path) -> Lookup:
    """Walk an absolute path (K90 to K92).

    Raises:
        OSError: ENOENT or ENOTDIR for a component on the way, ENAMETOOLONG for the whole.
        ValueError: The path is relative or holds a NUL, which no system call is ever asked about.
    """
    text = os.fsencode(path)
    if not path.is_absolute() or b"\0" in text:
        raise ValueError(f"not an absolute path without NUL: {path!r}")
    if len(text) >= _PATH_MAX:
        fail(errno.ENAMETOOLONG, path)
    parent, name = root, ""
    node: Node | None = root
    for part in path.parts[1:]:
        if node is None:
            fail(errno.ENOENT, path)
        if not node.is_dir:
            fail(errno.ENOTDIR, path)
        parent, name = node, part
        if part == "..":
            node = _up(node)
        else:
            child = node.entry(part)
            node = _cross(child) if child is not None else None
    return Lookup(parent, name, node)
