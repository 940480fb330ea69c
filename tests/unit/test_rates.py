"""Rates: what may be subtracted, and that nothing else is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from resctrl import (
    Domain,
    GroupReading,
    ReadError,
    Reading,
    Resctrl,
    Reset,
    ResetReason,
    Unassigned,
    Unavailable,
    Value,
    rate,
)
from resctrl.testing import FakeFs
from tests.unit.fakes import MON

if TYPE_CHECKING:
    from collections.abc import Mapping

L3 = Domain("mon_L3_00", "L3", 0)
OTHER = Domain("mon_L3_01", "L3", 1)
SUBS = (Domain("mon_sub_L3_00", "L3", 0, "mon_L3_00"), Domain("mon_sub_L3_01", "L3", 1, "mon_L3_00"))
SECOND = 1_000_000_000
BYTES = "mbm_total_bytes"


def taken(
    at: float, told: Mapping[Domain, Reading], *, generation: int = 1, event: str = BYTES
) -> GroupReading:
    """Return a reading of one event, taken at a second."""
    values = {(domain, event): reading for domain, reading in told.items()}
    return GroupReading(MON / "a", round(at * SECOND), generation, values)


def test_what_grew_is_told_by_the_second() -> None:
    """Each domain has its own rate, and the total is their sum."""
    found = rate(
        taken(1, {L3: Value(100), OTHER: Value(5)}), taken(3, {L3: Value(300), OTHER: Value(5)}), BYTES
    )
    assert (found.event, found.seconds) == (BYTES, 2.0)
    assert found.domains == {L3: 100.0, OTHER: 0.0}
    assert (found.total, found.complete, found.missing) == (100.0, True, ())
    assert {type(value) for value in (*found.domains.values(), found.total)} == {float}


def test_large_counts_lose_nothing() -> None:
    """The difference of two big counts is exact before it is divided."""
    before, after = 2**64 - 3, 2**64 - 1
    assert rate(taken(0, {L3: Value(before)}), taken(1, {L3: Value(after)}), BYTES).total == 2.0


def test_decimals() -> None:
    """Joules a second are watts."""
    before = taken(0, {L3: Value(1.25)}, event="core_energy")
    after = taken(0.5, {L3: Value(3.75)}, event="core_energy")
    assert rate(before, after, "core_energy").total == 5.0


def test_backwards() -> None:
    """A lower count is a reset of that domain; the others have their rates, the total is a lower bound."""
    before = taken(0, {L3: Value(100), OTHER: Value(100)})
    found = rate(before, taken(1, {L3: Value(99), OTHER: Value(130)}), BYTES)
    assert found.domains == {L3: Reset(ResetReason.BACKWARDS), OTHER: 30.0}
    assert (found.total, found.complete, found.missing) == (30.0, False, (L3,))


def test_a_group_made_anew() -> None:
    """Another generation resets every domain and the total, whichever way the counts went."""
    before, after = taken(0, {L3: Value(1)}), taken(1, {L3: Value(1000)}, generation=2)
    found = rate(before, after, BYTES)
    assert found.domains == {L3: Reset(ResetReason.RECREATED)}
    assert (found.total, found.complete, found.missing) == (Reset(ResetReason.RECREATED), False, (L3,))
    assert rate(before, evolve(after, generation=1), BYTES).total == 999.0
    elsewhere = taken(1, {OTHER: Value(7)}, generation=2)
    assert set(rate(before, elsewhere, BYTES).domains.values()) == {Reset(ResetReason.RECREATED)}


def test_the_first_reset_is_told() -> None:
    """Where no domain has a rate, the total says why the first of them has none."""
    found = rate(taken(0, {L3: Value(9)}), taken(1, {L3: Value(1), OTHER: Value(1)}), BYTES)
    assert found.domains == {L3: Reset(ResetReason.BACKWARDS), OTHER: Reset(ResetReason.DOMAIN_NEW)}
    assert found.total == Reset(ResetReason.BACKWARDS)


def test_domains_that_go_and_come() -> None:
    """Neither has a rate; the domain that was there all the time has."""
    gone = rate(taken(0, {L3: Value(1), OTHER: Value(1)}), taken(1, {L3: Value(3)}), BYTES)
    assert gone.domains == {L3: 2.0, OTHER: Reset(ResetReason.DOMAIN_GONE)}
    assert (gone.total, gone.complete, gone.missing) == (2.0, False, (OTHER,))
    new = rate(taken(0, {L3: Value(1)}), taken(1, {L3: Value(3), OTHER: Value(7)}), BYTES)
    assert new.domains == {L3: 2.0, OTHER: Reset(ResetReason.DOMAIN_NEW)}
    assert (new.total, new.complete) == (2.0, False)


@pytest.mark.parametrize("state", [Unavailable(), Unassigned(), ReadError("EIO")])
def test_a_counter_without_a_number(state: Unavailable | Unassigned | ReadError) -> None:
    """Its state stands in the rate's place, in whichever reading it was, and of two the later."""
    for before, after in ((Value(1), state), (state, Value(1)), (ReadError("older"), state)):
        found = rate(taken(0, {L3: before, OTHER: Value(1)}), taken(1, {L3: after, OTHER: Value(2)}), BYTES)
        assert found.domains == {L3: state, OTHER: 1.0}
        assert (found.total, found.complete, found.missing) == (1.0, False, (L3,))
    alone = rate(taken(0, {L3: Value(1)}), taken(1, {L3: state}), BYTES)
    assert (alone.total, alone.complete) == (None, False)


def test_sub_domains_count_once() -> None:
    """The total adds the sub-domains; the domain above them has a rate of its own."""
    before = taken(0, {L3: Value(0), SUBS[0]: Value(0), SUBS[1]: Value(0), OTHER: Value(0)})
    after = taken(1, {L3: Value(30), SUBS[0]: Value(10), SUBS[1]: Value(20), OTHER: Value(4)})
    found = rate(before, after, BYTES)
    assert (found.total, found.domains[L3], found.complete) == (34.0, 30.0, True)


def test_an_event_that_is_not_there() -> None:
    """Nothing is made up for it."""
    found = rate(taken(0, {L3: Value(1)}), taken(1, {L3: Value(2)}), "mbm_local_bytes")
    assert (found.domains, found.total, found.complete, found.missing) == ({}, None, False, ())


def test_a_gauge_has_no_rate() -> None:
    """The occupancy of a cache tells of a moment; an unknown event is taken for a counter."""
    before, after = (
        taken(0, {L3: Value(1)}, event="llc_occupancy"),
        taken(1, {L3: Value(2)}, event="llc_occupancy"),
    )
    with pytest.raises(ValueError, match="no rate"):
        rate(before, after, "llc_occupancy")
    before, after = taken(0, {L3: Value(1)}, event="uops"), taken(1, {L3: Value(2)}, event="uops")
    assert rate(before, after, "uops").total == 1.0


def test_readings_in_their_order() -> None:
    """Two readings in the wrong order are a mistake of the caller."""
    with pytest.raises(ValueError, match="500000000 ns before the earlier"):
        rate(taken(1, {L3: Value(1)}), taken(0.5, {L3: Value(2)}), BYTES)


def test_two_readings_of_one_moment() -> None:
    """A clock may stand still between them: that is a state, and hides no other."""
    before = taken(1, {L3: Value(1), OTHER: Unavailable()})
    found = rate(before, taken(1, {L3: Value(2), OTHER: Value(2)}), BYTES)
    assert found.domains == {L3: Reset(ResetReason.NO_TIME), OTHER: Unavailable()}
    assert (found.seconds, found.total, found.complete) == (0.0, Reset(ResetReason.NO_TIME), False)
    found = rate(before, taken(1, {L3: Value(0)}, generation=2), BYTES)
    assert set(found.domains.values()) == {Reset(ResetReason.RECREATED)}


def test_a_rate_cannot_be_changed() -> None:
    """It is a value, and can be kept in a set."""
    found = rate(taken(0, {L3: Value(1)}), taken(1, {L3: Value(2)}), BYTES)
    with pytest.raises(TypeError):
        found.domains[L3] = 0.0  # type: ignore[index]
    assert len({found, evolve(found)}) == 1


# Any two readings

DOMAINS = st.sampled_from([L3, *SUBS, OTHER])
READINGS = st.one_of(
    st.builds(Value, st.integers(0, 2**64 - 1)),
    st.builds(Value, st.floats(0, 1e15)),
    st.sampled_from([Unavailable(), Unassigned(), ReadError("EIO")]),
)
TOLD = st.dictionaries(DOMAINS, READINGS)


@given(TOLD, TOLD, st.integers(1, 2), st.integers(1, 10**12))
def test_a_rate_is_never_negative_and_never_across_a_reset(
    before: dict[Domain, Reading], after: dict[Domain, Reading], generation: int, elapsed: int
) -> None:
    """Whatever was read: every number is at least 0, between two numbers of one counter of one generation."""
    earlier, later = taken(0, before), evolve(taken(0, after, generation=generation), taken_ns=elapsed)
    found = rate(earlier, later, BYTES)
    assert found.domains.keys() == before.keys() | after.keys()
    numbers = {domain for domain, value in found.domains.items() if isinstance(value, float)}
    for domain in found.domains:
        one, other = before.get(domain), after.get(domain)
        ran_through = (
            generation == 1
            and isinstance(one, Value)
            and isinstance(other, Value)
            and one.amount <= other.amount
        )
        assert (domain in numbers) == ran_through
    for value in (*found.domains.values(), found.total):
        assert not isinstance(value, float) or value >= 0
    assert set(found.missing).isdisjoint(numbers)
    assert found.complete == (bool(found.domains) and not found.missing)
    summed = numbers - {L3} if set(SUBS) & found.domains.keys() else numbers
    assert isinstance(found.total, float) == bool(summed)


@given(st.lists(st.integers(0, 100), min_size=2, max_size=20), st.data())
def test_what_was_counted_is_what_the_rates_say(steps: list[int], data: st.DataObject) -> None:
    """Over a fake kernel, with resets anywhere: the rates add up to the traffic between unbroken readings."""
    fs = FakeFs(num_rmids=50)
    resctrl = Resctrl.with_provider(fs)
    group = resctrl.create_group("a")
    tid = fs.spawn()
    fs.write_all(group / "tasks", [b"%d" % tid])
    before = evolve(resctrl.read_group(group), taken_ns=0)
    for number, step in enumerate(steps, start=1):
        anew = data.draw(st.booleans())
        if anew:
            fs.remove_dir(group)
            fs.create_dir(group)
            fs.write_all(group / "tasks", [b"%d" % tid])
        fs.move_bytes(tid, step)
        after = evolve(resctrl.read_group(group), taken_ns=number * SECOND)
        assert rate(before, after, BYTES).total == (Reset(ResetReason.RECREATED) if anew else float(step))
        before = after
