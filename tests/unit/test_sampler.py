"""Sampler: one system call for each value, and nothing that comes or goes is missed."""

from __future__ import annotations

import errno
import math
import os
import resource
from collections import Counter
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from resctrl import (
    Domain,
    FsProvider,
    GroupNotFoundError,
    GroupReading,
    InvalidGroupError,
    NotMountedError,
    ReadError,
    Resctrl,
    ResctrlConfig,
    ResctrlIOError,
    Reset,
    ResetReason,
    Sampler,
    Total,
    Unavailable,
    Value,
    rate,
)
from resctrl.testing import FakeFs, FaultyFs, RecordingFs
from tests.unit.fakes import MON, ROOT, answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from resctrl import Tid

L3, OTHER = Domain("mon_L3_00", "L3", 0), Domain("mon_L3_01", "L3", 1)
BYTES = "mbm_total_bytes"
SECOND = 1_000_000_000


@define
class Machine:
    """A fake with a sampler behind a recorder and a fault injector; each sample comes a second later."""

    fake: FakeFs = field(factory=lambda: FakeFs(num_rmids=300, domains=(0, 1)))
    now: int = 0
    max_open: int | None = 10_000
    faults: FaultyFs[FakeFs] = field(init=False)
    fs: RecordingFs[FaultyFs[FakeFs]] = field(init=False)
    resctrl: Resctrl[RecordingFs[FaultyFs[FakeFs]]] = field(init=False)
    sampler: Sampler[RecordingFs[FaultyFs[FakeFs]]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.faults = FaultyFs(self.fake)
        self.fs = RecordingFs(self.faults)
        self.resctrl = Resctrl.with_provider(self.fs)
        self.sampler = Sampler(self.resctrl, max_open=self.max_open, clock=self.clock)

    def clock(self) -> int:
        """Return the time."""
        return self.now

    def groups(self, count: int) -> list[Path]:
        """Make groups that are sampled."""
        made = [self.resctrl.create_group(f"{number:03d}") for number in range(count)]
        for group in made:
            self.sampler.add(group)
        return made

    def thread(self, group: Path) -> Tid:
        """Start a thread in a group."""
        tid = self.fake.spawn()
        self.fake.write_all(group / "tasks", [b"%d" % tid])
        return tid

    def anew(self, group: Path) -> None:
        """Make a group anew."""
        self.fake.remove_dir(group)
        self.fake.create_dir(group)

    def later(self, seconds: float = 1) -> None:
        """Let time pass, and begin a new record."""
        self.now += round(seconds * SECOND)
        self.fs.forget()


@pytest.fixture
def machine() -> Machine:
    """Return a machine with two L3 caches."""
    return Machine()


# One system call for each value


def test_one_pread_for_each_value() -> None:
    """200 groups of 2 domains with 3 files: a sample asks the provider for 1,200 pages and nothing else."""
    machine = Machine(FakeFs(num_rmids=300, domains=(0, 1), limbo=1.0))
    groups = machine.groups(200)
    machine.sampler.sample()
    for _ in range(3):
        machine.later()
        sample = machine.sampler.sample()
        assert Counter(call.operation for call in machine.fs.calls) == {"read_page": 1200}
        assert len({call.path for call in machine.fs.calls}) == 1200
        assert list(sample) == groups
        assert sum(len(reading.values) for reading in sample.values()) == 1200
        assert (sample.failed, sample.unheld, machine.sampler.open_files) == ({}, frozenset(), 1200)


SYSTEM_CALLS = ("open", "close", "read", "pread", "stat", "lstat", "fstat", "scandir", "listdir", "statvfs")


@pytest.fixture
def system_calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return how often Python's functions for files were called, from now on."""
    calls: Counter[str] = Counter()

    def counted(name: str) -> Callable[..., object]:
        function = getattr(os, name)

        def call(*arguments: object, **named: object) -> object:
            calls[name] += 1
            return function(*arguments, **named)

        return call

    for name in SYSTEM_CALLS:
        monkeypatch.setattr(os, name, counted(name))
    return calls


def tree(root: Path, groups: int) -> list[Path]:
    """Write what groups look like, of two domains with three files each; return the groups."""
    made = [root / "mon_groups" / f"g{number:03d}" for number in range(groups)]
    for group in made:
        for domain in ("mon_L3_00", "mon_L3_01"):
            directory = group / "mon_data" / domain
            directory.mkdir(parents=True)
            for event in ("llc_occupancy", "mbm_local_bytes", "mbm_total_bytes"):
                (directory / event).write_text("4096\n")
    return made


def test_one_pread_on_a_real_file_system(tmp_path: Path, system_calls: Counter[str]) -> None:
    """Held open it is one pread(2) a value; without a sampler it is four system calls a value and more."""
    groups = tree(tmp_path, 30)
    resctrl = Resctrl(ResctrlConfig(root=tmp_path))
    with Sampler(resctrl) as sampler:
        for group in groups:
            sampler.add(group)
        sampler.sample()
        system_calls.clear()
        sample = sampler.sample()
        assert system_calls == {"pread": 30 * 2 * 3}
        assert {reading.total("llc_occupancy") for reading in sample.values()} == {Total(8192, complete=True)}
        system_calls.clear()
        resctrl.read_group(groups[0])
        assert system_calls["open"] == system_calls["close"] == 6
        assert system_calls["pread"] == 12
    system_calls.clear()
    sampler.close()
    assert system_calls == {}


def test_files_are_opened_at_the_first_sample_and_closed_at_the_end(machine: Machine) -> None:
    """Until then resctrl can be unmounted, while they are open it cannot, and afterwards it can."""
    (group,) = machine.groups(1)
    assert machine.sampler.open_files == 0
    machine.fake.unmount()
    machine.fake.mount()
    machine.fake.create_dir(group)
    with machine.sampler as sampler:
        sampler.sample()
        assert sampler.open_files == 4
        assert answer(machine.fake.unmount) == "EBUSY"
    assert sampler.open_files == 0
    machine.fake.unmount()
    sampler.close()
    with pytest.raises(ValueError, match="closed"):
        sampler.sample()
    with pytest.raises(ValueError, match="closed"):
        sampler.add(group)


# Which groups


def test_groups_come_and_go(machine: Machine) -> None:
    """They are read from a sample after add until discard, which closes their files; both may be repeated."""
    one, two = machine.groups(2)
    machine.sampler.add(one)
    assert list(machine.sampler.groups) == [one, two]
    assert list(machine.sampler.sample()) == [one, two]
    machine.sampler.discard(one)
    machine.sampler.discard(one)
    assert list(machine.sampler.groups) == [two]
    assert machine.sampler.open_files == 4
    assert list(machine.sampler.sample()) == [two]
    machine.sampler.add(ROOT)
    assert list(machine.sampler.sample()) == [two, ROOT]


def test_a_sample_is_a_mapping(machine: Machine) -> None:
    """It has the groups that were read, and those alone."""
    (one,) = machine.groups(1)
    machine.sampler.add(MON / "nobody")
    sample = machine.sampler.sample()
    assert len(sample) == 1
    assert sample[one] == sample.readings[one]
    assert MON / "nobody" not in sample
    assert sample == {one: sample[one]}


def test_no_group_can_stand_there(machine: Machine) -> None:
    """Such a path is refused at once."""
    with pytest.raises(InvalidGroupError):
        machine.sampler.add(ROOT / "info")
    assert machine.sampler.groups == ()


def test_a_reading_says_what_read_group_says() -> None:
    """Both ways give the same values, words and sub-domains included."""
    machine = Machine(FakeFs(limbo=1.0, domains=(0, 1), nodes_per_domain=2, packages=(0,)))
    (group,) = machine.groups(1)
    machine.fake.set_reading(group, BYTES, "Unassigned", domain=2)
    machine.fake.set_reading(group, "core_energy", 1.25)
    machine.now = 4711
    reading = machine.sampler.sample()[group]
    assert reading.values == machine.resctrl.read_group(group).values
    assert (reading.group, reading.taken_ns) == (group, 4711)
    assert reading.generation == machine.fake.identity(group)


# What comes and goes


def test_a_group_that_is_gone(machine: Machine) -> None:
    """It is told as missing, at each sample until it is there again; the other groups are read."""
    one, two = machine.groups(2)
    machine.sampler.sample()
    machine.fake.remove_dir(one)
    for _ in range(2):
        machine.later()
        sample = machine.sampler.sample()
        assert list(sample) == [two]
        assert {group: type(error) for group, error in sample.failed.items()} == {one: GroupNotFoundError}
        assert sample.unheld == frozenset()
        assert machine.sampler.open_files == 4
    machine.fake.create_dir(one)
    machine.later()
    assert list(machine.sampler.sample()) == [one, two]


def test_a_group_that_was_made_anew(machine: Machine) -> None:
    """It is noticed in the very next sample: another generation, no number of the old group, no rate."""
    (group,) = machine.groups(1)
    machine.fake.set_reading(group, BYTES, 10)
    before = machine.sampler.sample()[group]
    machine.anew(group)
    machine.fake.set_reading(group, BYTES, 1_000)
    machine.later()
    after = machine.sampler.sample()[group]
    assert after.generation == machine.fake.identity(group) != before.generation
    assert after.of(BYTES) == {L3: Value(1000), OTHER: Value(0)}
    assert rate(before, after, BYTES).total == Reset(ResetReason.RECREATED)
    machine.later()
    assert Counter(call.operation for call in machine.fs.calls) == {}
    assert rate(after, machine.sampler.sample()[group], BYTES).total == 0.0
    assert Counter(call.operation for call in machine.fs.calls) == {"read_page": 4}


def test_a_group_that_is_made_anew_while_it_is_read(machine: Machine) -> None:
    """What is told is of one group; one that never rests is an error of its own."""
    group, other = machine.groups(2)
    machine.fake.set_reading(group, BYTES, 10)
    machine.fake.set_reading(group, BYTES, 10, domain=1)
    machine.sampler.sample()
    here = lambda path: path == group / "mon_data/mon_L3_01" / BYTES  # noqa: E731 - a filter
    machine.faults.before("read_page", lambda _: machine.anew(group), path=here)
    sample = machine.sampler.sample()
    assert set(sample[group].values.values()) == {Value(0)}
    assert sample[group].generation == machine.fake.identity(group)
    machine.faults.before("read_page", lambda _: machine.anew(group), path=here, times=math.inf)
    sample = machine.sampler.sample()
    assert list(sample) == [other]
    assert "made anew" in str(sample.failed[group])
    assert machine.sampler.open_files == 4
    machine.faults.heal()
    assert list(machine.sampler.sample()) == [group, other]


def test_a_group_that_is_made_anew_while_it_is_opened(machine: Machine) -> None:
    """Its files belong to one generation; one that never rests is an error, and nothing stays open."""
    (group,) = machine.groups(1)
    for operation, nth in (
        ("read_child_dirs", 1),
        ("read_child_files", 1),
        ("open_reader", 1),
        ("open_reader", 3),
    ):
        machine.faults.before(
            operation, lambda _: machine.anew(group), nth=nth, path=lambda path: path.is_relative_to(group)
        )
        assert machine.sampler.sample()[group].generation == machine.fake.identity(group)
        assert machine.faults.unused() == 0
        machine.sampler.discard(group)
        machine.sampler.add(group)
    machine.faults.before("open_reader", lambda _: machine.anew(group), times=math.inf)
    assert "made anew" in str(machine.sampler.sample().failed[group])
    assert machine.sampler.open_files == 0
    machine.fake.unmount()


def test_a_renamed_group_is_read_on(machine: Machine) -> None:
    """Open files follow a group to another control group: it goes on under the name it was added by."""
    (group,) = machine.groups(1)
    tid = machine.thread(group)
    machine.fake.create_dir(ROOT / "c1")
    before = machine.sampler.sample()[group]
    machine.resctrl.move_group(group, "c1")
    machine.fake.move_bytes(tid, 100)
    machine.later()
    after = machine.sampler.sample()[group]
    assert rate(before, after, BYTES).total == 100.0


def test_a_domain_that_goes(machine: Machine) -> None:
    """Its counters are errors in the sample that finds it gone, and are left out from the next one on."""
    (group,) = machine.groups(1)
    before = machine.sampler.sample()[group]
    machine.fake.set_online(1, online=False)
    machine.later()
    found = machine.sampler.sample()[group]
    assert found.of(BYTES) == {L3: Value(0), OTHER: ReadError("ENODEV")}
    assert found.generation == before.generation
    assert rate(before, found, BYTES).domains == {L3: 0.0, OTHER: ReadError("ENODEV")}
    machine.later()
    assert machine.sampler.sample()[group].domains == (L3,)
    machine.later()
    machine.sampler.sample()
    assert Counter(call.operation for call in machine.fs.calls) == {"read_page": 2}


def test_a_domain_that_comes_is_found_in_time(machine: Machine) -> None:
    """All groups have it after recheck_seconds, and a rate only from two readings on."""
    groups = machine.groups(2)
    machine.fake.set_online(1, online=False)
    before = machine.sampler.sample()
    machine.fake.set_online(1, online=True)
    machine.later(9.9)
    assert {reading.domains for reading in machine.sampler.sample().values()} == {(L3,)}
    machine.later(0.1)
    machine.sampler.sample()
    machine.later()
    after = machine.sampler.sample()
    assert {reading.domains for reading in after.values()} == {(L3, OTHER)}
    assert rate(before[groups[0]], after[groups[0]], BYTES).domains[OTHER] == Reset(ResetReason.DOMAIN_NEW)
    machine.later()
    machine.sampler.sample()
    assert Counter(call.operation for call in machine.fs.calls) == {"read_page": 8}


def test_a_first_look_that_fails_costs_no_later_domain(machine: Machine) -> None:
    """Where the domains could not be listed at first, one that comes meanwhile is found."""
    (group,) = machine.groups(1)
    machine.fake.set_online(1, online=False)
    machine.faults.fail("read_child_dirs", errno.EMFILE, path=machine.resctrl.config.root / "mon_data")
    assert machine.sampler.sample()[group].domains == (L3,)
    machine.fake.set_online(1, online=True)
    machine.later(10)
    machine.sampler.sample()
    assert machine.sampler.sample()[group].domains == (L3, OTHER)


def test_looking_for_domains_costs_little(machine: Machine) -> None:
    """Every ten seconds the root's mon_data is listed, whatever the number of groups."""
    machine.groups(20)
    machine.sampler.sample()
    machine.later(10)
    machine.sampler.sample()
    assert Counter(call.operation for call in machine.fs.calls) == {"read_page": 80, "read_child_dirs": 3}
    assert {call.path for call in machine.fs.calls if call.operation == "read_child_dirs"} == {
        ROOT / "mon_data" / name for name in ("", "mon_L3_00", "mon_L3_01")
    }
    never = Sampler(machine.resctrl, recheck_seconds=math.inf, clock=machine.clock)
    never.sample()
    machine.later(1e9)
    never.sample()
    assert machine.fs.calls == []


def test_a_domain_that_went_and_came_between_two_samples(machine: Machine) -> None:
    """Its counters began anew: that shows in the sample, so no rate spans it, however high they are."""
    (group,) = machine.groups(1)
    tid = machine.thread(group)
    before = machine.sampler.sample()[group]
    machine.fake.set_online(1, online=False)
    machine.fake.set_online(1, online=True)
    machine.fake.move_bytes(tid, 1000, domain=1)
    machine.later()
    found = machine.sampler.sample()[group]
    assert rate(before, found, BYTES).domains == {L3: 0.0, OTHER: ReadError("ENODEV")}
    machine.later()
    after = machine.sampler.sample()[group]
    assert after.of(BYTES)[OTHER] == Value(1000)
    assert rate(found, after, BYTES).domains == {L3: 0.0, OTHER: ReadError("ENODEV")}


def test_a_domain_that_went_and_came_while_another_one_came(machine: Machine) -> None:
    """Looking for domains does not hide that one was away: what is open is read before it is opened anew."""
    machine = Machine(FakeFs(domains=(0, 1, 2)))
    (group,) = machine.groups(1)
    tid = machine.thread(group)
    machine.fake.set_online(2, online=False)
    before = machine.sampler.sample()[group]
    for online in (False, True):
        machine.fake.set_online(1, online=online)
    machine.fake.set_online(2, online=True)
    machine.fake.move_bytes(tid, 1000, domain=1)
    machine.later(10)
    found = machine.sampler.sample()[group]
    assert rate(before, found, BYTES).domains[OTHER] == ReadError("ENODEV")
    machine.later()
    assert len(machine.sampler.sample()[group].domains) == 3


def test_words_and_errors_come_through(machine: Machine) -> None:
    """A word, and a read that fails otherwise, are states of their own counter and no reason to open anew."""
    (group,) = machine.groups(1)
    machine.sampler.sample()
    machine.fake.set_reading(group, BYTES, "Unavailable")
    machine.faults.fail("read_page", errno.EIO, path=group / "mon_data/mon_L3_01" / BYTES)
    machine.later()
    found = machine.sampler.sample()[group]
    assert found.of(BYTES) == {L3: Unavailable(), OTHER: ReadError("EIO")}
    assert found.total("mbm_local_bytes") == Total(0, complete=True)
    assert Counter(call.operation for call in machine.fs.calls) == {"read_page": 4}
    machine.later()
    assert machine.sampler.sample()[group].of(BYTES)[OTHER] == Value(0)
    assert Counter(call.operation for call in machine.fs.calls) == {"read_page": 4}


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOENT, errno.EIO])
def test_a_file_that_cannot_be_opened(machine: Machine, number: int) -> None:
    """The errno is the state of that counter, until it can be opened, which is tried at each sample."""
    (group,) = machine.groups(1)
    machine.faults.fail("open_reader", number, path=group / "mon_data/mon_L3_01" / BYTES, times=2)
    for _ in range(2):
        machine.later()
        found = machine.sampler.sample()[group]
        assert found.of(BYTES) == {L3: Value(0), OTHER: ReadError(errno.errorcode[number])}
    assert machine.sampler.sample()[group].total(BYTES) == Total(0, complete=True)
    machine.later()
    machine.sampler.sample()
    assert Counter(call.operation for call in machine.fs.calls) == {"read_page": 4}


def test_a_domain_that_cannot_be_listed(machine: Machine) -> None:
    """Its counters are errors, until it can be listed."""
    (group,) = machine.groups(1)
    machine.faults.fail("read_child_files", errno.EIO, path=group / "mon_data/mon_L3_01")
    assert machine.sampler.sample()[group].of(BYTES) == {L3: Value(0), OTHER: ReadError("EIO")}
    assert machine.sampler.sample()[group].total(BYTES) == Total(0, complete=True)


def test_a_machine_that_is_not_mounted() -> None:
    """Every group says so, and nothing is raised; when it is mounted, they are read."""
    machine = Machine(FakeFs(mounted=False))
    machine.sampler.add(ROOT)
    machine.sampler.add(MON / "pod_a")
    sample = machine.sampler.sample()
    assert {type(error) for error in sample.failed.values()} == {NotMountedError}
    machine.fake.mount()
    assert list(machine.sampler.sample()) == [ROOT]


# Without descriptors


def test_no_descriptor_is_left(machine: Machine) -> None:
    """EMFILE: groups are read file by file, and the sample names them; none is missing or wrong."""
    groups = machine.groups(6)
    for number, group in enumerate(groups):
        machine.fake.set_reading(group, BYTES, number)
    machine.faults.fail("open_reader", errno.EMFILE, nth=15, times=math.inf)
    sample = machine.sampler.sample()
    assert sample.failed == {}
    assert {group: reading.total(BYTES).amount for group, reading in sample.items()} == dict(
        zip(groups, range(6), strict=True)
    )
    assert sample.unheld == {*groups[3:]}
    # What could be held was partly given back, so that the rest of the program can go on.
    assert machine.sampler.open_files == 4
    machine.later()
    assert machine.sampler.sample().unheld == {*groups[1:]}
    assert machine.fs.count("open_reader") == 0
    machine.sampler.close()
    machine.fake.unmount()


@pytest.mark.parametrize(
    ("operation", "times"), [("read_child_dirs", 1), ("read_child_files", 1), ("read_child_files", 2)]
)
def test_no_descriptor_is_left_to_list_with(machine: Machine, operation: str, times: int) -> None:
    """What was held gives way, and the group is read in the same sample."""
    groups, late = machine.groups(5), MON / "late"
    machine.sampler.sample()
    machine.faults.fail(operation, errno.EMFILE, path=lambda path: path.is_relative_to(late), times=times)
    machine.fake.create_dir(late)
    machine.sampler.add(late)
    sample = machine.sampler.sample()
    assert sample.failed == {}
    assert list(sample) == [*groups, late]
    assert sample.unheld == {late}
    assert sample[late].total(BYTES) == Total(0, complete=True)
    assert machine.sampler.open_files == 12


def test_nobody_gives_way(machine: Machine) -> None:
    """Where no descriptor can be had the group has failed, with the errno; the next sample tries again."""
    (group,) = machine.groups(1)
    machine.faults.fail("read_child_dirs", errno.EMFILE, path=group / "mon_data", times=2)
    error = machine.sampler.sample().failed[group]
    assert isinstance(error, ResctrlIOError)
    assert error.errno == errno.EMFILE
    assert machine.sampler.sample().unheld == {group}


def test_files_are_held_again_when_there_is_room(machine: Machine) -> None:
    """Ten seconds after a failure, or when a group is discarded, it is tried again."""
    groups = machine.groups(3)
    machine.faults.fail("open_reader", errno.ENFILE, nth=9)
    assert machine.sampler.sample().unheld == {groups[2]}
    machine.later(5)
    assert len(machine.sampler.sample().unheld) == 3
    machine.later(5)
    assert machine.sampler.sample().unheld == frozenset()
    machine.sampler.discard(groups[0])
    machine.sampler.add(groups[0])
    machine.faults.fail("open_reader", errno.ENFILE)
    assert machine.sampler.sample().unheld == {groups[0]}
    machine.later(0)
    assert machine.sampler.sample().unheld == {groups[0], groups[1], groups[2]}


def test_no_more_files_than_allowed() -> None:
    """max_open is kept, whole groups at a time; a discarded group makes room."""
    machine = Machine(max_open=10)
    groups = machine.groups(4)
    assert machine.sampler.sample().unheld == {*groups[2:]}
    assert machine.sampler.open_files == 8
    machine.later()
    machine.sampler.sample()
    calls = Counter(call.operation for call in machine.fs.calls)
    assert (calls["open_reader"], calls["read_page"], calls["read_text"]) == (0, 8, 8)
    assert calls["identity"] == 4  # before and after each of the two: nobody looked whether they fit now
    machine.sampler.discard(groups[0])
    assert machine.sampler.sample().unheld == {groups[3]}


def test_the_process_keeps_descriptors_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without max_open the limit of the process counts, less 128; a limit that is raised is noticed."""
    limits = {"soft": 128 + 9}
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limits["soft"], 10_000))
    machine = Machine(max_open=None)
    groups = machine.groups(4)
    assert machine.sampler.sample().unheld == {*groups[2:]}
    limits["soft"] = 128 + 12
    machine.later(10)
    assert machine.sampler.sample().unheld == {groups[3]}
    limits["soft"] = resource.RLIM_INFINITY
    machine.later(10)
    assert machine.sampler.sample().unheld == frozenset()
    limits["soft"] = 20
    fresh = Sampler(machine.resctrl)
    fresh.add(groups[0])
    assert fresh.sample().unheld == {groups[0]}


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Leave this process room for 20 more descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = {int(name) for name in os.listdir("/proc/self/fd")}  # noqa: PTH208 - names, not paths
    free = (number for number in count() if number not in taken)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(islice(free, 20, None)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_kernels_own_emfile(tmp_path: Path, few_descriptors: None) -> None:
    """With a real limit and real files: everything is read, and some of it file by file."""
    groups = tree(tmp_path, 10)
    with Sampler(Resctrl(ResctrlConfig(root=tmp_path)), max_open=1000) as sampler:
        for group in groups:
            sampler.add(group)
        for _ in range(3):
            sample = sampler.sample()
            assert list(sample) == groups
            assert {reading.total("llc_occupancy") for reading in sample.values()} == {
                Total(8192, complete=True)
            }
        assert 8 <= len(sample.unheld) <= 10
        assert sampler.open_files <= 12


# Any story


@define
class Story:
    """A machine with three groups and three domains, of which each sample is compared with what was moved."""

    machine: Machine = field(factory=lambda: Machine(FakeFs(num_rmids=200, domains=(0, 1, 2)), max_open=20))
    groups: list[Path] = field(init=False)
    moved: Counter[tuple[Path, int]] = field(factory=Counter)
    last: dict[Path, GroupReading] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.groups = self.machine.groups(3)

    def sample(self, _: Path, __: int) -> None:
        """Compare each rate: what was moved since the last sample, never less, never more."""
        self.machine.later()
        found = self.machine.sampler.sample()
        gone = {group for group in self.groups if not self.machine.fake.exists(group)}
        assert set(found) | set(found.failed) == set(self.machine.sampler.groups)
        assert set(found.failed) <= gone
        for group in self.last.keys() & found.keys():
            told = rate(self.last[group], found[group], BYTES)
            for domain, value in told.domains.items():
                if isinstance(value, float):
                    assert value == pytest.approx(self.moved[group, domain.id] / told.seconds)
        self.last = dict(found)
        self.moved.clear()

    def traffic(self, group: Path, domain: int) -> None:
        """Move bytes."""
        if self.machine.fake.exists(group):
            tid = self.machine.thread(group)
            self.machine.fake.move_bytes(tid, 1000 + domain, domain=domain)
            self.machine.fake.end(tid)
            self.moved[group, domain] += 1000 + domain

    def anew(self, group: Path, _: int) -> None:
        """Make a group anew."""
        if self.machine.fake.exists(group):
            self.machine.anew(group)

    def flip(self, group: Path, _: int) -> None:
        """Remove a group, or make one."""
        fake = self.machine.fake
        (fake.remove_dir if fake.exists(group) else fake.create_dir)(group)

    def offline(self, _: Path, domain: int) -> None:
        """Let a domain go."""
        if domain:
            self.machine.fake.set_online(domain, online=False)

    def online(self, _: Path, domain: int) -> None:
        """Let a domain come."""
        self.machine.fake.set_online(domain, online=True)

    def discard(self, group: Path, _: int) -> None:
        """Read a group no more."""
        self.machine.sampler.discard(group)

    def add(self, group: Path, _: int) -> None:
        """Read a group again."""
        self.machine.sampler.add(group)

    def fail(self, _: Path, number: int) -> None:
        """Let a file not be opened."""
        error = (errno.EMFILE, errno.EIO, errno.ENOENT)[number]
        self.machine.faults.fail("open_reader", error, nth=1 + 3 * number)

    def time(self, _: Path, __: int) -> None:
        """Let time pass."""
        self.machine.later(10)


DEEDS = st.sampled_from(
    (
        *(Story.sample, Story.traffic) * 3,
        *(Story.anew, Story.flip, Story.offline, Story.online),
        *(Story.discard, Story.add, Story.fail, Story.time),
    )
)


@given(st.lists(st.tuples(DEEDS, st.integers(0, 2), st.integers(0, 2)), max_size=60))
def test_no_story_makes_a_rate_lie(deeds: list[tuple[Callable[[Story, Path, int], None], int, int]]) -> None:
    """Whatever comes and goes: a rate is what was moved between two samples; none spans a new beginning."""
    story = Story()
    for deed, group, number in deeds:
        deed(story, story.groups[group], number)
    story.machine.sampler.close()
    story.machine.fake.unmount()


def test_a_sampler_takes_any_provider() -> None:
    """It depends on the provider alone."""
    fs: FsProvider = FakeFs()
    with Sampler(Resctrl.with_provider(fs)) as sampler:
        sampler.add(ROOT)
        assert sampler.sample()[ROOT].total(BYTES) == Total(0, complete=True)
