"""The values that are told, and what makes two of them the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs.exceptions import FrozenInstanceError

from nri_resctrl_plugin import (
    Exists,
    Failed,
    PodResctrlAddOrUpdate,
    PodResctrlRemoved,
    PodUid,
    ResctrlGroupState,
)


def test_a_reason_is_for_people() -> None:
    """Two Failed states are the same whatever their reasons, also as keys; Exists is another thing."""
    assert Failed("full") == Failed("limbo") == Failed()
    assert hash(Failed("full")) == hash(Failed("limbo"))
    states: set[ResctrlGroupState] = {Failed("full"), Failed("limbo"), Exists(Path("/a"))}
    assert len(states) == 2


def test_events_are_values() -> None:
    """Equal content is equal, and nothing changes after it was told."""
    uid = PodUid("a")
    event = PodResctrlAddOrUpdate(uid, Failed("full"), 2, 1)
    assert event == PodResctrlAddOrUpdate(uid, Failed(), 2, 1)
    assert event != PodResctrlAddOrUpdate(uid, Failed(), 2, 2)
    assert len({event, PodResctrlAddOrUpdate(uid, Failed(), 2, 1), PodResctrlRemoved(uid)}) == 2
    with pytest.raises(FrozenInstanceError):
        event.total_containers = 3  # type: ignore[misc]


def test_a_group_that_moved_is_news() -> None:
    """The paths are part of the state, those of further groups too; most pods have none."""
    assert Exists(Path("/a")) != Exists(Path("/b"))
    assert Exists(Path("/a"), (Path("/b"),)) != Exists(Path("/a"), (Path("/c"),))
    assert Exists(Path("/a")).others == ()


def test_all_groups_of_a_pod() -> None:
    """The main one first, then the further ones; a Failed pod has none."""
    uid = PodUid("a")
    assert PodResctrlAddOrUpdate(uid, Exists(Path("/a")), 1, 1).groups == (Path("/a"),)
    assert PodResctrlAddOrUpdate(uid, Exists(Path("/b"), (Path("/a"),)), 1, 1).groups == (
        Path("/b"),
        Path("/a"),
    )
    assert PodResctrlAddOrUpdate(uid, Failed("full"), 1, 1).groups == ()
