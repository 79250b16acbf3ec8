"""Strict CBOR: each rule alone, the appendix of the RFC, and that accepted means canonical."""

from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broch.errors import DecodeError
from broch.wire import cbor
from broch.wire.cbor import Tag


@pytest.mark.parametrize(
    ("data", "value"),
    [  # RFC 8949, appendix A
        ("00", 0),
        ("17", 23),
        ("1818", 24),
        ("1903e8", 1000),
        ("1a000f4240", 1000000),
        ("1bffffffffffffffff", 18446744073709551615),
        ("20", -1),
        ("3903e7", -1000),
        ("3bffffffffffffffff", -18446744073709551616),
        ("f4", False),
        ("f5", True),
        ("f6", None),
        ("4401020304", b"\x01\x02\x03\x04"),
        ("6449455446", "IETF"),
        ("62c3bc", "ü"),
        ("80", []),
        ("8301820203820405", [1, [2, 3], [4, 5]]),
        ("a0", {}),
        ("a201020304", {1: 2, 3: 4}),
        ("a26161016162820203", {"a": 1, "b": [2, 3]}),
        ("c11a514b67b0", Tag(1, 1363896240)),
        ("d818456449455446", Tag(24, b"dIETF")),
    ],
)
def test_appendix_a(data: str, value: Any) -> None:
    raw = bytes.fromhex(data)
    assert cbor.decode(raw, what="test") == value
    assert cbor.encode(value) == raw


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        pytest.param("0000", "bytes after", id="trailing byte"),
        pytest.param("", "expected", id="nothing"),
        pytest.param("a201010102", "comes twice", id="duplicate key"),
        pytest.param("a2616101616102", "comes twice", id="duplicate text key"),
        pytest.param("a2410101410102", "comes twice", id="duplicate bytes key"),
        pytest.param("a1f501", "no integer", id="boolean key"),
        pytest.param("a1f601", "no integer", id="null key"),
        pytest.param("a18001", "no integer", id="array key"),
        pytest.param("a1c10101", "no integer", id="tagged key"),
        pytest.param("1817", "shortest", id="23 in a byte"),
        pytest.param("190018", "shortest", id="24 in two bytes"),
        pytest.param("1900ff", "shortest", id="255 in two bytes"),
        pytest.param("1a0000ffff", "shortest", id="65535 in four bytes"),
        pytest.param("1b00000000ffffffff", "shortest", id="32 bits in eight bytes"),
        pytest.param("580101", "shortest", id="length not shortest"),
        pytest.param("5f4101ff", "indefinite", id="indefinite bytes"),
        pytest.param("9fff", "indefinite", id="indefinite array"),
        pytest.param("bfff", "indefinite", id="indefinite map"),
        pytest.param("1c", "reserved", id="reserved head"),
        pytest.param("ff", "indefinite", id="lone break"),
        pytest.param("f93c00", "float", id="half float"),
        pytest.param("fb3ff0000000000000", "float", id="double"),
        pytest.param("f7", "simple value 23", id="undefined"),
        pytest.param("e5", "simple value 5", id="simple 5"),
        pytest.param("f820", "float or reserved", id="simple in a byte"),
        pytest.param("61ff", "UTF-8", id="not UTF-8"),
        pytest.param("4201", "expected", id="short bytes"),
        pytest.param("9b7fffffffffffffff", "items expected", id="huge array"),
        pytest.param("bb7fffffffffffffff", "items expected", id="huge map"),
        pytest.param("5b7fffffffffffffff", "bytes expected", id="huge bytes"),
        pytest.param("81" * 17 + "00", "deep", id="deep arrays"),
        pytest.param("c1" * 17 + "00", "deep", id="deep tags"),
    ],
)
def test_each_rule(data: str, problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        cbor.decode(bytes.fromhex(data), what="test")


def test_tags_are_not_interpreted() -> None:
    """cbor2 makes a pattern of tag 35 and a set of tag 258."""
    assert cbor.decode(bytes.fromhex("d823612a"), what="test") == Tag(35, "*")
    assert cbor.decode(bytes.fromhex("d901028101"), what="test") == Tag(258, [1])


def test_size_is_bounded() -> None:
    assert cbor.decode(b"\x41a", what="test", max_size=2) == b"a"
    with pytest.raises(DecodeError, match="at most 1"):
        cbor.decode(b"\x41a", what="test", max_size=1)


def test_depth_of_16_is_allowed() -> None:
    assert cbor.encode(cbor.decode(b"\x81" * 16 + b"\0", what="test")) == b"\x81" * 16 + b"\0"


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.binary() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.integers(-(2**64), 2**64 - 1) | st.text() | st.binary(), inner)
        | st.builds(Tag, st.integers(40000, 50000), inner)
    ),
    max_leaves=12,
)


@settings(deadline=None, derandomize=True)
@given(values)
def test_values_round_trip(value: Any) -> None:
    assert cbor.decode(cbor.encode(value), what="test") == value


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=40))
def test_accepted_means_canonical_and_what_cbor2_reads(data: bytes) -> None:
    try:
        value = cbor.decode(data, what="test")
    except DecodeError:
        return
    assert cbor.encode(value) == data
    if not any(byte >> 5 == 6 for byte in data):  # a tag may mean something to cbor2
        assert cbor2.loads(data) == value
