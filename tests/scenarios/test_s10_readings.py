"""S10: counters as they come through: who is busy and who is not, what refuses, what began anew."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from resctrl import (
    EventKind,
    ReadError,
    Reading,
    Resctrl,
    ResctrlConfig,
    Reset,
    ResetReason,
    Sampler,
    Total,
    Unavailable,
    Value,
    event_kind,
    rate,
)
from resctrl.testing import RecordingFs
from tests.worlds import DEADLINE, Capability

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from resctrl import FsProvider, GroupReading
    from tests.worlds import ContainerHandle, World

BYTES, LOCAL, CACHE = "mbm_total_bytes", "mbm_local_bytes", "llc_occupancy"


def resctrl_of(world: World) -> Resctrl[FsProvider]:
    """Return the library over a world."""
    return Resctrl.with_provider(world.fs, ResctrlConfig(root=world.root, group_prefix=world.prefix))


def monitored(world: World, name: str) -> tuple[Path, ContainerHandle]:
    """Start a container and put it into a group of its own."""
    resctrl, container = resctrl_of(world), world.new_container()
    group = resctrl.create_group(name)
    assert resctrl.reconcile_group(group, lambda: world.threads_of(container)).complete
    return group, container


def bytes_of(reading: GroupReading) -> float:
    """Return the whole traffic that a group has counted."""
    total = reading.total(BYTES)
    assert total.complete
    assert total.amount is not None
    return total.amount


def work_until(world: World, container: ContainerHandle, done: Callable[[], bool]) -> None:
    """Let a container work until something is so."""
    end = time.monotonic() + DEADLINE
    while not done():
        assert time.monotonic() < end, f"{DEADLINE} s of work were in vain"
        world.work(container)


def work_past(world: World, group: Path, container: ContainerHandle, amount: float) -> None:
    """Let a container work until its group has counted more than that."""
    resctrl = resctrl_of(world)
    work_until(world, container, lambda: bytes_of(resctrl.read_group(group)) > amount)


def is_negative(value: object) -> bool:
    """Tell whether this is a rate that cannot be."""
    return isinstance(value, float) and value < 0


def test_busy_groups_and_an_idle_one(world: World) -> None:
    """Each busy group has counted its own work, ten times what the idle one has; their parent has it all."""
    (one, first), (two, second), (idle, _) = (monitored(world, name) for name in ("one", "two", "idle"))
    with Sampler(resctrl_of(world)) as sampler:
        for group in (one, two, idle, world.root):
            sampler.add(group)
        before = sampler.sample()
        work_past(world, one, first, bytes_of(before[one]))
        between = sampler.sample()
        work_past(world, two, second, bytes_of(before[two]))
        after = sampler.sample()
    assert (between.failed, after.failed, after.unheld) == ({}, {}, frozenset())

    def grown(group: Path) -> float:
        return bytes_of(after[group]) - bytes_of(before[group])

    assert min(grown(one), grown(two)) > 0
    assert min(grown(one), grown(two)) >= 10 * grown(idle)
    assert grown(world.root) >= grown(one) + grown(two)
    for group in (one, two, idle):
        found = rate(before[group], after[group], BYTES)
        assert found.complete
        assert found.total == pytest.approx(grown(group) / found.seconds)
        local, occupied = after[group].total(LOCAL), after[group].total(CACHE)
        assert local.complete
        assert occupied.complete
        assert local.amount is not None
        assert 0 <= local.amount <= bytes_of(after[group])
    # While the second worked, the first did not.
    assert bytes_of(after[one]) - bytes_of(between[one]) < grown(two)


@pytest.mark.parametrize(("word", "state"), [("Unavailable", Unavailable()), ("Error", ReadError("Error"))])
def test_counters_that_refuse(world: World, word: str, state: Reading) -> None:
    """The word is the state of each counter, read once or again and again; then there are numbers again."""
    resctrl = resctrl_of(world)
    group, container = monitored(world, "one")
    with Sampler(resctrl) as sampler:
        sampler.add(group)
        before = sampler.sample()[group]
        work_past(world, group, container, bytes_of(before))
        with world.refused_counters(word):
            refused = sampler.sample()[group]
            once = resctrl.read_group(group)
        work_past(world, group, container, bytes_of(before))
        after = sampler.sample()[group]
    for reading in (refused, once):
        assert reading.values.keys() == before.values.keys()
        assert set(reading.values.values()) == {state}
        assert reading.total(BYTES) == Total(None, complete=False, missing=reading.domains)
    for pair in ((before, refused), (refused, after)):
        found = rate(*pair, BYTES)
        assert set(found.domains.values()) == {state}
        assert (found.total, found.complete) == (None, False)
    assert bytes_of(after) > bytes_of(before)
    assert rate(before, after, BYTES).complete


def test_a_group_made_anew(world: World) -> None:
    """It has no rate, although by then it has counted more than the group that had its name before."""
    resctrl = resctrl_of(world)
    group, container = monitored(world, "one")
    with Sampler(resctrl) as sampler:
        sampler.add(group)
        work_past(world, group, container, 0)
        old, read = sampler.sample()[group], resctrl.read_group(group)
        resctrl.delete_group(group)
        assert not sampler.sample()
        assert resctrl.create_group("one") == group
        fresh = sampler.sample()[group]
        resctrl.reconcile_group(group, lambda: world.threads_of(container))
        work_past(world, group, container, bytes_of(old))
        new, again = sampler.sample()[group], resctrl.read_group(group)
    assert old.generation == read.generation
    assert fresh.generation == new.generation == again.generation != old.generation
    assert bytes_of(fresh) < bytes_of(old) < bytes_of(new)
    for earlier in (old, read):
        for later in (fresh, new, again):
            found = rate(earlier, later, BYTES)
            assert set(found.domains.values()) == {Reset(ResetReason.RECREATED)}
            assert found.total == Reset(ResetReason.RECREATED)
    assert rate(fresh, new, BYTES).complete


def test_a_group_that_changes_its_name(world: World) -> None:
    """It is the same group: its counters go on, and the rate spans the rename."""
    resctrl = resctrl_of(world)
    group, container = monitored(world, "one")
    work_past(world, group, container, 0)
    before = resctrl.read_group(group)
    renamed = resctrl.group_path("two")
    world.fs.rename(group, renamed)
    work_past(world, renamed, container, bytes_of(before))
    after = resctrl.read_group(renamed)
    assert after.generation == before.generation
    found = rate(before, after, BYTES)
    assert found.complete
    assert isinstance(found.total, float)
    assert found.total > 0


def test_domains_are_told_apart(world: World) -> None:
    """Each domain tells its own number, between what an observer saw before and after."""
    group, container = monitored(world, "one")
    work_past(world, group, container, 0)
    seen = world.traffic(group)
    found = resctrl_of(world).read_group(group)
    seen_after = world.traffic(group)
    assert {domain.name for domain in found.domains} == {name.partition("/")[0] for name in seen}
    assert_between(seen, found, seen_after)


@pytest.mark.needs(Capability.PARTING)
def test_a_domain_that_went_and_came(world: World) -> None:
    """It has no rate meanwhile, never a negative one, and afterwards a number that is not the others'."""
    group, container = monitored(world, "one")
    with Sampler(resctrl_of(world)) as sampler:
        sampler.add(group)
        work_past(world, group, container, 0)
        before = sampler.sample()[group]
        anew = world.part_domains()
        work_past(world, group, container, bytes_of(resctrl_of(world).read_group(group)))
        found = sampler.sample()[group]
        seen = world.traffic(group)
        after = sampler.sample()[group]
        seen_after = world.traffic(group)
    assert anew < {domain.name for domain in before.domains}
    for (domain, event), reading in found.values.items():
        assert (reading == ReadError("ENODEV")) == (domain.name in anew), (domain, event)
    for pair in ((before, found), (found, after)):
        told = rate(*pair, BYTES)
        assert {domain.name for domain in told.missing} == anew
        assert not any(is_negative(value) for value in (*told.domains.values(), told.total))
    assert not any(is_negative(value) for value in rate(before, after, BYTES).domains.values())
    assert_between(seen, after, seen_after)
    numbers = after.of(BYTES)
    apart = {reading for domain, reading in numbers.items() if domain.name in anew}
    assert apart.isdisjoint(reading for domain, reading in numbers.items() if domain.name not in anew)


def assert_between(seen: dict[str, int], found: GroupReading, seen_after: dict[str, int]) -> None:
    """Hold each count of traffic against what an observer saw before and after."""
    for (domain, event), reading in found.values.items():
        if event in {BYTES, LOCAL}:
            name = f"{domain.name}/{event}"
            assert isinstance(reading, Value)
            assert seen[name] <= reading.amount <= seen_after[name]


def test_one_system_call_for_each_value(world: World) -> None:
    """Also where the kernel counts: a sample asks for a page of each file, and for nothing else."""
    groups = [monitored(world, name)[0] for name in ("one", "two", "three")]
    fs = RecordingFs(world.fs)
    with Sampler(Resctrl.with_provider(fs, ResctrlConfig(root=world.root)), recheck_seconds=1e9) as sampler:
        for group in groups:
            sampler.add(group)
        sampler.sample()
        fs.forget()
        sample = sampler.sample()
    values = sum(len(reading.values) for reading in sample.values())
    assert values > 0
    assert [call.operation for call in fs.calls] == ["read_page"] * values


def test_what_the_machine_says_of_itself(world: World) -> None:
    """It counts the events that its groups have, and has the RMIDs that it has room for."""
    resctrl = resctrl_of(world)
    info, reading = resctrl.info(), resctrl.read_group(world.root)
    assert info.mount.mount_point == world.root
    assert not info.mount.read_only
    assert set(reading.events) == {event for event in info.features if not event.endswith("_config")}
    assert {event for event in reading.events if event_kind(event) is EventKind.COUNTER} >= {BYTES}
    assert info.num_rmids == resctrl.capacity().num_rmids
    assert info.monitoring["L3_MON"].num_rmids == info.num_rmids
    assert info.num_closids == min(one.num_closids or 0 for one in info.allocation.values())
    world.fs.write_all(world.root / "tasks", [b"\n"])
    assert resctrl.info().last_cmd_status == ()
