"""FakePidSource: the scripts of a container's threads."""

from __future__ import annotations

import itertools

import pytest
from attrs import frozen

from resctrl import Tid
from resctrl.testing import FakePidSource


@frozen
class Container:
    """The least that a container is to a source."""

    cgroups_path: str = "/pods/a"


def listed(source: FakePidSource, times: int) -> list[list[int]]:
    """Ask several times."""
    return [list(map(int, source.thread_ids(Container()))) for _ in range(times)]


def tids(*ids: int) -> list[Tid]:
    """Return thread ids."""
    return [Tid(number) for number in ids]


def test_nothing_by_default() -> None:
    """A container of which nothing was said has no threads; the question is counted."""
    source = FakePidSource()
    assert listed(source, 1) == [[]]
    assert source.calls == {"/pods/a": 1}


def test_preexisting() -> None:
    """The same threads each time, for that container alone."""
    source = FakePidSource()
    source.set("/pods/a", iter(tids(1, 2)))
    assert listed(source, 2) == [[1, 2], [1, 2]]
    assert source.thread_ids(Container("/pods/b")) == []
    source.forget("/pods/a")
    assert listed(source, 1) == [[]]


def test_changing() -> None:
    """One listing after the other, then the last one."""
    source = FakePidSource()
    source.sequence("/pods/a", tids(1), tids(2, 3))
    assert listed(source, 3) == [[1], [2, 3], [2, 3]]
    with pytest.raises(ValueError, match="needs a listing"):
        source.sequence("/pods/a")


def test_converging() -> None:
    """One more each time, until all are there."""
    source = FakePidSource()
    source.converge("/pods/a", tids(1, 2, 3))
    assert listed(source, 4) == [[1], [1, 2], [1, 2, 3], [1, 2, 3]]


def test_vanishing() -> None:
    """One fewer each time, until none is left."""
    source = FakePidSource()
    source.vanish("/pods/a", tids(1, 2))
    assert listed(source, 4) == [[1, 2], [2], [], []]


def test_never_converging() -> None:
    """Always another one."""
    source = FakePidSource()
    counter = itertools.count(7)
    source.never_converge("/pods/a", lambda: Tid(next(counter)))
    assert listed(source, 3) == [[7], [8], [9]]


def test_following() -> None:
    """A function can be asked afresh at each call."""
    source = FakePidSource()
    live = tids(1)
    source.follow("/pods/a", lambda: live)
    assert listed(source, 1) == [[1]]
    live.append(Tid(2))
    assert listed(source, 1) == [[1, 2]]


def test_failing() -> None:
    """An exception in a sequence is raised in its turn."""
    source = FakePidSource()
    source.sequence("/pods/a", FileNotFoundError("no cgroup"), tids(1))
    with pytest.raises(FileNotFoundError):
        source.thread_ids(Container())
    assert listed(source, 1) == [[1]]
    assert source.calls["/pods/a"] == 2


def test_gone_is_what_was_seen_and_removed() -> None:
    """Both a listing and a look are sights; a removed path that nobody ever asked for is not known gone."""
    source = FakePidSource()
    source.set("/pods/a", tids(1))
    assert not source.is_gone(Container("/pods/b"))
    assert listed(source, 1) == [[1]]
    for path in ("/pods/a", "/pods/b", "/pods/c"):
        source.remove(path)
    assert [source.is_gone(Container(f"/pods/{name}")) for name in "abcc"] == [True, True, False, False]
    assert listed(source, 1) == [[]]
    assert source.looks == {"/pods/a": 1, "/pods/b": 2, "/pods/c": 2}


def test_a_cgroup_that_is_set_again_is_there() -> None:
    """And can be gone once more; having no threads is not gone."""
    source = FakePidSource()
    source.set("/pods/a", tids(1))
    source.thread_ids(Container())
    source.remove("/pods/a")
    source.set("/pods/a", tids(2))
    assert not source.is_gone(Container())
    assert listed(source, 1) == [[2]]
    source.forget("/pods/a")
    assert not source.is_gone(Container())
