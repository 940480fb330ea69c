"""What runtimes call a cgroup path, and which directory of a hierarchy they mean.

Owns: the path forms of the runtimes (cgroupfs, systemd, a slice's name alone). Must not know: files, mounts,
what is listed there.

Rules:
    1. A path that could lead out of the container's own cgroup is refused, never mended: the root, `..`, the
       pod's cgroup or one above it, control characters.
    2. A systemd name is expanded as systemd does: `a-b.slice` stands in `a.slice`.
"""

from __future__ import annotations

import contextlib
import re
from typing import Final

from attrs import frozen

from nri_resctrl_plugin.errors import CgroupPathError

__all__ = ["ContainerPlace", "parent_as_path", "parse_cgroups_path"]

MIN_ID_LENGTH: Final = 12
"""A shorter last path element may be a common word, so it alone does not identify a container."""


@frozen
class ContainerPlace:
    """A container's cgroup as its name says.

    Attributes:
        path: Absolute path below the hierarchy's root, normalised.
        name: The part that identifies the container, normally its id.
        literal: The runtime's text taken as one directory name, or None. runc with the cgroupfs driver makes
            such a directory when it is given the systemd form.
    """

    path: str
    name: str
    literal: str | None = None

    def own_part(self, actual: str) -> str | None:
        """Return the leading part of a process's cgroup path that is this container's cgroup.

        Args:
            actual: A path from `/proc/<pid>/cgroup`: the container's cgroup or one below it, possibly with
                a prefix (a kubelet inside a container).

        Returns:
            The path, or None where nothing says that the process is in this container.
        """
        parts, wanted = actual.split("/"), self.path.split("/")
        if parts[: len(wanted)] == wanted:
            return self.path
        if len(self.name) >= MIN_ID_LENGTH:
            names_it = re.compile(rf"(?<![0-9A-Za-z]){re.escape(self.name)}(?![0-9A-Za-z])")
            for index, part in enumerate(parts):
                if names_it.search(part):
                    return "/".join(parts[: index + 1])
        return None


def parse_cgroups_path(cgroups_path: str, cgroup_parent: str = "") -> ContainerPlace:
    """Read what a runtime calls `cgroups_path`.

    Args:
        cgroups_path: `slice:prefix:name` (systemd driver) or an absolute path (cgroupfs driver).
        cgroup_parent: The pod's cgroup: a path, or a slice's name alone (CRI-O); "" where it was not told.

    Returns:
        Where that is below the root of a hierarchy.

    Raises:
        CgroupPathError: It is empty, relative, the root itself, the pod's cgroup or one above it, or contains
            what no runtime writes.
    """
    place = _parse(cgroups_path)
    base = cgroup_parent.rstrip("/").rpartition("/")[2]
    parent = cgroup_parent
    with contextlib.suppress(CgroupPathError):  # a parent that is no slice to systemd says nothing here
        parent = _expand_slice(cgroups_path, base)
    above = [part for part in parent.split("/") if part not in {"", "."}]
    parts = place.path.split("/")[1:]
    if above[: len(parts)] == parts:
        raise CgroupPathError(cgroups_path, f"it is the pod's cgroup {parent!r}, or above it")
    return place


def _parse(cgroups_path: str) -> ContainerPlace:
    if not cgroups_path:
        raise CgroupPathError(cgroups_path, "it is empty")
    if any(character < " " or character == "\x7f" for character in cgroups_path):
        raise CgroupPathError(cgroups_path, "it contains a control character")
    if cgroups_path.startswith("/"):
        return _from_absolute(cgroups_path)
    if cgroups_path.count(":") == 2:  # noqa: PLR2004 - the systemd form has three parts
        return _from_systemd(cgroups_path)
    raise CgroupPathError(cgroups_path, "it is neither an absolute path nor of the form slice:prefix:name")


def _from_absolute(text: str) -> ContainerPlace:
    parts = [part for part in text.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise CgroupPathError(text, "it contains '..'")
    if not parts:
        raise CgroupPathError(text, "it is the root cgroup")
    return ContainerPlace("/" + "/".join(parts), parts[-1])


def _from_systemd(text: str) -> ContainerPlace:
    if "/" in text:
        raise CgroupPathError(text, "a unit name contains no '/'")
    parent, prefix, name = text.split(":")
    if name in {"", ".", ".."}:
        raise CgroupPathError(text, "the unit has no name")
    unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope"
    return ContainerPlace(f"{_expand_slice(text, parent or 'system.slice')}/{unit}", name, f"/{text}")


def _expand_slice(text: str, name: str) -> str:
    """Expand `a-b.slice` to `/a.slice/a-b.slice`; `-.slice` is the root."""
    stem = name.removesuffix(".slice")
    if stem == name:
        raise CgroupPathError(text, f"{name!r} does not end in '.slice'")
    if stem == "-":
        return ""
    parts = stem.split("-")
    if "" in parts or "." in parts or ".." in parts:
        raise CgroupPathError(text, f"{name!r} has an empty part")
    return "".join(f"/{'-'.join(parts[:end])}.slice" for end in range(1, len(parts) + 1))


def parent_as_path(cgroup_parent: str) -> str:
    """Write a pod's cgroup parent as a runtime writes the cgroup path of a container.

    Args:
        cgroup_parent: A path, or a slice's name alone (CRI-O).

    Returns:
        The path, or the systemd form of the slice: `a.slice::a-b.slice`.
    """
    stem = cgroup_parent.removesuffix(".slice")
    if "/" in cgroup_parent or stem == cgroup_parent:
        return cgroup_parent
    above = stem.rpartition("-")[0]
    return f"{above or '-'}.slice::{cgroup_parent}"
