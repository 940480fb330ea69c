"""The limit on groups of ours."""

from __future__ import annotations

import errno

import pytest

from nri_resctrl_plugin.budget import create_within
from nri_resctrl_plugin.errors import BudgetExceededError, PluginError
from resctrl import CapacityError, NotMountedError, Resctrl, ResctrlIOError
from resctrl.testing import FakeFs
from tests.unit.fakes import Machine


def test_no_group_is_made_beyond_the_limit() -> None:
    """Groups of ours count wherever they stand, those of others nowhere; the error is one of capacity."""
    machine = Machine()
    machine.fake.create_dir(machine.fake.root / "mon_groups" / "foreign")
    machine.resctrl.create_group("b", "c1")
    machine.fs.forget()
    with pytest.raises(
        BudgetExceededError, match="2 groups of ours are there, and max_groups is 2"
    ) as caught:
        create_within(machine.resctrl, "c", max_groups=2)
    assert isinstance(caught.value, CapacityError)
    assert isinstance(caught.value, PluginError)
    assert (caught.value.groups, caught.value.max_groups, caught.value.retryable) == (2, 2, True)
    assert caught.value.path == machine.resctrl.group_path("c")
    assert machine.fs.count("create_dir") == 0
    assert create_within(machine.resctrl, "c", max_groups=3) == machine.resctrl.group_path("c")


def test_a_group_that_is_there_is_found_whatever_the_limit() -> None:
    """It takes no room that it has not taken already."""
    machine = Machine()
    machine.resctrl.create_group("a", "c1")
    assert create_within(machine.resctrl, "a", max_groups=1) == machine.group
    assert create_within(machine.resctrl, "a", "c1", max_groups=1).parent.parent.name == "c1"


def test_without_a_limit_nothing_is_read() -> None:
    """The directories are not listed: one mkdir and nothing else."""
    machine = Machine()
    create_within(machine.resctrl, "c", max_groups=0)
    assert [call.operation for call in machine.fs.calls] == ["create_dir"]


def test_what_keeps_from_counting_is_told_as_it_is() -> None:
    """Unmounted is unmounted, with and without a limit."""
    resctrl = Resctrl.with_provider(FakeFs(mounted=False))
    for limit in (0, 1):
        with pytest.raises(NotMountedError):
            create_within(resctrl, "a", max_groups=limit)
    machine = Machine()
    machine.faulty.fail("read_child_dirs", errno.EIO)
    with pytest.raises(ResctrlIOError):
        create_within(machine.resctrl, "c", max_groups=5)
