"""JSON values against shapes: what is taken, what is refused with which words."""

import json
from typing import Any

import msgspec
import pytest

from broch.app import values
from broch.errors import MalformedError, UsageError
from broch.image import Shape

READING: Shape = {
    "type": "struct",
    "name": "Reading",
    "fields": {"n": {"type": "int"}, "note": {"type": "optional", "item": {"type": "str"}}},
    "required": ["n"],
}
SHAPES: list[tuple[Shape, Any]] = [
    ({"type": "none"}, None),
    ({"type": "bool"}, True),
    ({"type": "int"}, -5),
    ({"type": "float"}, 1.5),
    ({"type": "str"}, "ä"),
    ({"type": "bytes"}, "AAE="),
    ({"type": "list", "items": {"type": "int"}}, [1, 2]),
    ({"type": "tuple", "items": [{"type": "int"}, {"type": "str"}]}, [1, "a"]),
    ({"type": "dict", "values": {"type": "bytes"}}, {"k": "/w=="}),
    ({"type": "optional", "item": {"type": "int"}}, None),
    ({"type": "optional", "item": {"type": "int"}}, 3),
    ({"type": "enum", "name": "E", "values": ["a", 1]}, "a"),
    (READING, {"n": 1, "note": None}),
    (READING, {"n": 1}),
]


@pytest.mark.parametrize(("shape", "value"), SHAPES)
def test_values_go_there_and_back(shape: Shape, value: Any) -> None:
    data = values.encode(shape, value, "x")
    found = values.decode(shape, data)
    assert found == value
    json.dumps(found, allow_nan=False)


def test_bytes_travel_as_bytes() -> None:
    assert msgspec.msgpack.decode(values.encode({"type": "bytes"}, "AAE=", "x")) == b"\0\1"


def test_an_integer_is_a_float_where_one_is_wanted() -> None:
    data = values.encode({"type": "float"}, 30, "x")
    assert type(msgspec.msgpack.decode(data)) is float


@pytest.mark.parametrize(
    ("shape", "value", "message"),
    [
        ({"type": "int"}, "1", 'x is "1", expected int'),
        ({"type": "int"}, 1.0, "x is 1.0, expected int"),
        ({"type": "int"}, True, "x is true, expected int"),
        ({"type": "int"}, 2**64, "x is 18446744073709551616, expected int"),
        ({"type": "bool"}, 1, "x is 1, expected bool"),
        ({"type": "float"}, None, "x is null, expected float"),
        ({"type": "bytes"}, "not base64!", "expected bytes as base64 text"),
        ({"type": "list", "items": {"type": "int"}}, [1, "b"], 'x[1] is "b", expected int'),
        ({"type": "tuple", "items": [{"type": "int"}]}, [1, 2], "expected tuple[int]"),
        ({"type": "enum", "name": "E", "values": ["a"]}, "b", "expected E('a')"),
        ({"type": "enum", "name": "E", "values": [1]}, True, "expected E(1)"),
        (READING, {"n": 1, "m": 2}, "x: Reading has no field 'm'"),
        (READING, {}, "x: field n is missing, expected int"),
        (READING, {"n": 1, "note": 5}, "x.note is 5, expected str"),
        (READING, [], "x is [], expected Reading(n: int, note: str | None)"),
    ],
)
def test_wrong_values_are_refused_with_their_place(shape: Shape, value: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        values.encode(shape, value, "x")
    assert message in str(caught.value)


ARGUMENTS: Shape = {
    "type": "struct",
    "name": "set",
    "fields": {"n": {"type": "int"}, "on": {"type": "bool"}},
    "required": ["n", "on"],
}


@pytest.mark.parametrize("given", [{"n": 1, "on": True}, [1, True]])
def test_arguments_by_name_or_in_order(given: Any) -> None:
    data = values.encode_arguments(ARGUMENTS, given, "m.set")
    assert msgspec.msgpack.decode(data) == {"n": 1, "on": True}


def test_no_arguments() -> None:
    shape: Shape = {"type": "struct", "name": "f", "fields": {}, "required": []}
    assert msgspec.msgpack.decode(values.encode_arguments(shape, None, "m.f")) == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n": "a", "on": True}, 'm.set: parameter n is "a", expected int'),
        ({"n": 1}, "m.set: parameter on is missing, expected bool"),
        ({"n": 1, "on": True, "off": 1}, "m.set has no parameter 'off'"),
        ([1, True, 2], "m.set takes 2 arguments, got 3"),
        (5, "arguments of m.set are 5, expected an object or a list"),
    ],
)
def test_wrong_arguments_name_the_parameter(given: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        values.encode_arguments(ARGUMENTS, given, "m.set")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", msgspec.msgpack.encode("a"), msgspec.msgpack.encode([1, 2]), b"\x01\x02"],
)
def test_what_a_module_sends_is_checked_too(data: bytes) -> None:
    with pytest.raises(MalformedError):
        values.decode({"type": "int"}, data)


def test_numbers_that_json_lacks_become_null() -> None:
    assert values.decode({"type": "float"}, msgspec.msgpack.encode(float("nan"))) is None
