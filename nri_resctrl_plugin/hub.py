"""Who is told what, in which order, in bounded memory.

Owns: the tap of every emission, the coalescing subscribers, the callbacks. Must not know: why something is
emitted, and threads: all of it runs on one event loop.

Rules:
    1. Emission order is the order of the tap and of the callbacks: neither ever drops or reorders.
    2. A subscriber of `events()` begins with one AddOrUpdate per live pod. Then the latest state of a pod
       wins; a state equal to the last one delivered is not delivered again.
    3. A Removed is delivered iff this subscriber was delivered the pod, and always before a later AddOrUpdate
       of the same uid. So whoever reads, however slowly, ends with the truth.
    4. A subscriber holds at most one entry per live pod, plus one per pod that it saw and was not yet told
       is removed. Nothing it does or leaves undone can slow or stop the plugin.
    5. A callback that raises is logged and stays subscribed; the others are called all the same.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self
from weakref import WeakSet

import structlog
from attrs import define

from nri_resctrl_plugin.events import PodResctrlAddOrUpdate, PodResctrlEvent, PodResctrlRemoved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from structlog.typing import FilteringBoundLogger

    from nri_resctrl_plugin.model import PodUid

__all__ = ["Coalescer", "EventHub", "EventRecord", "EventStream"]


@define
class _Pending:
    """What one pod's next deliveries are: first Removed if `removed`, then `latest` if there is one."""

    removed: bool
    latest: PodResctrlAddOrUpdate | None


class Coalescer:
    """What one subscriber has still to be told. Pure: no loop, no clock.

    Args:
        present: The state of each live pod as the subscription begins.
    """

    def __init__(self, present: Iterable[PodResctrlAddOrUpdate] = ()) -> None:
        self._delivered: dict[PodUid, PodResctrlAddOrUpdate] = {}
        self._pending: dict[PodUid, _Pending] = {
            event.pod_uid: _Pending(removed=False, latest=event) for event in present
        }

    def __len__(self) -> int:
        """Return how many pods have something to be told."""
        return len(self._pending)

    @property
    def remembered(self) -> int:
        """How many entries are held at all, delivered and pending: the bound of rule 4 is about this."""
        return len(self._delivered.keys() | self._pending.keys())

    def push(self, event: PodResctrlEvent) -> None:
        """Take an emission."""
        uid = event.pod_uid
        pending = self._pending.get(uid)
        match event:
            case PodResctrlRemoved():
                if uid in self._delivered:
                    self._pending[uid] = _Pending(removed=True, latest=None)
                else:
                    self._pending.pop(uid, None)
            case PodResctrlAddOrUpdate():
                if pending is not None and pending.removed:
                    pending.latest = event
                elif event == self._delivered.get(uid):
                    self._pending.pop(uid, None)
                else:
                    self._pending[uid] = _Pending(removed=False, latest=event)

    def pop(self) -> PodResctrlEvent | None:
        """Return the next event to deliver and count it as delivered; None when there is nothing to tell."""
        uid = next(iter(self._pending), None)
        if uid is None:
            return None
        pending = self._pending[uid]
        if pending.removed:
            del self._delivered[uid]
            pending.removed = False
            if pending.latest is None:
                del self._pending[uid]
            return PodResctrlRemoved(uid)
        del self._pending[uid]
        if pending.latest is not None:
            self._delivered[uid] = pending.latest
        return pending.latest


class EventStream:
    """One subscriber's asynchronous iterator; see the module's rules 2 to 4.

    It ends when the plugin closes (after what was still pending) or with `aclose`. A stream that is dropped
    without being closed is forgotten.
    """

    def __init__(
        self, present: Iterable[PodResctrlAddOrUpdate], waiting: set[EventStream], *, ended: bool
    ) -> None:
        self._coalescer = Coalescer(present)
        self._waiting = waiting
        self._ended = ended
        self._changed = asyncio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PodResctrlEvent:
        while (event := self._coalescer.pop()) is None:
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            self._waiting.add(self)
            try:
                await self._changed.wait()
            finally:
                self._waiting.discard(self)
        return event

    async def aclose(self) -> None:
        """End this subscription; what is pending is forgotten."""
        self._coalescer = Coalescer()
        self.end()

    def push(self, event: PodResctrlEvent) -> None:
        """Take an emission; called by the hub."""
        if not self._ended:
            self._coalescer.push(event)
            self._changed.set()

    def end(self) -> None:
        """Deliver what is pending, then stop; called by the hub."""
        self._ended = True
        self._changed.set()


class EventRecord:
    """Every emission since it was made, in order. It grows without bound until it is closed.

    Attributes:
        events: The emissions.
    """

    def __init__(self, stop: Callable[[EventRecord], None]) -> None:
        self.events: list[PodResctrlEvent] = []
        self._stop = stop

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Record no more; what was recorded stays. Closing twice is no error."""
        self._stop(self)


class EventHub:
    """The one place where events leave the plugin."""

    def __init__(self) -> None:
        self._latest: dict[PodUid, PodResctrlAddOrUpdate] = {}
        self._records: list[EventRecord] = []
        self._callbacks: dict[object, Callable[[PodResctrlEvent], None]] = {}
        self._streams: WeakSet[EventStream] = WeakSet()
        self._waiting: set[EventStream] = set()  # a task that waits must not be collected with its stream
        self._closed = False
        self._log: FilteringBoundLogger = structlog.get_logger("nri_resctrl_plugin.hub")

    def emit(self, event: PodResctrlEvent) -> None:
        """Tell everybody. After `close` it does nothing."""
        if self._closed:
            return
        match event:
            case PodResctrlAddOrUpdate():
                self._latest[event.pod_uid] = event
            case PodResctrlRemoved():
                self._latest.pop(event.pod_uid, None)
        for record in self._records:
            record.events.append(event)
        for stream in self._streams:
            stream.push(event)
        for token, callback in tuple(self._callbacks.items()):
            if token in self._callbacks:  # an earlier callback may have unsubscribed it
                self._call(callback, event)

    def record(self) -> EventRecord:
        """Begin to record every emission, until the record is closed."""
        record = EventRecord(self._forget)
        self._records.append(record)
        return record

    def events(self) -> EventStream:
        """Begin a coalescing subscription."""
        stream = EventStream(self._latest.values(), self._waiting, ended=self._closed)
        self._streams.add(stream)
        return stream

    def subscribe(self, callback: Callable[[PodResctrlEvent], None]) -> Callable[[], None]:
        """Call back for one AddOrUpdate per live pod, now, then for every emission as it happens.

        Args:
            callback: Runs on the event loop, so it must not block. What it raises is logged.

        Returns:
            Ends the subscription; calling it again is no error.
        """
        token = object()
        present = tuple(self._latest.values())
        self._callbacks[token] = callback
        for event in present:
            self._call(callback, event)

        def unsubscribe() -> None:
            self._callbacks.pop(token, None)

        return unsubscribe

    def close(self) -> None:
        """End every subscription: iterators deliver what is pending and stop. Closing twice is no error."""
        self._closed = True
        self._callbacks.clear()
        for stream in self._streams:
            stream.end()

    def _forget(self, record: EventRecord) -> None:
        self._records = [kept for kept in self._records if kept is not record]

    def _call(self, callback: Callable[[PodResctrlEvent], None], event: PodResctrlEvent) -> None:
        try:
            callback(event)
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 - a subscriber's bug must not reach the plugin
            self._log.exception("subscriber_failed", pod_uid=event.pod_uid)
