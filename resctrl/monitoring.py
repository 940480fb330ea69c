"""What counters tell: readings that are a value or say why they are none, per domain, with honest totals.

Owns: the values, and what a text of the kernel means. Must not know: the file system, or when it is read.

Rules:
    1. A word of the kernel, and a file that cannot be read, is the state of that one reading: never 0, and
       never an exception that costs the other domains.
    2. A total says whether it is complete, and what is missing.
    3. Where a domain has sub-domains, a total adds those: the domain's own file is their sum already.
    4. Names are taken as they come. A kind of domain or an event that this module has never heard of is read
       like any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "Domain",
    "EventKind",
    "GroupReading",
    "ReadError",
    "Reading",
    "Total",
    "Unassigned",
    "Unavailable",
    "Value",
    "domain_named",
    "event_kind",
    "leaves",
    "parse_reading",
]


@frozen
class Value:
    """A counter told a number.

    Attributes:
        amount: In the event's own unit: bytes for `llc_occupancy` and `mbm_*_bytes`, joules for `core_energy`
            and farads for `activity` (Linux 7.0). An int where the kernel wrote an integer, else a float.
    """

    amount: int | float


@frozen
class Unavailable:
    """The hardware has no number now ("Unavailable").

    Normal for a fresh RMID, and on AMD for one that the processor does not track at the moment (kernel:
    rdtgroup_mondata_show, RMID_VAL_UNAVAIL).
    """


@frozen
class ReadError:
    """The counter could not be read.

    Attributes:
        text: What was there instead of a number: "Error" (the hardware refuses RMID or event), another word
            that this library does not know, or the name of the errno that read(2) failed with (ENODEV once
            the domain or the group is gone, EIO, EMFILE, ...).
    """

    text: str


@frozen
class Unassigned:
    """No hardware counter is assigned to this event of this group ("Unassigned").

    Only where counters are assigned one by one (info/L3_MON/mbm_assign_mode is mbm_event, Linux 6.18).
    """


Reading: TypeAlias = Value | Unavailable | ReadError | Unassigned
"""What one counter of one domain told."""


class EventKind(Enum):
    """How the numbers of an event are to be taken."""

    COUNTER = "counter"
    """They only grow, until something resets them; the difference of two is what happened between them."""
    GAUGE = "gauge"
    """They tell of the moment at which they were read."""
    UNKNOWN = "unknown"
    """This library does not know the event."""


_KINDS: Final[Mapping[str, EventKind]] = MappingProxyType(
    {
        "llc_occupancy": EventKind.GAUGE,
        "mbm_total_bytes": EventKind.COUNTER,
        "mbm_local_bytes": EventKind.COUNTER,
        "core_energy": EventKind.COUNTER,
        "activity": EventKind.COUNTER,
    }
)


def event_kind(event: str) -> EventKind:
    """Return how an event's numbers are to be taken; UNKNOWN for one that is new to this library."""
    return _KINDS.get(event, EventKind.UNKNOWN)


@frozen(cache_hash=True)
class Domain:
    """A part of the machine that counts by itself.

    Attributes:
        name: Its directory in `mon_data`, such as `mon_L3_00`.
        kind: What it is, such as `L3` or `PERF_PKG`; the whole name where that has another shape.
        id: Its number (for L3 the id of the cache, with gaps possible; for a sub-domain that of the NUMA
            node); -1 where the name has another shape.
        parent: Name of the domain that it is a part of, or None. With sub-NUMA clustering (Linux 6.11) each
            `mon_L3_XX` has `mon_sub_L3_YY` in it.
    """

    name: str
    kind: str
    id: int
    parent: str | None = None


_DOMAIN: Final = re.compile(r"mon_(?:sub_)?(\w+)_([0-9]{1,9})", re.ASCII)


def domain_named(name: str, parent: str | None = None) -> Domain:
    """Return the domain whose directory has this name (kernel: mkdir_mondata_subdir)."""
    match = _DOMAIN.fullmatch(name)
    if match is None:
        return Domain(name, name, -1, parent)
    return Domain(name, match[1], int(match[2]), parent)


_UNAVAILABLE: Final = Unavailable()
_UNASSIGNED: Final = Unassigned()
# 64 bits have at most 20 digits; more would be no counter, and costly or infinite as a number.
_DIGITS: Final = 20
_DECIMAL: Final = re.compile(r"[0-9]{1,20}\.[0-9]{1,20}", re.ASCII)
_LONGEST: Final = 80


def parse_reading(text: str) -> Reading:
    """Return what the text of a counter's file means; whatever it does not know is a `ReadError` with it."""
    word = text.strip(" \n")
    if word.isdecimal() and word.isascii() and len(word) <= _DIGITS:  # nearly always, and read often
        return Value(int(word))
    match word:
        case "Unavailable":
            return _UNAVAILABLE
        case "Unassigned":
            return _UNASSIGNED
        case _ if _DECIMAL.fullmatch(word):
            return Value(float(word))
        case _:
            return ReadError(word[:_LONGEST])


@frozen
class Total:
    """The sum of an event over the domains of a group.

    Attributes:
        amount: In the event's unit; None where no domain told a number.
        complete: Every domain that has the event told a number. Without it `amount` is a lower bound.
        missing: The domains that told none.
    """

    amount: int | float | None
    complete: bool
    missing: tuple[Domain, ...] = ()


def leaves(domains: Iterable[Domain]) -> list[Domain]:
    """Return those that no other one of them is a part of: what may be added up without counting twice.

    A sum of sub-domains says which of them is missing, while the file of the domain itself leaves out in
    silence what could not be read (kernel: __mon_event_count, "Report success if a read from any domain
    succeeds").
    """
    known = tuple(domains)
    parents = {domain.parent for domain in known}
    return [domain for domain in known if domain.name not in parents]


def _unchangeable(values: Mapping[tuple[Domain, str], Reading]) -> Mapping[tuple[Domain, str], Reading]:
    return MappingProxyType(dict(values))


@frozen
class GroupReading:
    """All counters of one group, read one after the other.

    A control group's counters include those of its monitoring groups (kernel: mon_event_count): never add a
    group to its children.

    Attributes:
        group: Its directory.
        taken_ns: When reading it began, nanoseconds of the monotonic clock.
        generation: Another number whenever the group was made anew, under whatever name; the same one after a
            rename. It tells groups of one mount apart.
        values: What each counter told, by domain and event.
    """

    group: Path
    taken_ns: int
    generation: int
    values: Mapping[tuple[Domain, str], Reading] = field(converter=_unchangeable, hash=False)

    @property
    def domains(self) -> tuple[Domain, ...]:
        """The domains that were read, sub-domains included, in the order of their directories."""
        return tuple(dict.fromkeys(domain for domain, _ in self.values))

    @property
    def events(self) -> tuple[str, ...]:
        """The events that any domain has, sorted."""
        return tuple(sorted({event for _, event in self.values}))

    def of(self, event: str) -> dict[Domain, Reading]:
        """Return what each domain that has the event told of it."""
        return {domain: reading for (domain, name), reading in self.values.items() if name == event}

    def total(self, event: str) -> Total:
        """Return the sum over all domains; sub-domains are not counted twice.

        An event that no domain has is `Total(None, complete=False)`.
        """
        told = self.of(event)
        amount: int | float | None = None
        missing = []
        for domain in leaves(told):
            reading = told[domain]
            if isinstance(reading, Value):
                amount = reading.amount if amount is None else amount + reading.amount
            else:
                missing.append(domain)
        return Total(amount, complete=bool(told) and not missing, missing=tuple(missing))
