"""Readings: what a text means, what a total knows, and reading a group of a fake kernel."""

from __future__ import annotations

import errno
import math
from functools import partial
from typing import TYPE_CHECKING

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from resctrl import (
    Domain,
    EventKind,
    GroupNotFoundError,
    GroupReading,
    InvalidGroupError,
    NotMountedError,
    ReadError,
    Reading,
    Resctrl,
    ResctrlConfig,
    ResctrlIOError,
    Total,
    Unassigned,
    Unavailable,
    UnsupportedError,
    Value,
    event_kind,
)
from resctrl.monitoring import domain_named, leaves, parse_reading
from resctrl.testing import FakeFs, FaultyFs, RecordingFs
from tests.unit.fakes import MON, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

L3 = Domain("mon_L3_00", "L3", 0)
OTHER = Domain("mon_L3_01", "L3", 1)
SUBS = (Domain("mon_sub_L3_00", "L3", 0, "mon_L3_00"), Domain("mon_sub_L3_01", "L3", 1, "mon_L3_00"))


# Texts


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("0\n", Value(0)),
        ("18446744073709551615\n", Value(2**64 - 1)),
        ("12.500000\n", Value(12.5)),
        ("0.0\n", Value(0.0)),
        ("Unavailable\n", Unavailable()),
        ("Unassigned\n", Unassigned()),
        ("Error\n", ReadError("Error")),
        ("7", Value(7)),
    ],
)
def test_what_the_kernel_writes(text: str, reading: Reading) -> None:
    """Numbers are values, whole or not; its words are states."""
    assert parse_reading(text) == reading
    if isinstance(reading, Value):
        assert type(parse_reading(text).amount) is type(reading.amount)  # type: ignore[union-attr]


NO_NUMBERS = ("", "\n", "-1", "+1", "1_000", "\u0663", "0x10", "1e5", "1.", ".5", "nan", "inf", "1 2", "1\n2")
NO_WORDS = ("unavailable", "Overflow", "9" * 21, "1." + "9" * 21, "x" * 5000, "\udcff")
NO_GROUPS = ("/", "/sys/fs", "/sys/fs/resctrl2", "..", "../x", "info", "mon_data", "mon_groups", "c1/x")
NO_MON_GROUPS = ("info/mon_groups/x", "mon_groups/../c1", "c1/mon_groups/..", "mon_groups/a/mon_groups/b")


@pytest.mark.parametrize("text", [*NO_NUMBERS, *NO_WORDS])
def test_what_nobody_knows(text: str) -> None:
    """A text that is no number and no known word is an error with that text, never 0, never an exception."""
    reading = parse_reading(f"{text}\n")
    assert isinstance(reading, ReadError)
    assert reading.text == text.strip()[:80]


@given(st.text(max_size=100))
def test_any_text_is_a_reading(text: str) -> None:
    """Whatever a kernel may write one day, it can be read, and a value is finite and not negative."""
    reading = parse_reading(text)
    if isinstance(reading, Value):
        assert 0 <= reading.amount < math.inf


@given(st.integers(0, 2**64 - 1))
def test_every_count_comes_through(count: int) -> None:
    """64 bits are told exactly."""
    assert parse_reading(f"{count}\n") == Value(count)


@pytest.mark.parametrize(
    ("name", "parent", "domain"),
    [
        ("mon_L3_00", None, L3),
        ("mon_L3_117", None, Domain("mon_L3_117", "L3", 117)),
        ("mon_sub_L3_01", "mon_L3_00", SUBS[1]),
        ("mon_PERF_PKG_03", None, Domain("mon_PERF_PKG_03", "PERF_PKG", 3)),
        ("mon_L3", None, Domain("mon_L3", "mon_L3", -1)),
        ("odd", None, Domain("odd", "odd", -1)),
        ("mon_L3_\u0663", None, Domain("mon_L3_\u0663", "mon_L3_\u0663", -1)),
    ],
)
def test_names_of_domains(name: str, parent: str | None, domain: Domain) -> None:
    """Kind and number are in the name; a name of another shape is taken as it is."""
    assert domain_named(name, parent) == domain


def test_kinds_of_events() -> None:
    """A gauge is no counter, and what is not known is called that."""
    assert event_kind("llc_occupancy") is EventKind.GAUGE
    counters = ("mbm_total_bytes", "mbm_local_bytes", "core_energy", "activity")
    assert {event_kind(event) for event in counters} == {EventKind.COUNTER}
    assert event_kind("uops_retired") is EventKind.UNKNOWN


# Totals


def reading_of(**events: dict[Domain, Reading]) -> GroupReading:
    """Return a reading of a group with these events."""
    values = {(domain, event): one for event, told in events.items() for domain, one in told.items()}
    return GroupReading(MON / "a", 1, 2, values)


def test_a_total_is_complete_or_says_what_is_missing() -> None:
    """Numbers are added; each domain without one is named, and without any number there is no amount."""
    one = reading_of(
        good={L3: Value(1), OTHER: Value(2)},
        half={L3: Value(1), OTHER: Unavailable()},
        bad={L3: ReadError("Error"), OTHER: Unassigned()},
        energy={L3: Value(0.5), OTHER: Value(1)},
    )
    assert one.total("good") == Total(3, complete=True)
    assert one.total("half") == Total(1, complete=False, missing=(OTHER,))
    assert one.total("bad") == Total(None, complete=False, missing=(L3, OTHER))
    assert one.total("energy") == Total(1.5, complete=True)
    assert one.total("nothing") == Total(None, complete=False)


def test_a_total_counts_sub_domains_once() -> None:
    """Sub-domains are added instead of their sum, and one that is missing in it in silence is named."""
    whole = reading_of(x={L3: Value(30), SUBS[0]: Value(10), SUBS[1]: Value(20), OTHER: Value(4)})
    assert whole.total("x") == Total(34, complete=True)
    partial = reading_of(x={L3: Value(10), SUBS[0]: Value(10), SUBS[1]: ReadError("EIO"), OTHER: Value(4)})
    assert partial.total("x") == Total(14, complete=False, missing=(SUBS[1],))
    alone = reading_of(x={L3: Value(30)}, y={SUBS[0]: Value(1)})
    assert alone.total("x") == Total(30, complete=True)
    assert alone.total("y") == Total(1, complete=True)


def test_leaves_are_told_by_name() -> None:
    """A domain with sub-domains is none; without their parent the sub-domains are."""
    assert leaves([L3, *SUBS, OTHER]) == [*SUBS, OTHER]
    assert leaves(SUBS) == list(SUBS)
    assert leaves([]) == []


def test_a_reading_cannot_be_changed() -> None:
    """What was read stays, also when the mapping that it was made from is changed."""
    values: dict[tuple[Domain, str], Reading] = {(L3, "x"): Value(1)}
    one = GroupReading(MON / "a", 1, 2, values)
    values.clear()
    assert one.total("x").amount == 1
    with pytest.raises(TypeError):
        one.values[L3, "x"] = Value(2)  # type: ignore[index]
    assert len({one, GroupReading(MON / "a", 1, 2, {(L3, "x"): Value(1)})}) == 1
    assert (one.domains, one.events) == ((L3,), ("x",))


# Reading a group


@frozen
class Machine:
    """A fake with a recorder and a fault injector."""

    fake: FakeFs
    faults: FaultyFs[FakeFs]
    fs: RecordingFs[FaultyFs[FakeFs]]
    resctrl: Resctrl[RecordingFs[FaultyFs[FakeFs]]]

    @classmethod
    def of(cls, fake: FakeFs) -> Machine:
        """Return a machine around a fake."""
        faults = FaultyFs(fake)
        fs = RecordingFs(faults)
        return cls(fake, faults, fs, Resctrl.with_provider(fs))


def ends(name: str) -> Callable[[Path], bool]:
    """Return what is true of paths that end so."""
    return lambda path: str(path).endswith(name)


def below(directory: Path) -> Callable[[Path], bool]:
    """Return what is true of paths in a directory."""
    return lambda path: path.is_relative_to(directory)


def removed(fake: FakeFs, group: Path, _: Path) -> None:
    """Remove a group, whichever file is about to be looked at."""
    fake.remove_dir(group)


def test_every_counter_of_every_domain() -> None:
    """Several L3 caches, their nodes and packages: all are told, each with its own number."""
    machine = Machine.of(FakeFs(limbo=1.0, domains=(0, 7), nodes_per_domain=2, packages=(3,)))
    group = machine.resctrl.create_group("a")
    for node in (0, 1, 14, 15):
        machine.fake.set_reading(group, "mbm_total_bytes", 100 + node, domain=node)
    machine.fake.set_reading(group, "core_energy", 2.25, domain=3)
    reading = machine.resctrl.read_group(group)
    assert [domain.name for domain in reading.domains] == [
        *("mon_L3_00", "mon_sub_L3_00", "mon_sub_L3_01"),
        *("mon_L3_07", "mon_sub_L3_14", "mon_sub_L3_15"),
        "mon_PERF_PKG_03",
    ]
    assert reading.events == (
        "activity",
        "core_energy",
        "llc_occupancy",
        "mbm_local_bytes",
        "mbm_total_bytes",
    )
    told = {domain.name: one for domain, one in reading.of("mbm_total_bytes").items()}
    assert (told["mon_L3_07"], told["mon_sub_L3_14"], told["mon_L3_00"]) == (
        Value(229),
        Value(114),
        Value(201),
    )
    assert reading.total("mbm_total_bytes") == Total(430, complete=True)
    assert reading.total("core_energy") == Total(2.25, complete=True)
    assert {domain.kind for domain in reading.of("core_energy")} == {"PERF_PKG"}


def test_any_group_can_be_read() -> None:
    """Ours or not, control groups and the default group too, whose counters include their groups'."""
    machine = Machine.of(FakeFs())
    for name in ("c1", "c1/mon_groups/x", "mon_groups/theirs"):
        machine.fake.create_dir(ROOT / name)
    machine.fake.set_reading(ROOT / "c1/mon_groups/x", "mbm_total_bytes", 5)
    for path, amount in ((ROOT, 0), (ROOT / "c1", 5), (ROOT / "c1/mon_groups/x", 5), (MON / "theirs", 0)):
        reading = machine.resctrl.read_group(path)
        assert (reading.group, reading.total("mbm_total_bytes").amount) == (path, amount)


@pytest.mark.parametrize("path", [*NO_GROUPS, *NO_MON_GROUPS, "a\0b"])
def test_no_group_can_stand_there(path: str) -> None:
    """What cannot be a group is refused before anything is looked at."""
    machine = Machine.of(FakeFs())
    with pytest.raises(InvalidGroupError, match="no group can stand there"):
        machine.resctrl.read_group(ROOT / path)
    assert machine.fs.calls == []


def test_words_are_states_of_their_own_counter() -> None:
    """One word costs nothing but its own reading."""
    machine = Machine.of(FakeFs(domains=(0, 1)))
    group = machine.resctrl.create_group("a")
    for event, word in (("mbm_total_bytes", "Unavailable"), ("mbm_local_bytes", "Unassigned")):
        machine.fake.set_reading(group, event, word)
    machine.fake.set_reading(group, "mbm_total_bytes", "Error", domain=1)
    assert machine.resctrl.read_group(group).values == {
        (L3, "mbm_local_bytes"): Unassigned(),
        (L3, "mbm_total_bytes"): Unavailable(),
        (OTHER, "mbm_local_bytes"): Value(0),
        (OTHER, "mbm_total_bytes"): ReadError("Error"),
    }


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOENT, errno.ENODEV, errno.EMFILE, errno.EACCES])
def test_a_file_that_cannot_be_read(number: int) -> None:
    """The errno's name is the state of that counter, and every other one is told."""
    machine = Machine.of(FakeFs(domains=(0, 1)))
    group = machine.resctrl.create_group("a")
    machine.faults.fail("read_text", number, path=ends("mon_L3_01/mbm_total_bytes"))
    reading = machine.resctrl.read_group(group)
    assert reading.of("mbm_total_bytes") == {L3: Value(0), OTHER: ReadError(errno.errorcode[number])}
    assert reading.total("mbm_local_bytes") == Total(0, complete=True)
    assert machine.faults.unused() == 0


@pytest.mark.parametrize("operation", ["read_child_dirs", "read_child_files"])
def test_a_domain_that_cannot_be_listed(operation: str) -> None:
    """Its counters are those that others of its kind have, each with the errno, and missing in the total."""
    machine = Machine.of(FakeFs(domains=(0, 1), packages=(0,)))
    group = machine.resctrl.create_group("a")
    machine.faults.fail(operation, errno.EIO, path=ends("mon_data/mon_L3_01"))
    reading = machine.resctrl.read_group(group)
    assert reading.total("mbm_total_bytes") == Total(0, complete=False, missing=(OTHER,))
    assert {event for domain, event in reading.values if domain == OTHER} == {
        "mbm_local_bytes",
        "mbm_total_bytes",
    }
    assert {one for (domain, _), one in reading.values.items() if domain == OTHER} == {ReadError("EIO")}


@pytest.mark.parametrize("operation", ["read_child_dirs", "read_child_files"])
def test_a_domain_that_goes_meanwhile(operation: str) -> None:
    """It is left out, as if it had gone before."""
    machine = Machine.of(FakeFs(domains=(0, 1)))
    group = machine.resctrl.create_group("a")
    machine.faults.before(
        operation, lambda _: machine.fake.set_online(1, online=False), path=ends("mon_data/mon_L3_01")
    )
    reading = machine.resctrl.read_group(group)
    assert reading.domains == (L3,)
    assert reading.total("mbm_total_bytes").complete


def test_nothing_can_be_listed() -> None:
    """Where no counter is known that could have a state the whole call fails, with the errno."""
    machine = Machine.of(FakeFs())
    group = machine.resctrl.create_group("a")
    machine.faults.fail("read_child_files", errno.EMFILE)
    with pytest.raises(ResctrlIOError) as caught:
        machine.resctrl.read_group(group)
    assert caught.value.errno == errno.EMFILE


def test_a_group_that_is_not_there() -> None:
    """It is said to be missing, whether it never was or went while it was read."""
    machine = Machine.of(FakeFs())
    with pytest.raises(GroupNotFoundError):
        machine.resctrl.read_group(MON / "pod_a")
    for operation in ("read_child_dirs", "read_child_files", "read_text"):
        group = machine.resctrl.create_group("a")
        machine.faults.before(operation, partial(removed, machine.fake, group), path=below(group))
        with pytest.raises(GroupNotFoundError):
            machine.resctrl.read_group(group)
        machine.faults.heal()


def test_a_group_that_is_made_anew_meanwhile() -> None:
    """What is told is of the new group alone, with its generation; if it never rests, that is an error."""
    machine = Machine.of(FakeFs(num_rmids=100))
    group = machine.resctrl.create_group("a")
    machine.fake.set_reading(group, "mbm_local_bytes", 7)
    machine.fake.set_reading(group, "mbm_total_bytes", 7)

    def anew(_: Path) -> None:
        machine.fake.remove_dir(group)
        machine.fake.create_dir(group)

    machine.faults.before("read_text", anew, path=ends("mbm_total_bytes"))
    before = machine.fake.identity(group)
    reading = machine.resctrl.read_group(group)
    assert reading.generation == machine.fake.identity(group) != before
    assert set(reading.values.values()) == {Value(0)}
    machine.faults.before("read_text", anew, times=math.inf, path=ends("mbm_total_bytes"))
    with pytest.raises(GroupNotFoundError, match="made anew"):
        machine.resctrl.read_group(group)


def test_the_generation_goes_with_the_group() -> None:
    """A rename keeps it, a new group of the same name has another."""
    machine = Machine.of(FakeFs())
    group = machine.resctrl.create_group("a")
    first = machine.resctrl.read_group(group)
    machine.fake.create_dir(ROOT / "c1")
    moved = machine.resctrl.move_group(group, "c1")
    assert machine.resctrl.read_group(moved).generation == first.generation
    assert machine.resctrl.read_group(machine.resctrl.create_group("a")).generation != first.generation


def test_machines_without_counters() -> None:
    """Unmounted and unable to monitor are told as that, for a group and for the root."""
    unmounted = Machine.of(FakeFs(mounted=False)).resctrl
    allocating = Machine.of(FakeFs(monitoring=False))
    allocating.fake.create_dir(ROOT / "c1")
    for path in (ROOT, MON / "pod_a"):
        with pytest.raises(NotMountedError):
            unmounted.read_group(path)
        with pytest.raises(UnsupportedError, match="cannot monitor"):
            allocating.resctrl.read_group(path)
    with pytest.raises(UnsupportedError, match="cannot monitor"):
        allocating.resctrl.read_group(ROOT / "c1")


def test_without_proc_the_errno_has_to_do() -> None:
    """Where it cannot be found out whether resctrl is mounted the group is missing, no more."""
    machine = Machine.of(FakeFs(mounted=False))
    machine.faults.fail("read_text", errno.EACCES, times=math.inf)
    with pytest.raises(GroupNotFoundError):
        machine.resctrl.read_group(MON / "pod_a")


def test_names_that_nobody_has_seen(tmp_path: Path) -> None:
    """On any file system: a kind, an event and a word of tomorrow are told as they are."""
    mon_data = tmp_path / "mon_groups/g/mon_data"
    for name, text in (
        ("mon_L9_00/cache_misses", "5\n"),
        ("mon_L9_00/mood", "Sunny\n"),
        ("strange/mbm_total_bytes", "3\n"),
    ):
        (mon_data / name).parent.mkdir(parents=True, exist_ok=True)
        (mon_data / name).write_text(text)
    (mon_data / "a_file").touch()
    reading = Resctrl(ResctrlConfig(root=tmp_path)).read_group(tmp_path / "mon_groups/g")
    assert reading.values == {
        (Domain("mon_L9_00", "L9", 0), "cache_misses"): Value(5),
        (Domain("mon_L9_00", "L9", 0), "mood"): ReadError("Sunny"),
        (Domain("strange", "strange", -1), "mbm_total_bytes"): Value(3),
    }


def test_nothing_is_written() -> None:
    """Reading asks only for what it reads."""
    machine = Machine.of(FakeFs())
    group = machine.resctrl.create_group("a")
    machine.fs.forget()
    machine.resctrl.read_group(group)
    assert {call.operation for call in machine.fs.calls} == {
        *("identity", "read_child_dirs", "read_child_files", "read_text")
    }
