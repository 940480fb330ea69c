"""Who is told what: the tap, callbacks, coalescing subscribers, and their bounded memory."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from nri_resctrl_plugin.events import (
    Exists,
    Failed,
    PodResctrlAddOrUpdate,
    PodResctrlEvent,
    PodResctrlRemoved,
)
from nri_resctrl_plugin.hub import Coalescer, EventHub, EventStream
from nri_resctrl_plugin.model import PodUid

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

T = TypeVar("T")

UIDS = [PodUid("a"), PodUid("b"), PodUid("c")]


def run(main: Coroutine[object, object, T]) -> T:
    return asyncio.run(asyncio.wait_for(main, 10))


def add(uid: str, total: int = 0, reconciled: int = 0, *, failed: bool = False) -> PodResctrlAddOrUpdate:
    state = Failed("full") if failed else Exists(Path("/sys/fs/resctrl/mon_groups") / uid)
    return PodResctrlAddOrUpdate(PodUid(uid), state, total, reconciled)


def gone(uid: str) -> PodResctrlRemoved:
    return PodResctrlRemoved(PodUid(uid))


def drain(coalescer: Coalescer) -> list[PodResctrlEvent]:
    events: list[PodResctrlEvent] = []
    while (event := coalescer.pop()) is not None:
        events.append(event)
    return events


class Reader:
    """A consumer; it fails where it is told what makes no sense."""

    def __init__(self, present: Iterable[PodResctrlAddOrUpdate] = ()) -> None:
        self.coalescer = Coalescer(present)
        self.world: dict[PodUid, PodResctrlAddOrUpdate] = {}

    def read(self) -> bool:
        """Read one event, if there is one."""
        event = self.coalescer.pop()
        if isinstance(event, PodResctrlRemoved):
            del self.world[event.pod_uid]
        elif event is not None:
            assert self.world.get(event.pod_uid) != event
            self.world[event.pod_uid] = event
        return event is not None


# --- one subscriber ---


def test_the_latest_state_wins() -> None:
    """A slow reader is not told what is no longer true."""
    coalescer = Coalescer()
    for total in range(5):
        coalescer.push(add("a", total))
    assert drain(coalescer) == [add("a", 4)]


def test_back_to_what_was_delivered_is_nothing_to_tell() -> None:
    """A state equal to the last delivered one is dropped, and so is a detour that led back to it."""
    coalescer = Coalescer()
    coalescer.push(add("a", 1))
    assert drain(coalescer) == [add("a", 1)]
    coalescer.push(add("a", 2))
    coalescer.push(add("a", 1))
    assert len(coalescer) == 0
    coalescer.push(add("a", 1))
    assert drain(coalescer) == []


def test_a_pod_that_came_and_went_unseen_is_not_mentioned() -> None:
    """Removed is for those who saw the pod."""
    coalescer = Coalescer()
    coalescer.push(add("a"))
    coalescer.push(gone("a"))
    coalescer.push(gone("b"))
    assert drain(coalescer) == []
    assert coalescer.remembered == 0


def test_removed_comes_before_the_pod_returns() -> None:
    """A pod that left and came back between two reads is told as both, even if it looks the same."""
    coalescer = Coalescer()
    coalescer.push(add("a", 1, 1))
    drain(coalescer)
    coalescer.push(gone("a"))
    coalescer.push(add("a", 0))
    coalescer.push(add("a", 1, 1))
    assert drain(coalescer) == [gone("a"), add("a", 1, 1)]


def test_gone_back_and_gone_again_is_one_removed() -> None:
    """Between two reads, only the end matters."""
    coalescer = Coalescer()
    coalescer.push(add("a"))
    drain(coalescer)
    for event in (gone("a"), add("a"), gone("a")):
        coalescer.push(event)
    assert drain(coalescer) == [gone("a")]


def test_a_reason_alone_is_no_news() -> None:
    """Two Failed states are equal whatever their reasons."""
    coalescer = Coalescer([PodResctrlAddOrUpdate(PodUid("a"), Failed("full"), 0, 0)])
    drain(coalescer)
    coalescer.push(PodResctrlAddOrUpdate(PodUid("a"), Failed("limbo"), 0, 0))
    assert len(coalescer) == 0


EVENTS = st.builds(
    lambda uid, total, failed: add(uid, total, failed=failed),
    st.sampled_from(UIDS),
    st.integers(0, 2),
    st.booleans(),
) | st.sampled_from(UIDS).map(gone)
STEPS = st.lists(EVENTS | st.just("read") | st.just("subscribe"), max_size=60)


@given(steps=STEPS)
def test_every_reader_ends_with_the_truth(steps: list[PodResctrlEvent | str]) -> None:
    """Whatever is emitted, whenever one begins to listen, and however slowly one reads: the end is the truth.

    On the way no reader is told of a removal that it cannot place, none is told the same state twice in a
    row, and none is held in more memory than live pods plus seen ones that were not yet told removed.
    """
    truth: dict[PodUid, PodResctrlAddOrUpdate] = {}
    readers = [Reader()]
    for step in steps:
        if step == "read":
            readers[0].read()
        elif step == "subscribe":
            readers.append(Reader(truth.values()))
        elif not isinstance(step, str):
            if isinstance(step, PodResctrlRemoved):
                truth.pop(step.pod_uid, None)
            else:
                truth[step.pod_uid] = step
            for reader in readers:
                reader.coalescer.push(step)
        for reader in readers:
            assert reader.coalescer.remembered <= len(truth.keys() | reader.world.keys())
    for reader in readers:
        while reader.read():
            pass
        assert reader.world == truth


# --- streams ---


def test_a_stream_begins_with_the_live_pods() -> None:
    """Whoever comes late is told every live pod once, and none that is gone."""

    async def main() -> None:
        hub = EventHub()
        for event in (add("a"), add("b"), add("a", 1), gone("b")):
            hub.emit(event)
        hub.close()
        assert [event async for event in hub.events()] == [add("a", 1)]

    run(main())


def test_a_stream_waits_and_ends_with_the_hub() -> None:
    """An iterator sleeps until something happens, delivers what is pending at the end, and stops."""

    async def main() -> None:
        hub = EventHub()
        got: list[PodResctrlEvent] = []
        first = asyncio.Event()

        async def consume() -> None:
            async for event in hub.events():
                got.append(event)
                first.set()

        task = asyncio.create_task(consume())
        await asyncio.sleep(0)
        hub.emit(add("a"))
        await first.wait()
        hub.emit(add("a", 1))
        hub.emit(add("b"))
        hub.close()
        hub.emit(add("c"))
        await task
        assert got == [add("a"), add("a", 1), add("b")]

    run(main())


def test_each_stream_has_its_own_pace() -> None:
    """One slow reader neither holds back nor is hurried by another."""

    async def main() -> None:
        hub = EventHub()
        fast, slow = hub.events(), hub.events()
        hub.emit(add("a", 0))
        assert await anext(fast) == add("a", 0)
        hub.emit(add("a", 1))
        assert await anext(fast) == add("a", 1)
        assert await anext(slow) == add("a", 1)

    run(main())


def test_a_closed_stream_is_told_nothing_more() -> None:
    """`aclose` ends one subscription and no other."""

    async def main() -> None:
        hub = EventHub()
        ended, other = hub.events(), hub.events()
        hub.emit(add("a"))
        await ended.aclose()
        hub.emit(add("b"))
        assert [event async for event in ended] == []
        assert await anext(other) == add("a")

    run(main())


def test_a_stream_that_nobody_holds_is_forgotten() -> None:
    """A reader that breaks off its loop without closing costs nothing afterwards."""

    async def main() -> None:
        hub = EventHub()
        hub.emit(add("a"))
        async for _ in hub.events():
            break
        gc.collect()
        assert len(hub._streams) == 0

    run(main())


def test_a_task_that_waits_is_kept_alive_with_its_stream() -> None:
    """A consumer task that only its own waiting refers to is not collected."""

    async def main() -> None:
        hub = EventHub()
        got: asyncio.Queue[PodResctrlEvent] = asyncio.Queue()

        async def consume(stream: EventStream) -> None:
            async for event in stream:
                got.put_nowait(event)

        asyncio.create_task(consume(hub.events()))  # noqa: RUF006 - nobody holding it is the point of this test
        await asyncio.sleep(0)
        gc.collect()
        hub.emit(add("a"))
        assert await got.get() == add("a")
        hub.close()
        await asyncio.sleep(0)

    run(main())


# --- callbacks and the tap ---


def test_a_callback_begins_with_the_live_pods_and_sees_every_emission() -> None:
    """Callbacks are told at once and in order; nothing is coalesced."""
    hub, got = EventHub(), list[PodResctrlEvent]()
    hub.emit(add("a"))
    hub.emit(add("b"))
    hub.emit(gone("b"))
    unsubscribe = hub.subscribe(got.append)
    hub.emit(add("a", 1))
    hub.emit(add("a", 2))
    unsubscribe()
    unsubscribe()
    hub.emit(add("a", 3))
    assert got == [add("a"), add("a", 1), add("a", 2)]


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
def test_a_callback_that_raises_breaks_nothing(error: type[BaseException]) -> None:
    """A subscriber's bug is logged; it stays subscribed, and the others hear everything."""
    hub, got = EventHub(), list[PodResctrlEvent]()
    calls = 0

    def broken(_: PodResctrlEvent) -> None:
        nonlocal calls
        calls += 1
        raise error

    hub.subscribe(broken)
    hub.subscribe(got.append)
    with capture_logs() as logs:
        hub.emit(add("a"))
        hub.emit(gone("a"))
    assert calls == 2
    assert got == [add("a"), gone("a")]
    assert [log["event"] for log in logs] == ["subscriber_failed"] * 2


def test_callbacks_may_come_and_go_during_an_emission() -> None:
    """One that is unsubscribed is not called again; one that is added hears the event exactly once."""
    hub = EventHub()
    late: list[PodResctrlEvent] = []
    second: list[PodResctrlEvent] = []

    def first(event: PodResctrlEvent) -> None:
        unsubscribe_second()
        if event == add("a"):
            hub.subscribe(late.append)

    hub.subscribe(first)
    unsubscribe_second = hub.subscribe(second.append)
    hub.emit(add("a"))
    hub.emit(add("b"))
    assert second == []
    assert late == [add("a"), add("b")]


def test_the_tap_records_every_emission_until_it_is_closed() -> None:
    """Nothing is coalesced, dropped or reordered; recording begins with the call."""
    hub = EventHub()
    hub.emit(add("a"))
    with hub.record() as record:
        hub.emit(add("a", 1))
        hub.emit(gone("a"))
    hub.emit(add("a"))
    record.close()
    assert record.events == [add("a", 1), gone("a")]


@pytest.mark.parametrize("late", [True, False])
def test_nothing_is_told_after_the_end(late: bool) -> None:
    """Callbacks are not called once the hub is closed."""
    hub, got = EventHub(), list[PodResctrlEvent]()
    hub.subscribe(got.append)
    if late:
        hub.emit(add("a"))
    hub.close()
    hub.close()
    hub.emit(add("b"))
    assert got == ([add("a")] if late else [])
