"""ttrpc: framing, envelopes, and how each end judges a message."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nri_resctrl_plugin.nri import api, envelope
from nri_resctrl_plugin.nri.ttrpc import (
    CallStreams,
    Code,
    Refusal,
    Request,
    Response,
    ServeStreams,
    TooLargeError,
)
from nri_resctrl_plugin.nri.wire import bytes_field, int_field
from tests.nri_support import golden

GOLDEN = golden()
PLUGIN = "nri.pkg.api.v1alpha1.Plugin"
RUNTIME = "nri.pkg.api.v1alpha1.Runtime"
ROUTES = [
    f"/{PLUGIN}/{name}" for name in ("Configure", "Synchronize", "StateChange", "StartContainer", "Foo")
]


def message(name: str) -> bytes:
    """Return a recorded message without the trunk's header."""
    return GOLDEN[name][8:]


def raw(stream_id: int, kind: int, body: bytes, length: int | None = None) -> bytes:
    """Build a ttrpc message by hand."""
    return struct.pack(">IIBB", len(body) if length is None else length, stream_id, kind, 0) + body


def request(stream_id: int, method: str = "Configure", payload: bytes = b"", service: str = PLUGIN) -> bytes:
    """Build a request by hand."""
    body = bytes_field(1, service.encode()) + bytes_field(2, method.encode()) + bytes_field(3, payload)
    return raw(stream_id, 1, body)


class TestGolden:
    """The recorded messages, both ways."""

    def test_register_plugin_is_what_go_expects(self) -> None:
        """Our RegisterPlugin is byte for byte the recorded one, without and with a version and timeout."""
        streams = CallStreams()
        payload = bytes(api.RegisterPluginRequest(plugin_name="resctrl", plugin_idx="10"))
        assert streams.call(RUNTIME, "RegisterPlugin", payload, None) == (1, message("register_plugin"))
        versioned = bytes(
            api.RegisterPluginRequest(plugin_name="resctrl", plugin_idx="10", NRI_version="v0.12.2")
        )
        assert CallStreams().call(RUNTIME, "RegisterPlugin", versioned, 5.0) == (
            1,
            message("register_plugin_versioned"),
        )

    def test_an_empty_reply_is_success(self) -> None:
        """A body of no bytes is an answer with an empty payload."""
        streams = CallStreams()
        streams.call(RUNTIME, "RegisterPlugin", b"", None)
        assert streams.feed(message("register_reply")) == [Response(1, 0, "", b"")]

    def test_configure_is_understood(self) -> None:
        """The recorded Configure decodes, timeout in seconds."""
        (served,) = ServeStreams(ROUTES).feed(message("configure"))
        assert isinstance(served, Request)
        assert (served.route, served.stream_id, served.timeout) == (f"/{PLUGIN}/Configure", 1, 2.0)
        decoded = api.ConfigureRequest.parse(served.payload)
        assert (decoded.runtime_name, decoded.runtime_version, decoded.NRI_version) == (
            "containerd",
            "v2.3.1",
            "v0.12.2",
        )
        assert (decoded.registration_timeout, decoded.request_timeout) == (5000, 2000)

    @pytest.mark.parametrize("name", ["state_change_start", "start_container"])
    def test_events_are_understood(self, name: str) -> None:
        """Both recorded forms of a container's start decode to the same pod and container."""
        (served,) = ServeStreams(ROUTES).feed(message(name))
        assert isinstance(served, Request)
        kind = api.StateChangeEvent if name == "state_change_start" else api.StartContainerRequest
        event = kind.parse(served.payload)
        assert event.pod is not None
        assert event.container is not None
        assert (event.pod.id, event.pod.uid) == ("sb0", "uid0")
        assert (event.container.id, event.container.pod_sandbox_id, event.container.pid) == (
            "c0",
            "sb0",
            4242,
        )

    @pytest.mark.parametrize(
        ("name", "stream_id", "payload"),
        [
            ("configure_reply_667", 1, bytes(api.ConfigureResponse(events=0x667))),
            ("synchronize_reply_more", 3, bytes(api.SynchronizeResponse(more=True))),
            ("synchronize_reply_last", 5, bytes(api.SynchronizeResponse())),
        ],
    )
    def test_replies_are_what_go_sends(self, name: str, stream_id: int, payload: bytes) -> None:
        """Our replies are byte for byte the recorded ones."""
        streams = ServeStreams(ROUTES)
        streams.feed(request(stream_id))
        assert streams.answer(stream_id, payload) == message(name)

    def test_unimplemented_is_what_go_sends(self) -> None:
        """Our refusal of an unknown method is byte for byte the recorded one."""
        (refusal,) = ServeStreams(ROUTES[:1]).feed(request(7, "Foo"))
        assert isinstance(refusal, Refusal)
        assert refusal.reply == message("unimplemented_reply")


class TestReading:
    """However the bytes arrive."""

    TO_PLUGIN = request(1) + message("state_change_start") + request(9, "Synchronize", b"x" * 300)

    def test_one_byte_at_a_time(self) -> None:
        """Byte by byte gives the same calls as all at once."""
        whole, single = ServeStreams(ROUTES), ServeStreams(ROUTES)
        expected = whole.feed(self.TO_PLUGIN)
        assert len(expected) == 3
        assert [s for byte in self.TO_PLUGIN for s in single.feed(bytes([byte]))] == expected
        assert single.at_boundary

    @given(st.lists(st.integers(0, len(TO_PLUGIN)), max_size=6))
    def test_cut_anywhere(self, cuts: list[int]) -> None:
        """Any way of cutting gives the same calls."""
        streams = ServeStreams(ROUTES)
        found = []
        for start, end in pairwise([0, *sorted(cuts), len(self.TO_PLUGIN)]):
            found += streams.feed(self.TO_PLUGIN[start:end])
        assert found == ServeStreams(ROUTES).feed(self.TO_PLUGIN)

    def test_the_end_inside_a_message_is_noticed(self) -> None:
        """A stream may end between messages only, on either end."""
        for streams in (ServeStreams(ROUTES), CallStreams()):
            assert streams.at_boundary
            streams.feed(request(1)[:-1])
            assert not streams.at_boundary
        skipping = ServeStreams(ROUTES)
        skipping.feed(raw(1, 1, b"abc", length=5 << 20))
        assert not skipping.at_boundary


class TestServing:
    """What a server takes and what it refuses."""

    def test_gaps_in_stream_ids_are_legal(self) -> None:
        """Odd and higher than the last is all that counts."""
        served = ServeStreams(ROUTES).feed(request(1) + request(5) + request(4001))
        assert [s.stream_id for s in served if isinstance(s, Request)] == [1, 5, 4001]

    @pytest.mark.parametrize("stream_id", [0, 2, 4, 3, 1])
    def test_even_and_reused_ids_are_refused(self, stream_id: int) -> None:
        """Code 3, and the next proper call is served."""
        streams = ServeStreams(ROUTES)
        streams.feed(request(3))
        refusal, served = streams.feed(request(stream_id) + request(5))
        assert isinstance(refusal, Refusal)
        assert (refusal.stream_id, refusal.code) == (stream_id, Code.INVALID_ARGUMENT)
        assert isinstance(served, Request)

    @pytest.mark.parametrize(
        ("call", "text"),
        [
            (request(1, "Nope"), "method Nope"),
            (request(1, service="other.Service"), "service other.Service"),
            (request(1, "", service=""), "service "),
        ],
    )
    def test_unknown_methods_are_unimplemented(self, call: bytes, text: str) -> None:
        """Code 12 and nothing else: any other code makes pods fail on NRI 0.12."""
        (refusal,) = ServeStreams(ROUTES).feed(call)
        assert isinstance(refusal, Refusal)
        assert (refusal.code, refusal.text) == (Code.UNIMPLEMENTED, text)

    def test_every_truncation_is_refused_or_is_a_whole_shorter_request(self) -> None:
        """A body cut anywhere but at a field's end is code 3; the generated parser takes most cuts."""
        body = message("configure")[10:]
        ends = {0, 29, 40, 77, 83}
        for size in range(len(body)):
            (served,) = ServeStreams(ROUTES).feed(raw(1, 1, body[:size]))
            if size in ends:
                assert isinstance(served, Request) or served.code is Code.UNIMPLEMENTED, size
            else:
                assert isinstance(served, Refusal), size
                assert served.code is Code.INVALID_ARGUMENT, size

    def test_text_that_is_no_utf8_is_refused(self) -> None:
        """Proto3 strings are UTF-8; Go refuses others too."""
        (refusal,) = ServeStreams(ROUTES).feed(raw(1, 1, bytes_field(1, b"\xff\xfe")))
        assert isinstance(refusal, Refusal)
        assert refusal.code is Code.INVALID_ARGUMENT

    def test_an_oversized_request_is_answered_and_not_kept(self) -> None:
        """Over 4 MiB: code 8 once the body has passed; the next message is read; memory stays small."""
        streams = ServeStreams(ROUTES)
        length = (4 << 20) + 1
        assert streams.feed(raw(1, 1, b"", length=length)) == []
        left, kept = length, 0
        found: list[object] = []
        while left:
            piece = bytes(min(left, 50_000))
            left -= len(piece)
            tail = request(3) if left == 0 else b""
            found += streams.feed(piece + tail)
            kept = max(kept, len(streams._reader._buffer))
        refusal, served = found
        assert isinstance(refusal, Refusal)
        assert (refusal.stream_id, refusal.code) == (1, Code.RESOURCE_EXHAUSTED)
        assert refusal.text == "message length 4194305 exceed maximum message size of 4194304"
        assert isinstance(served, Request)
        assert kept < 100_000

    def test_exactly_4_mib_is_accepted(self) -> None:
        """The limit itself is legal."""
        head = bytes_field(1, PLUGIN.encode()) + bytes_field(2, b"Synchronize")
        room = envelope.MAX_BODY - len(head)
        body = head + bytes_field(3, bytes(room - 5))
        assert len(body) == envelope.MAX_BODY
        (served,) = ServeStreams(ROUTES).feed(raw(1, 1, body))
        assert isinstance(served, Request)
        assert len(served.payload) == room - 5

    @pytest.mark.parametrize("kind", [0, 2, 3, 4, 255])
    def test_other_kinds_of_message_are_ignored(self, kind: int) -> None:
        """Responses, data and unknown kinds get no answer on a serving end, long ones neither."""
        streams = ServeStreams(ROUTES)
        long = raw(2, kind, b"", length=(4 << 20) + 1) + bytes((4 << 20) + 1)
        assert streams.feed(raw(2, kind, b"junk") + long) == []
        assert len(streams.feed(request(1))) == 1

    def test_metadata_and_unknown_fields_are_ignored(self) -> None:
        """Tracing keys and whatever else a newer runtime adds do not matter."""
        body = bytes_field(5, b"\x0a\x01k") + request(1)[10:] + int_field(77, 5) + bytes_field(78, b"x")
        (served,) = ServeStreams(ROUTES).feed(raw(1, 1, body))
        assert isinstance(served, Request)

    @pytest.mark.parametrize(
        ("nanoseconds", "timeout"), [(0, None), (-5, None), (1_999_812_345, 1.999812345)]
    )
    def test_timeouts(self, nanoseconds: int, timeout: float | None) -> None:
        """The remaining time comes in seconds; absent, 0 and negative mean that nothing was said."""
        (served,) = ServeStreams(ROUTES).feed(raw(1, 1, request(1)[10:] + int_field(4, nanoseconds)))
        assert isinstance(served, Request)
        assert served.timeout == timeout

    def test_a_call_is_answered_once(self) -> None:
        """A second answer, a failure after an answer, and an answer to nothing are no bytes."""
        streams = ServeStreams(ROUTES)
        streams.feed(request(1))
        assert streams.open == {1}
        assert streams.answer(1, b"x")
        assert streams.open == frozenset()
        assert streams.answer(1, b"x") == b""
        assert streams.fail(1, Code.INTERNAL, "late") == b""
        assert streams.answer(99, b"x") == b""

    def test_an_answer_over_4_mib_becomes_a_failure(self) -> None:
        """Nothing that the other side must refuse is sent."""
        streams = ServeStreams(ROUTES)
        streams.feed(request(1))
        reply = streams.answer(1, bytes(4 << 20))
        client = CallStreams()
        client.call("s", "m", b"", None)
        (response,) = client.feed(reply)
        assert response.code == Code.RESOURCE_EXHAUSTED


class TestCalling:
    """What a client sends and what it takes."""

    def test_stream_ids_are_odd_and_rise(self) -> None:
        """1, 3, 5; a call that was refused locally uses one up."""
        streams = CallStreams()
        assert streams.call("s", "m", b"", None)[0] == 1
        with pytest.raises(TooLargeError, match="exceeds"):
            streams.call("s", "m", bytes(4 << 20), None)
        assert streams.call("s", "m", b"", 0.5)[0] == 5
        assert streams.open == {1, 5}

    def test_an_answer_carries_its_payload(self) -> None:
        """What the server answers is what the client gets."""
        server, client = ServeStreams(["/s/m"]), CallStreams()
        server.feed(client.call("s", "m", b"question", None)[1])
        assert client.feed(server.answer(1, b"answer")) == [Response(1, 0, "", b"answer")]

    def test_a_status_is_a_failure(self) -> None:
        """An answer with a status and nothing else gives its code and text."""
        server, client = ServeStreams(["/s/m"]), CallStreams()
        server.feed(client.call("s", "m", b"", None)[1])
        assert client.feed(server.fail(1, Code.UNKNOWN, "no such \N{SNOWMAN}")) == [
            Response(1, 2, "no such \N{SNOWMAN}", b"")
        ]

    def test_a_status_in_two_parts_is_merged(self) -> None:
        """Protobuf lets a sub-message come in parts."""
        client = CallStreams()
        client.call("s", "m", b"", None)
        body = bytes_field(1, int_field(1, 5)) + bytes_field(1, bytes_field(2, b"gone")) + int_field(9, 1)
        assert client.feed(raw(1, 2, body)) == [Response(1, 5, "gone", b"")]

    def test_answers_to_nothing_are_dropped(self) -> None:
        """Unknown, forgotten and repeated streams, requests and data messages are ignored."""
        client = CallStreams()
        client.call("s", "m", b"", None)
        client.call("s", "m", b"", None)
        client.forget(1)
        data = raw(1, 2, b"") + raw(7, 2, b"") + raw(3, 1, b"") + raw(3, 3, b"")
        assert client.feed(data) == []
        assert client.feed(raw(3, 2, b"")) == [Response(3, 0, "", b"")]
        assert client.feed(raw(3, 2, b"")) == []

    def test_an_undecodable_answer_fails_the_call_alone(self) -> None:
        """A cut answer, a cut status and an oversized answer end their calls; the next one works."""
        client = CallStreams()
        for _ in range(4):
            client.call("s", "m", b"", None)
        oversized = raw(5, 2, b"", length=(4 << 20) + 1) + bytes((4 << 20) + 1)
        data = raw(1, 2, b"\x12\x05a") + raw(3, 2, bytes_field(1, b"\x08")) + oversized + raw(7, 2, b"")
        assert [(r.stream_id, r.code) for r in client.feed(data)] == [
            (1, Code.INTERNAL),
            (3, Code.INTERNAL),
            (5, Code.RESOURCE_EXHAUSTED),
            (7, Code.OK),
        ]

    def test_status_with_unknown_fields_and_strange_text(self) -> None:
        """Details are ignored, text that is no UTF-8 is shown as well as can be."""
        client = CallStreams()
        client.call("s", "m", b"", None)
        status = int_field(1, 2) + bytes_field(2, b"\xffx") + bytes_field(3, b"details")
        assert client.feed(raw(1, 2, bytes_field(1, status))) == [
            Response(1, 2, "\N{REPLACEMENT CHARACTER}x", b"")
        ]


@given(st.lists(st.binary(max_size=80), max_size=12), st.booleans())
def test_arbitrary_bytes_raise_nothing(chunks: list[bytes], serving: bool) -> None:
    """Whatever arrives on a stream, both ends stay calm: there is nothing to raise for."""
    streams = ServeStreams(ROUTES) if serving else CallStreams()
    for chunk in chunks:
        streams.feed(chunk)


@given(st.lists(st.tuples(st.integers(0, 182), st.integers(0, 255)), max_size=6))
def test_damaged_requests_raise_nothing(damage: list[tuple[int, int]]) -> None:
    """Recorded requests with some bytes changed are served or refused."""
    data = bytearray(message("configure") + message("start_container"))
    for at, byte in damage:
        data[at] = byte
    ServeStreams(ROUTES).feed(bytes(data))
