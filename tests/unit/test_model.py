"""The library's values."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

import resctrl
import resctrl.testing
from resctrl import AssignmentResult, ReconcileResult, ResctrlConfig

if TYPE_CHECKING:
    from types import ModuleType


def test_the_defaults() -> None:
    """Without a word it is the kernel's own mount point, and groups of pods."""
    assert ResctrlConfig() == ResctrlConfig(root=Path("/sys/fs/resctrl"), group_prefix="pod_")


def test_a_root_may_be_a_string() -> None:
    """The root becomes a path."""
    assert ResctrlConfig(root="/mnt/resctrl").root == Path("/mnt/resctrl")


@pytest.mark.parametrize("prefix", ["a/b", "a\nb", "\0", "\x7f", "/"])
def test_a_prefix_stays_one_name(prefix: str) -> None:
    """A prefix that would lead into another directory, or that the kernel refuses, is refused at once."""
    with pytest.raises(ValueError, match="group_prefix"):
        ResctrlConfig(group_prefix=prefix)


@pytest.mark.parametrize("prefix", ["", "pod_", "pod ", "p\N{LATIN SMALL LETTER O WITH DIAERESIS}d-"])
def test_other_prefixes_are_fine(prefix: str) -> None:
    """Whatever the kernel takes as part of a name may be a prefix; an empty one only stops the sweep."""
    assert ResctrlConfig(group_prefix=prefix).group_prefix == prefix


def test_values_are_frozen() -> None:
    """A result cannot be changed by whoever gets it."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        AssignmentResult(1, 2).assigned = 3  # type: ignore[misc]


@pytest.mark.parametrize(("missing", "complete"), [(0, True), (1, False)])
def test_complete_means_nothing_is_missing(missing: int, complete: bool) -> None:
    """A group is complete when no live thread is outside."""
    assert ReconcileResult(assigned=1, missing=missing, passes=1).complete is complete


def test_the_public_names_are_those_of_all() -> None:
    """__all__ is sorted, and every name in it is there; nothing else public is lying about."""
    assert list(resctrl.__all__) == sorted(resctrl.__all__)
    for name in resctrl.__all__:  # some are loaded when they are first asked for
        assert getattr(resctrl, name) is not None
    modules = {path.stem for path in Path(resctrl.__file__).parent.glob("*.py")}
    public = {name for name in vars(resctrl) if not name.startswith("_")}
    imported = {"testing", "annotations", "Final", "TYPE_CHECKING", "import_module"}
    assert public - modules - imported == set(resctrl.__all__)


@pytest.mark.parametrize("module", [resctrl, resctrl.testing], ids=lambda module: module.__name__)
def test_the_tour_is_true(module: ModuleType) -> None:
    """What the docstrings show is what happens."""
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.parametrize("name", resctrl.testing.__all__)
def test_the_kit_is_documented(name: str) -> None:
    """Every public part of the test kit says what it is."""
    assert getattr(resctrl.testing, name).__doc__
