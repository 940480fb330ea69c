"""The protobuf wire format, walked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nri_resctrl_plugin.nri import wire
from nri_resctrl_plugin.nri.wire import WireError


@given(st.integers(1, (1 << 29) - 1), st.integers(1, (1 << 64) - 1))
def test_an_integer_field_comes_back(number: int, value: int) -> None:
    """Field numbers and values of any size are written and read the same."""
    assert wire.fields(wire.int_field(number, value)) == [(number, value)]


@given(st.integers(1, (1 << 29) - 1), st.binary(min_size=1))
def test_a_bytes_field_comes_back(number: int, value: bytes) -> None:
    """Length-delimited fields are written and read the same."""
    assert wire.fields(wire.bytes_field(number, value)) == [(number, value)]


def test_default_values_are_not_written() -> None:
    """Proto3 leaves out 0 and the empty string."""
    assert wire.int_field(1, 0) == b""
    assert wire.bytes_field(1, b"") == b""


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_negative_numbers_are_ten_bytes(value: int) -> None:
    """A signed 64-bit value goes through the unsigned varint and back."""
    assert [wire.signed64(v) for _, v in wire.fields(wire.int_field(4, value)) if isinstance(v, int)] == (
        [value] if value else []
    )


def test_fixed_width_fields_are_passed_over() -> None:
    """Fields of 4 and 8 bytes are skipped, and what follows is read."""
    data = b"\x0d\1\2\3\4" + b"\x11\1\2\3\4\5\6\7\x08" + b"\x18\x05"
    assert wire.fields(data) == [(3, 5)]
    wire.check(data)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"\x0a\x05abc", "2 bytes more"),
        (b"\x0a", "a varint is cut short"),
        (b"\x08", "a varint is cut short"),
        (b"\x08\x80\x80", "a varint is cut short"),
        (b"\x08" + b"\x80" * 10 + b"\x01", "longer than 10"),
        (b"\x0d\1\2\3", "1 bytes more"),
        (b"\x09\1\2\3", "5 bytes more"),
        (b"\x00\x01", "field number 0"),
        (b"\x80\x80\x80\x80\x10\x01", "out of range"),
        (b"\x0b", "wire type 3"),
        (b"\x0c", "wire type 4"),
        (b"\x0e", "wire type 6"),
        (b"\x0f", "wire type 7"),
    ],
)
def test_what_is_no_protobuf_is_refused(data: bytes, complaint: str) -> None:
    """Each way of being cut short or malformed is named."""
    with pytest.raises(WireError, match=complaint):
        wire.check(data)
    with pytest.raises(WireError, match=complaint):
        wire.fields(data)


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 300) | st.binary(max_size=5))),
    st.sets(st.integers(1, 20)),
)
def test_keeping_some_fields(parts: list[tuple[int, int | bytes]], numbers: set[int]) -> None:
    """What is kept is what the reader finds under those numbers, byte for byte and in order."""
    encoded = [
        (
            number,
            wire.bytes_field(number, value) if isinstance(value, bytes) else wire.int_field(number, value),
        )
        for number, value in parts
    ]
    whole = b"".join(data for _, data in encoded) + b"\x0d\1\2\3\4"
    wanted = frozenset(numbers - {1})
    assert wire.keep(whole, wanted) == b"".join(data for number, data in encoded if number in wanted)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_the_typed_error(data: bytes) -> None:
    """A message is walked or refused; both readers agree."""
    try:
        wire.fields(data)
    except WireError:
        with pytest.raises(WireError):
            wire.check(data)
    else:
        wire.check(data)
