"""JSON that means one thing: UTF-8, no key twice in an object, no NaN or Infinity (RFC 8259).

:func:`document` reads an object, the functions after it take members of the type that is wanted.

>>> decode(b'{"version": 1}', what="header")
{'version': 1}
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from broch.errors import DecodeError

MAX_DOCUMENT: Final = 1 << 20  # bytes
_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2})*", re.ASCII)


def decode(data: bytes, *, what: str) -> Any:
    """The one value in ``data``, whose length the caller has bounded.

    Raises:
        DecodeError: it is not JSON, or could be read in two ways; ``what`` names the input.
    """
    try:
        return json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as exc:
        raise DecodeError(0, f"not JSON: {exc}", what=what) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def document(data: bytes, what: str) -> dict[str, Any]:
    """One JSON object without duplicate keys.

    Raises:
        DecodeError: not that.
    """
    if len(data) > MAX_DOCUMENT:
        raise DecodeError(MAX_DOCUMENT, f"longer than {MAX_DOCUMENT} bytes", what=what)
    value = decode(data, what=what)
    if not isinstance(value, dict):
        raise DecodeError(0, "not a JSON object", what=what)
    return value


def text(item: Mapping[str, Any], key: str, what: str) -> str:
    """A string member.

    Raises:
        DecodeError: missing or of another type.
    """
    value = item.get(key)
    if not isinstance(value, str):
        raise DecodeError(0, f"{key} is missing or no string", what=what)
    return value


def number(item: Mapping[str, Any], key: str, limit: int, what: str) -> int:
    """An integer member, at least 0 and below ``limit``.

    Raises:
        DecodeError: missing, of another type, or out of range.
    """
    value = item.get(key)
    if type(value) is not int or not 0 <= value < limit:
        raise DecodeError(0, f"{key} is missing or no number from 0 to {limit - 1}", what=what)
    return value


def hexadecimal(item: Mapping[str, Any], key: str, size: int, what: str) -> bytes:
    """A member of ``size`` bytes in hex.

    Raises:
        DecodeError: missing or not that.
    """
    value = text(item, key, what)
    if len(value) != 2 * size or not _HEX.fullmatch(value):
        raise DecodeError(0, f"{key} is not {size} bytes in hex", what=what)
    return bytes.fromhex(value)


def mapping(item: Mapping[str, Any], key: str, what: str) -> Mapping[str, Any]:
    """An object member.

    Raises:
        DecodeError: missing or of another type.
    """
    value = item.get(key)
    if not isinstance(value, dict):
        raise DecodeError(0, f"{key} is missing or no object", what=what)
    return value


def objects(item: Mapping[str, Any], key: str, what: str) -> list[Mapping[str, Any]]:
    """A member that is a list of objects.

    Raises:
        DecodeError: missing or of another type.
    """
    value = item.get(key)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise DecodeError(0, f"{key} is missing or no list of objects", what=what)
    return value
