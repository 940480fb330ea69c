"""How fast counters grow, from two readings of a group: never negative, and never across a reset.

Owns: what may be subtracted. Must not know: where readings come from.

Rules:
    1. A rate exists only between two numbers of one counter that ran through. Whatever shows that it did not
       is a `Reset`: another generation, a domain that is new or gone, a number that is lower than before; and
       so is a clock that stood still in between.
    2. A counter that told no number in one of the readings has no rate; its state stands in the rate's place.
    3. A gauge has no rate.

Why counters go backwards although the kernel widens them to 64 bits (mbm_overflow_count): a domain was
offline, the event's configuration or the assignment of counters changed, the processor lost track of the
RMID, or the group is another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

from attrs import field, frozen

from resctrl.monitoring import (
    Domain,
    EventKind,
    ReadError,
    Unassigned,
    Unavailable,
    Value,
    event_kind,
    leaves,
)

if TYPE_CHECKING:
    from resctrl.monitoring import GroupReading, Reading

__all__ = ["DomainRate", "Rate", "Reset", "ResetReason", "rate"]

_NS: Final = 1_000_000_000


class ResetReason(Enum):
    """Why two numbers give no rate."""

    BACKWARDS = "the counter is lower than before"
    RECREATED = "the group was made anew"
    DOMAIN_GONE = "the domain is gone"
    DOMAIN_NEW = "the domain is new"
    NO_TIME = "no time passed between the readings"


@frozen
class Reset:
    """There is nothing to divide: the counter did not run through, or no time passed. The next pair can tell.

    Attributes:
        reason: What shows it.
    """

    reason: ResetReason


DomainRate: TypeAlias = float | Reset | Unavailable | ReadError | Unassigned
"""Units a second (bytes a second for `mbm_*_bytes`), or why there is no rate."""


def _unchangeable(domains: Mapping[Domain, DomainRate]) -> Mapping[Domain, DomainRate]:
    return MappingProxyType(dict(domains))


@frozen
class Rate:
    """How fast one event's counters grew between two readings.

    Attributes:
        event: Its name.
        seconds: Between the readings.
        domains: For each domain of either reading.
        total: Units a second, over all domains that have a rate, sub-domains not counted twice; a `Reset`
            where none has and one of them was reset; None where there is nothing else to tell.
        complete: Every domain has a rate. Without it `total` is a lower bound.
        missing: The domains that have none.
    """

    event: str
    seconds: float
    domains: Mapping[Domain, DomainRate] = field(converter=_unchangeable, hash=False)
    total: float | Reset | None
    complete: bool
    missing: tuple[Domain, ...]


def rate(earlier: GroupReading, later: GroupReading, event: str) -> Rate:
    """Return how fast an event's counters grew from one reading of a group to a later one.

    The readings belong together by their generation, not by their path: a group may be renamed in between.
    An event that this library does not know is taken for a counter, since the caller wants a rate.

    A control group's counters are a sum over its monitoring groups too (kernel: mon_event_count). When one of
    those is deleted its share leaves the sum: a `Reset` where that makes it lower than before, else a rate
    that is too low for once. The rates of monitoring groups know no such thing.

    Args:
        earlier: The first.
        later: The second.
        event: Such as `mbm_total_bytes`.

    Raises:
        ValueError: The event is a gauge (`llc_occupancy`), or `later` was taken before `earlier`. Two of one
            moment are no error: the rate is a `Reset`.
    """
    if event_kind(event) is EventKind.GAUGE:
        raise ValueError(f"{event} tells of a moment: it has no rate")
    elapsed = later.taken_ns - earlier.taken_ns
    if elapsed < 0:
        raise ValueError(f"the later reading was taken {-elapsed} ns before the earlier one")
    before, after = earlier.of(event), later.of(event)
    recreated = earlier.generation != later.generation
    domains: dict[Domain, DomainRate] = {}
    for domain in {**before, **after}:
        if recreated:
            domains[domain] = Reset(ResetReason.RECREATED)
        elif domain not in after:
            domains[domain] = Reset(ResetReason.DOMAIN_GONE)
        elif domain not in before:
            domains[domain] = Reset(ResetReason.DOMAIN_NEW)
        else:
            domains[domain] = _between(before[domain], after[domain], elapsed)
    return _summed(event, elapsed / _NS, domains)


def _between(before: Reading, after: Reading, elapsed: int) -> DomainRate:
    """Return the rate of one counter over so many nanoseconds."""
    if not isinstance(after, Value):
        return after
    if not isinstance(before, Value):
        return before
    grown = after.amount - before.amount
    if grown < 0:
        return Reset(ResetReason.BACKWARDS)
    return grown * _NS / elapsed if elapsed else Reset(ResetReason.NO_TIME)


def _summed(event: str, seconds: float, domains: dict[Domain, DomainRate]) -> Rate:
    """Add up the domains that are not themselves sums."""
    total: float | None = None
    reset: Reset | None = None
    missing = []
    for domain in leaves(domains):
        value = domains[domain]
        if isinstance(value, float):
            total = value if total is None else total + value
            continue
        missing.append(domain)
        if isinstance(value, Reset) and reset is None:
            reset = value
    return Rate(
        event,
        seconds,
        domains,
        total if total is not None else reset,
        complete=bool(domains) and not missing,
        missing=tuple(missing),
    )
