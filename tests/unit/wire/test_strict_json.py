"""JSON with one meaning."""

from collections.abc import Callable
from typing import Any

import pytest

from broch.errors import DecodeError
from broch.wire import strict_json


def test_what_is_json() -> None:
    found = strict_json.decode(
        '{"a": [1, 2.5, null, true, "\u00e9"], "b": {"a": 0}}'.encode(), what="x"
    )
    assert found == {"a": [1, 2.5, None, True, "\u00e9"], "b": {"a": 0}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "not JSON", id="nothing"),
        pytest.param(b"{} {}", "Extra data", id="two values"),
        pytest.param(b'{"a": 1, "a": 1}', "a key comes twice", id="a key twice"),
        pytest.param(b'[{"b": {"a": 1, "a": 2}}]', "a key comes twice", id="a key twice, inside"),
        pytest.param(b"[NaN]", "NaN is no number", id="not a number"),
        pytest.param(b"-Infinity", "-Infinity is no number", id="infinity"),
        pytest.param(b'"\xff"', "not JSON", id="not UTF-8"),
        pytest.param("\ufeff{}".encode(), "not JSON", id="a byte order mark"),
        pytest.param(b"[" * 100_000, "not JSON", id="too deep"),
        pytest.param(b"9" * 5000, "not JSON", id="too many digits"),
    ],
)
def test_what_is_none(data: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        strict_json.decode(data, what="x")


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"null", b'"text"', b'{"a": 1, "a": 1}', b" " * (strict_json.MAX_DOCUMENT + 1)],
    ids=["nothing", "a list", "null", "text", "a key twice", "too long"],
)
def test_what_is_no_object(data: bytes) -> None:
    assert strict_json.document(b'{"a": {}}', "x") == {"a": {}}
    with pytest.raises(DecodeError):
        strict_json.document(data, "x")


Take = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("take", "good", "bad"),
    [
        (lambda item: strict_json.text(item, "a", "x"), "b", [1, None, ["b"]]),
        (lambda item: strict_json.number(item, "a", 8, "x"), 7, [8, -1, 1.0, True, "1"]),
        (lambda item: strict_json.mapping(item, "a", "x"), {"b": 1}, [[], None, "{}"]),
        (lambda item: strict_json.objects(item, "a", "x"), [{}], [{}, [1], None]),
    ],
    ids=["text", "number", "mapping", "objects"],
)
def test_members_have_their_types(take: Take, good: Any, bad: list[Any]) -> None:
    assert take({"a": good}) == good
    for value in bad:
        with pytest.raises(DecodeError, match="a is missing or no"):
            take({"a": value})
    with pytest.raises(DecodeError, match="a is missing or no"):
        take({})


def test_hexadecimal_members() -> None:
    assert strict_json.hexadecimal({"a": "0aF0"}, "a", 2, "x") == b"\x0a\xf0"
    for bad in ("0a", "0aF0aa", "0a f0", "0aFg", ""):
        with pytest.raises(DecodeError, match="a is not 2 bytes in hex"):
            strict_json.hexadecimal({"a": bad}, "a", 2, "x")
