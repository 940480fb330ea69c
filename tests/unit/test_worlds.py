"""The worlds, and the lanes of a session: none is green for having done nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nri_resctrl_plugin.model import ContainerCgroup
from tests.conftest import LANES, shortfalls
from tests.unit.fakes import answer
from tests.worlds import FILLER_PREFIX, WORLDS, Capability, FakeWorld, Machine, WorldMissing, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.worlds import World

HERE = Path(__file__).parents[2]
MAX_SKIPS = 5
SOME_SCENARIOS = [f"tests/scenarios/test_{name}.py" for name in ("s1_startup", "s2_containers", "s7_removal")]


@pytest.fixture
def fake() -> Iterator[FakeWorld]:
    """Return the fake world."""
    world = FakeWorld()
    yield world
    world.close()


def test_containers_have_threads(fake: FakeWorld) -> None:
    """A container has as many threads as asked for; its children are its own; nobody is in a group."""
    one, other = fake.new_container(3), fake.new_container()
    assert len(fake.threads_of(one)) == 3
    assert set(fake.pid_source.thread_ids(ContainerCgroup(cgroups_path=one.cgroups_path))) == fake.threads_of(
        one
    )
    child = fake.spawn_task(min(fake.threads_of(one)))
    assert child in fake.threads_of(one)
    assert fake.threads_of(other).isdisjoint(fake.threads_of(one))
    assert fake.threads_of(one) <= fake.tasks_in(fake.root)
    fake.end_task(child)
    assert child not in fake.threads_of(one)
    assert fake.spawn_task() not in fake.threads_of(one) | fake.threads_of(other)
    assert fake.threads_of(fake.new_container(0)) == set()


def test_rmids_are_used_up_and_given_back(fake: FakeWorld) -> None:
    """While they are used up nothing fits (ENOSPC, not EBUSY); one can be freed; in the end all are back."""
    path = fake.root / "mon_groups/pod_x"
    fake.add_group(path)
    fake.fs.remove_dir(path)
    with fake.use_up_rmids():
        assert answer(fake.fs.create_dir, path) == "ENOSPC"
        fake.free_one_rmid()
        assert answer(fake.fs.create_dir, path) == "EBUSY"
    names = fake.groups_in(fake.root / "mon_groups")
    assert not any(name.startswith(FILLER_PREFIX) for name in names)
    assert fake.kernel.free_rmids + fake.kernel.rmids_in_limbo == 11


def test_a_world_gives_everything_back() -> None:
    """Closing removes our groups, those made for us and the fillers, and ends the threads."""
    world = FakeWorld()
    world.new_container(2)
    world.add_group(world.root / "gold")
    world.add_group(world.root / "mon_groups/others")
    world.fs.create_dir(world.root / "mon_groups/pod_a")
    world.fs.create_dir(world.root / "mon_groups/filler_0000")
    world.mount_state(mounted=False)
    assert not world.is_mounted()
    world.mount_state(mounted=True)
    world.fs.create_dir(world.root / "mon_groups/pod_b")
    world.close()
    assert world.groups_in(world.root) == world.groups_in(world.root / "mon_groups") == set()
    assert world.tasks_in(world.root) == set()


def test_other_machines(fake: FakeWorld) -> None:
    """A machine can be shown that lacks resctrl, or monitoring."""
    assert not fake.other_machine(Machine.WITHOUT_RESCTRL).exists(fake.root)
    without_monitoring = fake.other_machine(Machine.WITHOUT_MONITORING)
    assert without_monitoring.exists(fake.root / "info")
    assert not without_monitoring.exists(fake.root / "info/L3_MON")


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_a_world_lacks_little(name: str) -> None:
    """The fake lacks nothing; no world may lack so much that its green says little."""
    try:
        world: World = WORLDS[name]()
    except WorldMissing as missing:
        pytest.skip(str(missing))
    assert len(world.lacks) < len(Capability)
    assert name != "fake" or not world.lacks
    world.close()


def test_waiting_ends() -> None:
    """What never comes is a failure that names it; what comes is returned."""
    answers = iter([None, None, 7])

    async def soon() -> int | None:
        return next(answers)

    async def never() -> int | None:
        return None

    assert asyncio.run(eventually(soon, "seven")) == 7
    with pytest.raises(AssertionError, match=r"waited 0\.05 s in vain for godot"):
        asyncio.run(eventually(never, "godot", deadline=0.05))


# Lanes


def test_a_lane_that_did_not_run_is_named() -> None:
    """Of the required lanes those with too few passed tests are told."""
    assert shortfalls([], dict.fromkeys(LANES, 0)) == []
    assert shortfalls(["fake"], {"fake": LANES["fake"]}) == []
    (text,) = shortfalls(["fake", "kernel"], {"fake": LANES["fake"], "kernel": 0})
    assert text.startswith("--require=kernel: 0 tests passed")


def session(*arguments: str) -> tuple[int, str]:
    """Run a session of this project's tests."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_a_session_that_ran_nothing_of_a_required_lane_fails() -> None:
    """All tests pass, and the session fails all the same, and says why."""
    code, output = session("tests/unit/test_model.py", "--require=hardware")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "--require=hardware: 0 tests passed in this lane" in output


def test_an_unknown_lane_is_a_mistake() -> None:
    """A slip of the pen does not require nothing."""
    code, output = session("tests/unit/test_model.py", "--require=kernle")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "no lane ['kernle']" in output


def test_a_session_that_ran_the_lane_is_green() -> None:
    """The fake lane needs no more than the scenarios."""
    code, output = session(*SOME_SCENARIOS, "--require=fake")
    assert code == pytest.ExitCode.OK, output


def test_few_scenarios_are_skipped() -> None:
    """The capabilities that can be lacking are few, so that no lane skips most of it."""
    assert len(Capability) <= MAX_SKIPS
