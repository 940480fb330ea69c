"""Where the counters of a group stand, and reading them all once.

Owns: the walk through `mon_data`, and what a group that cannot be read means. Must not know: what is done
with readings, or who keeps files open.

Rules:
    1. Whatever is there is taken: every domain, every file. What vanishes during the walk is left out.
    2. A domain that cannot be listed, and a file that cannot be read, is a `ReadError` of its own.
    3. What a reading holds is of one and the same group: the number of its directory is looked up before and
       after.
"""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen

from resctrl.errors import (
    GroupNotFoundError,
    Operation,
    ResctrlError,
    UnsupportedError,
    translate,
)
from resctrl.monitoring import Domain, GroupReading, ReadError, domain_named, parse_reading
from resctrl.mount import detect_support, not_mounted
from resctrl.names import require_group

if TYPE_CHECKING:
    from collections.abc import Callable

    from resctrl.fs import FsProvider
    from resctrl.model import ResctrlConfig
    from resctrl.monitoring import Reading

__all__ = [
    "GONE",
    "Counter",
    "Survey",
    "domain_dirs",
    "errno_name",
    "group_number",
    "never_the_same",
    "read_group",
    "survey",
]

GONE: Final = frozenset({errno.ENOENT, errno.ENODEV})
"""What read(2) and open(2) say of a group, or a domain of one, that is not there any more."""

_MON_DATA: Final = "mon_data"
_TRIES: Final = 3


@frozen
class Counter:
    """One file of `mon_data`.

    Attributes:
        key: Domain and event.
        path: The file.
    """

    key: tuple[Domain, str]
    path: Path


@define
class Survey:
    """What counters a group has.

    Attributes:
        generation: Number of the group's directory.
        counters: In the order of their directories.
        unlisted: Domains whose files could not be listed, each with the errno.
    """

    generation: int
    counters: list[Counter] = field(factory=list)
    unlisted: dict[Domain, int] = field(factory=dict)

    def lost(self) -> dict[tuple[Domain, str], Reading]:
        """Return what is to be told of the unlisted domains: each event that others of their kind have."""
        events: dict[str, set[str]] = {}
        for counter in self.counters:
            domain, event = counter.key
            events.setdefault(domain.kind, set()).add(event)
        return {
            (domain, event): ReadError(errno_name(number))
            for domain, number in self.unlisted.items()
            for event in sorted(events.get(domain.kind, ()))
        }


def errno_name(number: int | None) -> str:
    """Return the name of an errno, such as "EIO"."""
    return errno.errorcode.get(number or 0, f"errno {number}")


def group_number(fs: FsProvider, config: ResctrlConfig, group: Path) -> int:
    """Return the number that tells a group from all others, and from itself before it was made anew.

    Raises:
        ResctrlError: As `read_group` says.
    """
    try:
        return fs.identity(group)
    except OSError as error:
        raise _explained(fs, config, group, error) from error


def domain_dirs(fs: FsProvider, group: Path) -> list[tuple[Domain, Path, OSError | None]]:
    """Return the domains of a group, sub-domains after what they are a part of.

    Returns:
        Each with its directory, and with the failure of looking into it for sub-domains.

    Raises:
        OSError: `mon_data` itself cannot be listed.
    """
    found: list[tuple[Domain, Path, OSError | None]] = []
    mon_data = group / _MON_DATA
    for name in fs.read_child_dirs(mon_data):
        directory = mon_data / name
        try:
            below = fs.read_child_dirs(directory)
        except OSError as error:
            found.append((domain_named(name), directory, error))
            continue
        found.append((domain_named(name), directory, None))
        found += [(domain_named(sub, name), directory / sub, None) for sub in below]
    return found


def survey(fs: FsProvider, config: ResctrlConfig, group: Path) -> Survey:
    """Look up which counters a group has.

    Raises:
        ResctrlError: As `read_group` says.
    """
    found = Survey(group_number(fs, config, group))
    try:
        domains = domain_dirs(fs, group)
    except OSError as error:
        raise _explained(fs, config, group, error) from error
    failure: OSError | None = None
    for domain, directory, unseen in domains:
        try:
            if unseen is not None:
                raise unseen
            events = fs.read_child_files(directory)
        except OSError as refusal:
            if refusal.errno not in GONE:
                found.unlisted[domain] = refusal.errno or errno.EIO
                failure = refusal
            continue
        found.counters += [Counter((domain, event), directory / event) for event in events]
    if failure is not None and not found.counters:  # there is nothing that it could be a state of
        raise _explained(fs, config, group, failure) from failure
    return found


def read_group(
    fs: FsProvider, config: ResctrlConfig, group: Path, clock: Callable[[], int] = time.monotonic_ns
) -> GroupReading:
    """Read every counter of a group once: see `resctrl.Resctrl.read_group`.

    Args:
        fs: The provider.
        config: Where resctrl is.
        group: The group.
        clock: Nanoseconds of the monotonic clock; readings of one group must come from one.
    """
    require_group(config.root, Operation.READ_GROUP, group)
    for _ in range(_TRIES):
        found = survey(fs, config, group)
        taken_ns = clock()
        values = {counter.key: _read(fs, counter.path) for counter in found.counters}
        if group_number(fs, config, group) == found.generation:
            return GroupReading(group, taken_ns, found.generation, {**values, **found.lost()})
    raise never_the_same(group)


def never_the_same(group: Path) -> GroupNotFoundError:
    """Return the error for a group that is made anew each time that one looks."""
    detail = "it was made anew while it was read, time and again"
    return GroupNotFoundError(Operation.READ_GROUP, group, detail=detail)


def _read(fs: FsProvider, path: Path) -> Reading:
    try:
        return parse_reading(fs.read_text(path))
    except OSError as error:
        return ReadError(errno_name(error.errno))


def _explained(fs: FsProvider, config: ResctrlConfig, group: Path, error: OSError) -> ResctrlError:
    """Return what it means that a group cannot be looked at."""
    if error.errno in GONE:
        try:
            support = detect_support(fs, config.root)
        except ResctrlError:
            support = None  # no /proc to tell by: the errno has to do
        if support is not None and not support.mounted:
            return not_mounted(support, Operation.READ_GROUP, config.root, error.errno)
        if support is not None and not support.monitoring:
            detail = "this machine cannot monitor (there is no info/L3_MON)"
            return UnsupportedError(Operation.READ_GROUP, group, errno=error.errno, detail=detail)
    try:
        with translate(Operation.READ_GROUP, group):
            raise error
    except ResctrlError as typed:
        return typed
