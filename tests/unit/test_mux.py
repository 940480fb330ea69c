"""The trunk: frames in and out."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nri_resctrl_plugin.nri import mux
from nri_resctrl_plugin.nri.wire import WireError
from tests.nri_support import golden

GOLDEN = golden()
TRUNK = b"".join(GOLDEN.values())


def frame(conn: int, payload: bytes) -> bytes:
    """Build a frame by hand."""
    return struct.pack(">II", conn, len(payload)) + payload


def streams(pieces: list[tuple[int, bytes]]) -> dict[int, bytes]:
    """Join pieces into what each connection carried."""
    joined: dict[int, bytes] = {}
    for conn, piece in pieces:
        joined[conn] = joined.get(conn, b"") + piece
    return joined


@pytest.mark.parametrize("name", GOLDEN)
def test_a_recorded_frame_is_read_and_written_the_same(name: str) -> None:
    """Each golden vector comes out as its payload, and framing that payload gives the vector again."""
    data = GOLDEN[name]
    ((conn, payload),) = mux.MuxReader().feed(data)
    assert payload == data[8:]
    assert mux.frames(conn, payload) == data


def test_one_byte_at_a_time_is_the_same_as_whole() -> None:
    """The whole recorded conversation fed byte by byte carries the same bytes per connection."""
    reader = mux.MuxReader()
    pieces = [piece for byte in TRUNK for piece in reader.feed(bytes([byte]))]
    assert streams(pieces) == streams(mux.MuxReader().feed(TRUNK))
    assert reader.at_boundary


@given(st.lists(st.integers(0, len(TRUNK)), max_size=8))
def test_cutting_anywhere_is_the_same_as_whole(cuts: list[int]) -> None:
    """Any way of cutting the conversation carries the same bytes."""
    reader = mux.MuxReader()
    pieces = []
    for start, end in pairwise([0, *sorted(cuts), len(TRUNK)]):
        pieces += reader.feed(TRUNK[start:end])
    assert streams(pieces) == streams(mux.MuxReader().feed(TRUNK))


def test_frames_of_unknown_connections_are_dropped() -> None:
    """Connection 0 and connections that nobody knows vanish, and the next frame is read all the same."""
    data = (
        frame(0, b"zero") + frame(77, b"seven") + frame(1, b"ours") + frame(0xFFFFFFFF, b"") + frame(2, b"x")
    )
    assert mux.MuxReader().feed(data) == [(1, b"ours"), (2, b"x")]


def test_a_frame_without_payload_is_legal() -> None:
    """Zero-length frames carry nothing and disturb nothing."""
    assert mux.MuxReader().feed(frame(1, b"") + frame(1, b"a") + frame(2, b"")) == [(1, b"a")]


def test_a_message_may_span_frames() -> None:
    """Payloads of one connection join up whatever the frames of the other say in between."""
    data = frame(1, b"ab") + frame(2, b"__") + frame(1, b"cd")
    assert streams(mux.MuxReader().feed(data)) == {1: b"abcd", 2: b"__"}


def test_a_frame_up_to_16_mib_is_accepted() -> None:
    """NRI before 0.7 writes frames of up to 16 MiB."""
    reader = mux.MuxReader()
    assert reader.feed(struct.pack(">II", 1, 16 << 20)) == []
    assert not reader.at_boundary


@pytest.mark.parametrize("length", [mux.MAX_PAYLOAD + 1, 0xFFFFFFFF])
def test_a_longer_frame_is_a_protocol_error(length: int) -> None:
    """A header that announces more cannot be a header, so reading ends there, known connection or not."""
    for conn in (0, 1, 99):
        with pytest.raises(WireError, match="too long"):
            mux.MuxReader().feed(struct.pack(">II", conn, length))


def test_the_trunk_may_end_between_frames_only() -> None:
    """A reader knows whether it stands inside a header or a payload."""
    reader = mux.MuxReader()
    seen = [reader.at_boundary]
    for data in (b"\0\0", b"\0\x01\0\0\0\x02a", b"b"):
        reader.feed(data)
        seen.append(reader.at_boundary)
    assert seen == [True, False, False, True]


def cut(data: bytes) -> list[tuple[int, bytes]]:
    """Cut what was written into (connection, payload) of each frame."""
    found = []
    while data:
        conn, length = struct.unpack_from(">II", data)
        found.append((conn, data[8 : 8 + length]))
        data = data[8 + length :]
    return found


@given(st.integers(1, 5 << 20))
@example(1)
@example(4095)
@example(4096)
@example(4097)
@example(8192)
@example((4 << 20) + 10)
def test_write_rule(size: int) -> None:
    """Up to 4096 bytes one frame, else exactly 4096 and one with the rest: what Go can read."""
    message = bytes(size)
    written = cut(mux.frames(2, message))
    expected = [size] if size <= 4096 else [4096, size - 4096]
    assert [len(payload) for _, payload in written] == expected
    assert {conn for conn, _ in written} == {2}
    assert b"".join(payload for _, payload in written) == message


@given(st.lists(st.binary(max_size=64), max_size=20))
def test_arbitrary_bytes_raise_nothing_but_the_typed_error(chunks: list[bytes]) -> None:
    """Whatever arrives is pieces or a WireError, and no piece is of an unknown connection or empty."""
    reader = mux.MuxReader()
    try:
        for chunk in chunks:
            for conn, piece in reader.feed(chunk):
                assert conn in (1, 2)
                assert piece
    except WireError:
        pass
