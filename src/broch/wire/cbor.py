"""CBOR, decoded strictly (RFC 8949): one item, in preferred serialisation, and nothing after it.

General decoders accept what a verifier must not: the last of two equal keys wins, bytes after the
item are left over, tags turn into objects of the host language. Here

1. lengths are definite and every number has its shortest form (section 4.1), 2. keys of a map are
integers, text or byte strings and none comes twice, 3. a tag is a :class:`Tag` and never
interpreted, 4. floats and simple values other than false, true and null are refused, 5. depth and
size are bounded, 6. the input is consumed exactly.

The order of map keys is free, as in what TEEs make. So ``encode(decode(data)) == data``.
"""

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import cbor2

from broch.errors import DecodeError

MAX_SIZE: Final = 256 * 1024  # bytes
MAX_DEPTH: Final = 16

# int, bytes, str, bool, None, list, Tag, and dict with int, str or bytes as keys.
Value: TypeAlias = Any

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_SIMPLES: Final = {20: False, 21: True, 22: None}
_SIZES: Final = {24: 1, 25: 2, 26: 4, 27: 8}  # additional information -> bytes of the argument


@dataclass(frozen=True, slots=True)
class Tag:
    """A tagged item; what the tag means is left to the caller."""

    number: int
    value: Any


def decode(data: bytes, *, what: str, max_size: int = MAX_SIZE) -> Value:
    """The one item in ``data``.

    Raises:
        DecodeError: a rule of this module does not hold; ``what`` names the input.
    """
    if len(data) > max_size:
        raise DecodeError(max_size, f"{len(data)} bytes, at most {max_size}", what=what)
    reader = _Reader(data, what)
    value = reader.item(MAX_DEPTH)
    if reader.offset != len(data):
        raise DecodeError(reader.offset, "bytes after the item", what=what)
    return value


def encode(value: Value) -> bytes:
    """The preferred serialisation; maps in their own order."""
    return cbor2.dumps(_for_cbor2(value))


def _for_cbor2(value: Any) -> Any:
    if isinstance(value, Tag):
        return cbor2.CBORTag(value.number, _for_cbor2(value.value))
    if isinstance(value, list | tuple):
        return [_for_cbor2(item) for item in value]
    if isinstance(value, dict):
        return {key: _for_cbor2(item) for key, item in value.items()}
    return value


class _Reader:
    def __init__(self, data: bytes, what: str) -> None:
        self.data = data
        self.what = what
        self.offset = 0

    def fail(self, problem: str) -> DecodeError:
        return DecodeError(self.offset, problem, what=self.what)

    def take(self, size: int) -> bytes:
        end = self.offset + size
        if end > len(self.data):
            raise self.fail(f"not CBOR: {size} bytes expected, {len(self.data) - self.offset} left")
        taken = self.data[self.offset : end]
        self.offset = end
        return taken

    def head(self) -> tuple[int, int]:
        """Major type and argument."""
        first = self.take(1)[0]
        major, info = first >> 5, first & 0x1F
        if info < 24:
            return major, info
        size = _SIZES.get(info)
        if size is None or major == _SIMPLE:
            self.offset -= 1
            raise self.fail("indefinite length, float or reserved head")
        argument = int.from_bytes(self.take(size), "big")
        if argument < 24 or (size > 1 and argument < 1 << 4 * size):
            raise self.fail("a number that is not in its shortest form")
        return major, argument

    def item(self, depth: int) -> Any:
        major, argument = self.head()
        if major == _UNSIGNED:
            return argument
        if major == _NEGATIVE:
            return -1 - argument
        if major == _BYTES:
            return self.take(argument)
        if major == _TEXT:
            return self.text(argument)
        if major == _SIMPLE:
            if argument not in _SIMPLES:
                raise self.fail(f"simple value {argument}")
            return _SIMPLES[argument]
        if depth == 0:
            raise self.fail(f"nested more than {MAX_DEPTH} deep")
        if major == _TAG:
            return Tag(argument, self.item(depth - 1))
        # Every item takes a byte at least, so a count beyond the input is never begun with.
        if argument > len(self.data) - self.offset:
            raise self.fail(f"not CBOR: {argument} items expected")
        if major == _ARRAY:
            return [self.item(depth - 1) for _ in range(argument)]
        return self.map(argument, depth - 1)

    def text(self, size: int) -> str:
        try:
            return self.take(size).decode("utf-8")
        except UnicodeDecodeError:
            raise self.fail("text that is not UTF-8") from None

    def map(self, count: int, depth: int) -> dict[int | str | bytes, Any]:
        found: dict[int | str | bytes, Any] = {}
        for _ in range(count):
            key = self.item(depth)
            if type(key) not in (int, str, bytes):
                raise self.fail("a map key that is no integer, text or byte string")
            if key in found:
                raise self.fail(f"map key {key!r:.60} comes twice")
            found[key] = self.item(depth)
        return found
