"""The parts of the stub that need no connection: waits, identity, the line of handler calls."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from nri_resctrl_plugin.nri import api, messages
from nri_resctrl_plugin.nri.backoff import Backoff, Waits
from nri_resctrl_plugin.nri.delivery import Delivery
from nri_resctrl_plugin.nri.errors import InvalidIdentityError, NriError
from nri_resctrl_plugin.nri.service import PluginService
from nri_resctrl_plugin.nri.session import Identity
from nri_resctrl_plugin.nri.stub import NriStub
from tests.nri_support import RecordingHandler, in_loop

STEADY = Backoff(jitter=0)


class TestWaits:
    """How long the plugin waits before it connects again."""

    def test_waits_double_to_the_limit(self) -> None:
        """0.5 s, doubling, never over 30 s."""
        waits = Waits(STEADY)
        assert [waits.next() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]

    def test_a_kick_starts_at_five_seconds(self) -> None:
        """A plugin that was dropped during a call waits 5 s at least, and longer next time."""
        waits = Waits(STEADY)
        assert [waits.next(kicked=True), waits.next(kicked=True), waits.next()] == [5, 10, 20]

    def test_a_kick_does_not_shorten_a_wait(self) -> None:
        """Where the wait is longer already it stays."""
        waits = Waits(STEADY)
        for _ in range(6):
            waits.next()
        assert waits.next(kicked=True) == 30

    def test_a_connection_that_lasted_starts_anew(self) -> None:
        """More than 60 s after a Synchronize the count begins again; 60 s are not enough."""
        waits = Waits(STEADY)
        for _ in range(5):
            waits.next()
        assert waits.next(settled_for=60) == 16
        assert waits.next(settled_for=60.1) == 0.5
        assert waits.next(settled_for=61, kicked=True) == 5

    @given(st.floats(0, 1), st.lists(st.booleans(), max_size=12))
    def test_jitter_only_shortens(self, chance: float, kicks: list[bool]) -> None:
        """Chance takes up to a quarter off, and changes nothing about the waits that follow."""
        waits, steady = Waits(Backoff(chance=lambda: chance)), Waits(STEADY)
        for kicked in kicks:
            exact = steady.next(kicked=kicked)
            assert 0.75 * exact - 1e-9 <= waits.next(kicked=kicked) <= exact

    @pytest.mark.parametrize("wrong", [{"first": 0}, {"limit": -1}, {"after_kick": 0}, {"jitter": 1.5}])
    def test_nonsense_is_refused(self, wrong: dict[str, float]) -> None:
        """A rule that would spin or go backwards cannot be made."""
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Backoff(**wrong)  # type: ignore[arg-type]


class TestIdentity:
    """Name and index are checked before anything is connected."""

    @pytest.mark.parametrize("name", ["resctrl", "a", "A.b+c_d-9"])
    @pytest.mark.parametrize("idx", ["00", "05", "99"])
    def test_what_runtimes_take(self, name: str, idx: str) -> None:
        """The characters and the two digits that NRI allows."""
        assert Identity(name, idx) == Identity(name=name, idx=idx)

    @pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "a\n", "a\0"])
    def test_other_names_are_refused(self, name: str) -> None:
        """With a typed error that says what is allowed."""
        with pytest.raises(InvalidIdentityError, match="only letters") as caught:
            NriStub(RecordingHandler(), name=name, idx="10")
        assert isinstance(caught.value, NriError)
        assert isinstance(caught.value, ValueError)

    @pytest.mark.parametrize("idx", ["", "5", "100", "-1", "1a", "٣٤", "10\n"])
    def test_other_indexes_are_refused(self, idx: str) -> None:
        """One digit and digits of other scripts too."""
        with pytest.raises(InvalidIdentityError, match="exactly two digits"):
            NriStub(RecordingHandler(), name="resctrl", idx=idx)


class TestDelivery:
    """One call at a time, in order, whatever becomes of one."""

    @in_loop
    async def test_order_and_one_at_a_time(self) -> None:
        """Calls run in the order of `put`, the next when the one before has ended."""
        delivery, events = Delivery(), list[str]()

        async def call(name: str) -> None:
            events.append(f"{name}+")
            await asyncio.sleep(0)
            events.append(f"{name}-")

        running = asyncio.create_task(delivery.run())
        for name in "abc":
            delivery.put(name, lambda name=name: call(name))  # type: ignore[misc]
        await delivery.drained()
        assert events == ["a+", "a-", "b+", "b-", "c+", "c-"]
        running.cancel()

    @in_loop
    async def test_a_failure_is_logged_and_the_line_goes_on(self) -> None:
        """What a call raises comes back as a value, with a record; a call cancelled from inside too."""
        delivery = Delivery()
        running = asyncio.create_task(delivery.run())

        async def fail() -> None:
            raise RuntimeError("no")

        async def cancelled_inside() -> None:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

        async def fine() -> None:
            pass

        with capture_logs() as logs:
            outcomes = [await delivery.put(call.__name__, call) for call in (fail, cancelled_inside, fine)]
        assert isinstance(outcomes[0], RuntimeError)
        assert isinstance(outcomes[1], asyncio.CancelledError)
        assert outcomes[2] is None
        assert [(log["event"], log["event_name"]) for log in logs] == [
            ("handler_failed", "fail"),
            ("handler_cancelled", "cancelled_inside"),
        ]
        running.cancel()

    @in_loop
    async def test_nobody_waiting_is_no_reason_to_stop(self) -> None:
        """A caller that was cancelled takes its future along; the call is made all the same."""
        delivery, made = Delivery(), list[int]()

        async def call() -> None:
            made.append(1)

        delivery.put("first", call).cancel()
        last = delivery.put("second", call)
        running = asyncio.create_task(delivery.run())
        assert await last is None
        assert made == [1, 1]
        running.cancel()

    @in_loop
    async def test_cancelling_ends_the_line(self) -> None:
        """Only cancelling `run` ends it, and the call that was being made with it."""
        delivery, ends = Delivery(), list[str]()

        async def wait() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ends.append("cancelled")
                raise

        running = asyncio.create_task(delivery.run())
        delivery.put("wait", wait)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait({running})
        assert running.cancelled()
        assert ends == ["cancelled"]


class TestLists:
    """A big list does not keep others waiting for longer than its handler does."""

    @in_loop
    async def test_others_have_a_turn_between_decoding_and_the_handler(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What became due while the last item was decoded runs before the handler."""
        loop, order = asyncio.get_running_loop(), list[str]()

        def decode(_: bytes) -> None:
            loop.call_soon(order.append, "another")

        class Handler(RecordingHandler):
            async def synchronize(self, *_: object) -> None:
                order.append("handler")

        monkeypatch.setattr(messages, "decode_container", decode)
        delivery = Delivery()
        service = PluginService(Handler(), delivery, on_configure=lambda _: None, on_failure=lambda _: None)
        running = asyncio.create_task(delivery.run())
        await service.synchronize(api.SynchronizeRequest(containers=[b"x"]))
        service.release_list(valid=True)
        await delivery.drained()
        assert order == ["another", "handler"]
        running.cancel()
