"""Values of modules in C are msgpack, as Python's, whatever the host gives them."""

from functools import cache
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broch.errors import UsageError
from broch.image.toolchain import find
from broch.tee.hosting import Function

from .c_module import Running, records

SOURCE: Final = """
#include "broch.h"
BROCH_STRUCT(All, (bool, yes), (u8, b), (i8, c), (u16, d), (i16, e), (u32, f), (i32, g));
BROCH_ENTRY(echo, All, ask, All, reply) { *reply = *ask; }
"""
RANGES: Final = {
    "b": (0, 2**8 - 1),
    "c": (-(2**7), 2**7 - 1),
    "d": (0, 2**16 - 1),
    "e": (-(2**15), 2**15 - 1),
    "f": (0, 2**32 - 1),
    "g": (-(2**31), 2**31 - 1),
}
LENGTHS: Final = ((0xCC, 1, False), (0xCD, 2, False), (0xCE, 4, False), (0xCF, 8, False))
SIGNED: Final = ((0xD0, 1, True), (0xD1, 2, True), (0xD2, 4, True), (0xD3, 8, True))

numbers = st.integers(-(2**33), 2**33) | st.sampled_from(
    [edge + more for low, high in RANGES.values() for edge in (low, high) for more in (-1, 0, 1)]
)


@cache
def module() -> Running:
    try:
        find("msp430")
    except UsageError as exc:
        pytest.skip(f"{exc.message}: {exc.hint}")
    return Running(SOURCE, "echo")


def echo(data: bytes) -> tuple[int, bytes]:
    """The status of the call, and the value that came back."""
    outcome = module().enter(Function.ENTRY, b"\0\0" + data)
    assert not outcome.fault
    ((_, record),) = records(outcome.output)
    return outcome.status, record[2:]


def fits(value: dict[str, Any]) -> bool:
    return all(low <= value[name] <= high for name, (low, high) in RANGES.items())


@settings(max_examples=60, deadline=None)
@given(st.booleans(), st.fixed_dictionaries(dict.fromkeys(RANGES, numbers)))
def test_what_fits_comes_back_as_python_writes_it(yes: bool, some: dict[str, int]) -> None:
    status, back = echo(msgspec.msgpack.encode({"yes": yes, **some}))
    value = {"yes": yes, **{name: some[name] for name in RANGES}}  # in the order of the type
    if fits(value):
        assert (status, back) == (0, msgspec.msgpack.encode(value))
    else:
        assert status == 4


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_form_of_an_integer_is_read(data: st.DataObject) -> None:
    """Longer forms than needed too, in any order of fields."""
    value: dict[str, int] = {}
    parts = [b"\xa3yes\xc3"]
    for name, (low, high) in RANGES.items():
        value[name] = number = data.draw(st.integers(low, high))
        forms = [
            bytes([code]) + number.to_bytes(size, "big", signed=signed)
            for code, size, signed in (*LENGTHS, *SIGNED)
            if (-(2 ** (8 * size - 1)) if signed else 0) <= number < 2 ** (8 * size - signed)
        ]
        parts.append(msgspec.msgpack.encode(name) + data.draw(st.sampled_from(forms)))
    order = data.draw(st.permutations(parts))
    expected = msgspec.msgpack.encode({"yes": True, **value})
    assert echo(b"\x87" + b"".join(order)) == (0, expected)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=256) | st.binary(max_size=60).map(lambda more: b"\x87\xa3yes\xc3" + more))
def test_anything_else_is_refused_and_breaks_nothing(data: bytes) -> None:
    status, back = echo(data)
    if status == 0:  # it was one, after all
        assert msgspec.msgpack.decode(back).keys() == {"yes", *RANGES}
    else:
        assert status == 4


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(0, 7))
def test_no_bit_is_ignored(at: int, bit: int) -> None:
    """A value with one bit changed is another value, or none."""
    value = {
        "yes": True,
        "b": 200,
        "c": -100,
        "d": 60000,
        "e": -30000,
        "f": 2**32 - 7,
        "g": -(2**30),
    }
    data = bytearray(msgspec.msgpack.encode(value))
    data[at % len(data)] ^= 1 << bit
    status, back = echo(bytes(data))
    assert status == 4 or msgspec.msgpack.decode(back) != value
