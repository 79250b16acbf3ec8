"""Framing: any cut of the stream gives the same messages; lengths are bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broch.app.frames import HEAD, FrameParser, frame
from broch.errors import DecodeError


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=20), st.data())
def test_any_cut_gives_the_same_messages(messages: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(frame, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    parser = FrameParser(300)
    found: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += parser.feed(stream[start:end])
    assert found == messages
    assert parser.is_clean


def test_byte_by_byte() -> None:
    parser = FrameParser(8)
    found = [m for byte in frame(b"abc") + frame(b"d") for m in parser.feed(bytes([byte]))]
    assert found == [b"abc", b"d"]


@pytest.mark.parametrize("length", [0, 9, 2**32 - 1])
def test_lengths_out_of_bounds_are_refused(length: int) -> None:
    with pytest.raises(DecodeError, match=f"frame of {length} bytes"):
        FrameParser(8).feed(HEAD.pack(length))


def test_a_message_that_is_not_whole_is_kept() -> None:
    parser = FrameParser(8)
    assert parser.feed(frame(b"abc")[:-1]) == []
    assert not parser.is_clean
    assert parser.feed(b"c") == [b"abc"]


@given(st.binary(max_size=64))
def test_arbitrary_bytes_raise_only_decode_errors(data: bytes) -> None:
    parser = FrameParser(16)
    try:
        found = parser.feed(data)
    except DecodeError:
        return
    assert all(0 < len(message) <= 16 for message in found)
